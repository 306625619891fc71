"""A collective as a dependency list: who sends which elements to whom, after what; and an interpreter that tries it.

Comes in: the transfers that a collective writes down. Goes out: a checked `Schedule`, which ranks execute on real bytes
and `fluid.play` plays in virtual time. Nothing here knows sockets or clocks.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fabric.errors import RequestError

__all__ = [
    "ELEMENT_BYTES",
    "Connection",
    "Op",
    "Progress",
    "Result",
    "Schedule",
    "Transfer",
    "check_allreduce",
    "check_result",
    "check_structure",
]

ELEMENT_BYTES = 4  # a rank's buffer holds 32-bit numbers
PLAY_SPREAD = 3.0  # in the interpreter a transfer lasts 10^-3 to 10^3, so that some overtake nearly all others

Connection = tuple[int, int, int]
Op = Literal["sum", "copy"]
Result = Literal["allreduce", "reduce"]
RESULTS: tuple[Result, ...] = ("allreduce", "reduce")


@dataclass(frozen=True, slots=True)
class Transfer:
    """Rank `src` sends elements [start, stop) of its buffer to rank `dst`, who adds ("sum") or overwrites ("copy").

    It may begin when every transfer in `after` is complete at `src`: received by it, or wholly sent by it. Transfers on
    one connection (src, dst, channel) leave and arrive one after another, in the order of their ids.
    """

    id: int
    src: int
    dst: int
    start: int
    stop: int
    op: Op
    after: tuple[int, ...] = ()
    channel: int = 0

    @property
    def nbytes(self) -> int:
        """Payload bytes on the wire."""
        return (self.stop - self.start) * ELEMENT_BYTES

    @property
    def connection(self) -> Connection:
        """The ordered stream that carries it: (src, dst, channel)."""
        return (self.src, self.dst, self.channel)


@dataclass(frozen=True)
class Schedule:
    """A whole collective: `ranks` buffers of `elements` numbers, and transfers whose id is their place in the tuple.

    `groups` of equal size go through it side by side, each by itself: rank r belongs to group r mod `groups`.
    `result` says who ends with the sum of its group: every rank ("allreduce"), or only the group's first ("reduce").
    """

    collective: str
    ranks: int
    elements: int
    transfers: tuple[Transfer, ...]
    groups: int = 1
    result: Result = "allreduce"

    def holds_sum(self, rank: int) -> bool:
        """Whether a rank must end with the sum; what another one ends with is nobody's business."""
        return self.result == "allreduce" or rank < self.groups

    @property
    def group_ranks(self) -> int:
        """How many ranks each group has."""
        return self.ranks // self.groups

    @property
    def nbytes(self) -> int:
        """Bytes of one rank's buffer: what nccl-tests calls the size."""
        return self.elements * ELEMENT_BYTES

    @cached_property
    def connections(self) -> dict[Connection, tuple[int, ...]]:
        """The ids that each connection carries, in order of delivery."""
        carried: dict[Connection, list[int]] = defaultdict(list)
        for transfer in self.transfers:
            carried[transfer.connection].append(transfer.id)
        return {connection: tuple(ids) for connection, ids in carried.items()}

    def sent_by(self, rank: int) -> tuple[Transfer, ...]:
        """The transfers that leave a rank, in the order of their ids."""
        return tuple(transfer for transfer in self.transfers if transfer.src == rank)

    def received_by(self, rank: int) -> tuple[Transfer, ...]:
        """The transfers that end at a rank, in the order of their ids."""
        return tuple(transfer for transfer in self.transfers if transfer.dst == rank)

    def nbytes_sent_by(self, rank: int) -> int:
        """Payload bytes that a rank puts on the wire."""
        return sum(transfer.nbytes for transfer in self.sent_by(rank))

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON can hold and `from_json` reads; a transfer is a list, without its id."""
        return {
            "collective": self.collective, "ranks": self.ranks, "elements": self.elements, "groups": self.groups,
            "result": self.result,
            "transfers": [
                [item.src, item.dst, item.start, item.stop, item.op, list(item.after), item.channel]
                for item in self.transfers
            ],
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Schedule:
        """The schedule that `to_json` wrote; a recorded one that does not say its groups has one, and all-reduces."""
        transfers = tuple(
            Transfer(number, src, dst, start, stop, op, tuple(after), channel)
            for number, (src, dst, start, stop, op, after, channel) in enumerate(data["transfers"])
        )
        return Schedule(
            data["collective"], data["ranks"], data["elements"], transfers, data.get("groups", 1), data.get("result", "allreduce")
        )


class Progress:
    """Which transfers may begin, as others leave their sender and arrive at their receiver.

    `ready` are those that wait for nothing. Expects a structure that `check_structure` accepts; a transfer is reported
    exactly once, after all it waits for.
    """

    def __init__(self, schedule: Schedule) -> None:
        size = len(schedule.transfers)
        self._missing = [0] * size
        self._freed_by_leaving: list[list[int]] = [[] for _ in range(size)]
        self._freed_by_arrival: list[list[int]] = [[] for _ in range(size)]
        for transfer in schedule.transfers:
            for other in transfer.after:
                sent = schedule.transfers[other].src == transfer.src
                self._wait(transfer.id, (self._freed_by_leaving if sent else self._freed_by_arrival)[other])
        for ids in schedule.connections.values():
            for earlier, later in pairwise(ids):
                self._wait(later, self._freed_by_leaving[earlier])
        self.ready = [number for number, missing in enumerate(self._missing) if not missing]

    def left(self, number: int) -> list[int]:
        """The transfers that may begin now that the last byte of this one has left its sender."""
        return self._free(self._freed_by_leaving[number])

    def arrived(self, number: int) -> list[int]:
        """The transfers that may begin now that this one is in the receiver's buffer."""
        return self._free(self._freed_by_arrival[number])

    def _wait(self, number: int, freed: list[int]) -> None:
        self._missing[number] += 1
        freed.append(number)

    def _free(self, numbers: list[int]) -> list[int]:
        free = []
        for number in numbers:
            self._missing[number] -= 1
            if not self._missing[number]:
                free.append(number)
        return free


