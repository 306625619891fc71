"""The paths that the switches' installed rules really give: asked of the running switches, hash included."""

from __future__ import annotations

from fabric.graph import Fabric, Port
from fabric.ovs import PrivateOvs
from fabric.paths import Path
from fabric.tcp import Endpoints

__all__ = ["installed_path"]


def installed_path(ovs: PrivateOvs, fabric: Fabric, src: str, dst: str, endpoints: Endpoints) -> Path | None:
    """The ports that a connection's packets leave by, from host to host.

    None where the rules do not say: a switch would ask its controller, drop, flood, or send the packet in a circle.
    """
    hosts = fabric.host_by_name
    flow = (
        f"tcp,dl_src={hosts[src].mac},dl_dst={hosts[dst].mac},nw_src={endpoints.src_ip},nw_dst={endpoints.dst_ip},"
        f"tp_src={endpoints.src_port},tp_dst={endpoints.dst_port}"
    )
    path = [fabric.ports_of[src][0]]
    for _ in fabric.switches:
        here = fabric.peer[path[-1]]
        outputs = ovs.trace(here.node, f"in_port={here.number},{flow}")
        if len(outputs) != 1:
            return None
        path.append(Port(here.node, outputs[0]))
        if path[-1] not in fabric.peer:
            return None
        if fabric.peer[path[-1]].node == dst:
            return tuple(path)
    return None
