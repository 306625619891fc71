"""Proofs that marking was in force: each passes on a sound record, and fails on one that lacks just what it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fabric.events import Happened, Timed
from fabric.experiment import Point
from fabric.graph import Fabric, FabricBuilder
from fabric.journeys import Journey
from fabric.keys import Ecn, Links, Transport
from fabric.proofs import describe_ecn, unproven
from fabric.queueing import Queueing
from fabric.recorded import Recorded
from fabric.socketlog import SocketSeries
from fabric.tcp import Endpoints
from fabric.telemetry import Queues
from topologies.single_switch import single_switch

FRAME = 1514


class Seen:
    """The parts of a record that the proofs read: one port that holds up to thirty frames and marks above twenty."""

    def __init__(self) -> None:
        flat = np.zeros(3)
        counts = np.zeros((3, 2), np.int64)
        backlog = counts.copy()
        backlog[1, 0] = 30 * FRAME
        self.queues = Queues(
            interfaces=("s0-eth1", "h0-eth0"), period_ms=10, t=np.arange(3.0), late_ms=flat, missed=counts[:, 0],
            backlog_bytes=backlog, backlog_packets=backlog // FRAME, drops=counts, sent_bytes=counts, sent_packets=counts,
        )  # fmt: skip
        port = {"packets": 900, "capable": 800, "marked": 100, "marked_before": 0, "not_capable": 5, "bytes": 1, "most_bytes": 31 * FRAME}
        self.network: dict[str, Any] = {"marking": {"by": "bpf", "ports": {"s0-eth1": port}, "ce_received": {"h0": 60, "h1": 40}}}
        self.orders: list[dict[str, Any]] = []
        self.sockets: list[dict[str, Any]] = [{"ecn": True, "tcp": "cubic"}, {"ecn": True, "tcp": "cubic"}]
        self.happened: list[Happened] = []
        self.queueing: Queueing | None = None
        self.journeys: list[Journey] = []
        self.decisions: list[dict[str, Any]] | None = None
        self.iterations: list[dict[str, Any]] = []
        self.edge_paths: dict[Any, Any] = {}
        self.flow_paths: list[Any] = []
        self.series: list[SocketSeries] = []
        self.inside = 0

    def lost_inside(self, fabric: Fabric | None) -> int:
        """What switches lost."""
        return self.inside

    def event(self, kind: str) -> list[dict[str, Any]]:
        """The iterations' records, and that all connections were open at second 10."""
        return {"iteration": self.iterations, "started": [{"t": 10.0}]}[kind]

    @property
    def port(self) -> dict[str, Any]:
        """What the marking program saw."""
        return cast(dict[str, Any], self.network["marking"]["ports"]["s0-eth1"])


class Asked:
    """The parts of a point that the proofs read."""

    def __init__(self, ecn: Ecn | None, negotiate: bool | None = None) -> None:
        self.fabric: Fabric | None = None
        self.collective: object = None
        self.links = Links(mbps=20, ecn=ecn)
        self.transport = Transport(ecn=negotiate)

    @property
    def collectives(self) -> dict[str, object]:
        """As a point has them."""
        return {"collective": self.collective} if self.collective else {}


STEP = Ecn(min_packets=20, max_packets=20)


def told(seen: Seen, ecn: Ecn | None = STEP, negotiate: bool | None = None) -> list[str]:
    """What is not proven."""
    return unproven(cast(Point, Asked(ecn, negotiate)), cast(Recorded, seen))


def test_a_sound_record_proves_everything() -> None:
    """All marks arrived, all sockets agreed on ECN, and the queue that was over its threshold marked."""
    assert told(Seen()) == []


def test_where_nothing_marks_there_is_nothing_to_prove() -> None:
    """Without thresholds."""
    seen = Seen()
    seen.sockets[0]["ecn"] = False
    assert told(seen, None) == []


