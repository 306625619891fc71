"""A Ryu app that runs beside every controller: says when the switches are ready, and records port counters.

It installs nothing and forwards nothing. Ready means: every switch of the topology is connected, the other app has
dealt with each connection, and every switch has answered a barrier sent after that.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ryu.base.app_manager import RyuApp
from ryu.controller import event, ofp_event
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3

from fabric.counters import EventCounters, EventReady
from fabric.graph import Fabric
from fabric.portcounts import Counters, PortCount
from fabric.portrounds import PortRounds

__all__ = ["Monitor"]


class _Flush(event.EventBase):
    """Goes through an app's own queue: when it is handled, everything before it has been."""


class Monitor(RyuApp):
    """Readiness and counters, from OpenFlow alone."""

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012  (Ryu's own convention)
    _EVENTS = [EventCounters, EventReady]  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folder = Path(os.environ["FABRIC_RUN"])
        setup = json.loads((self.folder / "controller.json").read_text())
        self.period_s = setup["poll_ms"] / 1000
        self.fabric = Fabric.from_json(json.loads((self.folder / "topology.json").read_text()))
        self.datapaths: Any = {}  # by dpid; Ryu's own objects
        self.barriers: set[int] | None = None
        self.rounds = PortRounds(self.fabric, self.folder / "ports.jsonl")

    def start(self) -> Any:
        """Ryu's hook for an app's own thread."""
        super().start()
        (self.folder / "listening").touch()
        return hub.spawn(self._poll)

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def on_state(self, ev: Any) -> None:
        """Keep the set of connected switches; start the readiness check when it is complete."""
        datapath = ev.datapath
        if ev.state == DEAD_DISPATCHER:
            if datapath.id is not None and self.datapaths.get(datapath.id) is datapath:
                del self.datapaths[datapath.id]
            return
        self.datapaths[datapath.id] = datapath
        if self.barriers is None and self.datapaths.keys() >= self.fabric.switch_by_dpid.keys():
            self._flush_other_apps()

    def _flush_other_apps(self) -> None:
        from ryu.base.app_manager import SERVICE_BRICKS

        others = [app for app in SERVICE_BRICKS.values() if app is not self and app.name != "ofp_event"]
        waiting = {app.name for app in others}

        def flushed(app: Any) -> None:
            waiting.discard(app.name)
            if not waiting and self.barriers is None:
                self._send_barriers()

        for app in others:
            app.register_handler(_Flush, lambda _, app=app: flushed(app))
            app._send_event(_Flush(), None)

    def _send_barriers(self) -> None:
        self.barriers = set(self.fabric.switch_by_dpid)
        for dpid in tuple(self.barriers):
            datapath = self.datapaths[dpid]
            datapath.send_msg(datapath.ofproto_parser.OFPBarrierRequest(datapath))

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def on_barrier(self, ev: Any) -> None:
        """Write `ready` when the last switch has answered."""
        if not self.barriers:
            return
        self.barriers.discard(ev.msg.datapath.id)
        if not self.barriers:
            (self.folder / "ready").touch()
            self.send_event_to_observers(EventReady())

    def _poll(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self.period_s, time.monotonic())
            hub.sleep(max(0.0, due - time.monotonic()))
            ours = [datapath for datapath in self.datapaths.values() if datapath.id in self.fabric.switch_by_dpid]
            self._tell(self.rounds.ask(datapath.id for datapath in ours))
            for datapath in ours:
                datapath.send_msg(datapath.ofproto_parser.OFPPortStatsRequest(datapath, 0, datapath.ofproto.OFPP_ANY))

    @set_ev_cls(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    def on_port_stats(self, ev: Any) -> None:
        """Keep the counters of each port of the fabric; the round ends with the last switch's answer."""
        counts = {
            stat.port_no: PortCount.of(stat.tx_bytes, stat.tx_packets, stat.tx_dropped, stat.rx_bytes, stat.rx_packets, stat.rx_dropped)
            for stat in ev.msg.body
        }
        more = bool(ev.msg.flags & ev.msg.datapath.ofproto.OFPMPF_REPLY_MORE)
        self._tell(self.rounds.answer(ev.msg.datapath.id, counts, more))

    def _tell(self, counters: Counters | None) -> None:
        if counters is not None:
            self.send_event_to_observers(EventCounters(counters))
