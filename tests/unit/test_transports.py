"""Whose transport is in force: run, host or job; what a row says of it; and that each socket is judged by its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from fabric.clamps import Clamp, clamps_of
from fabric.emulation import routes_of
from fabric.endpoints import Provided
from fabric.errors import RequestError
from fabric.experiment import Point, load_experiment
from fabric.keys import Sockets, Transport
from fabric.recorded import Recorded
from fabric.refusals import sockets_differ
from fabric.routes import MAIN, Metrics
from fabric.transports import Settings, describe_transport, jobs, refuse_unmarked, settings, transport_record
from fabric.workload import workload

EXPERIMENT = """
question: Who uses what?
topology: {{use: single-switch, hosts: 4}}
links: {{mbps: 20{ecn}}}
controller: {{use: two-level}}
collective: {{use: ring-allreduce, ranks: [h0, h1], nbytes: 4KiB, transport: {{tcp: reno, rto_min_ms: 20}}}}
load: [{{use: stride, step: 1}}, {{use: incast, senders: 1, transport: {{tcp: bbr}}}}]
transport: {transport}
"""
RUN = Transport(tcp="cubic", rto_min_ms=100, cwnd_clamp=50, hosts={"h0": Sockets(tcp="vegas", rto_min_ms=50, initcwnd=4)})


def point(tmp_path: Path, transport: str = "{}", ecn: str = "") -> Point:
    """The only point of the experiment."""
    file = tmp_path / "jobs.yaml"
    file.write_text(EXPERIMENT.format(transport=transport, ecn=ecn))
    (found,) = load_experiment(file).points
    return found


@pytest.mark.parametrize(
    ("host", "job", "expected"),
    [
        ("h1", None, Settings("cubic", 100, None, 50)),
        ("h0", None, Settings("vegas", 50, 4, 50)),
        ("h1", Sockets(rto_min_ms=5), Settings("cubic", 5, None, 50)),
        ("h0", Sockets(tcp="reno", initcwnd=2), Settings("reno", 50, 2, 50)),
        ("h0", Sockets(), Settings("vegas", 50, 4, 50)),
    ],
)
def test_the_job_goes_before_the_host_and_that_before_the_run(host: str, job: Sockets | None, expected: Settings) -> None:
    """Key by key: what is not given is taken from farther away."""
    assert settings(RUN, host, job) == expected


def test_a_job_has_routes_of_its_own_only_for_what_routes_carry(tmp_path: Path) -> None:
    """A congestion control alone is a matter of sockets: that job takes the hosts' routes."""
    assert [(job.name, job.mark) for job in jobs(point(tmp_path))] == [("collective", 1), ("load.0", 0), ("load.1", 0)]


def test_routes_are_where_the_jobs_flows_are(tmp_path: Path) -> None:
    """Every host has its own; the collective's two ranks one more, which keeps what the host has of its own."""
    asked = point(tmp_path, "{hosts: {h0: {initcwnd: 4, rto_min_ms: 50}}}")
    routes = routes_of(asked, workload(asked))
    assert routes["h0"] == {0: Metrics(50, 4), 1: Metrics(20, 4, table=1001, mark=1)}
    assert routes["h1"] == {0: Metrics(200), 1: Metrics(20, table=1001, mark=1)}
    assert routes["h2"] == routes["h3"] == {0: Metrics(200)}
    assert routes["h2"][0].table == MAIN


def test_only_locked_metrics_are_heeded() -> None:
    """The timeout and the largest window need the lock, which names just those that are there."""
    assert Metrics(20).asked() == {"lock": 1 << 13, "rto_min": 20}
    assert Metrics(20, 4, 8).asked() == {"lock": 1 << 13 | 1 << 7, "rto_min": 20, "initcwnd": 4, "cwnd": 8}


def test_what_differs_from_the_default_is_told(tmp_path: Path) -> None:
    """By the row key `transport`: the run's metrics, then hosts and jobs by their names."""
    asked = point(tmp_path, "{rto_min_ms: 50, hosts: {h2: {cwnd_clamp: 8}}}")
    assert describe_transport(asked) == "rto_min_ms=50; h2: cwnd_clamp=8; collective: tcp=reno rto_min_ms=20; load.1: tcp=bbr"


def ends(asked: Point, **changes: Any) -> list[dict[str, Any]]:
    """What sound sockets of all jobs report; `changes` are made to those of load 1."""
    work = workload(asked)
    names = {"collective": "reno", 0: "cubic", 1: "bbr"}
    whose = [*(("collective", one) for one in work.edges.values()), *zip(work.flow_loads, work.flow_endpoints, strict=True)]
    return [
        {"dst_port": one.dst_port, "role": role, "tcp": names[job], "rto_ms": 204.0 if job != "collective" else 24.0, "cwnd": 8,
         **(changes if job == 1 else {})}
        for job, one in whose for role in ("sender", "receiver")
    ]  # fmt: skip


