"""Who went where, and when: every connection of a recorded point with its path at each moment, and its fair share there.

Comes in: a point's folder, read (`fabric.summary.Recorded`). Goes out: `Stream`s, their paths by the installed rules and
by the decision log, and max-min shares at any moment. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from fabric.decisions import read_decisions
from fabric.fluid import max_min
from fabric.recorded import Recorded

__all__ = ["Names", "Span", "Stream", "Tracks", "Window", "nodes"]

Names = tuple[str, ...]
Span = tuple[float, float, Names | None]  # from when to when (CLOCK_MONOTONIC), and the path, as names of interfaces
Window = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Stream:
    """One connection, in the direction that carries data.

    `edge` is (source rank, destination rank, channel) where it is the collective's, else None. `key` is its 5-tuple as
    the decision log spells it, `mbps` the most it asks for.
    """

    name: str
    src: str
    dst: str
    key: str
    edge: tuple[int, int, int] | None = None
    mbps: float | None = None


class Tracks:
    """The streams of a point: those of the collective first, then the background flows, each in the record's order."""

    def __init__(self, seen: Recorded) -> None:
        self._seen = seen
        self.has_log = (seen.folder / "controller" / "decisions.jsonl").is_file()
        self.log = read_decisions(seen.folder / "controller")
        self.point: dict[str, Any] = json.loads((seen.folder / "point.json").read_text())
        self.streams = (*self._edges(), *self._flows())

    def _edges(self) -> list[Stream]:
        hosts = self.point["placement"]
        return [
            Stream(f"{self._ranks(src, dst)}{f' (channel {lane})' if lane else ''}", hosts[src], hosts[dst], _key(ends), (src, dst, lane))
            for src, dst, lane, ends in self.point["edges"]
        ]

    def _ranks(self, src: int, dst: int) -> str:
        """Two ranks of a job by its own numbers, and by its name where there are several."""
        if len(self.point.get("parts", ())) < 2:
            return f"rank {src} -> {dst}"
        name, first = self._part(src)
        return f"{name}: rank {src - first} -> {dst - first}"

    def _part(self, rank: int) -> tuple[str, int]:
        """The collective that a rank, numbered among all, belongs to, and its first rank; records that are older have one."""
        parts = self.point.get("parts") or [{"name": "collective", "first": 0}]
        return next((part["name"], part["first"]) for part in reversed(parts) if part["first"] <= rank)

    def own(self, edge: tuple[int, int, int]) -> tuple[str, tuple[int, int, int]]:
        """The collective that a connection belongs to, and the connection by the numbers of that one's ranks."""
        name, first = self._part(edge[0])
        return name, (edge[0] - first, edge[1] - first, edge[2])

    def hosts(self, part: str) -> tuple[str, ...]:
        """The hosts of a collective's ranks."""
        placed = tuple(self.point["placement"])
        for one in self.point.get("parts", ()):
            if one["name"] == part:
                return placed[one["first"] : one["first"] + one["ranks"]]
        return placed

    @cached_property
    def members(self) -> dict[str, list[Stream]]:
        """The streams of each collective, by its name."""
        found: dict[str, list[Stream]] = {}
        for stream in self.streams:
            if stream.edge is not None:
                found.setdefault(self._part(stream.edge[0])[0], []).append(stream)
        return found

    def _flows(self) -> list[Stream]:
        return [
            Stream(f"flow {number}", flow["src"], flow["dst"], _key(flow["endpoints"]), mbps=flow["mbps"])
            for number, flow in enumerate(self.point["flows"])
        ]

    @cached_property
    def by_key(self) -> dict[str, Stream]:
        """Streams by their 5-tuple."""
        return {stream.key: stream for stream in self.streams}

    @cached_property
    def reroutes(self) -> dict[str, list[dict[str, Any]]]:
        """The reroute lines of each 5-tuple, in order of time."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in self.log:
            if line["event"] == "reroute":
                found.setdefault(line["flow"], []).append(line)
        return found

    def path(self, stream: Stream, t: float) -> Names | None:
        """The interfaces that a stream leaves by at a moment (CLOCK_MONOTONIC); None where nothing says it."""
        before = [line for line in self.reroutes.get(stream.key, ()) if line["t"] <= t]
        if before:
            return tuple(before[-1]["new"])
        number = self.streams.index(stream)
        edges = len(self.point["edges"])
        path = self._seen.flow_paths[number - edges] if stream.edge is None else self._seen.edge_paths[stream.edge]
        return None if path is None else tuple(path)

    def spans(self, stream: Stream, begin: float, end: float) -> list[Span]:
        """The paths of a stream from one moment to another, each with its own begin and end."""
        turns = [line["t"] for line in self.reroutes.get(stream.key, ()) if begin < line["t"] < end]
        edges = [begin, *turns, end]
        return [(a, b, self.path(stream, a)) for a, b in pairwise(edges)]

    def rates(self, t: float) -> dict[str, float]:
        """What every interface could carry at a moment, in Mb/s with headers: as configured, and as events changed it."""
        rates = dict(self._seen.mbps)
        for one in self._seen.happened:
            if one.begin <= t:
                rates.update(one.mbps)
        return rates

    @property
    def payload(self) -> float:
        """The payload in each Mb/s of a link."""
        return float(self._seen.network["payload_mbps"] / self._seen.link_mbps)

    def shares(self, t: float) -> dict[Stream, float]:
        """What max-min fairness would give every stream in Mb/s, were all of them sending; those without a path left out."""
        placed = {stream: path for stream in self.streams if (path := self.path(stream, t)) is not None}
        capacity: dict[Hashable, float] = {name: mbps * self.payload for name, mbps in self.rates(t).items()}
        rates = max_min(list(placed.values()), capacity, [stream.mbps for stream in placed])
        return dict(zip(placed, rates.tolist(), strict=True))

    def crossing(self, interface: str, t: float) -> list[Stream]:
        """The streams whose path goes out of an interface at a moment."""
        return [stream for stream in self.streams if interface in (self.path(stream, t) or ())]

    def goodput(self, stream: Stream, window: Window) -> float | None:
        """What a background flow's receiver got in Mb/s; None where nobody counted: the collective's connections."""
        flows = self._seen.event("flows")
        if stream.edge is not None or not flows:
            return None
        counts = flows[0]["flows"][stream.name.removeprefix("flow ")]
        first, last = np.interp(window, np.array(counts["t"]), np.array(counts["nbytes"], float))
        return float((last - first) * 8e-6 / (window[1] - window[0]))


def nodes(path: Sequence[str], dst: str) -> Names:
    """The nodes along a path of interfaces, hosts included."""
    return (*(name.removesuffix("-inside").rpartition("-eth")[0] or name.removesuffix("-inside") for name in path), dst)


def _key(ends: Mapping[str, Any]) -> str:
    return f"{ends['src_ip']}:{ends['src_port']}>{ends['dst_ip']}:{ends['dst_port']}"
