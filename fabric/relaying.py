"""Rails that meet nowhere but inside servers: what is to change rails is handed to the rank of the right rail first, and sent on by it.

Comes in: a `Schedule`, which rail and which server each rank is on. Goes out: one that leaves the same with every rank, and in
which nobody sends across the network from rail to rail. What is on its way lies in the scratch area of who passes it on.
Source: Wang et al., "Rail-only", arXiv 2307.12169, section 4; PXN in NCCL 2.12 does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fabric.errors import RequestError
from fabric.schedule import Schedule, Transfer

__all__ = ["relayed"]


def relayed(schedule: Schedule, rails: Sequence[int], servers: Sequence[str]) -> Schedule:
    """The schedule over ranks on these rails and in these servers, both by rank.

    RequestError where nobody on the right rail is in the sender's server.
    """
    if not any(_changes(item, rails, servers) for item in schedule.transfers):
        return schedule
    there = {(servers[rank], rails[rank]): rank for rank in range(schedule.ranks)}
    channels = 1 + max(item.channel for item in schedule.transfers)
    made: list[Transfer] = []
    leaves: dict[int, int] = {}  # by the id of a transfer of `schedule`: what its sender sends, and what its receiver receives
    arrives: dict[int, int] = {}
    held = [schedule.elements + schedule.scratch] * schedule.ranks
    for item in schedule.transfers:
        leaves[item.id] = arrives[item.id] = len(made)
        if not _changes(item, rails, servers):
            made.append(replace(item, id=len(made)))
            continue
        relay = there.get((servers[item.src], rails[item.dst]))
        if relay is None:
            text = f"got rank {item.src} in {servers[item.src]} sending to rank {item.dst}, on whose rail nobody of that server is"
            raise RequestError(f"collective.ranks: {text}; accepted: ranks on all NICs of a server; write e.g. ranks: all")
        size, place = item.stop - item.start, held[relay]
        held[relay] += size
        made.append(replace(item, id=len(made), dst=relay, op="copy", into=place))
        arrives[item.id] = len(made)
        # A connection of its own: on the relay's own one, what it passes on would wait for what it sends itself.
        onward = replace(item, id=len(made), src=relay, start=place, stop=place + size, into=item.lands, channel=channels * (1 + item.src) + item.channel)
        made.append(replace(onward, after=(len(made) - 1,)))
    first = set(leaves.values())
    for number in sorted(first):
        made[number] = replace(made[number], after=tuple(_seen_by(made[number].src, other, schedule, leaves, arrives) for other in made[number].after))
    return replace(schedule, transfers=tuple(made), scratch=max(held) - schedule.elements)


def _changes(item: Transfer, rails: Sequence[int], servers: Sequence[str]) -> bool:
    return rails[item.src] != rails[item.dst] and servers[item.src] != servers[item.dst]


def _seen_by(rank: int, other: int, schedule: Schedule, leaves: dict[int, int], arrives: dict[int, int]) -> int:
    """What a rank waits for now that waited for `other`: that its own part of it has left, or that it has come."""
    return leaves[other] if schedule.transfers[other].src == rank else arrives[other]
