"""Invariants of the topologies, for several sizes; never coordinates of code."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Callable

import networkx as nx
import pytest

from fabric.errors import RequestError
from fabric.graph import Fabric, Port, mac_of
from fabric.paths import PathSets, ends, equal_cost_paths, next_hops, spanning_tree_hops
from topologies.dual_plane import dual_plane
from topologies.dumbbell import dumbbell
from topologies.fat_tree import fat_tree
from topologies.leaf_spine import leaf_spine
from topologies.rails import rail_only, rail_optimized
from topologies.single_switch import single_switch

SIZES = [2, 4, 6, 8]


@pytest.mark.parametrize("pairs", [1, 2, 250])
def test_a_dumbbell_has_one_link_in_the_middle(pairs: int) -> None:
    """As many hosts on each side, one path from side to side, and by rank job i is on li and ri."""
    fabric = dumbbell(pairs, scale=0.5)
    assert (len(fabric.switches), len(fabric.hosts), len(fabric.links)) == (2, 2 * pairs, 2 * pairs + 1)
    (middle,) = [link for link in fabric.links if {link.a.node, link.b.node} == {"left", "right"}]
    assert middle.scale == 0.5 and {link.scale for link in fabric.links if link is not middle} <= {1.0}
    assert [host.name for host in fabric.hosts[:: max(1, pairs)]][:2] == ["l0", "r0"]
    assert len(equal_cost_paths(fabric, "left", "right")) == 1


@pytest.mark.parametrize(("pairs", "scale"), [(0, 1.0), (251, 1.0), (2, 0.0), (2, float("nan"))])
def test_a_dumbbell_that_is_none_is_refused(pairs: int, scale: float) -> None:
    """With what would do."""
    with pytest.raises(RequestError, match=r"topology\.(pairs|scale): got .*; accepted"):
        dumbbell(pairs, scale)


@pytest.mark.parametrize("k", [*SIZES, 16])
def test_fat_tree_counts(k: int) -> None:
    """k²/4 cores, k²/2 aggregation and edge switches, k³/4 hosts, and as many links in each of three layers."""
    fabric = fat_tree(k)
    tiers = Counter(switch.tier for switch in fabric.switches)
    assert tiers == {"core": k * k // 4, "aggregation": k * k // 2, "edge": k * k // 2}
    assert len(fabric.hosts) == k**3 // 4
    assert len(fabric.links) == 3 * k**3 // 4


@pytest.mark.parametrize("k", SIZES)
def test_fat_tree_uses_every_port_once(k: int) -> None:
    """Every switch has k links, on ports 1 to k; every host one, on port 0; no two nodes share two."""
    fabric = fat_tree(k)
    for switch in fabric.switches:
        assert [port.number for port in fabric.ports_of[switch.name]] == list(range(1, k + 1))
    for host in fabric.hosts:
        assert [port.number for port in fabric.ports_of[host.name]] == [0]
    assert fabric.graph.number_of_edges() == len(fabric.links)


@pytest.mark.parametrize("k", SIZES)
def test_fat_tree_tiers_meet_as_published(k: int) -> None:
    """Every switch has k/2 neighbours in the tier below and above; a core, in each pod the one of its group."""
    fabric = fat_tree(k)
    half = k // 2
    tier = {switch.name: switch.tier for switch in fabric.switches}
    for switch in fabric.switches:
        around = Counter(tier.get(name, "host") for name in fabric.graph[switch.name])
        below = {"edge": "host", "aggregation": "edge", "core": "aggregation"}[switch.tier]
        above = {"edge": "aggregation", "aggregation": "core", "core": "aggregation"}[switch.tier]
        assert around == Counter({below: half}) + Counter({above: half})
        if switch.tier == "core":
            around_core = sorted(fabric.switch_by_name[name].position for name in fabric.graph[switch.name])
            assert around_core == [(pod, switch.position[0]) for pod in range(k)]


@pytest.mark.parametrize("k", SIZES)
def test_fat_tree_is_the_published_graph(k: int) -> None:
    """Isomorphic, tier by tier, to the graph built from the paper's one sentence a layer."""
    half = k // 2
    paper = nx.Graph()
    for pod in range(k):
        for i in range(half):
            for j in range(half):
                paper.add_edge(("edge", pod, i), ("aggregation", pod, j))
                paper.add_edge(("edge", pod, i), ("host", pod, i, j))
                paper.add_edge(("aggregation", pod, i), ("core", i, j))
    nx.set_node_attributes(paper, {node: node[0] for node in paper}, "tier")
    same_tier = nx.algorithms.isomorphism.categorical_node_match("tier", None)
    assert nx.is_isomorphic(fat_tree(k).graph, paper, node_match=same_tier)


