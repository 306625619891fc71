"""Next hops and paths: shortest, free of loops, complete."""

from __future__ import annotations

from itertools import permutations

import networkx as nx
import pytest

from fabric.graph import Fabric, FabricBuilder, Port
from fabric.paths import NextHops, Path, PathSets, equal_cost_paths, next_hops, spanning_tree_hops, walk
from topologies.dual_plane import dual_plane
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


@each_fabric
def test_path_sets_of_a_whole_fabric_are_the_equal_cost_paths(fabric: Fabric) -> None:
    """The same paths in the same order, for every pair of hosts."""
    sets = PathSets(fabric)
    for src, dst in permutations([host.name for host in fabric.hosts], 2):
        assert list(sets(src, dst)) == equal_cost_paths(fabric, src, dst)


def test_paths_between_switches_leave_out_the_hosts_links() -> None:
    """From a port of the first switch to the port into the last; one empty path from a switch to itself."""
    sets = PathSets(fat_tree(4))
    assert [path[1:-1] for path in sets("p0e0h0", "p2e1h1")] == list(sets.between("p0e0", "p2e1"))
    assert len(sets.between("p0e0", "p2e1")) == 4
    assert sets.between("p0e0", "p0e0") == ((),)


@pytest.mark.parametrize("end", [0, 1])
def test_a_link_is_down_when_either_of_its_ports_is(end: int) -> None:
    """No path of either direction crosses it, and all the others are left."""
    fabric = fat_tree(4)
    port = Port("p0a0", 3)
    dead = {port, fabric.peer[port]}
    sets = PathSets(fabric, frozenset([(port, fabric.peer[port])[end]]))
    for src, dst in permutations([host.name for host in fabric.hosts], 2):
        assert list(sets(src, dst)) == [path for path in equal_cost_paths(fabric, src, dst) if dead.isdisjoint(path)]


def test_where_all_shortest_paths_are_cut_the_next_shortest_are_given() -> None:
    """Two edge switches of a pod that lost a direct link each go round by another pod's switches, without a loop."""
    fabric = fat_tree(4)
    sets = PathSets(fabric, frozenset([Port("p0e0", 3), Port("p0e1", 4)]))
    paths = sets("p0e0h0", "p0e1h0")
    assert all(len({port.node for port in path}) == len(path) == 10 for path in paths)
    assert {(path[2].node, path[-2].node) for path in paths} == {("p0a1", "p0a0")}
    assert len(set(paths)) == len(paths) == 2 * 3 * 2 * 2  # cores up, pods, their edge switches, cores down


def test_hosts_that_nothing_joins_have_no_paths() -> None:
    """A host whose link is down, and an edge switch without uplinks; everyone else keeps theirs."""
    fabric = fat_tree(4)
    sets = PathSets(fabric, frozenset([Port("p0e0h0", 0), Port("p1e0", 3), Port("p1e0", 4)]))
    assert sets("p0e0h0", "p3e0h0") == sets("p3e0h0", "p0e0h0") == sets("p1e0h0", "p3e0h0") == ()
    assert sets.between("p3e0", "p1e0") == ()
    assert len(sets("p1e0h0", "p1e0h1")) == 1
    assert len(sets("p0e0h1", "p3e0h0")) == 4


def test_a_link_that_is_up_again_is_used_again() -> None:
    """`without` names all that is down now, not what came down in addition."""
    fabric = fat_tree(4)
    sets = PathSets(fabric)
    cut = sets.without(frozenset([Port("p0a0", 3)]))
    assert len(cut("p0e0h0", "p1e0h0")) == 3
    assert len(cut.without(frozenset([Port("p0a0", 4)]))("p0e0h0", "p1e0h0")) == 3
    assert cut.without(frozenset())("p0e0h0", "p1e0h0") == sets("p0e0h0", "p1e0h0")


def test_a_host_attached_twice_falls_back_to_its_other_link() -> None:
    """With its near link down the longer way is the shortest that is up; the other hosts' links do not forward."""
    fabric = diamond()
    near = next(port for port in fabric.ports_of["b"] if fabric.peer[port].node == "right")
    (path,) = PathSets(fabric, frozenset([near]))("a", "b")
    assert [port.node for port in path] == ["a", "left", "over", "under"]


# -- switches that pass on only what is their hosts'


DUAL_PLANE = dual_plane(3, 2, 2)
BETWEEN_RACKS = ("r0h0", "r2h1")


def planes_of(path: Path) -> set[str]:
    """The planes that a path's leaves and spines are in."""
    return {port.node[:2] for port in path if port.node in DUAL_PLANE.switch_by_name and DUAL_PLANE.switch_by_name[port.node].transit}


def test_every_path_stays_in_one_plane() -> None:
    """Two of each plane's spines between racks, one of each plane's leaf within; equal-cost paths by next hops are the same."""
    paths = PathSets(DUAL_PLANE)
    for src, dst, count in ((*BETWEEN_RACKS, 4), ("r0h0", "r0h1", 2)):
        assert [len(planes_of(path)) for path in paths(src, dst)] == [1] * count
        assert set(paths(src, dst)) == set(equal_cost_paths(DUAL_PLANE, src, dst))


def test_planes_are_not_mixed_even_where_nothing_else_is_left() -> None:
    """With one plane's leaf dead the other serves; with either plane's at one end of each, no third host's NIC helps."""
    one, other = frozenset(DUAL_PLANE.ports_of["p0l2"]), frozenset(DUAL_PLANE.ports_of["p1l0"])
    assert {plane for path in PathSets(DUAL_PLANE, one)(*BETWEEN_RACKS) for plane in planes_of(path)} == {"p1"}
    assert PathSets(DUAL_PLANE, one | other)(*BETWEEN_RACKS) == ()
    assert len(PathSets(DUAL_PLANE, one | other)("r0h0", "r1h0")) == 2


def test_no_next_hop_is_a_nic_of_another_host() -> None:
    """Neither by shortest paths nor along the tree; there all of one plane leads to every host."""
    for hops in (next_hops(DUAL_PLANE), spanning_tree_hops(DUAL_PLANE)):
        for switch, by_host in hops.items():
            for host, ports in by_host.items():
                far = [DUAL_PLANE.peer[port].node for port in ports]
                assert not [name for name in far if name != host and name in DUAL_PLANE.switch_by_name
                            and not DUAL_PLANE.switch_by_name[name].transit and name != f"{host}nic"], (switch, host)  # fmt: skip
    tree = spanning_tree_hops(DUAL_PLANE)
    used = {switch for switch, by_host in tree.items() if any(by_host.values())}
    assert used == {name for name, switch in DUAL_PLANE.switch_by_name.items() if switch.tier == "nic" or name.startswith("p0")}
    for src, dst in permutations(DUAL_PLANE.host_by_name, 2):
        assert len(walk(DUAL_PLANE, src, dst, lambda node, dst=dst: tree[node][dst][0])) in (4, 6)  # type: ignore[misc]
