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
from fabric.batches import Batch, Batches, Questions
from fabric.decisions import DecisionLog, interfaces
from fabric.flowtable import FlowRecord, FlowTable
from fabric.graph import Port, Switch
from fabric.hints import Announced
from fabric.openflow import FailoverGroup, Rule
from fabric.orders import described
from fabric.paths import PathSets
from fabric.plugins import load_policy
from fabric.policy import FlowKey, Lever, Reroute, Reweight, View
from fabric.referee import referee
from fabric.steering import FLOW_COOKIE, INGRESS, SEEN, Steering, changed

__all__ = ["Adaptive"]

_OUTCOME_S = 3.0  # flow counters need that long to show what a move brought
_FORGET_S = 120.0


class Adaptive(FabricApp):
    """The shell round a policy: state from telemetry on one side, rules on the other.

    `options` are the policy's own. `hold_ms`: a flow that was moved stays that long, unless its path is cut. `linger_ms`: a flow that falls silent
    is kept in mind that long. `hold_down_ms`: a link that came back is not used that long, and longer each time it flaps.
    `flow_poll_ms`: how often switches are asked for their flow counters. `repair: false` leaves out the switches' own
    repair of dead links.
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
        self.batches = Batches(self.send, self.ask)
        self.questions = Questions(self.ask, lambda datapath: sightings.ask_entries(datapath, SEEN, 0))
        self.asked_all = float("-inf")
        self.outcomes: list[tuple[float, FlowRecord, float | None]] = []
        self.dead: frozenset[Port] = frozenset()  # the links that hashing keeps off
        self.choices: dict[str, list[Rule]] = {}  # by edge: what its hash means now
        self.weights: dict[tuple[str, str], tuple[int, ...]] = {}  # of the groups that a policy has reweighted
        self.groups_now = self._groups(self.paths)

    # -- what switches start with

    def groups(self, switch: Switch) -> Iterator[FailoverGroup]:
        """The fast-failover groups."""
        return self.steering.groups(switch)

    def rules(self, switch: Switch) -> Iterator[Rule]:
        """The labels' rules, hashing at the edges, and whatever was placed there before the switch was lost."""
        paths = self.usable(time.monotonic())
        yield from self.steering.rules(switch, paths)
        if switch.name in self.steering.edges:
            self.choices[switch.name] = list(self.steering.choices(switch.name, paths))
        for (edge, far), weights in self.weights.items():
            if edge == switch.name:
                yield from self.steering.slot_rules(edge, far, weights)
        for record in self.flows.records.values():
            if record.placed and record.path is not None and record.path[1].node == switch.name:
                yield self.steering.flow_rule(record.key, record.path)

    def on_ready(self) -> None:
        """Learn from the switches what an earlier controller placed, before anything is changed."""
        for edge in self.steering.edges:
            self.ask(edge, lambda datapath: sightings.ask_entries(datapath, INGRESS, FLOW_COOKIE))
        self._ask_all(time.monotonic())

    def on_lost(self, switch: str) -> None:
        """Expect no more answers from a switch that is gone."""
        self.questions.lost(switch)
        for batch in self.batches.lost(switch):
            self._in_force(batch)

    # -- what is seen

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet_in(self, ev: Any) -> None:
        """A copy of a SYN: a flow is about to begin. How was it hashed?"""
        key = sightings.tcp_key(ev.msg.data)
        if key is not None:
            self._note(key, "syn")
            self.questions.put(self.fabric.switch_by_dpid[ev.msg.datapath.id].name)

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def on_flow_entries(self, ev: Any) -> None:
        """A switch's own entries: what flows carried and how they were hashed (SEEN), or where they were placed (INGRESS)."""
        t = time.monotonic()
        for entry in sightings.flow_entries(ev.msg.body):
            if entry.table == SEEN:
                new = entry.key not in self.flows.records
                self._first_seen(self.flows.counted(entry.key, entry.nbytes, t, entry.hashed_to), new)
            elif (record := self._note(entry.key, "rule")) is not None and not record.placed and entry.label is not None:
                record.path, record.placed = self.steering.path_of(entry.key, entry.first, entry.label), True
                self.log.write("resynchronised", flow=str(entry.key), path=interfaces(record.path))
        more = bool(ev.msg.flags & ev.msg.datapath.ofproto.OFPMPF_REPLY_MORE)
        self.questions.answered(self.fabric.switch_by_dpid[ev.msg.datapath.id].name, ev.msg.xid, more)

    @set_ev_cls(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def on_rule_gone(self, ev: Any) -> None:
        """A placed flow was idle for so long that its rule went; it will be hashed again."""
        key = sightings.key_of(ev.msg.match)
        if key in self.flows.records:
            self.flows.records[key].placed = False

    def _note(self, key: FlowKey, signal: str) -> FlowRecord | None:
        new = key not in self.flows.records
        return self._first_seen(self.flows.note(key, time.monotonic(), signal), new)

    def _first_seen(self, record: FlowRecord | None, new: bool) -> FlowRecord | None:
        if record is not None and new:
            self.log.write("flow", flow=str(record.key), src=record.src, dst=record.dst, signal=record.signal)
        return record

    def on_hint(self, flows: list[Announced], placed: Callable[[int], None]) -> None:
        """A collective's flows, before their first byte: place them now, and say so when the rules are in force."""
        for flow in flows:
            record = self._note(flow.key, "hint")
            if record is not None:
                record.job, record.mbps = flow.job, None  # what it did before is not what it is about to do
        self._tick(self.view(time.monotonic()), lambda: placed(len(flows)))

    def on_link(self, port: Port, up: bool) -> None:
        """Keep a record of it."""
        self.log.write("link", port=port.interface, up=up)

    def on_links_down(self) -> None:
        """What crossed them is not left to the next round."""
        self._tick(self.view(time.monotonic()))

    def on_degraded(self, port: Port) -> None:
        """Telemetry found a slow link; the policy sees it in this tick."""
        link = self.links.links(time.monotonic(), [port])[port]
        self.log.write("degraded", port=port.interface, mbps=round(link.mbps, 3), configured_mbps=link.configured_mbps)

    # -- the loop

    def on_sample(self, view: View) -> None:
        """One turn: look, decide, act, and see what came of earlier acts."""
        self._tick(view)
        if view.t - self.asked_all >= self.parameters["flow_poll_ms"] / 1000:
            self._ask_all(view.t)
            self.flows.forget(view.t, _FORGET_S)
        self._note_outcomes(view.t)

    def on_plan(self, flows: list[Announced], placed: Callable[[int], None]) -> None:
        """Paths are for flows that are there; the same flows are announced again when they are."""
        placed(len(flows))

    def _tick(self, view: View, in_force: Callable[[], None] = lambda: None) -> None:
        """Decide and act; `in_force` is called once every switch has its rules, and hosts and ports their orders."""
        self._keep_off_dead_links(view)
        view = self._with_flows(view)
        actions, held = referee(view, self.policy.decide(view))
        done = _after(2, in_force)
        batch = Batch(view.tick, view.t, time.monotonic(), done)
        for action, why in held:
            self.log.write("held", tick=view.tick, flow=str(getattr(action, "flow", action)), reason=why)
        rules: dict[str, list[Rule]] = {}
        levers: list[Lever] = []
        for action in actions:
            if isinstance(action, Reweight):
                rules.setdefault(action.switch, []).extend(self._reweight(view, action))
            elif isinstance(action, Reroute):
                rules.setdefault(action.path[1].node, []).append(self._reroute(view, action))
            else:
                levers.append(action)
        if not self.batches.go(batch, rules):
            done()
        self.pull(view, levers, done)

    def pull(self, view: View, levers: Sequence[Lever], done: Callable[[], None]) -> None:
        """Have hosts and ports take a policy's orders, and call `done` then; this controller moves flows, and no more."""
        for lever in levers:
            self.log.write("held", tick=view.tick, **described(lever), reason="it takes controller: {use: congestion}")
        done()

    def _with_flows(self, view: View) -> View:
        """The view with the active flows, each on the path that it is known to take."""
        hosts = {host.name: self.fabric.ports_of[host.name][0] for host in self.fabric.hosts}
        busy_out = {name: view.links[port].utilisation for name, port in hosts.items()}
        busy_in = {name: view.links[self.fabric.peer[port]].utilisation for name, port in hosts.items()}
        paths = self.usable(view.t)
        for record in self.flows.records.values():
            if not record.placed:
                record.path = self._hashed_path(record, paths)
        flows = self.flows.active(view.t, busy_out, busy_in, lambda path: any(not view.links[port].up for port in path))
        return View(view.t, view.tick, view.period_s, view.links, flows, paths, self.groups_now, paths.between)

    def _hashed_path(self, record: FlowRecord, paths: PathSets) -> tuple[Port, ...] | None:
        ends = [self.steering.attached[ip].node for ip in (record.key.src_ip, record.key.dst_ip)]
        if ends[0] == ends[1]:
            return self.steering.whole(record.key, ())
        if record.hashed_to is None:
            only = paths.between(*ends)
            return self.steering.whole(record.key, only[0]) if len(only) == 1 else None
        return self.steering.hashed_path(record.key, record.hashed_to, paths, self.weights)

    def _groups(self, paths: PathSets) -> dict[tuple[str, str], tuple[int, ...]]:
        edges = self.steering.edges
        pairs = ((a, b) for a in edges for b in edges if a != b)
        return {pair: self.weights.get(pair, (1,) * len(paths.between(*pair))) for pair in pairs}

    def _keep_off_dead_links(self, view: View) -> None:
        """Hash nothing over links that may not be used; what that moves is logged as a move, which it is."""
        dead = self.links.down(view.t)
        if dead == self.dead:
            return
        self.dead, paths = dead, self.usable(view.t)
        self.groups_now = self._groups(paths)
        for edge, before in self.choices.items():
            self.choices[edge] = list(self.steering.choices(edge, paths))
            self.send(edge, *changed(before, self.choices[edge]))
        for record in self.flows.records.values():
            now = None if record.placed else self._hashed_path(record, paths)
            if now not in (None, record.path) and record.path is not None:
                self._log_move(view, record, now, "hashing keeps off links that are down, and uses those that are back", {})

    def _reroute(self, view: View, action: Reroute) -> Rule:
        record = self.flows.records[action.flow]
        self._log_move(view, record, action.path, action.reason, dict(action.numbers))
        record.path, record.placed, record.moved_at = action.path, True, view.t
        self.outcomes.append((view.t, record, record.mbps))
        return self.steering.flow_rule(action.flow, action.path)

    def _reweight(self, view: View, action: Reweight) -> Iterator[Rule]:
        pair = (action.switch, action.group)
        self.log.write(
            "reweight", tick=view.tick, switch=action.switch, group=action.group, old=self.groups_now[pair], new=action.weights,
            reason=action.reason, numbers=dict(action.numbers),
        )  # fmt: skip
        self.weights[pair] = self.groups_now[pair] = action.weights
        return self.steering.slot_rules(*pair, action.weights)

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def on_barrier(self, ev: Any) -> None:
        """A switch has a batch's rules in force; when all have, so has the fabric."""
        batch = self.batches.answered(self.fabric.switch_by_dpid[ev.msg.datapath.id].name, ev.msg.xid)
        if batch is not None:
            self._in_force(batch)

    def _in_force(self, batch: Batch) -> None:
        times = {"sampled": round(batch.sampled, 6), "decided": round(batch.decided, 6)}
        self.log.write("in-force", tick=batch.tick, **times, switches=batch.switches)
        if batch.in_force:
            batch.in_force()

    # -- what came of it

    def _ask_all(self, t: float) -> None:
        self.asked_all = t
        for edge in self.steering.edges:
            self.questions.put(edge)

    def _log_move(self, view: View, record: FlowRecord, new: Any, reason: str, numbers: dict[str, float]) -> None:
        self.log.write(
            "reroute", tick=view.tick, flow=str(record.key), src=record.src, dst=record.dst, old=interfaces(record.path),
            new=interfaces(new), signal=record.signal, mbps=record.mbps, reason=reason, numbers=numbers,
        )  # fmt: skip

    def _note_outcomes(self, t: float) -> None:
        """After some seconds, when the flow's counters have caught up, say what it gets now."""
        due = [item for item in self.outcomes if t - item[0] > _OUTCOME_S]
        self.outcomes = [item for item in self.outcomes if t - item[0] <= _OUTCOME_S]
        for _, record, before in due:
            self.log.write("outcome", flow=str(record.key), before_mbps=before, after_mbps=record.mbps)


def _after(parts: int, do: Callable[[], None]) -> Callable[[], None]:
    """What calls `do` when it has been called so many times."""
    left = iter(range(parts - 1))
    return lambda: do() if next(left, None) is None else None
