"""Greedy: every flow to the path whose fullest link is least booked."""

from __future__ import annotations

from dataclasses import dataclass

from fabric.bookings import Bookings, Choice, accept, open_books, reroutes
from fabric.policy import Reroute, View

__all__ = ["LeastLoaded"]


@dataclass(frozen=True, slots=True)
class LeastLoaded:
    """One flow after another, largest demand first, to the path whose fullest link would be least booked.

    A flow moves only where that link would be less full by more than `margin`, a share of a link's capacity. No flow
    is moved to make room for another: that is what keeps it short of `exact`.
    """

    margin: float = 0.1

    def __post_init__(self) -> None:
        accept("least-loaded", "margin", self.margin)

    def decide(self, view: View) -> list[Reroute]:
        """The flows that gain more than the margin, each seeing the moves before it."""
        books, choices = open_books(view)
        before = books.copy()
        for choice in sorted(choices, key=lambda choice: -choice.mbps):
            self._improve(choice, books)
        return reroutes(choices, before, books)

    def _improve(self, choice: Choice, books: Bookings) -> None:
        now = choice.at
        choice.put(books, None)
        costs = [books.worst(links, choice.mbps) for links in choice.options]
        best = costs.index(min(costs))
        stays = now is not None and costs[now] - costs[best] <= self.margin
        choice.put(books, now if stays else best)