def test_an_arm_without_ecn_must_be_without() -> None:
    """Nothing else is asked of it; but a socket that agreed on ECN makes it the other arm."""
    seen = Seen()
    seen.port["marked"] = 0
    seen.sockets = [{"ecn": False, "tcp": "cubic"}, {"tcp": "cubic"}]
    assert told(seen, negotiate=False) == []
    seen.sockets[0]["ecn"] = True
    assert told(seen, negotiate=False) == ["1 of 2 sockets negotiated ECN, which was to be left alone"]


def test_marks_that_a_dead_link_swallowed_are_missed_by_nobody() -> None:
    """Its queue went with it, uncounted; more than were made are too many all the same."""
    seen = Seen()
    down = Timed(at_s=1, do="down", names=("s0", "h0"))
    seen.happened = [Happened(down, 1.0, 1.0, {})]
    seen.network["marking"]["ce_received"] = {"h0": 10}
    assert told(seen) == []
    seen.network["marking"]["ce_received"] = {"h0": 101}
    assert len(told(seen)) == 1


def test_sockets_without_ecn_prove_that_nothing_could_be_marked() -> None:
    """One of two."""
    seen = Seen()
    seen.sockets[0]["ecn"] = False
    assert told(seen) == ["1 of 2 sockets did not negotiate ECN"]


def test_a_full_queue_that_marks_nothing_is_found() -> None:
    """It held thirty frames where twenty are the threshold; two more than that may be between sample and packet."""
    seen = Seen()
    seen.port["marked"] = 0
    seen.network["marking"]["ce_received"] = {"h0": 0}
    assert told(seen) == ["s0-eth1 held 45420 bytes, over its threshold, and marked none of 800 packets"]
    backlog = np.minimum(seen.queues.backlog_bytes, 22 * FRAME)
    seen.queues = replace(seen.queues, backlog_bytes=backlog)
    assert told(seen) == []


def test_a_queue_that_marks_below_its_threshold_is_found() -> None:
    """Nobody ever saw more than ten frames in it."""
    seen = Seen()
    seen.port["most_bytes"] = 10 * FRAME
    assert told(seen) == [f"s0-eth1 marked 100 packets and never held more than {10 * FRAME} bytes"]


@pytest.mark.parametrize(
    ("received", "drops", "inside", "fine"),
    [(100, 0, 0, True), (99, 0, 0, False), (99, 1, 0, True), (101, 5, 5, False), (90, 7, 3, True), (89, 7, 3, False)],
)
def test_marks_at_queues_and_at_hosts_agree(received: int, drops: int, inside: int, fine: bool) -> None:
    """Less than all may arrive only where queues dropped, or where switches gave up what stood behind such a packet; and never more."""
    seen = Seen()
    seen.inside = inside
    seen.network["marking"]["ce_received"] = {"h0": received}
    seen.queues = replace(seen.queues, drops=np.array([[0, 0], [0, 0], [drops, 0]]))
    expected = f"queues marked 100 packets, hosts received {received} with CE, queues dropped {drops}, and switches lost {inside}"
    assert told(seen) == ([] if fine else [expected])


def test_a_phantom_queue_may_mark_while_the_true_one_is_empty() -> None:
    """And need not while that one is full; how long it was itself is what the program says."""
    seen = Seen()
    seen.queues = replace(seen.queues, backlog_bytes=seen.queues.backlog_bytes * 0)
    assert told(seen, Ecn(min_packets=20, max_packets=20, headroom=0.95)) == []


def test_thresholds_in_words() -> None:
    """As a row has them."""
    assert describe_ecn(None) is None
    assert describe_ecn(STEP) == "20 packets"
    assert describe_ecn(Ecn(min_bytes=30_000, max_bytes=30_000)) == "30000 bytes"
    assert describe_ecn(Ecn(min_packets=5, max_packets=9, headroom=0.95)) == "5 to 9 packets of a phantom queue at 0.95"


# -- orders

FLOW = {"src_ip": "10.0.0.2", "src_port": 20000, "dst_ip": "10.1.0.2", "dst_port": 5001}


