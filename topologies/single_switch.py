"""The non-blocking reference: every host on one ideal switch."""

from __future__ import annotations

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder

__all__ = ["single_switch"]


def single_switch(hosts: int = 16) -> Fabric:
    """`hosts` hosts on one switch, where only a host's own link can limit it.

    >>> [port.interface for port in single_switch(2).ports_of["s0"]]
    ['s0-eth1', 's0-eth2']
    """
    if not 2 <= hosts <= 1024:
        raise RequestError(f"topology.hosts: got {hosts}; accepted: 2 to 1024")
    build = FabricBuilder("single-switch", {"hosts": hosts})
    switch = build.switch("s0", tier="edge", position=(0,), dpid=1)
    for index in range(hosts):
        name = build.host(f"h{index}", position=(index,), ip=f"10.0.{index // 250}.{index % 250 + 2}")
        build.link(name, switch, a_port=0, b_port=index + 1)
    return build.fabric()
