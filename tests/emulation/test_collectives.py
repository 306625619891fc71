"""Collectives beyond the ring over real sockets and switches, and `bench`, which scans their sizes as nccl-tests do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

HOSTS = 6
# One that adds from a scratch buffer, one whose data land elsewhere, over one connection and over two.
EXPERIMENT = f"""
question: Do collectives that need a scratch buffer end with what they must?
topology: {{use: single-switch, hosts: {HOSTS}}}
links: {{mbps: 10, mtu: 9000, queue_packets: 50}}
collective: {{use: recursive-doubling-allreduce, nbytes: 65540, iterations: 3, warmup: 1}}
controller: {{use: two-level}}
sweep:
  collective.use: [recursive-doubling-allreduce, all-to-all]
  collective.channels: [1, 2]
"""


def test_scratch_buffers_and_channels(fabriclab: Any) -> None:
    """Every element is right, in a size that neither ranks nor channels divide; a second channel is a second connection."""
    done, folder = fabriclab.run(EXPERIMENT)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["collective"], row["channels"], row["correct"]) for row in rows] == [
        (use, channels, True) for use in ("recursive-doubling-allreduce", "all-to-all") for channels in (1, 2)
    ]
    edges = [len(json.loads((folder / "points" / row["point"] / "point.json").read_text())["edges"]) for row in rows]
    assert edges == [12, 24, HOSTS * (HOSTS - 1), 2 * HOSTS * (HOSTS - 1)]


def test_a_scan_of_sizes(fabriclab: Any, tmp_path: Path) -> None:
    """Two lines of figures, nothing wrong, a report in nccl-tests' keys, and a run folder that can be shown again."""
    words = ("-b", "16K", "-e", "64K", "-f", "4", "-n", "2", "-w", "1", "-c", "1", "--topology", f"single-switch,hosts={HOSTS}", "--channels", "2")
    report = tmp_path / "report.json"
    done = fabriclab.alone("bench", "double-binary-tree-allreduce,pieces=4", *words, "-J", str(report), "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    assert [(line[0], line[1], line[3], line[8]) for line in lines] == [("16384", "4096", "sum", "0"), ("65536", "16384", "sum", "0")]
    assert [result["size"] for result in json.loads(report.read_text())["results"]] == [16384, 65536]
    (folder,) = (tmp_path / "runs").iterdir()
    shown = fabriclab.call("show", str(folder), "--json")
    assert [json.loads(line)["nbytes"] for line in shown.stdout.splitlines()] == [16384, 65536]


def test_what_bench_refuses(fabriclab: Any) -> None:
    """As one line, before anything starts."""
    done = fabriclab.call("bench", "hierarchical-allreduce,per_server=5", "--topology", "single-switch,hosts=6")
    assert (done.returncode, done.stdout) == (2, "")
    assert "collective.per_server: got 5; accepted: 1, 2, 3 for 6 ranks, two servers or more" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_straggler_shows(fabriclab: Any) -> None:
    """A rank that begins late is named, with what it cost; others are not, and the sums are right. Its figure is drawn."""
    text = """
question: Who was waited for?
topology: {use: single-switch, hosts: 4}
links: {mbps: 20, queue_packets: 50}
controller: {use: two-level}
collective: {use: ring-allreduce, nbytes: 64KiB, iterations: 3, warmup: 1}
telemetry: {steps: true}
sweep: {collective.late_ms: [{}, {h2: 60}]}
"""
    done, folder = fabriclab.run(text)
    plain, late = (json.loads(line) for line in done.stdout.splitlines())
    assert plain["correct"] and late["correct"]
    assert late["lag_rank"] == 2 and 58 <= late["lag_ms"] <= 80
    assert plain["lag_ms"] < 30
    assert 50 <= late["p50_ms"] - plain["p50_ms"] <= 80
    assert (folder / "figures" / "gantt.png").stat().st_size > 10_000
