"""Two planes that never meet but in the hosts' NICs: each NIC has a port on a leaf of either, and loses half of its rate with one of them.

A NIC that sends by two ports is a switch of its own, as on a DPU that runs Open vSwitch: it chooses a port for each flow, and
passes on nothing that is not its host's. Source: Qian et al., "Alibaba HPN: A Data Center Network for Large Language Model
Training", SIGCOMM 2024 (dual-ToR, dual-plane).
"""

from __future__ import annotations

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder

__all__ = ["dual_plane"]

PLANES = 2
_PORT_SCALE = 1 / PLANES  # of a NIC's rate
_MOST = 2048  # hosts


def dual_plane(racks: int = 4, hosts: int = 4, spines: int = 4) -> Fabric:
    """`racks` racks of `hosts` hosts; in each of two planes a leaf a rack, linked to every one of the plane's `spines` spines.

    A NIC has `links.mbps` and each of its two ports half of it, as has every link of a plane: 1:1 where hosts = spines. One
    connection gets one port's rate at most; two of them, as by `channels: 2`, can have the NIC's.

    >>> fabric = dual_plane(racks=2, hosts=2, spines=2)
    >>> len(fabric.hosts), [switch.name for switch in fabric.switches if switch.transit], len(fabric.links)
    (4, ['p0s0', 'p0s1', 'p1s0', 'p1s1', 'p0l0', 'p1l0', 'p0l1', 'p1l1'], 20)
    """
    for name, value, least, most in (("racks", racks, 2, 250), ("hosts", hosts, 1, 200), ("spines", spines, 1, 50)):
        if not least <= value <= most:
            raise RequestError(f"topology.{name}: got {value}; accepted: {least} to {most}")
    if racks * hosts > _MOST:
        raise RequestError(f"topology.racks: got {racks * hosts} hosts in all; accepted: at most {_MOST}; use fewer racks or hosts")
    build = FabricBuilder("dual-plane", {"racks": racks, "hosts": hosts, "spines": spines})
    for plane in range(PLANES):
        for spine in range(spines):
            build.switch(f"p{plane}s{spine}", tier="spine", position=(plane, spine), dpid=3 << 16 | plane << 8 | spine)
    for rack in range(racks):
        for plane in range(PLANES):
            leaf = build.switch(f"p{plane}l{rack}", tier="leaf", position=(plane, rack), dpid=2 << 16 | plane << 8 | rack)
            for spine in range(spines):
                build.link(leaf, f"p{plane}s{spine}", a_port=hosts + 1 + spine, b_port=rack + 1, scale=_PORT_SCALE)
        for host in range(hosts):
            _host(build, rack, host)
    return build.fabric()


def _host(build: FabricBuilder, rack: int, host: int) -> None:
    """A host and its NIC, whose port 1 is the host's, and port 2 + p that to plane p."""
    name = build.host(f"r{rack}h{host}", position=(rack, host), ip=f"10.{rack}.0.{host + 2}")
    nic = build.switch(f"{name}nic", tier="nic", position=(rack, host), dpid=1 << 16 | rack << 8 | host, transit=False)
    build.link(name, nic, a_port=0, b_port=1)
    for plane in range(PLANES):
        build.link(nic, f"p{plane}l{rack}", a_port=2 + plane, b_port=host + 1, scale=_PORT_SCALE)
