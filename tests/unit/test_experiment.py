"""A good file becomes the points it says, in order, with draws that its arms share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabric.errors import RequestError
from fabric.experiment import Experiment, flows, load_experiment, parse_override, placement, schema
from fabric.workload import workload

GOOD: dict[str, Any] = {
    "question": "Is ECMP enough?",
    "topology": {"use": "fat-tree", "k": 4},
    "links": {"mbps": 20, "mtu": 9000, "queue_packets": 50, "ecn": {"min_packets": 20, "max_packets": 30}},
    "controller": {"use": "ecmp", "poll_ms": 100},
    "collective": {
        "use": "ring-allreduce", "ranks": 8, "placement": "random", "nbytes": ["64KiB", 4096],
        "dtype": "int32", "iterations": 3, "warmup": 1, "check": False,
    },
    "load": [{"use": "stride", "step": 4, "pairs": 4, "mbps": 5}, {"use": "permutation", "hosts": "idle"}],
    "transport": {"tcp": "reno", "rto_min_ms": 20},
    "sweep": {"controller.use": ["ecmp", "two-level"], "load.0.step": [4, 8]},
    "repeat": 2,
    "seed": 7,
}  # fmt: skip
Load = Callable[..., Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes the good file, some of its keys replaced or (None) dropped, and loads it."""

    def write_and_load(overrides: dict[str, Any] | None = None, **keys: Any) -> Experiment:
        values = {key: value for key, value in {**GOOD, **keys}.items() if value is not None}
        (tmp_path / "quick.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        return load_experiment(tmp_path / "quick.yaml", overrides)

    return write_and_load


def test_an_experiment_keeps_what_it_was_read_from(load: Load, tmp_path: Path) -> None:
    """Name, question, folder and source text, so that a run folder explains itself."""
    found = load()
    assert (found.name, found.question, found.base) == ("quick", "Is ECMP enough?", tmp_path)
    assert found.text == (tmp_path / "quick.yaml").read_text()
    assert found.swept == ("controller.use", "load.0.step")


def test_points_interleave_the_variants_within_each_repeat(load: Load) -> None:
    """The last swept key is fastest, and all variants run before the next repeat."""
    points = load().points
    variants = ["ecmp, step=4", "ecmp, step=8", "two-level, step=4", "two-level, step=8"]
    assert [(point.repeat, point.variant) for point in points] == [(n, name) for n in (1, 2) for name in variants]
    assert [point.index for point in points] == list(range(8))
    assert [(point.controller.use, point.load[0].params["step"]) for point in points[:4]] == [
        ("ecmp", 4), ("ecmp", 8), ("two-level", 4), ("two-level", 8),
    ]  # fmt: skip


def test_arms_share_draws_pairwise_and_repeats_differ(load: Load) -> None:
    """Same seed, placement and idle flows for every controller of a repeat; others in the next repeat."""
    ecmp, _, two_level, _, again, *_ = load().points
    assert (ecmp.seed, two_level.seed, again.seed) == (7, 7, 8)
    assert placement(ecmp) == placement(two_level) != placement(again)
    assert flows(ecmp) == flows(two_level) != flows(again)


def test_one_load_leaves_the_draws_of_another_alone(load: Load) -> None:
    """Swept or changed, the first load does not touch what the second draws."""
    four, eight = load(sweep={"load.0.step": [4, 8]}, repeat=1).points
    assert flows(four)[4:] == flows(eight)[4:]
    assert flows(four)[:4] != flows(eight)[:4]


def test_a_load_with_a_seed_of_its_own_draws_from_that_alone(load: Load) -> None:
    """Another seed of the first load changes its flows, and neither the second's nor the placement."""
    plain, own, other = load(sweep={"load.0.seed": [None, 11, 12]}, repeat=1).points
    assert len({tuple(flows(point)[:4]) for point in (plain, own, other)}) == 3
    assert flows(plain)[4:] == flows(own)[4:] == flows(other)[4:]
    assert placement(plain) == placement(own) == placement(other) and plain.seed == own.seed == 7
    elsewhere = load({"seed": 99, "load.0.seed": 11, "load.0.hosts": "all"}, sweep=None, repeat=1).points[0]
    assert flows(elsewhere)[:4] == flows(own)[:4] and placement(elsewhere) != placement(own)


def test_a_loads_seed_counts_up_with_the_repeats_as_the_files_does(load: Load) -> None:
    """In repeat n it is the seed plus n - 1; one that equals the file's gives what leaving it out gives."""
    first, second = load(sweep={"load.0.seed": [11]}).points
    again = load(sweep={"load.0.seed": [12]}, repeat=1).points[0]
    assert flows(first)[:4] != flows(second)[:4] == flows(again)[:4]
    same, without = (load(sweep={"load.0.seed": [seed]}).points for seed in (7, None))
    assert [flows(point) for point in same] == [flows(point) for point in without]


def test_the_seed_of_a_load_changes_nothing_but_its_flows(load: Load) -> None:
    """Fabric, parameters, ranks and every 5-tuple of the collective are the same byte for byte."""
    one, two = load(sweep={"load.0.seed": [1, 2]}, repeat=1).points
    seen = [(point.fabric.to_json(), point.controller.model_dump(), workload(point).to_json()) for point in (one, two)]
    for fabric, controller, sent in seen:
        assert (fabric, controller) == seen[0][:2]
        assert (sent["placement"], sent["edges"]) == (seen[0][2]["placement"], seen[0][2]["edges"])
    assert seen[0][2]["flows"] != seen[1][2]["flows"]


def test_a_load_that_asks_for_the_fabric_is_given_the_points(load: Load) -> None:
    """`staggered` knows who shares an edge switch at every size of a swept topology; the file never names the fabric."""
    staggered = [{"use": "staggered", "edge": 1, "pod": 0}]
    small, large = load(collective=None, duration_s=5, load=staggered, sweep={"topology.k": [4, 6]}, repeat=1).points
    for point, size in ((small, 16), (large, 54)):
        position = {host.name: host.position for host in point.fabric.hosts}
        assert len(flows(point)) == size
        assert all(position[flow.src][:2] == position[flow.dst][:2] for flow in flows(point))


def test_groups_are_a_parameter_of_the_ring(load: Load) -> None:
    """Eight ranks in two groups of four: the schedules say so, and no connection leaves its group."""
    collective = {**GOOD["collective"], "groups": 2}
    work = workload(load(collective=collective, sweep=None, repeat=1).points[0])
    assert [(schedule.ranks, schedule.groups) for schedule in work.schedules] == [(8, 2)] * 2
    assert len(work.edges) == 8 and {(dst - src) % 2 for src, dst, _ in work.edges} == {0}


def test_a_ranked_placement_is_the_first_hosts(load: Load) -> None:
    """In the topology's order; all of them for `ranks: all`."""
    collective = {"use": "ring-allreduce", "nbytes": 4096, "ranks": 3}
    point = load(collective=collective, sweep=None).points[0]
    assert placement(point) == ["p0e0h0", "p0e0h1", "p0e1h0"]
    everyone = load(collective={**collective, "ranks": "all"}, sweep=None, load=None).points[0]
    assert placement(everyone) == [host.name for host in everyone.fabric.hosts]


def test_a_random_placement_takes_distinct_hosts_and_grows_by_the_same_draw(load: Load) -> None:
    """Eight ranks sit where the first eight of sixteen would: sizes of a sweep are comparable."""
    collective = GOOD["collective"]
    eight, sixteen = load(sweep={"collective.ranks": [8, "all"]}, load=None, repeat=1).points
    assert collective["placement"] == "random" and len(set(placement(eight))) == 8
    assert placement(sixteen)[:8] == placement(eight)
    assert sorted(placement(sixteen)) == sorted(host.name for host in sixteen.fabric.hosts)


def test_named_ranks_sit_where_they_are_put(load: Load) -> None:
    """A list of hosts is the order of the ranks."""
    ranks = ["p3e1h1", "p0e0h0", "p1e0h0"]
    collective = {"use": "ring-allreduce", "nbytes": 4096, "ranks": ranks}
    assert placement(load(collective=collective, sweep=None).points[0]) == ranks


def test_flows_take_their_rate_and_idle_ones_avoid_the_ranks(load: Load) -> None:
    """`mbps` goes to each flow of its load only; `idle` hosts have no rank."""
    point = load().points[0]
    stride, idle = flows(point)[:4], flows(point)[4:]
    assert [flow.mbps for flow in stride] == [5.0] * 4
    assert len(idle) == 8 and {flow.mbps for flow in idle} == {None}
    assert {flow.src for flow in idle}.isdisjoint(placement(point))


def test_a_load_alone_needs_a_duration_and_has_no_ranks(load: Load) -> None:
    """Then nothing is placed, and every host is idle."""
    point = load(collective=None, duration_s=10, sweep=None).points[0]
    assert point.duration_s == 10 and point.collective is None and placement(point) == []
    assert len(flows(point)) == 4 + 16


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        ("64KiB", 65536), ("1MiB", 1048576), ("1GiB", 1 << 30), ("8B", 8), ("4kB", 4000), ("2MB", 2_000_000),
        ("1GB", 10**9), (4, 4), ("16 KiB", 16384),
    ],
)  # fmt: skip
def test_a_size_is_bytes_or_has_a_unit(size: int | str, nbytes: int, load: Load) -> None:
    """Binary and decimal units are different, and both exact."""
    collective = {"use": "ring-allreduce", "ranks": 2, "nbytes": size}
    # The largest are only parsed here, so the schedule must not grow with the size.
    point = load(collective=collective, load=None, sweep=None).points[0]
    assert point.collective is not None and point.collective.nbytes == (nbytes,)


