"""The hierarchical all-reduce of rail-optimized clusters: inside each server, then on each rail, then inside again.

Comes in: ranks and elements. Goes out: the Schedule. Rank r is number r mod G in server r // G; a rail joins those with the
same number in all servers, and nothing else crosses the network. Source: rails and their collectives in NVIDIA's "Doubling all2all
Performance with NVIDIA Collective Communication Library 2.12", 2022, and Wang et al., "Rail-only", arXiv 2307.12169.
"""

from __future__ import annotations

from fabric.collectives.rings import Ring
from fabric.collectives.sizes import refuse_servers
from fabric.outcome import share
from fabric.schedule import Draft, Schedule

__all__ = ["hierarchical_allreduce"]


def hierarchical_allreduce(ranks: int, elements: int, per_server: int) -> Schedule:
    """Ring reduce-scatter inside each server of `per_server` ranks, ring all-reduce of each share on its rail, ring all-gather inside.

    RequestError where `ranks` is not two servers or more of that many.

    >>> schedule = hierarchical_allreduce(8, 1024, per_server=4)
    >>> {(src // 4 == dst // 4, src % 4 == dst % 4) for src, dst, _ in schedule.connections} == {(True, False), (False, True)}
    True
    """
    refuse_servers(ranks, elements, per_server)
    draft = Draft("hierarchical-allreduce", ranks, elements)
    servers = [range(first, first + per_server) for first in range(0, ranks, per_server)]
    inside = [Ring(draft, server, 0, elements) for server in servers]
    for ring in inside:
        ring.reduce_scatter()
    rails = []
    for number in range(per_server):
        begun = [ring.arrivals[number] for ring in inside]
        rails.append(Ring(draft, range(number, ranks, per_server), *share(elements, per_server, number), after=begun))
        rails[-1].all_reduce()
    for place, server in enumerate(servers):
        # A rank's own share inside, too: where a rail has few elements, what comes by it need not mean that this has come.
        summed = [[*inside[place].arrivals[number], *rail.arrivals[place]] for number, rail in enumerate(rails)]
        Ring(draft, server, 0, elements, after=summed).all_gather()
    return draft.schedule()
