"""Equal-cost shortest paths of a Fabric: the sets that controllers choose from and that theory is computed on.

Comes in: a `Fabric`, and the ports of dead links. Goes out: next hops by switch and destination, and whole paths. A
path is the sequence of ports that a packet leaves by, the sending host's first; hosts never forward, nor do switches
without `transit` for any but their own hosts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property

from fabric.graph import INSIDE, Fabric, Host, Port

__all__ = ["NextHops", "Path", "PathSets", "cut_off", "ends", "equal_cost_paths", "next_hops", "spanning_tree_hops", "walk"]

Path = tuple[Port, ...]
NextHops = Mapping[str, Mapping[str, tuple[Port, ...]]]
REMEMBERED_PATHS = 1_000_000  # paths between switches that a PathSets keeps: some 150 MB


class PathSets:
    """The shortest paths between hosts, and between switches, over the links that are up; worked out when asked for.

    A link is down when either of its two ports is in `down`. Where all the shortest paths of the whole fabric are cut,
    the shortest of those that remain are given. Paths are kept by pair of switches, not of hosts.

    >>> from topologies.fat_tree import fat_tree
    >>> len(PathSets(fat_tree(4))("p0e0h0", "p1e0h0"))
    4
    """

    def __init__(self, fabric: Fabric, down: frozenset[Port] = frozenset()) -> None:
        self._fabric = fabric
        self._dead = down | {fabric.peer[port] for port in down if port in fabric.peer}
        self._whole: PathSets | None = PathSets(fabric) if self._dead else None
        self._between: dict[tuple[str, str], tuple[Path, ...]] = {}
        self._kept = 0
        self._distance: dict[str, dict[str, int]] = {}

    def __call__(self, src: str, dst: str) -> tuple[Path, ...]:
        """Every shortest path between two hosts, in port order; empty when nothing joins them; within a server the one inside."""
        if self._fabric.together(src, dst):
            return ((Port(src, INSIDE),),)
        paths = [
            (first, *middle, last)
            for first in self._alive(src)
            for last in (self._fabric.peer[port] for port in self._alive(dst))
            for middle in self.between(self._fabric.peer[first].node, last.node)
        ]
        shortest = min(map(len, paths), default=0)
        return tuple(sorted(path for path in paths if len(path) == shortest)) if self._twice(src, dst) else tuple(paths)

    def between(self, src: str, dst: str) -> tuple[Path, ...]:
        """Every shortest path from switch to switch, in port order: from a port of the first to the port into the last.

        One empty path when both are the same switch; none when nothing joins them.
        """
        found = self._between.get((src, dst))
        if found is None:
            if self._kept > REMEMBERED_PATHS:
                self._between.clear()
                self._kept = 0
            found = self._between[src, dst] = self._search(src, dst)
            self._kept += len(found)
        return found

    def without(self, down: frozenset[Port]) -> PathSets:
        """The sets when exactly these ports are down, whatever was down before; they share what was worked out."""
        whole = self._whole or self
        if not down:
            return whole
        sets = PathSets(self._fabric, down)
        sets._whole = whole
        return sets

    def _search(self, src: str, dst: str) -> tuple[Path, ...]:
        if self._whole is not None:
            alive = tuple(path for path in self._whole.between(src, dst) if self._dead.isdisjoint(path))
            if alive:  # no path can be shorter than the whole fabric's shortest
                return alive
        distance = self._distance_to(dst)
        if src not in distance:
            return ()
        paths: list[Path] = [()]
        nodes = [src]
        for left in range(distance[src], 0, -1):
            steps = [
                ((*path, port), far)
                for path, node in zip(paths, nodes, strict=True)
                for port, far in self._out[node]
                if distance.get(far) == left - 1 and (far == dst or self._fabric.switch_by_name[far].transit)
            ]
            paths, nodes = [path for path, _ in steps], [far for _, far in steps]
        return tuple(paths)

    def _distance_to(self, switch: str) -> dict[str, int]:
        """Links from every switch that reaches it to `switch`, through switches alone."""
        known = self._distance.get(switch)
        if known is not None:
            return known
        distance = self._distance[switch] = {switch: 0}
        queue = deque([switch])
        while queue:
            node = queue.popleft()
            for _, far in self._out[node]:
                if far not in distance:
                    distance[far] = distance[node] + 1
                    if self._fabric.switch_by_name[far].transit:
                        queue.append(far)
        return distance

    @cached_property
    def _out(self) -> dict[str, list[tuple[Port, str]]]:
        """By switch, its live ports to other switches and whom they reach, in port order."""
        switches, peer = self._fabric.switch_by_name, self._fabric.peer
        return {
            name: [(port, peer[port].node) for port in self._alive(name) if peer[port].node in switches]
            for name in switches
        }

    def _alive(self, node: str) -> list[Port]:
        return [port for port in self._fabric.ports_of[node] if port not in self._dead]

    def _twice(self, *hosts: str) -> bool:
        """Whether any of the hosts is attached more than once, so that ways of different lengths compete."""
        return any(len(self._fabric.ports_of[host]) > 1 for host in hosts)


def cut_off(fabric: Fabric, down: frozenset[Port]) -> list[str]:
    """The hosts outside the largest group that still reach each other while these ports are down; of equal groups the first one counts as largest.

    >>> from topologies.leaf_spine import leaf_spine
    >>> fabric = leaf_spine(2, 2, 2)
    >>> cut_off(fabric, frozenset(fabric.ports_of["l1"]))
    ['l1h0', 'l1h1']
    """
    paths, names = PathSets(fabric, down), list(fabric.host_by_name)
    reached = {src: [dst for dst in names if dst == src or paths(src, dst)] for src in names}
    largest = max(reached.values(), key=len)
    return [name for name in names if name not in largest]


def ends(fabric: Fabric) -> tuple[Host, Host]:
    """The first host, and the last one that it reaches over the network: what is pinged to see that it carries."""
    first, paths = fabric.hosts[0], PathSets(fabric)
    return first, next(
        (host for host in reversed(fabric.hosts) if host != first and not fabric.together(first.name, host.name) and paths(first.name, host.name)),
        fabric.hosts[-1],
    )


def next_hops(fabric: Fabric) -> dict[str, dict[str, tuple[Port, ...]]]:
    """For every switch and every host, the ports that lie on a shortest path there, in port order; none where nothing joins them."""
    toward: dict[str, dict[str, tuple[Port, ...]]] = {switch.name: {} for switch in fabric.switches}
    for host in fabric.hosts:
        distance = _distances(fabric, host.name)
        passing = {switch.name for switch in fabric.switches if switch.transit} | _beside(fabric, host.name)
        for switch in toward:
            toward[switch][host.name] = tuple(
                port
                for port in fabric.ports_of[switch]
                if switch in distance
                and distance.get(fabric.peer[port].node, len(distance)) < distance[switch]
                and fabric.peer[port].node in (passing | {host.name})
            )
    return toward


def spanning_tree_hops(fabric: Fabric) -> dict[str, dict[str, tuple[Port, ...]]]:
    """Like `next_hops`, over one breadth-first tree from the first switch farthest from the hosts; one port each.

    Where switches are joined by no others, as rails are, there is a tree for each of those parts.
    """
    parent: dict[str, Port] = {}
    root_of: dict[str, str] = {}
    for switch in sorted(fabric.switches, key=lambda switch: -fabric.level[switch.name]):
        if switch.name not in root_of:
            _grow(fabric, switch.name, parent, root_of)
    toward: dict[str, dict[str, tuple[Port, ...]]] = {switch.name: {} for switch in fabric.switches}
    for host in fabric.hosts:
        below = _down_the_tree(fabric, parent, host.name)
        for name in toward:
            up = (parent[name],) if name in parent else ()
            toward[name][host.name] = () if root_of[name] != root_of[host.name] else (below[name],) if name in below else up
    return toward


def _grow(fabric: Fabric, root: str, parent: dict[str, Port], root_of: dict[str, str]) -> None:
    """The tree of all that can be reached from `root` through switches."""
    root_of[root] = root
    queue = deque([root])
    while queue:
        node = queue.popleft()
        for port in fabric.ports_of[node]:
            far = fabric.peer[port]
            ends_here = node != root and not fabric.switch_by_name[node].transit and far.node in fabric.switch_by_name
            if far.node not in root_of and not ends_here:
                parent[far.node], root_of[far.node] = far, root
                if far.node in fabric.switch_by_name:
                    queue.append(far.node)


def walk(fabric: Fabric, src: str, dst: str, choose: Callable[[str], Port]) -> Path:
    """The path from host to host where every switch named to `choose` answers the port it would use."""
    path = [fabric.ports_of[src][0]]
    while (node := fabric.peer[path[-1]].node) != dst:
        path.append(choose(node))
    return tuple(path)


def equal_cost_paths(fabric: Fabric, src: str, dst: str, hops: NextHops | None = None) -> list[Path]:
    """Every shortest path between two hosts over the network, in port order; `hops` saves computing `next_hops` again."""
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
    shortest = min(map(len, paths), default=0)
    return [path for path in paths if len(path) == shortest]


def _distances(fabric: Fabric, host: str) -> dict[str, int]:
    """Links from every switch (and the host) to `host`, through switches alone."""
    distance, own = {host: 0}, _beside(fabric, host)
    queue = deque([host])
    while queue:
        node = queue.popleft()
        for port in fabric.ports_of[node]:
            far = fabric.peer[port].node
            if far not in distance and far in fabric.switch_by_name:
                distance[far] = distance[node] + 1
                if far in own or fabric.switch_by_name[far].transit:
                    queue.append(far)
    return distance


def _beside(fabric: Fabric, host: str) -> set[str]:
    """The switches that a host hangs on."""
    return {fabric.peer[port].node for port in fabric.ports_of[host]}


def _down_the_tree(fabric: Fabric, parent: Mapping[str, Port], host: str) -> dict[str, Port]:
    """For every ancestor of `host` in the tree, its port towards it."""
    down: dict[str, Port] = {}
    node = host
    while node in parent:
        port = fabric.peer[parent[node]]
        down[port.node] = port
        node = port.node
    return down
