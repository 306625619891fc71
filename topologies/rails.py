"""Servers with several NICs, NIC i of every server on leaf i: rail-optimized with spines above the leaves, rail-only without.

A NIC is a host here, `n3r1` the NIC of server n3 on rail 1; those of a server share its network namespace and a link inside, the
stand-in for NVLink. Sources: NVIDIA, "DGX SuperPOD Reference Architecture" (leaves by rail, meshed with all spines); Wang et al.,
"Rail-only: A Low-Cost High-Performance Network for Training LLMs with Trillion Parameters", arXiv 2307.12169.
"""

from __future__ import annotations

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder

__all__ = ["inside", "rail_only", "rail_optimized"]

_HOSTS_A_BYTE = 250
_MOST = 2048  # hosts


def rail_optimized(
    servers: int = 4, rails: int = 4, oversubscription: int = 1, units: int = 1, nvlink_ratio: float | str = 9.0
) -> Fabric:
    """`units` of `servers` servers with a NIC on each of `rails` leaves, every leaf on each of servers / `oversubscription` spines.

    `nvlink_ratio` is what a NIC can send inside its server, in rates of a NIC, or "free" for no limit. Hosts are in the order
    of servers, and there of rails: rank r of as many ranks as hosts is on rail r mod `rails`.

    >>> fabric = rail_optimized(servers=4, rails=2, oversubscription=2)
    >>> len(fabric.hosts), [switch.name for switch in fabric.switches], len(fabric.links)
    (8, ['s0', 's1', 'u0l0', 'u0l1'], 12)
    """
    _refuse(servers, rails, units)
    if oversubscription < 1 or servers % oversubscription:
        known = ", ".join(str(by) for by in range(1, servers + 1) if servers % by == 0)
        raise RequestError(f"topology.oversubscription: got {oversubscription}; accepted: {known}, which divide the {servers} servers of a leaf")
    params = {"servers": servers, "rails": rails, "oversubscription": oversubscription, "units": units, "nvlink_ratio": nvlink_ratio}
    build = FabricBuilder("rail-optimized", params, inside=inside(nvlink_ratio))
    spines = servers // oversubscription
    for spine in range(spines):
        build.switch(f"s{spine}", tier="spine", position=(spine,), dpid=2 << 16 | spine)
    for unit in range(units):
        _unit(build, unit, servers, rails)
        for rail in range(rails):
            for spine in range(spines):
                build.link(_leaf(unit, rail), f"s{spine}", a_port=servers + 1 + spine, b_port=unit * rails + rail + 1)
    return build.fabric()


def rail_only(servers: int = 4, rails: int = 4, nvlink_ratio: float | str = 9.0) -> Fabric:
    """The same without spines: rails meet nowhere but inside servers; what is to change rails is forwarded there.

    >>> [switch.name for switch in rail_only(servers=2, rails=2).switches]
    ['u0l0', 'u0l1']
    """
    _refuse(servers, rails, 1)
    params = {"servers": servers, "rails": rails, "nvlink_ratio": nvlink_ratio}
    build = FabricBuilder("rail-only", params, inside=inside(nvlink_ratio))
    _unit(build, 0, servers, rails)
    return build.fabric()


def _leaf(unit: int, rail: int) -> str:
    return f"u{unit}l{rail}"


def _unit(build: FabricBuilder, unit: int, servers: int, rails: int) -> None:
    """One leaf for each rail, and the servers on them; on a leaf port s + 1 leads to server s of the unit."""
    for rail in range(rails):
        build.switch(_leaf(unit, rail), tier="leaf", position=(unit, rail), dpid=1 << 16 | unit << 8 | rail)
    for index in range(servers):
        server = unit * servers + index
        for rail in range(rails):
            ip = f"10.{rail}.{server // _HOSTS_A_BYTE}.{server % _HOSTS_A_BYTE + 2}"
            name = build.host(f"n{server}r{rail}", position=(server, rail), ip=ip, server=f"n{server}")
            build.link(name, _leaf(unit, rail), a_port=0, b_port=index + 1)


def inside(nvlink_ratio: float | str) -> float | None:
    """What a NIC can send inside its server, in rates of a link; None for no limit. RequestError for another text, or a ratio that is none."""
    if nvlink_ratio == "free":
        return None
    if isinstance(nvlink_ratio, (str, bool)) or not 0 < nvlink_ratio <= 1000:
        raise RequestError(f"topology.nvlink_ratio: got {nvlink_ratio!r}; accepted: a number above 0 and at most 1000, or free")
    return float(nvlink_ratio)


def _refuse(servers: int, rails: int, units: int) -> None:
    for name, value, least, most in (("servers", servers, 2, 250), ("rails", rails, 1, 200), ("units", units, 1, 100)):
        if not least <= value <= most:
            raise RequestError(f"topology.{name}: got {value}; accepted: {least} to {most}")
    if servers * rails * units > _MOST:
        raise RequestError(f"topology.servers: got {servers * rails * units} NICs in all; accepted: at most {_MOST}; use fewer servers, rails or units")
