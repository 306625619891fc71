"""Two tiers, every leaf on every spine: the plain Clos network of most data centres.

Source: Alizadeh, Edsall, "On the Data Path Performance of Leaf-Spine Datacenter Fabrics", HOTI 2013.
"""

from __future__ import annotations

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder

__all__ = ["leaf_spine"]


def leaf_spine(leaves: int = 4, spines: int = 4, hosts: int = 4, scale: float = 1.0) -> Fabric:
    """`hosts` hosts on each of `leaves` leaves, a link of `scale` times a host's rate from each to every one of `spines` spines.

    1:1 where hosts = spines x scale; fewer or slower uplinks oversubscribe the leaves.

    >>> fabric = leaf_spine(4, 2, 4)
    >>> len(fabric.switches), len(fabric.hosts), len(fabric.links)
    (6, 16, 24)
    """
    for name, value, least, most in (("leaves", leaves, 2, 250), ("spines", spines, 1, 250), ("hosts", hosts, 1, 250)):
        if not least <= value <= most:
            raise RequestError(f"topology.{name}: got {value}; accepted: {least} to {most}")
    if not scale > 0:
        raise RequestError(f"topology.scale: got {scale}; accepted: a number above 0")
    build = FabricBuilder("leaf-spine", {"leaves": leaves, "spines": spines, "hosts": hosts, "scale": scale})
    for spine in range(spines):
        build.switch(f"s{spine}", tier="spine", position=(spine,), dpid=2 << 16 | spine)
    for leaf in range(leaves):
        name = build.switch(f"l{leaf}", tier="leaf", position=(leaf,), dpid=1 << 16 | leaf)
        for host in range(hosts):
            build.link(build.host(f"l{leaf}h{host}", position=(leaf, host), ip=f"10.{leaf}.0.{host + 2}"), name, a_port=0, b_port=host + 1)
        for spine in range(spines):
            build.link(name, f"s{spine}", a_port=hosts + 1 + spine, b_port=leaf + 1, scale=scale)
    return build.fabric()
