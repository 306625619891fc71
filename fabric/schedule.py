"""A collective as a dependency list: who sends which elements to whom, after what.

Comes in: the transfers that a collective writes down. Goes out: a `Schedule`, which `interpreter` tries, ranks execute
on real bytes and `fluid.play` plays in virtual time. Nothing here knows sockets or clocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

from fabric.errors import RequestError

__all__ = ["ELEMENT_BYTES", "RESULTS", "Connection", "Draft", "Op", "Progress", "Result", "Schedule", "Transfer", "Waits", "check_structure", "feasible_order"]

ELEMENT_BYTES = 4  # a rank's buffer holds 32-bit numbers

Connection = tuple[int, int, int]
Op = Literal["sum", "copy"]
Result = Literal["allreduce", "reduce", "reducescatter", "allgather", "broadcast", "alltoall", "sendrecv"]
RESULTS: tuple[Result, ...] = get_args(Result)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Rank `src` sends elements [start, stop) of its buffer to rank `dst`, who adds ("sum") or overwrites ("copy").

    They land at the same place there, or from element `into` on. It may begin when every transfer in `after` is complete
    at `src`: received by it, or wholly sent by it. Transfers on one connection (src, dst, channel) leave and arrive one
    after another, in the order of their ids. One from a rank to itself crosses no network: it moves or adds within its
    buffer, at once.
    """

    id: int
    src: int
    dst: int
    start: int
    stop: int
    op: Op
    after: tuple[int, ...] = ()
    channel: int = 0
    into: int | None = None

    @property
    def nbytes(self) -> int:
        """Payload bytes on the wire."""
        return 0 if self.local else (self.stop - self.start) * ELEMENT_BYTES

    @property
    def local(self) -> bool:
        """Whether it stays within a rank."""
        return self.src == self.dst

    @property
    def lands(self) -> int:
        """The first element of the receiver's buffer that it changes."""
        return self.start if self.into is None else self.into

    @property
    def connection(self) -> Connection:
        """The ordered stream that carries it: (src, dst, channel)."""
        return (self.src, self.dst, self.channel)


@dataclass(frozen=True)
class Schedule:
    """A whole collective: `ranks` buffers of `elements` numbers, and transfers whose id is their place in the tuple.

    `groups` of equal size go through it side by side, each by itself: rank r belongs to group r mod `groups`.
    `result` says what every rank must end with (see `outcome.duties`). `scratch` elements follow each rank's own, for
    what may not land among them; nothing is known of what these hold. With the result "sendrecv" ranks get
    what the one `shift` places before them has. `note` says in words why it is as it is, where that was chosen.
    """

    collective: str
    ranks: int
    elements: int
    transfers: tuple[Transfer, ...]
    groups: int = 1
    result: Result = "allreduce"
    scratch: int = 0
    note: str = ""
    shift: int = 0

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
        """The ids that each connection carries, in order of delivery; what stays within a rank needs none."""
        carried: dict[Connection, list[int]] = defaultdict(list)
        for transfer in self.transfers:
            if not transfer.local:
                carried[transfer.connection].append(transfer.id)
        return {connection: tuple(ids) for connection, ids in carried.items()}

    @cached_property
    def fault(self) -> str | None:
        """Why it cannot be executed to its end; None where it can."""
        return next(_faults(self), None)

    @cached_property
    def waits(self) -> Waits:
        """Who waits for whom; expects a structure that `check_structure` accepts."""
        return _waits(self)

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
            "result": self.result, "scratch": self.scratch, "shift": self.shift,
            "transfers": [
                [item.src, item.dst, item.start, item.stop, item.op, list(item.after), item.channel, item.into]
                for item in self.transfers
            ],
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Schedule:
        """The schedule that `to_json` wrote; a recorded one that does not say its groups has one, all-reduces, and needs no scratch."""
        transfers = tuple(
            Transfer(number, src, dst, start, stop, op, tuple(after), channel, *into)
            for number, (src, dst, start, stop, op, after, channel, *into) in enumerate(data["transfers"])
        )
        return Schedule(
            data["collective"], data["ranks"], data["elements"], transfers,
            data.get("groups", 1), data.get("result", "allreduce"), data.get("scratch", 0), shift=data.get("shift", 0),
        )  # fmt: skip


class Draft:
    """A schedule being written: `send` adds transfers, `schedule` gives the whole.

    >>> draft = Draft("pair", 2, 1024)
    >>> there = draft.send(0, 1, 0, 1024, "sum")
    >>> back = draft.send(1, 0, 0, 1024, "copy", [there])
    >>> [(item.src, item.dst, item.after) for item in draft.schedule().transfers]
    [(0, 1, ()), (1, 0, (0,))]
    """

    def __init__(self, collective: str, ranks: int, elements: int, result: Result = "allreduce", scratch: int = 0, shift: int = 0) -> None:
        self._collective, self._ranks, self._elements = collective, ranks, elements
        self._result, self._scratch, self._shift = result, scratch, shift
        self._transfers: list[Transfer] = []

    def send(
        self, src: int, dst: int, start: int, stop: int, op: Op, after: Iterable[int | None] = (), channel: int = 0, into: int | None = None
    ) -> int | None:
        """The id of a new transfer; None where there is nothing to send, which may stand in another one's `after`."""
        if start == stop:
            return None
        number = len(self._transfers)
        self._transfers.append(Transfer(number, src, dst, start, stop, op, _given(after), channel, into))
        return number

    def schedule(self) -> Schedule:
        """All that was added."""
        return Schedule(self._collective, self._ranks, self._elements, tuple(self._transfers), 1, self._result, self._scratch, shift=self._shift)


