"""Next hops and paths: shortest, free of loops, complete."""

from __future__ import annotations

from itertools import permutations

import networkx as nx
import pytest

from fabric.graph import Fabric, FabricBuilder
from fabric.paths import NextHops, Path, equal_cost_paths, next_hops, spanning_tree_hops, walk
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch


def diamond() -> Fabric:
    """Two parallel links, a long way round, and a host attached twice that would be a short cut, were it to forward."""
    build = FabricBuilder("diamond")
    for name in ("left", "right", "over", "under"):
        build.switch(name)
    for host, switch in (("a", "left"), ("b", "right"), ("c", "under")):
        build.link(build.host(host), switch)
    build.link("left", "right")
    build.link("left", "right")
    build.link("left", "over")
    build.link("over", "under")
    build.link("b", "under")
    return build.fabric()


FABRICS = [fat_tree(2), fat_tree(4), single_switch(5), diamond()]
each_fabric = pytest.mark.parametrize("fabric", FABRICS, ids=["fat-tree-2", "fat-tree-4", "single-switch", "diamond"])


def switch_distance(fabric: Fabric, src: str, dst: str) -> int:
    """Links on the shortest way that crosses switches only, from networkx."""
    ends = [host.name for host in fabric.hosts if host.name not in (src, dst)]
    return int(nx.shortest_path_length(fabric.graph.subgraph(set(fabric.graph) - set(ends)), src, dst))


@each_fabric
def test_next_hops_are_exactly_the_shortest(fabric: Fabric) -> None:
    """A port is a next hop exactly when its far end is nearer, hosts never forwarding: so no loop is possible."""
    hops = next_hops(fabric)
    assert hops.keys() == fabric.switch_by_name.keys()
    for switch, host in ((switch, host.name) for switch in hops for host in fabric.hosts):
        here = switch_distance(fabric, switch, host)
        nearer = [
            port
            for port in fabric.ports_of[switch]
            if (far := fabric.peer[port].node) == host
            or (far in fabric.switch_by_name and switch_distance(fabric, far, host) < here)
        ]
        assert list(hops[switch][host]) == nearer
        assert nearer


def follow(fabric: Fabric, hops: NextHops, src: str, dst: str, last: bool) -> Path:
    """The path by the first or the last choice everywhere; AssertionError when it passes a node twice."""
    seen: set[str] = set()

    def choose(switch: str) -> object:
        assert switch not in seen, f"{switch} twice from {src} to {dst}"
        seen.add(switch)
        return hops[switch][dst][-1 if last else 0]

    return walk(fabric, src, dst, choose)  # type: ignore[arg-type]


@each_fabric
@pytest.mark.parametrize("last", [False, True])
def test_every_pair_is_reached_without_a_loop(fabric: Fabric, last: bool) -> None:
    """From every host to every other, by next hops and on the tree, no switch is passed twice."""
    for hops in (next_hops(fabric), spanning_tree_hops(fabric)):
        for src, dst in permutations([host.name for host in fabric.hosts], 2):
            path = follow(fabric, hops, src, dst, last)
            assert path[0].node == src
            assert fabric.peer[path[-1]].node == dst


@each_fabric
def test_equal_cost_paths_are_all_the_shortest(fabric: Fabric) -> None:
    """As many as networkx finds, times parallel links; each joined end to end; all different."""
    for src, dst in permutations([host.name for host in fabric.hosts], 2):
        paths = equal_cost_paths(fabric, src, dst)
        assert len(set(paths)) == len(paths)
        assert {len(path) for path in paths} == {switch_distance(fabric, src, dst)}
        for path in paths:
            assert path[0].node == src
            assert [fabric.peer[port].node for port in path] == [*(port.node for port in path[1:]), dst]
        inner = set(fabric.switch_by_name) | {src, dst}
        ways = {tuple(port.node for port in path) for path in paths}
        assert len(ways) == len(list(nx.all_shortest_paths(fabric.graph.subgraph(inner), src, dst)))


def test_parallel_links_are_two_paths() -> None:
    """Two links between the same switches are two next hops."""
    fabric = diamond()
    assert [port.number for port in next_hops(fabric)["right"]["a"]] == [2, 3]
    assert len(equal_cost_paths(fabric, "a", "b")) == 2


@each_fabric
def test_the_spanning_tree_is_a_tree(fabric: Fabric) -> None:
    """One port each; the links in use are one fewer than the nodes they join, and join all."""
    tree = spanning_tree_hops(fabric)
    used = nx.Graph()
    for toward in tree.values():
        for (port,) in toward.values():
            used.add_edge(port.node, fabric.peer[port].node)
    assert set(used) == set(fabric.graph)
    assert used.number_of_edges() == len(used) - 1
    assert nx.is_connected(used)


def test_the_spanning_tree_of_a_fat_tree_has_one_core() -> None:
    """All traffic between pods meets in the root: that is why it is no baseline for ECMP."""
    fabric = fat_tree(4)
    tree = spanning_tree_hops(fabric)
    crossed = {
        port.node
        for src, dst in permutations([host.name for host in fabric.hosts], 2)
        for port in follow(fabric, tree, src, dst, last=False)
    }
    assert [name for name in sorted(crossed) if name.startswith("g")] == ["g0c0"]


def test_hosts_never_forward() -> None:
    """Even where the way through a host attached twice would be shorter, paths cross switches only."""
    fabric = diamond()
    (path,) = equal_cost_paths(fabric, "a", "c")
    assert [port.node for port in path] == ["a", "left", "over", "under"]
    assert {fabric.peer[port].node for port in next_hops(fabric)["right"]["c"]} == {"left"}


def test_the_tree_takes_the_shorter_side() -> None:
    """The root is a switch farthest from the hosts, so that the tree's branches are shortest ways to it."""
    fabric = diamond()
    assert walk(fabric, "a", "c", lambda switch: spanning_tree_hops(fabric)[switch]["c"][0])[1:] == (
        fabric.ports_of["left"][3],
        fabric.ports_of["over"][1],
        fabric.ports_of["under"][0],
    )
