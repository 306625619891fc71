"""Algorithms for powers of two, made to serve any number of ranks: the odd ones give their data to a neighbour and wait.

Comes in: ranks. Goes out: who takes part, and transfers before and after. Source: Thakur, Rabenseifner, Gropp,
"Optimization of Collective Communication Operations in MPICH", IJHPCA 19(1), 2005, section 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabric.schedule import Draft

__all__ = ["Folding"]


class Folding:
    """Of `ranks` the largest power of two takes part (`core`); of the first 2(p - 2^k) ranks those with even numbers do not."""

    def __init__(self, draft: Draft, ranks: int, elements: int) -> None:
        self._draft, self._elements = draft, elements
        self.rounds = ranks.bit_length() - 1
        self._folded = 2 * (ranks - (1 << self.rounds))
        self.core = [*range(1, self._folded, 2), *range(self._folded, ranks)]

    def gather(self) -> list[list[int | None]]:
        """Those who do not take part send theirs; by place in the core, what must have arrived before it begins."""
        came = {rank: self._draft.send(rank - 1, rank, 0, self._elements, "sum") for rank in range(1, self._folded, 2)}
        return [[came.get(rank)] for rank in self.core]

    def spread(self, after: Sequence[Sequence[int | None]]) -> None:
        """They get the result; `after` is by place in the core what must have arrived there."""
        for place, rank in enumerate(self.core):
            if rank < self._folded:
                self._draft.send(rank, rank - 1, 0, self._elements, "copy", after[place])
