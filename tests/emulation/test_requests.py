"""Requests beside a ring, and alone: answers over the real fabric, later when the ring takes the links."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

ALONE = """
question: What do requests take?
topology: {use: single-switch, hosts: 4}
links: {mbps: 20, mtu: 9000, queue_packets: 50}
controller: {use: ecmp}
duration_s: 4
requests:
  - {servers: [h0], clients: [h1, h2], rate_hz: 20, request: 4KiB, response: 16KiB, objective_ms: 40}
  - {servers: [h3], clients: [h1, h2], arrivals: periodic, rate_hz: 1, request: 64KiB, response: 4}
"""
BUSY = ALONE.replace("duration_s: 4", "collective: {use: ring-allreduce, nbytes: 1MiB, iterations: 4, warmup: 1}")


def row_of(fabriclab: Any, text: str) -> dict[str, Any]:
    """The one row."""
    done, folder = fabriclab.run(text)
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["refused"] is None, row["refused"]
    told = fabriclab.call("explain", str(folder))  # of requests alone there is nothing whose paths are known
    assert told.returncode == (0 if row["collective"] else 2), told.stderr
    assert row["collective"] or "has nothing but requests; accepted: a point with a collective or a load" in told.stderr
    return dict(row)


def test_requests_are_answered_and_wait_for_a_ring(fabriclab: Any, state: Any) -> None:
    """Alone within what their bytes take; beside a ring that fills the links later; bursts that all write at once share the storage's link."""
    before = state()
    alone, busy = row_of(fabriclab, ALONE), row_of(fabriclab, BUSY)
    quick, bursts = alone["answers"]["requests.0"], alone["answers"]["requests.1"]
    assert 100 <= quick["due"] <= 220 and quick["unanswered"] <= 2 and quick["in_time"] > 0.7
    assert 0 < quick["p50_ms"] < 40  # two frames pass an idle link at once, which is all of an answer
    # Two of 64 KiB at once over one link of 20 Mb/s; the first periods of two clients are the same.
    assert 6 <= bursts["due"] <= 8 and bursts["p50_ms"] > 1.5 * 65536 * 8 / 20e3
    assert busy["answers"]["requests.0"]["p50_ms"] > 1.5 * quick["p50_ms"]
    assert busy["p50_ms"] is not None and busy["requests"] == "poisson 20/s 4096+16384 B + periodic 1/s 65536+4 B"
    assert state() == before


FLOWS = """
question: Do flows of all sizes come through?
topology: {use: leaf-spine, leaves: 2, spines: 2, hosts: 2}
links: {mbps: 10, mtu: 9000, queue_packets: 50}
controller: {use: ecmp}
duration_s: 8
requests: [{servers: all, load: 0.4, request: 1KiB, sizes: websearch, scale: 0.05}]
"""


def test_flows_of_all_sizes_take_longer_than_their_bytes(fabriclab: Any) -> None:
    """At the load that was asked, by what the NICs carried; large flows share their links, small ones wait behind them."""
    row = row_of(fabriclab, FLOWS)
    flows = row["answers"]["requests.0"]
    assert row["requests"] == "poisson load 0.4 1024+websearch x 0.05 B" and sum(one["due"] for one in flows["slowdowns"]) == flows["due"]
    assert 40 <= flows["due"] <= 300 and flows["unanswered"] <= 20  # 8 s of four hosts, of 5.8 flows a second each
    sizes = [one["up_to"] for one in flows["slowdowns"]]
    assert len(sizes) >= 4 and sizes == sorted(sizes) and max(sizes) <= 3_000_000
    assert flows["slowdown_mean"] > 0.5 and all(one["p50_slowdown"] > 0.8 for one in flows["slowdowns"] if one["up_to"] >= 100_000)