def ordered(*orders: dict[str, Any], **ends: Any) -> Seen:
    """Orders that were done, and what the two ends of their flow say afterwards."""
    seen = Seen()
    seen.network = {}
    seen.orders = [{"t": 1.0, "order": {"flow": {**FLOW, "protocol": 6}, **order}, "got": order.get("mbps") and int(order["mbps"] * 125_000)} for order in orders]
    seen.sockets = [{**FLOW, "role": role, "dscp": 0, "pacing_limit": None, **ends.get(role, {})} for role in ("sender", "receiver")]
    return seen


THERE, BACK = "10.0.0.2:20000>10.1.0.2:5001", "10.1.0.2:5001>10.0.0.2:20000"
FIRST, LAST = {"do": "priority", "first": True}, {"do": "priority", "first": False}


@pytest.mark.parametrize(
    ("seen", "lost"),
    [
        (ordered(FIRST, sender={"dscp": 46}, receiver={"dscp": 46}), []),
        (ordered(FIRST, sender={"dscp": 46}), [BACK]),
        (ordered(FIRST), [THERE, BACK]),
        (ordered(FIRST, LAST), []),
        (ordered(LAST, FIRST), [THERE, BACK]),
        (ordered({"do": "rate", "mbps": 3.0}), [THERE]),
        (ordered({"do": "rate", "mbps": 3.0}, sender={"pacing_limit": 374999}), [THERE]),
        (ordered({"do": "rate", "mbps": 3.0}, {"do": "rate", "mbps": None}, sender={"pacing_limit": 375000}), [THERE]),
        (ordered({"do": "rate", "mbps": 3.0}, sender={"pacing_limit": 375000}), []),
        (ordered({"do": "rate", "mbps": 3.0}, {"do": "rate", "mbps": None}), []),
    ],
)
def test_what_was_set_at_a_socket_is_there_at_the_end(seen: Seen, lost: list[str]) -> None:
    """The last order counts; acknowledgements need priority as well, rates do not concern them."""
    found = told(seen, None)
    assert [words.split()[4] for words in found] == lost


def test_a_socket_that_nobody_can_find_proves_nothing() -> None:
    """What was ordered of it may be in force, or not."""
    seen = ordered(FIRST, sender={"dscp": 46}, receiver={"dscp": 46})
    seen.sockets.pop()
    assert [words.split()[4] for words in told(seen, None)] == [BACK]


