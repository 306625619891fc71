"""Broadcast and reduce along a chain of all ranks, piece by piece: as fast as one link, once the pipeline is full.

Comes in: ranks and elements. Goes out: the Schedule: from rank 0 upwards, or downwards to it. Source: the pipelined
chain of Träff, Ripke, "Optimal broadcast for fully connected processor-node networks", JPDC 68(7), 2008, section 1.
"""

from __future__ import annotations

from itertools import pairwise

from fabric.collectives.sizes import refuse_sizes
from fabric.cutting import in_pieces
from fabric.schedule import Draft, Op, Result, Schedule

__all__ = ["broadcast", "reduce"]


def broadcast(ranks: int, elements: int, pieces: int = 32) -> Schedule:
    """Rank 0's buffer to all, along the chain 0, 1, 2, ..., in up to `pieces`; RequestError for fewer than two ranks.

    >>> [(item.src, item.dst) for item in broadcast(4, 1024, pieces=1).transfers]
    [(0, 1), (1, 2), (2, 3)]
    """
    return _chain("broadcast", "broadcast", "copy", list(range(ranks)), elements, pieces)


def reduce(ranks: int, elements: int, pieces: int = 32) -> Schedule:
    """The sum of all buffers to rank 0, along the chain ..., 2, 1, 0, in up to `pieces`; RequestError for fewer than two ranks.

    >>> [(item.src, item.dst) for item in reduce(4, 1024, pieces=1).transfers]
    [(3, 2), (2, 1), (1, 0)]
    """
    return _chain("reduce", "reduce", "sum", list(range(ranks))[::-1], elements, pieces)


def _chain(name: str, result: Result, op: Op, members: list[int], elements: int, pieces: int) -> Schedule:
    refuse_sizes(len(members), elements)
    draft = Draft(name, len(members), elements, result)
    last: int | None = None
    for rank, to in pairwise(members):
        last = draft.send(rank, to, 0, elements, op, [last])
    return in_pieces(draft.schedule(), pieces)
