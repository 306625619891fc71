"""Two tiers, every leaf on every spine: the plain Clos network of most data centres.

Source: Alizadeh, Edsall, "On the Data Path Performance of Leaf-Spine Datacenter Fabrics", HOTI 2013.
"""

from __future__ import annotations

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder
from topologies.rails import inside

__all__ = ["leaf_spine"]


def leaf_spine(
    leaves: int = 4, spines: int = 4, hosts: int = 4, scale: float = 1.0, per_server: int = 1, nvlink_ratio: float | str = 9.0
) -> Fabric:
    """`hosts` hosts on each of `leaves` leaves, a link of `scale` times a host's rate from each to every one of `spines` spines.

    1:1 where hosts = spines x scale; fewer or slower uplinks oversubscribe the leaves. With `per_server` hosts are the NICs of
    servers of that many, all on the same leaf, and `nvlink_ratio` is as of rail-optimized.

    >>> fabric = leaf_spine(4, 2, 4)
    >>> len(fabric.switches), len(fabric.hosts), len(fabric.links)
    (6, 16, 24)
    """
    for name, value, least, most in (("leaves", leaves, 2, 250), ("spines", spines, 1, 250), ("hosts", hosts, 1, 250)):
        if not least <= value <= most:
            raise RequestError(f"topology.{name}: got {value}; accepted: {least} to {most}")
    if not scale > 0:
        raise RequestError(f"topology.scale: got {scale}; accepted: a number above 0")
    if per_server < 1 or hosts % per_server:
        known = ", ".join(str(by) for by in range(1, hosts + 1) if hosts % by == 0)
        raise RequestError(f"topology.per_server: got {per_server}; accepted: {known}, which divide the {hosts} hosts of a leaf")
    params = {"leaves": leaves, "spines": spines, "hosts": hosts, "scale": scale}
    if per_server == 1:
        build = FabricBuilder("leaf-spine", params)
    else:
        build = FabricBuilder("leaf-spine", {**params, "per_server": per_server, "nvlink_ratio": nvlink_ratio}, inside=inside(nvlink_ratio))
    for spine in range(spines):
        build.switch(f"s{spine}", tier="spine", position=(spine,), dpid=2 << 16 | spine)
    for leaf in range(leaves):
        name = build.switch(f"l{leaf}", tier="leaf", position=(leaf,), dpid=1 << 16 | leaf)
        for host in range(hosts):
            nic = build.host(f"l{leaf}h{host}", position=(leaf, host), ip=f"10.{leaf}.0.{host + 2}", server=_server(leaf, host, per_server))
            build.link(nic, name, a_port=0, b_port=host + 1)
        for spine in range(spines):
            build.link(name, f"s{spine}", a_port=hosts + 1 + spine, b_port=leaf + 1, scale=scale)
    return build.fabric()


def _server(leaf: int, host: int, per_server: int) -> str:
    return "" if per_server == 1 else f"l{leaf}n{host // per_server}"
