"""Starts the traffic of one point and follows it: the runner's side of ranks and background flows.

Goes out: `traffic.json` in a folder of its own. Comes back: `records.jsonl`, a line per thing that happened, appended by
the prepared process (`fabric.coordinator`) which holds all ranks.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fabric.asking import Asking
from fabric.load import Flow
from fabric.process import Companion, companion
from fabric.programs import Programs
from fabric.schedule import Schedule
from fabric.tcp import Endpoints

__all__ = ["Timing", "Traffic", "TrafficPart", "TrafficProcess", "traffic_process"]


@dataclass(frozen=True)
class Timing:
    """How a job with a clock of its own goes by: it begins after `start_s`, and an iteration computes `compute_s`, then `backward_s` in `buckets` pieces.

    With `stagger_s` every group of the collective is such a job, and begins so much later than the one before.
    """

    compute_s: float
    start_s: float = 0.0
    backward_s: float = 0.0
    buckets: int = 1
    stagger_s: float | None = None


@dataclass(frozen=True)
class TrafficPart:
    """A collective: its ranks are those from `first` on, `ranks` in all; `schedules` one per size, in order, by their own numbers.

    With `announced` it tells the controller of itself. `timing` is that of jobs with clocks of their own. By host, `late_ms` is how much later than the others its rank begins.
    """

    name: str
    first: int
    ranks: int
    schedules: Sequence[Schedule]
    dtype: str
    iterations: int
    warmup: int
    check: bool
    announced: bool = False
    timing: Timing | None = None
    late_ms: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        timing = self.timing and asdict(self.timing)
        return {**self.__dict__, "schedules": [schedule.to_json() for schedule in self.schedules], "late_ms": dict(self.late_ms), "timing": timing}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TrafficPart:
        """What `to_json` wrote."""
        timing = Timing(**data["timing"]) if data["timing"] else None
        return TrafficPart(**{**data, "schedules": [Schedule.from_json(item) for item in data["schedules"]], "timing": timing})


@dataclass(frozen=True)
class Traffic:
    """All that one point sends, with every 5-tuple fixed.

    `ranks` are host names by rank, of all collectives, `inside` the edges within a server, which no controller need hear of; `edges` one TCP connection
    per (src rank, dst rank, channel); `parts` the collectives; `load_lead_s` is how long the load runs before the first iteration. `hints` is the controller's
    socket, when a collective shall be announced there. `sockets` says by job (the collective, `load.0`, ...) and host
    with which congestion control and mark sockets are made; `flow_jobs` is the job of each flow. `desk` is the
    socket at which orders to shift jobs with clocks of their own are taken. `programs` are the ranks' instead of a collective.
    With `steps` every transfer's times are told. `askings` are requests, with their endpoints and job.
    """

    host_pids: Mapping[str, int]
    sockets: Mapping[str, Mapping[str, tuple[str, int]]]
    flow_jobs: Sequence[str]
    ranks: Sequence[str]
    edges: Mapping[tuple[int, int, int], Endpoints]
    parts: Sequence[TrafficPart]
    flows: Sequence[Flow]
    flow_endpoints: Sequence[Endpoints]
    duration_s: float | None
    load_lead_s: float
    iteration_deadline_s: float
    inside: Sequence[tuple[int, int, int]] = ()
    hints: str | None = None
    desk: str | None = None
    programs: Programs | None = None
    steps: bool = False
    askings: Sequence[tuple[Asking, Endpoints, str]] = ()

    def to_json(self) -> dict[str, Any]:
        """What the coordinator reads."""
        return {
            "host_pids": dict(self.host_pids), "sockets": self.sockets, "ranks": list(self.ranks),
            "edges": [[*edge, asdict(endpoints)] for edge, endpoints in self.edges.items()],
            "parts": [part.to_json() for part in self.parts],
            "flows": [
                {"src": flow.src, "dst": flow.dst, "mbps": flow.mbps, "endpoints": asdict(endpoints), "job": job}
                for flow, endpoints, job in zip(self.flows, self.flow_endpoints, self.flow_jobs, strict=True)
            ],
            "inside": [list(edge) for edge in self.inside], "duration_s": self.duration_s, "load_lead_s": self.load_lead_s,
            "iteration_deadline_s": self.iteration_deadline_s, "hints": self.hints,
            "desk": self.desk, "programs": self.programs and self.programs.to_json(), "steps": self.steps,
            "askings": [{"asking": asdict(asking), "endpoints": asdict(endpoints), "job": job} for asking, endpoints, job in self.askings],
        }  # fmt: skip


@dataclass
class TrafficProcess:
    """The running coordinator; `records` gives what it has appended since the last call."""

    companion: Companion
    _position: int = 0

    def records(self) -> list[dict[str, Any]]:
        """New complete record lines."""
        path = self.companion.folder / "records.jsonl"
        if not path.exists():
            return []
        with open(path, "rb") as file:
            file.seek(self._position)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


@contextlib.contextmanager
def traffic_process(folder: Path, traffic: Traffic) -> Iterator[TrafficProcess]:
    """Start the traffic inside the hosts' namespaces; whatever of it still runs is ended with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "traffic.json").write_text(json.dumps(traffic.to_json()))
    with companion("the traffic", "fabric.coordinator", folder) as running:
        yield TrafficProcess(running)
