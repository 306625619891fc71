"""Jobs that communicate in turns and share a link are moved apart in time: one computes while another communicates.

What a job asks of a link is laid round a circle, its period; turning one job's pattern against the others' is delaying it
once. Source: Rajasekaran et al., "CASSINI: Network-Aware Job Scheduling in Machine Learning Clusters", NSDI 2024.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from controllers.policies.exact import Exact
from fabric.graph import Port
from fabric.policy import Action, JobView, Shift, View

__all__ = ["Interleave", "shifts"]

Floats = npt.NDArray[np.float64]
_Pick = Callable[[npt.NDArray[np.bool_]], int]

_STEPS = 120  # of the longest period
_TURNS = 4  # of the longest period, round a circle that others fit: where they meet only after more, they are not held apart
_ROUNDS = 2
_NOTHING = 1e-9
_LIKE = 0.03  # of a period: how far one may be from a whole part of another
_STALE = 3  # periods without an iteration: the job is over


@dataclass(frozen=True)
class _Circle:
    """So many turns of the longest period: the time after which all that fit it stand as they stood."""

    longest_s: float
    turns: int

    @property
    def seconds(self) -> float:
        return self.longest_s * self.turns

    @property
    def steps(self) -> int:
        return _STEPS * self.turns

    def fits(self, period_s: float) -> bool:
        """Whether a period goes a whole number of times into it, nearly: others do not stay where they are put."""
        parts = self.seconds / period_s
        return abs(parts - round(parts)) <= _LIKE * parts


@dataclass(frozen=True)
class _Pattern:
    """A job as if it were alone: its period, the first `busy_s` of which it loads links by `mbps`; `begins` is when it does so next."""

    job: JobView
    period_s: float
    busy_s: float
    begins: float
    mbps: Mapping[Port, float]

    def on(self, circle: _Circle, offset_s: float | Floats) -> Floats:
        """1 where it communicates, at each step of a circle, if it begins at `offset_s`; a row for each of a column of those."""
        t = (np.arange(circle.steps) + 0.5) * circle.seconds / circle.steps
        return ((t - offset_s) % self.period_s < self.busy_s).astype(float)


class Interleave:
    """Shifts jobs whose periods are alike, or whole multiples, where that frees more than `gain` of the links that they share.

    Judged once a job has made `beats` iterations, and again after a shift. Flows are moved as `exact` does, if `route`.
    """

    NEEDS: ClassVar[Mapping[str, str]] = {"hints": "true", "compute_ms": "500"}  # keys of the collective, each with an example

    def __init__(self, gain: float = 0.05, beats: int = 2, route: bool = True) -> None:
        if not 0 < gain < 1:
            raise ValueError(f"gain: got {gain}; accepted: above 0 and below 1")
        if beats < 2:
            raise ValueError(f"beats: got {beats}; accepted: 2 or more")
        self._gain, self._beats = gain, beats
        self._router = Exact() if route else None

    def decide(self, view: View) -> Sequence[Action]:
        """Moves, and at most one shift of each job."""
        moves: list[Action] = list(self._router.decide(view)) if self._router else []
        return [*moves, *shifts(view, self._gain, self._beats)]


def shifts(view: View, gain: float = 0.05, beats: int = 2) -> Iterator[Shift]:
    """The shifts that free more than `gain` of what jobs ask of links beyond what these carry; none while one is coming."""
    heard = [job for job in view.jobs if len(job.began) >= beats]
    if any(job.shifted is not None and (job.last or 0) < job.shifted for job in heard):
        return
    patterns = [pattern for job in heard if (pattern := _pattern(view, job)) is not None]
    for together in _sharing(patterns):
        yield from _apart(view, together, gain)


def _apart(view: View, patterns: Sequence[_Pattern], gain: float) -> Iterator[Shift]:
    """The shifts of jobs that share links, if that is worth it; those whose periods fit no circle with most others are left alone."""
    longest_s = max(pattern.period_s for pattern in patterns)
    circles = [_Circle(longest_s, turns) for turns in range(1, _TURNS + 1)]
    circle = max(circles, key=lambda one: (sum(one.fits(pattern.period_s) for pattern in patterns), -one.turns))
    fitting = [pattern for pattern in patterns if circle.fits(pattern.period_s)]
    # Where two communicate at the same time their periods are longer now, but alike: the nearest begins count.
    now = [math.remainder(pattern.begins - fitting[0].begins, circle.seconds) for pattern in fitting]
    excess = _excess(view, fitting, now, circle)
    if excess <= gain:
        return
    best = min((_placed(view, fitting, now, circle, pick) for pick in (_middle, _first)), key=lambda them: _excess(view, fitting, them, circle))
    after = _excess(view, fitting, best, circle)
    if excess - after <= gain:
        return
    periods = [pattern.period_s for pattern in fitting]
    for pattern, delay_s in zip(fitting, _least([then - offset for then, offset in zip(best, now, strict=True)], periods), strict=True):
        if delay_s >= pattern.period_s / _STEPS:
            numbers = {"period_ms": 1e3 * pattern.period_s, "busy_ms": 1e3 * pattern.busy_s, "excess": excess, "excess_after": after}
            yield Shift(pattern.job.name, round(1e3 * delay_s, 3), "it communicates when others on its links do, and need not", numbers)


def _placed(view: View, patterns: Sequence[_Pattern], now: Sequence[float], circle: _Circle, pick: _Pick) -> list[float]:
    """Offsets: one job after another where `pick` puts it among those before, then each in the middle of what the others leave."""
    found = [now[0]]
    for pattern, offset in zip(patterns[1:], now[1:], strict=True):
        found.append(_best(view, pattern, offset, patterns[: len(found)], found, circle, pick))
    for _ in range(_ROUNDS):
        for index in range(1, len(patterns)):
            others = [number for number in range(len(patterns)) if number != index]
            theirs = [found[number] for number in others]
            found[index] = _best(view, patterns[index], found[index], [patterns[number] for number in others], theirs, circle, _middle)
    return found


def _best(
    view: View, pattern: _Pattern, offset: float, others: Sequence[_Pattern], theirs: Sequence[float], circle: _Circle, pick: _Pick
) -> float:
    """Where a job is least in the way of others: of all such offsets the one that `pick` chooses."""
    asked = _asked(others, theirs, circle)
    turns = offset + np.arange(_STEPS) * pattern.period_s / _STEPS
    on = pattern.on(circle, turns[:, np.newaxis])
    costs = np.zeros(_STEPS)
    for port, mbps in pattern.mbps.items():
        if port in asked:
            rate = view.links[port].mbps
            costs = np.maximum(costs, np.maximum(0.0, asked[port] + mbps * on - rate).mean(axis=1) / rate)
    return float(turns[pick(costs <= costs.min() + _NOTHING)])


def _asked(patterns: Sequence[_Pattern], offsets: Sequence[float], circle: _Circle) -> dict[Port, Floats]:
    """What jobs ask of each of their links, in Mb/s, round the circle."""
    asked: dict[Port, Floats] = {}
    for pattern, offset in zip(patterns, offsets, strict=True):
        for port, mbps in pattern.mbps.items():
            asked[port] = asked.get(port, 0.0) + mbps * pattern.on(circle, offset)
    return asked


def _excess(view: View, patterns: Sequence[_Pattern], offsets: Sequence[float], circle: _Circle) -> float:
    """The worst link's share of rate and time by which it is asked for more than it carries."""
    asked = _asked(patterns, offsets, circle)
    return max(float(np.maximum(0.0, mbps - view.links[port].mbps).mean()) / view.links[port].mbps for port, mbps in asked.items())


