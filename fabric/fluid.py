"""The fluid model: max-min fair rates on given paths, and a schedule played in virtual time at those rates.

Comes in: paths, capacities, a `Schedule`. Goes out: rates and times, as theory has them: no packets, no TCP dynamics,
no store-and-forward. A path is any sequence of resources that are keys of `capacity`; `fabric.paths` gives ports.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fabric.errors import RequestError
from fabric.load import Flow
from fabric.schedule import Progress, Schedule, check_structure

__all__ = ["Alpha", "Played", "alpha_of", "max_min", "play", "share_of_nonblocking"]

Rates = npt.NDArray[np.float64]
Alpha = float | Callable[[int, int, int], float]

TIE = 1e-12  # relative: shares, and moments, closer than this are equal but for rounding
REMEMBERED = 4096  # sets of busy connections whose rates are kept
_NO_LINE = -1  # of what stays within a rank, and takes no time


@dataclass(frozen=True, slots=True)
class Played:
    """When a schedule ended in virtual time, and when each transfer arrived, by id; ms from the common start."""

    end_ms: float
    transfer_end_ms: tuple[float, ...]


def max_min(
    paths: Sequence[Sequence[Hashable]],
    capacity: Mapping[Hashable, float],
    demand: Sequence[float | None] | None = None,
) -> Rates:
    """The max-min fair rate of every flow, in the unit of `capacity`; `demand` caps a flow, None does not.

    A flow with an empty path gets its demand, or infinity. RequestError for a missing capacity or a bad number.
    Source: progressive filling, Bertsekas, Gallager, "Data Networks", 2nd ed., 6.5.2.

    >>> max_min(["ab", "a", "b"], {"a": 1.0, "b": 3.0}).tolist()
    [0.5, 0.5, 2.5]
    """
    return _Pipes(paths, capacity, demand).fill(np.ones(len(paths), dtype=np.bool_))


class _Pipes:
    """Flows and the resources they cross, indexed once so that any subset of the flows can be filled fast."""

    def __init__(
        self,
        paths: Sequence[Sequence[Hashable]],
        capacity: Mapping[Hashable, float],
        demand: Sequence[float | None] | None = None,
    ) -> None:
        resources = dict.fromkeys(part for path in paths for part in path)
        number = {resource: index for index, resource in enumerate(resources)}
        self._capacity = _capacities(number, capacity)
        self._cap = _demands(len(paths), demand)
        flow = np.repeat(np.arange(len(paths)), [len(path) for path in paths])
        resource = np.array([number[part] for path in paths for part in path], dtype=np.intp)
        # A resource that is crossed once only caps that flow; what is left, few in a fabric, is what flows contend for.
        alone = np.bincount(resource, minlength=len(number))[resource] == 1
        np.minimum.at(self._cap, flow[alone], self._capacity[resource[alone]])
        self._flow, self._resource = flow[~alone], resource[~alone]

    def fill(self, present: npt.NDArray[np.bool_]) -> Rates:
        """The rates when only the flows in `present` send; the others' are 0.

        Every round ends the flows whose bound no later round can lift: shares only grow as others end below them.
        """
        rates = np.zeros(len(present))
        rising = present.copy()
        room = self._capacity.copy()
        flow, resource = self._flow, self._resource
        while rising.any():
            crossing = rising[flow]
            flow, resource = flow[crossing], resource[crossing]
            share = room / np.maximum(np.bincount(resource, minlength=len(room)), 1)
            bound = self._cap.copy()
            np.minimum.at(bound, flow, share[resource])
            lowest = share.copy()  # by resource: the bound of the flow on it that is bound most, here or elsewhere
            np.minimum.at(lowest, resource, bound[flow])
            ended = rising & (self._cap <= bound)
            ended[flow[(share <= lowest * (1 + TIE))[resource]]] = True
            rates[ended] = bound[ended]
            leaving = ended[flow]
            room -= np.bincount(resource[leaving], weights=rates[flow[leaving]], minlength=len(room))
            np.maximum(room, 0.0, out=room)
            rising &= ~ended
        return rates


def _capacities(number: Mapping[Hashable, int], capacity: Mapping[Hashable, float]) -> Rates:
    for resource in number:
        if resource not in capacity:
            raise RequestError(f"fluid model: a path crosses {resource}, which has no capacity; give it one")
        if not 0 <= capacity[resource] < float("inf"):
            raise RequestError(f"fluid model: {resource} has capacity {capacity[resource]}; accepted: a number from 0")
    return np.array([capacity[resource] for resource in number], dtype=np.float64)


def _demands(flows: int, demand: Sequence[float | None] | None) -> Rates:
    wanted = [None] * flows if demand is None else list(demand)
    if len(wanted) != flows:
        raise RequestError(f"fluid model: got {len(wanted)} demands for {flows} flows; give one each, None for no cap")
    for cap in wanted:
        if cap is not None and not cap >= 0:
            raise RequestError(f"fluid model: got a demand of {cap}; accepted: a number from 0, or None for no cap")
    return np.array([np.inf if cap is None else cap for cap in wanted], dtype=np.float64)


def play(
    schedule: Schedule,
    path_of: Callable[[int, int, int], Sequence[Hashable]],
    capacity: Mapping[Hashable, float],
    alpha_ms: Alpha,
    background: Sequence[Sequence[Hashable]] = (),
    background_demand: Sequence[float | None] | None = None,
    burst_bytes: int = 0,
    sharing: bool = True,
) -> Played:
    """When each transfer would arrive if every flow had its max-min share at every moment.

    Without `sharing` every connection has its whole path for itself: nothing that shares links can be faster.
    `path_of(src rank, dst rank, channel)` is the path of a connection, `capacity` Mb/s of payload, `background` the
    paths of flows that never end. A connection sends its transfers one after another; each arrives `alpha_ms`, one for all or
    by connection, after its last byte left. Links are token buckets: one that no connection used has earned up to `burst_bytes` of payload, which
    pass at once, whoever comes first. RequestError for a schedule that cannot be executed, or that a resource of capacity 0 blocks.
    """
    check_structure(schedule)
    alphas = [alpha_of(alpha_ms, *connection) for connection in schedule.connections]
    paths = [path_of(*connection) for connection in schedule.connections]
    demand = [*[None] * len(paths), *([None] * len(background) if background_demand is None else background_demand)]
    pipes = _Pipes([*paths, *background], capacity, demand)
    if not sharing:
        whole = np.array([min((capacity[part] for part in path), default=np.inf) for path in paths])
        # With buckets of its own, too: shared ones would serve who comes first, and that need not be whom the end waits for.
        own = [tuple((line, part) for part in path) for line, path in enumerate(paths)]
        rate_of: dict[Hashable, float] = {part: capacity[part[1]] for path in own for part in path}
        return _Player(schedule, lambda _: whole, alphas, _Buckets(own, rate_of, burst_bytes * 8 / 1000)).run()
    always = np.ones(len(background), dtype=np.bool_)

    @lru_cache(maxsize=REMEMBERED)
    def rates(busy: bytes) -> Rates:
        present = np.concatenate((np.frombuffer(busy, dtype=np.bool_), always))
        return pipes.fill(present)[: len(paths)]

    return _Player(schedule, rates, alphas, _Buckets(paths, capacity, burst_bytes * 8 / 1000)).run()


def alpha_of(alpha_ms: Alpha, src: int, dst: int, channel: int) -> float:
    """The latency of one connection; RequestError when it is none."""
    found = alpha_ms(src, dst, channel) if callable(alpha_ms) else alpha_ms
    if not 0 <= found < float("inf"):
        raise RequestError(f"fluid model: got alpha_ms {found}; accepted: a number from 0")
    return found


class _Buckets:
    """What each resource has earned while nobody used it, in kilobits: several who begin on one link share what it holds."""

    def __init__(self, paths: Sequence[Sequence[Hashable]], capacity: Mapping[Hashable, float], kbit: float) -> None:
        self._paths, self._capacity, self._kbit = paths, capacity, kbit
        used = {resource for path in paths for resource in path}
        self._held = dict.fromkeys(used, kbit)
        self._users = dict.fromkeys(used, 0)
        self._idle_since = dict.fromkeys(used, 0.0)

    def spend(self, line: int, size: float, now: float) -> float:
        """A line begins: how much of `size` passes at once, taken from every bucket on its path."""
        if not self._kbit:
            return 0.0
        path = self._paths[line]
        for resource in path:
            if not self._users[resource]:
                earned = self._capacity[resource] * (now - self._idle_since[resource])
                self._held[resource] = min(self._kbit, self._held[resource] + earned)
            self._users[resource] += 1
        spent = min(size, *(self._held[resource] for resource in path)) if path else size
        for resource in path:
            self._held[resource] -= spent
        return spent

    def rest(self, line: int, now: float) -> None:
        """A line has ended what it sent."""
        for resource in self._paths[line] if self._kbit else ():
            self._users[resource] -= 1
            self._idle_since[resource] = now


class _Player:
    """One play: which connections are busy, what they have left to send, and what is under way."""

    def __init__(
        self,
        schedule: Schedule,
        rates: Callable[[bytes], Rates],
        alphas: Sequence[float],
        buckets: _Buckets,
    ) -> None:
        self._schedule = schedule
        self._rates = rates  # of every line, by which lines are busy: one byte each
        self._alphas = alphas  # ms, by line
        lines = {connection: line for line, connection in enumerate(schedule.connections)}
        self._line_of = [lines.get(transfer.connection, _NO_LINE) for transfer in schedule.transfers]
        self._sending = [-1] * len(lines)  # by line: the transfer that it sends, when busy
        self._busy = np.zeros(len(lines), dtype=np.bool_)
        self._kbit = np.zeros(len(lines))  # left to send: kilobits over Mb/s are ms
        self._buckets = buckets
        self._flying: list[tuple[float, int, int]] = []  # a heap: when, the how-manieth departure, and what
        self._departures = 0
        self._end_ms = [0.0] * len(schedule.transfers)
        self._progress = Progress(schedule)
        self._now = 0.0

    def run(self) -> Played:
        """From moment to moment: what ends there ends together, and what that frees begins."""
        self._begin(self._progress.ready)
        while self._busy.any() or self._flying:
            done = self._advance()
            for line in np.flatnonzero(done).tolist():
                self._leave(line)
            while self._flying and self._flying[0][0] <= self._now * (1 + TIE):
                moment, _, number = heapq.heappop(self._flying)
                self._arrive(moment, number)
        return Played(max(self._end_ms, default=0.0), tuple(self._end_ms))

    def _advance(self) -> npt.NDArray[np.bool_]:
        """Move on to the next moment at which something leaves or arrives; the lines that finish there."""
        rate = self._rates(self._busy.tobytes())
        lasts = np.full(len(rate), np.inf)
        np.divide(self._kbit, rate, out=lasts, where=self._busy & (rate > 0))
        lasts[self._busy & (self._kbit == 0)] = 0.0
        step = min(lasts.min(), self._flying[0][0] - self._now if self._flying else np.inf)
        if step == np.inf:
            blocked = self._sending[int(np.argmax(self._busy))]
            raise RequestError(f"fluid model: transfer {blocked} never ends, its path has no capacity; check the path")
        step = max(float(step), 0.0)
        self._now += step
        done: npt.NDArray[np.bool_] = lasts <= step + self._now * TIE
        moved = self._busy & ~done
        self._kbit[moved] -= rate[moved] * step
        return done

    def _begin(self, numbers: list[int]) -> None:
        waiting = list(numbers)
        while waiting:
            number = waiting.pop(0)
            line = self._line_of[number]
            if line == _NO_LINE:
                self._end_ms[number] = self._now
                waiting += [*self._progress.left(number), *self._progress.arrived(number)]
                continue
            self._sending[line] = number
            self._busy[line] = True
            size = self._schedule.transfers[number].nbytes * 8 / 1000
            self._kbit[line] = size - self._buckets.spend(line, size, self._now)

    def _leave(self, line: int) -> None:
        number = self._sending[line]
        self._busy[line] = False
        self._buckets.rest(line, self._now)
        heapq.heappush(self._flying, (self._now + self._alphas[line], self._departures, number))
        self._departures += 1
        self._begin(self._progress.left(number))

    def _arrive(self, moment: float, number: int) -> None:
        self._end_ms[number] = moment
        self._begin(self._progress.arrived(number))


def share_of_nonblocking(rates: Sequence[float] | Rates, flows: Sequence[Flow], mbps: float) -> float:
    """The sum of `rates` over what the same flows would get on one ideal switch, where only host links of `mbps` limit.

    A flow's own `mbps` caps it there too. Both rates and `mbps` in one unit.
    """
    paths = [((flow.src, "out"), (flow.dst, "in")) for flow in flows]
    capacity: dict[Hashable, float] = {link: mbps for path in paths for link in path}
    ideal = max_min(paths, capacity, [flow.mbps for flow in flows]).sum()
    if len(rates) != len(flows) or not ideal > 0:
        got = f"{len(rates)} rates for {len(flows)} flows, links of {mbps} Mb/s"
        raise RequestError(f"share of non-blocking: got {got}; accepted: a rate for each flow, links above 0")
    return float(np.sum(rates) / ideal)