def check_structure(schedule: Schedule) -> None:
    """Accept a schedule that can be executed to its end; RequestError names the first wrong transfer, or a cycle."""
    where = f"schedule {schedule.collective}"
    if schedule.ranks < 1 or schedule.elements < 0:
        got = f"{schedule.ranks} ranks of {schedule.elements} elements"
        raise RequestError(f"{where}: got {got}; accepted: 1 rank or more, 0 elements or more")
    if schedule.groups < 1 or schedule.ranks % schedule.groups:
        got = f"{schedule.groups} groups of {schedule.ranks} ranks"
        raise RequestError(f"{where}: got {got}; accepted: a number that divides the ranks; rank r is in r mod groups")
    if schedule.result not in RESULTS:
        raise RequestError(f"{where}: got result {schedule.result!r}; accepted: 'allreduce', 'reduce'; who shall hold the sum?")
    for place, transfer in enumerate(schedule.transfers):
        if transfer.id != place:
            raise RequestError(f"{where}: the transfer at place {place} has id {transfer.id}; number them in order")
    for transfer in schedule.transfers:
        _check_transfer(where, schedule, transfer)
    stuck = _stuck(schedule)
    if stuck:
        ring = " -> ".join(map(str, _cycle(schedule, stuck)))
        raise RequestError(f"{where}: transfers wait for each other: {ring}; break it in `after` or by another channel")


def _check_transfer(where: str, schedule: Schedule, transfer: Transfer) -> None:
    what = f"{where}: transfer {transfer.id}"
    for rank in (transfer.src, transfer.dst):
        if not 0 <= rank < schedule.ranks:
            raise RequestError(f"{what} names rank {rank}; accepted: 0 to {schedule.ranks - 1}")
    if transfer.src == transfer.dst:
        raise RequestError(f"{what} goes from rank {transfer.src} to itself; leave it out")
    if not 0 <= transfer.start <= transfer.stop <= schedule.elements:
        covers = f"[{transfer.start}, {transfer.stop})"
        raise RequestError(f"{what} covers elements {covers}; accepted: 0 <= start <= stop <= {schedule.elements}")
    if transfer.op not in ("sum", "copy"):
        raise RequestError(f"{what} has op {transfer.op!r}; accepted: 'sum', 'copy'")
    for other in transfer.after:
        if not 0 <= other < len(schedule.transfers):
            raise RequestError(f"{what} waits for {other}; accepted: ids from 0 to {len(schedule.transfers) - 1}")
        if transfer.src not in schedule.transfers[other].connection[:2]:
            raise RequestError(
                f"{what} waits for {other}, which rank {transfer.src} neither sends nor receives; wait for one it sees"
            )


def _stuck(schedule: Schedule) -> set[int]:
    """The transfers that can never begin; none when the dependencies have no cycle."""
    progress = Progress(schedule)
    stuck = set(range(len(schedule.transfers)))
    free = deque(progress.ready)
    while free:
        number = free.popleft()
        stuck.remove(number)
        free.extend(progress.left(number) + progress.arrived(number))
    return stuck


