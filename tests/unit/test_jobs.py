"""Several jobs in one file: who is where, what is refused, what goes over the wire, and what they had to do with each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fabric.errors import RequestError
from fabric.experiment import Point, load_experiment, placements
from fabric.placing import place, spread
from fabric.sharing import communicating, exposed_ms, shared, shared_ms
from fabric.tracks import Stream, Tracks
from fabric.traffic import Timing, TrafficPart
from fabric.transports import jobs as owners
from fabric.workload import workload
from topologies.fat_tree import fat_tree
from topologies.rails import rail_optimized

FILE = """question: Why?
topology: {{use: fat-tree, k: 4}}
links: {{mbps: 10}}
controller: {{use: ecmp}}
jobs:
  - {{use: ring-allreduce, {first}}}
  - {{name: moe, use: all-to-all, {second}}}
{more}
"""


def points_of(tmp_path: Path, first: str = "nbytes: 64KiB, ranks: 8", second: str = "nbytes: 64KiB, ranks: 4", more: str = "") -> tuple[Point, ...]:
    """The points of a file with two jobs."""
    file = tmp_path / "own.yaml"
    file.write_text(FILE.format(first=first, second=second, more=more))
    return load_experiment(file).points


def test_striped_takes_a_host_of_each_switch_in_turn() -> None:
    """And a NIC of each server, where hosts are those."""
    hosts = [host.name for host in fat_tree(4).hosts]
    assert spread(fat_tree(4), hosts)[:9] == [*(f"p{pod}e{edge}h0" for pod in range(4) for edge in range(2)), "p0e0h1"]
    rails = rail_optimized(servers=3, rails=2)
    machines = [rails.host_by_name[name].machine for name in spread(rails, [host.name for host in rails.hosts])]
    assert len(set(machines[:3])) == 3 and machines[:3] == machines[3:]


def test_no_host_is_in_two_jobs() -> None:
    """Lists come first, wherever they stand; the others take what is left, in order or at random."""
    fabric = fat_tree(4)
    asked: Any = {"a": (4, "ranked"), "b": (("p0e0h0", "p3e1h1"), "ranked"), "c": (4, "random"), "d": ("all", "striped")}
    found = place(asked, fabric, 1, {"c": "placement/2"})
    assert found["a"] == ["p0e0h1", "p0e1h0", "p0e1h1", "p1e0h0"] and found["b"] == ["p0e0h0", "p3e1h1"]
    every = [host for hosts in found.values() for host in hosts]
    assert sorted(every) == sorted(fabric.host_by_name) and len(found["d"]) == 6
    assert place(asked, fabric, 2, {"c": "placement/2"})["c"] != found["c"]


def test_ranks_are_numbered_through_and_schedules_are_a_job_s_own(tmp_path: Path) -> None:
    """Every connection has ends of its own; a job's bucket is a piece of its bytes."""
    (point,) = points_of(tmp_path, first="nbytes: 64KiB, ranks: 8, backward_ms: 100, buckets: 4")
    work = workload(point)
    assert [(part.name, part.first, len(part.ranks), part.pieces) for part in work.parts] == [("job.0", 0, 8, 4), ("moe", 8, 4, 1)]
    assert [schedule.nbytes for schedule in work.schedules] == [16384, 65536]
    assert {edge[:2] for edge in work.edges if edge[0] < 8} == {(rank, (rank + 1) % 8) for rank in range(8)}
    assert all(work.part_of(edge).name == "moe" and edge[1] >= 8 for edge in work.edges if edge[0] >= 8)
    assert len({ends.dst_port for ends in work.edges.values()}) == len(work.edges)
    assert work.ranks == tuple(host for hosts in placements(point).values() for host in hosts) and len(set(work.ranks)) == 12
    assert [job.name for job in owners(point)] == ["job.0", "moe"] and list(work.hosts_by_job) == ["job.0", "moe"]
    part = TrafficPart("moe", 8, 4, list(work.parts[1].schedules), "float32", 5, 1, True, timing=Timing(0.0))
    assert TrafficPart.from_json(json.loads(json.dumps(part.to_json()))) == part


