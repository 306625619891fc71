"""Hosts on two switches with one link between them: the classic bottleneck, which no route avoids.

Source of the name and use: Floyd, Kohler, "Tools for the Evaluation of Simulation and Testbed Scenarios" (TMRG), 2008.
"""

from __future__ import annotations

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder

__all__ = ["dumbbell"]


def dumbbell(pairs: int = 2, scale: float = 1.0) -> Fabric:
    """`pairs` hosts on each side, `l0`, `l1`, ... and `r0`, `r1`, ..., and a link between the sides of `scale` times a host's rate.

    Hosts are in the order l0, l1, ..., r0, r1, ...: with ranks in that order and `groups: pairs`, job i is on li and ri.

    >>> fabric = dumbbell(2)
    >>> [host.name for host in fabric.hosts], len(fabric.links)
    (['l0', 'l1', 'r0', 'r1'], 5)
    """
    if not 1 <= pairs <= 250:
        raise RequestError(f"topology.pairs: got {pairs}; accepted: 1 to 250")
    if not scale > 0:
        raise RequestError(f"topology.scale: got {scale}; accepted: a number above 0")
    build = FabricBuilder("dumbbell", {"pairs": pairs, "scale": scale})
    left = build.switch("left", tier="edge", position=(0,), dpid=1)
    right = build.switch("right", tier="edge", position=(1,), dpid=2)
    build.link(left, right, a_port=pairs + 1, b_port=pairs + 1, scale=scale)
    for side, (name, switch) in enumerate((("l", left), ("r", right))):
        for index in range(pairs):
            host = build.host(f"{name}{index}", position=(side, index), ip=f"10.0.{side}.{index + 2}")
            build.link(host, switch, a_port=0, b_port=index + 1)
    return build.fabric()
