"""The all-to-all of rails: inside each server everything goes to the rank of its destination's rail, and then on along the rails.

Comes in: ranks and elements. Goes out: the Schedule, whose second phase begins at each rank when its first one has ended. Rank r is
number r mod G in server r // G. Source: Wang et al., "Rail-only", arXiv 2307.12169, section 4.
"""

from __future__ import annotations

from fabric.collectives.sizes import refuse_servers
from fabric.outcome import share
from fabric.schedule import Draft, Schedule

__all__ = ["two_phase_all_to_all"]


def two_phase_all_to_all(ranks: int, elements: int, per_server: int) -> Schedule:
    """An all-to-all in which nothing crosses the network from rail to rail; `per_server` ranks in each server.

    RequestError where `ranks` is not two servers or more of that many.

    >>> schedule = two_phase_all_to_all(8, 1024, per_server=4)
    >>> {(src // 4 == dst // 4, src % 4 == dst % 4) for src, dst, _ in schedule.connections} == {(True, False), (False, True)}
    True
    """
    refuse_servers(ranks, elements, per_server)
    slot = -(-elements // ranks)
    draft = Draft("two-phase-all-to-all", ranks, elements, "alltoall", scratch=(1 + per_server) * ranks * slot)
    staged = elements + ranks * slot  # behind what ranks end with: what they pass on, by sender in the server and by destination
    came: list[list[int | None]] = [[] for _ in range(ranks)]
    for src in range(ranks):
        first = src - src % per_server
        for dst in range(ranks):
            relay = first + dst % per_server
            if relay == src:
                continue
            final = first == dst - dst % per_server
            into = elements + src * slot if final else staged + (src % per_server * ranks + dst) * slot
            came[relay].append(draft.send(src, relay, *share(elements, ranks, dst), "copy", into=into))
    for relay in range(ranks):
        first = relay - relay % per_server
        for dst in range(relay % per_server, ranks, per_server):
            for src in range(first, first + per_server):
                start, stop = share(elements, ranks, dst)
                if src == relay:
                    draft.send(relay, dst, start, stop, "copy", came[relay] if dst != relay else (), into=elements + src * slot)
                elif dst != relay:
                    place = staged + (src % per_server * ranks + dst) * slot
                    draft.send(relay, dst, place, place + stop - start, "copy", came[relay], into=elements + src * slot)
    return draft.schedule()
