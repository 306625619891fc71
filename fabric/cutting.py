"""Schedules made from schedules: transfers cut into parts, for several connections or one after the other; and several side by side.

Comes in: a `Schedule`. Goes out: one that leaves the same with every rank. A part waits only for the parts whose
elements it touches, so that what is cut flows on while the rest is still coming.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from fabric.errors import RequestError
from fabric.schedule import Schedule, Transfer

__all__ = ["in_pieces", "over_channels", "side_by_side"]


def in_pieces(schedule: Schedule, pieces: int) -> Schedule:
    """Every transfer as up to `pieces` one after another on its connection, so that a chain or a tree is a pipeline.

    RequestError for less than one.
    """
    if pieces < 1:
        raise RequestError(f"collective.pieces: got {pieces}; accepted: 1 or more")
    return _cut(schedule, pieces, lambda channel, _: channel)


def over_channels(schedule: Schedule, channels: int) -> Schedule:
    """Every transfer as equal parts on `channels` connections beside each other, as queue pairs of one edge.

    A connection of the schedule becomes `channels` of them. RequestError for less than one.
    """
    if channels < 1:
        raise RequestError(f"collective.channels: got {channels}; accepted: 1 or more")
    return _cut(schedule, channels, lambda channel, part: channel * channels + part)


def side_by_side(schedule: Schedule, groups: int) -> Schedule:
    """As many of a schedule as `groups`, each by itself and all at once: group g has ranks g, g + groups, g + 2 groups, ...

    Expects a schedule of one group, and `groups` of 1 or more.
    """
    transfers = (
        replace(
            item, id=item.id * groups + group, src=item.src * groups + group, dst=item.dst * groups + group,
            after=tuple(number * groups + group for number in item.after),
        )
        for item in schedule.transfers for group in range(groups)
    )  # fmt: skip
    return replace(schedule, ranks=schedule.ranks * groups, transfers=tuple(transfers), groups=groups)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What became of `whole`: parts with ids from `first` on, the pieces between `edges`; `numbers` are their places among all that were asked for."""

    whole: Transfer
    first: int
    edges: list[int]
    numbers: list[int]

    @property
    def shift(self) -> int:
        """How much further on they land."""
        return self.whole.lands - self.whole.start

    def between(self, start: int, stop: int) -> range:
        """The parts that share elements with [start, stop), by their place."""
        return range(bisect_right(self.edges, start, 1) - 1, bisect_left(self.edges, stop, 0, len(self.numbers)))


def _cut(schedule: Schedule, parts: int, channel: Callable[[int, int], int]) -> Schedule:
    if parts == 1:
        return schedule
    made: list[_Parts] = []
    count = 0
    for whole in schedule.transfers:
        made.append(_parted(whole, parts, count))
        count += len(made[-1].numbers)
    cut: list[Transfer] = []
    for mine in made:
        whole = mine.whole
        befores = [made[number] for number in whole.after]
        for number, start, stop in zip(mine.numbers, mine.edges, mine.edges[1:], strict=False):
            after = tuple(other.first + place for other in befores for place in _touching(mine, start, stop, other))
            into = None if whole.into is None else start + mine.shift
            cut.append(Transfer(len(cut), whole.src, whole.dst, start, stop, whole.op, after, channel(whole.channel, number), into))
    return replace(schedule, transfers=tuple(cut))


def _parted(whole: Transfer, parts: int, first: int) -> _Parts:
    """Without those that would be empty, but for the one of an empty transfer."""
    size = whole.stop - whole.start
    edges = [whole.start + size * part // parts for part in range(parts + 1)]
    numbers = [part for part in range(parts) if edges[part] < edges[part + 1]] or [0]
    return _Parts(whole, first, [*(edges[part] for part in numbers), whole.stop], numbers)


def _touching(mine: _Parts, start: int, stop: int, other: _Parts) -> Iterable[int]:
    """Those parts of `other` whose elements in the buffer of my sender the part [start, stop) reads, or writes there; all where it touches none."""
    rank = mine.whole.src
    places = [0, mine.shift] if mine.whole.local else [0]
    theirs = ([0] if other.whole.src == rank else []) + ([other.shift] if other.whole.dst == rank else [])
    found = [other.between(start + at - shift, stop + at - shift) for at in places for shift in theirs]
    touched = found[0] if len(found) == 1 else sorted(set().union(*found))
    return touched or range(len(other.numbers))
