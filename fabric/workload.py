"""What a point sends, fixed to the last port number: placement, schedules, flows and every connection's 5-tuple.

Comes in: a `Point`. Goes out: a `Workload`. Pure: the same point always gives the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fabric.asking import Asking
from fabric.composing import compose
from fabric.experiment import Point, askings, flows_by_load, placement
from fabric.load import Flow
from fabric.schedule import Schedule
from fabric.seeds import source_ports
from fabric.tcp import Endpoints

__all__ = ["FIRST_SERVICE_PORT", "Workload", "workload"]

FIRST_SERVICE_PORT = 5001  # every connection has a service port of its own, so that a listener knows who must come
Edge = tuple[int, int, int]  # source rank, destination rank, channel


@dataclass(frozen=True)
class Workload:
    """All traffic of a point. `edges` are the collective's connections, `flow_endpoints` those of `flows`, in order.

    `flow_loads` is which load each flow is of, counted from 0, `programs` are the hosts of a program's ranks.
    `askings` are the clients of all `requests`, `asking_entries` of which entry each one is.
    """

    ranks: tuple[str, ...]
    schedules: tuple[Schedule, ...]
    edges: dict[Edge, Endpoints]
    flows: tuple[Flow, ...]
    flow_endpoints: tuple[Endpoints, ...]
    flow_loads: tuple[int, ...] = ()
    programs: tuple[str, ...] = ()
    askings: tuple[Asking, ...] = ()
    asking_endpoints: tuple[Endpoints, ...] = ()
    asking_entries: tuple[int, ...] = ()

    @property
    def hosts_by_job(self) -> dict[str, list[str]]:
        """The hosts that take part in each job: in the collective, and in each load that has a flow."""
        found = {"collective": list(dict.fromkeys(self.ranks))} if self.ranks else {}
        for flow, load in zip(self.flows, self.flow_loads, strict=True):
            hosts = found.setdefault(f"load.{load}", [])
            hosts += [host for host in (flow.src, flow.dst) if host not in hosts]
        for asking, entry in zip(self.askings, self.asking_entries, strict=True):
            hosts = found.setdefault(f"requests.{entry}", [])
            hosts += [host for host in (asking.client, asking.server) if host not in hosts]
        return found

    @property
    def hosts_by_edge(self) -> dict[Edge, tuple[str, str]]:
        """The two hosts of each of the collective's connections."""
        return {edge: (self.ranks[edge[0]], self.ranks[edge[1]]) for edge in self.edges}

    def to_json(self) -> dict[str, Any]:
        """What point.json says of it; schedules stand in the traffic's own folder."""
        return {
            "placement": list(self.ranks or self.programs),
            "edges": [[*edge, asdict(endpoints)] for edge, endpoints in self.edges.items()],
            "flows": [
                {"src": flow.src, "dst": flow.dst, "mbps": flow.mbps, "endpoints": asdict(endpoints)}
                for flow, endpoints in zip(self.flows, self.flow_endpoints, strict=True)
            ],
            "requests": [
                {"client": asking.client, "server": asking.server, "entry": entry, "endpoints": asdict(endpoints)}
                for asking, entry, endpoints in zip(self.askings, self.asking_entries, self.asking_endpoints, strict=True)
            ],
        }


def workload(point: Point) -> Workload:
    """The workload of a point; RequestError when its collective's plug-in does not hold what it promises."""
    placed = tuple(placement(point))
    ranks, programs = (placed, ()) if point.collective else ((), placed)
    schedules = _schedules(point, ranks)
    edges = list(dict.fromkeys(connection for schedule in schedules for connection in schedule.connections))
    loads = flows_by_load(point)
    background = tuple(flow for found in loads for flow in found)
    # The collective's connections draw first: its ports are the same with and without a load.
    entries = askings(point)
    asked = tuple(asking for found in entries for asking in found)
    ports = source_ports(point.seed, len(edges) + len(background) + len(asked))
    endpoints = _Endpoints(point)
    return Workload(
        ranks, schedules,
        {edge: endpoints.of(ranks[edge[0]], ranks[edge[1]], number, ports) for number, edge in enumerate(edges)},
        background,
        tuple(endpoints.of(flow.src, flow.dst, len(edges) + number, ports) for number, flow in enumerate(background)),
        tuple(number for number, found in enumerate(loads) for _ in found), programs, asked,
        tuple(endpoints.of(one.client, one.server, len(edges) + len(background) + number, ports) for number, one in enumerate(asked)),
        tuple(number for number, found in enumerate(entries) for _ in found),
    )  # fmt: skip


def _schedules(point: Point, ranks: Sequence[str]) -> tuple[Schedule, ...]:
    if point.collective is None:
        return ()
    return tuple(compose(point.collective, point.fabric, ranks, nbytes, point.base, point.links) for nbytes in point.collective.nbytes)


@dataclass(frozen=True)
class _Endpoints:
    point: Point

    def of(self, src: str, dst: str, number: int, ports: Sequence[int]) -> Endpoints:
        hosts = self.point.fabric.host_by_name
        return Endpoints(hosts[src].ip, ports[number], hosts[dst].ip, FIRST_SERVICE_PORT + number)
