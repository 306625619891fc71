"""A collective in groups, from end to end: every group sums up among itself, all at the same time."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

RANKS, GROUPS, NBYTES, ITERATIONS, WARMUP = 4, 2, 16 * 1024, 2, 1
GROUPED = f"""
question: Do two rings beside each other end with the sums of their own ranks?
topology: {{use: single-switch, hosts: {RANKS}}}
links: {{mbps: 10}}
collective: {{use: ring-allreduce, groups: {GROUPS}, nbytes: {NBYTES}, iterations: {ITERATIONS}, warmup: {WARMUP}}}
controller: {{use: two-level}}
"""


def test_two_groups_end_with_their_own_sums(fabriclab: Any) -> None:
    """No element is wrong at any rank, no connection leaves its group, and busbw is that of a ring of two: algbw."""
    done, folder = fabriclab.run(GROUPED)
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["correct"] is True and row["wrong"] == 0 and row["refused"] is None
    assert row["ranks"] == RANKS and row["busbw_mbps"] == pytest.approx(row["algbw_mbps"])
    (point,) = (folder / "points").iterdir()
    plan = json.loads((point / "traffic" / "traffic.json").read_text())
    assert [schedule["groups"] for schedule in plan["parts"][0]["schedules"]] == [GROUPS]
    assert sorted((src, dst) for src, dst, *_ in plan["edges"]) == [(0, 2), (1, 3), (2, 0), (3, 1)]
    records = [json.loads(line) for line in (point / "traffic" / "records.jsonl").read_text().splitlines()]
    received = [end["bytes_received"] for record in records if record["event"] == "sockets"
                for end in record["sockets"] if end["role"] == "receiver"]  # fmt: skip
    # A ring of two sends the whole buffer once: 2(p-1)/p of it is all of it.
    assert received == [NBYTES * (ITERATIONS + WARMUP)] * RANKS
