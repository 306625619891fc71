"""The verdict: each piece of evidence is computed right from samples, and each limit can warn and fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fabric.fidelity import LIMITS, Evidence, gather, judge
from fabric.graph import Fabric, FabricBuilder
from fabric.telemetry import CpuSample, ProcessSample, Queues
from topologies.single_switch import single_switch

MBPS = 20.0
FRAME = 9014
SECONDS = 5.0
PERIOD = 0.05
PACKETS_A_SECOND = MBPS * 1e6 / 8 / FRAME


@pytest.fixture(name="fabric")
def _fabric() -> Fabric:
    return single_switch(2)


def quiet(fabric: Fabric) -> Queues:
    """h0 sends to h1 at the full rate through a perfect switch; its queue always holds twenty packets."""
    t = np.arange(0, SECONDS, PERIOD)
    names = tuple(port.interface for port in fabric.peer)
    column = {name: index for index, name in enumerate(names)}
    zeros = np.zeros((len(t), len(names)), np.int64)
    sent = zeros.copy()
    sent[:, column["h0-eth0"]] = sent[:, column["s0-eth2"]] = np.floor(t * PACKETS_A_SECOND)
    backlog = zeros.copy()
    backlog[:, column["h0-eth0"]] = 20
    flat = np.zeros(len(t))
    return Queues(
        interfaces=names, period_ms=PERIOD * 1e3, t=t, late_ms=flat, missed=flat.astype(np.int64),
        backlog_bytes=backlog * FRAME, backlog_packets=backlog, drops=zeros, sent_bytes=sent * FRAME, sent_packets=sent,
    )  # fmt: skip


def idle_cpu() -> list[CpuSample]:
    """A machine at rest."""
    busy = {"switch": ProcessSample(0.9, "ovs-vswitchd", 0.9), "controller": ProcessSample(0.1, "python", 0.1)}
    return [CpuSample(t=0.25 * n, idle=0.8, steal=0.0, threads=busy, sampler=0.02) for n in range(1, 20)]


def evidence_of(queues: Queues, fabric: Fabric, cpu: list[CpuSample] | None = None) -> Evidence:
    """`gather` over the whole record."""
    mbps = dict.fromkeys(queues.interfaces, MBPS)
    return gather(
        queues, idle_cpu() if cpu is None else cpu, fabric, mbps, (0.0, SECONDS),
        frame=FRAME, idle_rtt_ms=1.0, switches_on_path=1, release_late=None,
    )  # fmt: skip


def column(queues: Queues, name: str) -> int:
    """The column of an interface."""
    return queues.interfaces.index(name)


def test_a_faithful_run_passes(fabric: Fabric) -> None:
    """A perfect switch at full rate, even with its thread at 90 % of a core, gives PASS and no reason."""
    evidence = evidence_of(quiet(fabric), fabric)
    assert judge(evidence).level == "PASS"
    assert judge(evidence).reasons == ()
    assert evidence.switch_delay == 0
    assert evidence.saturated_low == pytest.approx(1.0, abs=0.005)
    assert evidence.burst_frames is not None and evidence.burst_frames <= 1.01


def test_packets_waiting_inside_the_switch_are_its_delay(fabric: Fabric) -> None:
    """By Little's law: two packets always inside, at one packet a frame time, are two frame times."""
    queues = quiet(fabric)
    sent = queues.sent_packets.copy()
    sent[1:-1, column(queues, "s0-eth2")] -= 2  # the last sample is of the quiet network
    evidence = evidence_of(replace(queues, sent_packets=sent), fabric)
    assert evidence.switch_delay == pytest.approx(2.0, abs=0.1)
    assert judge(evidence).level == "FAIL"


def test_packets_a_queue_dropped_are_accounted_for(fabric: Fabric) -> None:
    """Half of the packets dropped by the queue they came to: nothing is missing, nothing waits inside."""
    queues = quiet(fabric)
    sent, drops = queues.sent_packets.copy(), queues.drops.copy()
    out = column(queues, "s0-eth2")
    drops[:, out] = sent[:, out] // 2
    sent[:, out] -= drops[:, out]
    evidence = evidence_of(replace(queues, sent_packets=sent, drops=drops), fabric)
    assert evidence.unaccounted == 0
    assert evidence.switch_delay is None  # it drops all the time: nobody can tell