def _cycle(schedule: Schedule, stuck: set[int]) -> list[int]:
    """One cycle among transfers that can never begin, its first id repeated at the end."""
    previous = {later: earlier for ids in schedule.connections.values() for earlier, later in pairwise(ids)}
    seen: list[int] = []
    number = min(stuck)
    while number not in seen:
        seen.append(number)
        waits_for = (*schedule.transfers[number].after, previous.get(number, -1))
        number = next(other for other in waits_for if other in stuck)
    return [*seen[seen.index(number) :], number]


def check_allreduce(schedule: Schedule, seed: int = 0, orders: int = 8) -> None:
    """Accept a schedule that leaves the sum of its group's buffers with every rank; see `check_result`."""
    if schedule.result != "allreduce":
        got = f"result {schedule.result!r}"
        raise RequestError(f"schedule {schedule.collective}: got {got}; accepted: 'allreduce', where every rank holds the sum")
    check_result(schedule, seed, orders)


def check_result(schedule: Schedule, seed: int = 0, orders: int = 8) -> None:
    """Accept a schedule that leaves the sum with every rank that must hold it, whichever legal order it runs in.

    Plays it `orders` times on random int64 buffers, in random orders drawn from `seed`. A send reads its elements when
    it begins or when its last byte leaves, by chance, and they are applied when it arrives: a program may do either, so
    a missing dependency shows as a wrong sum. RequestError names the fault of structure, or the first rank and element
    that is wrong.
    """
    check_structure(schedule)
    cuts = _cuts(schedule)
    holds = np.array([schedule.holds_sum(rank) for rank in range(schedule.ranks)])[:, np.newaxis]
    for order in range(orders):
        rng = np.random.default_rng([seed, order])
        buffers = rng.integers(0, 1 << 40, size=(schedule.ranks, len(cuts) - 1), dtype=np.int64)
        expected = _group_sums(buffers, schedule.groups)
        _Interpreter(schedule, cuts, buffers, rng).run()
        wrong = np.argwhere((buffers != expected) & holds)
        if wrong.size:
            rank, piece = wrong[0]
            raise RequestError(
                f"schedule {schedule.collective}: rank {rank} ends with a wrong sum at element {cuts[piece]} "
                f"(random order {order} of seed {seed}); a transfer is missing, doubled, or begins too early"
            )


def _group_sums(buffers: npt.NDArray[np.int64], groups: int) -> npt.NDArray[np.int64]:
    """For every rank, the sum of the buffers of the ranks r, r + groups, r + 2 groups, ... of its group."""
    members = len(buffers) // groups
    sums = buffers.reshape(members, groups, buffers.shape[1]).sum(axis=0)
    return np.tile(sums, (members, 1))


def _cuts(schedule: Schedule) -> list[int]:
    """The elements where a transfer starts or stops: between two of them all fare alike, so one stands for all."""
    inner = {edge for transfer in schedule.transfers for edge in (transfer.start, transfer.stop)}
    return sorted({0, schedule.elements} | inner)


@dataclass
class _Interpreter:
    """One play of a schedule on `buffers`, one column for each piece between `cuts`."""

    schedule: Schedule
    cuts: list[int]
    buffers: npt.NDArray[np.int64]
    rng: np.random.Generator
    _events: list[tuple[float, int, bool, int]] = field(default_factory=list)  # time, tie-break, arrives or leaves, id
    _data: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    _flying: dict[Connection, deque[int]] = field(default_factory=lambda: defaultdict(deque))

    def run(self) -> None:
        """Begin, leave and arrive, until nothing is left to do."""
        self._column = {edge: column for column, edge in enumerate(self.cuts)}
        self._tie = count()
        size = len(self.schedule.transfers)
        self._lasts = (10.0 ** self.rng.uniform(-PLAY_SPREAD, PLAY_SPREAD, (2, size))).tolist()
        self._early = (self.rng.random(size) < 0.5).tolist()
        progress = Progress(self.schedule)
        self._begin(0.0, progress.ready)
        while self._events:
            now, _, arrives, number = heapq.heappop(self._events)
            if arrives:
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
        self._data[number] = self._part(number, self.schedule.transfers[number].src).copy()

    def _apply(self, number: int) -> None:
        transfer = self.schedule.transfers[number]
        target = self._part(number, transfer.dst)
        data = self._data.pop(number)
        target[:] = target + data if transfer.op == "sum" else data

    def _part(self, number: int, rank: int) -> npt.NDArray[np.int64]:
        transfer = self.schedule.transfers[number]
        return self.buffers[rank, self._column[transfer.start] : self._column[transfer.stop]]

    def _later(self, now: float, arrives: bool, number: int) -> None:
        heapq.heappush(self._events, (now + self._lasts[arrives][number], next(self._tie), arrives, number))
