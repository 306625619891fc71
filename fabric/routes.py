"""What a host tells its TCP: the smallest retransmission time-out and the first window by its route, and the largest.

Comes in: a host, and metrics. The route is replaced whole, and read back. Sources: linux/rtnetlink.h (RTAX_*),
tcp_rto_min() in net/ipv4: TCP heeds the time-out only where it is locked.

The largest window is set by the send buffer, which holds all that is under way: tcp_wmem of the host's namespace. The
route has metrics for it, and they do nothing: a locked `cwnd` is heeded only for destinations that TCP remembers from
earlier connections, and `window` only until the receiver has measured how well its buffer is used (both tried on Linux
6.18: windows grew to 15 packets under a limit of 3).
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

from fabric.errors import RunError
from fabric.graph import Host, Port
from fabric.kernel import set_sysctl
from fabric.policy import Transport

__all__ = ["ADDRESS_PREFIX", "set_transport"]

ADDRESS_PREFIX = 8  # every host is on 10.0.0.0/8, on-link
_RTAX_RTO_MIN = 13
_SKB_OVERHEAD = 1024  # about what the kernel counts beside a packet's payload: sk_buff, shared info, room for headers
_LEAST_BUFFER = 4096  # of tcp_wmem


def metrics_of(transport: Transport) -> dict[str, int]:
    """The route's metrics, without those that are left to the kernel."""
    asked = {"rto_min": transport.rto_min_ms, "initcwnd": transport.initcwnd}
    return {name: value for name, value in asked.items() if value is not None}


def send_buffer(packets: int, mss: int) -> int:
    """The bytes of send buffer in which so many full packets fit, and not one more.

    TCP takes another packet as long as the buffer is not full: half a packet less than all of them makes it so.
    """
    return max(_LEAST_BUFFER, round((packets - 0.5) * (mss + _SKB_OVERHEAD)))


def set_transport(netlink: Any, host: Host, transport: Transport, mss: int) -> Transport:
    """Set what connections of a host go by, in its namespace, and give what the kernel says then; RunError when that differs.

    Packets are of `mss` bytes of payload.
    """
    interface = Port(host.name, host.nics[0].port).interface
    (index,) = netlink.link_lookup(ifname=interface)
    metrics = metrics_of(transport)
    lock = (1 << _RTAX_RTO_MIN) * ("rto_min" in metrics)
    netlink.route(
        "replace", dst="10.0.0.0", dst_len=ADDRESS_PREFIX, oif=index, prefsrc=host.ip, scope="link", proto="kernel",
        **({"metrics": {"lock": lock, **metrics}} if metrics else {}),
    )  # fmt: skip
    if transport.window_packets is not None:
        limit = send_buffer(transport.window_packets, mss)
        set_sysctl("net.ipv4.tcp_wmem", f"{_LEAST_BUFFER} {limit} {limit}")
    got = replace(_read(netlink, index), window_packets=transport.window_packets)
    if got != transport:
        raise RunError(f"the route of {host.name}: asked for {transport}, the kernel says {got}")
    return got


def _read(netlink: Any, index: int) -> Transport:
    (route,) = (
        item for item in netlink.get_routes(table=254, family=socket.AF_INET)
        if item["dst_len"] == ADDRESS_PREFIX and item.get_attr("RTA_OIF") == index
    )  # fmt: skip
    found = route.get_attr("RTA_METRICS")
    rto_min, initcwnd = (found.get_attr(name) if found else None for name in ("RTAX_RTO_MIN", "RTAX_INITCWND"))
    return Transport(rto_min, initcwnd)
