"""Requests and answers: when they are due, that waiting counts from then, and what a row says of them."""

from __future__ import annotations

import json
import socket
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.answers import answered, describe_requests, least_ms
from fabric.asking import Asked, Asking, ask_and_answer, moments, responses
from fabric.experiment import askings, load_experiment
from fabric.recorded import Recorded
from fabric.workload import workload

ASKING = Asking("a", "b", 400, 8000, 50.0, True, "requests0/a", 1)
FILE = """
question: Why?
topology: {use: single-switch, hosts: 5}
links: {mbps: 10}
controller: {use: ecmp}
collective: {use: ring-allreduce, ranks: [h0, h1], nbytes: 4KiB}
requests:
  - {servers: [h4], clients: idle, rate_hz: 5, request: 4KiB, response: 64KiB, objective_ms: 100}
  - {servers: [h3, h4], arrivals: periodic, rate_hz: 0.5, request: 1MiB, response: 4}
"""


def test_poisson_and_periodic() -> None:
    """At the rate that was asked, independent pauses, the same for the same draw; periods are exact and everybody's."""
    times = list(islice(moments(ASKING), 4000))
    pauses = np.diff([0.0, *times])
    assert times[-1] == pytest.approx(4000 / 50, rel=0.06) and pauses.std() == pytest.approx(1 / 50, rel=0.1)
    assert times == list(islice(moments(ASKING), 4000))
    other = Asking("c", "b", 400, 8000, 50.0, True, "requests0/c", 1)
    assert times[:5] != list(islice(moments(other), 5))
    assert list(islice(moments(Asking("a", "b", 4, 4, 0.5, False, "x", 1)), 2)) == [2.0, 4.0]


def talk(asking: Asking, seconds: float, server: Any = None) -> Asked:
    """One client and one server over a socket pair, each with its own control."""
    ours, theirs = socket.socketpair()
    controls = [socket.socketpair() for _ in range(2)]
    for end in (ours, theirs):
        end.setblocking(False)
    begin = time.monotonic() + 0.05
    found: list[dict[int, Asked]] = []

    def stopped(which: int) -> bool:
        return bool(controls[which][0].recv(1))

    threads = [
        threading.Thread(target=lambda: found.append(ask_and_answer(
            {7: (ours, asking)}, {}, begin, begin + seconds, lambda: stopped(0), controls[0][0].fileno()))),
        threading.Thread(target=server or (lambda: ask_and_answer({}, {7: (theirs, asking)}, begin, None, lambda: stopped(1), controls[1][0].fileno()))),
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, begin + seconds + 0.2 - time.monotonic()))
    for _, far in controls:
        far.send(b"x")
    for thread in threads:
        thread.join(5)
    for end in (ours, theirs, *(end for pair in controls for end in pair)):
        end.close()
    return found[0][7]


def test_every_request_is_answered_once() -> None:
    """As many as were due, in order, and soon."""
    asked = talk(ASKING, 1.0)
    due = [moment for moment in islice(moments(ASKING), 200) if moment <= 1.0]
    assert asked.due_s == pytest.approx(due, abs=1e-5) and asked.unanswered_s == []
    assert all(0 < ms < 500 for ms in asked.took_ms)


def test_waiting_counts_from_when_it_was_due() -> None:
    """A server that says nothing for long: later requests wait behind the first one, and their times say so; the last stay unanswered."""
    asking = Asking("a", "b", 4, 4, 20.0, False, "x", 1)
    silent = talk(asking, 0.5, server=lambda: None)
    assert silent.due_s == [] and silent.unanswered_s == pytest.approx([0.05 * number for number in range(1, 11)], abs=1e-3)


def test_clients_take_servers_in_turn(tmp_path: Path) -> None:
    """Hosts without a rank, or all but the servers; ports come after the collective's."""
    file = tmp_path / "own.yaml"
    file.write_text(FILE)
    (point,) = load_experiment(file).points
    idle, every = askings(point)
    assert [(one.client, one.server) for one in idle] == [("h2", "h4"), ("h3", "h4")]
    assert [(one.client, one.server) for one in every] == [("h0", "h3"), ("h1", "h4"), ("h2", "h3")]
    assert {one.poisson for one in idle} == {True} and {one.poisson for one in every} == {False}
    assert describe_requests(point) == "poisson 5/s 4096+65536 B + periodic 0.5/s 1048576+4 B"
    work = workload(point)
    assert work.hosts_by_job["requests.1"] == ["h0", "h3", "h1", "h4", "h2"]
    ports = {ends.dst_port for ends in (*work.edges.values(), *work.asking_endpoints)}
    assert len(ports) == len(work.edges) + 5


