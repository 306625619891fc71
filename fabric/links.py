"""Shaping of one direction of a link: what is asked, the netlink requests that make it, and what the kernel says it got.

An HTB class limits the rate and one FIFO under it is the queue; where the kernel's RED marks, it sits between the two.
The same description is built on every interface of every arm, and read back from the kernel before a result may be believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl.tcmsg import plugins, sched_pfifo

from fabric.red import Red, red_of

__all__ = ["ETHERNET_HEADER", "RED_HANDLE", "Shape", "differences", "read_shape", "red_requests", "requests"]

ETHERNET_HEADER = 14
_ROOT = 0x10000  # handle 1:
_CLASS = 0x10001  # class 1:1, the rate
_QUEUE = 0x100000  # handle 10:, the FIFO
RED_HANDLE = 0x200000  # handle 20:, RED where there is one
_BELOW_RED = 0x200001  # 20:1, RED's only class
_TICK_NS = 64  # PSCHED_TICKS: the unit in which the kernel keeps a burst
_RATE_TOLERANCE = 1e-4

# pyroute2 knows pfifo alone, and puts a kind that it does not know on the root; the two differ only in the limit's unit.
plugins.setdefault("bfifo", sched_pfifo)


@dataclass(frozen=True, slots=True)
class Shape:
    """A rate in Mb/s (Ethernet header counted), an MTU in bytes, and a queue limited in packets or in bytes; `red` marks in it."""

    mbps: float
    mtu: int
    queue_packets: int | None = None
    queue_bytes: int | None = None
    red: Red | None = None

    @property
    def frame(self) -> int:
        """The largest frame in bytes, which is also the burst: never more than one packet ahead of the rate."""
        return self.mtu + ETHERNET_HEADER

    @property
    def bytes_per_second(self) -> int:
        """The rate as the kernel keeps it."""
        return round(self.mbps * 1e6 / 8)


def requests(shape: Shape) -> list[tuple[str, str, dict[str, Any]]]:
    """The calls of pyroute2's `tc` that build the shape: (command, kind, arguments), in order."""
    rate, frame = shape.bytes_per_second, shape.frame
    return [
        ("add", "htb", {"handle": _ROOT, "default": 1}),
        ("add-class", "htb", {
            "handle": _CLASS, "parent": _ROOT, "rate": rate, "ceil": rate,
            "burst": frame, "cburst": frame, "mtu": frame, "quantum": frame,
        }),
        *(red_requests(shape) if shape.red else [_fifo(shape, _CLASS)]),
    ]  # fmt: skip


def red_requests(shape: Shape) -> list[tuple[str, str, dict[str, Any]]]:
    """The calls that put the shape's RED in place of a queue, and that queue below it; what waits in the old one is dropped."""
    if shape.red is None:
        raise ValueError("a shape without RED")
    return [("replace", "red", {"handle": RED_HANDLE, "parent": _CLASS, **shape.red.arguments()}), _fifo(shape, _BELOW_RED)]


def _fifo(shape: Shape, parent: int) -> tuple[str, str, dict[str, Any]]:
    fifo, limit = ("pfifo", shape.queue_packets) if shape.queue_packets is not None else ("bfifo", shape.queue_bytes)
    return "add", fifo, {"handle": _QUEUE, "parent": parent, "limit": limit}


def read_shape(qdiscs: Iterable[Any], classes: Iterable[Any], mtu: int) -> tuple[Shape | None, int]:
    """What one interface really has, from the kernel's answers: (shape, burst in bytes); None where it is not ours."""
    qdiscs, red = list(qdiscs), None
    fifo = [qdisc for qdisc in qdiscs if qdisc["parent"] == _CLASS]
    if len(fifo) == 1 and fifo[0].get_attr("TCA_KIND") == "red":
        if (red := red_of(fifo[0])) is None:
            return None, 0
        fifo = [qdisc for qdisc in qdiscs if qdisc["parent"] == _BELOW_RED]
    rate = [item for item in classes if item["handle"] == _CLASS]
    if len(fifo) != 1 or len(rate) != 1 or fifo[0].get_attr("TCA_KIND") not in ("pfifo", "bfifo"):
        return None, 0
    parms: Mapping[str, Any] = rate[0].get_attr("TCA_OPTIONS").get_attr("TCA_HTB_PARMS")
    limit = int(fifo[0].get_attr("TCA_OPTIONS")["limit"])
    in_packets = fifo[0].get_attr("TCA_KIND") == "pfifo"
    shape = Shape(
        mbps=parms["rate"] * 8 / 1e6,
        mtu=mtu,
        queue_packets=limit if in_packets else None,
        queue_bytes=None if in_packets else limit,
        red=red,
    )
    burst = max(parms["buffer"], parms["cbuffer"]) * _TICK_NS * 1e-9 * parms["rate"]
    return shape if parms["rate"] == parms["ceil"] else None, math.floor(burst)


def differences(asked: Shape, got: Shape | None, burst: int) -> list[str]:
    """In words, each way in which an interface is not what was asked; empty when it is."""
    if got is None:
        return ["no shaper of ours"]
    found = []
    if abs(got.mbps / asked.mbps - 1) > _RATE_TOLERANCE:
        found.append(f"mbps {got.mbps:g} instead of {asked.mbps:g}")
    if got.mtu != asked.mtu:
        found.append(f"mtu {got.mtu} instead of {asked.mtu}")
    if (got.queue_packets, got.queue_bytes) != (asked.queue_packets, asked.queue_bytes):
        found.append(f"queue {_queue(got)} instead of {_queue(asked)}")
    if got.red != asked.red:
        found.append(f"marking by {_red(got)} instead of {_red(asked)}")
    if burst > asked.frame:
        found.append(f"burst {burst} bytes, more than one frame of {asked.frame}")
    return found


def _queue(shape: Shape) -> str:
    return f"{shape.queue_packets} packets" if shape.queue_packets is not None else f"{shape.queue_bytes} bytes"


def _red(shape: Shape) -> str:
    return f"RED from {shape.red.min_bytes} to {shape.red.max_bytes} bytes" if shape.red else "no RED"
