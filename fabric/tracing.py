"""The path that packets of a connection really take, found by sending some, against what the switches' rules say.

Comes in: a network that is up, two hosts, two ports. Goes out: a `Traced`. A probe is a TCP segment without any flag, which a receiver
drops whether it has such a connection or not, or a UDP datagram; it is seen as it leaves each port.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pyroute2 import IPRoute
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from fabric.errors import RequestError
from fabric.graph import Fabric, Port
from fabric.live import Live
from fabric.located import meant
from fabric.paths import Path, PathSets
from fabric.taps import Seen, Tap, holding
from fabric.trails import Trail, trail

__all__ = ["Traced", "chain", "trace"]

Protocol = Literal["tcp", "udp"]
_HEADERS = {"tcp": 14 + 20 + 20, "udp": 14 + 20 + 8}
_GAP_S = 0.01
_LINGER_S = 1.0  # a full queue of 50 frames of 9000 bytes at 10 Mb/s takes 0.4 s
_ANY_PORTS = (20_000, 5001)


@dataclass(frozen=True)
class Traced:
    """`paths` are those that probes took, with how many did, of the `arrived` ones; `rules` is what the switches say of such a packet.

    `counted` has for every port of the first path how many packets it sent meanwhile, by its own counter; `equal_cost` is how many shortest
    paths there are, `one_way_ms` the median.
    """

    src: str
    dst: str
    protocol: Protocol
    ports: tuple[int, int]
    sent: int
    arrived: int
    paths: tuple[tuple[Path, int], ...]
    counted: Mapping[str, int]
    one_way_ms: float | None
    rules: Trail
    equal_cost: int

    @property
    def agrees(self) -> bool:
        """Whether all probes arrived, by one path, and it is the one that the rules lead."""
        return self.arrived == self.sent and [path for path, _ in self.paths] == [self.rules.path] and self.rules.end == "reached"

    def to_json(self) -> dict[str, Any]:
        """A dictionary with every key; ports by their interfaces."""
        plain = {key: getattr(self, key) for key in ("src", "dst", "protocol", "ports", "sent", "arrived", "counted", "one_way_ms", "equal_cost", "agrees")}
        paths = [{"interfaces": [port.interface for port in path], "probes": probes} for path, probes in self.paths]
        rules = {"interfaces": [port.interface for port in self.rules.path], "end": self.rules.end, "at": asdict(self.rules.at)}
        return {**plain, "paths": paths, "rules": rules}


def trace(up: Live, src: str, dst: str, *, sport: int | None = None, dport: int | None = None, protocol: Protocol = "tcp", probes: int = 20) -> Traced:
    """Send probes from host to host and say how they went; by default as the run's own connection between the two, where it has one."""
    _checked(up.fabric, src, dst)
    own = up.connections.get((src, dst)) if protocol == "tcp" else None
    ports = (sport or (own.src_port if own else _ANY_PORTS[0]), dport or (own.dst_port if own else _ANY_PORTS[1]))
    token = secrets.randbits(32)
    frames = [_probe(up.fabric, src, dst, protocol, ports, token, number) for number in range(probes)]
    first = up.fabric.ports_of[src][0]
    before = _counters(up)
    seen, arrived = _sent(up, src, dst, frames, holding(_HEADERS[protocol], token), first)
    after = _counters(up)
    hops = {number: those for number, those in _by_probe(up.fabric, seen, _HEADERS[protocol]).items() if number in arrived}
    times = [arrived[number] - those[first] for number, those in hops.items() if first in those]
    paths = Counter(chain(up.fabric, first, those) for those in hops.values()).most_common()
    shown = paths[0][0] if paths else ()
    return Traced(
        src, dst, protocol, ports, probes, len(arrived), tuple(paths), {port.interface: after[port.interface] - before[port.interface] for port in shown},
        1000 * sorted(times)[len(times) // 2] if times else None, _rules(up, src, dst, protocol, ports), len(PathSets(up.fabric)(src, dst)),
    )  # fmt: skip


def _checked(fabric: Fabric, src: str, dst: str) -> None:
    for name in (src, dst):
        if name not in fabric.host_by_name:
            hosts = ", ".join(list(fabric.host_by_name)[:4])
            raise RequestError(f"trace: got {name}; accepted: a host that is up: {hosts}, ...; {meant(name, fabric.host_by_name, 'write one of those')}")
    if src == dst or fabric.together(src, dst):
        raise RequestError(f"trace: got {src} and {dst}; accepted: hosts that reach each other over the network; name another one")


def _probe(fabric: Fabric, src: str, dst: str, protocol: Protocol, ports: tuple[int, int], token: int, number: int) -> bytes:
    a, b = fabric.host_by_name[src], fabric.host_by_name[dst]
    ends = {"sport": ports[0], "dport": ports[1]}
    above = TCP(**ends, flags=0) if protocol == "tcp" else UDP(**ends)
    payload = token.to_bytes(4, "big") + number.to_bytes(4, "big")
    return bytes(Ether(src=a.mac, dst=b.mac) / IP(src=a.ip, dst=b.ip) / above / payload)


def _sent(up: Live, src: str, dst: str, frames: Sequence[bytes], program: Any, first: Port) -> tuple[list[Seen], dict[int, float]]:
    """Send the frames one by one; every sighting at a port that they left by, and when each came to its host."""
    with up.inside(src):
        leaving = Tap(first.interface, program)
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # of its own: a socket does not see what it sends itself
        sender.bind((first.interface, 0))
    with up.inside(""):
        passing = Tap(None, program)
    with up.inside(dst):
        coming = Tap(None, program)
    with sender, leaving, passing, coming:
        time.sleep(2 * _GAP_S)  # until the kernel stamps packets
        for frame in frames:
            sender.send(frame)
            time.sleep(_GAP_S)
        end = time.monotonic() + _LINGER_S
        sightings = [one for tap in (leaving, passing) for one in _drained(tap, end) if one.left]
        offset = program[0][3]
        arrived = {_number(one.data, offset): one.t for one in _drained(coming, end) if not one.left}
    return sightings, arrived


def _drained(tap: Tap, end: float) -> list[Seen]:
    """All that has come to a tap by then, and what waits in it."""
    return list(tap.until(max(end, time.monotonic() + _GAP_S)))


def _number(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset + 4 : offset + 8], "big")