def two_switches() -> tuple[Fabric, Queues]:
    """h0 to h1 through one switch, h2 to h3 through another, both at full rate."""
    build = FabricBuilder("two", {})
    for switch, hosts in (("s0", ("h0", "h1")), ("s1", ("h2", "h3"))):
        node = build.switch(switch)
        for host in hosts:
            build.link(build.host(host), node)
    build.link("s0", "s1")
    fabric = build.fabric()
    one, names = quiet(single_switch(2)), tuple(port.interface for port in fabric.peer)
    same = {"h0-eth0": "h0-eth0", "h2-eth0": "h0-eth0", "s0-eth2": "s0-eth2", "s1-eth2": "s0-eth2"}
    sent = np.zeros((len(one.t), len(names)), np.int64)
    for name, like in same.items():
        sent[:, names.index(name)] = one.sent_packets[:, column(one, like)]
    zeros = np.zeros_like(sent)
    return fabric, replace(
        one, interfaces=names, backlog_bytes=zeros, backlog_packets=zeros, drops=zeros, sent_packets=sent, sent_bytes=sent * FRAME
    )


def test_a_packet_that_was_offered_twice_is_no_wait_and_hides_no_loss() -> None:
    """One switch counts packets out twice where its queue drops, the other loses as many: neither waits, and the loss shows."""
    fabric, queues = two_switches()
    sent, drops = queues.sent_packets.copy(), queues.drops.copy()
    drops[:, column(queues, "s0-eth2")] = sent[:, column(queues, "s0-eth2")] // 50
    queues = replace(queues, drops=drops)
    evidence = evidence_of(queues, fabric)
    assert (evidence.switch_delay, evidence.unaccounted) == (0, 0)
    sent[:, column(queues, "s1-eth2")] = sent[:, column(queues, "s1-eth2")] * 49 // 50
    evidence = evidence_of(replace(queues, sent_packets=sent), fabric)
    assert evidence.unaccounted == pytest.approx(0.01, abs=0.001)  # of those into both


def test_where_every_switch_drops_the_stretches_without_a_drop_tell(fabric: Fabric) -> None:
    """A wait is found there, and what the datapath counted twice in between is none; where there is no such stretch nothing is said."""
    queues = quiet(fabric)
    sent, drops = queues.sent_packets.copy(), queues.drops.copy()
    out, half = column(queues, "s0-eth2"), len(queues.t) // 2
    drops[:half, out] = sent[:half, out] // 5
    drops[half:, out] = drops[half - 1, out]
    twice = replace(queues, sent_packets=sent, drops=drops)
    assert evidence_of(twice, fabric).switch_delay == 0
    sent = sent.copy()
    sent[half + 1 : -1, out] -= 2
    assert evidence_of(replace(twice, sent_packets=sent), fabric).switch_delay == pytest.approx(2.0, abs=0.2)
    drops = queues.sent_packets // 5
    assert evidence_of(replace(queues, drops=drops), fabric).switch_delay is None


def test_a_wait_counts_in_times_of_the_switchs_own_loop_where_frames_are_short(fabric: Fabric) -> None:
    """Small frames on a fast link take less than any userspace switch: a tenth of a millisecond is no defect there."""
    queues = quiet(fabric)
    sent = queues.sent_packets.copy()
    sent[1:-1, column(queues, "s0-eth2")] -= 2
    waits = replace(queues, sent_packets=sent)
    slow = evidence_of(waits, fabric).switch_delay
    fast = gather(
        replace(waits, t=waits.t / 20), idle_cpu(), fabric, dict.fromkeys(queues.interfaces, 20 * MBPS), (0.0, SECONDS),
        frame=FRAME, idle_rtt_ms=1.0, switches_on_path=1, release_late=None,
    ).switch_delay  # fmt: skip
    frame_ms = FRAME * 8e-3 / MBPS / 20
    assert slow == pytest.approx(2.0, abs=0.1) and fast == pytest.approx(2.0 * frame_ms / max(frame_ms, 0.5), rel=0.05)
    assert frame_ms < 0.5


def test_packets_that_vanish_are_unaccounted_for(fabric: Fabric) -> None:
    """One in a hundred neither left the switch nor was dropped by a queue."""
    queues = quiet(fabric)
    sent = queues.sent_packets.copy()
    sent[:, column(queues, "s0-eth2")] = sent[:, column(queues, "s0-eth2")] * 99 // 100
    evidence = evidence_of(replace(queues, sent_packets=sent), fabric)
    assert evidence.unaccounted == pytest.approx(0.01, abs=0.002)
    assert evidence.switch_delay is not None and evidence.switch_delay < 0.5  # lost is not waiting
    assert judge(evidence).level == "FAIL"


def test_a_super_packet_is_ahead_of_its_rate(fabric: Fabric) -> None:
    """Seven frames at once, as TCP's segmentation would send them, are seen although the average is right."""
    queues = quiet(fabric)
    nbytes = queues.sent_bytes.copy()
    nbytes[50, column(queues, "h0-eth0")] += 7 * FRAME
    evidence = evidence_of(replace(queues, sent_bytes=nbytes), fabric)
    assert evidence.burst_frames == pytest.approx(8, abs=1.1)
    assert judge(evidence).level == "FAIL"


