"""The largest windows that routes carry, brought into force for each pair of hosts, and read back.

TCP takes the locked `cwnd` not from a route itself but from what it remembers of a pair of addresses (tcp_init_metrics() in
net/ipv4/tcp_metrics.c), which is made from the route when a connection ends; and runs have it remember nothing, or each
connection would begin with what an earlier one learnt. So one empty connection of each pair is remembered, before the
traffic, and none after it. What is remembered is by addresses alone: all connections of a pair have the same clamp.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from fabric.errors import RequestError, RunError
from fabric.experiment import Point
from fabric.kernel import set_sysctl
from fabric.polling import until
from fabric.transports import jobs, settings
from fabric.workload import Workload

__all__ = ["Clamp", "Pair", "bring_into_force", "clamps_of", "wrong_clamps"]

Pair = tuple[str, str]  # the sending host, the receiving host
_REMEMBER_NOTHING = "net.ipv4.tcp_no_metrics_save"
_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Clamp:
    """The most packets in flight from one host to another, and the mark of the route that says so."""

    packets: int
    mark: int


def clamps_of(point: Point, work: Workload) -> dict[Pair, Clamp]:
    """The clamp of each pair that has one; RequestError when two jobs ask for different ones between the same two hosts."""
    every = {job.name: job for job in jobs(point)}
    pairs = [(work.part_of(edge).name, *hosts) for edge, hosts in work.hosts_by_edge.items()]
    pairs += [(f"load.{load}", flow.src, flow.dst) for flow, load in zip(work.flows, work.flow_loads, strict=True)]
    found: dict[Pair, tuple[str, int | None, int]] = {}
    for name, src, dst in pairs:
        asked = settings(point.transport, src, every[name].transport).cwnd_clamp
        other, packets, _ = found.setdefault((src, dst), (name, asked, every[name].mark))
        if packets != asked:
            whose = f"as {other}, which also sends from {src} to {dst}, has {packets or 'none'}: TCP keeps one for a pair of hosts"
            text = f"got {asked or 'none'}; accepted: the same {whose}; give both the same, or other hosts"
            raise RequestError(f"{name}.transport.cwnd_clamp: {text}")
    return {pair: Clamp(packets, mark) for pair, (_, packets, mark) in found.items() if packets is not None}


def bring_into_force(
    clamps: Mapping[Pair, Clamp], ips: Mapping[str, str], inside: Callable[[str], AbstractContextManager[None]]
) -> None:
    """Have every sending host remember its clamps; `inside` is a host's namespace. RunError when one does not."""
    for (src, dst), clamp in clamps.items():
        with inside(dst), socket.create_server((ips[dst], 0)) as listener:
            listener.settimeout(_DEADLINE_S)
            with inside(src):
                before = set_sysctl(_REMEMBER_NOTHING, "0")
                try:
                    _connect_once(listener, ips[src], clamp.mark)
                    until(partial(_remembers, ips[dst]), _DEADLINE_S)
                finally:
                    set_sysctl(_REMEMBER_NOTHING, before)
    if wrong := wrong_clamps(clamps, ips, inside):
        raise RunError(f"{len(wrong)} windows are not what was asked, the first: {wrong[0]}")


def _remembers(ip: str) -> bool:
    return _remembered().get(ip) is not None


def wrong_clamps(
    clamps: Mapping[Pair, Clamp], ips: Mapping[str, str], inside: Callable[[str], AbstractContextManager[None]]
) -> list[str]:
    """In words, every clamp that the kernel does not remember as it was asked for."""
    found = []
    for (src, dst), clamp in clamps.items():
        with inside(src):
            got = _remembered().get(ips[dst])
        if got != clamp.packets:
            found.append(f"{src} remembers a window of {got} packets to {dst}, asked for {clamp.packets}")
    return found


def _connect_once(listener: socket.socket, source: str, mark: int) -> None:
    with socket.socket() as sender:
        if mark:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sender.settimeout(_DEADLINE_S)
        sender.bind((source, 0))
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
    receiver.close()  # last: the sender's end is the one that remembers


def _remembered() -> dict[str, int]:
    """By destination: the window in packets that this thread's namespace remembers."""
    done = subprocess.run(["ip", "-j", "tcp_metrics", "show"], capture_output=True, text=True, check=True)
    return {item["dst"]: int(item["cwnd"]) for item in json.loads(done.stdout or "[]") if "cwnd" in item}
