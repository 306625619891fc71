"""The run folder: what lies where, and the rows that a run ends in.

    runs/quickstart-20260131-101500/
      experiment.yaml  run.json      the file as it was; versions, machine, git revision, command line
      rows.jsonl  rows.csv           one row per point and size (`Row`, defined in docs/measures.md)
      alphas.json                    the latencies that ideals are computed with; a run that is resumed keeps them
      finished.json                  written last: a folder without it was interrupted, or run in part
      interrupted/                   what points and calibrations that were broken off had recorded
      figures/                       PNG, SVG and the CSV behind each
      points/000-ecmp-r1/
        point.json                   the resolved point: placement, flows, 5-tuples, installed paths, ideal
        network.json                 datapath, shapers asked and read back, sysctls read back
        controller/  traffic/  telemetry/   what each process was given, and what it wrote
        traffic/steps.jsonl          with telemetry.steps: when each transfer of each iteration began and arrived
        queueing.json  queueing.npz  with telemetry.queueing_delay: how long packets waited in every queue
        inband/                      with telemetry.probes: pairs.json, inband.jsonl (a line a probe), report.json
        events.jsonl  probes/  recovery.jsonl   with timed events: when each happened, the probes' times, what they say
        programs/                    with a program as workload: what each rank printed (.out, .err) and reported (.json)
        delay/                       with a user-space delay line: its totals over time, how precise it was
        watched.jsonl                who captured or traced packets meanwhile
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fabric.errors import RequestError

__all__ = ["FIGURES", "P99_NEEDS", "SCHEMA_VERSION", "Row", "RunFolder", "is_full", "read_rows"]

SCHEMA_VERSION = 1
_LINE = 16_384  # bytes
P99_NEEDS = 100  # values: of fewer, it says little but the largest


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a result; what does not apply is None. Times in ms, rates in Mb/s of TCP payload, sizes in bytes."""

    engine: str = "emulation"
    variant: str
    topology: str
    controller: str
    policy: str | None = None
    collective: str | None = None
    algorithm: str | None = None
    picked: str | None = None
    nbytes: int | None = None
    ranks: int | None = None
    placement: str | None = None
    channels: int | None = None
    hints: bool | None = None
    job: str | None = None
    start_s: float | None = None
    compute_ms: float | None = None
    backward_ms: float | None = None
    buckets: int | None = None
    stagger_ms: float | None = None
    workload: str | None = None
    load: str | None = None
    requests: str | None = None
    events: str | None = None
    tcp: str
    tcp_by: str | None = None
    transport: str | None = None
    ecn: str | None = None
    ecn_by: str | None = None
    delay_ms: float | None = None
    loss_percent: float | None = None
    delay_by: str | None = None
    mtu: int
    mbps: float
    nvlink_ratio: float | str | None = None
    repeat: int
    seed: int
    iterations: int | None = None
    iteration_ms: float | None = None
    exposed_ms: float | None = None
    shared_ms: dict[str, float] | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    straggler_rank: int | None = None
    lag_rank: int | None = None
    lag_ms: float | None = None
    alpha_ms: float | None = None
    ideal_ms: float | None = None
    slowdown: float | None = None
    rto_over_ideal: float | None = None
    algbw_mbps: float | None = None
    busbw_mbps: float | None = None
    program_s: float | None = None
    nic_bytes: int | None = None
    reported: dict[str, Any] | None = None
    predicted_ms: float | None = None
    prediction_error: float | None = None
    load_goodput_mbps: float | None = None
    load_share_of_nb: float | None = None
    load_share_predicted: float | None = None
    load_leftover_share: float | None = None
    load_jain: float | None = None
    slowest_flow_slowdown: float | None = None
    answers: dict[str, dict[str, Any]] | None = None
    after_slowdown: float | None = None
    after_share_of_nb: float | None = None
    after_slowest_flow_slowdown: float | None = None
    retransmits: int | None = None
    spurious_retransmits: int | None = None
    ce_marked: int | None = None
    marks: int | None = None
    drops: int | None = None
    losses: int | None = None
    queue_p50_packets: float | None = None
    queue_p95_packets: float | None = None
    queueing_p50_ms: float | None = None
    queueing_p95_ms: float | None = None
    queueing_p99_ms: float | None = None
    busiest_port: str | None = None
    spine_bytes: int | None = None
    fabric_utilisation: float | None = None
    rtt_p50_ms: float | None = None
    rtt_p95_ms: float | None = None
    reroutes: int | None = None
    levers: int | None = None
    levers_refused: int | None = None
    recovery_data_ms: float | None = None
    recovery_dark_ms: float | None = None
    recovery_complete: bool | None = None
    recovery_transport_ms: float | None = None
    wrong: int | None = None
    correct: bool | None = None
    datapath: str
    bdp_packets: float | None = None
    switch_delay: float | None = None
    telemetry_core_share: float | None = None
    delay_line_cores: float | None = None
    fidelity: str | None = None
    fidelity_reasons: tuple[str, ...] = ()
    refused: str | None = None
    point: str

    @property
    def arm(self) -> str:
        """What is compared with others: the variant, or one of its jobs."""
        return f"{self.variant}: {self.job}" if self.job else self.variant

    def to_json(self) -> dict[str, Any]:
        """A dictionary with every key."""
        return asdict(self)


FIGURES = tuple(field.name for field in fields(Row) if field.type in ("int | None", "float | None"))  # what can be averaged, and compared


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names inside a run folder."""

    path: Path

    def point(self, label: str) -> Path:
        """The folder of one point."""
        return self.path / "points" / label

    def write_json(self, name: str, data: Any) -> None:
        """Write a file of the top level."""
        (self.path / name).write_text(json.dumps(data, indent=1, default=str) + "\n")

    def append_rows(self, rows: Iterable[Row]) -> None:
        """Add rows to rows.jsonl, all or none, and write rows.csv anew, so that an interrupted run keeps what it has."""
        text = "".join(json.dumps(row.to_json()) + "\n" for row in rows)
        with open(self.path / "rows.jsonl", "ab") as file:
            before = file.tell()
            try:
                file.write(text.encode())
                file.flush()
            except OSError:
                os.truncate(self.path / "rows.jsonl", before)
                raise
        write_csv(self.path / "rows.csv", read_rows(self.path))

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "finished.json").exists()


def is_full(path: Path) -> bool:
    """Whether the file system of a folder has less room than a line of a record takes."""
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _LINE


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Rows as CSV, a column per key; what is no plain value is JSON there."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for row in rows:
            cells = {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in row.to_json().items()}
            writer.writerow({**cells, "fidelity_reasons": "; ".join(row.fidelity_reasons)})


def read_rows(path: Path) -> list[Row]:
    """The rows of a run folder; RequestError when it is none."""
    file = path / "rows.jsonl"
    if not file.is_file():
        raise RequestError(f"{path}: not a run folder (it has no rows.jsonl); accepted: a folder that `fabriclab run` made")
    known = {field.name for field in fields(Row)}
    rows = []
    for line in file.read_text().splitlines():
        data = {key: value for key, value in json.loads(line).items() if key in known}
        rows.append(Row(**{**data, "fidelity_reasons": tuple(data.get("fidelity_reasons", ()))}))
    return rows
