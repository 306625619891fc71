"""Chunks that travel round a ring, hop by hop: what reduce-scatter, all-gather and all-reduce over a ring are made of.

Comes in: the ring's members and the elements that they share. Goes out: transfers in a `Draft`. Source: Patarasuk, Yuan,
"Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69(2), 2009.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabric.outcome import share
from fabric.schedule import Draft, Op

__all__ = ["Ring"]

Ids = tuple[int | None, ...]


class Ring:
    """A ring of `members` over elements [start, stop), in as many chunks as members; places are counted round it.

    What a member sends first waits for what `after` says of its place. `arrivals` are, by place, what came there.
    """

    def __init__(
        self, draft: Draft, members: Sequence[int], start: int, stop: int, after: Sequence[Sequence[int | None]] | None = None, channel: int = 0
    ) -> None:
        self._draft, self._members, self._channel = draft, members, channel
        size = len(members)
        shares = [share(stop - start, size, chunk) for chunk in range(size)]
        self._chunks = [(start + begin, start + end) for begin, end in shares]
        self._after: list[Ids] = [tuple(ids) for ids in after] if after else [()] * size
        self._carrier: list[int | None] = [None] * size  # of each chunk, the transfer of its last hop
        self.arrivals: list[list[int | None]] = [[] for _ in members]

    def travel(self, op: Op, first: int) -> None:
        """Every chunk makes one hop less than there are members; chunk c begins at place c + `first`."""
        size = len(self._members)
        for step in range(size - 1):
            for place, rank in enumerate(self._members):
                chunk, target = (place - step - first) % size, (place + 1) % size
                after = (self._carrier[chunk], *self._after[place])
                number = self._draft.send(rank, self._members[target], *self._chunks[chunk], op, after, self._channel)
                self._carrier[chunk] = number
                self.arrivals[target].append(number)

    def reduce_scatter(self) -> None:
        """Place c ends with the sum of chunk c."""
        self.travel("sum", 1)

    def all_gather(self) -> None:
        """Chunk c of place c comes to all."""
        self.travel("copy", 0)

    def all_reduce(self) -> None:
        """Both; chunk c begins at place c, and its sum is made one place before."""
        self.travel("sum", 0)
        self.travel("copy", len(self._members) - 1)