def under_dctcp(held_frames: float, senders: int = 3, tcp: str = "dctcp") -> Seen:
    """A port that holds so much for a minute, with long flows over it, and K = 20."""
    seen = Seen()
    count = 100
    table = np.zeros((count, 2), np.int64)
    backlog = table.copy()
    backlog[:, 0] = round(held_frames * FRAME)
    seen.queues = replace(seen.queues, t=10.0 + np.arange(count), backlog_bytes=backlog, backlog_packets=backlog // FRAME)
    seen.port["most_bytes"] = round(held_frames * FRAME)
    seen.sockets = [{"ecn": True, "tcp": tcp, "role": "sender", "src_ip": "10.0.0.2"}]
    seen.flow_paths = [("h0-eth0", "s0-eth1")] * senders
    return seen


@pytest.mark.parametrize(("frames", "senders", "fine"), [(24.9, 3, True), (25.1, 3, False), (30, 8, True), (60, 30, True), (63, 30, False)])
def test_dctcp_keeps_its_queue_at_the_threshold_and_a_packet_of_each_sender(frames: float, senders: int, fine: bool) -> None:
    """And two frames between a sample and the packet that finds it; with many senders at two packets of each."""
    found = told(under_dctcp(frames, senders))
    assert (found == []) is fine and all("keep it at" in words for words in found)


def test_what_promises_no_length_is_held_to_none() -> None:
    """Another congestion control, a phantom queue, a threshold that grows, or flows that pause."""
    assert told(under_dctcp(60, tcp="cubic")) == []
    assert told(under_dctcp(60), Ecn(min_packets=20, max_packets=20, headroom=0.95)) == []
    assert told(under_dctcp(60), Ecn(min_packets=20, max_packets=30)) == []
    asked = Asked(STEP)
    asked.collective = "ring-allreduce"
    assert unproven(cast(Point, asked), cast(Recorded, under_dctcp(60))) == []


def shifted(*delayed_ms: float, began_ms: Sequence[float] | None = None) -> Seen:
    """A job of two ranks that was to begin its second iteration 120 ms later; how much later each one was told to, and really began.

    It computes for 100 ms; communication takes 50 ms, of the faster rank 40.
    """
    seen = Seen()
    seen.network = {}
    seen.orders = [{"order": {"do": "shift", "job": "job.1", "delay_ms": 120.0}, "got": {"iteration": 1, "delay_ms": 120.0}}]
    end = {"job.0": 5.0, "job.1": 5.0}
    for told_ms, late_ms in zip(delayed_ms, began_ms or delayed_ms, strict=True):
        for job in end:
            delay_ms, really_ms = (told_ms, late_ms) if job == "job.1" else (0.0, 0.0)
            release = end[job] + 0.1 + delay_ms / 1000
            times = {"release": release, "starts_ms": [0.1 - delay_ms + really_ms] * 2, "ends_ms": [40.0, 50.0]}
            seen.iterations.append({"job": job, "delayed_ms": delay_ms, **times})
            end[job] = release + 0.05
    return seen


def told_of_jobs(seen: Seen) -> list[str]:
    """What is not proven of a point whose jobs compute for 100 ms."""
    asked = Asked(None)
    asked.collective = SimpleNamespace(compute_ms=100.0)
    return unproven(cast(Point, asked), cast(Recorded, seen))


def test_a_job_that_was_shifted_began_later() -> None:
    """That iteration, by just so much; one that never came proves nothing, and no other one may come later."""
    assert told_of_jobs(shifted(0.0, 120.0, 0.0)) == []
    assert told_of_jobs(shifted(0.0, 60.0)) == ["job.1 was to begin iteration 2 120 ms later, and waited 60 ms"]
    assert told_of_jobs(shifted(0.0)) == ["job.1 was to begin iteration 2 120 ms later, and never came to it"]
    assert told_of_jobs(shifted(0.0, 120.0, 80.0)) == ["job.1 was to begin iteration 3 0 ms later, and waited 80 ms"]


def test_a_job_that_was_told_and_did_not_wait_is_found() -> None:
    """What it says that it was told is no proof: when it began is."""
    (found,) = told_of_jobs(shifted(0.0, 120.0, began_ms=(0.0, 0.0)))
    assert found.startswith("job.1 was to compute 220 ms before iteration 2, and did for 110")


@pytest.mark.parametrize(
    ("t", "send_buffer", "proven"),
    [(9.0, 6180, True), (9.0, 6181, False), (11.0, 87_380, True)],
)
def test_a_window_is_the_send_buffer_of_connections_to_come(t: float, send_buffer: int, proven: bool) -> None:
    """Three packets of 1448 bytes, as the kernel counts them; connections that were there before keep what they had."""
    seen = Seen()
    seen.network = {}
    got = {"rto_min_ms": 20, "initcwnd": 3, "window_packets": 3}
    seen.orders = [{"t": t, "order": {"do": "transport", "host": "h0", **got}, "got": got}]
    seen.sockets = [{"role": "sender", "src_ip": "10.0.0.2", "src_port": 1, "send_buffer": send_buffer}]
    found = unproven(cast(Point, Windowed()), cast(Recorded, seen))
    assert found == ([] if proven else [f"h0 was given a window of 6180 bytes, and 10.0.0.2:1 had {send_buffer}"])


class Windowed(Asked):
    """A point on one switch."""

    def __init__(self) -> None:
        super().__init__(None)
        self.fabric = single_switch(2)


def test_an_order_that_was_refused_need_not_be_in_force() -> None:
    """It is counted, not proven."""
    seen = ordered(FIRST)
    seen.orders[0].pop("got")
    assert told(seen, None) == []


def test_delays_must_be_those_of_all_packets_that_were_sent() -> None:
    """Against what the sampler read from the queues; where a link went down it swallowed what its queue had sent."""
    seen = Seen()
    seen.queues.sent_packets[-1] = (1000, 0)
    port = {"packets": 1000, "missed": 0, "stale": 0}
    seen.queueing = Queueing({"s0-eth1": port}, np.zeros(2), np.zeros((0, 4), np.int64))
    assert told(seen) == []
    port["packets"] = 900
    assert told(seen) == ["s0-eth1 sent 1000 packets, and 900 were seen to leave its queue"]
    seen.happened = [Happened(Timed(at_s=1, do="down", names=("s0", "h0")), 1.0, 1.0, {})]
    assert told(seen) == []


def test_probes_must_have_gone_the_installed_way() -> None:
    """Where nobody changed it meanwhile: neither an event nor a controller's decision."""
    none = np.zeros(0)
    table = np.zeros((0, 2))
    way, installed = ("h0-eth0", "s0-eth1"), ("h0-eth0", "s0-eth2")
    seen = Seen()
    seen.journeys = [Journey("h0", "h1", way, way, none, none, table, table, table, table, table, 9, 9, 0, 0)]
    assert told(seen) == []
    seen.journeys = [replace(seen.journeys[0], installed=installed)]
    assert told(seen) == ["in-band probes from h0 to h1 went by h0-eth0 s0-eth1; installed was h0-eth0 s0-eth2"]
    seen.decisions = [{"event": "reroute"}]
    assert told(seen) == []


@pytest.mark.parametrize(("by", "received", "fine"), [("netem", 95, True), ("netem", 94, False), ("nfqueue", 100, True), ("nfqueue", 95, False)])
def test_marks_that_the_delay_line_lost_are_missed_by_nobody(by: str, received: int, fine: bool) -> None:
    """netem loses, and holds back, before the host counts; the user-space line after it."""
    seen = Seen()
    seen.network["delay"] = {"by": by, "lost": 3, "waiting": 2} if by == "netem" else {"by": by}
    seen.network["marking"]["ce_received"] = {"h0": received}
    assert (told(seen) == []) == fine


def test_packets_that_were_marked_before_are_not_marked_again() -> None:
    """A queue over its threshold in which all that could be marked came with a mark has done what it should."""
    seen = Seen()
    seen.network["marking"]["ce_received"] = {"h0": 0}
    seen.port["marked"] = 0
    assert len(told(seen, STEP)) == 1
    seen.port["marked_before"] = 7
    assert told(seen, STEP) == []


@pytest.mark.parametrize(("nbytes", "found"), [(27 * FRAME, 1), (28 * FRAME, 0)])
def test_thresholds_in_bytes_are_judged_like_those_in_packets(nbytes: int, found: int) -> None:
    """The queue held thirty frames and marked nothing: too many over the first, within the slack of two over the second."""
    seen = Seen()
    seen.port["marked"] = 0
    seen.network["marking"]["ce_received"] = {"h0": 0}
    assert len(told(seen, Ecn(min_bytes=nbytes, max_bytes=nbytes))) == found


class TwoSwitches(Seen):
    """A record by RED of a fabric with two switches: each of 60 marks was met again at the last port, and counted again there."""

    def __init__(self) -> None:
        super().__init__()
        unknown = {"capable": None, "marked_before": None, "most_bytes": None, "packets": 900, "bytes": 1, "not_capable": 5}
        ports = {"left-eth1": {**unknown, "marked": 60}, "right-eth2": {**unknown, "marked": 60}}
        self.network["marking"] = {"by": "red", "ports": ports, "ce_received": {"h2": 60}}


def told_by_red(seen: Seen) -> list[str]:
    """What is not proven, on two switches, left and right, with two hosts each."""
    build = FabricBuilder("line", {})
    left, right = build.switch("left"), build.switch("right")
    build.link(left, right)
    for name, switch in (("h0", left), ("h1", left), ("h2", right), ("h3", right)):
        build.link(build.host(name), switch)
    asked = Asked(STEP)
    asked.fabric = build.fabric()
    return unproven(cast(Point, asked), cast(Recorded, seen))


def test_what_red_counted_twice_arrives_once() -> None:
    """As many as either port marked must have come, less what was dropped, and not more than both together."""
    seen = TwoSwitches()
    assert told_by_red(seen) == []
    for received, found in ((59, 1), (120, 0), (121, 1)):
        seen.network["marking"]["ce_received"] = {"h2": received}
        assert len(told_by_red(seen)) == found


def test_a_red_that_judged_nothing_is_found() -> None:
    """A queue over its threshold met packets, and none of them counts as over it; one that no packet of could be marked is fine."""
    seen = TwoSwitches()
    seen.queues = replace(seen.queues, interfaces=("left-eth1", "h0-eth0"))
    seen.network["marking"]["ports"]["left-eth1"].update(marked=0, not_capable=0)
    assert told_by_red(seen) == ["left-eth1 held 45420 bytes, over its threshold, and marked none of 900 packets"]
    seen.network["marking"]["ports"]["left-eth1"]["not_capable"] = 7
    assert told_by_red(seen) == []


MSS = 1448


def paced(mbps: float, *limits: tuple[float, int | None], at_end: int | None = 250_000) -> list[str]:
    """What is not proven of a sender at so many Mb/s for ten seconds, given limits in bytes/s at some moments, and what it says at the end."""
    seen = Seen()
    t = np.arange(0.0, 10.05, 0.1)
    flat = np.zeros(len(t))
    counts = np.zeros(len(t), np.int64)
    sent = (t * mbps * 1e6 / 8).astype(np.int64)
    seen.series = [SocketSeries("load", Endpoints("10.0.0.2", 20000, "10.1.0.2", 5001), t, flat, flat, counts + 10, counts, counts, sent)]
    seen.sockets = [{**FLOW, "role": "sender", "pacing_limit": at_end}]
    seen.orders = [{"t": moment, "order": {"do": "rate", "flow": FLOW, "mbps": 1.0}, "got": limit} for moment, limit in limits]
    return told(seen, None)


def test_what_was_under_way_before_an_order_is_no_disobedience() -> None:
    """A hundred segments waiting in a queue, or behind a lost one, when the limit came: that they are acknowledged only then is not the sender's doing."""
    seen = Seen()
    t = np.arange(0.0, 4.05, 0.1)
    sent = (100 * MSS + np.maximum(0, t - 1.0) * 12_500).astype(np.int64)
    acked = np.where(t < 1.65, 0, sent)
    zeros, none = np.zeros(len(t)), np.zeros(len(t), np.int64)
    seen.series = [SocketSeries("load", Endpoints("10.0.0.2", 20000, "10.1.0.2", 5001), t, zeros, zeros, none + 10, none, acked, sent)]
    seen.sockets = [{**FLOW, "role": "sender", "pacing_limit": 12_500}]
    seen.orders = [{"t": 1.0, "order": {"do": "rate", "flow": FLOW, "mbps": 0.1}, "got": 12_500}]
    assert told(seen, None) == []
    seen.series = [replace(seen.series[0], sent_bytes=acked)]
    assert [line.split(" was ")[1][:22] for line in told(seen, None)] == ["limited to 0.10 Mb/s a"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([paced(1.9), paced(2.0), paced(9.0, at_end=None)], []),
        ([paced(3.0)], ["10.0.0.2:20000>10.1.0.2:5001 was limited to 2.00 Mb/s and sent 3.00 for 10.0 s"]),
        ([paced(3.0, (4.0, 250_000))], ["10.0.0.2:20000>10.1.0.2:5001 was limited to 2.00 Mb/s and sent 3.00 for 5.8 s"]),
        ([paced(3.0, (4.0, 250_000), (4.9, None), at_end=None), paced(3.0, (1.0, None), (9.2, 250_000))], []),  # too short to say
        ([paced(2.1, (0.0, 250_000))], []),  # within the tolerance
    ],
)
def test_a_sender_that_ignores_its_limit_is_found(asked: list[list[str]], found: list[str]) -> None:
    """By what it sent: under the limit that it has at the end, or while an order was in force, and long enough to tell."""
    assert [line for lines in asked for line in lines] == found
