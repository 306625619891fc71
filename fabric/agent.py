"""The agent of hosts and ports: does what the controller orders, reads each thing back, and writes both down.

A process of its own beside the runner, as root, because a controller may be anybody's program and need not be. Its folder
is in FABRIC_RUN: `agent.json` comes in, `agent.jsonl` goes out, a line for every order. It serves a Unix socket that only
this user may open, and only to who knows the token. What it holds ends with it.

What it can do, each where the thing really is: priority and rate of a flow at the sockets of its two ends, rate of a host
at the shaper of its NIC, transport at its route, marking at the map that the port's program reads, a job's next
communication at the job itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fabric.desk import Desk, Refused
from fabric.errors import FabricError
from fabric.graph import Fabric, Port
from fabric.grasp import Grasp, reversed_flow
from fabric.ideal import TCP_IP_HEADERS
from fabric.kernel import die_with_parent, inside_namespace, namespace_of
from fabric.lines import ask, listening
from fabric.links import PRIORITY, Shape, class_requests, read_shape
from fabric.markers import RedSetter
from fabric.marking import MarkSetter
from fabric.policy import FlowKey, Lever, SetEcn, SetPriority, SetRate, SetTransport, Shift, Transport
from fabric.routes import Metrics
from fabric.tcp import SO_MAX_PACING_RATE, UNLIMITED, report
from fabric.tuning import set_transport

_DSCP_SHIFT = 2
_JOBS_DEADLINE_S = 2.0


class Agent:
    """Does orders one after another; `request` is agent.json."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.fabric = Fabric.from_json(request["fabric"])
        self.pids: dict[str, int] = request["hosts"]
        self.shapes = {Port(*place): Shape(**shape) for place, shape in request["shapes"]}
        self.grasp = Grasp(self.pids)
        self.marks = _setter(request["marks"])
        self.jobs = Path(request["jobs"]) if request["jobs"] else None
        self.routes = {host: Metrics(**told) for host, told in request["routes"].items()}
        self.transports = {host: Transport(route.rto_min_ms, route.initcwnd) for host, route in self.routes.items()}
        self._own_rates: dict[FlowKey, int] = {}  # what a socket had before the first order
        self._host_of = {nic.ip: host.name for host in self.fabric.hosts for nic in host.nics}
        self._namespaces = {host: namespace_of(pid) for host, pid in self.pids.items()}

    def do(self, order: Lever) -> Any:
        """Do it, and give what is in force now, as JSON can hold it; Refused says why not."""
        try:
            if isinstance(order, SetPriority):
                return self._priority(order)
            if isinstance(order, SetRate):
                return self._flow_rate(order.target, order.mbps) if isinstance(order.target, FlowKey) else self._host_rate(order)
            if isinstance(order, SetEcn):
                return self._ecn(order)
            if isinstance(order, SetTransport):
                return self._transport(order)
            return self._shift(order)
        except (OSError, NetlinkError, FabricError, KeyError) as err:
            raise Refused(f"{type(err).__name__}: {err}") from err

    def _priority(self, order: SetPriority) -> list[int]:
        if any(shape.floor is None for shape in self.shapes.values()):
            raise Refused("no queue of this run tells priority apart; give the links a priority_floor")
        wanted, got = PRIORITY if order.first else 0, []
        for flow in (order.flow, reversed_flow(order.flow)):
            with self._socket(flow) as held:
                # The two bits of ECN below it are TCP's own, which keeps them whatever is set here.
                held.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, wanted << _DSCP_SHIFT)
                got.append(held.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> _DSCP_SHIFT)
        if got != [wanted, wanted]:
            raise Refused(f"asked for DSCP {wanted}, the sockets say {got}")
        return got

    def _flow_rate(self, flow: FlowKey, mbps: float | None) -> int | None:
        """In bytes of payload a second, as the socket has it, which is never more than its owner asked; None without a limit."""
        with self._socket(flow) as held:
            own = self._own_rates.setdefault(flow, _rate_of(held))
            wanted = own if mbps is None else min(own, _pacing(held, mbps, self._nic(self._host(flow.src_ip)).frame))
            # As bytes: UNLIMITED is no C int, and Python takes no other number.
            held.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, wanted.to_bytes(4, sys.byteorder))
            got = _rate_of(held)
        if got != wanted:
            raise Refused(f"asked for {wanted} bytes/s, the socket says {got}")
        return None if got == UNLIMITED else got

    def _host_rate(self, order: SetRate) -> float:
        host = str(order.target)
        port = self.fabric.ports_of[host][0]
        mbps = self.shapes[port].mbps if order.mbps is None else order.mbps
        wanted = replace(self.shapes[port], mbps=mbps)
        with inside_namespace(self._namespaces[host]), IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname=port.interface)
            for arguments in class_requests(wanted):
                netlink.tc("change-class", "htb", index, **arguments)
            got, _ = read_shape(netlink.get_qdiscs(index=index), netlink.get_classes(index), wanted.mtu)
        if got is None or abs(got.mbps / mbps - 1) > 1e-4:
            raise Refused(f"asked for {mbps:g} Mb/s, the shaper says {got}")
        return got.mbps

    def _ecn(self, order: SetEcn) -> list[int]:
        if self.marks is None:
            raise Refused("no queue of this run marks; give the links ecn")
        if not 0 < order.min_bytes <= order.max_bytes:
            raise Refused(f"got thresholds of {order.min_bytes} and {order.max_bytes} bytes; accepted: 0 < min <= max")
        return list(self.marks.set(order.port.interface, self.shapes[order.port], order.min_bytes, order.max_bytes))

    def _transport(self, order: SetTransport) -> dict[str, Any]:
        host, mss = self.fabric.host_by_name[order.host], self._nic(order.host).mtu - TCP_IP_HEADERS
        if host.server:
            raise Refused(f"{order.host} shares its routes with the other NICs of {host.server}")
        asked = {key: value for key, value in asdict(order.transport).items() if value is not None}
        wanted = replace(self.transports[order.host], **asked)
        with inside_namespace(self._namespaces[order.host]), IPRoute() as netlink:
            set_transport(netlink, host, self.routes[order.host], wanted, mss)
        self.transports[order.host] = wanted
        return asdict(wanted)

    def _shift(self, order: Shift) -> dict[str, Any]:
        if self.jobs is None:
            raise Refused(f"{order.job} has no clock of its own; give the collective compute_ms")
        try:
            answer = ask(self.jobs, {"job": order.job, "delay_ms": order.delay_ms}, _JOBS_DEADLINE_S)
        except (OSError, ValueError) as err:
            raise Refused(f"the jobs do not answer: {err}; they have not begun, or are over") from err
        if "error" in answer:
            raise Refused(str(answer["error"]))
        return answer

    def _host(self, ip: str) -> str:
        if ip not in self._host_of:
            raise Refused(f"no host of this fabric has the address {ip}")
        return self._host_of[ip]

    def _nic(self, host: str) -> Shape:
        return self.shapes[self.fabric.ports_of[host][0]]

    @contextlib.contextmanager
    def _socket(self, flow: FlowKey) -> Iterator[socket.socket]:
        host = self._host(flow.src_ip)
        held = self.grasp.hold(host, flow)
        if held is None:
            raise Refused(f"{host} has no socket that sends {flow}")
        with held:
            yield held


def _setter(told: Mapping[str, Any] | None) -> MarkSetter | RedSetter | None:
    """What changes thresholds, by what the marker said of itself; None where nothing marks."""
    if told is None:
        return None
    return RedSetter() if "qdisc" in told else MarkSetter(told)


def _rate_of(held: socket.socket) -> int:
    return int(held.getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE) & UNLIMITED)


def _pacing(held: socket.socket, mbps: float, frame: int) -> int:
    """The pacing rate in bytes of payload a second, which is what TCP counts, of a rate that counts whole frames."""
    return max(1, min(UNLIMITED - 1, round(mbps * 1e6 / 8 * report(held).mss / frame)))


def main() -> int:
    """Serve until told to end."""
    die_with_parent()
    folder = Path(os.environ["FABRIC_RUN"])
    request = json.loads((folder / "agent.json").read_text())
    token = Path(request["token"]).read_text()
    path = Path(request["socket"])
    try:
        agent = Agent(request)
    except (OSError, FabricError) as err:
        print(f"the agent cannot begin: {err}", file=sys.stderr)
        return 1
    with listening(path) as listener, open(folder / "agent.jsonl", "a", buffering=1) as log:
        (folder / "ready").touch()
        Desk(agent.do, token, log).serve(listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
