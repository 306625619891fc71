"""The barrier: nobody leaves it before everybody has come. By dissemination, in log2 p steps, rounded up.

Comes in: ranks. Goes out: the Schedule: an all-gather of one number a rank, as who holds everybody's has heard of
everybody. Source: Hensgen, Finkel, Manber, "Two algorithms for barrier synchronization", IJPP 17(1), 1988; its order of
blocks is that of Bruck et al., IEEE TPDS 8(11), 1997.
"""

from __future__ import annotations

from fabric.collectives.sizes import refuse_sizes
from fabric.errors import RequestError
from fabric.schedule import ELEMENT_BYTES, Draft, Schedule

__all__ = ["barrier"]


def barrier(ranks: int, elements: int) -> Schedule:
    """In step k rank r tells r - 2^k of all that it has heard of; RequestError unless there is one element a rank.

    >>> [(item.dst, item.nbytes) for item in barrier(8, 8).sent_by(7)]
    [(6, 4), (5, 4), (5, 4), (3, 4), (3, 12)]
    """
    refuse_sizes(ranks, elements)
    if elements != ranks:
        got = f"{elements * ELEMENT_BYTES} bytes"
        raise RequestError(f"collective.nbytes: got {got}; accepted: {ranks * ELEMENT_BYTES} for {ranks} ranks, one number for each")
    draft = Draft("barrier", ranks, elements, "allgather")
    heard: list[list[int | None]] = [[] for _ in range(ranks)]
    known = 1
    while known < ranks:
        more = min(known, ranks - known)
        sent: list[list[int | None]] = []
        for rank in range(ranks):
            to, stop = (rank - known) % ranks, rank + more
            parts = [(rank, min(stop, ranks)), (0, max(0, stop - ranks))]
            sent.append([draft.send(rank, to, *part, "copy", heard[rank]) for part in parts])
        for rank in range(ranks):
            heard[rank] = [*heard[rank], *sent[(rank + known) % ranks]]
        known += more
    return draft.schedule()
