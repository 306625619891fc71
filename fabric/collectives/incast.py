"""The incast: every rank sends its whole buffer to the first at once, which adds them up. A reduce without any tree.

Comes in: ranks and elements. Goes out: the Schedule, one transfer a sender, none waiting for another. It is what parameter
servers and storage clusters do to a network: all senders share one link, and whose packets the queue before it drops
waits for a retransmission timeout. Source: Phanishayee et al., "Measurement and Analysis of TCP Throughput Collapse in
Cluster-based Storage Systems", FAST 2008.
"""

from __future__ import annotations

from fabric.collectives.sizes import refuse_sizes
from fabric.schedule import Schedule, Transfer

__all__ = ["incast"]


def incast(ranks: int, elements: int) -> Schedule:
    """A flat reduce of `elements` numbers: ranks 1 to `ranks` - 1 send to rank 0 at once; only that one holds the sum.

    RequestError for fewer than two ranks.

    >>> schedule = incast(4, 1024)
    >>> [(item.src, item.dst, item.nbytes) for item in schedule.transfers]
    [(1, 0, 4096), (2, 0, 4096), (3, 0, 4096)]
    """
    refuse_sizes(ranks, elements, "an incast needs a sender")
    senders = range(1, ranks) if elements else ()
    transfers = tuple(Transfer(number, src, 0, 0, elements, "sum") for number, src in enumerate(senders))
    return Schedule("incast", ranks, elements, transfers, result="reduce")
