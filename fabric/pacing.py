"""Did senders keep to the rates that they were given? By what they sent, not by what a socket's option says.

A congestion control that sets its own pace may ignore SO_MAX_PACING_RATE: the option stands, and nothing follows from it.
What is acknowledged would not do: data that waited in a queue, or behind a lost packet, is acknowledged long after it was sent.
Comes in: a point's record. Goes out: each sender that was faster, in words. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np

from fabric.socketlog import SocketSeries

__all__ = ["outran"]

_TOLERANCE = 1.05
_AFTER_S = 0.2  # of an order: until it is certain to be in force
_LEAST_S = 1.0  # a stretch that is shorter says little, with ten samples a second
_SLACK_SEGMENTS = 4  # TCP paces by timer, and sends what was due at once

_Flow = tuple[str, int, str, int]


def outran(sockets: Sequence[Mapping[str, Any]], orders: Sequence[Mapping[str, Any]], series: Sequence[SocketSeries], mss: int) -> Iterator[str]:
    """Senders of `series` that sent more than their limit allows.

    `sockets` are what the sockets said at the end, `orders` what was ordered meanwhile, `mss` bytes of a segment.
    """
    ends = {_named(end): end["pacing_limit"] for end in sockets if end.get("role") == "sender" and "pacing_limit" in end}
    ordered: dict[_Flow, list[tuple[float, int | None]]] = {}
    for line in orders:
        if "got" in line and line["order"]["do"] == "rate" and "flow" in line["order"]:
            ordered.setdefault(_named(line["order"]["flow"]), []).append((line["t"], line["got"]))
    for one in series:
        flow = (one.ends.src_ip, one.ends.src_port, one.ends.dst_ip, one.ends.dst_port)
        limits = ordered.get(flow) or [(-inf, ends.get(flow))]  # where nobody changed it, it was what it is at the end
        for (begin, limit), (end, _) in pairwise([*limits, (inf, None)]):
            said = limit is not None and _faster(one, limit, begin + _AFTER_S, end, mss)
            if said:
                yield "{}:{}>{}:{} ".format(*flow) + str(said)


def _faster(one: SocketSeries, limit: int, begin: float, end: float, mss: int) -> str | None:
    """In words, by how much a sender was faster than `limit` bytes a second in a stretch; None where it was not, or was too short."""
    inside = np.flatnonzero((one.t >= begin) & (one.t <= end))
    if len(inside) < 2 or (seconds := float(one.t[inside[-1]] - one.t[inside[0]])) < _LEAST_S:
        return None
    sent = int(one.sent_bytes[inside[-1]] - one.sent_bytes[inside[0]])
    if sent <= _TOLERANCE * limit * seconds + _SLACK_SEGMENTS * mss:
        return None
    return f"was limited to {limit * 8e-6:.2f} Mb/s and sent {sent * 8e-6 / seconds:.2f} for {seconds:.1f} s"


def _named(ends: Mapping[str, Any]) -> _Flow:
    return str(ends["src_ip"]), int(ends["src_port"]), str(ends["dst_ip"]), int(ends["dst_port"])
