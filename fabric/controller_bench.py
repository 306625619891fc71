"""The bench a controller is tried on: checks that happen one after the other on one controlled fabric.

Comes in: a `ControlledFabric` with a proxy, its switches connecting. Goes out: a `Finding` for each check. What befalls the
fabric is done from outside, and what comes of it is asked of the switches: of the controller only its log is read.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Literal

from fabric import plugins
from fabric.errors import RunError
from fabric.graph import Fabric, Port, Switch
from fabric.openflow_proxy import OpenFlowProxy
from fabric.polling import until
from fabric.trails import Pair, Trail, trails
from fabric.unrooted import ControlledFabric, packet, wait_for

__all__ = ["Bench", "Finding", "Verdict", "last_trouble"]

Verdict = Literal["PASS", "FAIL", "NOTE"]
Trails = dict[Pair, Trail]

_PAIRS = 1024  # more are sampled: each is up to five questions to the switches
_READY_S, _BACK_S, _PATIENCE_S, _SETTLE_S = 25.0, 15.0, 4.0, 10.0
_QUIET_S, _RESTLESS_S = 0.3, 2.0  # no rule changed for so long is quiet; one that never rests is looked at as it is
_ROUNDS = 8  # of packets, until a reactive app has seen what it needs
_POLLS, _TALKING = 10, 8  # the polls of the last check, and the pairs that send meanwhile
_OTHER_COUNTERS_S = 12.0  # an app of its own may ask every ten seconds, as Ryu's own example does
_ERRORS = {
    0: "hello failed", 1: "bad request", 2: "bad action", 3: "bad instruction", 4: "bad match", 5: "flow-mod failed",
    6: "group-mod failed", 7: "port-mod failed", 8: "table-mod failed", 9: "queue operation failed",
    11: "role request failed", 12: "meter-mod failed", 13: "table features failed", 65535: "vendor's own",
}  # fmt: skip
_GROUP_EXISTS = (6, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. FAIL is the controller's to mend; NOTE is for you to know, and fails nothing."""

    check: str
    verdict: Verdict
    sentence: str


class _Ended(Exception):
    """The controller is gone: nothing after this can be judged."""


