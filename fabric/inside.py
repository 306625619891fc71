"""The link inside a server, over which its NICs' ranks reach each other without the network: the loopback interface, shaped.

Each NIC may send so much of it, whatever the others do: a class by its address. What a NIC can receive is not limited by
itself. Comes in: addresses and a rate. Goes out: the shaped interface of this thread's namespace, and what differs when read back.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from fabric.links import ETHERNET_HEADER

__all__ = ["shape_inside", "wrong_inside"]

_ROOT, _FIRST_CLASS = 0x10000, 0x10010  # 1: and 1:10
_QUEUE = 4 << 20  # bytes: nothing is lost between the NICs of a server
_IPV4 = 0x0800
_SOURCE = 12  # where its address stands in an IPv4 header
_TOLERANCE = 1e-3


def shape_inside(netlink: Any, index: int, addresses: Sequence[str], mbps: float, mtu: int) -> None:
    """Have packets from each address leave the loopback interface `index` at `mbps` at most."""
    netlink.link("set", index=index, mtu=mtu, gso_max_segs=1, state="up")
    netlink.tc("add", "htb", index, handle=_ROOT, default=0)
    frame = mtu + ETHERNET_HEADER
    for number, address in enumerate(addresses):
        handle = _FIRST_CLASS + number
        sizes = {"burst": frame, "cburst": frame, "mtu": frame, "quantum": frame}
        rate = round(mbps * 1e6 / 8)
        netlink.tc("add-class", "htb", index, handle=handle, parent=_ROOT, rate=rate, ceil=rate, **sizes)
        netlink.tc("add", "bfifo", index, handle=0x100000 + (number << 16), parent=handle, limit=_QUEUE)
        key = f"{int(ipaddress.IPv4Address(address)):#010x}/0xffffffff+{_SOURCE}"
        netlink.tc("add-filter", "u32", index, parent=_ROOT, prio=1, protocol=_IPV4, target=handle, keys=[key])


def wrong_inside(netlink: Any, index: int, addresses: Sequence[str], mbps: float | None) -> Iterator[str]:
    """In words, what is not as `shape_inside` left it; `mbps` is None where nothing was to be limited."""
    rates = [item.get_attr("TCA_OPTIONS").get_attr("TCA_HTB_PARMS")["rate"] * 8e-6 for item in netlink.get_classes(index)]
    wanted = [] if mbps is None else [mbps] * len(addresses)
    if len(rates) != len(wanted) or any(abs(got / asked - 1) > _TOLERANCE for got, asked in zip(rates, wanted, strict=True)):
        yield f"inside the server: {[f'{rate:g}' for rate in rates]} Mb/s instead of {[f'{rate:g}' for rate in wanted]}"
    leading = [item for item in netlink.get_filters(index=index, parent=_ROOT) if _leads(item)] if wanted else []
    if len(leading) != len(wanted):
        yield f"inside the server: {len(leading)} filters lead packets of {len(wanted)} NICs to their classes"


def _leads(item: Any) -> bool:
    options, protocol = item.get_attr("TCA_OPTIONS"), socket.ntohs(item["info"] & 0xFFFF)
    return bool(options) and options.get_attr("TCA_U32_CLASSID") is not None and protocol == _IPV4