def test_a_sample_that_was_read_late_is_no_burst(fabric: Fabric) -> None:
    """The same seven frames, where the reading took as long as they do; in half of that they would still be four ahead."""
    queues = quiet(fabric)
    nbytes = queues.sent_bytes.copy()
    nbytes[50, column(queues, "h0-eth0")] += 7 * FRAME
    took_ms = np.zeros(len(queues.t))
    for share, least, most in [(1.0, 0.0, 1.1), (0.5, 3.0, 4.6)]:
        took_ms[50] = share * 7 * FRAME * 8e-3 / MBPS
        evidence = evidence_of(replace(queues, sent_bytes=nbytes, took_ms=took_ms), fabric)
        assert evidence.burst_frames is not None and least <= evidence.burst_frames <= most


def test_a_saturated_link_below_its_rate_fails(fabric: Fabric) -> None:
    """A queue that is never empty on a link that carries nine tenths."""
    queues = quiet(fabric)
    evidence = evidence_of(replace(queues, sent_bytes=queues.sent_bytes * 9 // 10), fabric)
    assert evidence.saturated_low == pytest.approx(0.9, abs=0.005)
    assert judge(evidence).level == "FAIL"


def test_a_link_that_may_have_rested_is_not_called_saturated(fabric: Fabric) -> None:
    """Three packets at both samples are less than it sends in between: nothing is known of the time between."""
    queues = quiet(fabric)
    short = replace(queues, backlog_bytes=queues.backlog_bytes * 3 // 20, sent_bytes=queues.sent_bytes // 2)
    assert evidence_of(short, fabric).saturated_low is None


@pytest.mark.parametrize("share", [1.0, 0.9, 1.1])
def test_a_frame_more_or_less_in_a_sample_is_no_rate(fabric: Fabric, share: float) -> None:
    """A window of four packets waits before a slow link: a sample that begins with all four is one in which four leave. Not so in a stretch of them."""
    queues, slow = quiet(fabric), MBPS / 4
    out = column(queues, "h0-eth0")
    per_second = share * PACKETS_A_SECOND / 4
    sent, backlog = queues.sent_packets.copy(), queues.backlog_packets.copy()
    gone = np.floor(queues.t * per_second)
    sent[:, out] = gone
    backlog[:, out] = np.where(queues.t * per_second - gone > 0.5, 4, 3)  # one comes half a frame time after one has gone
    rates = {**dict.fromkeys(queues.interfaces, MBPS), "h0-eth0": slow}
    seen = replace(queues, sent_packets=sent, sent_bytes=sent * FRAME, backlog_packets=backlog, backlog_bytes=backlog * FRAME)

    def gathered(queues: Queues) -> Evidence:
        return gather(queues, idle_cpu(), fabric, rates, (0.0, SECONDS), frame=FRAME, idle_rtt_ms=1.0, switches_on_path=1, release_late=None)

    assert gathered(seen).saturated_high is None  # stretches of a sample or two say nothing
    longer = replace(seen, backlog_packets=backlog + 4, backlog_bytes=(backlog + 4) * FRAME)
    found = gathered(longer).saturated_high
    assert found == pytest.approx(share, abs=0.005) and (share != 1.0 or found == 1.0)


def test_the_worst_second_counts(fabric: Fabric) -> None:
    """Steal in one second of five is that second's share, not the average."""
    cpu = idle_cpu()
    for index in range(8, 12):
        cpu[index] = replace(cpu[index], steal=0.4)
    evidence = evidence_of(quiet(fabric), fabric, cpu)
    assert evidence.steal is not None and evidence.steal > 0.25
    assert judge(evidence).level == "FAIL"


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.evidence)
def test_every_limit_can_warn_and_fail(limit: object) -> None:
    """Just past each threshold the verdict changes, and the reason names the threshold."""
    from fabric.fidelity import Limit

    assert isinstance(limit, Limit)
    step = 1e-6 if limit.above else -1e-6
    for threshold, level in ((limit.warn, "WARN"), (limit.fail, "FAIL")):
        past = judge(replace(Evidence(), **{limit.evidence: threshold + step}))
        assert past.level == level
        assert f"({level} {'above' if limit.above else 'below'} {threshold:g})" in past.reasons[0]
    assert judge(replace(Evidence(), **{limit.evidence: limit.warn})).level == "PASS"


def test_a_fault_found_elsewhere_fails() -> None:
    """A controller that raised exceptions makes the row FAIL, whatever the machine did."""
    verdict = judge(Evidence(), ["the controller raised 2 exceptions"])
    assert (verdict.level, verdict.reasons) == ("FAIL", ("the controller raised 2 exceptions",))
