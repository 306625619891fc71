"""The ring reduce-scatter: every rank ends with the sum of its own share of the buffers.

Comes in: ranks and elements. Goes out: the Schedule, p - 1 steps. Source: Patarasuk, Yuan, JPDC 69(2), 2009.
"""

from __future__ import annotations

from fabric.collectives.rings import Ring
from fabric.collectives.sizes import refuse_sizes
from fabric.schedule import Draft, Schedule

__all__ = ["reduce_scatter"]


def reduce_scatter(ranks: int, elements: int) -> Schedule:
    """Buffers of `elements` numbers, of which rank r keeps the r-th share; RequestError for fewer than two ranks.

    >>> reduce_scatter(4, 1024).nbytes_sent_by(0)
    3072
    """
    refuse_sizes(ranks, elements)
    draft = Draft("ring-reduce-scatter", ranks, elements, "reducescatter")
    Ring(draft, range(ranks), 0, elements).reduce_scatter()
    return draft.schedule()
