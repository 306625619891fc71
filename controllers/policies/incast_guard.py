"""Windows that fit: before many connections to one host are opened, each is told how much may be under way.

All that the senders of a job may have in flight to one receiver together is kept to what its queue and its link hold, so
that nothing is dropped; and what is lost all the same is sent again after the longest round trip that this fabric can
have, instead of after the kernel's 200 ms. Source: OTCP (Jouet et al., NOMS 2016), which sets both per route from what
a controller knows of the topology.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from fabric.policy import Action, JobView, LinkView, SetTransport, Transport, View, Wires

__all__ = ["IncastGuard", "guarded"]

_LEAST_WINDOW = 2  # packets: a receiver acknowledges a single one only after its delayed-acknowledgement timer
_ACK_BYTES = 66


class IncastGuard:
    """Sets the routes of the hosts that send in a job whose flows meet, `fan_in` or more of them, at one receiver."""

    def __init__(self, fan_in: int = 3) -> None:
        if fan_in < 2:
            raise ValueError(f"fan_in: got {fan_in}; accepted: at least 2")
        self._fan_in = fan_in

    def decide(self, view: View) -> Sequence[Action]:
        """One order for each sender that is not set so yet."""
        return list(guarded(view, self._fan_in))


def guarded(view: View, fan_in: int) -> Iterator[SetTransport]:
    """The orders that are missing for the jobs' senders."""
    wanted: dict[str, tuple[Transport, int]] = {}
    for job in view.jobs:
        widest = max(_receivers(job).values(), default=0)
        if view.wires is not None and widest >= fan_in:
            transport = _transport(view, view.wires, job, widest)
            wanted.update({src: (transport, widest) for src, _ in job.flows})
    for host, (transport, widest) in sorted(wanted.items()):
        if view.wires is not None and view.wires.transport.get(host) != transport:
            yield SetTransport(host, transport, f"{widest} connections of a job meet at one host", {"fan_in": widest})


def _receivers(job: JobView) -> Counter[str]:
    return Counter(dst for _, dst in job.flows)


def _transport(view: View, wires: Wires, job: JobView, widest: int) -> Transport:
    """What lets `widest` senders share one queue, and a time-out just above the longest round trip."""
    paths = [view.paths(src, dst)[0] for src, dst in job.flows if view.paths(src, dst)]
    idle_ms = max((_round_trip_ms([view.links[port] for port in path], wires.frame) for path in paths), default=0.0)
    mbps = min(view.links[path[-1]].mbps for path in paths)
    bdp_bytes = mbps * 1e3 / 8 * idle_ms
    window = max(_LEAST_WINDOW, int((wires.queue_bytes + bdp_bytes) / (widest * wires.frame)))
    full_ms = wires.queue_bytes * 8e-3 / mbps
    return Transport(rto_min_ms=math.ceil(idle_ms + full_ms), initcwnd=window, cwnd_clamp=window)


def _round_trip_ms(links: Sequence[LinkView], frame: int) -> float:
    """A full frame there and its acknowledgement back, stored and forwarded at every link, with nothing waiting."""
    return sum((frame + _ACK_BYTES) * 8e-3 / link.mbps for link in links if link.up)