def test_what_a_row_says(tmp_path: Path) -> None:
    """Of the requests that were due in the window; one without an answer has waited until the end."""
    file, traffic = tmp_path / "own.yaml", tmp_path / "traffic"
    file.write_text(FILE)
    (point,) = load_experiment(file).points
    work = workload(point)
    one = {"due_s": [0.5, 1.0, 1.5, 3.0], "took_ms": [10.0, 20.0, 200.0, 1.0], "unanswered_s": [1.8]}
    answers = {str(number): one if number == 0 else {"due_s": [], "took_ms": [], "unanswered_s": []} for number in range(5)}
    traffic.mkdir()
    lines = [{"t": 100.0, "event": "load", "begin": 100.0, "end": None}, {"t": 104.0, "event": "answers", "answers": answers}]
    (traffic / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = answered(point, work, Recorded(tmp_path), (100.9, 102.5), 0.1)
    assert found is not None
    assert found["requests.0"] == {"due": 3, "unanswered": 1, "p50_ms": 200.0, "p95_ms": 2000.0, "p99_ms": None, "in_time": round(1 / 3, 4)}
    assert found["requests.1"] == {"due": 0, "unanswered": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None}


SIZED = """
question: Why?
topology: {use: single-switch, hosts: 3}
links: {mbps: 10, mtu: 9000}
controller: {use: ecmp}
duration_s: 5
requests: [{servers: all, clients: [h0], load: 0.5, request: 1KiB, sizes: websearch, scale: 0.1}]
"""


def test_flows_are_told_by_size(tmp_path: Path) -> None:
    """Over what their bytes take by themselves: two latencies, and the time that they need at the payload rate."""
    file, traffic = tmp_path / "own.yaml", tmp_path / "traffic"
    file.write_text(SIZED)
    (point,) = load_experiment(file).points
    work = workload(point)
    assert describe_requests(point) == "poisson load 0.5 1024+websearch x 0.1 B"
    least = least_ms(point, 1024, np.array([500, 1_000_000]), 0.5)
    rate = 10 * (9000 - 52) / 9014
    assert least.tolist() == pytest.approx([1.0 + (nbytes + 1024) * 8 / 1000 / rate for nbytes in (500, 1_000_000)])
    quick = {"due_s": [0.5, 1.0], "took_ms": [2 * float(least[0]), float(least[1]) * 3], "unanswered_s": [], "nbytes": [500, 1_000_000], "unanswered_nbytes": []}
    lost = {"due_s": [], "took_ms": [], "unanswered_s": [2.0], "nbytes": [], "unanswered_nbytes": [600]}
    traffic.mkdir()
    lines = [{"t": 100.0, "event": "load", "begin": 100.0, "end": None}, {"t": 104.0, "event": "answers", "answers": {"0": quick, "1": lost}}]
    (traffic / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = answered(point, work, Recorded(tmp_path), (100.0, 105.0), 0.5)
    assert found is not None
    one = found["requests.0"]
    assert (one["due"], one["unanswered"]) == (3, 1)
    late = 2000 / (1.0 + 1624 * 8 / 1000 / rate)  # of 600 bytes, for which somebody has waited two seconds
    assert one["slowdown_mean"] == pytest.approx((2 + 3 + late) / 3, rel=1e-3)
    small, large = one["slowdowns"]
    assert (small["up_to"], small["due"], small["p50_slowdown"]) == (1000, 2, pytest.approx((2 + late) / 2, rel=1e-3))
    assert (large["up_to"], large["due"], large["p50_slowdown"], large["p99_slowdown"]) == (1_000_000, 1, pytest.approx(3.0), None)


def test_answers_of_drawn_sizes_come_whole() -> None:
    """Both ends draw alike, so that each answer ends where its size says."""
    asking = Asking("a", "b", 400, 0, 50.0, True, "requests0/a/b", 1, ((0, 0.0), (5000, 0.5), (200_000, 1.0)))
    asked = talk(asking, 1.0)
    assert asked.unanswered_s == [] and asked.nbytes == list(islice(responses(asking), len(asked.due_s)))
