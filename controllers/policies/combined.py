"""The default of `congestion`: jobs are routed as if they were alone and go first; the background is routed round them, and
paced to what they leave.

Jobs with clocks of their own are moved apart in time where they share links, as `interleave` does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from controllers.policies.exact import Exact
from controllers.policies.interleave import shifts
from controllers.policies.leftover import limits
from controllers.policies.priority import prioritised
from fabric.fluid import max_min
from fabric.graph import Port
from fabric.policy import Action, FlowKey, FlowView, View

__all__ = ["Combined"]


class Combined:
    """`exact` for paths, `priority` for the jobs' flows; `margin` as in `exact`, `slowing` as in `leftover`.

    Demands are estimated as if all flows were equal, so that a job's flow beside a background flow counts as half a link.
    With priority it takes the whole: it is booked by what its host can send, divided among the job's own flows there.
    """

    NEEDS: ClassVar[Mapping[str, str]] = {"hints": "true"}  # keys of the collective, each with an example

    def __init__(self, margin: float = 0.1, slowing: float = 0.05) -> None:
        if not slowing >= 0:
            raise ValueError(f"slowing: got {slowing}; accepted: 0 or more")
        self._exact, self._slowing = Exact(margin=margin), slowing

    def decide(self, view: View) -> Sequence[Action]:
        """Orders for priority and rates, moves, and shifts."""
        return [*prioritised(view), *limits(view, self._slowing), *self._exact.decide(replace(view, flows=_with_priority(view))), *shifts(view)]


def _with_priority(view: View) -> tuple[FlowView, ...]:
    """The flows with the demands that they have when jobs' flows go first: those share what hosts have, others the rest."""
    if view.wires is None or view.wires.floor is None:
        return view.flows
    ends = {flow.key: ends for flow in view.flows if (ends := _ends(view, flow)) is not None}
    rate: dict[Hashable, float] = {port: view.links[port].mbps for pair in ends.values() for port in pair}
    left = dict(rate)
    demands: dict[FlowKey, float] = {}
    for whose in (True, False):
        those = [flow.key for flow in view.flows if (flow.job is not None) is whose and flow.key in ends]
        shares = max_min([ends[key] for key in those], left).tolist()
        demands.update(zip(those, shares, strict=True))
        for key in those:
            for port in ends[key]:
                left[port] -= demands[key]
        left = {port: max(mbps, view.wires.floor * rate[port]) for port, mbps in left.items()}
    return tuple(replace(flow, demand_mbps=demands.get(flow.key, flow.demand_mbps)) for flow in view.flows)


def _ends(view: View, flow: FlowView) -> tuple[Port, Port] | None:
    """The first and the last link of a flow, which all its paths share."""
    paths = [flow.path] if flow.path is not None else view.paths(flow.src, flow.dst)
    return (paths[0][0], paths[0][-1]) if paths else None
