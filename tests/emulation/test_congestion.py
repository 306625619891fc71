"""Orders to hosts and ports on a real network: in force where they belong, read back, proven, and worth it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.decisions import read_decisions
from fabric.socketlog import FILE, read_sockets

pytestmark = pytest.mark.emulation

RING = """
question: Does a ring that goes first keep its time beside elephants?
topology: {use: single-switch, hosts: 4}
links: {mbps: 10, mtu: 9000, queue_packets: 50, priority_floor: 0.05}
collective: {use: ring-allreduce, nbytes: 64KiB, iterations: 6, warmup: 1, hints: true}
load: [{use: stride, step: 2}]
controller: {use: congestion, policy: priority}
sweep: {controller: [{use: adaptive}, {use: congestion, policy: priority}]}
"""
INCAST = """
question: Does a guarded incast drop nothing?
topology: {use: single-switch, hosts: 9}
links: {mbps: 20, mtu: 1500, queue_packets: 30}
collective: {use: incast, nbytes: 64KiB, iterations: 4, warmup: 1, hints: true}
controller: {use: congestion, policy: incast-guard}
"""
RATES = """
question: Do max-min rates keep queues empty?
topology: {use: single-switch, hosts: 4}
links: {mbps: 10, mtu: 1500, queue_packets: 50}
load: [{use: incast, senders: 3}]
duration_s: 6
controller: {use: congestion, policy: max-min}
"""
THRESHOLDS = """
question: Does a threshold follow what is ordered while traffic runs?
topology: {use: fat-tree, k: 4}
links: {mbps: 5, mtu: 1500, queue_packets: 100, ecn: {min_packets: 40, max_packets: 40}}
load: [{use: incast, senders: 2}]
duration_s: 6
transport: {tcp: dctcp}
controller: {use: congestion, policy: ./lower.py}
"""
JOBS = """
question: Do two jobs on one link get out of each other's way?
topology: {use: dumbbell, pairs: 2}
links: {mbps: 10, mtu: 1500, queue_packets: 50}
collective: {use: ring-allreduce, groups: 2, nbytes: 128KiB, iterations: 12, warmup: 0, hints: true, compute_ms: 150}
controller: {use: congestion, policy: interleave}
"""
LOWER = '''
from fabric.policy import SetEcn


class Lower:
    """Every port to ten frames, once."""

    def decide(self, view):
        ports = [(port, link) for port, link in view.links.items() if link.ecn_bytes not in (None, (15140, 15140))]
        return [SetEcn(port, 15140, 15140, "as the test wants it") for port, _ in ports]
'''


LIFTED = """
question: Does a sender keep to a limit, and is it really free of it afterwards?
topology: {use: single-switch, hosts: 2}
links: {mbps: 5, mtu: 1500, queue_packets: 50, ecn: {min_packets: 5, max_packets: 5}}
load: [{use: stride, step: 1}]
duration_s: 7
transport: {tcp: dctcp}
controller: {use: congestion, policy: ./lift.py}
"""
LIFT = '''
from fabric.policy import SetRate


class Lift:
    """A megabit for every flow, for three seconds."""

    def __init__(self):
        self.begun = None

    def decide(self, view):
        self.begun = view.t if self.begun is None and view.flows else self.begun
        wanted = 1.0 if self.begun is not None and view.t - self.begun < 3 else None
        return [SetRate(flow.key, wanted, "as the test wants it") for flow in view.flows if flow.limit_mbps != wanted]
'''


def run(fabriclab: Any, text: str) -> tuple[list[dict[str, Any]], list[Path]]:
    """The rows of a file, and the folders of its points, in order."""
    done, folder = fabriclab.run(text)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["refused"] for row in rows] == [None] * len(rows), rows
    return rows, sorted((folder / "points").iterdir())


def orders(point: Path) -> list[dict[str, Any]]:
    """What the agent did, and what it read back."""
    return [json.loads(line) for line in (point / "agent" / "agent.jsonl").read_text().splitlines()]


def sockets(point: Path, kind: str) -> list[dict[str, Any]]:
    """What the owners of sockets found there at the end."""
    records = map(json.loads, (point / "traffic" / "records.jsonl").read_text().splitlines())
    return [end for record in records if record["event"] == "sockets" for end in record["sockets"] if end["kind"] == kind]


def test_a_ring_that_goes_first_is_faster_than_one_that_does_not(fabriclab: Any) -> None:
    """Its packets and their acknowledgements carry the DSCP, nobody else's do; and it takes a fraction of the time."""
    rows, (waits, first) = run(fabriclab, RING)
    assert not (waits / "agent").exists() and rows[0]["levers"] is None
    assert [order["got"] for order in orders(first)] == [[46, 46]] * 4
    assert {end["dscp"] for end in sockets(first, "collective")} == {46} and len(sockets(first, "collective")) == 8
    assert {end["dscp"] for point in (waits, first) for end in sockets(point, "load")} == {0}
    assert (rows[1]["levers"], rows[1]["levers_refused"], rows[1]["correct"]) == (4, 0, True)
    in_force = [line for line in read_decisions(first / "controller") if line["event"] == "lever-in-force"]
    assert len(in_force) == 4
    if "FAIL" not in [row["fidelity"] for row in rows]:
        assert rows[1]["p50_ms"] < rows[0]["p50_ms"] / 1.5


