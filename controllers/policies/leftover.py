"""What jobs with priority leave of each link, as rates for the background that shares it.

Priority cannot call back a packet that is being sent: one of 9000 bytes at 20 Mb/s is 3.6 ms, at every hop of every step.
How long that is on average: Cobham, "Priority assignment in waiting line problems", Operations Research 2(1), 1954; it goes
with the share of time that others send. Background that is paced to what is left over is seldom in the way, and gets as much.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import pairwise
from math import inf

from fabric.fluid import max_min
from fabric.graph import Port
from fabric.policy import SetRate, View

__all__ = ["limits"]

_STEP = 0.2  # of a limit: less is not worth an order
_WHOLE = 0.9  # of the narrowest link on the way: more is no limit


def limits(view: View, slowing: float = 0.05) -> Iterator[SetRate]:
    """The rates, in Mb/s, that the background must be set to; nothing where queues know no priority.

    Each flow that shares a link with a job gets its max-min share of what jobs leave when they take `slowing` times longer
    than at their best, at least the floor that queues guarantee; a job that has not told of two iterations yet is taken to
    leave just that. What is in their way slows jobs, and so they leave more than without it.
    """
    if view.wires is None or view.wires.floor is None:
        return
    taken = _taken(view)
    least: dict[Hashable, float] = {
        port: max(link.mbps - taken.get(port, 0.0) / (1 + slowing), view.wires.floor * link.mbps) for port, link in view.links.items()
    }
    others = [flow for flow in view.flows if flow.job is None and flow.path is not None]
    shares = max_min([flow.path or () for flow in others], least, [None] * len(others)).tolist()
    for flow, share in zip(others, shares, strict=True):
        whole = min(view.links[port].mbps for port in flow.path or ())
        mbps = share if taken.keys() & set(flow.path or ()) and share < _WHOLE * whole else None
        if _differs(flow.limit_mbps, mbps):
            most = max((taken.get(port, 0.0) for port in flow.path or ()), default=0.0)
            reason = "what jobs leave of its links" if mbps is not None else "jobs leave its links to it"
            numbers = {"taken_mbps": round(most, 3)} if most < inf else {}
            yield SetRate(flow.key, None if mbps is None else round(mbps, 4), reason, numbers)


def _taken(view: View) -> dict[Port, float]:
    """What jobs take of each link that they use, in Mb/s of frames: the bytes of an iteration over the time from one to the next.

    Infinite where a job has not told of two yet. The shortest such time counts: a job that the background slows down leaves more, and that must not be given away as well.
    """
    taken: dict[Port, float] = {}
    for job in view.jobs:
        nbytes = dict(zip(job.flows, job.nbytes, strict=True))
        period_s = min((later - began for began, later in pairwise(job.began)), default=None)
        for flow in view.flows:
            if flow.job != job.name or flow.path is None:
                continue
            for port in flow.path:
                rate = inf if period_s is None else nbytes.get((flow.src, flow.dst), 0) * 8e-6 / period_s / view.payload
                taken[port] = taken.get(port, 0.0) + rate
    return taken


def _differs(now: float | None, wanted: float | None) -> bool:
    if now is None or wanted is None:
        return now is not wanted
    return abs(wanted - now) > _STEP * now