def test_defaults_are_what_the_documentation_says(load: Load) -> None:
    """A file with only what is required."""
    point = load(
        links={"mbps": 20}, controller={"use": "ecmp"}, collective={"use": "ring-allreduce", "nbytes": 4096},
        load=None, transport=None, sweep=None, repeat=None, seed=None,
    ).points[0]  # fmt: skip
    assert (point.seed, point.repeat, point.poll_ms, point.load, point.variant) == (1, 1, 100, (), "ecmp")
    assert point.links.model_dump() == {
        "mbps": 20, "mtu": 1500, "queue_packets": 50, "queue_bytes": None, "priority_floor": None,
        "delay_ms": None, "loss_percent": None, "ecn": None,
    }  # fmt: skip
    assert point.transport.model_dump() == {
        "tcp": "cubic", "rto_min_ms": 200, "initcwnd": None, "cwnd_clamp": None, "ecn": None, "hosts": {},
    }  # fmt: skip
    assert point.collective is not None
    assert point.collective.model_dump() == {
        "use": "ring-allreduce", "ranks": "all", "placement": "ranked", "nbytes": (4096,), "dtype": "float32",
        "channels": 1, "iterations": 20, "warmup": 2, "check": True, "hints": False, "late_ms": {}, "compute_ms": None, "stagger_ms": None, "transport": None,
    }  # fmt: skip


