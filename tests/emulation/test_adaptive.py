"""Adaptive routing on a real network: flows are found by what the fabric says, placed without a collision, and kept alive."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from fabric.decisions import read_decisions

pytestmark = pytest.mark.emulation

PERMUTATION = """
question: Is every collision found and mended?
topology: {use: fat-tree, k: 4}
links: {mbps: 5, mtu: 9000, queue_packets: 50}
load: [{use: permutation}]
controller: {use: adaptive, poll_ms: 100}
duration_s: 6
seed: 2
"""
HINTED = """
question: Is a collective placed before its first byte?
topology: {use: fat-tree, k: 4}
links: {mbps: 5, mtu: 9000, queue_packets: 50}
collective: {use: ring-allreduce, placement: random, nbytes: 64KiB, iterations: 3, warmup: 0, hints: true}
controller: {use: adaptive, poll_ms: 2000}
seed: 2
"""
FAILURE = """
question: Do the switches alone keep an all-reduce going over a dead link?
topology: {use: fat-tree, k: 4}
links: {mbps: 5, mtu: 9000, queue_packets: 50}
collective: {use: ring-allreduce, placement: random, nbytes: 256KiB, iterations: 6, warmup: 0}
controller: {use: adaptive}
events:
  - {at_s: 1, controller: true, do: down}
  - {at_s: 2, link: [p0a0, g0c0], do: down}
seed: 2
"""


@dataclass(frozen=True)
class Ran:
    """A run of one point that has ended."""

    row: dict[str, Any]
    point: Path

    @cached_property
    def decisions(self) -> list[dict[str, Any]]:
        """The controller's log."""
        return read_decisions(self.point / "controller")

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The traffic's record lines."""
        return [json.loads(line) for line in (self.point / "traffic" / "records.jsonl").read_text().splitlines()]

    def paths(self, name: str) -> list[list[str]]:
        """The installed path of every connection, by when it was asked for."""
        data = json.loads((self.point / name).read_text())
        return [*(edge[3] for edge in data["edges"]), *data["flows"]]


def run(module_fabriclab: Any, text: str) -> Ran:
    """Run a file of one point."""
    done, folder = module_fabriclab.run(text)
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    (point,) = (folder / "points").iterdir()
    assert row["refused"] is None, row["refused"]
    return Ran(row, point)


def crowded(paths: list[list[str]]) -> int:
    """How many directions of links between switches carry more than one of the paths."""
    load = Counter(name for path in paths for name in path[1:-1])
    return sum(1 for count in load.values() if count > 1)


def after_moves(ran: Ran, moves: list[dict[str, Any]]) -> list[list[str]]:
    """The installed paths of the collective's connections once these moves have been made."""
    ends = [edge[3] for edge in json.loads((ran.point / "point.json").read_text())["edges"]]
    names = [f"{end['src_ip']}:{end['src_port']}>{end['dst_ip']}:{end['dst_port']}" for end in ends]
    moved = {line["flow"]: line["new"] for line in moves}
    assert moved.keys() <= set(names)
    return [moved.get(name, path) for name, path in zip(names, ran.paths("installed.json"), strict=True)]


@pytest.fixture(scope="module")
def permutation(module_fabriclab: Any) -> Ran:
    """Sixteen flows, each host sending to one and receiving from one."""
    return run(module_fabriclab, PERMUTATION)


@pytest.fixture(scope="module")
def hinted(module_fabriclab: Any) -> Ran:
    """A ring that announces itself, to a loop far too slow to find it in time."""
    return run(module_fabriclab, HINTED)


@pytest.fixture(scope="module")
def failure(module_fabriclab: Any) -> Ran:
    """A ring that loses the controller, then a link."""
    return run(module_fabriclab, FAILURE)


def test_hashed_flows_collide_and_end_on_links_of_their_own(permutation: Ran) -> None:
    """By the rules that the switches had before, and those that they have after: every permutation fits a fat-tree."""
    assert crowded(permutation.paths("installed.json")) > 0
    assert crowded(permutation.paths("installed_after.json")) == 0
    assert permutation.row["load_share_predicted"] == pytest.approx(1.0)


def test_the_log_says_what_the_switches_have(permutation: Ran) -> None:
    """Each flow is where its last move in the log put it, and moved no more than it had to."""
    moves = [line for line in permutation.decisions if line["event"] == "reroute"]
    flows = json.loads((permutation.point / "point.json").read_text())["flows"]
    ends = [flow["endpoints"] for flow in flows]
    names = [f"{end['src_ip']}:{end['src_port']}>{end['dst_ip']}:{end['dst_port']}" for end in ends]
    after = dict(zip(names, permutation.paths("installed_after.json"), strict=True))
    assert moves
    for flow, new in {line["flow"]: line["new"] for line in moves}.items():
        assert after[flow] == new
    assert len(moves) <= 1.5 * len(flows)
    assert any(line["event"] == "in-force" for line in permutation.decisions)


def test_flows_were_found_by_their_syns(permutation: Ran) -> None:
    """All sixteen, in the direction that opened them."""
    seen = [line for line in permutation.decisions if line["event"] == "flow" and line["signal"] == "syn"]
    assert len(seen) == 16


def test_the_controller_was_told_nothing_of_the_load(permutation: Ran) -> None:
    """Its folder has the topology, its own parameters, and what it wrote itself."""
    given = {"topology.json", "controller.json"}
    own = {"listening", "ready", "ports.jsonl", "decisions.jsonl", "manager.log"}
    assert {path.name for path in (permutation.point / "controller").iterdir()} == given | own
    setup = json.loads((permutation.point / "controller" / "controller.json").read_text())
    assert "permutation" not in json.dumps(setup) and setup["hints"] is None


def test_an_announced_collective_is_placed_before_its_first_byte(hinted: Ran) -> None:
    """The answer to the hint comes before the first release; by then no two of its flows share a link."""
    (hint,) = [record for record in hinted.records if record["event"] == "hints"]
    first = min(record["release"] for record in hinted.records if record["event"] == "iteration")
    moves = [line for line in hinted.decisions if line["event"] == "reroute"]
    # The loop may turn by itself between SYNs and hint, and long after it, where the machine stands still and a link looks slow.
    before = [line for line in moves if line["t"] < first]
    assert hint["placed"] == hint["flows"] == 16
    assert [line for line in before if line["signal"] == "hint"] and all(line in before for line in moves if line["signal"] == "hint")
    assert crowded(hinted.paths("installed.json")) > 0
    assert crowded(after_moves(hinted, before)) == 0
    assert hinted.row["hints"] is True and hinted.row["correct"] is True


def test_an_all_reduce_survives_the_controller_and_a_link(failure: Ran) -> None:
    """Every sum is right, and the probes on the dead link's way arrive again, by the switches' own repair."""
    assert failure.row["correct"] is True and failure.row["wrong"] == 0
    assert failure.row["recovery_complete"] is True
    measured = [json.loads(line) for line in (failure.point / "recovery.jsonl").read_text().splitlines()]
    assert [line["out"] for line in measured] == ["p0a0-eth3", "g0c0-eth1"]
    for line in measured:
        assert line["reason"] is None and line["out"] in line["path"]
        assert line["loss"]["lost"] < line["loss"]["sent"] / 2


def test_nothing_was_decided_after_the_controller_died(failure: Ran) -> None:
    """What kept the collective alive was no controller."""
    died = next(json.loads(line)["begin"] for line in (failure.point / "events.jsonl").read_text().splitlines())
    assert all(line["t"] <= died + 0.1 for line in failure.decisions)
