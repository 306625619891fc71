"""What every policy shares: the demand booked on every link, and the paths that each flow may choose from.

Comes in: a `View`. Goes out: `Bookings` and `Choice`s for a policy to work on, and the `Reroute`s that its choices
amount to. Links are numbers here, because policies weigh paths thousands of times in a decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fabric.errors import RequestError
from fabric.graph import Port
from fabric.paths import Path
from fabric.policy import FlowView, LinkView, Reroute, View

__all__ = ["Bookings", "Choice", "Links", "accept", "nic_mbps", "open_books", "reroutes", "settled"]

Links = tuple[int, ...]  # links by number, in the order of a path
ROUNDING = 1e-9  # relative: demands that add up to a link's capacity fit it


class Bookings:
    """The demand booked on each link, in Mb/s. A link is full at its capacity, overbooked at `slack` (a share) above.

    The slack is there because demands and capacities are estimates: without it noise would look like overload.
    """

    def __init__(self, links: Mapping[Port, LinkView], slack: float = 0.0) -> None:
        self.ports = tuple(links)
        self.capacity = [link.mbps for link in links.values()]
        self.limit = [mbps * (1 + slack + ROUNDING) for mbps in self.capacity]
        self.booked = [0.0] * len(self.ports)
        self._number = {port: number for number, port in enumerate(self.ports)}

    def links(self, path: Iterable[Port]) -> Links:
        """The numbers of a path's links."""
        number = self._number
        return tuple([number[port] for port in path])

    def add(self, links: Links, mbps: float) -> None:
        """Book `mbps` more on each of the links; less where it is negative."""
        booked = self.booked
        for link in links:
            booked[link] += mbps

    def fullness(self, link: int, mbps: float = 0.0) -> float:
        """How many times over a link would be booked with `mbps` more: 1 is full; infinite on a dead link in use."""
        booked, capacity = self.booked[link] + mbps, self.capacity[link]
        if capacity > 0:
            return booked / capacity
        return float("inf") if booked > 0 else 0.0

    def worst(self, links: Links, mbps: float = 0.0) -> float:
        """The fullness of the fullest of the links with `mbps` more; 0 of none."""
        return max([self.fullness(link, mbps) for link in links], default=0.0)

    def fullest(self, links: Links, mbps: float = 0.0) -> Port:
        """Which of the links is the fullest; the first of equals."""
        return self.ports[max(links, key=lambda link: self.fullness(link, mbps))]

    def fits(self, links: Links, mbps: float) -> bool:
        """Whether none of the links would be overbooked with `mbps` more."""
        booked, limit = self.booked, self.limit
        return all(booked[link] + mbps <= limit[link] for link in links)

    def excess(self, links: Links, mbps: float) -> float:
        """By how much the overbooking would grow with `mbps` more on the links: Mb/s, summed over them."""
        booked, limit = self.booked, self.limit
        total = 0.0
        for link in links:
            over = booked[link] + mbps - limit[link]
            if over > 0:
                total += over if over < mbps else mbps
        return total

    def overbooked(self, links: Iterable[int]) -> float:
        """The Mb/s booked above the limits of the links, summed over them."""
        return sum(max(self.booked[link] - self.limit[link], 0.0) for link in links)

    def copy(self) -> Bookings:
        """The same links with what is booked now, to compare with later."""
        twin = object.__new__(Bookings)
        twin.ports, twin.capacity, twin.limit, twin._number = self.ports, self.capacity, self.limit, self._number
        twin.booked = list(self.booked)
        return twin


@dataclass(slots=True)
class Choice:
    """A flow that may move, and where to.

    `paths` are those offered, then its present one if that is up and yet not offered. `options` are by path the links
    that not all of them share: on the others there is nothing to choose. `at` is the index of where it is, None when
    that is not known or dead; a policy changes it by `put`. `start` keeps where it was.
    """

    flow: FlowView
    paths: tuple[Path, ...]
    options: tuple[Links, ...]
    at: int | None
    start: int | None

    @property
    def mbps(self) -> float:
        """The flow's demand."""
        return self.flow.demand_mbps

    def put(self, books: Bookings, at: int | None) -> None:
        """Move the flow's booking to another option, or off all of them."""
        if self.at is not None:
            books.add(self.options[self.at], -self.mbps)
        if at is not None:
            books.add(self.options[at], self.mbps)
        self.at = at


