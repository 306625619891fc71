"""The double binary tree: each half of the data is summed up along one tree and comes back down it, piece by piece.

Comes in: ranks and elements. Goes out: the Schedule. Whoever is inside one tree is (with an even number of ranks, all but
a few) a leaf of the other, so that nobody sends more than two buffers, in a time that grows with log2 p. Source: Sanders, Speck, Träff,
"Two-tree algorithms for full bandwidth broadcast, reduction and scan", Parallel Computing 35(12), 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fabric.collectives.sizes import refuse_sizes
from fabric.cutting import in_pieces
from fabric.schedule import Draft, Schedule

__all__ = ["double_tree_allreduce"]


def double_tree_allreduce(ranks: int, elements: int, pieces: int = 32) -> Schedule:
    """An all-reduce over two trees, half of the elements each, in up to `pieces` pieces a half.

    Many pieces fill the pipeline; each costs a latency. RequestError for fewer than two ranks, or no piece.

    >>> sorted((item.src, item.dst) for item in double_tree_allreduce(4, 8, pieces=1).transfers if item.op == "sum")
    [(0, 1), (1, 2), (1, 3), (2, 0), (2, 1), (3, 2)]
    """
    refuse_sizes(ranks, elements)
    draft = Draft("double-binary-tree-allreduce", ranks, elements)
    first = [_parent(rank, ranks) for rank in range(ranks)]
    turned: Callable[[int], int] = (lambda rank: ranks - 1 - rank) if ranks % 2 == 0 else (lambda rank: (rank + 1) % ranks)
    second: list[int | None] = [None] * ranks
    for rank, parent in enumerate(first):
        second[turned(rank)] = None if parent is None else turned(parent)
    _up_and_down(draft, first, 0, elements // 2, 0)
    _up_and_down(draft, second, elements // 2, elements, 1)
    return in_pieces(draft.schedule(), pieces)


def _parent(rank: int, ranks: int) -> int | None:
    """In a tree whose ranks are in order from left to right: odd ones are leaves, 0 is the root and has one child.

    A rank's height is that of the lowest bit that is set in it; its parent differs in that bit and the next.
    """
    if rank == 0:
        return None
    bit = rank & -rank
    parent = (rank ^ bit) | (bit << 1)
    return parent if parent < ranks else rank ^ bit


def _up_and_down(draft: Draft, parents: Sequence[int | None], start: int, stop: int, channel: int) -> None:
    """What a tree sums up at its root and spreads again."""
    children: dict[int, list[int]] = {rank: [] for rank in range(len(parents))}
    for rank, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(rank)
    root = parents.index(None)
    order = [root]
    for rank in order:
        order.extend(children[rank])
    up: dict[int, int | None] = {}
    for rank in reversed(order[1:]):
        up[rank] = draft.send(rank, _of(parents, rank), start, stop, "sum", [up[child] for child in children[rank]], channel)
    down: dict[int, int | None] = {}
    for rank in order[1:]:
        parent = _of(parents, rank)
        after = [up[child] for child in children[root]] if parent == root else [down[parent]]
        down[rank] = draft.send(parent, rank, start, stop, "copy", after, channel)


def _of(parents: Sequence[int | None], rank: int) -> int:
    parent = parents[rank]
    assert parent is not None, "only the root has none"
    return parent
