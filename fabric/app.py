"""FabricApp: a Ryu app that knows its fabric. A controller says which rules a switch gets; this sends them.

The fabric comes from `topology.json` in the controller's folder: no discovery, no waiting, no second copy of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ryu.base.app_manager import RyuApp
from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, set_ev_cls
from ryu.ofproto import ofproto_v1_3

from fabric.graph import Fabric, Switch
from fabric.openflow import Rule, flow_mod

__all__ = ["FabricApp"]


class FabricApp(RyuApp):
    """Base of the built-in controllers: override `rules`.

    `self.fabric` is the whole network, `self.parameters` what the experiment file gave under `controller`, with
    PARAMETERS as the defaults; a key that PARAMETERS lacks is refused before anything starts.
    """

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012  (Ryu's own convention)
    PARAMETERS: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        folder = Path(os.environ["FABRIC_RUN"])
        self.fabric = Fabric.from_json(json.loads((folder / "topology.json").read_text()))
        given = json.loads((folder / "controller.json").read_text())
        self.parameters: dict[str, Any] = {**self.PARAMETERS, **given["parameters"]}
        self.hash_basis: int = given["hash_basis"]

    def rules(self, switch: Switch) -> Iterable[Rule]:
        """The rules a switch starts with; sent when it connects, and again when it comes back."""
        raise TypeError(f"{type(self).__name__} must define rules(switch)")

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def on_connect(self, ev: Any) -> None:
        """Send a switch its rules."""
        datapath = ev.msg.datapath
        switch = self.fabric.switch_by_dpid.get(datapath.id)
        if switch is None:
            self.logger.warning("switch %x is not in the topology; it gets no rules", datapath.id)
            return
        for rule in self.rules(switch):
            datapath.send_msg(flow_mod(rule, datapath))
