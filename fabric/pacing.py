"""Did senders keep to the rates that they were given? By what was acknowledged, not by what a socket's option says.

A congestion control that sets its own pace may ignore SO_MAX_PACING_RATE: the option stands, and nothing follows from it.
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
_BEFORE_S = 0.5  # and before it: the largest window then is what may still be under way
_LEAST_S = 1.0  # a stretch that is shorter says little: what was under way before it counts, too
_SLACK_SEGMENTS = 4  # TCP paces by timer, and sends what was due at once

_Flow = tuple[str, int, str, int]


def outran(sockets: Sequence[Mapping[str, Any]], orders: Sequence[Mapping[str, Any]], series: Sequence[SocketSeries], mss: int) -> Iterator[str]:
    """Senders of `series` to which more was acknowledged than their limit, and what was under way when it began, allows.

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
    acked = int(one.acked_bytes[inside[-1]] - one.acked_bytes[inside[0]])
    # What had been sent before may wait in a queue for long; the window may be a smaller one when it is acknowledged.
    lately = (one.t >= begin - _BEFORE_S) & (one.t <= one.t[inside[0]])
    under_way = (int(one.cwnd[lately].max()) + _SLACK_SEGMENTS) * mss
    if acked <= _TOLERANCE * limit * seconds + under_way:
        return None
    return f"was limited to {limit * 8e-6:.2f} Mb/s and sent {acked * 8e-6 / seconds:.2f} for {seconds:.1f} s"


def _named(ends: Mapping[str, Any]) -> _Flow:
    return str(ends["src_ip"]), int(ends["src_port"]), str(ends["dst_ip"]), int(ends["dst_port"])
