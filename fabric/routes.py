"""What a host's route tells TCP: the smallest retransmission time-out, the first window, and the window that it offers.

Comes in: a host, and metrics. The route is replaced whole, and read back. Sources: linux/rtnetlink.h (RTAX_*),
tcp_rto_min() in net/ipv4: TCP heeds the time-out only where it is locked. A locked `cwnd`, which one would expect to
limit the sender's window, does nothing where tcp_no_metrics_save is set, as it is in our hosts (tried on Linux 6.18:
windows grew to 15 packets under a limit of 3); the receiver's offer limits it everywhere.
"""

from __future__ import annotations

import socket
from typing import Any

from fabric.errors import RunError
from fabric.graph import Host, Port
from fabric.policy import Transport

__all__ = ["ADDRESS_PREFIX", "set_transport"]

ADDRESS_PREFIX = 8  # every host is on 10.0.0.0/8, on-link
_RTAX_RTO_MIN = 13
_NAMES = {"rto_min": "RTAX_RTO_MIN", "initcwnd": "RTAX_INITCWND", "window": "RTAX_WINDOW"}


def metrics_of(transport: Transport) -> dict[str, int]:
    """The route's metrics, without those that are left to the kernel."""
    asked = {"rto_min": transport.rto_min_ms, "initcwnd": transport.initcwnd, "window": transport.window_bytes}
    return {name: value for name, value in asked.items() if value is not None}


def set_transport(netlink: Any, host: Host, transport: Transport) -> Transport:
    """Set what connections of a host go by, in its namespace, and give what the kernel says then; RunError when that differs."""
    interface = Port(host.name, host.nics[0].port).interface
    (index,) = netlink.link_lookup(ifname=interface)
    metrics = metrics_of(transport)
    lock = (1 << _RTAX_RTO_MIN) * ("rto_min" in metrics)
    netlink.route(
        "replace", dst="10.0.0.0", dst_len=ADDRESS_PREFIX, oif=index, prefsrc=host.ip, scope="link", proto="kernel",
        **({"metrics": {"lock": lock, **metrics}} if metrics else {}),
    )  # fmt: skip
    got = _read(netlink, index)
    if got != transport:
        raise RunError(f"the route of {host.name}: asked for {transport}, the kernel says {got}")
    return got


def _read(netlink: Any, index: int) -> Transport:
    (route,) = (
        item for item in netlink.get_routes(table=254, family=socket.AF_INET)
        if item["dst_len"] == ADDRESS_PREFIX and item.get_attr("RTA_OIF") == index
    )  # fmt: skip
    found = route.get_attr("RTA_METRICS")
    rto_min, initcwnd, window = (found.get_attr(name) if found else None for name in _NAMES.values())
    return Transport(rto_min, initcwnd, window)