def _by_probe(fabric: Fabric, seen: Sequence[Seen], offset: int) -> dict[int, dict[Port, float]]:
    ports = {port.interface: port for port in fabric.peer}
    found: dict[int, dict[Port, float]] = {}
    for one in seen:
        if one.interface in ports:
            found.setdefault(_number(one.data, offset), {})[ports[one.interface]] = one.t
    return found


def chain(fabric: Fabric, first: Port, seen: Collection[Port]) -> Path:
    """The ports at which a packet was seen as a path from `first` on, link by link; what is not on it comes last, as the topology counts.

    Not by time: the kernel begins to stamp packets a moment after it is asked to.
    """
    left, path = sorted(set(seen) - {first}), [first]
    while here := next((port for port in left if port.node == fabric.peer[path[-1]].node), None):
        left.remove(here)
        path.append(here)
    return (*path, *left)


def _counters(up: Live) -> dict[str, int]:
    """How many packets every interface has sent, by name."""
    found: dict[str, int] = {}
    for node in ("", *up.fabric.host_by_name):
        with up.inside(node), IPRoute() as netlink:
            for link in netlink.get_links():
                stats = link.get_attr("IFLA_STATS64")
                if stats:
                    found.setdefault(link.get_attr("IFLA_IFNAME"), int(stats["tx_packets"]))
    return found


def _rules(up: Live, src: str, dst: str, protocol: Protocol, ports: tuple[int, int]) -> Trail:
    a, b = up.fabric.host_by_name[src], up.fabric.host_by_name[dst]
    names = {"tcp": ("tp_src", "tp_dst"), "udp": ("udp_src", "udp_dst")}[protocol]
    ends = ",".join(f"{name}={port}" for name, port in zip(names, ports, strict=True))
    return trail(up.ovs, up.fabric, src, dst, flow=f"{protocol},dl_src={a.mac},dl_dst={b.mac},nw_src={a.ip},nw_dst={b.ip},nw_ttl=64,{ends}")


