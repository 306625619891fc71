"""What a point sends, fixed to the last port number: placement, schedules, flows and every connection's 5-tuple.

Comes in: a `Point`. Goes out: a `Workload`. Pure: the same point always gives the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fabric.asking import Asking
from fabric.composing import compose
from fabric.experiment import Collective, Job, Point, askings, flows_by_load, placements
from fabric.load import Flow
from fabric.schedule import Schedule
from fabric.seeds import source_ports
from fabric.tcp import Endpoints

__all__ = ["FIRST_SERVICE_PORT", "Part", "Workload", "workload"]

FIRST_SERVICE_PORT = 5001  # every connection has a service port of its own, so that a listener knows who must come
Edge = tuple[int, int, int]  # source rank, destination rank, channel


@dataclass(frozen=True)
class Part:
    """A collective among all: `ranks` are the hosts of its own, of which the first is number `first` of all ranks; a schedule for each size."""

    name: str
    collective: Collective
    first: int
    ranks: tuple[str, ...]
    schedules: tuple[Schedule, ...]

    @property
    def pieces(self) -> int:
        """How often it communicates in an iteration."""
        return self.collective.buckets if isinstance(self.collective, Job) else 1

    @property
    def edges(self) -> list[Edge]:
        """Its connections, by the numbers that its ranks have among all."""
        own = dict.fromkeys(connection for schedule in self.schedules for connection in schedule.connections)
        return [(src + self.first, dst + self.first, channel) for src, dst, channel in own]


@dataclass(frozen=True)
class Workload:
    """All traffic of a point. `ranks` and `schedules` are those of all `parts`, `edges` their connections, `flow_endpoints` those of `flows`, in order.

    `flow_loads` is which load each flow is of, counted from 0, `programs` are the hosts of a program's ranks.
    `askings` are the clients of all `requests`, `asking_entries` of which entry each one is.
    """

    parts: tuple[Part, ...]
    edges: dict[Edge, Endpoints]
    flows: tuple[Flow, ...]
    flow_endpoints: tuple[Endpoints, ...]
    flow_loads: tuple[int, ...] = ()
    programs: tuple[str, ...] = ()
    askings: tuple[Asking, ...] = ()
    asking_endpoints: tuple[Endpoints, ...] = ()
    asking_entries: tuple[int, ...] = ()

    @property
    def ranks(self) -> tuple[str, ...]:
        """The hosts of all ranks."""
        return tuple(host for part in self.parts for host in part.ranks)

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """Of all collectives and sizes."""
        return tuple(schedule for part in self.parts for schedule in part.schedules)

    def part_of(self, edge: Edge) -> Part:
        """The collective that a connection belongs to."""
        return next(part for part in reversed(self.parts) if part.first <= edge[0])

    @property
    def hosts_by_job(self) -> dict[str, list[str]]:
        """The hosts that take part in each job: in each collective, and in each load that has a flow."""
        found = {part.name: list(dict.fromkeys(part.ranks)) for part in self.parts}
        for flow, load in zip(self.flows, self.flow_loads, strict=True):
            hosts = found.setdefault(f"load.{load}", [])
            hosts += [host for host in (flow.src, flow.dst) if host not in hosts]
        for asking, entry in zip(self.askings, self.asking_entries, strict=True):
            hosts = found.setdefault(f"requests.{entry}", [])
            hosts += [host for host in (asking.client, asking.server) if host not in hosts]
        return found

    @property
    def hosts_by_edge(self) -> dict[Edge, tuple[str, str]]:
        """The two hosts of each of the collectives' connections."""
        ranks = self.ranks
        return {edge: (ranks[edge[0]], ranks[edge[1]]) for edge in self.edges}

    def to_json(self) -> dict[str, Any]:
        """What point.json says of it; schedules stand in the traffic's own folder."""
        return {
            "placement": list(self.ranks or self.programs),
            "parts": [{"name": part.name, "first": part.first, "ranks": len(part.ranks)} for part in self.parts],
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
    placed = placements(point)
    programs = tuple(placed["collective"]) if point.workload else ()
    parts = _parts(point, placed)
    ranks = [host for part in parts for host in part.ranks]
    edges = [edge for part in parts for edge in part.edges]
    loads = flows_by_load(point)
    background = tuple(flow for found in loads for flow in found)
    # The collectives' connections draw first: their ports are the same with and without a load.
    entries = askings(point)
    asked = tuple(asking for found in entries for asking in found)
    ports = source_ports(point.seed, len(edges) + len(background) + len(asked))
    endpoints = _Endpoints(point)
    return Workload(
        parts,
        {edge: endpoints.of(ranks[edge[0]], ranks[edge[1]], number, ports) for number, edge in enumerate(edges)},
        background,
        tuple(endpoints.of(flow.src, flow.dst, len(edges) + number, ports) for number, flow in enumerate(background)),
        tuple(number for number, found in enumerate(loads) for _ in found), programs, asked,
        tuple(endpoints.of(one.client, one.server, len(edges) + len(background) + number, ports) for number, one in enumerate(asked)),
        tuple(number for number, found in enumerate(entries) for _ in found),
    )  # fmt: skip


def _parts(point: Point, placed: Mapping[str, Sequence[str]]) -> tuple[Part, ...]:
    parts: list[Part] = []
    for name, one in point.collectives.items():
        sizes = [one.piece] if isinstance(one, Job) else one.nbytes
        schedules = tuple(compose(one, point.fabric, placed[name], nbytes, point.base, point.links) for nbytes in sizes)
        parts.append(Part(name, one, sum(len(part.ranks) for part in parts), tuple(placed[name]), schedules))
    return tuple(parts)


@dataclass(frozen=True)
class _Endpoints:
    point: Point

    def of(self, src: str, dst: str, number: int, ports: Sequence[int]) -> Endpoints:
        hosts = self.point.fabric.host_by_name
        return Endpoints(hosts[src].ip, ports[number], hosts[dst].ip, FIRST_SERVICE_PORT + number)
