"""Windows that fit: before many connections to one host are opened, each is told how much may be under way.

All that the senders of a job may have in flight to one receiver together is kept to what its queue and its link hold, so
that nothing is dropped; and what is lost all the same is sent again after the longest round trip that this fabric can
have, instead of after the kernel's 200 ms. Source: OTCP (Jouet et al., NOMS 2016), which sets both per route from what
a controller knows of the topology.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import ClassVar

from fabric.ideal import ETHERNET_HEADER, TCP_IP_HEADERS
from fabric.policy import Action, JobView, LinkView, SetTransport, Transport, View, Wires

__all__ = ["IncastGuard", "guarded"]

_LEAST_WINDOW = 2  # packets: a receiver acknowledges a single one only after its delayed-acknowledgement timer
_ACK_BYTES = ETHERNET_HEADER + TCP_IP_HEADERS


class IncastGuard:
    """Sets the hosts that send in a job whose flows meet, `fan_in` or more of them, at one receiver."""

    NEEDS: ClassVar[Mapping[str, str]] = {"hints": "true"}  # keys of the collective, each with an example
    SETS_HOSTS: ClassVar[bool] = True  # what a host shares with others of its server it cannot be given

    def __init__(self, fan_in: int = 3) -> None:
        if fan_in < 2:
            raise ValueError(f"fan_in: got {fan_in}; accepted: at least 2")
        self._fan_in = fan_in

    def decide(self, view: View) -> Sequence[Action]:
        """One order for each host that is not set so yet."""
        return list(guarded(view, self._fan_in))


def guarded(view: View, fan_in: int) -> Iterator[SetTransport]:
    """The orders that are missing for the jobs' senders."""
    wanted: dict[str, tuple[Transport, int]] = {}
    for job in view.jobs if view.wires is not None else ():
        widest = max(Counter(dst for _, dst in job.flows).values(), default=0)
        transport = _transport(view, view.wires, job, widest) if view.wires is not None and widest >= fan_in else None
        if transport is not None:
            wanted.update({src: (transport, widest) for src, _ in job.flows})
    for host, (transport, met) in sorted(wanted.items()):
        now = view.wires.transport.get(host) if view.wires is not None else None
        if now is None or _over(now, transport) != now:
            yield SetTransport(host, transport, f"{met} connections of a job meet at one host", {"fan_in": met})


def _transport(view: View, wires: Wires, job: JobView, widest: int) -> Transport | None:
    """What lets `widest` senders share one queue, and a time-out above the longest round trip; None while no path is up."""
    paths = [view.paths(src, dst)[0] for src, dst in job.flows if view.paths(src, dst)]
    mbps = min((view.links[path[-1]].mbps for path in paths), default=0.0)
    if mbps <= 0:
        return None
    idle_ms = max(_round_trip_ms([view.links[port] for port in path], wires.frame) for path in paths)
    bdp_bytes = mbps * 1e3 / 8 * idle_ms
    # What is under way besides the queue is the margin: a window is kept by the send buffer, to about a packet.
    window = max(_LEAST_WINDOW, int(max(wires.queue_bytes, bdp_bytes) / (widest * wires.frame)))
    return Transport(math.ceil(idle_ms + wires.queue_bytes * 8e-3 / mbps), window, window)


def _over(now: Transport, asked: Transport) -> Transport:
    """What a host would be set to: what is not asked for stays."""
    given = {key: value for key, value in asdict(asked).items() if value is not None}
    return replace(now, **given)


def _round_trip_ms(links: Sequence[LinkView], frame: int) -> float:
    """A full frame there and its acknowledgement back, stored and forwarded at every link, with nothing waiting."""
    return sum((frame + _ACK_BYTES) * 8e-3 / link.mbps for link in links if link.up)
