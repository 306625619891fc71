"""Rates instead of queues: every flow is limited to its max-min fair share of a little less than the links can carry.

Source: water-filling as in Bertsekas and Gallager, Data Networks, 6.5.2, by `fabric.fluid.max_min`; a headroom below the
line rate keeps queues empty as in HULL (NSDI 2012).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

from controllers.policies.exact import Exact
from fabric.fluid import max_min
from fabric.policy import Action, FlowView, Reroute, SetRate, View

__all__ = ["MaxMin"]

_HUNGRY = 0.7  # of its limit: a flow that takes less wants less
_ROOM = 1.25  # times what it took: so that it can show that it wants more again


class MaxMin:
    """Limits flows so that no link carries more than `headroom` of its rate; moves them first as `exact` does, if `route`.

    A limit is set anew when it changes by more than `step` of itself. Flows on paths that are not known are left alone.
    """

    def __init__(self, headroom: float = 0.95, step: float = 0.02, route: bool = True) -> None:
        if not 0 < headroom <= 1:
            raise ValueError(f"headroom: got {headroom}; accepted: above 0 and at most 1")
        self._headroom, self._step = headroom, step
        self._router = Exact() if route else None

    def decide(self, view: View) -> Sequence[Action]:
        """Moves, and the limits that are right after them."""
        moves = list(self._router.decide(view)) if self._router else []
        paths = {move.flow: move.path for move in moves if isinstance(move, Reroute)}
        flows = [replace(flow, path=paths.get(flow.key, flow.path)) for flow in view.flows]
        return [*moves, *self._limits(view, [flow for flow in flows if flow.path is not None])]

    def _limits(self, view: View, flows: list[FlowView]) -> Iterator[SetRate]:
        capacity: dict[Hashable, float] = {port: link.mbps * self._headroom for port, link in view.links.items()}
        known = [flow for flow in flows if all(capacity[port] > 0 for port in flow.path or ())]
        rates = max_min([flow.path or () for flow in known], capacity, [_wants(flow) for flow in known])
        for flow, mbps in zip(known, rates.tolist(), strict=True):
            now = flow.limit_mbps
            if now is None or abs(mbps - now) > self._step * now:
                shared = sum(1 for other in known if set(other.path or ()) & set(flow.path or ()))
                yield SetRate(flow.key, round(mbps, 4), "its max-min fair share of the links that it crosses", {"with_flows": shared})


def _wants(flow: FlowView) -> float | None:
    """At most this, when it was measured to leave a part of its limit unused; None for all that it can get."""
    if flow.limit_mbps is None or flow.mbps is None or flow.mbps >= _HUNGRY * flow.limit_mbps:
        return None
    return max(flow.mbps * _ROOM, 0.01 * flow.limit_mbps)
