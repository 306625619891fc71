"""Invariants of the topologies, for several sizes; never coordinates of code."""

from __future__ import annotations

import ipaddress
from collections import Counter

import networkx as nx
import pytest

from fabric.errors import RequestError
from fabric.graph import Fabric, mac_of
from fabric.paths import equal_cost_paths, next_hops
from topologies.dumbbell import dumbbell
from topologies.fat_tree import fat_tree
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


@pytest.mark.parametrize("k", SIZES)
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


@pytest.mark.parametrize("k", [0, -2, 3, 256])
def test_fat_tree_refuses_other_radixes(k: int) -> None:
    """Odd, too small or too large for an address byte."""
    with pytest.raises(RequestError, match=rf"topology\.k: got {k}; accepted: an even number from 2 to 254"):
        fat_tree(k)


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
