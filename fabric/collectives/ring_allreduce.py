"""The ring all-reduce: reduce-scatter, then all-gather, each rank talking only to the next one.

Comes in: ranks and elements. Goes out: the Schedule, p chunks for p ranks in 2(p - 1) steps.
Source: Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69(2), 2009.
"""

from __future__ import annotations

from fabric.errors import RequestError
from fabric.schedule import Op, Schedule, Transfer

__all__ = ["ring_allreduce"]


def ring_allreduce(ranks: int, elements: int) -> Schedule:
    """A ring all-reduce of `elements` numbers over `ranks` ranks, rank r sending to r + 1.

    Chunks differ by at most one element. Empty ones (fewer elements than ranks) are left out: a chunk waits only for
    itself, so its whole journey goes and no other changes.

    >>> schedule = ring_allreduce(4, 1024)
    >>> len(schedule.transfers), schedule.nbytes_sent_by(0)
    (24, 6144)
    """
    if ranks < 2:
        raise RequestError(f"collective.ranks: got {ranks}; accepted: 2 or more; a ring needs a neighbour")
    if elements < 0:
        raise RequestError(f"collective.nbytes: got {elements} elements; accepted: 0 or more")
    transfers: list[Transfer] = []
    carrier: dict[int, int] = {}  # by chunk: the transfer of the step before
    for step in range(2 * (ranks - 1)):
        for rank in range(ranks):
            # In each step a rank passes on the chunk it received in the step before, so chunk c starts at rank c.
            chunk = (rank - step) % ranks
            start, stop = (elements * edge // ranks for edge in (chunk, chunk + 1))
            if start == stop:
                continue
            after = (carrier[chunk],) if chunk in carrier else ()
            carrier[chunk] = len(transfers)
            op: Op = "sum" if step < ranks - 1 else "copy"
            transfers.append(Transfer(len(transfers), rank, (rank + 1) % ranks, start, stop, op, after))
    return Schedule("ring-allreduce", ranks, elements, tuple(transfers))
