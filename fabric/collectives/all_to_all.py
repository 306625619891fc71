"""The all-to-all: every rank has a share for every rank. All at once, or in steps in which each sends to one and receives from one.

Comes in: ranks and elements. Goes out: the Schedule. What arrives lands beside the buffer, as it could not land where something
still waits to be sent. Source: the pairwise exchange of Thakur, Rabenseifner, Gropp, IJHPCA 19(1), 2005, section 3.3.
"""

from __future__ import annotations

from fabric.collectives.sizes import refuse_sizes
from fabric.outcome import share
from fabric.schedule import Draft, Schedule

__all__ = ["all_to_all", "shift_all_to_all"]


def all_to_all(ranks: int, elements: int) -> Schedule:
    """Everybody sends to everybody at the same time: p(p - 1) connections; RequestError for fewer than two ranks.

    >>> schedule = all_to_all(4, 1024)
    >>> len(schedule.connections), schedule.nbytes_sent_by(0)
    (12, 3072)
    """
    return _exchange("all-to-all", ranks, elements, steps=False)


def shift_all_to_all(ranks: int, elements: int) -> Schedule:
    """In p - 1 steps: in the k-th rank r sends to r + k, once it has sent and received what came before.

    RequestError for fewer than two ranks.
    """
    return _exchange("shift-all-to-all", ranks, elements, steps=True)


def _exchange(name: str, ranks: int, elements: int, steps: bool) -> Schedule:
    refuse_sizes(ranks, elements)
    slot = -(-elements // ranks)
    draft = Draft(name, ranks, elements, "alltoall", scratch=ranks * slot)
    before: list[tuple[int | None, ...]] = [()] * ranks
    for shift in range(ranks):
        sent = [
            draft.send(rank, to, *share(elements, ranks, to), "copy", before[rank], into=elements + rank * slot)
            for rank in range(ranks)
            for to in [(rank + shift) % ranks]
        ]
        if steps:
            before = [(sent[rank], sent[(rank - shift) % ranks], *(before[rank] if sent[rank] is None else ())) for rank in range(ranks)]
    return draft.schedule()
