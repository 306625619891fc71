"""Shaping of one direction of a link: what is asked, the netlink requests that make it, and what the kernel says it got.

An HTB class limits the rate and one FIFO under it is the queue; where the kernel's RED marks, it sits between the two.
With a `floor` there are two classes under it, each with a FIFO of its own: packets with the DSCP `PRIORITY` go first and
are never marked, and all others keep that share of the rate at least. The same description is built on every interface
of every arm, and read back from the kernel before a result may be believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl.tcmsg import plugins, sched_pfifo

from fabric.red import Red, red_of

__all__ = ["ETHERNET_HEADER", "PRIORITY", "RED_HANDLE", "Shape", "class_requests", "differences", "read_shape", "red_requests", "requests"]

ETHERNET_HEADER = 14
PRIORITY = 46  # the DSCP of packets that go first: expedited forwarding (RFC 3246)
_ROOT = 0x10000  # handle 1:
_CLASS = 0x10001  # class 1:1, the rate
_FIRST, _OTHERS = 0x10010, 0x10020  # classes 1:10 and 1:20 below it, where there is a floor
_QUEUE, _FIRST_QUEUE = 0x100000, 0x110000  # handles 10: and 11:, the FIFOs
_IPV4 = 0x0800  # ETH_P_IP
RED_HANDLE = 0x200000  # handle 20:, RED where there is one
_BELOW_RED = 0x200001  # 20:1, RED's only class
_TICK_NS = 64  # PSCHED_TICKS: the unit in which the kernel keeps a burst
_NO_BURST = 1  # bytes: a class is then in credit for a single packet at most
_OWN_SHARE = 1e-3  # of the rate: a packet with priority may then overtake one that is being sent once in a thousand
_RATE_TOLERANCE = 1e-4

# pyroute2 knows pfifo alone, and puts a kind that it does not know on the root; the two differ only in the limit's unit.
plugins.setdefault("bfifo", sched_pfifo)


@dataclass(frozen=True, slots=True)
class Shape:
    """A rate in Mb/s (Ethernet header counted), an MTU in bytes, and a queue limited in packets or in bytes.

    `floor` is the share of the rate, 0..1, that packets without priority keep beside those with it, each in a queue of
    its own; None is one queue for all. `red` marks in the queue, with a floor in that of the others.
    """

    mbps: float
    mtu: int
    queue_packets: int | None = None
    queue_bytes: int | None = None
    red: Red | None = None
    floor: float | None = None

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
    leaf = _leaf(shape)
    root = ("add", "htb", {"handle": _ROOT, "default": leaf & 0xFFFF})
    queue = red_requests(shape) if shape.red else [_fifo(shape, leaf)]
    first = [] if shape.floor is None else [_fifo(shape, _FIRST, _FIRST_QUEUE), _filter()]
    return [root, *(("add-class", "htb", one) for one in class_requests(shape)), *queue, *first]


def _leaf(shape: Shape) -> int:
    """The class whose queue holds what has no priority."""
    return _CLASS if shape.floor is None else _OTHERS


def class_requests(shape: Shape) -> list[dict[str, Any]]:
    """The arguments of each class, the outermost first: they make it, and change it in place."""
    rate, frame = shape.bytes_per_second, shape.frame
    sizes = {"burst": frame, "cburst": frame, "mtu": frame, "quantum": frame}
    whole = {"handle": _CLASS, "parent": _ROOT, "rate": rate, "ceil": rate, **sizes}
    if shape.floor is None:
        return [whole]
    kept = round(rate * shape.floor)
    # HTB lets a class send by its own bucket even while another's packet still takes up the link: no port could. So classes
    # hold next to nothing, and what has priority must borrow, which it does before all others.
    own = {**sizes, "burst": _NO_BURST}
    return [
        whole,
        {"handle": _FIRST, "parent": _CLASS, "rate": max(1, round(rate * _OWN_SHARE)), "ceil": rate, "prio": 0, **own},
        {"handle": _OTHERS, "parent": _CLASS, "rate": kept, "ceil": rate, "prio": 1, **own},
    ]


def _filter() -> tuple[str, str, dict[str, Any]]:
    """Packets with priority to their class, by the six bits of the DSCP: the two of ECN stand below them."""
    key = f"{PRIORITY << 2:#04x}/0xfc+1"  # the second byte of the IP header
    return ("add-filter", "u32", {"parent": _ROOT, "prio": 1, "protocol": _IPV4, "target": _FIRST, "keys": [key]})


def red_requests(shape: Shape) -> list[tuple[str, str, dict[str, Any]]]:
    """The calls that put the shape's RED in place of a queue, and that queue below it; what waits in the old one is dropped."""
    if shape.red is None:
        raise ValueError("a shape without RED")
    return [("replace", "red", {"handle": RED_HANDLE, "parent": _leaf(shape), **shape.red.arguments()}), _fifo(shape, _BELOW_RED)]


