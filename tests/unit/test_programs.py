"""What a program in a rank's host is told, and which of its ends make a row that says nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fabric.experiment import load_experiment
from fabric.programs import Programs, environment, output
from fabric.recorded import Recorded
from fabric.refusals import program_failed, reported
from fabric.results import Row
from fabric.workload import workload

PLAN = Programs(
    "./bench", ["h1", "h0"], ["10.0.0.2", "10.0.0.1"], ["h1-eth0", "h0-eth0"], {"h0": "10.0.0.1", "h1": "10.0.0.2"}, "/somewhere", "/elsewhere", 60.0, [5001]
)
FILE = """
question: Why?
topology: {use: single-switch, hosts: 3}
links: {mbps: 10}
controller: {use: ecmp}
workload: {use: command, command: ./bench, ranks: 2, timeout_s: 7}
transport: {hosts: {h1: {tcp: reno}}}
"""
WELL: dict[str, Any] = {"started": 1.0, "ended": 2.0, "code": 0, "words": "", "tcps": ["cubic"]}


def test_ranks_are_told_apart() -> None:
    """Who they are, who the first one is, and by which interface they reach the others; python3 is fabriclab's own."""
    told = environment(PLAN, 1)
    assert (told["RANK"], told["WORLD_SIZE"], told["MASTER_ADDR"]) == ("1", "2", "10.0.0.2")
    assert {told["GLOO_SOCKET_IFNAME"], told["NCCL_SOCKET_IFNAME"], told["FABRICLAB_INTERFACE"]} == {"h0-eth0"}
    assert (told["FABRICLAB_HOST"], told["FABRICLAB_ADDRESS"], told["FABRICLAB_ADDRESSES"]) == ("h0", "10.0.0.1", "10.0.0.2,10.0.0.1")
    assert told["FABRICLAB_REPORT"] == "/elsewhere/rank-001.json"
    assert told["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert Programs(**json.loads(json.dumps(PLAN.to_json()))) == PLAN


def test_its_ranks_are_placed_like_a_collective_s(tmp_path: Path) -> None:
    """And it has no schedules, edges or ideal."""
    file = tmp_path / "own.yaml"
    file.write_text(FILE.replace("ranks: 2", "ranks: all, placement: random"))
    (point,) = load_experiment(file).points
    work = workload(point)
    assert sorted(work.programs) == ["h0", "h1", "h2"] and not work.ranks and not work.schedules and not work.edges
    assert work.to_json()["placement"] == list(work.programs)


@pytest.mark.parametrize(
    ("ranks", "nic_bytes", "said"),
    [
        ([WELL, {**WELL, "tcps": ["reno"]}], 1000, None),
        ([WELL, {**WELL, "code": 2, "words": "no such file"}], 1000, "rank 1 on h1 ended with code 2: no such file; see programs/rank-001.err"),
        ([{**WELL, "code": 143, "ended": 2.5}, {**WELL, "code": 1}], 1000, "rank 1 on h1 ended with code 1: it printed no error; see programs/rank-001.err"),
        ([{**WELL, "code": 143}, WELL], 1000, "rank 0 on h0 ended with code 143 (signal 15): it printed no error; see programs/rank-000.err"),
        ([WELL, {**WELL, "code": None, "words": "waiting"}], 1000, "rank 1 on h1 still ran after 7 s: waiting; see programs/rank-001.err"),
        ([{**WELL, "code": None}, {**WELL, "code": None}], 1000, "rank 0 on h0, 1 on h1 still ran after 7 s: it printed no error; see programs/rank-000.err"),
        ([WELL, WELL], 1000, "rank 1 on h1 used cubic, asked for reno"),
        ([WELL, {**WELL, "tcps": []}], 0, "the program put no bytes on the NICs of its hosts: have it use the interface in FABRICLAB_INTERFACE, and neither "
         "loopback nor shared memory"),
    ],
)  # fmt: skip
def test_what_says_nothing_is_refused(tmp_path: Path, ranks: list[dict[str, Any]], nic_bytes: int, said: str | None) -> None:
    """The first rank to fail is named, and not those which failed for want of it."""
    file, traffic = tmp_path / "own.yaml", tmp_path / "traffic"
    file.write_text(FILE)
    (point,) = load_experiment(file).points
    traffic.mkdir()
    (traffic / "records.jsonl").write_text(json.dumps({"t": 0, "event": "programs", "begin": 1.0, "end": 2.5, "ranks": ranks}) + "\n")
    (tmp_path / "network.json").write_text("{}")
    row = Row(variant="ecmp", topology="single-switch", controller="ecmp", tcp="cubic", mtu=1500, mbps=10.0, repeat=1, seed=1, datapath="netdev", point="000",
              nic_bytes=nic_bytes)  # fmt: skip
    assert program_failed(point, workload(point), Recorded(tmp_path), row) == said


@pytest.mark.parametrize("others", ["load: [{use: elephants, pairs: 1}]", "requests: [{clients: [h0], servers: [h1], rate_hz: 5, request: 64, response: 64}]",
                                    "telemetry: {probes: {pairs: [[h0, h1]]}}"])  # fmt: skip
def test_others_bytes_are_not_the_program_s(tmp_path: Path, others: str) -> None:
    """Where anybody else uses the same NICs, what counts is that the program had connections over them."""
    file, traffic = tmp_path / "own.yaml", tmp_path / "traffic"
    file.write_text(FILE + others + "\n")
    (point,) = load_experiment(file).points
    traffic.mkdir()
    row = Row(variant="ecmp", topology="single-switch", controller="ecmp", tcp="cubic", mtu=1500, mbps=10.0, repeat=1, seed=1, datapath="netdev", point="000",
              nic_bytes=1000)  # fmt: skip
    (tmp_path / "network.json").write_text("{}")
    said = []
    for second in (WELL, {**WELL, "tcps": []}), ({**WELL, "tcps": []}, {**WELL, "tcps": []}):
        ranks = [{**one, "tcps": one["tcps"] and [("cubic", "reno")[rank]]} for rank, one in enumerate(second)]
        (traffic / "records.jsonl").write_text(json.dumps({"t": 0, "event": "programs", "begin": 1.0, "end": 2.5, "ranks": ranks}) + "\n")
        said.append(program_failed(point, workload(point), Recorded(tmp_path), row))
    assert said[0] is None and said[1] is not None and "put no bytes" in said[1]


@pytest.mark.parametrize(("text", "found"), [('{"ms": 3.5}', {"ms": 3.5}), ("[1]", None), ("{", None), (None, None)])
def test_a_report_is_an_object(tmp_path: Path, text: str | None, found: dict[str, Any] | None) -> None:
    """Anything else is none."""
    file = output(tmp_path / "programs", 0, "json")
    file.parent.mkdir()
    if text is not None:
        file.write_text(text)
    assert reported(Recorded(tmp_path)) == found