def test_a_job_s_transport_is_its_own(tmp_path: Path) -> None:
    """As that of a load is."""
    (point,) = points_of(tmp_path, second="nbytes: 64KiB, ranks: 4, transport: {tcp: reno, initcwnd: 4}")
    assert [(job.name, job.transport and job.transport.tcp, job.mark) for job in owners(point)] == [("job.0", None, 0), ("moe", "reno", 2)]


@pytest.mark.parametrize(
    ("first", "second", "more", "said"),
    [
        ("nbytes: 64KiB, ranks: 8, name: moe", "nbytes: 4KiB, ranks: 2", "", "jobs.1.name: got 'moe'; accepted: each name once"),
        ("nbytes: [4KiB, 8KiB], ranks: 8", "nbytes: 4KiB, ranks: 2", "", "jobs.0.nbytes: got [4096, 8192]; accepted: one size, as jobs go by their own clocks"),
        ("nbytes: 64KiB, buckets: 3, backward_ms: 9, ranks: 8", "nbytes: 4KiB, ranks: 2", "", "write e.g. nbytes: 65544"),
        ("nbytes: 64KiB, buckets: 2, ranks: 8", "nbytes: 4KiB, ranks: 2", "", "jobs.0.buckets: got 2; accepted: 1 without backward_ms"),
        ("nbytes: 64KiB, stagger_ms: 2, ranks: 8", "nbytes: 4KiB, ranks: 2", "", "jobs.0.stagger_ms: got 2; accepted: none in a job; write start_s"),
        ("nbytes: 64KiB, ranks: 10", "nbytes: 4KiB, ranks: 8", "", "jobs.1.ranks: got 8; accepted: 2 to 6, the hosts that the other jobs leave"),
        ("nbytes: 64KiB", "nbytes: 4KiB", "", "jobs.1.ranks: got all; accepted: jobs that leave two hosts or more, and the others leave 0"),
        ("nbytes: 64KiB, ranks: [p0e0h0, p0e0h1]", "nbytes: 4KiB, ranks: [p1e0h0, p0e0h1]", "", "jobs.1.ranks: got 'p0e0h1'; accepted: hosts of no other job"),
        ("nbytes: 64KiB, ranks: [p0e0h0, h9]", "nbytes: 4KiB", "", "jobs.0.ranks: got 'h9'; accepted: hosts of this topology"),
        ("nbytes: 64KiB, ranks: 8, groups: 2", "nbytes: 4KiB", "", "jobs.0.groups: got 2; accepted: 1 in a job; write a job for each"),
        ("nbytes: 64KiB, ranks: 8", "nbytes: 4KiB", "duration_s: 3", "duration_s: got 3; accepted: none beside jobs"),
        ("nbytes: 64KiB, ranks: 8", "nbytes: 4KiB", "collective: {use: barrier, nbytes: 4}", "collective: got 'barrier'; accepted: none beside jobs"),
        ("nbytes: 64KiB, ranks: 8", "nbytes: 4KiB", "telemetry: {steps: true}", "telemetry.steps: got true; accepted: false without a collective"),
        ("nbytes: 64KiB, ranks: 8, hints: true", "nbytes: 4KiB", "", "jobs.0.hints: got true; accepted: false, as ecmp takes no hints"),
        ("nbytes: 64KiB, ranks: 8, name: 4you", "nbytes: 4KiB", "", "jobs.0.name: got '4you'; accepted: up to 30 letters"),
        ("nbytes: 64KiB, bucket: 8", "nbytes: 4KiB", "", "jobs.0.bucket: got an unknown key"),
    ],
)  # fmt: skip
def test_what_jobs_cannot_be_is_told(tmp_path: Path, first: str, second: str, more: str, said: str) -> None:
    """In one line, with the key path, what is accepted and what to do."""
    with pytest.raises(RequestError) as caught:
        points_of(tmp_path, first, second, more)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_collective_nobody_waits_in_is_no_job(tmp_path: Path) -> None:
    """Its ranks would run away from each other."""
    with pytest.raises(RequestError, match=r"whose ranks do not wait for each other; accepted: in a job one where they do"):
        points_of(tmp_path, first="nbytes: 4KiB, ranks: 2}\n  - {use: incast, nbytes: 4KiB, ranks: 4")


