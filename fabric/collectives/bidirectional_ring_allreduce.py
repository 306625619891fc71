"""Two ring all-reduces in opposite directions, half of the data each: both ways of every link of the ring are used.

Comes in: ranks and elements. Goes out: the Schedule. Where a rank's link is full duplex and the only limit, it gains
nothing over one ring, which already sends and receives at full rate; latency is the same too. Where paths between
neighbours are the limit, it spreads the load over both directions.
"""

from __future__ import annotations

from fabric.collectives.rings import Ring
from fabric.collectives.sizes import refuse_sizes
from fabric.schedule import Draft, Schedule

__all__ = ["bidirectional_ring_allreduce"]


def bidirectional_ring_allreduce(ranks: int, elements: int) -> Schedule:
    """The first half of the elements goes from rank to rank upwards, the second downwards, each on a channel of its own.

    RequestError for fewer than two ranks.

    >>> sorted(bidirectional_ring_allreduce(3, 12).connections)
    [(0, 1, 0), (0, 2, 1), (1, 0, 1), (1, 2, 0), (2, 0, 0), (2, 1, 1)]
    """
    refuse_sizes(ranks, elements)
    draft = Draft("bidirectional-ring-allreduce", ranks, elements)
    upwards = list(range(ranks))
    Ring(draft, upwards, 0, elements // 2).all_reduce()
    Ring(draft, upwards[::-1], elements // 2, elements, channel=1).all_reduce()
    return draft.schedule()
