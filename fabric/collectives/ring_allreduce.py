"""The ring all-reduce: reduce-scatter, then all-gather, each rank talking only to the next one.

Comes in: ranks and elements. Goes out: the Schedule, p chunks for p ranks in 2(p - 1) steps.
In groups, several such rings go side by side, as several jobs do. Source: Patarasuk, Yuan, "Bandwidth optimal all-reduce
algorithms for clusters of workstations", JPDC 69(2), 2009; of the groups: NCCL_TESTS_SPLIT="MOD groups" in nccl-tests.
"""

from __future__ import annotations

from fabric.collectives.rings import Ring
from fabric.collectives.sizes import refuse_sizes
from fabric.cutting import side_by_side
from fabric.errors import RequestError
from fabric.schedule import Draft, Schedule

__all__ = ["ring_allreduce"]


def ring_allreduce(ranks: int, elements: int, groups: int = 1) -> Schedule:
    """A ring all-reduce of `elements` numbers over `ranks` ranks, rank r sending to r + `groups`.

    With `groups` that many rings of ranks / groups each, all at the same time: rank r sums up with those equal to it mod
    `groups`, so that on hosts in order each group is striped over the fabric. `ranks` is the number of all of them.
    RequestError where a ring would be of fewer than two, or not of the same size as the others.

    Chunks differ by at most one element. Empty ones (fewer elements than ranks) are left out: a chunk waits only for
    itself, so its whole journey goes and no other changes.

    >>> schedule = ring_allreduce(4, 1024)
    >>> len(schedule.transfers), schedule.nbytes_sent_by(0)
    (24, 6144)
    >>> sorted(ring_allreduce(6, 1024, groups=2).connections)
    [(0, 2, 0), (1, 3, 0), (2, 4, 0), (3, 5, 0), (4, 0, 0), (5, 1, 0)]
    """
    refuse_sizes(ranks, elements, "a ring needs a neighbour")
    if groups < 1 or ranks % groups or ranks < 2 * groups:
        known = ", ".join(str(n) for n in range(1, ranks // 2 + 1) if ranks % n == 0)
        raise RequestError(f"collective.groups: got {groups}; accepted: {known} for {ranks} ranks, two or more in each")
    draft = Draft("ring-allreduce", ranks // groups, elements)
    Ring(draft, range(ranks // groups), 0, elements).all_reduce()
    return side_by_side(draft.schedule(), groups)
