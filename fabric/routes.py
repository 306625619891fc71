"""The routes of hosts: what TCP takes over from them when it connects, set over netlink and read back.

Comes in: by host and mark, what a route is to carry. Goes out: one route a host to all others, and one more in a table of
its own for each mark, which packets of sockets with that mark (SO_MARK) take. An accepted socket has its listener's mark.
Hosts that share a server's namespace have a table each, which packets from their address take.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from fabric.errors import MachineError

__all__ = ["ADDRESS_PREFIX", "MAIN", "Metrics", "set_routes", "wrong_routes"]

MAIN = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
ADDRESS_PREFIX = 8  # every host is on 10.0.0.0/8, on-link
_RTAX_CWND, _RTAX_RTO_MIN = 7, 13  # linux/rtnetlink.h
_NETWORK = "10.0.0.0"


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a route carries for TCP: milliseconds, and packets or None for the kernel's own; its table, and the mark or source address that lead there."""

    rto_min_ms: int
    initcwnd: int | None = None
    cwnd_clamp: int | None = None
    table: int = MAIN
    mark: int = 0
    source: str | None = None

    def asked(self) -> dict[str, int]:
        """By the kernel's names, as given and read back.

        TCP heeds the timeout and the largest window only where they are locked (tcp_rto_min() and tcp_init_metrics() in
        net/ipv4).
        """
        lock = 1 << _RTAX_RTO_MIN | (0 if self.cwnd_clamp is None else 1 << _RTAX_CWND)
        windows = {"initcwnd": self.initcwnd, "cwnd": self.cwnd_clamp}
        return {"lock": lock, "rto_min": self.rto_min_ms, **{key: value for key, value in windows.items() if value is not None}}


def set_routes(netlink: Any, index: int, source: str, routes: Mapping[int, Metrics]) -> None:
    """Give one host, in whose namespace `netlink` is, its route (mark 0) and those of marks; MachineError where there is one table only."""
    for mark, metrics in routes.items():
        try:
            netlink.route(
                "replace", dst=_NETWORK, dst_len=ADDRESS_PREFIX, oif=index, prefsrc=source, scope="link", proto="kernel",
                table=metrics.table, metrics=metrics.asked(),
            )  # fmt: skip
            if mark:
                netlink.rule("add", fwmark=mark, table=metrics.table, priority=metrics.table, family=socket.AF_INET)
            elif metrics.source:
                netlink.rule("add", src=metrics.source, src_len=32, table=metrics.table, priority=metrics.table, family=socket.AF_INET)
        except NetlinkError as err:
            if not mark and not metrics.source:
                raise
            what = "one job's sockets" if mark else "one NIC of a server"
            reason = f"a route for {what}: {os.strerror(err.code)}; it needs a kernel with CONFIG_IP_MULTIPLE_TABLES"
            remedy = "give rto_min_ms, initcwnd and cwnd_clamp to hosts instead of jobs" if mark else "use a topology without servers"
            raise MachineError(f"{reason}; remedy: {remedy}") from None


def wrong_routes(netlink: Any, routes: Mapping[int, Metrics]) -> Iterator[str]:
    """In words, every route of one host that is not what was asked."""
    every = netlink.get_rules(family=socket.AF_INET)
    rules = {rule.get_attr("FRA_FWMARK"): rule.get_attr("FRA_TABLE") for rule in every}
    by_source = {rule.get_attr("FRA_SRC"): rule.get_attr("FRA_TABLE") for rule in every}
    for mark, metrics in routes.items():
        found = [_read(item) for item in netlink.get_routes(table=metrics.table, family=socket.AF_INET) if item["dst_len"] == ADDRESS_PREFIX]
        if found != [metrics.asked()]:
            yield f"the route in table {metrics.table}: asked for {_words(metrics.asked())}, it says {' and '.join(map(_words, found)) or 'nothing'}"
        if mark and rules.get(mark) != metrics.table:
            yield f"packets with mark {mark} take table {rules.get(mark)} instead of {metrics.table}"
        if metrics.source and by_source.get(metrics.source) != metrics.table:
            yield f"packets from {metrics.source} take table {by_source.get(metrics.source)} instead of {metrics.table}"


def _read(item: Any) -> dict[str, int]:
    metrics = item.get_attr("RTA_METRICS")
    return {name.removeprefix("RTAX_").lower(): value for name, value in metrics["attrs"]} if metrics else {}


def _words(metrics: Mapping[str, int]) -> str:
    return " ".join(f"{key}={value}" for key, value in metrics.items()) or "no metrics"
