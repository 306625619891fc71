"""Hedera's simulated annealing: one path index for each destination, bettered by random swaps.

Source: Al-Fares et al., "Hedera: Dynamic Flow Scheduling for Data Center Networks", NSDI 2010, "Simulated Annealing".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from fabric.bookings import Bookings, Choice, accept, nic_mbps, open_books, reroutes, settled
from fabric.policy import Reroute, View

__all__ = ["Annealing"]

Change = dict[str, int]  # destination -> path index


@dataclass(frozen=True, slots=True)
class Annealing:
    """Searches for `iterations` steps; the energy is the demand booked above the links' capacity.

    The state is an index for each destination host: all flows to it take that one of their paths (a core switch, in a
    fat-tree). As in the paper a step swaps the indices of two destinations: any two, two of one edge switch, or two of
    those whose edge switches share a neighbour (a pod); or, because here the search starts from where flows are, it
    redraws one. `heat` is the acceptance's scale: a step that adds E to the energy is taken with probability exp(-E /
    (heat T)), E as a share of the largest demand, T falling from 1 to 0. Draws depend on `seed` and the view's tick
    alone. The best state found is applied if it saves more than `margin` of a NIC's rate; `slack` as in `first-fit`.
    """

    iterations: int = 2000
    seed: int = 1
    heat: float = 0.5
    margin: float = 0.1
    slack: float = 0.05

    def __post_init__(self) -> None:
        for name in ("iterations", "seed", "heat", "margin"):
            accept("annealing", name, getattr(self, name))
        accept("annealing", "slack", self.slack, 0, 1)

    def decide(self, view: View) -> list[Reroute]:
        """The moves to the best assignment found."""
        if settled(view, self.slack):
            return []
        books, choices = open_books(view, self.slack)
        if not choices:
            return []
        before = books.copy()
        rng = Random(f"{self.seed}/{view.tick}")
        lost = [choice for choice in choices if choice.start is None]
        for choice in lost:
            choice.put(books, rng.randrange(len(choice.options)))
        state = _State(choices, books)
        saved = state.anneal(rng, self.iterations, self.heat)
        if saved <= self.margin * max(nic_mbps(view, choice) for choice in choices):
            state.go_to(state.start)
        return reroutes(choices, before, books)


class _State:
    """Where every destination's flows are, changed in place."""

    def __init__(self, choices: Sequence[Choice], books: Bookings) -> None:
        self._books = books
        self.flows: dict[str, list[Choice]] = {}
        for choice in choices:
            self.flows.setdefault(choice.flow.dst, []).append(choice)
        self.hosts = list(self.flows)
        self.paths = {host: max(len(choice.options) for choice in flows) for host, flows in self.flows.items()}
        self.index = {host: max(flows, key=lambda flow: flow.mbps).at or 0 for host, flows in self.flows.items()}
        self.start = self.places()
        self._near = [self._neighbours(-1), self._neighbours(-2)]

    def places(self) -> list[tuple[Choice, int | None]]:
        """Where every flow is now."""
        return [(choice, choice.at) for flows in self.flows.values() for choice in flows]

    def go_to(self, places: list[tuple[Choice, int | None]]) -> None:
        """Put every flow where it was then."""
        for choice, at in places:
            choice.put(self._books, at)

    def anneal(self, rng: Random, iterations: int, heat: float) -> float:
        """Search, and stay in the best state seen; the Mb/s of overbooking that it saves against the start."""
        scale = heat * max(choice.mbps for choice, _ in self.start)
        energy = best = 0.0
        bottom = -self._books.overbooked(range(len(self._books.booked)))
        found = self.start
        for step in range(iterations if bottom < -1e-9 else 0):
            change = self._neighbour(rng)
            held = [(choice, choice.at) for host in change for choice in self.flows[host]]
            was = {host: self.index[host] for host in change}
            rise = self._apply(change)
            if rise > 0 and rng.random() >= math.exp(-rise / (scale * (1 - step / iterations) + 1e-12)):
                self.go_to(held)
                self.index.update(was)
                continue
            energy += rise
            if energy < best - 1e-9:
                best, found = energy, self.places()
                if best <= bottom + 1e-9:
                    break
        self.go_to(found)
        return -best

    def _apply(self, change: Change) -> float:
        """Take the new indices; the change of energy."""
        books, rise = self._books, 0.0
        moved = [(choice, index) for host, index in change.items() for choice in self.flows[host]]
        for choice, _ in moved:
            at = choice.at
            choice.put(books, None)
            rise -= 0.0 if at is None else books.excess(choice.options[at], choice.mbps)
        for choice, index in moved:
            at = index % len(choice.options)
            rise += books.excess(choice.options[at], choice.mbps)
            choice.put(books, at)
        self.index.update(change)
        return rise

    def _neighbour(self, rng: Random) -> Change:
        kind = rng.randrange(4)
        one = rng.choice(self.hosts)
        if kind == 3:
            return {one: rng.randrange(self.paths[one])}
        other = rng.choice(self.hosts if kind == 2 else self._near[kind][one])
        return {one: self.index[other] % self.paths[one], other: self.index[one] % self.paths[other]}

    def _neighbours(self, hop: int) -> dict[str, list[str]]:
        """By destination, those whose paths have a switch in common at this hop, counted from the end."""
        switches = {
            host: {path[max(hop, -len(path))].node for choice in flows for path in choice.paths}
            for host, flows in self.flows.items()
        }
        through: dict[str, list[str]] = {}
        for host, nodes in switches.items():
            for node in nodes:
                through.setdefault(node, []).append(host)
        return {
            host: list(dict.fromkeys(far for node in sorted(nodes) for far in through[node]))
            for host, nodes in switches.items()
        }