@pytest.mark.parametrize("k", SIZES)
def test_fat_tree_paths_between_pods(k: int) -> None:
    """(k/2)² paths of 6 links between pods, one by each core; k/2 of 4 within a pod; 1 of 2 below an edge switch."""
    fabric = fat_tree(k)
    hops = next_hops(fabric)
    first = fabric.hosts[0]
    expected = {1: (1, 2), 2: (k // 2, 4), 3: ((k // 2) ** 2, 6)}
    for host in fabric.hosts[1:]:
        common = 3 if host.position[0] != first.position[0] else 2 if host.position[1] != first.position[1] else 1
        paths = equal_cost_paths(fabric, first.name, host.name, hops)
        assert (len(paths), {len(path) for path in paths}) == (expected[common][0], {expected[common][1]})
        if common == 3:
            assert len({path[3].node for path in paths}) == (k // 2) ** 2


@pytest.mark.parametrize("k", SIZES)
def test_fat_tree_ports_follow_coordinates(k: int) -> None:
    """Ports 1..k/2 go down and the rest up, each in the order of the far end's coordinates; a core's all go down."""
    fabric = fat_tree(k)
    position = {node.name: node.position for node in (*fabric.switches, *fabric.hosts)}
    for switch in fabric.switches:
        far = [fabric.peer[port].node for port in fabric.ports_of[switch.name]]
        for side in [far] if switch.tier == "core" else [far[: k // 2], far[k // 2 :]]:
            assert [position[name] for name in side] == sorted(position[name] for name in side)
        if switch.tier != "core":
            assert {fabric.level[name] < fabric.level[switch.name] for name in far[: k // 2]} == {True}


def assert_names_and_addresses(fabric: Fabric) -> None:
    assert len({node.name for node in (*fabric.switches, *fabric.hosts)}) == len(fabric.switches) + len(fabric.hosts)
    assert len({switch.dpid for switch in fabric.switches}) == len(fabric.switches)
    assert len({host.ip for host in fabric.hosts}) == len({host.mac for host in fabric.hosts}) == len(fabric.hosts)
    for host in fabric.hosts:
        assert host.mac == mac_of(host.ip)
        assert ipaddress.IPv4Address(host.ip) in ipaddress.IPv4Network("10.0.0.0/8")


@pytest.mark.parametrize("k", SIZES)
def test_fat_tree_names_and_addresses_are_its_coordinates(k: int) -> None:
    """Names, dpids and addresses are unique and say the position; the tier is the third byte of the dpid."""
    fabric = fat_tree(k)
    assert_names_and_addresses(fabric)
    for host in fabric.hosts:
        pod, edge, index = host.position
        assert (host.name, host.ip) == (f"p{pod}e{edge}h{index}", f"10.{pod}.{edge}.{index + 2}")
    numbers = {"edge": 1, "aggregation": 2, "core": 3}
    for switch in fabric.switches:
        assert tuple(switch.dpid.to_bytes(3, "big")) == (numbers[switch.tier], *switch.position)


def test_a_fat_tree_s_tiers_may_be_oversubscribed() -> None:
    """Each by itself, and only upwards of the hosts; what is asked for stands in its description."""
    fabric = fat_tree(4, edge_scale=0.5, core_scale=0.25)
    tier = {name: fabric.graph.nodes[name]["tier"] for name in fabric.graph}
    scales = {tuple(sorted((tier[link.a.node], tier[link.b.node]))): link.scale for link in fabric.links}
    assert scales == {("aggregation", "core"): 0.25, ("aggregation", "edge"): 0.5, ("edge", "host"): 1.0}
    assert fabric.params == {"k": 4, "edge_scale": 0.5, "core_scale": 0.25} and fat_tree(4).params == {"k": 4}
    with pytest.raises(RequestError, match=r"^topology.core_scale: got 0; accepted: a number above 0; write e.g. core_scale: 0.5 for 2:1$"):
        fat_tree(4, core_scale=0)


@pytest.mark.parametrize("k", [0, -2, 3, 256])
def test_fat_tree_refuses_other_radixes(k: int) -> None:
    """Odd, too small or too large for an address byte."""
    with pytest.raises(RequestError, match=rf"topology\.k: got {k}; accepted: an even number from 2 to 254"):
        fat_tree(k)


@pytest.mark.parametrize(("servers", "rails", "oversubscription", "units"), [(4, 4, 1, 1), (8, 2, 4, 1), (2, 8, 2, 3), (32, 8, 1, 8)])
def test_rail_optimized_is_the_published_graph(servers: int, rails: int, oversubscription: int, units: int) -> None:
    """A leaf for each rail of each unit, NIC i of every server on leaf i, every leaf on every spine; names and addresses unique."""
    fabric = rail_optimized(servers, rails, oversubscription, units)
    leaves = [switch for switch in fabric.switches if switch.tier == "leaf"]
    spines = [switch.name for switch in fabric.switches if switch.tier == "spine"]
    assert (len(leaves), len(spines), len(fabric.hosts)) == (rails * units, servers // oversubscription, servers * rails * units)
    for leaf in leaves:
        far = [fabric.peer[port].node for port in fabric.ports_of[leaf.name]]
        assert far[servers:] == spines
        assert all(fabric.host_by_name[name].position[1] == leaf.position[1] for name in far[:servers])
        assert len({fabric.host_by_name[name].server for name in far[:servers]}) == servers
    assert len(fabric.links) == servers * rails * units + len(leaves) * len(spines)
    assert_names_and_addresses(fabric)
    assert [host.position for host in fabric.hosts] == sorted(host.position for host in fabric.hosts)


def test_a_superpod_of_eight_units() -> None:
    """64 leaves, 32 spines, 2048 links each way up and down (NVIDIA's reference architecture)."""
    fabric = rail_optimized(32, 8, 1, 8)
    assert (len(fabric.switches), len(fabric.hosts), len(fabric.links)) == (64 + 32, 2048, 2048 + 2048)


def test_the_nics_of_a_server_are_together() -> None:
    """They share a machine, and what leads from one to the other is inside; NICs of others, and hosts by themselves, do not."""
    fabric = rail_optimized(2, 2)
    assert {name: [host.name for host in hosts] for name, hosts in fabric.servers.items()} == {"n0": ["n0r0", "n0r1"], "n1": ["n1r0", "n1r1"]}
    assert fabric.together("n0r0", "n0r1") and not fabric.together("n0r0", "n1r0") and not fabric.together("n0r0", "n0r0")
    assert [port.interface for (port,) in PathSets(fabric)("n0r0", "n0r1")] == ["n0r0-inside"]
    assert Fabric.from_json(json.loads(json.dumps(fabric.to_json()))) == fabric
    lonely = single_switch(2)
    assert lonely.servers == {} and not lonely.together("h0", "h1") and lonely.hosts[0].machine == "h0"


def test_rails_without_spines_meet_inside_servers_only() -> None:
    """A part for each rail; no path and no next hop from one to another."""
    fabric = rail_only(3, 2)
    assert len({fabric.part[host.name] for host in fabric.hosts}) == 2 and set(rail_optimized(3, 2).part.values()) == {0}
    assert PathSets(fabric)("n0r0", "n1r1") == () and len(PathSets(fabric)("n0r0", "n1r0")) == 1
    for hops in (next_hops(fabric), spanning_tree_hops(fabric)):
        assert hops["u0l0"]["n1r1"] == () and [port.number for port in hops["u0l0"]["n1r0"]] == [2]
    assert [host.name for host in ends(fabric)] == ["n0r0", "n2r0"]
    assert [host.name for host in ends(rail_optimized(3, 2))] == ["n0r0", "n2r1"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rail_optimized(4, 4, 3), "topology.oversubscription: got 3; accepted: 1, 2, 4, which divide the 4 servers of a leaf"),
        (lambda: rail_optimized(1, 4), "topology.servers: got 1; accepted: 2 to 250"),
        (lambda: rail_optimized(250, 9), "topology.servers: got 2250 NICs in all; accepted: at most 2048; use fewer servers, rails or units"),
        (lambda: rail_only(4, 0), "topology.rails: got 0; accepted: 1 to 200"),
        (lambda: rail_only(4, 4, nvlink_ratio="fast"), "topology.nvlink_ratio: got 'fast'; accepted: a number above 0 and at most 1000, or free"),
        (lambda: leaf_spine(1), "topology.leaves: got 1; accepted: 2 to 250"),
        (lambda: leaf_spine(per_server=3), "topology.per_server: got 3; accepted: 1, 2, 4, which divide the 4 hosts of a leaf"),
        (lambda: leaf_spine(per_server=2, nvlink_ratio=0), "topology.nvlink_ratio: got 0; accepted: a number above 0 and at most 1000, or free"),
        (lambda: leaf_spine(scale=0), "topology.scale: got 0; accepted: a number above 0"),
        (lambda: dual_plane(1), "topology.racks: got 1; accepted: 2 to 250"),
        (lambda: dual_plane(2, 4, 51), "topology.spines: got 51; accepted: 1 to 50"),
        (lambda: dual_plane(11, 200), "topology.racks: got 2200 hosts in all; accepted: at most 2048; use fewer racks or hosts"),
    ],
)
def test_rails_and_leaves_that_are_none(make: Callable[[], Fabric], message: str) -> None:
    """One line each."""
    with pytest.raises(RequestError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize(("leaves", "spines", "hosts"), [(2, 1, 1), (4, 4, 4), (5, 3, 2)])
def test_leaf_spine_is_a_full_mesh_of_two_tiers(leaves: int, spines: int, hosts: int) -> None:
    """As many paths between leaves as spines."""
    fabric = leaf_spine(leaves, spines, hosts)
    assert (len(fabric.switches), len(fabric.hosts), len(fabric.links)) == (leaves + spines, leaves * hosts, leaves * (hosts + spines))
    assert len(PathSets(fabric)("l0h0", "l1h0")) == spines
    assert {fabric.scale[port] for port in fabric.uplinks()} == {1.0}
    assert_names_and_addresses(fabric)


def test_a_leaf_s_hosts_may_be_the_nics_of_servers() -> None:
    """Of so many each, on one leaf; without, there are no servers."""
    fabric = leaf_spine(2, 2, 4, per_server=2, nvlink_ratio=4)
    assert {name: [nic.name for nic in nics] for name, nics in fabric.servers.items()} == {
        "l0n0": ["l0h0", "l0h1"], "l0n1": ["l0h2", "l0h3"], "l1n0": ["l1h0", "l1h1"], "l1n1": ["l1h2", "l1h3"],
    }  # fmt: skip
    assert fabric.inside == 4.0 and leaf_spine().servers == {} and leaf_spine().inside is None
    assert Fabric.from_json(json.loads(json.dumps(fabric.to_json()))) == fabric


@pytest.mark.parametrize(("racks", "hosts", "spines"), [(2, 1, 1), (4, 4, 4), (3, 2, 5)])
def test_two_planes_meet_in_nics_only(racks: int, hosts: int, spines: int) -> None:
    """Without the NICs two equal full meshes are left, each of half the rate; every host has as many paths to another rack as there are spines in both."""
    fabric = dual_plane(racks, hosts, spines)
    nics = [switch.name for switch in fabric.switches if not switch.transit]
    assert len(nics) == len(fabric.hosts) == racks * hosts
    rest = fabric.graph.subgraph(set(fabric.graph) - set(nics) - fabric.host_by_name.keys())
    planes = [rest.subgraph(nodes) for nodes in nx.connected_components(rest)]
    assert len(planes) == 2 and all(nx.is_isomorphic(plane, nx.complete_bipartite_graph(racks, spines)) for plane in planes)
    assert {scale for port, scale in fabric.scale.items() if fabric.peer[port].node not in fabric.host_by_name and port.node not in fabric.host_by_name} == {0.5}
    assert {fabric.scale[Port(host.name, 0)] for host in fabric.hosts} == {1.0}
    for host in fabric.hosts:
        near = fabric.attached_to[host.name]
        assert len(near) == 2 and not any(near[0] in plane and near[1] in plane for plane in planes)
    assert len(PathSets(fabric)("r0h0", "r1h0")) == 2 * spines
    assert_names_and_addresses(fabric)
    assert Fabric.from_json(json.loads(json.dumps(fabric.to_json()))) == fabric


def test_switches_of_older_records_pass_on_what_they_get() -> None:
    """Those do not say it."""
    data = json.loads(json.dumps(single_switch(2).to_json()))
    del data["switches"][0]["transit"]
    assert Fabric.from_json(data) == single_switch(2)


@pytest.mark.parametrize("hosts", [2, 16, 300])
def test_single_switch_is_a_star(hosts: int) -> None:
    """One switch, a host on each port in order, all names and addresses unique, also past 250 hosts."""
    fabric = single_switch(hosts)
    assert nx.is_isomorphic(fabric.graph, nx.star_graph(hosts))
    assert [fabric.peer[port].node for port in fabric.ports_of["s0"]] == [host.name for host in fabric.hosts]
    assert_names_and_addresses(fabric)


@pytest.mark.parametrize("hosts", [1, 1025])
def test_single_switch_refuses_other_sizes(hosts: int) -> None:
    """Fewer than two hosts have nobody to talk to."""
    with pytest.raises(RequestError, match=rf"topology\.hosts: got {hosts}; accepted: 2 to 1024"):
        single_switch(hosts)
