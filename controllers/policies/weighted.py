"""Weights for the hash: flows that are hashed are spread over a group's paths by what is left on each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fabric.bookings import accept
from fabric.graph import Port
from fabric.paths import Path
from fabric.policy import FlowView, Reweight, View

__all__ = ["Weighted"]

FINENESS = 8  # weights of a group sum to this many times its paths


@dataclass(frozen=True, slots=True)
class Weighted:
    """Places no flow; gives every group of paths weights by the rate left on each path's fullest link.

    What the group's own flows get on a path counts as left, or the weights would flee from their own traffic. A path
    that is up keeps at least one part, a dead one gets none. The weights go `smoothing` of the way (0 not at all, 1
    all the way) from the present ones, and only where more than `margin` of the group's flows would then go elsewhere.
    Every path counts with half of `margin` of its rate as left at least: full ones do not differ by what is no difference.
    Flows under way follow their slots of the hash, which disturbs them: a group rests for `rest_s` seconds after a change.
    """

    smoothing: float = 0.5
    margin: float = 0.1
    rest_s: float = 5.0
    _changed: dict[tuple[str, str], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        accept("weighted", "smoothing", self.smoothing, 0, 1)
        accept("weighted", "margin", self.margin, 0, 1)
        accept("weighted", "rest_s", self.rest_s, 0)

    def decide(self, view: View) -> list[Reweight]:
        """New weights for the groups whose paths have become unequal."""
        own = _own_flows(view)
        rested = {group for group in view.groups if not 0 < view.t - self._changed.get(group, view.t) < self.rest_s}
        answers = (self._reweight(view, group, view.groups[group], own.get(group, [])) for group in view.groups if group in rested)
        found = [answer for answer in answers if answer is not None]
        self._changed.update({(answer.switch, answer.group): view.t for answer in found})
        return found

    def _reweight(
        self, view: View, group: tuple[str, str], weights: tuple[int, ...], own: list[FlowView]
    ) -> Reweight | None:
        paths = view.switch_paths(*group)
        if len(paths) < 2 or len(paths) != len(weights) or not sum(weights):
            return None
        now = [weight / sum(weights) for weight in weights]
        own_mbps = _own_mbps(paths, now, own)
        left = [min(_left(view, port, own_mbps[port]) for port in path) for path in paths]
        floors = [self.margin / 2 * min(view.links[port].mbps for port in path) for path in paths]
        counted = [max(mbps, floor) for mbps, floor in zip(left, floors, strict=True)]
        if not sum(counted) > 0:
            return None
        wanted = [mbps / sum(counted) for mbps in counted]
        alive = [all(view.links[port].up for port in path) for path in paths]
        aim = [old + self.smoothing * (new - old) for old, new in zip(now, wanted, strict=True)]
        parts = _whole(aim, alive)
        elsewhere = _elsewhere(now, [part / sum(parts) for part in parts])
        if elsewhere <= self.margin or _elsewhere(now, wanted) <= self.margin:
            return None
        best, least = max(left), min(left)
        reason = f"its paths had from {least:.2f} to {best:.2f} Mb/s left; {elsewhere:.0%} of what is hashed goes elsewhere"
        return Reweight(*group, parts, reason, {"least_mbps": least, "most_mbps": best, "elsewhere": elsewhere})


def _own_flows(view: View) -> dict[tuple[str, str], list[FlowView]]:
    """The flows of every group, by what they were measured to get."""
    own: dict[tuple[str, str], list[FlowView]] = {}
    for flow in view.flows:
        path = flow.path or next(iter(view.paths(flow.src, flow.dst)), ())
        if flow.mbps and len(path) > 2:
            own.setdefault((path[1].node, path[-1].node), []).append(flow)
    return own


def _own_mbps(paths: Sequence[Path], shares: Sequence[float], own: Sequence[FlowView]) -> dict[Port, float]:
    """What the flows get on each link of the paths; those whose path is not known, as the hash spreads them."""
    hashed = sum(flow.mbps or 0.0 for flow in own if flow.path is None)
    found = {port: 0.0 for path in paths for port in path}
    for path, share in zip(paths, shares, strict=True):
        for port in path:
            found[port] += share * hashed
    for flow in own:
        for port in flow.path or ():
            if port in found:
                found[port] += flow.mbps or 0.0
    return found


def _left(view: View, port: Port, own_mbps: float) -> float:
    """What a link could carry of the group, in Mb/s."""
    link = view.links[port]
    return min(max(link.mbps - link.utilisation * link.configured_mbps, 0.0) + own_mbps, link.mbps)


def _whole(shares: Sequence[float], alive: Sequence[bool]) -> tuple[int, ...]:
    """Whole numbers in these proportions, without a common divisor; from 1 where alive, 0 elsewhere."""
    whole = FINENESS * len(shares)
    parts = [max(round(whole * share), 1) if up else 0 for share, up in zip(shares, alive, strict=True)]
    common = math.gcd(*parts)
    return tuple(part // common for part in parts)


def _elsewhere(before: Sequence[float], after: Sequence[float]) -> float:
    """The share of flows that these shares would send another way: the total variation between them."""
    return sum(abs(old - new) for old, new in zip(before, after, strict=True)) / 2
