"""Recursive halving, then doubling: partners swap halves of what is left to sum up, then what is summed up, in 2 log2 p steps.

Comes in: ranks and elements. Goes out: the Schedule. As many bytes as a ring, in fewer steps; but partners are far
apart, and all talk across the fabric at the same time. Source: Thakur, Rabenseifner, Gropp, "Optimization of Collective
Communication Operations in MPICH", IJHPCA 19(1), 2005.
"""

from __future__ import annotations

from typing import Literal

from fabric.collectives.folding import Folding
from fabric.collectives.sizes import refuse_sizes
from fabric.errors import RequestError
from fabric.schedule import Draft, Schedule

__all__ = ["halving_doubling_allreduce"]


def halving_doubling_allreduce(ranks: int, elements: int, largest: Literal["near", "far"] = "near") -> Schedule:
    """An all-reduce by halving and doubling; the largest chunk goes to the nearest partner, or to the farthest.

    Where `ranks` is no power of two, the odd ones give their data to a neighbour first and get the sum last, which costs
    a whole buffer each way. RequestError for fewer than two ranks, or another `largest`.

    >>> [item.dst for item in halving_doubling_allreduce(8, 1024).sent_by(0)]
    [1, 2, 4, 4, 2, 1]
    >>> [item.nbytes for item in halving_doubling_allreduce(8, 1024, largest="far").sent_by(0)]
    [2048, 1024, 512, 512, 1024, 2048]
    """
    refuse_sizes(ranks, elements)
    if largest not in ("near", "far"):
        raise RequestError(f"collective.largest: got {largest!r}; accepted: 'near', 'far': the partner of the largest chunk")
    draft = Draft("halving-doubling-allreduce", ranks, elements)
    folding = Folding(draft, ranks, elements)
    size, rounds = len(folding.core), folding.rounds
    distances = [1 << step for step in range(rounds)]
    if largest == "far":
        distances.reverse()
    arrived = folding.gather()
    parts = [(0, elements)] * size
    for distance in distances:
        halves = [_halves(parts[place], bool(place & distance)) for place in range(size)]
        sent = [
            draft.send(rank, folding.core[place ^ distance], *halves[place][1], "sum", arrived[place])
            for place, rank in enumerate(folding.core)
        ]
        parts = [kept for kept, _ in halves]
        for place in range(size):
            arrived[place].append(sent[place ^ distance])
    for distance in reversed(distances):
        sent = [
            draft.send(rank, folding.core[place ^ distance], *parts[place], "copy", arrived[place]) for place, rank in enumerate(folding.core)
        ]
        parts = [_joined(parts[place], parts[place ^ distance]) for place in range(size)]
        for place in range(size):
            arrived[place].append(sent[place ^ distance])
    folding.spread(arrived)
    return draft.schedule()


def _halves(part: tuple[int, int], upper: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """The half that one keeps, the upper one if `upper`, and the half that its partner does."""
    start, stop = part
    middle = (start + stop) // 2
    lower, higher = (start, middle), (middle, stop)
    return (higher, lower) if upper else (lower, higher)


def _joined(part: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return min(part[0], other[0]), max(part[1], other[1])
