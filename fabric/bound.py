"""The least time that a schedule can take on given links, however its connections share them: what no network can beat.

Comes in: a `Schedule`, the links that each connection crosses and what these carry. Goes out: a time in ms. Two bounds,
of which the greater counts: no connection is faster than with all of its links to itself; and all that a link must carry
passes it between the first moment that any of it can be there and the last that leaves time for what depends on it.
Source of the second: the one-machine bound of Carlier, "The one-machine sequencing problem", EJOR 11(1), 1982.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from fabric.fluid import Alpha, alpha_of, play
from fabric.schedule import Schedule, feasible_order

__all__ = ["least_ms"]

PathOf = Callable[[int, int, int], Sequence[Hashable]]


def least_ms(schedule: Schedule, path_of: PathOf, capacity: Mapping[Hashable, float], alpha_ms: Alpha, burst_bytes: int = 0) -> float:
    """The least time, in ms; arguments as of `fluid.play`, whose max-min shares may take longer, and never take less."""
    alone = play(schedule, path_of, capacity, alpha_ms, burst_bytes=burst_bytes, sharing=False)
    paths = {connection: path_of(*connection) for connection in schedule.connections}
    # By transfer: the least that it lasts, and how early it can begin.
    lasts, heads = [0.0] * len(schedule.transfers), [0.0] * len(schedule.transfers)
    alphas = [0.0 if item.local else alpha_of(alpha_ms, *item.connection) for item in schedule.transfers]
    on_link: dict[Hashable, list[int]] = {}
    for connection, ids in schedule.connections.items():
        rate = min(capacity[link] for link in paths[connection])
        for number in ids:
            nbytes = schedule.transfers[number].nbytes
            lasts[number] = max(0, nbytes - burst_bytes) * 8 / 1000 / rate
            heads[number] = alone.transfer_end_ms[number] - alphas[number] - nbytes * 8 / 1000 / rate
        for link in paths[connection]:
            on_link.setdefault(link, []).extend(ids)
    tails = _tails(schedule, lasts, alphas)
    least = alone.end_ms
    for link, crossing in on_link.items():
        carried = sum(schedule.transfers[number].nbytes for number in crossing)
        passing = max(0, carried - burst_bytes) * 8 / 1000 / capacity[link]
        least = max(least, max(0.0, min(heads[number] for number in crossing)) + passing + min(tails[number] for number in crossing))
    return least


def _tails(schedule: Schedule, lasts: Sequence[float], alphas: Sequence[float]) -> list[float]:
    """By transfer, how long the schedule goes on at least after its last byte has left."""
    waits = schedule.waits
    tails = [0.0] * len(schedule.transfers)
    for number in reversed(feasible_order(schedule)):
        arriving = alphas[number]
        arrived = [arriving + lasts[later] + tails[later] for later in waits.freed_by_arrival[number]]
        left = [lasts[later] + tails[later] for later in waits.freed_by_leaving[number]]
        tails[number] = max(arriving, *arrived, *left) if arrived or left else arriving
    return tails
