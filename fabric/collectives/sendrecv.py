"""Send and receive: every rank sends its buffer to the one `step` places further on, and receives one. What nccl-tests calls sendrecv.

Comes in: ranks and elements. Goes out: the Schedule. It is a stride of the fabric as a collective: pipeline stages do it, and nothing
tells more plainly what hashing costs, as each rank has one connection, or `channels` of them.
"""

from __future__ import annotations

from fabric.collectives.sizes import refuse_sizes
from fabric.errors import RequestError
from fabric.schedule import Draft, Schedule

__all__ = ["sendrecv"]


def sendrecv(ranks: int, elements: int, step: int = 1) -> Schedule:
    """Rank r sends `elements` numbers to rank r + `step`, and all at once; what comes lands beside the buffer, which is being sent.

    RequestError for fewer than two ranks, and for a step that leads back.

    >>> [(item.src, item.dst, item.nbytes) for item in sendrecv(4, 1024, step=2).transfers]
    [(0, 2, 4096), (1, 3, 4096), (2, 0, 4096), (3, 1, 4096)]
    """
    refuse_sizes(ranks, elements)
    if not 1 <= step < ranks:
        raise RequestError(f"collective.step: got {step}; accepted: 1 to {ranks - 1}, among {ranks} ranks")
    draft = Draft("sendrecv", ranks, elements, "sendrecv", scratch=elements, shift=step)
    for rank in range(ranks):
        draft.send(rank, (rank + step) % ranks, 0, elements, "copy", into=elements)
    return draft.schedule()
