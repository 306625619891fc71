"""Schedules made from schedules: transfers cut into parts, for several connections or one after the other; and several side by side.

Comes in: a `Schedule`. Goes out: one that leaves the same with every rank. A part waits only for the parts whose
elements it touches, so that what is cut flows on while the rest is still coming.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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


def _cut(schedule: Schedule, parts: int, channel: Callable[[int, int], int]) -> Schedule:
    if parts == 1:
        return schedule
    cut: list[Transfer] = []
    made: list[list[Transfer]] = []  # by the id of the whole
    for whole in schedule.transfers:
        size = whole.stop - whole.start
        edges = [whole.start + size * part // parts for part in range(parts + 1)]
        made.append([])
        for part in range(parts):
            if edges[part] < edges[part + 1] or (size == 0 and part == 0):
                into = None if whole.into is None else whole.into + edges[part] - whole.start
                one = replace(
                    whole, id=len(cut), start=edges[part], stop=edges[part + 1], into=into, channel=channel(whole.channel, part), after=()
                )
                made[-1].append(one)
                cut.append(one)
    for whole in schedule.transfers:
        for one in made[whole.id]:
            after = tuple(other.id for number in whole.after for other in _touching(one, made[number]))
            cut[one.id] = replace(one, after=after)
    return replace(schedule, transfers=tuple(cut))


def _touching(one: Transfer, others: list[Transfer]) -> list[Transfer]:
    """Those parts whose elements in the buffer of `one`'s sender it reads, or writes there; all where it touches none."""
    return [other for other in others if _share(one, other)] or others


def _share(one: Transfer, other: Transfer) -> bool:
    rank, size = one.src, one.stop - one.start
    mine = [(one.start, one.stop)] + ([(one.lands, one.lands + size)] if one.local else [])
    theirs = [(other.start, other.stop)] if other.src == rank else []
    theirs += [(other.lands, other.lands + other.stop - other.start)] if other.dst == rank else []
    return any(start < end and begin < stop for start, stop in mine for begin, end in theirs)
