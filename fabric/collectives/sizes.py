"""What collectives refuse: fewer than two ranks, fewer than no elements, servers that are not alike."""

from __future__ import annotations

from fabric.errors import RequestError

__all__ = ["refuse_servers", "refuse_sizes"]


def refuse_sizes(ranks: int, elements: int, needs: str = "a collective is between ranks") -> None:
    """RequestError, one line, for sizes that no collective has; `needs` says why there must be two."""
    if ranks < 2:
        raise RequestError(f"collective.ranks: got {ranks}; accepted: 2 or more; {needs}")
    if elements < 0:
        raise RequestError(f"collective.nbytes: got {elements} elements; accepted: 0 or more")


def refuse_servers(ranks: int, elements: int, per_server: int) -> None:
    """RequestError, one line, unless the ranks are two servers or more of `per_server` each."""
    refuse_sizes(ranks, elements)
    if per_server < 1 or ranks % per_server or ranks // per_server < 2:
        known = ", ".join(str(size) for size in range(1, ranks // 2 + 1) if ranks % size == 0)
        raise RequestError(f"collective.per_server: got {per_server}; accepted: {known} for {ranks} ranks, two servers or more")
