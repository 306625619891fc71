"""The ring all-gather: every rank ends with every rank's share.

Comes in: ranks and elements. Goes out: the Schedule, p - 1 steps. Source: Patarasuk, Yuan, JPDC 69(2), 2009.
"""

from __future__ import annotations

from fabric.collectives.rings import Ring
from fabric.collectives.sizes import refuse_sizes
from fabric.schedule import Draft, Schedule

__all__ = ["all_gather"]


def all_gather(ranks: int, elements: int) -> Schedule:
    """Buffers of `elements` numbers, to which rank r gives the r-th share; RequestError for fewer than two ranks.

    >>> all_gather(4, 1024).nbytes_sent_by(0)
    3072
    """
    refuse_sizes(ranks, elements)
    draft = Draft("ring-all-gather", ranks, elements, "allgather")
    Ring(draft, range(ranks), 0, elements).all_gather()
    return draft.schedule()
