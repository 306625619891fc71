"""What a host is told of its TCP while it runs: time-out and first window by its route, the largest window by its send buffer.

Comes in: a host, and a `Transport`. Each is read back. The send buffer holds all that is under way (tcp_wmem of the host's
namespace), so that it limits the window on every kernel, at once for every connection to come. A route's own metrics for
that are no help here: a locked `cwnd` is heeded only for destinations that TCP remembers from earlier connections
(`fabric.clamps`), and `window` only until the receiver has measured how well its buffer is used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fabric.errors import RunError
from fabric.graph import Host, Port
from fabric.kernel import set_sysctl
from fabric.policy import Transport
from fabric.routes import Metrics, set_routes, wrong_routes

__all__ = ["send_buffer", "set_transport", "with_transport"]

_SKB_OVERHEAD = 1024  # about what the kernel counts beside a packet's payload: sk_buff, shared info, room for headers
_LEAST_BUFFER = 4096  # of tcp_wmem


def send_buffer(packets: int, mss: int) -> int:
    """The bytes of send buffer in which so many full packets fit, and not one more.

    TCP takes another packet as long as the buffer is not full: half a packet less than all of them makes it so.
    """
    return max(_LEAST_BUFFER, round((packets - 0.5) * (mss + _SKB_OVERHEAD)))


def with_transport(route: Metrics, transport: Transport) -> Metrics:
    """A host's route with what was ordered of it."""
    return replace(route, rto_min_ms=transport.rto_min_ms or route.rto_min_ms, initcwnd=transport.initcwnd or route.initcwnd)


def set_transport(netlink: Any, host: Host, route: Metrics, transport: Transport, mss: int) -> None:
    """Set what connections of a host go by, in its namespace; RunError when the kernel says otherwise then.

    `route` is what its route carries so far; packets are of `mss` bytes of payload.
    """
    (index,) = netlink.link_lookup(ifname=Port(host.name, host.nics[0].port).interface)
    routes = {0: with_transport(route, transport)}
    set_routes(netlink, index, host.ip, routes)
    if wrong := list(wrong_routes(netlink, routes)):
        raise RunError(f"{host.name}: {wrong[0]}")
    if transport.window_packets is not None:
        limit = send_buffer(transport.window_packets, mss)
        set_sysctl("net.ipv4.tcp_wmem", f"{_LEAST_BUFFER} {limit} {limit}")
