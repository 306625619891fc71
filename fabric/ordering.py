"""Orders to hosts and ports, seen from the runner: the agent's process, what the controller is told, what came of it.

Comes in: a point and its network. Goes out: `agent.json` and the running agent; afterwards, what shapers and routes are
asked to be. The agent itself is `fabric.agent`, its language `fabric.orders`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fabric.experiment import Point
from fabric.graph import Port
from fabric.links import ETHERNET_HEADER
from fabric.marking import Marker
from fabric.network import Network
from fabric.orders import done, read_orders
from fabric.policy import Transport
from fabric.process import BEGIN_S, companion
from fabric.red import Red
from fabric.transports import settings
from fabric.tuning import with_transport

__all__ = ["OrderSockets", "agent", "follow_orders", "wires"]



@dataclass(frozen=True)
class OrderSockets:
    """Where orders are given: the agent's socket and the file of its token; `jobs` is where jobs are shifted, if they can be."""

    socket: Path
    token: Path
    jobs: Path | None = None

    def for_controller(self) -> dict[str, str]:
        """What the controller must know of it."""
        return {"socket": str(self.socket), "token": str(self.token)}


def wires(point: Point) -> dict[str, Any]:
    """What operators know of their links and hosts, for the controller."""
    frame, ecn = point.links.mtu + ETHERNET_HEADER, point.links.ecn
    hosts = {host.name: settings(point.transport, host.name) for host in point.fabric.hosts}
    return {
        "frame": frame,
        "queue_bytes": point.links.queue_bytes or (point.links.queue_packets or 0) * frame,
        "floor": point.links.priority_floor,
        "ecn": ecn and list(ecn.in_bytes(point.links.mtu)),
        "transport": {host: {"rto_min_ms": asked.rto_min_ms, "initcwnd": asked.initcwnd} for host, asked in hosts.items()},
    }


@contextlib.contextmanager
def agent(point: Point, folder: Path, net: Network, sockets: OrderSockets, marker: Marker | None) -> Iterator[None]:
    """The agent of hosts and ports, until the block ends; only who can read the token's file may give it orders."""
    folder.mkdir()
    sockets.token.unlink(missing_ok=True)
    sockets.token.touch(mode=0o600)
    sockets.token.write_text(secrets.token_hex(16))
    request = {
        **sockets.for_controller(), "jobs": str(sockets.jobs) if sockets.jobs else None, "fabric": point.fabric.to_json(),
        "hosts": {host.name: net.host_pid(host.name) for host in point.fabric.hosts},
        "shapes": [[[port.node, port.number], asdict(shape)] for port, shape in net.shapes.items()],
        "routes": {host: asdict(routes[0]) for host, routes in net.routes.items()},
        "marks": marker.settable() if marker else None,
    }  # fmt: skip
    (folder / "agent.json").write_text(json.dumps(request))
    with companion("the agent of hosts and ports", "fabric.agent", folder) as running:
        running.wait_for("ready", BEGIN_S, "open its socket")
        yield
        running.check_alive()


def follow_orders(folder: Path, net: Network) -> None:
    """What the agent did to shapers and routes in a point's `folder` is what is asked of them now."""
    asked = net.in_force
    for order, got in done(read_orders(folder)):
        if order["do"] == "rate" and "host" in order:
            port = net.fabric.ports_of[order["host"]][0]
            asked[port] = replace(asked[port], mbps=got)
        elif order["do"] == "ecn" and asked[Port(*order["port"])].red:
            asked[Port(*order["port"])] = replace(asked[Port(*order["port"])], red=Red(*got))
        elif order["do"] == "transport":
            own = net.routes[order["host"]]
            now = {**own, 0: with_transport(own[0], Transport(**got))}
            net.routes = {**net.routes, order["host"]: now}