def test_a_queue_in_bytes_has_no_default_in_packets(load: Load) -> None:
    """One limit, not two."""
    links = load(links={"mbps": 20, "queue_bytes": 75000}, sweep=None).points[0].links
    assert (links.queue_packets, links.queue_bytes) == (None, 75000)


@pytest.mark.parametrize(
    ("sweep", "variants"),
    [
        ({"links.mbps": [5, 2.5]}, ["mbps=5", "mbps=2.5"]),
        ({"controller": [{"use": "ecmp"}, {"use": "two-level"}]}, ["ecmp", "two-level"]),
        ({"load": [[], [{"use": "stride", "step": 8}], [{"use": "stride", "step": 8}, {"use": "permutation"}]]},
         ["no load", "stride step=8", "stride step=8 + permutation"]),
        ({"collective.nbytes": ["64KiB", ["4KiB", 8192]]}, ["64KiB", "4KiB + 8192"]),
        ({"collective.check": [True, False]}, ["check=true", "check=false"]),
        ({"load.0.mbps": [None, 5]}, ["mbps=none", "mbps=5"]),
        ({"links": [{"mbps": 5}, {"mbps": 5, "mtu": 9000}]}, ["mbps=5", "mbps=5 mtu=9000"]),
        ({"load.0": [{"use": "stride", "step": 4, "pairs": 2}, {"use": "elephants", "pairs": 2}]},
         ["stride step=4 pairs=2", "elephants pairs=2"]),
        ({"load.0": [{"use": "stride", "step": 4, "pairs": 8}, {"use": "stride", "step": 4, "mbps": 8}]},
         ["stride step=4 pairs=8", "stride step=4 mbps=8"]),
    ],
)  # fmt: skip
def test_variants_have_short_names_that_differ(sweep: dict[str, Any], variants: list[str], load: Load) -> None:
    """The swept values, and a key where a value does not speak for itself."""
    assert [point.variant for point in load(sweep=sweep, repeat=1).points] == variants