def open_books(view: View, slack: float = 0.0) -> tuple[Bookings, list[Choice]]:
    """Every flow booked where it is, and the choices there are: movable flows with more than one path, in order.

    A flow whose path is not known, or is dead, is booked only where all its paths agree; if it cannot be moved, in
    equal parts on all of them. A flow without demand has no choice.
    """
    books = Bookings(view.links, slack)
    choices = [choice for flow in view.flows if flow.demand_mbps > 0 if (choice := _choice(view, books, flow))]
    return books, choices


def _choice(view: View, books: Bookings, flow: FlowView) -> Choice | None:
    """Book the flow; its choice if it has one."""
    stays = flow.path if flow.path is not None and _alive(view, flow.path) else None
    if stays is not None and not flow.movable:
        books.add(books.links(stays), flow.demand_mbps)
        return None
    offered = tuple(view.paths(flow.src, flow.dst))
    paths = offered if stays is None or stays in offered else (*offered, stays)
    whole = [books.links(path) for path in paths]
    shared = set(whole[0]).intersection(*whole[1:]) if whole else set()
    options = tuple(tuple([link for link in links if link not in shared]) for links in whole)
    books.add(tuple(shared), flow.demand_mbps)
    if not flow.movable or (len(paths) < 2 and (stays or flow.path is None)):
        for links in options:
            books.add(links, flow.demand_mbps / len(options))
        return None
    if not paths:
        return None
    choice = Choice(flow, paths, options, None, None if stays is None else paths.index(stays))
    choice.put(books, choice.start)
    return choice


def _alive(view: View, path: Path) -> bool:
    return all(view.links[port].up for port in path)


def settled(view: View, slack: float = 0.0) -> bool:
    """Whether every flow with demand is where it is known to be, and no link between switches is overbooked.

    Costs a fraction of opening the books: there is nothing to do in most ticks.
    """
    books = Bookings(view.links, slack)
    inner: set[int] = set()
    for flow in view.flows:
        if not flow.demand_mbps > 0:
            continue
        if flow.path is None or not _alive(view, flow.path):
            return False
        links = books.links(flow.path)
        books.add(links, flow.demand_mbps)
        inner.update(links[1:-1])
    return books.overbooked(inner) == 0


def nic_mbps(view: View, choice: Choice) -> float:
    """The configured rate of the link that the flow's host sends by."""
    return view.links[choice.paths[0][0]].configured_mbps


def reroutes(choices: Sequence[Choice], before: Bookings, after: Bookings) -> list[Reroute]:
    """A Reroute for every choice that is not where it started, with the fullest links of then and now as the reason."""
    return [_reroute(choice, before, after) for choice in choices if choice.at not in (None, choice.start)]


def _reroute(choice: Choice, before: Bookings, after: Bookings) -> Reroute:
    assert choice.at is not None
    links = choice.options[choice.at]
    numbers = {"demand_mbps": choice.mbps, "worst_after": after.worst(links)}
    if choice.start is None:
        known = choice.flow.path is not None
        reason = "a link of its path is down" if known else "it was not known where the switches' hash had put it"
    else:
        old = choice.options[choice.start]
        numbers["worst_before"] = worst = before.worst(old)
        reason = f"its fullest link {before.fullest(old).interface} was booked {worst:.2f} times over"
        if before.overbooked(old) == 0 and worst <= numbers["worst_after"]:
            reason = f"to make room for others; {reason}"
    return Reroute(choice.flow.key, choice.paths[choice.at], reason, numbers)


def accept(policy: str, name: str, value: float, low: float = 0.0, high: float = float("inf")) -> None:
    """RequestError unless the policy's parameter lies within these bounds."""
    if not low <= value <= high:
        wanted = f"a number from {low:g}" if high == float("inf") else f"a number from {low:g} to {high:g}"
        raise RequestError(f"policy {policy}: {name}: got {value}; accepted: {wanted}")
