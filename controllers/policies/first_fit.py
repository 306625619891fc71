"""Hedera's Global First Fit: an elephant goes on the first path with room for it.

Source: Al-Fares et al., "Hedera: Dynamic Flow Scheduling for Data Center Networks", NSDI 2010, "Global First Fit".
"""

from __future__ import annotations

from dataclasses import dataclass

from fabric.bookings import Bookings, Choice, accept, nic_mbps, open_books, reroutes, settled
from fabric.policy import Reroute, View

__all__ = ["FirstFit"]


@dataclass(frozen=True, slots=True)
class FirstFit:
    """Flows that fit where they are stay; the others, in order, go on the first path with room, or stay if none has.

    Only flows of at least `elephant`, a share of their NIC's rate, are moved. A link has room up to `slack` above its
    capacity. A flow on a dead path goes, whatever its size, to the least booked path if none has room.
    """

    elephant: float = 0.1
    slack: float = 0.05

    def __post_init__(self) -> None:
        accept("first-fit", "elephant", self.elephant, 0, 1)
        accept("first-fit", "slack", self.slack, 0, 1)

    def decide(self, view: View) -> list[Reroute]:
        """The flows that do not fit where they are, on the first path with room."""
        if settled(view, self.slack):
            return []
        books, choices = open_books(view, self.slack)
        before = books.copy()
        movers = [choice for choice in choices if self._may_move(view, choice)]
        for choice in movers:
            choice.put(books, None)
        homeless = [choice for choice in movers if not _keep(choice, books)]
        for choice in homeless:
            _place(choice, books)
        return reroutes(movers, before, books)

    def _may_move(self, view: View, choice: Choice) -> bool:
        dead = choice.start is None and choice.flow.path is not None
        return dead or choice.mbps >= self.elephant * nic_mbps(view, choice)


def _keep(choice: Choice, books: Bookings) -> bool:
    """Put the flow back where it started, if it fits."""
    fits = choice.start is not None and books.fits(choice.options[choice.start], choice.mbps)
    if fits:
        choice.put(books, choice.start)
    return fits


def _place(choice: Choice, books: Bookings) -> None:
    """Put the flow on the first path with room; failing that where it was, if it lives."""
    room = (at for at, links in enumerate(choice.options) if books.fits(links, choice.mbps))
    costs = [books.worst(links, choice.mbps) for links in choice.options]
    dead = choice.start is None and choice.flow.path is not None
    choice.put(books, next(room, costs.index(min(costs)) if dead else choice.start))
