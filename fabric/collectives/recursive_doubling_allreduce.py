"""Recursive doubling: in each of log2 p steps partners swap all they have, and add it. Least latency, most bytes.

Comes in: ranks and elements. Goes out: the Schedule. For the small messages where latency is all that counts. Source:
Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH", IJHPCA 19(1), 2005.
"""

from __future__ import annotations

from fabric.collectives.folding import Folding
from fabric.collectives.sizes import refuse_sizes
from fabric.schedule import Draft, Schedule

__all__ = ["recursive_doubling_allreduce"]


def recursive_doubling_allreduce(ranks: int, elements: int) -> Schedule:
    """An all-reduce in log2 p steps of whole buffers; two more where `ranks` is no power of two.

    What arrives may not be added before one's own has left, so each step has a scratch buffer of its own. RequestError
    for fewer than two ranks.

    >>> [(item.dst, item.nbytes) for item in recursive_doubling_allreduce(8, 1024).sent_by(0) if not item.local]
    [(1, 4096), (2, 4096), (4, 4096)]
    """
    refuse_sizes(ranks, elements)
    rounds = ranks.bit_length() - 1
    draft = Draft("recursive-doubling-allreduce", ranks, elements, scratch=rounds * elements)
    folding = Folding(draft, ranks, elements)
    ready = folding.gather()
    for step in range(rounds):
        into = elements * (1 + step)
        partners = [folding.core[place ^ (1 << step)] for place in range(len(folding.core))]
        sent = [
            draft.send(rank, partners[place], 0, elements, "copy", ready[place], into=into) for place, rank in enumerate(folding.core)
        ]
        ready = [
            [draft.send(rank, rank, into, into + elements, "sum", [sent[place], sent[place ^ (1 << step)]], into=0)]
            for place, rank in enumerate(folding.core)
        ]
    folding.spread(ready)
    return draft.schedule()
