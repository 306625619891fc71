"""Looks over a policy's answer before it reaches a switch: anyone's policy may be plugged in, and may be wrong.

Comes in: the `View` it was given and its actions. Goes out: those that may be done, and why the others may not. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from fabric.errors import RequestError
from fabric.labels import label_of
from fabric.orders import described
from fabric.policy import Action, FlowKey, FlowView, Lever, Reroute, Reweight, SetEcn, SetPriority, SetRate, Shift, View

__all__ = ["Held", "referee"]

Held = tuple[Action, str]
_LONGEST_SHIFT_MS = 600_000


def referee(view: View, actions: Iterable[Action]) -> tuple[list[Action], list[Held]]:
    """The actions that may be done, in order, and the rest, each with the reason."""
    flows = {flow.key: flow for flow in view.flows}
    done: set[object] = set()
    allowed: list[Action] = []
    held: list[Held] = []
    for action in actions:
        why, what = _against(view, flows, action), _what(action)
        if why is None and what in done:
            why = "it was moved already in this tick" if isinstance(action, (Reroute, Reweight)) else "it was set already in this tick"
        if why is None:
            done.add(what)
            allowed.append(action)
        else:
            held.append((action, why))
    return allowed, held


def _what(action: Action) -> object:
    """What an action changes; nothing is changed twice in a tick."""
    if isinstance(action, Reroute):
        return action.flow
    if isinstance(action, Reweight):
        return (action.switch, action.group)
    return tuple(described(action)[key] for key in ("lever", "on"))


def _against(view: View, flows: dict[FlowKey, FlowView], action: Action) -> str | None:
    if isinstance(action, Reroute):
        return _against_reroute(view, flows, action)
    return _against_reweight(view, action) if isinstance(action, Reweight) else _against_lever(view, flows, action)


def _against_lever(view: View, flows: dict[FlowKey, FlowView], action: Lever) -> str | None:
    """What needs no asking; hosts and ports may refuse an order all the same."""
    flow = action.flow if isinstance(action, SetPriority) else action.target if isinstance(action, SetRate) else None
    if isinstance(flow, FlowKey) and flow not in flows:
        return "no active flow is called so"
    if isinstance(action, SetRate) and action.mbps is not None and not action.mbps > 0:
        return f"got {action.mbps} Mb/s; accepted: a number above 0, or None for no limit"
    if isinstance(action, SetEcn) and action.port not in view.links:
        return "there is no such port"
    return _against_shift(view, action) if isinstance(action, Shift) else None


def _against_shift(view: View, action: Shift) -> str | None:
    if not 0 < action.delay_ms <= _LONGEST_SHIFT_MS:
        return f"got {action.delay_ms} ms; accepted: above 0, and at most {_LONGEST_SHIFT_MS}"
    return None if action.job in [job.name for job in view.jobs] else "no job has announced itself so"


def _against_reroute(view: View, flows: dict[FlowKey, FlowView], action: Reroute) -> str | None:
    flow = flows.get(action.flow)
    if flow is None:
        return "no active flow is called so"
    if not flow.movable:
        return "it was moved a moment ago"
    if action.path not in view.paths(flow.src, flow.dst):
        return "its path is not among those offered"
    try:
        label_of(action.path)
    except RequestError as err:
        return str(err)
    return None


def _against_reweight(view: View, action: Reweight) -> str | None:
    present = view.groups.get((action.switch, action.group))
    if present is None:
        return "there is no such group of paths"
    if len(action.weights) != len(present) or min(action.weights, default=0) < 0 or not sum(action.weights) > 0:
        return f"got weights {list(action.weights)}; accepted: {len(present)} whole numbers from 0, not all 0"
    return None