def test_a_swept_key_may_be_absent_from_the_rest(load: Load) -> None:
    """Even the mapping it lies in."""
    points = load(transport=None, sweep={"transport.rto_min_ms": [20, 200]}, repeat=1).points
    assert [point.transport.rto_min_ms for point in points] == [20, 200]


def test_a_swept_mapping_and_a_key_in_it_go_together_in_either_order(load: Load) -> None:
    """The mapping is set first, so that neither axis undoes the other."""
    use, poll = [{"use": "ecmp"}, {"use": "two-level"}], [50, 100]
    points = load(sweep={"controller.poll_ms": poll, "controller": use}, repeat=1).points
    assert [(point.poll_ms, point.controller.use) for point in points] == [
        (50, "ecmp"), (50, "two-level"), (100, "ecmp"), (100, "two-level"),
    ]  # fmt: skip


def test_points_with_one_topology_share_one_fabric(load: Load) -> None:
    """It is built once; another size is another fabric."""
    small, large, again, _ = load(sweep={"topology.k": [4, 6]}).points
    assert small.fabric is again.fabric and len(large.fabric.hosts) == 54


def test_a_point_is_json_without_the_links_of_the_fabric(load: Load) -> None:
    """Resolved: sizes in bytes, defaults filled in, parameters beside `use` as in the file."""
    data = json.loads(json.dumps(load().points[0].to_json()))
    assert data["collective"]["nbytes"] == [65536, 4096]
    assert data["load"][0] == {"use": "stride", "step": 4, "pairs": 4, "mbps": 5.0, "hosts": "all", "seed": None, "transport": None}
    assert (data["variant"], data["seed"], data["poll_ms"], data["transport"]["tcp"]) == ("ecmp, step=4", 7, 100, "reno")
    assert "links" not in data["fabric"] and len(data["fabric"]["hosts"]) == 16


