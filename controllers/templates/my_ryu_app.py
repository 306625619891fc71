"""A plain Ryu app to copy: shortest paths by destination. It imports nothing of fabriclab, only reads topology.json."""

import json
import os
from pathlib import Path
from typing import Any

import networkx as nx
from ryu.base.app_manager import RyuApp
from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, set_ev_cls


class MyRyuApp(RyuApp):
    """Sends a switch a rule for each host's address, whenever it connects."""

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def on_connect(self, ev: Any) -> None:
        """Look the switch up by its datapath id, and send it its rules."""
        topology = json.loads(Path(os.environ["FABRIC_RUN"], "topology.json").read_text())
        graph = nx.Graph((link["a"]["node"], link["b"]["node"], link) for link in topology["links"])
        datapath, proto, parser = ev.msg.datapath, ev.msg.datapath.ofproto, ev.msg.datapath.ofproto_parser
        here = next(switch["name"] for switch in topology["switches"] if switch["dpid"] == datapath.id)
        for host in topology["hosts"]:
            link = graph.edges[here, nx.shortest_path(graph, here, host["name"])[1]]
            port = next(end["number"] for end in (link["a"], link["b"]) if end["node"] == here)
            match = parser.OFPMatch(eth_type=0x0800, ipv4_dst=host["nics"][0]["ip"])
            then = [parser.OFPInstructionActions(proto.OFPIT_APPLY_ACTIONS, [parser.OFPActionOutput(port)])]
            datapath.send_msg(parser.OFPFlowMod(datapath, priority=100, match=match, instructions=then))