def _sharing(patterns: Sequence[_Pattern]) -> list[list[_Pattern]]:
    """Those that share links, also by way of others, together; in order."""
    found: list[list[_Pattern]] = []
    for pattern in patterns:
        mine = [some for some in found if any(one.mbps.keys() & pattern.mbps.keys() for one in some)]
        found = [some for some in found if some not in mine] + [[*(one for some in mine for one in some), pattern]]
    return found


def _least(delays: Sequence[float], periods: Sequence[float]) -> list[float]:
    """The same offsets from each other by other delays: all turned until one job need not be delayed, so that the sum is least."""
    turned = ([(delay - other) % period for delay, period in zip(delays, periods, strict=True)] for other in delays)
    return min(turned, key=sum)


def _pattern(view: View, job: JobView) -> _Pattern | None:
    """A job's pattern, from what it announced, told of its iterations, and the paths of its flows; None where these do not say."""
    paths = {(flow.src, flow.dst): flow.path for flow in view.flows if flow.job == job.name}
    nbytes: Counter[Port] = Counter()
    for ends, size in zip(job.flows, job.nbytes, strict=True):
        path = paths.get(ends)
        if path is None:
            return None
        nbytes.update(dict.fromkeys(path, size))
    rates = {port: view.links[port].mbps * view.payload for port in nbytes}
    if not rates or min(rates.values()) <= 0:
        return None
    busy_s = max(nbytes[port] * 8e-6 / rates[port] for port in nbytes)
    # A shift makes one gap longer; the shortest is the job's own.
    compute_s = min(later - began - busy for (began, later), busy in zip(pairwise(job.began), job.busy_s, strict=False))
    period_s = max(compute_s, 0.0) + busy_s
    if busy_s <= 0 or view.t - job.began[-1] > _STALE * (period_s + max(job.busy_s)):
        return None
    mbps = {port: nbytes[port] * 8e-6 / busy_s / view.payload for port in nbytes}
    return _Pattern(job, period_s, busy_s, job.began[-1] + job.busy_s[-1] + compute_s, mbps)


def _longest(best: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Where the longest run of True round a circle begins, and how long it is; from 0 where all are."""
    if best.all():
        return 0, 1
    start = int(np.flatnonzero(~best)[0])
    turned = np.roll(best, -start)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], turned.astype(int), [0]))))
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    return int(start + begins[longest]) % len(best), int(ends[longest] - begins[longest])


def _middle(best: npt.NDArray[np.bool_]) -> int:
    """The middle of the longest run of True round a circle: as far from harm as can be."""
    start, length = _longest(best)
    return (start + (length - 1) // 2) % len(best)


def _first(best: npt.NDArray[np.bool_]) -> int:
    """The beginning of the longest run of True round a circle; 0 where all are."""
    start, _ = _longest(best)
    return start
