"""What a collective must leave with each rank, as sums and copies of what ranks began with.

Comes in: a `Schedule` and a rank. Goes out: its `Duty`s, which `interpreter` holds plays to, and ranks their own data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fabric.schedule import Schedule

__all__ = ["Duty", "duties", "share"]


@dataclass(frozen=True, slots=True)
class Duty:
    """`rank` must end with elements [start, stop) being the sum of what each of `sources` began with from element `at` on."""

    rank: int
    start: int
    stop: int
    sources: tuple[int, ...]
    at: int

    @property
    def what(self) -> str:
        """A sum or a value, for messages."""
        return "sum" if len(self.sources) > 1 else "value"


def share(elements: int, parts: int, place: int) -> tuple[int, int]:
    """The elements [start, stop) that are a place's own when `parts` share them; sizes differ by at most one.

    >>> [share(10, 4, place) for place in range(4)]
    [(0, 2), (2, 5), (5, 7), (7, 10)]
    """
    return elements * place // parts, elements * (place + 1) // parts


def duties(schedule: Schedule, rank: int) -> Iterator[Duty]:
    """All that a rank must end with; what else its buffer holds is nobody's business.

    In each group of p, by place: an all-reduce leaves everyone the sum, a reduce the first; a reduce-scatter leaves each
    the sum of its own share; an all-gather everyone each other's share; a broadcast everyone the first one's buffer; an
    all-to-all, in the scratch area, each one's share of everyone's buffer, by place, `-(-elements // p)` apart; a send and
    receive, there too, the buffer of the one `shift` places before.
    """
    n, members = schedule.elements, tuple(range(rank % schedule.groups, schedule.ranks, schedule.groups))
    place, size = rank // schedule.groups, len(members)
    found: Sequence[Duty] = ()
    if schedule.result == "allreduce" or (schedule.result == "reduce" and place == 0):
        found = [Duty(rank, 0, n, members, 0)]
    elif schedule.result == "reducescatter":
        start, stop = share(n, size, place)
        found = [Duty(rank, start, stop, members, start)]
    elif schedule.result == "allgather":
        shares = [share(n, size, other) for other in range(size)]
        found = [Duty(rank, start, stop, (member,), start) for member, (start, stop) in zip(members, shares, strict=True)]
    elif schedule.result == "broadcast":
        found = [Duty(rank, 0, n, members[:1], 0)]
    elif schedule.result == "alltoall":
        start, stop = share(n, size, place)
        slots = [n + other * -(-n // size) for other in range(size)]
        found = [Duty(rank, slot, slot + stop - start, (member,), start) for member, slot in zip(members, slots, strict=True)]
    elif schedule.result == "sendrecv":
        found = [Duty(rank, n, 2 * n, (members[(place - schedule.shift) % size],), 0)]
    yield from (duty for duty in found if duty.start < duty.stop)
