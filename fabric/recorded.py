"""A point's folder, read: what its processes wrote, each part when it is first asked for.

Comes in: a folder. Goes out: `Recorded`, which summaries, refusals and explanations share.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fabric.decisions import read_decisions
from fabric.events import Happened, read_happened
from fabric.fidelity import lost_inside
from fabric.graph import Fabric
from fabric.journeys import Journey, read_journeys
from fabric.orders import read_orders
from fabric.queueing import Queueing, read_queueing
from fabric.schedule import Schedule
from fabric.socketlog import FILE, SocketSeries, read_sockets
from fabric.steps import Steps, read_steps
from fabric.telemetry import Queues, read_queues
from fabric.workload import Edge

__all__ = ["Recorded", "delays_of", "fabric_of", "spine_ports", "switch_ports"]

UNLIMITED_MBPS = 1e6  # inside servers whose NICs are not limited there


@dataclass(frozen=True)
class Recorded:
    """A point's folder, read: `records` of the traffic, `network`, `installed` paths, telemetry."""

    folder: Path

    def _json(self, name: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.folder / name).read_text())
        return data

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The traffic's record lines."""
        return [json.loads(line) for line in (self.folder / "traffic" / "records.jsonl").read_text().splitlines()]

    @cached_property
    def schedules(self) -> dict[tuple[str, int], Schedule]:
        """The collectives' schedules, by name (`collective`, or the job's) and size in bytes; empty of a load or a program."""
        plan = self._json("traffic/traffic.json")
        parts = plan.get("parts") or [{"name": "collective", "schedules": plan["schedules"]}]  # older records have but one
        found = [(part["name"], Schedule.from_json(item)) for part in parts for item in part["schedules"]]
        return {(name, schedule.nbytes): schedule for name, schedule in found}

    @cached_property
    def network(self) -> dict[str, Any]:
        """network.json."""
        return self._json("network.json")

    def lost_inside(self, fabric: Fabric) -> int:
        """How many packets switches lost that no queue counted."""
        return lost_inside(self.queues, fabric)

    @cached_property
    def edge_paths(self) -> dict[Edge, list[str] | None]:
        """The installed path of each of the collective's connections."""
        return {(src, dst, channel): path for src, dst, channel, path in self._json("installed.json")["edges"]}

    @cached_property
    def flow_paths(self) -> list[list[str] | None]:
        """The installed path of each background flow."""
        paths: list[list[str] | None] = self._json("installed.json")["flows"]
        return paths

    @cached_property
    def last_paths(self) -> tuple[dict[Edge, list[str] | None], list[list[str] | None]]:
        """Both as they were when the traffic had ended, where the controller moves flows; else as they were before."""
        if not (self.folder / "installed_after.json").is_file():
            return self.edge_paths, self.flow_paths
        after = self._json("installed_after.json")
        return {(src, dst, channel): path for src, dst, channel, path in after["edges"]}, after["flows"]

    @cached_property
    def orders(self) -> list[dict[str, Any]]:
        """What hosts and ports were ordered and what came of it, in order; empty where nobody gives orders."""
        return read_orders(self.folder)

    @cached_property
    def decisions(self) -> list[dict[str, Any]] | None:
        """The controller's decision log; None where it keeps none."""
        there = (self.folder / "controller" / "decisions.jsonl").is_file()
        return read_decisions(self.folder / "controller") if there else None

    @cached_property
    def queues(self) -> Queues:
        """The sampled queues."""
        return read_queues(self.folder / "telemetry" / "queues.jsonl")

    @cached_property
    def queueing(self) -> Queueing | None:
        """Every packet's queueing delay; None where it was not asked for."""
        return read_queueing(self.folder)

    @cached_property
    def journeys(self) -> list[Journey]:
        """What in-band probes saw; empty where none were asked for."""
        return read_journeys(self.folder)

    @cached_property
    def mbps(self) -> dict[str, float]:
        """The configured rate of every interface, and of what stands for one inside servers."""
        inside = {name: mbps or UNLIMITED_MBPS for name, mbps in self.network.get("inside", {}).items()}
        return {name: shape["mbps"] for name, shape in self.network["shapes"].items()} | inside

    @cached_property
    def link_mbps(self) -> float:
        """`links.mbps`, the rate of a link of scale 1: what `payload_mbps` is of."""
        return float(json.loads((self.folder / "point.json").read_text())["links"]["mbps"])

    @cached_property
    def happened(self) -> list[Happened]:
        """The timed events, as they happened."""
        return read_happened(self.folder / "events.jsonl")

    def event(self, kind: str) -> list[dict[str, Any]]:
        """The record lines of one kind."""
        return [record for record in self.records if record["event"] == kind]

    @cached_property
    def series(self) -> list[SocketSeries]:
        """Every sending socket over time; empty in records that are older than these."""
        return read_sockets(self.folder / "traffic" / FILE)

    @cached_property
    def steps(self) -> list[Steps]:
        """When each transfer began and arrived, by measured iteration; empty where it was not asked for."""
        return read_steps(self.folder / "traffic")

    @cached_property
    def sockets(self) -> list[dict[str, Any]]:
        """What every socket reported at the end."""
        return [end for record in self.event("sockets") for end in record["sockets"]]


def fabric_of(seen: Recorded) -> Fabric:
    return Fabric.from_json(json.loads((seen.folder / "controller" / "topology.json").read_text()))


def spine_ports(seen: Recorded) -> frozenset[str]:
    """The interfaces of the switches farthest from the hosts; none where hosts hang on all of them."""
    fabric = fabric_of(seen)
    top = max(fabric.level[switch.name] for switch in fabric.switches)
    if top < 2:  # hosts hang on them
        return frozenset()
    return frozenset(
        port.interface for switch in fabric.switches if fabric.level[switch.name] == top for port in fabric.ports_of[switch.name]
    )


def switch_ports(seen: Recorded) -> frozenset[str]:
    """The interfaces of all switches."""
    fabric = fabric_of(seen)
    return frozenset(port.interface for switch in fabric.switches for port in fabric.ports_of[switch.name])


def delays_of(seen: Recorded, window: tuple[float, float]) -> list[float] | None:
    """p50, p95 and p99 in ms of the queueing delay of all packets that left switches in a window; None where nobody knows."""
    return seen.queueing.percentiles(window, switch_ports(seen)) if seen.queueing else None
