"""The paths that the switches' installed rules really give: asked of the running switches, hash included."""

from __future__ import annotations

from typing import Literal

from fabric.graph import INSIDE, Fabric, Port
from fabric.ovs import PrivateOvs
from fabric.paths import Path
from fabric.tcp import Endpoints
from fabric.trails import trail

__all__ = ["installed_path"]


def installed_path(
    ovs: PrivateOvs, fabric: Fabric, src: str, dst: str, endpoints: Endpoints, protocol: Literal["tcp", "udp"] = "tcp"
) -> Path | None:
    """The ports that a connection's packets leave by, from host to host.

    None where the rules do not say: a switch would ask its controller, drop, flood, or send the packet in a circle.
    """
    if fabric.together(src, dst):
        return (Port(src, INSIDE),)
    hosts = fabric.host_by_name
    flow = (
        f"{protocol},dl_src={hosts[src].mac},dl_dst={hosts[dst].mac},nw_src={endpoints.src_ip},nw_dst={endpoints.dst_ip},"
        f"{protocol}_src={endpoints.src_port},{protocol}_dst={endpoints.dst_port}"
    )
    found = trail(ovs, fabric, src, dst, flow=flow)
    return found.path if found.end == "reached" else None