def test_overrides_change_the_file_before_it_is_checked(load: Load) -> None:
    """Dotted paths as in the sweep; the sweep itself can be replaced or extended."""
    point = load({"links.mbps": 5, "load.1.hosts": "all", "sweep": {}}).points[0]
    assert (point.links.mbps, point.load[1].hosts, point.variant) == (5, "all", "ecmp")
    assert load({"sweep.links.mbps": [5, 10], "repeat": 1}).swept == ("controller.use", "load.0.step", "links.mbps")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("links.mbps=-5",
         "links.mbps: got -5; accepted: a number above 0 and at most 100000; write e.g. mbps: 20"),
        ("lnks.mbps=5",
         "lnks: got an unknown key; accepted: question, seed, repeat, topology, links, controller, collective, jobs, workload, load, requests, "
         "events, duration_s, transport, telemetry, expect, sweep; did you mean links?"),
        ("controller.use=ecmp",
         "controller.use: got a value for a swept key; accepted: a key that is not swept; "
         "write --set sweep.controller.use=[...]"),
        ("load.9.step=1",
         "load: got [{use: 'stride', step: 4, pairs: 4, mbps: 5}, {use: 'permutation', hosts: 'id...; "
         "accepted: an index from 0 to 1; write the key path as it stands in the file, e.g. load.0.step"),
        ("sweep.links.mbps=[5, 0]",
         "links.mbps: got 0; accepted: a number above 0 and at most 100000; write e.g. mbps: 20"),
        ("collective.ranks=40",
         "collective.ranks: got 40; accepted: at most 16, the hosts of this topology; use fewer, or a larger topology "
         "[in the sweep, at controller.use: ecmp (line 38), load.0.step: 4 (line 41)]"),
    ],
)  # fmt: skip
def test_a_bad_override_is_told_by_its_own_text(text: str, message: str, load: Load) -> None:
    """The place is the option, not a line of the file."""
    key, value = parse_override(text)
    with pytest.raises(RequestError) as caught:
        load({key: value})
    assert str(caught.value) == f"--set {text}: {message}"


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("seed=3", ("seed", 3)),
        ("links.mbps = 2.5", ("links.mbps", 2.5)),
        ("sweep={controller.use: [ecmp]}", ("sweep", {"controller.use": ["ecmp"]})),
        ("question=a=b", ("question", "a=b")),
        ("duration_s=", ("duration_s", None)),
    ],
)
def test_an_override_is_a_key_and_a_yaml_value(text: str, pair: tuple[str, Any]) -> None:
    """Only the first equals sign parts them."""
    assert parse_override(text) == pair


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "--set seed: got no key and value; accepted: key=value; write e.g. --set links.mbps=20"),
        ("=3", "--set =3: got no key and value; accepted: key=value; write e.g. --set links.mbps=20"),
        ("links={a: 1, a: 2}", "--set links={a: 1, a: 2}: a: got the key twice, first at line 1; "
         "accepted: each key once; remove one"),
        ("links=[1", "--set links=[1: not YAML: while parsing a flow sequence, expected ',' or ']', "
         "but got '<stream end>'; accepted: YAML 1.1; check quotes and indentation"),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    """In one line, as everything else."""
    with pytest.raises(RequestError) as caught:
        parse_override(text)
    assert str(caught.value) == message


def test_the_schema_lists_every_key_with_what_it_accepts() -> None:
    """What an editor shows is what an error would say."""
    found = schema()
    assert set(found["required"]) == {"question", "topology", "links", "controller"}
    assert found["$defs"]["Links"]["properties"]["mtu"]["description"] == "a whole number from 576 to 9216"
    assert found["$defs"]["Links"]["additionalProperties"] is False
    assert found["$defs"]["Load"]["additionalProperties"] is True
    for model in (found, *found["$defs"].values()):
        assert all({"description", "examples"} <= set(item) for item in model["properties"].values())


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a tree of dicts and lists but the root's."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in [(*path, key), *paths_of(item, (*path, key))]]


# Integers stay small or enormous: in between, a topology of that size would be legal and take minutes to build.
SCALARS = st.one_of(
    st.none(), st.booleans(), st.floats(), st.text(max_size=12), st.integers(-10, 10), st.integers(10**9, 10**30),
    st.sampled_from(["all", "idle", "ecmp", "stride", "64KiB", "a.b:c", "./x.py", "..", ":", "-", "\0/", "\n"]),
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_a_good_file_ends_in_anything_but_one_line(data: st.DataObject, tmp_path: Path) -> None:
    """A key deleted, renamed, or given a random scalar: either it loads, or RequestError says so in one line."""
    values = json.loads(json.dumps(GOOD))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(paths_of(values)))
        parent = values
        for part in path[:-1]:
            parent = parent[part]
        action = data.draw(st.sampled_from(["delete", "replace", "replace", "rename"]))
        if action == "replace":
            parent[path[-1]] = data.draw(SCALARS)
        else:
            old = parent.pop(path[-1])
            if action == "rename" and isinstance(parent, dict):
                parent[data.draw(st.text(max_size=8))] = old
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    try:
        load_experiment(tmp_path / "bad.yaml")
    except RequestError as err:
        assert len(str(err).splitlines()) == 1 and str(err).startswith(f"{tmp_path}/bad.yaml")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text("{}[]:,-&*!|>'\"%@`#\n\t a1?<", max_size=60).map(str.encode))
