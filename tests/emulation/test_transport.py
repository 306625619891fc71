"""Jobs and hosts with transports of their own on one fabric: what the kernel's own tools say of sockets and routes meanwhile."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from topologies.single_switch import single_switch

pytestmark = pytest.mark.emulation

EXPERIMENT = """
question: Does each job use its own transport?
topology: {use: single-switch, hosts: 4}
links: {mbps: 20, queue_packets: 100}
controller: {use: two-level}
collective: {use: ring-allreduce, ranks: [h0, h1], nbytes: 256KiB, iterations: 3, warmup: 1, transport: {tcp: reno, rto_min_ms: 20, cwnd_clamp: 8}}
load: [{use: stride, step: 2}]
transport: {tcp: cubic, hosts: {h3: {tcp: reno, initcwnd: 4}}}
"""


@pytest.fixture(scope="module")
def point(module_fabriclab: Any) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """The row, the network's record and the sockets of two jobs that ran beside each other."""
    done, folder = module_fabriclab.run(EXPERIMENT)
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    (path,) = (folder / "points").iterdir()
    records = [json.loads(line) for line in (path / "traffic" / "records.jsonl").read_text().splitlines()]
    sockets = [{**end, "who": one["who"]} for one in records if one["event"] == "sockets" for end in one["sockets"]]
    return row, json.loads((path / "network.json").read_text()), sockets


def test_every_socket_used_what_its_job_asked(point: Any) -> None:
    """The collective reno with a short timeout and a small window; the load cubic, but for the host that differs."""
    row, network, sockets = point
    assert row["refused"] is None
    assert row["transport"] == "h3: tcp=reno initcwnd=4; collective: tcp=reno rto_min_ms=20 cwnd_clamp=8"
    assert row["tcp_by"] == "cubic: kernel, reno: kernel"
    collective = [end for end in sockets if end["kind"] == "collective"]
    load = [end for end in sockets if end["kind"] == "load"]
    assert {end["tcp"] for end in collective} == {"reno"} and len(collective) == 4
    assert {(end["who"], end["tcp"]) for end in load} == {
        ("the load on h0", "cubic"), ("the load on h1", "cubic"), ("the load on h2", "cubic"), ("the load on h3", "reno"),
    }  # fmt: skip
    assert max(end["cwnd"] for end in collective if end["role"] == "sender") <= 8 < max(end["cwnd"] for end in load)
    assert all(end["rto_ms"] >= 200 for end in load) and min(end["rto_ms"] for end in collective) < 200
    assert network["transport"]["jobs"]["collective"]["mark"] == 1 and network["transport"]["routes_differ"] == []
    assert network["host_sysctls"]["h3"]["net.ipv4.tcp_congestion_control"] == "reno"


def shell(command: str) -> str:
    """What a command prints; it succeeds."""
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout


def test_routes_are_what_the_tools_say_and_tampering_is_noticed(bring_up: Any) -> None:
    """By ip: the main table, the job's table and the rule; each changed by hand is found, and named."""
    from fabric.links import Shape
    from fabric.routes import Metrics

    with bring_up(single_switch(2), Shape(20, 1500, 50)) as net:
        net.set_routes({"h0": {0: Metrics(50, 4), 1: Metrics(20, None, 8, 1001, 1)}, "h1": {0: Metrics(200)}})
        with net.inside("h0"):
            assert re.search(r"10\.0\.0\.0/8 .* initcwnd 4 rto_min lock 50ms", shell("ip route show table main"))
            assert re.search(r"10\.0\.0\.0/8 .* cwnd lock 8 rto_min lock 20ms", shell("ip route show table 1001"))
            assert re.search(r"1001:\s+from all fwmark 0x1 lookup 1001", shell("ip rule"))
        assert net.routes_differ() == []
        with net.inside("h0"):
            shell("ip route replace 10.0.0.0/8 dev h0-eth0 proto kernel scope link src 10.0.0.2 table 1001 rto_min 30ms && ip rule del fwmark 1")
        assert net.routes_differ() == [
            "h0: the route in table 1001: asked for lock=8320 rto_min=20 cwnd=8, it says lock=8192 rto_min=30",
            "h0: packets with mark 1 take table None instead of 1001",
        ]