def _given(after: Iterable[int | None]) -> tuple[int, ...]:
    """Each once, in order."""
    return tuple(dict.fromkeys(number for number in after if number is not None))


@dataclass(frozen=True, slots=True)
class Waits:
    """By transfer: for how many events it waits, and which wait for its leaving, or its arrival."""

    missing: list[int]
    freed_by_leaving: list[list[int]]
    freed_by_arrival: list[list[int]]

    def add(self, number: int, freed: list[int]) -> None:
        """Let a transfer wait for one event more."""
        self.missing[number] += 1
        freed.append(number)


def _waits(schedule: Schedule) -> Waits:
    size = len(schedule.transfers)
    waits = Waits([0] * size, [[] for _ in range(size)], [[] for _ in range(size)])
    for transfer in schedule.transfers:
        for other in transfer.after:
            sent = schedule.transfers[other].src == transfer.src
            waits.add(transfer.id, (waits.freed_by_leaving if sent else waits.freed_by_arrival)[other])
    for ids in schedule.connections.values():
        for earlier, later in pairwise(ids):
            waits.add(later, waits.freed_by_leaving[earlier])
    return waits


class Progress:
    """Which transfers may begin, as others leave their sender and arrive at their receiver.

    `ready` are those that wait for nothing. Expects a structure that `check_structure` accepts; a transfer is reported
    exactly once, after all it waits for. One within a rank leaves and arrives, too.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._waits = schedule.waits
        self._missing = self._waits.missing.copy()
        self.ready = [number for number, missing in enumerate(self._missing) if not missing]

    def left(self, number: int) -> list[int]:
        """The transfers that may begin now that the last byte of this one has left its sender."""
        return self._free(self._waits.freed_by_leaving[number])

    def arrived(self, number: int) -> list[int]:
        """The transfers that may begin now that this one is in the receiver's buffer."""
        return self._free(self._waits.freed_by_arrival[number])

    def _free(self, numbers: list[int]) -> list[int]:
        free = []
        for number in numbers:
            self._missing[number] -= 1
            if not self._missing[number]:
                free.append(number)
        return free


def check_structure(schedule: Schedule) -> None:
    """Accept a schedule that can be executed to its end; RequestError names the first wrong transfer, or a cycle."""
    if schedule.fault is not None:
        raise RequestError(f"schedule {schedule.collective}: {schedule.fault}")


def _faults(schedule: Schedule) -> Iterator[str]:
    """What is wrong with a whole, then with its transfers, then between these; whoever wants the second must mend the first."""
    if schedule.ranks < 1 or schedule.elements < 0 or schedule.scratch < 0:
        got = f"{schedule.ranks} ranks of {schedule.elements} elements" + (f" and {schedule.scratch} of scratch" if schedule.scratch < 0 else "")
        yield f"got {got}; accepted: 1 rank or more, 0 elements or more"
    if schedule.groups < 1 or schedule.ranks % schedule.groups:
        got = f"{schedule.groups} groups of {schedule.ranks} ranks"
        yield f"got {got}; accepted: a number that divides the ranks; rank r is in r mod groups"
    if schedule.result not in RESULTS:
        yield f"got result {schedule.result!r}; accepted: {', '.join(map(repr, RESULTS))}; what shall ranks end with?"
    for place, transfer in enumerate(schedule.transfers):
        if transfer.id != place:
            yield f"the transfer at place {place} has id {transfer.id}; number them in order"
    for transfer in schedule.transfers:
        yield from (f"transfer {transfer.id} {text}" for text in _misfits(schedule, transfer))
    stuck = set(range(len(schedule.transfers))) - set(feasible_order(schedule))
    if stuck:
        ring = " -> ".join(map(str, _cycle(schedule, stuck)))
        yield f"transfers wait for each other: {ring}; break it in `after` or by another channel"


def _misfits(schedule: Schedule, transfer: Transfer) -> Iterator[str]:
    for rank in (transfer.src, transfer.dst):
        if not 0 <= rank < schedule.ranks:
            yield f"names rank {rank}; accepted: 0 to {schedule.ranks - 1}"
    size, space = transfer.stop - transfer.start, schedule.elements + schedule.scratch
    if not 0 <= transfer.start <= transfer.stop <= space:
        yield f"covers elements [{transfer.start}, {transfer.stop}); accepted: 0 <= start <= stop <= {space}"
    if not 0 <= transfer.lands <= space - size:
        yield f"lands at element {transfer.lands}; accepted: 0 to {space - size} for its {size} of {space} elements"
    if transfer.local and abs(transfer.lands - transfer.start) < size:
        yield f"goes from rank {transfer.src} to itself, onto its own elements; leave it out, or let it land elsewhere"
    if transfer.op not in ("sum", "copy"):
        yield f"has op {transfer.op!r}; accepted: 'sum', 'copy'"
    for other in transfer.after:
        if not 0 <= other < len(schedule.transfers):
            yield f"waits for {other}; accepted: ids from 0 to {len(schedule.transfers) - 1}"
        elif transfer.src not in schedule.transfers[other].connection[:2]:
            yield f"waits for {other}, which rank {transfer.src} neither sends nor receives; wait for one it sees"


def feasible_order(schedule: Schedule) -> list[int]:
    """The transfers in an order in which each comes after all that it waits for; those in cycles, and behind them, are missing."""
    progress = Progress(schedule)
    order = progress.ready
    for number in order:  # which grows meanwhile
        order += progress.left(number)
        order += progress.arrived(number)
    return order


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
