"""Adaptive routing from telemetry: find the flows, ask a policy every period, move flows one rule at a time.

The loop: new connections are seen by copies of their SYN, what they carry by the switches' own flow entries, how full
links are by port counters, how long queues are by their backlog. Every `poll_ms` this becomes a `View`; the policy
answers with actions; each action is one rule at the edge where the flow enters (`fabric.steering`), so that it is in
force at once and everywhere, and every one of them is in `decisions.jsonl` with its cause and its outcome.

Links that fail are repaired by the switches themselves first (fast-failover, no controller needed), then by this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ryu.controller import ofp_event
from ryu.controller.handler import MAIN_DISPATCHER, set_ev_cls

from fabric import sightings
from fabric.app import FabricApp
from fabric.decisions import Batch, DecisionLog, interfaces
from fabric.flowtable import FlowRecord, FlowTable
from fabric.graph import Port, Switch
from fabric.hints import Announced
from fabric.openflow import FailoverGroup, Rule
from fabric.paths import PathSets
from fabric.plugins import load_policy
from fabric.policy import Action, Reroute, Reweight, View
from fabric.steering import FLOW_COOKIE, INGRESS, SEEN, Steering, changed

__all__ = ["Adaptive"]


class Adaptive(FabricApp):
    """The shell round a policy: state from telemetry on one side, rules on the other.

    `hold_ms`: a flow that was moved stays that long. `linger_ms`: a flow that falls silent is kept in mind that long.
    `hold_down_ms`: a link that came back is not used that long, and longer each time it flaps. `flow_poll_ms`: how often
    switches are asked for their flow counters. `repair: false` leaves out the switches' own repair, to measure without.
    """

    PARAMETERS = {  # noqa: RUF012
        "policy": "exact", "options": {}, "hold_ms": 1000, "linger_ms": 5000, "hold_down_ms": 3000, "flow_poll_ms": 500,
        "repair": True,
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        wanted = self.parameters
        self.policy = load_policy(wanted["policy"], self.folder, wanted["options"])
        self.steering = Steering(self.fabric, self.hash_basis, repair=wanted["repair"])
        self.links.hold_down_s = wanted["hold_down_ms"] / 1000
        nics = {host.name: self.links.configured(self.fabric.ports_of[host.name][0]) for host in self.fabric.hosts}
        self.flows = FlowTable(
            self.steering.host_of, nics, grace_s=max(2.0, 2 * self.period_s),
            linger_s=max(wanted["linger_ms"] / 1000, 2 * self.period_s), hold_s=wanted["hold_ms"] / 1000,
        )  # fmt: skip
        self.log = DecisionLog(self.folder)
        self.weights: dict[tuple[str, str], tuple[int, ...]] = {}
        self.waiting: dict[tuple[str, int], Batch] = {}  # by switch and number of a barrier
        self.outcomes: list[tuple[float, FlowRecord, float | None]] = []
        self.installed: dict[str, list[Rule]] = {}  # by edge: its choice rules
        self.kept_off: frozenset[Port] = frozenset()
        self.hashed_over = self._groups(self.paths)
        self.asked_flows = float("-inf")
        self.asked_seen: dict[str, tuple[int, bool]] = {}  # by edge: the question under way, and whether to ask again

    # -- what switches start with

    def groups(self, switch: Switch) -> Iterator[FailoverGroup]:
        """The fast-failover groups."""
        return self.steering.groups(switch)

    def rules(self, switch: Switch) -> Iterator[Rule]:
        """The labels' rules, hashing at the edges, and the flows placed there before the switch was lost."""
        paths = self.usable(time.monotonic())
        self.installed[switch.name] = list(self.steering.choices(switch.name, paths)) if switch.name in self.steering.edges else []
        yield from self.steering.rules(switch, paths)
        for record in self.flows.records.values():
            if record.placed and record.path is not None and record.path[1].node == switch.name:
                yield self.steering.flow_rule(record.key, record.path)

    def on_ready(self) -> None:
        """Learn from the switches what an earlier controller placed, before anything is changed."""
        for edge in self.steering.edges:
            self.ask(edge, lambda datapath: sightings.ask_entries(datapath, INGRESS, FLOW_COOKIE))
        self._ask_flows()

    # -- what is seen

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet_in(self, ev: Any) -> None:
        """A copy of a SYN: a flow is about to begin."""
        key = sightings.tcp_key(ev.msg.data)
        if key is not None and key not in self.flows.records:
            self._first_seen(self.flows.note(key, time.monotonic(), "syn"))
            self._ask_seen(self.fabric.switch_by_dpid[ev.msg.datapath.id].name)

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_flow_counters(self, ev: Any) -> None:
        """A switch's own entries: what flows carried (SEEN), or where rules put them (INGRESS)."""
        t = time.monotonic()
        self._answered(ev.msg)
        for entry in sightings.flow_entries(ev.msg.body):
            known = entry.key in self.flows.records
            if entry.table == SEEN:
                record = self.flows.counted(entry.key, entry.nbytes, t, entry.hashed_to)
            else:
                record = self.flows.note(entry.key, t, "rule")
                if record is not None and not record.placed and entry.label is not None:
                    record.path, record.placed = self.steering.path_of(entry.key, entry.first, entry.label), True
            if not known:
                self._first_seen(record)

    def _first_seen(self, record: FlowRecord | None) -> None:
        if record is not None:
            self.log.write("flow", flow=str(record.key), src=record.src, dst=record.dst, signal=record.signal)

    def on_hint(self, flows: list[Announced], placed: Callable[[int], None]) -> None:
        """A collective's flows, before their first byte: place them now, and say so when the rules are in force."""
        for flow in flows:
            self._first_seen(self.flows.note(flow.key, time.monotonic(), "hint"))
        if not self._tick(self.view(time.monotonic()), lambda: placed(len(flows))):
            placed(len(flows))

    def on_link(self, port: Port, up: bool) -> None:
        """Hash no more flows over a dead link, and let the policy act now rather than at the next round."""
        self.log.write("link", port=port.interface, up=up)
        if not up:
            self._tick(self.view(time.monotonic()))

    def on_degraded(self, port: Port) -> None:
        """Telemetry found a slow link; the policy sees it in this tick."""
        link = self.links.links(time.monotonic(), [port])[port]
        self.log.write("degraded", port=port.interface, mbps=round(link.mbps, 3), configured_mbps=link.configured_mbps)

    # -- the loop

    def on_sample(self, view: View) -> None:
        """One turn: look, decide, act, and see what came of earlier acts."""
        self._tick(view)
        if view.t - self.asked_flows >= self.parameters["flow_poll_ms"] / 1000:
            self._ask_flows()
        self._note_outcomes(view.t)

    def _tick(self, view: View, in_force: Callable[[], None] | None = None) -> int:
        """Decide and act; `in_force` is called once every switch has its rules. How many switches got any."""
        self._keep_off_dead_links(view.t)
        view = self._with_flows(view)
        decided = list(self.policy.decide(view))
        return self._apply(view, decided, Batch(view.tick, view.t, time.monotonic(), in_force))

    def _with_flows(self, view: View) -> View:
        hosts = {host.name: self.fabric.ports_of[host.name][0] for host in self.fabric.hosts}
        busy_out = {name: view.links[port].utilisation for name, port in hosts.items()}
        busy_in = {name: view.links[self.fabric.peer[port]].utilisation for name, port in hosts.items()}
        paths = self.usable(view.t)
        for record in self.flows.records.values():
            if not record.placed and record.hashed_to is not None:
                record.path = self.steering.hashed_path(record.key, record.hashed_to, paths, self.weights)
        flows = self.flows.active(view.t, busy_out, busy_in)
        return View(
            view.t, view.tick, view.period_s, view.links, flows, paths, self.hashed_over, paths.between
        )

    def _groups(self, paths: PathSets) -> dict[tuple[str, str], tuple[int, ...]]:
        edges = self.steering.edges
        return {
            (a, b): self.weights.get((a, b), (1,) * len(paths.between(a, b))) for a in edges for b in edges if a != b
        }

    def _keep_off_dead_links(self, t: float) -> None:
        """Hash no more flows over links that may not be used; nothing to do while these stay the same."""
        down = self.links.down(t)
        if down == self.kept_off:
            return
        self.kept_off, paths = down, self.usable(t)
        self.hashed_over = self._groups(paths)
        for edge, before in self.installed.items():
            after = list(self.steering.choices(edge, paths))
            self.send(edge, *changed(before, after))
            self.installed[edge] = after

    def _apply(self, view: View, actions: Sequence[Action], batch: Batch) -> int:
        """Send a tick's actions, all in one go, and a barrier to each switch that got any."""
        by_switch: dict[str, list[Rule]] = {}
        for action in actions:
            if isinstance(action, Reweight):
                by_switch.setdefault(action.switch, []).extend(self._reweight(view, action))
            else:
                by_switch.setdefault(action.path[1].node, []).append(self._reroute(view, action))
        for switch, rules in by_switch.items():
            self.send(switch, *rules)
            number = self.ask(switch, lambda datapath: datapath.ofproto_parser.OFPBarrierRequest(datapath))
            if number is not None:
                self.waiting[switch, number] = batch
                batch.left.add(switch)
        batch.switches = sorted(batch.left)
        return len(batch.left)

    def _reroute(self, view: View, action: Reroute) -> Rule:
        record = self.flows.records[action.flow]
        self.log.write(
            "reroute", tick=view.tick, flow=str(action.flow), src=record.src, dst=record.dst, old=interfaces(record.path),
            new=interfaces(action.path), signal=record.signal, mbps=record.mbps, reason=action.reason,
            numbers=dict(action.numbers),
        )  # fmt: skip
        record.path, record.placed, record.moved_at = action.path, True, view.t
        self.outcomes.append((view.t, record, record.mbps))
        return self.steering.flow_rule(action.flow, action.path)

    def _reweight(self, view: View, action: Reweight) -> Iterator[Rule]:
        old = self.weights.get((action.switch, action.group))
        self.log.write(
            "reweight", tick=view.tick, switch=action.switch, group=action.group, old=old, new=action.weights,
            reason=action.reason, numbers=dict(action.numbers),
        )  # fmt: skip
        self.weights[action.switch, action.group] = action.weights
        self.hashed_over = {**self.hashed_over, (action.switch, action.group): action.weights}
        return self.steering.slot_rules(action.switch, action.group, action.weights)

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def on_barrier(self, ev: Any) -> None:
        """A switch has a batch's rules in force; when all have, so has the fabric."""
        switch = self.fabric.switch_by_dpid[ev.msg.datapath.id].name
        batch = self.waiting.pop((switch, ev.msg.xid), None)
        if batch is not None:
            batch.left.discard(switch)
            if not batch.left:
                self.log.write("in-force", tick=batch.tick, sampled=round(batch.sampled, 6), decided=round(batch.decided, 6), switches=batch.switches)
                if batch.in_force:
                    batch.in_force()

    # -- what came of it

    def _ask_flows(self) -> None:
        self.asked_flows = time.monotonic()
        for edge in self.steering.edges:
            self._ask_seen(edge)

    def _ask_seen(self, edge: str) -> None:
        """Ask an edge what it has seen, and how it hashed that; one question at a time, the next when it has answered."""
        if edge in self.asked_seen:
            self.asked_seen[edge] = (self.asked_seen[edge][0], True)
        elif (number := self.ask(edge, lambda datapath: sightings.ask_entries(datapath, SEEN, 0))) is not None:
            self.asked_seen[edge] = (number, False)

    def _answered(self, message: Any) -> None:
        edge = self.fabric.switch_by_dpid[message.datapath.id].name
        number, again = self.asked_seen.get(edge, (None, False))
        if message.xid == number and not message.flags & message.datapath.ofproto.OFPMPF_REPLY_MORE:
            del self.asked_seen[edge]
            if again:
                self._ask_seen(edge)

    def _note_outcomes(self, t: float) -> None:
        """After some seconds, when the flow's counters have caught up, say what it gets now."""
        due = [item for item in self.outcomes if t - item[0] > 3.0]
        self.outcomes = [item for item in self.outcomes if t - item[0] <= 3.0]
        for _, record, before in due:
            self.log.write("outcome", flow=str(record.key), before_mbps=before, after_mbps=record.mbps)