@dataclass
class Bench:
    """A controlled fabric on which checks happen one after the other; each is a method that gives its finding."""

    running: ControlledFabric
    source: plugins.Source
    max_rules: int
    progress: Callable[[str], None]
    tracebacks: int = 0
    judged: bool = True  # whether routes can be
    base: Trails = field(default_factory=dict)  # the trails that reached their host at first
    most: Counter[str] = field(default_factory=Counter)  # rules by switch, the most ever seen

    @property
    def fabric(self) -> Fabric:
        """What is checked on."""
        return self.running.fabric

    @property
    def proxy(self) -> OpenFlowProxy:
        """What stands between switches and controller."""
        assert self.running.proxy is not None  # started with one
        return self.running.proxy

    def all(self) -> Iterator[Finding]:
        """Every check in order; when the controller ends, the one that saw it fails and the rest are not judged."""
        checks: dict[str, Callable[[], Finding]] = {
            "connect": self.connects, "reachable": self.reaches, "reconnect": self.reconnects, "port down": self.loses_a_port,
            "counters": self.meets_no_counters, "over time": self.lasts, "tables": self.fits, "messages": self.is_understood,
        }  # fmt: skip
        ended = False
        for name, judge in checks.items():
            if ended:
                yield Finding(name, "NOTE", "not judged: the controller had ended, or never got ready")
                continue
            self.progress(name)
            try:
                found = judge()
            except _Ended as end:
                ended, found = True, Finding(name, "FAIL", str(end))
            trouble = self.trouble()
            if trouble and found.verdict != "FAIL":
                found = Finding(name, "FAIL", f"{trouble}; {found.sentence}")
            elif trouble and trouble not in found.sentence:
                found = Finding(name, "FAIL", f"{found.sentence}; {trouble}")
            yield found

    def last_trouble(self) -> str:
        """The last traceback in the log, in words."""
        return last_trouble(self.running.controller.companion.log, self.source)

    def trouble(self) -> str:
        """The tracebacks since the last call, in words; '' for none."""
        count = self.running.controller.exceptions()
        new, self.tracebacks = count - self.tracebacks, count
        return f"{new} {'traceback' if new == 1 else 'tracebacks'}, the last: {self.last_trouble()}" if new > 0 else ""

    # The checks.

    def connects(self) -> Finding:
        """Every switch is connected and dealt with within the deadline."""
        try:
            self.running.controller.companion.wait_for("ready", _READY_S, "get ready")
        except RunError as err:
            absent = [switch.name for switch in self.fabric.switches if not self.proxy.connections[switch.dpid]]
            if not self.alive():
                raise _Ended(f"the controller ended while switches connected: {self.last_trouble() or err}") from None
            seen = f"{_named(absent)} never shook hands; it must speak OpenFlow 1.3" if absent else "all are connected, but its handlers have not returned; look for a loop or a wait in them"
            raise _Ended(f"not ready within {_READY_S:.0f} s: {seen}") from None
        self.settle()
        count = len(self.fabric.switches)
        return Finding("connect", "PASS", f"{'the switch is' if count == 1 else f'all {count} switches are'} connected and programmed")

    def reaches(self) -> Finding:
        """Every pair of hosts reaches each other, without a loop."""
        pairs, every = _pairs(self.fabric)
        found, packets = self.look(pairs, _PATIENCE_S)
        self.base = {pair: seen for pair, seen in found.items() if seen.end == "reached"}
        self.count_rules()
        broken = {pair: seen for pair, seen in found.items() if seen.end != "reached"}
        of = f"{len(pairs)} pairs" if len(pairs) == every else f"{len(pairs)} pairs, a sample of {every},"
        how = f", after {packets} packets had been sent to it (reactive)" if packets else ""
        if not broken:
            longest = max(len(seen.path) for seen in found.values())
            return Finding("reachable", "PASS", f"all {of} reach each other, over at most {longest} links and without a loop{how}")
        return self.unreached(broken, of, packets)

    def unreached(self, broken: Trails, of: str, packets: int) -> Finding:
        """What it means that pairs do not reach each other."""
        floods = self.proxy.floods > 0 or any(seen.end == "flooded" for seen in broken.values())
        only = {seen.end for seen in broken.values()}
        if floods and _has_loops(self.fabric):
            self.judged = False
            return Finding("reachable", "NOTE", "not judged: it floods, and on a fabric with loops a flood goes round for ever; it is at home on single-switch")
        if only <= {"flooded", "asks"} and not self.base:
            self.judged = False
            why = f"{packets} packets went to it and no rule came back" if "asks" in only else "packets leave by every port"
            return Finding("reachable", "NOTE", f"not judged: {why}; it forwards packet by packet, or by flooding, which ofproto/trace cannot follow")
        return Finding("reachable", "FAIL", f"{len(broken)} of {of} do not: {self.examples(broken)}; mend the rules there")

    def reconnects(self) -> Finding:
        """The connection of a switch is cut, and then the switch itself comes back with empty tables."""
        switch = self.victim()
        self.proxy.cut(switch.dpid)
        self.back(switch, "was cut")
        broken = self.still()
        if broken:
            return Finding("reconnect", "FAIL", f"after the connection of {switch.name} was cut and came back: {self.examples(broken)}")
        before = self.proxy.connections[switch.dpid]
        self.running.restart(switch)
        self.back(switch, "ended with the switch", before)
        broken = self.still()
        if broken:
            remedy = "send the rules at every connection, not only at the first"
            return Finding("reconnect", "FAIL", f"{switch.name} came back with empty tables: {self.examples(broken)}; {remedy}")
        return Finding("reconnect", "PASS", f"{switch.name} was cut off and came back, then restarted with empty tables; each time: {self.held()}")

    def back(self, switch: Switch, how: str, before: int | None = None) -> None:
        """Wait until a switch has connected once more, and what follows from it has been done."""
        count = self.proxy.connections[switch.dpid] if before is None else before
        try:
            wait_for(lambda: self.proxy.connections[switch.dpid] > count, "back", _BACK_S)
        except RunError:
            gone = "" if self.alive() else "; the controller has ended"
            raise _Ended(f"{switch.name} is not connected again {_BACK_S:.0f} s after its connection {how}{gone}") from None
        self.settle()

    def loses_a_port(self) -> Finding:
        """A link goes down and comes back; whether the app repairs is information."""
        near = self.busiest_link()
        ports = [port for port in (near, self.fabric.peer[near]) if port.node in self.fabric.switch_by_name]
        self.running.unplug(*ports)
        self.settle()
        trouble = self.trouble()
        lost = self.still(down=ports, patience_s=1.0)
        self.running.plug(*ports)
        self.settle()
        broken = self.still()
        name = f"the link {near.node} - {self.fabric.peer[near].node}"
        if trouble:
            return Finding("port down", "FAIL", f"when {name} went down: {trouble}")
        if broken:
            return Finding("port down", "FAIL", f"{name} went down and came back, and now: {self.examples(broken)}")
        if not (self.judged and self.base):
            return Finding("port down", "PASS", f"{name} went down and came back: no traceback")
        return self.repaired(name, near, lost)

    def repaired(self, name: str, near: Port, lost: Trails) -> Finding:
        """How the routes took the loss of a link that has come back since."""
        ends = {near.node, self.fabric.peer[near].node} & self.fabric.host_by_name.keys()
        again = "when it came back all did again"
        if ends and all(ends & {*pair} for pair in lost):
            return Finding("port down", "PASS", f"{name} went down: only {_named(sorted(ends))} was lost, which has no other; {again}")
        if lost:
            return Finding("port down", "NOTE", f"it does not repair: with {name} down {len(lost)} of {len(self.base)} pairs were lost ({self.examples(lost, 1)}); {again}")
        return Finding("port down", "PASS", f"it repairs: with {name} down all {len(self.base)} pairs reached each other")

    def meets_no_counters(self) -> Finding:
        """Every counter reads 2^64 - 1 for a while, as of a switch that does not count, and then is itself again."""
        asked_for = {kind for kind in self.proxy.requests if kind not in ("port", "other")}
        self.proxy.spoil = True
        try:
            enough = 3 * len(self.fabric.switches)
            self.until(lambda: self.proxy.spoiled["port"] >= enough, _BACK_S)
            self.until(lambda: asked_for <= self.proxy.spoiled.keys(), _OTHER_COUNTERS_S)
            self.settle()
            trouble, broken = self.trouble(), self.still()
        finally:
            self.proxy.spoil = False
        self.settle()
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.proxy.spoiled.items()))
        if trouble:
            return Finding("counters", "FAIL", f"when counters read 2^64 - 1: {trouble}; a switch says so of what it does not count")
        if broken:
            return Finding("counters", "FAIL", f"when counters read 2^64 - 1: {self.examples(broken)}")
        return Finding("counters", "PASS", f"all counters read 2^64 - 1 in {kinds} replies: no traceback; {self.held()}")

    def lasts(self) -> Finding:
        """It runs on while some hosts send; after each change of rules all is looked at again."""
        steps, before = 0, self.proxy.changes
        for _ in range(_POLLS):
            self.talk()
            self.rounds(1)
            if self.proxy.changes == before:
                continue
            steps += 1
            self.settle()
            before = self.proxy.changes
            if broken := self.still():
                return Finding("over time", "FAIL", f"after {steps} changes of rules while hosts sent: {self.examples(broken)}")
        self.count_rules()
        times = "once" if steps == 1 else f"{steps} times"
        seen = f"changed its rules {times}; after each: {self.held()}" if steps else "changed no rule"
        return Finding("over time", "PASS", f"{_POLLS} polls with packets on {min(_TALKING, len(self.base))} paths: it {seen}")

    def fits(self) -> Finding:
        """No switch holds more rules than a table may."""
        (worst, rules), limit = self.most.most_common(1)[0], self.max_rules
        groups = Counter({switch.name: len(self.running.groups(switch.name)) for switch in self.fabric.switches})
        held = f"at most {rules} rules (on {worst})"
        held += f" and {groups.most_common(1)[0][1]} groups (on {groups.most_common(1)[0][0]})" if +groups else ", no groups"
        if rules > limit:
            return Finding("tables", "FAIL", f"{worst} holds {rules} rules; accepted: {limit}, an assumption of what hardware holds (--max-rules); match fewer fields, or aggregate addresses")
        return Finding("tables", "PASS", f"{held}; limit {limit}, an assumption of what hardware holds (--max-rules)")

    def is_understood(self) -> Finding:
        """No switch answered a message with an error."""
        wrong = [item for item in self.proxy.refused if (item.error_type, item.code) != _GROUP_EXISTS]
        if not wrong:
            known = "; groups that were still there were sent again, which does no harm" if self.proxy.refused else ""
            return Finding("messages", "PASS", f"the switches took every message{known}")
        first = wrong[0]
        name = self.fabric.switch_by_dpid[first.dpid].name if first.dpid in self.fabric.switch_by_dpid else f"{first.dpid:x}"
        what = f"{_ERRORS.get(first.error_type, f'type {first.error_type}')}, code {first.code}"
        return Finding("messages", "FAIL", f"switches refused {len(wrong)} messages, first {name} a {first.message} ({what}); what it was meant to do has not happened")

    # What the checks are made of.

    def alive(self) -> bool:
        """Whether the controller still runs."""
        return self.running.controller.companion.process.poll() is None

    def until(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        """Wait for a condition; False when the deadline came first."""

        def holds() -> bool:
            if condition():
                return True
            if not self.alive():
                raise _Ended(f"the controller ended: {self.last_trouble() or self.running.controller.companion.last_words()}")
            return False

        return until(holds, deadline_s)

    def rounds(self, count: int) -> None:
        """Wait until the switches' counters have been read this many times."""
        wanted_lines = _lines(self.running.folder) + count
        self.until(lambda: _lines(self.running.folder) >= wanted_lines, _SETTLE_S)

    def settle(self) -> None:
        """Wait until no rule has been changed for a moment, and counters have been read twice meanwhile."""
        self.rounds(2)
        self.until(lambda: time.monotonic() - self.proxy.last_change > _QUIET_S, _RESTLESS_S)

    def look(self, pairs: Sequence[Pair], patience_s: float, down: Sequence[Port] = ()) -> tuple[Trails, int]:
        """The trails of pairs, and how many packets it took: those that ask the controller send one, then are looked at again.

        Others that do not arrive are looked at again too, until patience ends.
        """
        found, packets, rounds, until = {}, 0, 0, time.monotonic() + patience_s
        left = list(pairs)
        while True:
            found.update(trails(self.running.ovs, self.fabric, left, down))
            before, left = len(left), [pair for pair in left if found[pair].end != "reached"]
            asking = [pair for pair in left if found[pair].end == "asks"]
            if not left or (rounds >= _ROUNDS if asking else time.monotonic() > until):
                return found, packets
            if asking:
                rounds += 1 if len(left) < before or rounds == 0 else _ROUNDS // 3
                packets += self.send([(found[pair].at, pair) for pair in asking])
            self.settle()

    def send(self, wanted_packets: Sequence[tuple[Port, Pair]], nbytes: int | None = None) -> int:
        """Let the first segment between two hosts come in by a port, for each."""
        for port, pair in wanted_packets:
            self.running.receive(port.interface, packet(self.fabric, *pair), nbytes)
        return len(wanted_packets)

    def talk(self) -> None:
        """Some pairs send: a packet comes in by each switch of their paths."""
        talking = list(self.base.items())[:: max(1, len(self.base) // _TALKING)][:_TALKING]
        hops = [(self.fabric.peer[port], pair) for pair, seen in talking for port in seen.path[:-1]]
        self.send(hops, 1400)

    def still(self, down: Sequence[Port] = (), patience_s: float = _PATIENCE_S) -> Trails:
        """Of the pairs that reached each other at first, those that do not now."""
        if not self.judged:
            return {}
        found, _ = self.look(list(self.base), patience_s, down)
        broken = {pair: seen for pair, seen in found.items() if seen.end != "reached"}
        if not down:  # what a check has found broken, the next ones do not find again
            self.base = {pair: seen for pair, seen in self.base.items() if pair not in broken}
        return broken

    def held(self) -> str:
        """That the routes are what they were."""
        if not (self.judged and self.base):
            return "no routes to look at"
        return f"all {len(self.base)} pairs reach each other"

    def victim(self) -> Switch:
        """The switch of the first host."""
        return self.fabric.switch_by_name[self.fabric.peer[self.fabric.ports_of[self.fabric.hosts[0].name][0]].node]

    def busiest_link(self) -> Port:
        """The port between switches that most trails leave by; where there is none, the first host's."""
        inner = Counter(
            port for seen in self.base.values() for port in seen.path
            if {port.node, self.fabric.peer[port].node} <= self.fabric.switch_by_name.keys()
        )  # fmt: skip
        return inner.most_common(1)[0][0] if inner else self.fabric.peer[self.fabric.ports_of[self.fabric.hosts[0].name][0]]

    def count_rules(self) -> None:
        """Note how many rules each switch has now, if they are more than ever before."""
        for switch in self.fabric.switches:
            self.most[switch.name] = max(self.most[switch.name], len(self.running.flows(switch.name)))

    def examples(self, broken: Trails, count: int = 2) -> str:
        """The first broken pairs, in words."""
        named = [f"{src} to {dst}: {seen.words(self.fabric)}" for (src, dst), seen in list(broken.items())[:count]]
        more = len(broken) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more else "")


def _pairs(fabric: Fabric) -> tuple[list[Pair], int]:
    """The pairs to look at and how many there are; a sample has each host as often at either end.

    Not those within a server, nor on rails that meet nowhere else: no switch has anything to do for them.
    """
    names, part = [host.name for host in fabric.hosts], fabric.part
    count = len(names)

    def wanted(src: str, dst: str) -> bool:
        return src != dst and part[src] == part[dst] and not fabric.together(src, dst)

    in_part = Counter(part[name] for name in names)
    in_server = Counter((part[host.name], host.machine) for host in fabric.hosts)
    every = sum(in_part[part[host.name]] - in_server[part[host.name], host.machine] for host in fabric.hosts)
    if every <= _PAIRS:
        return [pair for pair in permutations(names, 2) if wanted(*pair)], every
    strides = max(1, _PAIRS // count)
    apart = [1 + index * (count - 1) // strides for index in range(strides)]
    sample = [(names[i], names[(i + stride) % count]) for stride in apart for i in range(count)]
    return [pair for pair in sample if wanted(*pair)], every


def _has_loops(fabric: Fabric) -> bool:
    """Whether links between switches are more than a tree has; parallel ones count."""
    switches = fabric.switch_by_name.keys()
    return sum({link.a.node, link.b.node} <= switches for link in fabric.links) >= len(switches)


def _lines(folder: Path) -> int:
    file = folder / "ports.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def last_trouble(log: Path, source: plugins.Source) -> str:
    """The last traceback of a log: the error, and where in the app it came from; '' when there is none."""
    text = log.read_text(errors="replace") if log.exists() else ""
    _, mark, block = text.rpartition("Traceback (most recent call last):")
    if not mark:
        return ""
    places = re.findall(r'^ +File "([^"]+)", line (\d+)', block, re.MULTILINE)
    error = next((line.strip() for line in block.splitlines() if line and not line.startswith(" ")), "an error without words")
    own = source.module if source.is_file else source.module.replace(".", "/") + ".py"
    places = [place for place in places if place[0].endswith(own)] or places
    return f"{error} ({Path(places[-1][0]).name}:{places[-1][1]})" if places else error


def _named(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