def test_nothing_is_dropped_where_windows_fit_the_queue(fabriclab: Any) -> None:
    """Eight senders of 44 packets each into a queue of 30; unguarded, TCP would find its limit by loss."""
    (row,), (point,) = run(fabriclab, INCAST)
    assert [order["got"]["window_packets"] for order in orders(point)] == [3] * 8
    assert row["drops"] == 0 and row["correct"] is True
    (free,), _ = run(fabriclab, INCAST.replace("incast-guard", "priority"))
    assert free["drops"] > 0


def test_flows_keep_to_their_rates_and_queues_stay_short(fabriclab: Any) -> None:
    """Three into one link: a third of 95 % each, in the sockets as in the rates that were delivered."""
    (row,), (point,) = run(fabriclab, RATES)
    limits = [end["pacing_limit"] for end in sockets(point, "load") if end["role"] == "sender"]
    assert limits == pytest.approx([9.5e6 / 3 / 8 * 1448 / 1514] * 3, rel=1e-3)
    last = {line["order"]["flow"]["src_port"]: line["got"] for line in orders(point)}
    assert sorted(last.values()) == sorted(limits)
    assert row["levers"] >= 3 and row["levers_refused"] == 0
    if row["fidelity"] != "FAIL":
        assert row["load_jain"] > 0.99 and 0.85 < row["load_share_of_nb"] < 0.98  # all that there is, until the limits come
        assert row["queue_p50_packets"] <= 3


def test_a_load_keeps_to_its_own_rate_whatever_is_ordered(fabriclab: Any) -> None:
    """Its share would be 3.2 Mb/s, and it was told to send 2: an order takes away, and gives nothing."""
    (row,), (point,) = run(fabriclab, RATES.replace("senders: 3}", "senders: 3, mbps: 2}").replace("duration_s: 6", "duration_s: 3"))
    assert {end["pacing_limit"] for end in sockets(point, "load") if end["role"] == "sender"} == {250_000}
    assert row["levers"] >= 3 and not [reason for reason in row["fidelity_reasons"] if "did not have it" in reason]


@pytest.mark.parametrize("tcp", ["cubic", "dctcp"])
def test_a_limit_holds_and_is_lifted(fabriclab: Any, tmp_path: Path, tcp: str) -> None:
    """By what was acknowledged: a fifth of the link, then most of it; also where the congestion control sets a pace of its own."""
    policy = tmp_path / "lift.py"
    policy.write_text(LIFT)
    (row,), (point,) = run(fabriclab, LIFTED.replace("./lift.py", str(policy)).replace("tcp: dctcp", f"tcp: {tcp}"))
    given = orders(point)
    assert [line["got"] is None for line in given] == [False, False, True, True], given
    assert {end["pacing_limit"] for end in sockets(point, "load") if end["role"] == "sender"} == {None}
    limited, lifted = given[1]["t"], given[2]["t"]
    for one in read_sockets(point / "traffic" / FILE):
        acked = np.interp([limited + 0.5, lifted, lifted + 1.5, lifted + 3], one.t, one.acked_bytes) * 8e-6
        assert acked[1] - acked[0] < 1.1 * (lifted - limited - 0.5) + 0.1
        if row["fidelity"] != "FAIL":
            assert acked[3] - acked[2] > 1.5 * 2.5
    assert not [reason for reason in row["fidelity_reasons"] if "was limited" in reason]


def test_thresholds_change_while_traffic_runs(fabriclab: Any, tmp_path: Path) -> None:
    """Ordered, read back, and seen in the queue: it stands at ten packets, not at forty."""
    policy = tmp_path / "lower.py"
    policy.write_text(LOWER)
    (row,), (point,) = run(fabriclab, THRESHOLDS.replace("./lower.py", str(policy)))
    assert [order["got"] for order in orders(point)] == [[15140, 15140]] * 80
    assert row["marks"] > 0
    if row["fidelity"] != "FAIL":
        assert row["queue_p50_packets"] < 20


def test_jobs_by_their_own_clocks_are_moved_apart(fabriclab: Any) -> None:
    """In phase on one link at first; the shift is ordered, comes when it was said to, and sums stay right."""
    (row,), (point,) = run(fabriclab, JOBS)
    assert row["correct"] is True and row["iterations"] == 12 and row["compute_ms"] == 150
    (first, *_) = [one for one in orders(point) if one["order"]["do"] == "shift"]
    records = [json.loads(line) for line in (point / "traffic" / "records.jsonl").read_text().splitlines()]
    rounds = [record for record in records if record["event"] == "iteration" and record["job"] == first["order"]["job"]]
    assert rounds[first["got"]["iteration"]]["delayed_ms"] == pytest.approx(first["order"]["delay_ms"])
    assert not [reason for reason in row["fidelity_reasons"] if "was to begin" in reason]
    assert row["iteration_ms"] > 150 + row["p50_ms"] * 0.9
    assert not [record for record in records if record["event"] == "unheard"]
