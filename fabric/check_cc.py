"""A verdict on a congestion control, one's own or the kernel's: does it load, negotiate, fill, share, and back off?

Comes in: its spelling, as `transport.tcp` has it. Goes out: a `Finding` for each question, as its answer is known. It runs on
the real shaped fabric: one switch, three hosts, 20 Mb/s; cubic runs there too, so that a slow machine is no fault of it.
Where it needs ECN the queues mark.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fabric.congestion import is_file, located
from fabric.controller_bench import Finding
from fabric.doctor import refusals
from fabric.emulation import emulate, machine_sysctls
from fabric.endpoints import Provided, offered, providers
from fabric.errors import MachineError, RequestError
from fabric.experiment import Point, load_experiment
from fabric.fidelity import gather, judge
from fabric.keys import ETHERNET_HEADER, Sockets
from fabric.recorded import Recorded
from fabric.refusals import sockets_differ
from fabric.sandbox import Sandbox, sandbox
from fabric.telemetry import read_cpu
from fabric.workload import Workload, workload

__all__ = ["LIMITS", "UNDECIDED", "Limits", "Seen", "backing_off", "check", "filling", "holding", "jain", "negotiating", "sharing", "undecided"]

HOSTS, MBPS, QUEUE, SHORT, THRESHOLD = 3, 20, 100, 30, 20
SECONDS, SHARING_SECONDS = 5, 8
UNDECIDED = "undecided"  # how such a sentence begins: neither passed nor failed
TURNS = 2  # at most, of an arm that the machine could not emulate
SETTLED_S = 2.0  # of a run: what comes before is slow start
_ARMS = """
question: Is it a congestion control?
topology: {{use: single-switch, hosts: {hosts}}}
links: {{mbps: {mbps}, queue_packets: {queue}{ecn}}}
controller: {{use: two-level}}
load: [{{use: incast, senders: {flows}}}]
duration_s: {seconds}
transport: {{tcp: {tcp}, initcwnd: 1}}
telemetry: {{period_ms: 10}}
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on an answer is no.

    `fills` is a share of cubic's goodput, `shares` Jain's index. In the short queue, beside cubic: `loses` is a share of its
    segments, `leaves` what either of the two has of both at least, `keeps` what both have of the link. Of the threshold: times.
    """

    fills: float = 0.9
    shares: float = 0.8
    loses: float = 0.022  # reno has 1.1 to 1.5 % here, cubic 0.6 to 1.0, and slow start without an end 3.1 to 4.0
    leaves: float = 0.15
    keeps: float = 0.8
    threshold_low: float = 0.25
    threshold_high: float = 2.0


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one arm showed: each flow's goodput in Mb/s once settled, those of cubic last; segments, retransmissions and the
    largest window of the senders that are judged.

    `names` and `ecn` are of every socket, `queue_packets` the mean of the bottleneck once settled, `drops` of all queues;
    `wrong` says what was not as asked, if anything, `unfaithful` why the machine could not emulate it faithfully.
    """

    goodput_mbps: tuple[float, ...]
    segments: int
    retransmits: int
    cwnd: int
    names: frozenset[str]
    ecn: frozenset[bool]
    queue_packets: float
    drops: int
    wrong: str | None = None
    unfaithful: tuple[str, ...] = ()

    @property
    def retransmitted(self) -> float:
        """The share of segments that were sent again."""
        return self.retransmits / max(1, self.segments)