def test_no_bytes_end_in_anything_but_one_line(content: bytes, tmp_path: Path) -> None:
    """Whatever the file holds, it is refused as a request."""
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(RequestError) as caught:
        load_experiment(tmp_path / "bad.yaml")
    assert len(str(caught.value).splitlines()) == 1


RAILS = """
question: What may one ask of servers?
topology: {use: rail-only, servers: 2, rails: 2}
links: {mbps: 10}
controller: {use: ecmp}
collective: {use: hierarchical-allreduce, per_server: 2, nbytes: 4KiB}
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("per_server: 2", "per_server: 2"), None),
        (("use: hierarchical-allreduce, per_server: 2", "use: ring-allreduce, placement: random"), None),
        (("use: hierarchical-allreduce, per_server: 2", "use: ring-allreduce, ranks: [n0r0, n1r1]"),
         "collective.ranks: got rank 0 in n0 sending to rank 1, on whose rail nobody of that server is; "
         "accepted: ranks on all NICs of a server; write e.g. ranks: all"),
        (("links: {mbps: 10}", "links: {mbps: 10}\nload: [{use: stride, step: 2}]"), None),
        (("links: {mbps: 10}", "links: {mbps: 10}\nload: [{use: stride, step: 1}]"),
         "load.0.use: got a flow from n0r0 to n0r1, which share a server; accepted: flows across the network, along rails where these meet nowhere; "
         "write e.g. {use: stride, step: 2}"),
        (("links: {mbps: 10}", "links: {mbps: 10}\nload: [{use: stride, step: 3}]"),
         "load.0.use: got a flow from n0r0 to n1r1, where no path leads; accepted: flows across the network, along rails where these meet nowhere; "
         "write e.g. {use: stride, step: 2}"),
        (("links: {mbps: 10}", "links: {mbps: 10}\ntransport: {cwnd_clamp: 20}"),
         "transport.cwnd_clamp: got 20; accepted: none where the NICs of a server share a namespace; remove it, or use a topology without servers"),
        (("controller: {use: ecmp}\ncollective: {", "controller: {use: congestion, policy: incast-guard}\ncollective: {hints: true, "),
         "controller.policy: got 'incast-guard'; accepted: a policy that sets nothing of single hosts where the NICs of a server share a namespace; "
         "write e.g. policy: combined"),
        (("rails: 2}", "rails: 2, nvlink_ratio: 1000}\ntelemetry: {probes: {hz: 100}}"), None),
        (("links: {mbps: 10}", "links: {mbps: 100}"), None),
        (("links: {mbps: 10}\n", "links: {mbps: 10}\ntelemetry: {probes: {hz: 100, pairs: [[n0r0, n0r1]]}}\n"),
         "telemetry.probes.pairs.0: got ['n0r0', 'n0r1']; accepted: two hosts that reach each other over the network; name another one"),
        (("links: {mbps: 10}", "links: {mbps: 10, delay_ms: 5}"),
         "links.delay_ms: got 5.0; accepted: none where the NICs of a server share a namespace; remove it, or use a topology without servers"),
        (("nbytes: 4KiB", "nbytes: 4KiB, transport: {tcp: reno}"),
         "collective.transport: got {tcp: 'reno'}; accepted: none where the NICs of a server share a namespace; remove it, or use a topology without servers"),
    ],
)  # fmt: skip
def test_what_servers_have_and_have_not(tmp_path: Path, change: tuple[str, str], message: str | None) -> None:
    """Rails meet inside servers, whose NICs share a namespace: what cannot be is said before anything starts."""
    file = tmp_path / "rails.yaml"
    file.write_text(RAILS.replace(*change))
    if message is None:
        (point,) = load_experiment(file).points
        assert point.fabric.inside in (9.0, 1000.0)
        return
    with pytest.raises(RequestError) as caught:
        load_experiment(file)
    assert str(caught.value).split(": ", 1)[1] == message
