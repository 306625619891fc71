"""Places flows so that no link is booked above its capacity, wherever that can be done.

Every permutation on a k-ary fat-tree can be (König, 1916: edge colouring in two levels). Here nothing depends on the
topology: flows that do not fit are put where they push out least, what they push out goes on in the same way, as along
a Kempe chain of edge colouring; depth-first search, and branch and bound, settle the small cases where that gets stuck, and cuts
tell where none can succeed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from fabric.bookings import Bookings, Choice, accept, nic_mbps, open_books, reroutes, settled
from fabric.policy import Reroute, View

__all__ = ["Exact"]

REST = 1 / 8  # steps per flow that a flow rests after a move, so that a chain goes on instead of back
# Steps per flow without a better placement, after which chains begin again from the best: short at first, because a
# chain that ends soon moves few flows.
PATIENCE = (1 / 16, 1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 4, 1 / 4, 1 / 2, 1, 2, 4, 8, 8)
CHAINS = 3 / 4  # of the budget, where the rest is enough for depth-first search
NEGLIGIBLE = 1e-6  # Mb/s

Places = list[int | None]
Move = tuple[int, int, float]  # choice, option, growth of the overbooking
Rank = tuple[float, float, int]
Cut = frozenset[int]
Problem = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Exact:
    """Keeps what fits, repairs the rest with chains of moves, then by depth-first search; failing that, the best found.

    Best is: the least total overbooking, then the least full worst link, then the fewest moves. It is applied if it
    saves more than `margin` of a NIC's rate, or makes the worst link less full by more than `margin` of its capacity.
    A link is overbooked above 1 + `slack` of its capacity. `budget` bounds the search in nodes; one is the weighing of
    all the paths of one flow, and benchmarks/README.md says how many go in a ms.
    """

    budget: int = 6000
    margin: float = 0.1
    slack: float = 0.05
    # The last problem that a whole search did not better: where congestion cannot be avoided, it comes back every tick.
    _hopeless: set[Problem] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        accept("exact", "budget", self.budget)
        accept("exact", "margin", self.margin)
        accept("exact", "slack", self.slack, 0, 1)

    def decide(self, view: View) -> list[Reroute]:
        """The moves to the best placement found."""
        if settled(view, self.slack):
            return []
        books, choices = open_books(view, self.slack)
        if not choices:
            return []
        problem = _problem(books, choices)
        if problem in self._hopeless:
            return []
        search = Search(books, choices, self.budget)
        search.run(self.margin, max(nic_mbps(view, choice) for choice in choices))
        found = reroutes(choices, search.before, books)
        if not found:
            self._hopeless.clear()
            self._hopeless.add(problem)
        return found


def _problem(books: Bookings, choices: list[Choice]) -> Problem:
    """All that the answer depends on."""
    flows = tuple((choice.flow.key, choice.at, choice.mbps, choice.paths) for choice in choices)
    return flows, tuple(books.booked), tuple(books.capacity)


class Search:
    """One decision's search: `choices` and `books` are changed in place; `nodes` counts the flows weighed.

    Public for benchmarks/policies.py.
    """

    def __init__(self, books: Bookings, choices: list[Choice], budget: int) -> None:
        self.books, self.choices, self.budget = books, choices, budget
        self.before = books.copy()
        self.nodes = 0
        self._links = sorted({link for choice in choices for links in choice.options for link in links})
        self._on: dict[int, dict[int, None]] = {link: {} for link in self._links}
        for index, choice in enumerate(choices):
            self._enter(index, choice.at)
        self._rests_until = [0] * len(choices)
        self._rng = Random(len(choices))  # breaks ties only; the same view gives the same draws
        self._step = 0

    def run(self, margin: float, nic_mbps: float) -> None:
        """Leave the choices at the best placement, or as they were if it gains no more than the margin."""
        self._house()
        first, before = self._places(), self._rank()
        homeless = any(choice.start is None for choice in self.choices)
        bound = self._unavoidable()
        if before[0] - bound > margin * nic_mbps or (homeless and before[0] > bound + NEGLIGIBLE):
            for patience in PATIENCE:
                self._chains(bound, max(8, int(patience * len(self.choices))))
            if bound == 0 and self._rank()[0] > 0 and self._is_small():
                self._depth_first()
            if self._rank()[0] > bound + NEGLIGIBLE and self._is_small():
                self._cheapest(bound)
        self._level(margin)
        after = self._rank()
        if before[0] - after[0] <= margin * nic_mbps and before[1] - after[1] <= margin:
            self._go_to(first)
        else:
            self._take_back()

    # ---- the placement ----

    def _enter(self, index: int, at: int | None) -> None:
        if at is not None:
            for link in self.choices[index].options[at]:
                self._on[link][index] = None

    def _put(self, index: int, at: int | None) -> None:
        choice = self.choices[index]
        if choice.at is not None:
            for link in choice.options[choice.at]:
                del self._on[link][index]
        choice.put(self.books, at)
        self._enter(index, at)

    def _places(self) -> Places:
        return [choice.at for choice in self.choices]

    def _go_to(self, places: Places) -> None:
        for index, at in enumerate(places):
            if self.choices[index].at != at:
                self._put(index, at)

    def _rank(self) -> Rank:
        """How good the placement is; less is better."""
        over = self.books.overbooked(self._links)
        moved = sum(choice.at != choice.start for choice in self.choices)
        return (over if over > NEGLIGIBLE else 0.0, self.books.worst(tuple(self._links)), moved)

    def _is_over(self, link: int) -> bool:
        return self.books.booked[link] > self.books.limit[link] + NEGLIGIBLE

    def _weigh(self, choice: Choice) -> list[float]:
        """The overbooking that the flow would add on each of its paths, itself not counted where it is."""
        self.nodes += 1
        held = choice.at
        choice.put(self.books, None)
        costs = [self.books.excess(links, choice.mbps) for links in choice.options]
        choice.put(self.books, held)
        return costs

    def _fullness(self, choice: Choice) -> list[float]:
        """How full the flow's fullest link would be on each of its paths."""
        held = choice.at
        choice.put(self.books, None)
        fullness = [self.books.worst(links, choice.mbps) for links in choice.options]
        choice.put(self.books, held)
        return fullness

    def _house(self) -> None:
        """Give every flow without a known place one where it adds least overbooking, the largest first."""
        lost = [index for index, choice in enumerate(self.choices) if choice.at is None]
        for index in sorted(lost, key=lambda index: -self.choices[index].mbps):
            costs = self._weigh(self.choices[index])
            self._put(index, costs.index(min(costs)))

    # ---- what no placement can avoid ----

    def _unavoidable(self) -> float:
        """A lower bound on the overbooking, in Mb/s: what must cross a cut less what its links can take.

        Cuts are the links that a flow can take at one hop, counted from either end. Sums over cuts without a link in
        common.
        """
        crossed = [_cuts(choice) for choice in self.choices]
        with_link: dict[int, list[Cut]] = {}
        for cut in dict.fromkeys(cut for cuts in crossed for cut in cuts):
            for link in cut:
                with_link.setdefault(link, []).append(cut)
        through: dict[Cut, list[float]] = {}
        for choice, cuts in zip(self.choices, crossed, strict=True):
            for cut in {wide for own in cuts for wide in with_link[min(own)] if own <= wide}:
                through.setdefault(cut, []).append(choice.mbps)
        fixed = self._fixed()
        deficits = [(self._deficit(cut, demands, fixed), sorted(cut)) for cut, demands in through.items()]
        total, used = 0.0, set[int]()
        for deficit, links in sorted(deficits, reverse=True):
            if deficit > NEGLIGIBLE and used.isdisjoint(links):
                total += deficit
                used.update(links)
        return total

    def _deficit(self, cut: Cut, demands: list[float], fixed: list[float]) -> float:
        """The least overbooking of a cut's links when these flows have to cross it on top of what is fixed.

        Flows are whole: a link without overbooking takes as many of them as of the smallest at most. If j links are
        overbooked, each is by what one flow more is too much at least, and the others take no more than they can.
        """
        rooms = [max(self.books.limit[link] - fixed[link], 0.0) for link in cut]
        over = sum(max(fixed[link] - self.books.limit[link], 0.0) for link in cut)
        largest, smallest = sorted(demands, reverse=True), min(demands)
        counts = [int(room / smallest) for room in rooms]
        takes = [min(room, sum(largest[:count])) for room, count in zip(rooms, counts, strict=True)]
        short = sum(demands) - sum(takes)
        if short <= 0:
            return over
        slack = max(room - take for room, take in zip(rooms, takes, strict=True))
        step = min((count + 1) * smallest - room for room, count in zip(rooms, counts, strict=True))
        return over + min(max(j * step, short - j * slack) for j in range(1, len(rooms) + 1))

    def _fixed(self) -> list[float]:
        """What is booked on every link by flows that have no choice."""
        books = self.books.copy()
        for choice in self.choices:
            if choice.at is not None:
                books.add(choice.options[choice.at], -choice.mbps)
        return books.booked

    # ---- chains ----

    def _chains(self, bound: float, patience: int) -> None:
        """Move a flow off the link that was overbooked last, and again, until nothing is or the bound is met."""
        best, bottom, since = self._places(), self._rank()[0], 0
        energy = bottom
        limit = CHAINS * self.budget if self._is_small() else self.budget
        over = {link: None for link in self._links if self._is_over(link)}
        while over and bottom > bound + NEGLIGIBLE and self.nodes < limit and since < patience:
            link = next(reversed(over))
            self._step += 1
            since += 1
            move = self._best_move(link)
            if move is None:  # all its flows rest, or have no way round it: every other link comes first
                del over[link]
                over = {link: None, **over}
                continue
            self._move(move, over)
            energy += move[2]
            if energy < bottom - NEGLIGIBLE:
                best, bottom, since = self._places(), energy, 0
        self._go_to(best)

    def _best_move(self, link: int) -> Move | None:
        """Of the rested flows on a link, which one off it overbooks least; of equals one that returns, then by lot."""
        moves: list[tuple[float, bool, float, Move]] = []
        for index in self._on[link]:
            if self._rests_until[index] > self._step:
                continue
            choice = self.choices[index]
            costs = self._weigh(choice)
            held = costs[choice.at] if choice.at is not None else 0.0
            for at, cost in enumerate(costs):
                if link not in choice.options[at]:
                    growth = cost - held
                    moves.append((round(growth, 6), at != choice.start, self._rng.random(), (index, at, growth)))
        return min(moves)[-1] if moves else None

    def _move(self, move: Move, over: dict[int, None]) -> None:
        """Carry out a move, and keep the overbooked links in the order in which they became so."""
        index, at, _ = move
        choice = self.choices[index]
        assert choice.at is not None
        touched = (*choice.options[choice.at], *choice.options[at])
        self._put(index, at)
        rest = 1 + int(REST * len(self.choices))
        self._rests_until[index] = self._step + rest + self._rng.randrange(rest + 1)
        for link in touched:
            if not self._is_over(link):
                over.pop(link, None)
            elif link not in over:
                over[link] = None

    # ---- depth first ----

    def _is_small(self) -> bool:
        """Whether depth-first search could place all flows in its part of the budget, were its first choices right."""
        return len(self.choices) * (len(self.choices) + 1) / 2 <= (1 - CHAINS) * self.budget

    def _depth_first(self) -> None:
        """Place all flows anew, the most constrained first, on the path nearest to what is there; or leave all as is.

        Forward check: a branch ends as soon as some flow that is not placed yet has no path left with room.
        """
        best = self._places()
        for index in range(len(best)):
            self._put(index, None)
        stack = [self._branch(best)]
        placed: list[int] = []
        while stack and len(placed) < len(best) and self.nodes < self.budget:
            index, options = stack[-1]
            if len(placed) == len(stack):
                self._put(placed.pop(), None)
            if not options:
                stack.pop()
                continue
            self._put(index, options.pop())
            placed.append(index)
            if len(placed) < len(best):
                stack.append(self._branch(best))
        if len(placed) < len(best):
            self._go_to(best)

    def _branch(self, best: Places) -> tuple[int, list[int]]:
        """The unplaced flow with the fewest paths that have room, and these; the one to try first is last."""
        found: tuple[int, float, int, list[int]] | None = None
        for index, choice in enumerate(self.choices):
            if choice.at is not None:
                continue
            self.nodes += 1
            room = [at for at, links in enumerate(choice.options) if self.books.fits(links, choice.mbps)]
            if found is None or (len(room), -choice.mbps) < found[:2]:
                found = (len(room), -choice.mbps, index, room)
            if not room:
                break
        assert found is not None
        index, options = found[2:]
        start = self.choices[index].start
        return index, sorted(options, key=lambda at: (at == start, at == best[index], -at))

    # ---- branch and bound ----

    def _cheapest(self, bound: float) -> None:
        """Place all flows anew, the largest first and cheapest paths first, as long as that can better what is known.

        Chains move one flow at a time, each where it costs least, and so never take the step that pays only with the next.
        """
        best, bottom = self._places(), self._rank()[0]
        limit = min(self.budget, self.nodes + (1 - CHAINS) * self.budget)
        order = sorted(range(len(best)), key=lambda index: -self.choices[index].mbps)
        for index in order:
            self._put(index, None)

        def place(depth: int, cost: float) -> None:
            nonlocal best, bottom
            if depth == len(order):
                best, bottom = self._places(), cost
                return
            index = order[depth]
            costs, start = self._weigh(self.choices[index]), self.choices[index].start
            for growth, _, at in sorted((round(growth, 6), at != start, at) for at, growth in enumerate(costs)):
                if cost + growth >= bottom - NEGLIGIBLE or bottom <= bound + NEGLIGIBLE or self.nodes >= limit:
                    return
                self._put(index, at)
                place(depth + 1, cost + growth)
                self._put(index, None)

        place(0, self.books.overbooked(self._links))
        self._go_to(best)

    # ---- local moves ----

    def _level(self, margin: float) -> None:
        """Move flows off overbooked links to less full ones where that overbooks no more in all."""
        over = [link for link in self._links if self._is_over(link)]
        for link in sorted(over, key=lambda link: -self.books.fullness(link)):
            for index in list(self._on[link]):
                if self._is_over(link) and self.nodes < self.budget:
                    self._level_one(index, margin)

    def _level_one(self, index: int, margin: float) -> None:
        choice = self.choices[index]
        held = choice.at
        assert held is not None
        costs, fullness = self._weigh(choice), self._fullness(choice)
        no_worse = [at for at, cost in enumerate(costs) if cost <= costs[held] + NEGLIGIBLE]
        at = min(no_worse, key=lambda at: fullness[at])
        if fullness[held] - fullness[at] > margin:
            self._put(index, at)

    def _take_back(self) -> None:
        """Return every flow that need not have moved."""
        for index, choice in enumerate(self.choices):
            if choice.start is None or choice.at is None or choice.at == choice.start:
                continue
            costs, fullness = self._weigh(choice), self._fullness(choice)
            again = costs[choice.start]
            as_good = again <= NEGLIGIBLE or fullness[choice.start] <= fullness[choice.at]
            if again <= costs[choice.at] + NEGLIGIBLE and as_good:
                self._put(index, choice.start)


def _cuts(choice: Choice) -> list[Cut]:
    """By hop, from the front and from the back, the links of which the flow must take one."""
    shortest = min(map(len, choice.options))
    hops = (frozenset(links[hop] for links in choice.options) for hop in range(-shortest, shortest))
    return list(dict.fromkeys(hops))
