"""Where the installed rules of the shipped controllers really lead, asked of the switches that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest

from fabric.graph import Fabric
from fabric.paths import Path, equal_cost_paths, next_hops
from topologies.dual_plane import dual_plane
from topologies.fat_tree import fat_tree
from topologies.rails import rail_optimized
from topologies.single_switch import single_switch

TOPOLOGIES = {"fat-tree": fat_tree(4), "single-switch": single_switch(16), "rail-optimized": rail_optimized(4, 4), "dual-plane": dual_plane(3, 2, 2)}
APPS = {name: f"controllers.{name.replace('-', '_')}" for name in ("single-path", "two-level", "ecmp")}
ALL = [f"{topology}/{app}" for topology in TOPOLOGIES for app in APPS]
SHORTEST = [name for name in ALL if name != "fat-tree/single-path"]


@dataclass(frozen=True)
class Routed:
    """A controlled fabric and the installed path of every pair of its hosts."""

    running: Any
    routes: dict[tuple[str, str], Path | None]

    @property
    def fabric(self) -> Fabric:
        """The network as described."""
        fabric: Fabric = self.running.fabric
        return fabric


@pytest.fixture(scope="module")
def routed(request: pytest.FixtureRequest, start: Any) -> Iterator[Routed]:
    """The fabric and controller named by the test's parameter, `topology/controller`."""
    topology, app = request.param.split("/")
    with start(TOPOLOGIES[topology], APPS[app]) as running:
        yield Routed(running, running.routes())


def on(*names: str) -> pytest.MarkDecorator:
    """Run a test on each of these combinations."""
    return pytest.mark.parametrize("routed", names, indirect=True)


def nodes(fabric: Fabric, route: Path) -> list[str]:
    """The nodes that a path visits, both hosts included."""
    return [port.node for port in route] + [fabric.peer[route[-1]].node]


@on(*ALL)
def test_every_host_reaches_every_other_without_a_loop(routed: Routed) -> None:
    """All pairs, or those of different servers: the path ends at its destination and visits no node twice."""
    others = len(routed.fabric.hosts) - max(map(len, routed.fabric.servers.values()), default=1)
    assert len(routed.routes) == len(routed.fabric.hosts) * others
    for (src, dst), route in routed.routes.items():
        assert route is not None, f"{src} does not reach {dst}"
        visited = nodes(routed.fabric, route)
        assert visited[0] == src and visited[-1] == dst
        assert len(set(visited)) == len(visited), f"{src} to {dst} goes in a circle: {visited}"


@on(*SHORTEST)
def test_every_path_is_a_shortest_one(routed: Routed) -> None:
    """Each installed path is among the equal-cost ones; with one switch that is the only one."""
    hops = next_hops(routed.fabric)
    for (src, dst), route in routed.routes.items():
        assert route in equal_cost_paths(routed.fabric, src, dst, hops), f"{src} to {dst}"


@on("fat-tree/single-path")
def test_single_path_uses_the_links_of_one_tree(routed: Routed) -> None:
    """All used links together are a tree over all hosts, and both directions of a pair share theirs."""
    tree = nx.Graph(pair for route in routed.routes.values() if route for pair in pairwise(nodes(routed.fabric, route)))
    assert nx.is_tree(tree)
    assert routed.fabric.host_by_name.keys() <= tree.nodes
    for (src, dst), route in routed.routes.items():
        back = routed.routes[dst, src]
        assert route and back and nodes(routed.fabric, route) == nodes(routed.fabric, back)[::-1]


@on("fat-tree/two-level")
def test_two_level_gives_each_flow_of_a_stride_its_own_links(routed: Routed) -> None:
    """Host i to host i + 8: sixteen flows across the core, and no direction of any link carries two."""
    hosts = [host.name for host in routed.fabric.hosts]
    routes = [routed.routes[src, dst] for src, dst in zip(hosts, hosts[8:] + hosts[:8], strict=True)]
    load = Counter(port for route in routes if route for port in route)
    assert len(load) == 16 * 6 and set(load.values()) == {1}


@on("rail-optimized/two-level")
def test_two_level_spreads_each_leafs_hosts_over_the_spines(routed: Routed) -> None:
    """Whatever order the topology names them in: the three other servers on a leaf are reached from another one by three spines."""
    fabric = routed.fabric
    for rail in range(1, 4):
        there = [host.name for host in fabric.hosts if host.position[1] == rail]
        # Its own server's NIC on that rail is reached inside.
        assert len({route[2].node for dst in there if (route := routed.routes.get(("n0r0", dst)))}) == 3


@on("dual-plane/two-level", "dual-plane/ecmp")
def test_both_planes_are_used_and_never_one_after_the_other(routed: Routed) -> None:
    """Each path has the leaves and spines of one; over all pairs there are paths in either."""
    planes = [{name[:2] for name in nodes(routed.fabric, route) if name[0] == "p"} for route in routed.routes.values() if route]
    assert {len(found) for found in planes} == {1} and {"p0", "p1"} == set().union(*planes)


@on("fat-tree/two-level", "fat-tree/ecmp")
def test_every_core_switch_and_every_uplink_is_used(routed: Routed) -> None:
    """Over all pairs no part of the fabric lies idle."""
    used = {port for route in routed.routes.values() if route for port in route}
    assert {port.node for port in used if port.node.startswith("g")} == {"g0c0", "g0c1", "g1c0", "g1c1"}
    uplinks = set(routed.fabric.uplinks())
    assert len(uplinks) == 32 and uplinks <= used


@on("fat-tree/two-level")
def test_two_level_spreads_destinations_evenly_over_the_cores(routed: Routed) -> None:
    """Of the 192 flows between pods each core switch carries a quarter."""
    across = [route for route in routed.routes.values() if route and len(route) == 6]
    assert Counter(route[3].node for route in across) == {"g0c0": 48, "g0c1": 48, "g1c0": 48, "g1c1": 48}


@on("fat-tree/two-level")
def test_static_routing_does_not_depend_on_ports(routed: Routed) -> None:
    """Another TCP connection between the same hosts takes the same path."""
    for dst in ("p0e0h1", "p0e1h0", "p3e1h1"):
        assert routed.running.route("p0e0h0", dst, 31337, 6000) == routed.routes["p0e0h0", dst]


@on("fat-tree/two-level")
def test_an_address_that_is_no_hosts_leads_nowhere(routed: Routed) -> None:
    """There is no rule for it, and a switch that fails secure drops what matches none."""
    assert routed.running.ovs.trace("p0e0", "in_port=1,tcp,nw_src=10.0.0.2,nw_dst=10.9.9.9") == []
    assert routed.running.ovs.trace("p0e0", "in_port=1,tcp,nw_src=10.0.0.2,nw_dst=10.0.0.3") == [2]