RECORDS: list[dict[str, Any]] = [
    {"job": "a", "iteration": -1, "begun": 0.0, "release": 0.0, "ends_ms": [900.0, 1000.0]},
    {"job": "a", "iteration": 0, "begun": 1.9, "release": 2.0, "ends_ms": [900.0, 1000.0]},
    {"job": "a", "iteration": 0, "begun": 1.9, "release": 3.0, "ends_ms": [500.0, 400.0]},
    {"job": "a", "iteration": 1, "begun": 3.9, "release": 4.0, "ends_ms": [50.0, 100.0]},
    {"job": "b", "iteration": -1, "begun": 0.5, "release": 0.5, "ends_ms": [2000.0, 100.0]},
    {"job": "b", "iteration": 0, "begun": 3.2, "release": 3.2, "ends_ms": [850.0, 100.0]},
]


def test_what_the_backward_pass_does_not_hide_is_exposed() -> None:
    """From its end to the end of the last bucket, the mean over iterations."""
    mine = [record for record in RECORDS if record["job"] == "a" and record["iteration"] >= 0]
    assert exposed_ms(mine, 1000.0) == pytest.approx((600 + 0) / 2)
    assert exposed_ms(mine, 0.0) == pytest.approx((1600 + 200) / 2)


def _tracks(paths: dict[str, list[tuple[float, list[str]]]]) -> tuple[Tracks, dict[str, list[Stream]]]:
    """Streams whose path changes at moments."""
    streams = {name: Stream(name, "h0", "h1", name, (0, 1, 0)) for name in paths}

    def path(stream: Stream, t: float) -> list[str]:
        return [where for since, where in paths[stream.name] if since <= t][-1]

    reroutes = {name: [{"t": since} for since, _ in found[1:]] for name, found in paths.items()}
    return cast(Tracks, SimpleNamespace(path=path, reroutes=reroutes)), {name: [stream] for name, stream in streams.items()}


def flat(windows: Sequence[tuple[float, float]]) -> list[float]:
    """Begins and ends in turn."""
    return [moment for window in windows for moment in window]


def test_jobs_share_while_both_communicate_over_a_link() -> None:
    """Counted per measured iteration of the one that is asked for, against all of the other's."""
    tracks, members = _tracks({"a": [(0.0, ["x", "y"])], "b": [(0.0, ["y", "z"])]})
    assert flat(communicating(RECORDS, "a")) == pytest.approx([0.0, 1.0, 2.0, 3.0, 3.0, 3.5, 4.0, 4.1])
    assert flat(shared(tracks, RECORDS, members, "a")["b"]) == pytest.approx([0.5, 1.0, 2.0, 2.5, 3.2, 3.5, 4.0, 4.05])
    assert shared_ms(tracks, RECORDS, members, "a") == {"b": pytest.approx((500 + 300 + 50) / 2)}
    assert shared_ms(tracks, RECORDS, members, "b") == {"a": pytest.approx(300 + 50)}


def test_who_is_moved_away_shares_no_longer() -> None:
    """From the moment on at which the rule was in force."""
    tracks, members = _tracks({"a": [(0.0, ["x", "y"]), (2.1, ["x", "w"])], "b": [(0.0, ["y", "z"])]})
    assert flat(shared(tracks, RECORDS, members, "a")["b"]) == pytest.approx([0.5, 1.0, 2.0, 2.1])
