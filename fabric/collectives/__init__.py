"""Collectives, one a file, each a function that returns a `Schedule`; and how their bus bandwidth is counted.

Comes in: a collective's name and its number of ranks. Goes out: the factor between algorithm and bus bandwidth.
"""

from __future__ import annotations

from fabric.errors import RequestError

__all__ = ["bus_factor"]

# Per operation (a, b) in (a * p - b) / p for p ranks. Source: the summary in nccl-tests' doc/PERFORMANCE.md.
# An operation whose name ends another's comes after it: "allreduce" is looked for before "reduce".
_BUS_FACTORS: dict[str, tuple[int, int] | None] = {
    "allreduce": (2, 2),
    "reducescatter": (1, 1),
    "allgather": (1, 1),
    "alltoall": (1, 1),
    "broadcast": (1, 0),
    "reduce": (1, 0),
    "barrier": None,
    "sendrecv": (1, 0),
    "incast": (1, 0),  # a reduce, if a flat one: counted as nccl-tests counts any, so that one shows what flatness costs
}


def bus_factor(collective: str, ranks: int) -> float | None:
    """What algbw is multiplied by to give busbw, which does not depend on the number of ranks when links are the limit.

    The name's ending tells the operation, however it is hyphenated; None for a barrier, which is no matter of bandwidth.
    RequestError for an unknown one.

    >>> bus_factor("ring-allreduce", 16), bus_factor("all-gather", 4), bus_factor("broadcast", 4)
    (1.875, 0.75, 1.0)
    """
    if ranks < 1:
        raise RequestError(f"collective {collective}: got {ranks} ranks; accepted: 1 or more")
    plain = collective.replace("-", "").replace("_", "")
    for operation, factor in _BUS_FACTORS.items():
        if plain.endswith(operation):
            return (factor[0] * ranks - factor[1]) / ranks if factor else None
    raise RequestError(f"collective {collective}: no bus factor; accepted: names ending in {', '.join(_BUS_FACTORS)}")