def check(tcp: str, base: Path, progress: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """A finding for each question, in order; after one that makes the next ones meaningless there are no more.

    RequestError when there is no such file, MachineError when this machine cannot ask.
    """
    if is_file(tcp):
        located(tcp, base)
    with tempfile.TemporaryDirectory(prefix="fabriclab-") as scratch:
        cubic = _point(Path(scratch), "cubic", base)
        if said := refusals([replace(cubic, transport=cubic.transport.model_copy(update={"tcp": tcp}))]):
            raise MachineError("; ".join(said))
        with sandbox() as place, contextlib.ExitStack() as held:
            progress("loads")
            try:
                tcps = providers({"cubic", tcp}, base, place.folder)
                for one in tcps.values():
                    place.set_machine_sysctls(machine_sysctls(one))
                held.enter_context(offered(tcps.values()))
            except (MachineError, RequestError) as err:
                yield Finding("loads", "FAIL", str(err))
                return
            one = tcps[tcp]
            whose = "a program in C, compiled" if tcp.endswith(".c") else {"kernel": "the kernel's own", "bpf": "fabriclab's own"}.get(one.by, "an object")
            yield Finding("loads", "PASS", f"{whose}; it calls itself {one.name}{', and needs ECN' if one.needs_ecn else ''}")
            yield from _Arms(Path(scratch), base, place, tcps, one, progress).findings()


@dataclass(frozen=True)
class _Arms:
    """Runs the arms of one check."""

    scratch: Path
    base: Path
    place: Sandbox
    tcps: Mapping[str, Provided]
    tcp: Provided
    progress: Callable[[str], None]

    def findings(self) -> Iterator[Finding]:
        """All questions but the first."""
        tcp, marks = self.tcp, self.tcp.needs_ecn
        alone = self.run("one flow of it", tcp.asked)
        yield (finding := negotiating(alone, tcp))
        if finding.verdict == "FAIL":
            return
        cubic = self.run("one flow of cubic", "cubic")
        yield undecided(filling(alone, cubic), alone, cubic)
        # A queue at a switch needs two senders: one is held back by its own host, which drops and marks nothing.
        shared = self.run("two flows of it", tcp.asked, flows=2, seconds=SHARING_SECONDS)
        yield undecided(sharing(shared), shared)
        if marks:
            yield undecided(holding(shared), shared)
            return
        short = self.run("a short queue, shared with cubic", tcp.asked, queue=SHORT, flows=2, seconds=SHARING_SECONDS, beside_cubic=True)
        yield undecided(backing_off(short), short)

    def run(
        self, what: str, tcp: str, *, queue: int = QUEUE, flows: int = 1, seconds: int = SECONDS, beside_cubic: bool = False
    ) -> Seen:
        """One arm, as it was seen, and again while the machine could not emulate it; with `beside_cubic` the last sender uses that."""
        point = _point(self.scratch, tcp, self.base, queue=queue, flows=flows, seconds=seconds, marks=self.tcp.needs_ecn)
        work = workload(point)
        judged = {flow.src for flow in (work.flows[:-1] if beside_cubic else work.flows)}
        others = {flow.src: Sockets(tcp="cubic") for flow in work.flows if flow.src not in judged}
        point = replace(point, transport=point.transport.model_copy(update={"hosts": others}))
        ips = {point.fabric.host_by_name[host].ip for host in judged}
        self.progress(what)
        seen = self.turn(point, work, ips)
        for number in range(2, TURNS + 1):
            if seen.unfaithful:
                self.progress(f"{what}, time {number}, as {seen.unfaithful[0]}")
                seen = self.turn(point, work, ips)
        return seen

    def turn(self, point: Point, work: Workload, ips: Collection[str]) -> Seen:
        """One run of one arm; `ips` are the senders that are judged."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch)) / "arm"
        emulate(point, work, folder, self.place, self.tcps, 0.0, lambda _: None)
        recorded = Recorded(folder)
        return replace(_seen(recorded, ips), wrong=sockets_differ(point, work, recorded), unfaithful=_unfaithful(point, recorded))


def _point(scratch: Path, tcp: str, base: Path, *, queue: int = QUEUE, flows: int = 1, seconds: int = SECONDS, marks: bool = False) -> Point:
    ecn = f", ecn: {{min_packets: {THRESHOLD}, max_packets: {THRESHOLD}}}" if marks else ""
    file = scratch / "arm.yaml"
    # In JSON, which YAML understands: a file's name may have blanks or colons.
    file.write_text(_ARMS.format(hosts=HOSTS, mbps=MBPS, queue=queue, ecn=ecn, flows=flows, seconds=seconds, tcp=json.dumps(tcp)))
    (point,) = load_experiment(file, base=base).points
    return point


def _seen(recorded: Recorded, judged: Collection[str]) -> Seen:
    (load,), (record,) = recorded.event("load"), recorded.event("flows")
    window = (load["begin"] + SETTLED_S, load["end"])
    rates = []
    for flow in record["flows"].values():
        first, last = np.interp(window, flow["t"], np.array(flow["nbytes"], float))
        rates.append(float((last - first) * 8e-6 / (window[1] - window[0])))
    queues = recorded.queues
    inside = (queues.t >= window[0]) & (queues.t <= window[1])
    backlog = queues.backlog_packets[inside].mean(axis=0) if inside.any() else np.zeros(1)
    senders = [end for end in recorded.sockets if end["role"] == "sender" and end["src_ip"] in judged]
    return Seen(
        goodput_mbps=tuple(rates), segments=sum(end["data_segments_out"] for end in senders),
        retransmits=sum(end["retransmits"] for end in senders), cwnd=max(end["cwnd"] for end in senders),
        names=frozenset(end["tcp"] for end in recorded.sockets), ecn=frozenset(end["ecn"] for end in recorded.sockets),
        queue_packets=float(backlog.max()), drops=int(queues.drops[-1].sum()),
    )  # fmt: skip


def _unfaithful(point: Point, recorded: Recorded) -> tuple[str, ...]:
    """Why the machine could not emulate an arm, by the verdict that a row would have; empty when it could."""
    (load,) = recorded.event("load")
    evidence = gather(
        recorded.queues, read_cpu(recorded.folder / "telemetry" / "cpu.jsonl"), point.fabric, recorded.mbps, (load["begin"], load["end"]),
        frame=point.links.mtu + ETHERNET_HEADER, idle_rtt_ms=recorded.network["idle_rtt_ms"], switches_on_path=1, release_late=None,
    )  # fmt: skip
    if recorded.queues.drops[-1].any():
        # Of one switch that dropped, packets are counted out twice, which looks like a wait (fabric/fidelity.py, _switch_delay).
        evidence = replace(evidence, switch_delay=None)
    return tuple(reason for reason in judge(evidence).reasons if "(FAIL" in reason)


def undecided(finding: Finding, *arms: Seen) -> Finding:
    """The finding, or that there is none, where the machine could not emulate an arm of it in any turn: UNDECIDED at its begin."""
    reasons = [reason for arm in arms for reason in arm.unfaithful]
    if not reasons:
        return finding
    return Finding(finding.check, "NOTE", f"{UNDECIDED} in {TURNS} turns, as this machine was too busy: {reasons[0]}; run it again ({finding.sentence})")


def _finding(check: str, passed: bool, sentence: str, remedy: str) -> Finding:
    return Finding(check, "PASS", sentence) if passed else Finding(check, "FAIL", f"{sentence}: {remedy}")


def negotiating(alone: Seen, tcp: Provided) -> Finding:
    """Do all sockets, of both ends, report its name, and ECN where it needs that?"""
    if alone.wrong or alone.names != {tcp.name}:
        return Finding("negotiates", "FAIL", f"{alone.wrong or f'sockets report {sorted(alone.names)}'}: the kernel did not take it for every socket")
    if tcp.needs_ecn and alone.ecn != {True}:
        return Finding("negotiates", "FAIL", "it needs ECN, and sockets did not agree on it: does its init() change ecn_flags?")
    return Finding("negotiates", "PASS", f"every socket, of both ends, reports {tcp.name}{' and ECN' if tcp.needs_ecn else ''}")


def filling(alone: Seen, cubic: Seen) -> Finding:
    """Does one flow, which begins with a window of one packet, get nearly what one of cubic gets?"""
    got, whole = sum(alone.goodput_mbps), sum(cubic.goodput_mbps)
    sentence = f"one flow got {got:.1f} Mb/s where cubic got {whole:.1f} ({got / whole:.2f}, at least {LIMITS.fills:g} is due); its window ended at {alone.cwnd}"
    return _finding("fills", got >= LIMITS.fills * whole, sentence, "it must grow its window while everything is acknowledged")


def jain(rates: tuple[float, ...]) -> float:
    """Jain's fairness index: 1 for equal shares, 1/n when one has all (Jain, Chiu, Hawe, DEC-TR-301, 1984).

    >>> jain((1.0, 1.0)), jain((1.0, 0.0))
    (1.0, 0.5)
    """
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 0.0


def sharing(shared: Seen) -> Finding:
    """Do two flows of it get about the same?"""
    index = jain(shared.goodput_mbps)
    rates = " and ".join(f"{rate:.1f}" for rate in shared.goodput_mbps)
    sentence = f"two flows got {rates} Mb/s: Jain's index {index:.2f}, at least {LIMITS.shares:g} is due"
    return _finding("shares", index >= LIMITS.shares, sentence, "the one with the larger window must give way more than it takes back")


def backing_off(short: Seen) -> Finding:
    """In a queue of SHORT packets, shared with cubic: are losses few, does the goodput stay, and does either leave the other some?"""
    share, whole = short.retransmitted, sum(short.goodput_mbps)
    own, cubic = short.goodput_mbps
    sentence = (
        f"beside a flow of cubic, with a queue of {SHORT} packets, {short.drops} were dropped and {share:.1%} of its segments sent again "
        f"(at most {LIMITS.loses:.1%}); it got {own:.1f} Mb/s and left cubic {cubic:.1f} (either at least {LIMITS.leaves:.0%} of both, and "
        f"both {LIMITS.keeps:.0%} of {MBPS}); its window ended at {short.cwnd}"
    )
    if share > LIMITS.loses or cubic < LIMITS.leaves * whole:
        return Finding("backs off", "FAIL", f"{sentence}: it must make its window smaller on a loss")
    if own < LIMITS.leaves * whole or whole < LIMITS.keeps * MBPS:
        return Finding("backs off", "FAIL", f"{sentence}: it backs off too far, or waits for timeouts")
    if not short.drops:
        return Finding("backs off", "NOTE", f"{sentence}: nothing was lost, so what it does on a loss was not seen")
    return Finding("backs off", "PASS", sentence)


def holding(shared: Seen) -> Finding:
    """Does a queue that marks stay near its threshold?"""
    low, high = LIMITS.threshold_low * THRESHOLD, LIMITS.threshold_high * THRESHOLD
    sentence = f"queues mark from {THRESHOLD} packets; the bottleneck held {shared.queue_packets:.1f} on average ({low:g} to {high:g} are due), and {shared.drops} were dropped"
    remedy = "it must make its window smaller on marks" if shared.queue_packets > high else "it makes its window too small on marks"
    return _finding("backs off", low <= shared.queue_packets <= high, sentence, remedy)