def _fifo(shape: Shape, parent: int, handle: int = _QUEUE) -> tuple[str, str, dict[str, Any]]:
    fifo, limit = ("pfifo", shape.queue_packets) if shape.queue_packets is not None else ("bfifo", shape.queue_bytes)
    return "add", fifo, {"handle": handle, "parent": parent, "limit": limit}


def read_shape(qdiscs: Iterable[Any], classes: Iterable[Any], mtu: int) -> tuple[Shape | None, int]:
    """What one interface really has, from the kernel's answers: (shape, burst in bytes); None where it is not ours."""
    found, red = list(qdiscs), None
    # RED has a class as well, which has nothing to say.
    rates = {item["handle"]: options.get_attr("TCA_HTB_PARMS") for item in classes if (options := item.get_attr("TCA_OPTIONS")) is not None}
    leaves = [_OTHERS, _FIRST] if rates.keys() >= {_OTHERS, _FIRST} else [_CLASS]
    reds = [qdisc for qdisc in found if qdisc["parent"] == leaves[0] and qdisc.get_attr("TCA_KIND") == "red"]
    if reds:
        if (red := red_of(reds[0])) is None:
            return None, 0
        leaves.append(_BELOW_RED)
    fifos = [qdisc for qdisc in found if qdisc["parent"] in leaves and qdisc not in reds]
    kinds = {fifo.get_attr("TCA_KIND") for fifo in fifos}
    limits = {int(fifo.get_attr("TCA_OPTIONS")["limit"]) for fifo in fifos if kinds <= {"pfifo", "bfifo"}}
    if _CLASS not in rates or len(fifos) + len(reds) != len(leaves) or len(kinds) != 1 or len(limits) != 1:
        return None, 0
    parms, limit, in_packets = rates[_CLASS], limits.pop(), kinds == {"pfifo"}
    shape = Shape(
        mbps=parms["rate"] * 8 / 1e6,
        mtu=mtu,
        queue_packets=limit if in_packets else None,
        queue_bytes=None if in_packets else limit,
        red=red,
        floor=rates[_OTHERS]["rate"] / parms["rate"] if _OTHERS in leaves else None,
    )
    bursts = [max(one["buffer"], one["cbuffer"]) * _TICK_NS * 1e-9 * one["rate"] for one in rates.values()]
    whole = all(one["ceil"] == parms["rate"] for one in rates.values())
    return shape if whole else None, math.floor(max(bursts))


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
    if (got.floor is None) != (asked.floor is None) or abs((got.floor or 0) - (asked.floor or 0)) > _RATE_TOLERANCE:
        found.append(f"a floor of {got.floor} instead of {asked.floor}")
    if got.red != asked.red:
        found.append(f"marking by {_red(got)} instead of {_red(asked)}")
    if burst > asked.frame:
        found.append(f"burst {burst} bytes, more than one frame of {asked.frame}")
    return found


def _queue(shape: Shape) -> str:
    return f"{shape.queue_packets} packets" if shape.queue_packets is not None else f"{shape.queue_bytes} bytes"


def _red(shape: Shape) -> str:
    return f"RED from {shape.red.min_bytes} to {shape.red.max_bytes} bytes" if shape.red else "no RED"
