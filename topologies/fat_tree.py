"""The k-ary fat-tree: full bisection from identical k-port switches.

Source: Al-Fares, Loukissas, Vahdat, "A Scalable, Commodity Data Center Network Architecture", SIGCOMM 2008.
"""

from __future__ import annotations

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder

__all__ = ["fat_tree"]


# Coordinates are the one source: names, dpids, ports and addresses below are all written in them.
# pod 0..k-1, edge and agg (aggregation) 0..k/2-1 inside a pod, host 0..k/2-1 on its edge switch;
# core (group, index): aggregation switch `group` of every pod reaches the k/2 cores of that group.
def _dpid(tier: int, major: int, minor: int) -> int:
    """Readable in hexadecimal: 0x10203 is tier 1, pod 2, switch 3."""
    return tier << 16 | major << 8 | minor


def _ip(pod: int, edge: int, host: int) -> str:
    return f"10.{pod}.{edge}.{host + 2}"


def fat_tree(k: int = 4, *, edge_scale: float = 1.0, core_scale: float = 1.0) -> Fabric:
    """A fat-tree of k-port switches: k pods, k^2/4 cores, k^3/4 hosts, (k/2)^2 paths between pods.

    Links above the edge switches carry `edge_scale` times what hosts' links do, those above the aggregation switches `core_scale` times: 0.5 oversubscribes
    a tier 2:1.

    >>> fabric = fat_tree(4)
    >>> len(fabric.switches), len(fabric.hosts), len(fabric.links)
    (20, 16, 48)
    >>> fabric.hosts[5].name, fabric.hosts[5].ip
    ('p1e0h1', '10.1.0.3')
    """
    if k < 2 or k % 2 or k > 254:
        raise RequestError(f"topology.k: got {k}; accepted: an even number from 2 to 254; a fat-tree halves every switch's ports")
    scales = {"edge_scale": edge_scale, "core_scale": core_scale}
    for name, scale in scales.items():
        if not scale > 0:
            raise RequestError(f"topology.{name}: got {scale:g}; accepted: a number above 0; write e.g. {name}: 0.5 for 2:1")
    half = k // 2
    build = FabricBuilder("fat-tree", {"k": k, **{name: scale for name, scale in scales.items() if scale != 1}})
    for group in range(half):
        for index in range(half):
            build.switch(f"g{group}c{index}", tier="core", position=(group, index), dpid=_dpid(3, group, index))
    for pod in range(k):
        _pod(build, pod, half, edge_scale, core_scale)
    return build.fabric()


def _pod(build: FabricBuilder, pod: int, half: int, edge_scale: float, core_scale: float) -> None:
    """One pod; on every switch the ports 1..k/2 go down and k/2+1..k go up, in the order of the far coordinates."""
    for agg in range(half):
        name = build.switch(f"p{pod}a{agg}", tier="aggregation", position=(pod, agg), dpid=_dpid(2, pod, agg))
        for index in range(half):
            build.link(name, f"g{agg}c{index}", a_port=half + 1 + index, b_port=pod + 1, scale=core_scale)
    for edge in range(half):
        name = build.switch(f"p{pod}e{edge}", tier="edge", position=(pod, edge), dpid=_dpid(1, pod, edge))
        for agg in range(half):
            build.link(name, f"p{pod}a{agg}", a_port=half + 1 + agg, b_port=edge + 1, scale=edge_scale)
        for host in range(half):
            build.host(f"p{pod}e{edge}h{host}", position=(pod, edge, host), ip=_ip(pod, edge, host))
            build.link(f"p{pod}e{edge}h{host}", name, a_port=0, b_port=host + 1)
