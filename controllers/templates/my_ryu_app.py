"""A plain Ryu app to copy: shortest paths by destination. It imports nothing of fabriclab, only reads its topology.json."""

import json
import os
from typing import Any

import networkx as nx
from ryu.base.app_manager import RyuApp
from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, set_ev_cls
from ryu.ofproto import ofproto_v1_3


class MyRyuApp(RyuApp):
    """Every switch gets a rule for each host's address when it connects, and again when it comes back."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def on_connect(self, ev: Any) -> None:
        """Send a switch its rules."""
        topology, switch = json.load(open(os.environ["FABRIC_RUN"] + "/topology.json")), ev.msg.datapath  # noqa: SIM115
        graph = nx.Graph((link["a"]["node"], link["b"]["node"], link) for link in topology["links"])
        name = next(node["name"] for node in topology["switches"] if node["dpid"] == switch.id)
        for host in topology["hosts"]:
            link = graph.edges[name, nx.shortest_path(graph, name, host["name"])[1]]
            port = link["a"]["number"] if link["a"]["node"] == name else link["b"]["number"]
            match = switch.ofproto_parser.OFPMatch(eth_type=0x0800, ipv4_dst=host["nics"][0]["ip"])
            actions = [switch.ofproto_parser.OFPInstructionActions(4, [switch.ofproto_parser.OFPActionOutput(port)])]
            switch.send_msg(switch.ofproto_parser.OFPFlowMod(switch, priority=100, match=match, instructions=actions))
