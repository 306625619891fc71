"""Tries a schedule on numbers, in random legal orders: what it leaves with each rank must be what its result promises.

Comes in: a `Schedule`. Goes out: nothing, or a RequestError that names the first wrong element. No sockets, no clocks.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fabric.errors import RequestError
from fabric.outcome import Duty, duties
from fabric.schedule import Connection, Op, Progress, Schedule, check_structure

__all__ = ["Shape", "check_allreduce", "check_result"]

PLAY_SPREAD = 3.0  # a transfer lasts 10^-3 to 10^3, so that some overtake nearly all others


def check_allreduce(schedule: Schedule, seed: int = 0, orders: int = 8) -> None:
    """Accept a schedule that leaves the sum of its group's buffers with every rank; see `check_result`."""
    if schedule.result != "allreduce":
        got = f"result {schedule.result!r}"
        raise RequestError(f"schedule {schedule.collective}: got {got}; accepted: 'allreduce', where every rank holds the sum")
    check_result(schedule, seed, orders)


class _Move(NamedTuple):
    """A transfer of the pieces [begin, end), which land at the piece `lands` and further on."""

    src: int
    dst: int
    begin: int
    end: int
    lands: int
    op: Op
    after: tuple[int, ...]
    channel: int


class _Goal(NamedTuple):
    """A duty: the pieces [begin, end) of a rank, as the sum of what sources began with from piece `at` on."""

    rank: int
    begin: int
    end: int
    at: int
    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A schedule without its sizes: its buffers are so many pieces, within which all elements fare alike. Those of one shape are right or wrong together."""

    ranks: int
    pieces: int
    moves: tuple[_Move, ...]
    goals: tuple[_Goal, ...]


def check_result(schedule: Schedule, seed: int = 0, orders: int = 8, right: set[Shape] | None = None) -> None:
    """Accept a schedule that leaves every rank with what it must hold, whichever legal order it runs in.

    Plays it `orders` times on random int64 buffers, in random orders drawn from `seed`. A send reads its elements when
    it begins or when its last byte leaves, by chance, and they are applied when it arrives: a program may do either, so
    a missing dependency shows as a wrong value. RequestError names the fault of structure, or the first rank and element
    that is wrong. What has a shape among `right` is not played; what is right adds its own.
    """
    check_structure(schedule)
    wanted = [duty for rank in range(schedule.ranks) for duty in duties(schedule, rank)]
    cuts = _cuts(schedule, wanted)
    shape = _shape(schedule, wanted, cuts)
    if right is not None and shape in right:
        return
    for order in range(orders):
        rng = np.random.default_rng([seed, order])
        before = rng.integers(0, 1 << 40, size=(shape.ranks, shape.pieces), dtype=np.int64)
        after = before.copy()
        _Interpreter(schedule, shape, after, rng).run()
        for duty, goal in zip(wanted, shape.goals, strict=True):
            origin = slice(goal.at, goal.at + goal.end - goal.begin)
            wrong = np.flatnonzero(after[goal.rank, goal.begin : goal.end] != before[list(goal.sources), origin].sum(axis=0))
            if wrong.size:
                element = cuts[goal.begin + int(wrong[0])]
                raise RequestError(
                    f"schedule {schedule.collective}: rank {duty.rank} ends with a wrong {duty.what} at element {element} "
                    f"(random order {order} of seed {seed}); a transfer is missing, doubled, or begins too early"
                )
    if right is not None:
        right.add(shape)


def _shape(schedule: Schedule, wanted: Sequence[Duty], cuts: Sequence[int]) -> Shape:
    piece = {edge: number for number, edge in enumerate(cuts)}
    moves = tuple(
        _Move(item.src, item.dst, piece[item.start], piece[item.stop], piece[item.lands], item.op, item.after, item.channel) for item in schedule.transfers
    )
    goals = tuple(_Goal(duty.rank, piece[duty.start], piece[duty.stop], piece[duty.at], duty.sources) for duty in wanted)
    return Shape(schedule.ranks, len(cuts) - 1, moves, goals)


def _cuts(schedule: Schedule, wanted: Sequence[Duty]) -> list[int]:
    """The elements where anything starts or stops: between two of them all fare alike, so one stands for all.

    What lands elsewhere than it was carries the cuts within it along, in both directions.
    """
    cuts = {0, schedule.elements, schedule.elements + schedule.scratch}
    cuts.update(edge for item in schedule.transfers for size in [item.stop - item.start] for edge in (item.start, item.stop, item.lands, item.lands + size))
    cuts.update(edge for duty in wanted for edge in (duty.start, duty.stop, duty.at, duty.at + duty.stop - duty.start))
    moves = {(item.start, item.lands, item.stop - item.start) for item in schedule.transfers}
    moves |= {(duty.at, duty.start, duty.stop - duty.start) for duty in wanted}
    shifts = [move for move in sorted(moves) if move[0] != move[1]]
    new = cuts
    while new:
        carried = {edge + to - at for at, to, size in shifts for edge in new if at < edge < at + size}
        carried |= {edge + at - to for at, to, size in shifts for edge in new if to < edge < to + size}
        new = carried - cuts
        cuts |= new
    return sorted(cuts)


@dataclass
class _Interpreter:
    """One play of a schedule on `buffers`, one column for each piece of its shape."""

    schedule: Schedule
    shape: Shape
    buffers: npt.NDArray[np.int64]
    rng: np.random.Generator
    _events: list[tuple[float, int, bool, int]] = field(default_factory=list)  # time, tie-break, arrives or leaves, id
    _data: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    _flying: dict[Connection, deque[int]] = field(default_factory=lambda: defaultdict(deque))

    def run(self) -> None:
        """Begin, leave and arrive, until nothing is left to do."""
        self._tie = count()
        size = len(self.schedule.transfers)
        self._lasts = (10.0 ** self.rng.uniform(-PLAY_SPREAD, PLAY_SPREAD, (2, size))).tolist()
        self._early = (self.rng.random(size) < 0.5).tolist()
        progress = Progress(self.schedule)
        self._begin(0.0, progress.ready)
        while self._events:
            now, _, arrives, number = heapq.heappop(self._events)
            if self.schedule.transfers[number].local:
                self._read(number)
                self._apply(number)
                self._begin(now, [*progress.left(number), *progress.arrived(number)])
            elif arrives:
                # The event says that this connection delivers; what it delivers is its oldest transfer.
                number = self._flying[self.schedule.transfers[number].connection].popleft()
                self._apply(number)
                self._begin(now, progress.arrived(number))
            else:
                self._leave(now, number)
                self._begin(now, progress.left(number))

    def _begin(self, now: float, numbers: Iterable[int]) -> None:
        for number in numbers:
            if self._early[number]:
                self._read(number)
            self._later(now, False, number)

    def _leave(self, now: float, number: int) -> None:
        transfer = self.schedule.transfers[number]
        if not self._early[number]:
            self._read(number)
        self._flying[transfer.connection].append(number)
        self._later(now, True, number)

    def _read(self, number: int) -> None:
        move = self.shape.moves[number]
        self._data[number] = self.buffers[move.src, move.begin : move.end].copy()

    def _apply(self, number: int) -> None:
        move = self.shape.moves[number]
        target = self.buffers[move.dst, move.lands : move.lands + move.end - move.begin]
        data = self._data.pop(number)
        target[:] = target + data if move.op == "sum" else data

    def _later(self, now: float, arrives: bool, number: int) -> None:
        heapq.heappush(self._events, (now + self._lasts[arrives][number], next(self._tie), arrives, number))
