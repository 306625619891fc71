"""Several jobs on a real network: each by its own clock, with sums of its own, and a row that says whom it met."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

FILE = """
question: Do two jobs share the link between two switches, and each end with its own sums?
topology: {use: dumbbell, pairs: 4}
links: {mbps: 10, mtu: 9000}
controller: {use: adaptive}
jobs:
  - {name: llm, use: ring-allreduce, ranks: [l0, r0, l1, r1], nbytes: 256KiB, iterations: 3, warmup: 1, compute_ms: 50, backward_ms: 200, buckets: 4, hints: true}
  - {name: moe, use: all-to-all, ranks: [l2, r2], nbytes: 128KiB, iterations: 20, warmup: 0, start_s: 0.3, transport: {tcp: reno}}
load: [{use: elephants, pairs: 1, hosts: idle, mbps: 1}]
"""


@pytest.fixture(scope="module")
def ran(module_fabriclab: Any) -> tuple[dict[str, dict[str, Any]], Path]:
    """The rows by job, and the run's folder."""
    done, folder = module_fabriclab.run(FILE)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [row["refused"] for row in rows if row["refused"]]
    return {row["job"]: row for row in rows}, folder


def records(folder: Path) -> list[dict[str, Any]]:
    """The traffic's lines."""
    (point,) = (folder / "points").iterdir()
    return [json.loads(line) for line in (point / "traffic" / "records.jsonl").read_text().splitlines()]


def test_every_job_has_a_row_of_its_own(ran: tuple[dict[str, dict[str, Any]], Path]) -> None:
    """With its size, its ranks, its own ideal, and sums that are right."""
    rows, _ = ran
    assert list(rows) == ["llm", "moe"]
    assert all(row["correct"] is True and row["wrong"] == 0 for row in rows.values())
    assert (rows["llm"]["nbytes"], rows["llm"]["ranks"], rows["llm"]["iterations"]) == (64 * 1024, 4, 3)
    assert (rows["moe"]["nbytes"], rows["moe"]["ranks"], rows["moe"]["iterations"]) == (128 * 1024, 2, 20)
    assert rows["llm"]["transport"] == rows["moe"]["transport"] and "reno" in rows["moe"]["transport"]
    # What is longer than it would be alone, and what stays hidden behind the computing.
    assert rows["llm"]["iteration_ms"] >= 250 + rows["llm"]["exposed_ms"] * 0.5
    assert rows["llm"]["shared_ms"]["moe"] > 0 and rows["moe"]["shared_ms"]["llm"] > 0


def test_buckets_go_in_order_and_no_earlier_than_they_are_there(ran: tuple[dict[str, dict[str, Any]], Path]) -> None:
    """Four times in each of four iterations; the other job by its own clock meanwhile."""
    lines = [line for line in records(ran[1]) if line["event"] == "iteration"]
    llm, moe = ([line for line in lines if line["job"] == name] for name in ("llm", "moe"))
    assert [(line["iteration"], line["bucket"]) for line in llm] == [(number, bucket) for number in range(-1, 3) for bucket in range(4)]
    assert all(line["release"] >= line["begun"] + 0.05 * (line["bucket"] + 1) - 1e-6 for line in llm)
    assert all(later["release"] >= earlier["release"] + max(earlier["ends_ms"]) / 1000 - 1e-6 for earlier, later in pairwise(llm))
    assert [line["iteration"] for line in moe] == list(range(20))
    (release,) = [line["release"] for line in records(ran[1]) if line["event"] == "release"]
    assert moe[0]["release"] >= release + 0.3 > llm[0]["release"]


def test_one_that_announces_itself_does_not_speak_for_the_other(ran: tuple[dict[str, dict[str, Any]], Path]) -> None:
    """The ring's four connections, with what all buckets carry; nothing of the other job."""
    (hint,) = [line for line in records(ran[1]) if line["event"] == "hints"]
    assert hint["flows"] == 4


def test_the_jobs_are_drawn_over_time(ran: tuple[dict[str, dict[str, Any]], Path]) -> None:
    """The figure of all jobs over time has computing, communicating and sharing of both."""
    _, folder = ran
    assert (folder / "figures" / "timeline.png").stat().st_size > 10_000
    drawn = (folder / "figures" / "timeline.csv").read_text().splitlines()
    assert {line.split(",")[2] for line in drawn[1:]} == {"llm", "moe"} and {line.split(",")[3] for line in drawn[1:]} >= {"computing", "communicating", "sharing"}
