"""Packets of one link, both ways, as a file for Wireshark and scapy.

Comes in: a network that is up, a link, how long. Goes out: a pcap file with nanoseconds, and what it holds and missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scapy.utils import RawPcapWriter

from fabric.errors import RequestError
from fabric.live import Live, port_between
from fabric.located import meant
from fabric.taps import Tap

__all__ = ["Captured", "capture"]

_ETHERNET = 1  # LINKTYPE_ETHERNET
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Captured:
    """How many packets went each way, and how many the capture had no time for."""

    interface: str
    out: int
    back: int
    missed: int


def capture(
    up: Live, a: str, b: str, file: Path, *, seconds: float, most: int | None = None, going: Callable[[], bool] = lambda: True
) -> Captured:
    """Write what passes between two nodes that are linked, until time is up, `most` packets have come, or `going` says no.

    Of a link between a switch and another node, its switch's end: packets that leave are seen behind its queue.
    """
    fabric, nodes = up.fabric, [*up.fabric.switch_by_name, *up.fabric.host_by_name]
    for name in (a, b):
        if name not in nodes:
            raise RequestError(f"capture: got {name}; accepted: a node that is up: {', '.join(nodes[:4])}, ...; {meant(name, nodes, 'write one of those')}")
    port = port_between(fabric, a, b)
    if port is None:
        near = ", ".join(dict.fromkeys(fabric.peer[one].node for one in fabric.ports_of[a]))
        raise RequestError(f"capture: got {a} and {b}, which no link joins; accepted: {a} and one of {near}; name one of those")
    try:
        writer = RawPcapWriter(str(file), linktype=_ETHERNET, nano=True)
        writer.write_header(None)
    except OSError as err:
        raise RequestError(f"capture: --out: got {file}: {err.strerror}; accepted: a file that can be written; name another one") from None
    count = {True: 0, False: 0}
    end = time.monotonic() + seconds
    with up.inside(port.node):
        tap = Tap(port.interface)
    with tap, writer:
        while time.monotonic() < end and going() and (most is None or sum(count.values()) < most):
            for seen in tap.until(min(end, time.monotonic() + _LOOK_S)):
                writer.write_packet(seen.data, sec=int(seen.t), usec=round(seen.t % 1 * 1e9), caplen=len(seen.data), wirelen=len(seen.data))
                count[seen.left] += 1
                if most is not None and sum(count.values()) >= most:
                    break
        missed = tap.missed()
    return Captured(port.interface, count[True], count[False], missed)
