"""What every collective refuses: fewer than two ranks, fewer than no elements."""

from __future__ import annotations

from fabric.errors import RequestError

__all__ = ["refuse_sizes"]


def refuse_sizes(ranks: int, elements: int, needs: str = "a collective is between ranks") -> None:
    """RequestError, one line, for sizes that no collective has; `needs` says why there must be two."""
    if ranks < 2:
        raise RequestError(f"collective.ranks: got {ranks}; accepted: 2 or more; {needs}")
    if elements < 0:
        raise RequestError(f"collective.nbytes: got {elements} elements; accepted: 0 or more")