def judged(asked: Point, sockets: list[dict[str, Any]]) -> str | None:
    """Why these sockets are refused."""
    network: Mapping[str, Any] = {"tcp": {"asked": "cubic", "name": "cubic", "by": "kernel"}}
    seen = type("Seen", (), {"sockets": sockets, "network": network, "orders": []})()
    return sockets_differ(asked, workload(asked), cast(Recorded, seen))


def test_each_socket_is_judged_by_what_its_job_was_asked(tmp_path: Path) -> None:
    """A sound record passes; the run's cubic on a socket of the load with bbr does not, nor a timeout or window out of bounds."""
    asked = point(tmp_path, "{cwnd_clamp: 8}")
    assert judged(asked, ends(asked)) is None
    flow = next(flow for flow, load in zip(workload(asked).flows, workload(asked).flow_loads, strict=True) if load == 1)
    assert judged(asked, ends(asked, tcp="cubic")) == f"sockets of load.1 on {flow.src} used cubic, asked for bbr"
    assert judged(asked, ends(asked, rto_ms=24.0)) == f"sockets of load.1 on {flow.src} had a timeout of 24 ms, asked for at least 200"
    assert judged(asked, ends(asked, cwnd=9)) == f"sockets of load.1 on {flow.src} had a window of 9 packets, asked for at most 8"


OWN = Provided("./own.bpf.c", "own", "file", "own.o", "00", needs_ecn=True)


@pytest.mark.parametrize(
    ("transport", "ecn", "reason"),
    [
        ("{tcp: ./own.bpf.c}", "", "transport.tcp: got './own.bpf.c'; accepted: queues that mark, as it needs ECN (TCP_CONG_NEEDS_ECN)"),
        ("{hosts: {h2: {tcp: ./own.bpf.c}}}", ", ecn: {min_packets: 5, max_packets: 5}",
         "transport.hosts.h2: got './own.bpf.c'; accepted: one and the same at both ends where marks are needed: h2 exchanges data with h1"),
    ],
)  # fmt: skip
def test_a_file_that_turns_out_to_need_marks_gets_them_or_is_refused(tmp_path: Path, transport: str, ecn: str, reason: str) -> None:
    """Only when it is compiled does it say so: before anything is started."""
    (tmp_path / "own.bpf.c").write_text("")
    asked = point(tmp_path, transport, ecn)
    tcps = {name: Provided(name, name, "kernel") for name in ("cubic", "reno", "bbr")} | {OWN.asked: OWN}
    with pytest.raises(RequestError) as caught:
        refuse_unmarked([asked], [workload(asked)], tcps)
    assert str(caught.value).startswith(reason)


def test_the_record_says_what_each_job_used(tmp_path: Path) -> None:
    """By host, resolved, with who provides it."""
    asked = point(tmp_path, "{hosts: {h0: {initcwnd: 4}}}")
    tcps = {name: Provided(name, name, "kernel") for name in ("cubic", "reno", "bbr")}
    record = transport_record(asked, workload(asked), tcps, [])
    assert record["jobs"]["collective"] == {
        "mark": 1,
        "hosts": {
            "h0": {"tcp": "reno", "rto_min_ms": 20, "initcwnd": 4, "cwnd_clamp": None},
            "h1": {"tcp": "reno", "rto_min_ms": 20, "initcwnd": None, "cwnd_clamp": None},
        },
    }
    assert {name: one["by"] for name, one in record["provided"].items()} == dict.fromkeys(tcps, "kernel")


def test_two_jobs_between_the_same_hosts_have_one_clamp(tmp_path: Path) -> None:
    """TCP remembers it by addresses: a load from h0 to h1 beside the collective's connection there has to agree."""
    fine = point(tmp_path, "{cwnd_clamp: 8}")
    clamps = clamps_of(fine, workload(fine))
    assert clamps["h0", "h1"] == Clamp(8, 1) and clamps["h2", "h3"] == Clamp(8, 0)
    file = tmp_path / "jobs.yaml"
    file.write_text(file.read_text().replace("rto_min_ms: 20", "cwnd_clamp: 4"))
    (bad,) = load_experiment(file).points
    with pytest.raises(RequestError) as caught:
        clamps_of(bad, workload(bad))
    assert str(caught.value) == (
        "load.0.transport.cwnd_clamp: got 8; accepted: the same as collective, which also sends from h0 to h1, has 4: TCP keeps one "
        "for a pair of hosts; give both the same, or other hosts"
    )
