"""Equal-cost shortest paths of a Fabric: the sets that controllers choose from and that theory is computed on.

Comes in: a `Fabric`. Goes out: next hops by switch and destination, and whole paths. A path is the sequence of
ports that a packet leaves by, the sending host's first; hosts never forward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from fabric.graph import Fabric, Port

__all__ = ["NextHops", "Path", "equal_cost_paths", "next_hops", "spanning_tree_hops", "walk"]

Path = tuple[Port, ...]
NextHops = Mapping[str, Mapping[str, tuple[Port, ...]]]


def next_hops(fabric: Fabric) -> dict[str, dict[str, tuple[Port, ...]]]:
    """For every switch and every host, the ports that lie on a shortest path there, in port order."""
    toward: dict[str, dict[str, tuple[Port, ...]]] = {switch.name: {} for switch in fabric.switches}
    for host in fabric.hosts:
        distance = _distances(fabric, host.name)
        for switch in toward:
            toward[switch][host.name] = tuple(
                port
                for port in fabric.ports_of[switch]
                if distance.get(fabric.peer[port].node, len(distance)) < distance[switch]
                and fabric.peer[port].node in (toward.keys() | {host.name})
            )
    return toward


def spanning_tree_hops(fabric: Fabric) -> dict[str, dict[str, tuple[Port, ...]]]:
    """Like `next_hops`, over one breadth-first tree from the first switch farthest from the hosts; one port each."""
    root = max(fabric.switches, key=lambda switch: fabric.level[switch.name]).name
    parent: dict[str, Port] = {}
    queue = deque([root])
    while queue:
        node = queue.popleft()
        for port in fabric.ports_of[node]:
            far = fabric.peer[port]
            if far.node not in parent and far.node != root:
                parent[far.node] = far
                if far.node in fabric.switch_by_name:
                    queue.append(far.node)
    toward: dict[str, dict[str, tuple[Port, ...]]] = {switch.name: {} for switch in fabric.switches}
    for host in fabric.hosts:
        below = _down_the_tree(fabric, parent, host.name)
        for switch in toward:
            toward[switch][host.name] = (below[switch] if switch in below else parent[switch],)
    return toward


def walk(fabric: Fabric, src: str, dst: str, choose: Callable[[str], Port]) -> Path:
    """The path from host to host where every switch named to `choose` answers the port it would use."""
    path = [fabric.ports_of[src][0]]
    while (node := fabric.peer[path[-1]].node) != dst:
        path.append(choose(node))
    return tuple(path)


def equal_cost_paths(fabric: Fabric, src: str, dst: str, hops: NextHops | None = None) -> list[Path]:
    """Every shortest path between two hosts, in port order; `hops` saves computing `next_hops` again."""
    toward = hops if hops is not None else next_hops(fabric)
    paths: list[Path] = []
    unfinished: list[Path] = [(port,) for port in reversed(fabric.ports_of[src])]
    while unfinished:
        path = unfinished.pop()
        node = fabric.peer[path[-1]].node
        if node == dst:
            paths.append(path)
        elif node in toward:
            unfinished.extend((*path, port) for port in reversed(toward[node][dst]))
    shortest = min(map(len, paths))
    return [path for path in paths if len(path) == shortest]


def _distances(fabric: Fabric, host: str) -> dict[str, int]:
    """Links from every switch (and the host) to `host`, through switches alone."""
    distance = {host: 0}
    queue = deque([host])
    while queue:
        node = queue.popleft()
        for port in fabric.ports_of[node]:
            far = fabric.peer[port].node
            if far not in distance and far in fabric.switch_by_name:
                distance[far] = distance[node] + 1
                queue.append(far)
    return distance


def _down_the_tree(fabric: Fabric, parent: Mapping[str, Port], host: str) -> dict[str, Port]:
    """For every ancestor of `host` in the tree, its port towards it."""
    down: dict[str, Port] = {}
    node = host
    while node in parent:
        port = fabric.peer[parent[node]]
        down[port.node] = port
        node = port.node
    return down
