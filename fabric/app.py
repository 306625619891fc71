"""FabricApp: a Ryu app that knows its fabric. A controller says which rules a switch gets; this sends them.

The fabric comes from `topology.json` in the controller's folder: no discovery, no waiting, no second copy of it. A
controller that looks at its links overrides `on_sample`; the counters behind it are asked for by `fabric.monitor`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from ryu.base.app_manager import RyuApp
from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3

from fabric.counters import EventBeat, EventCounters, EventHint, EventLinksDown, EventReady
from fabric.errors import FabricError
from fabric.graph import Fabric, Port, Switch
from fabric.hints import PLAN, Announced, Beat, serve
from fabric.lines import listening
from fabric.linkwatch import LinkWatch, QueueCount
from fabric.openflow import FailoverGroup, Rule, flow_mod, group_mods
from fabric.orders import Agency, Answer
from fabric.paths import PathSets
from fabric.policy import Lever, View
from fabric.qdiscs import QueueReader, Watched

__all__ = ["FabricApp"]

_HINT_DEADLINE_S = 10.0
_NOMINAL_MBPS = 10_000.0  # where nobody said how fast the links are: what a virtual port reports


class FabricApp(RyuApp):
    """Base of the built-in controllers: override `rules`, and what else is needed.

    `self.fabric` is the whole network, `self.parameters` what the experiment file gave under `controller`, with
    PARAMETERS as the defaults; a key that PARAMETERS lacks is refused before anything starts. `self.links` is what
    telemetry says of the links, `self.folder` the controller's own folder.
    """

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012  (Ryu's own convention)
    PARAMETERS: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folder = Path(os.environ["FABRIC_RUN"])
        self.fabric = Fabric.from_json(json.loads((self.folder / "topology.json").read_text()))
        self.setup: Mapping[str, Any] = json.loads((self.folder / "controller.json").read_text())
        self.parameters: dict[str, Any] = {**self.PARAMETERS, **self.setup["parameters"]}
        self.hash_basis: int = self.setup["hash_basis"]
        self.period_s: float = self.setup["poll_ms"] / 1000
        self.links = LinkWatch(self.fabric, self.setup.get("mbps") or _NOMINAL_MBPS)
        self.paths = PathSets(self.fabric)
        self.datapaths: dict[str, Any] = {}  # by switch; Ryu's own objects
        self._samples = count(1)
        self._errands = hub.Queue()
        self._ready = False
        self._links_down = False  # and the app has not been told yet
        self._queues: tuple[QueueReader, list[Port]] | None = None

    # -- to override

    def rules(self, switch: Switch) -> Iterable[Rule]:
        """The rules a switch starts with; sent when it connects, and again when it comes back."""
        raise TypeError(f"{type(self).__name__} must define rules(switch)")

    def groups(self, switch: Switch) -> Iterable[FailoverGroup]:
        """The groups that its rules name; sent before them."""
        return ()

    def on_ready(self) -> None:
        """Every switch is connected and has its rules."""

    def on_sample(self, view: View) -> None:
        """A round of counters came, every `poll_ms` once all is ready; `view` has the links as they are, and no flows."""

    def on_hint(self, flows: list[Announced], placed: Callable[[int], None]) -> None:
        """A collective is about to make these flows; call `placed` with their number once they have their paths."""
        placed(0)

    def on_plan(self, flows: list[Announced], placed: Callable[[int], None]) -> None:
        """A collective is about to open these connections; call `placed` with their number once they may be opened."""
        placed(0)

    def on_beat(self, beat: Beat) -> None:
        """A job has made an iteration."""

    def on_answer(self, lever: Lever, answer: Answer) -> None:
        """What came of an order to hosts or ports; a controller that gives orders must define it."""

    def on_lost(self, switch: str) -> None:
        """A switch's connection ended; what was asked of it is not answered any more."""

    def on_link(self, port: Port, up: bool) -> None:
        """A port between switches or to a host went down or came up."""

    def on_links_down(self) -> None:
        """Ports went down: called once for all that were heard of by then, as those of a dead switch come one after another."""

    def start(self) -> Any:
        """Ryu's hook for an app's own threads: here, those that take hints and carry orders."""
        running = super().start()
        if self.setup.get("agent"):
            hub.spawn(self._run_errands)
        if not self.setup.get("hints"):
            return running
        return hub.spawn(serve, listening(Path(self.setup["hints"])), self._hinted, self._noted)

    # -- to call

    def send(self, switch: str, *values: Rule | FailoverGroup) -> None:
        """Send rules and groups to a switch, in this order; nothing when it is not connected: it gets all it needs later."""
        datapath: Any = self.datapaths.get(switch)
        for value in values if datapath is not None else ():
            for message in group_mods(value, datapath) if isinstance(value, FailoverGroup) else [flow_mod(value, datapath)]:
                datapath.send_msg(message)

    def ask(self, switch: str, make: Any) -> int | None:
        """Send the request that `make(datapath)` gives and return its number, by which its answer is known."""
        datapath = self.datapaths.get(switch)
        if datapath is None:
            return None
        request = make(datapath)
        datapath.set_xid(request)
        datapath.send_msg(request)
        return int(request.xid)

    def order(self, levers: Sequence[Lever], done: Callable[[], None] = lambda: None) -> None:
        """Have hosts and ports do these; each is told to `on_answer`, and then `done` is called. Returns at once."""
        if self.setup.get("agent"):
            self._errands.put((levers, done))
            return
        for lever in levers:
            self.on_answer(lever, Answer(error="nobody takes orders here: there is no agent of hosts and ports"))
        done()

    def _run_errands(self) -> None:
        agency: Agency | None = None
        while True:
            levers, done = self._errands.get()
            try:
                agency = agency or Agency(Path(self.setup["agent"]["socket"]), Path(self.setup["agent"]["token"]).read_text())
                answers = agency.give(levers)
            except (OSError, ValueError, FabricError) as err:
                agency, answers = None, [Answer(error=f"the agent is not there: {err}")] * len(levers)
            for lever, answer in zip(levers, answers, strict=True):
                self.on_answer(lever, answer)
            done()

    def view(self, t: float) -> View:
        """The links as they are known at `t`, and the paths over those that are up."""
        return View(t, next(self._samples), self.period_s, self.links.links(t), (), self.usable(t))

    def usable(self, t: float) -> PathSets:
        """The paths whose links are all up, and not in hold-down."""
        return self.paths.without(self.links.down(t))

    # -- Ryu's events

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def on_connect(self, ev: Any) -> None:
        """Send a switch its groups and rules."""
        datapath = ev.msg.datapath
        switch = self.fabric.switch_by_dpid.get(datapath.id)
        if switch is None:
            self.logger.warning("switch %x is not in the topology; it gets no rules", datapath.id)
            return
        self.datapaths[switch.name] = datapath
        self.send(switch.name, *self.groups(switch), *self.rules(switch))

    @set_ev_cls(ofp_event.EventOFPStateChange, DEAD_DISPATCHER)
    def on_disconnect(self, ev: Any) -> None:
        """Forget a switch that is gone."""
        for name in [name for name, datapath in self.datapaths.items() if datapath is ev.datapath]:
            del self.datapaths[name]
            self.on_lost(name)

    @set_ev_cls(ofp_event.EventOFPPortDescStatsReply, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def on_ports(self, ev: Any) -> None:
        """Note the state of each port of a switch that has just connected."""
        for desc in ev.msg.body:
            self._port(ev.msg.datapath, desc, gone=False)

    @set_ev_cls(ofp_event.EventOFPPortStatus, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def on_port_status(self, ev: Any) -> None:
        """Note a port that changed."""
        self._port(ev.msg.datapath, ev.msg.desc, gone=ev.msg.reason == ev.msg.datapath.ofproto.OFPPR_DELETE)

    def _port(self, datapath: Any, desc: Any, gone: bool) -> None:
        proto, switch = datapath.ofproto, self.fabric.switch_by_dpid.get(datapath.id)
        port = Port(switch.name if switch else "", desc.port_no)
        up = not gone and not desc.state & proto.OFPPS_LINK_DOWN and not desc.config & proto.OFPPC_PORT_DOWN
        if port in self.fabric.peer and self.links.port_changed(port, up, time.monotonic()):
            self.on_link(port, up)
            if not up and not self._links_down:
                self._links_down = True
                self.send_event(self.name, EventLinksDown())  # it comes behind what is waiting already

    @set_ev_cls(EventLinksDown)
    def on_links_down_event(self, _: EventLinksDown) -> None:
        """Pass it on."""
        self._links_down = False
        self.on_links_down()

    def _hinted(self, phase: str, flows: list[Announced]) -> int:
        """Let the app's own thread place the flows, and wait for it."""
        answer = hub.Queue()
        self.send_event(self.name, EventHint(phase, flows, answer.put))
        return int(answer.get(timeout=_HINT_DEADLINE_S))

    def _noted(self, beat: Beat) -> None:
        self.send_event(self.name, EventBeat(beat))

    @set_ev_cls(EventBeat)
    def on_beat_event(self, ev: EventBeat) -> None:
        """Pass it on."""
        self.on_beat(ev.beat)

    @set_ev_cls(EventHint)
    def on_hint_event(self, ev: EventHint) -> None:
        """Pass it on."""
        (self.on_plan if ev.phase == PLAN else self.on_hint)(ev.flows, ev.placed)

    @set_ev_cls(EventReady)
    def on_monitor_ready(self, _: EventReady) -> None:
        """Pass it on; samples begin only now."""
        # Not sooner: a controller starts beside the network, whose interfaces need not be there yet.
        self._queues = _queue_reader(self.fabric)
        if self._queues is None:
            self.logger.warning("the switches' ports are no interfaces here: no queue is seen")
        self._ready = True
        self.on_ready()

    @set_ev_cls(EventCounters)
    def on_counters(self, ev: EventCounters) -> None:
        """Take a round of counters, read the queues beside it, and show the result to whoever wants it."""
        if not self._ready or type(self).on_sample is FabricApp.on_sample:
            return
        self.links.counted(ev.counters)
        for port in self.links.queued(self._read_queues()):
            self.on_degraded(port)
        self.on_sample(self.view(time.monotonic()))

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def on_refused(self, ev: Any) -> None:
        """A switch refused a message: say so, as what was meant is not in force; a group that is there already is fine."""
        proto = ev.msg.datapath.ofproto
        if (ev.msg.type, ev.msg.code) == (proto.OFPET_GROUP_MOD_FAILED, proto.OFPGMFC_GROUP_EXISTS):
            return
        switch = self.fabric.switch_by_dpid.get(ev.msg.datapath.id)
        name = switch.name if switch else hex(ev.msg.datapath.id or 0)
        self.logger.error("switch %s refused a message: error type %d, code %d", name, ev.msg.type, ev.msg.code)

    def on_degraded(self, port: Port) -> None:
        """Telemetry has just shown that a link carries less than it was built for."""

    def _read_queues(self) -> dict[Port, QueueCount]:
        """Every switch port's queue now; empty where this machine does not show them."""
        if self._queues is None:
            return {}
        reader, ports = self._queues
        t = time.monotonic()
        rows = zip(*reader.read(), strict=True)
        return {port: QueueCount(t, *row[:4]) for port, row in zip(ports, rows, strict=True)}


def _queue_reader(fabric: Fabric) -> tuple[QueueReader, list[Port]] | None:
    """A reader of the switch ports' queues, where they are interfaces of this network namespace."""
    ports = [port for port in fabric.peer if port.node in fabric.switch_by_name]
    with contextlib.suppress(FabricError, OSError):
        return QueueReader([Watched(port.interface) for port in ports]), ports
    return None
