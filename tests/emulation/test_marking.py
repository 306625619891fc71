"""Marks on real queues and DCTCP between real sockets: where the program marks, what comes of it, and that it can be told."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyroute2 import IPRoute

from fabric.errors import MachineError
from fabric.graph import Port
from fabric.kernel import new_network_namespace
from fabric.links import Shape, requests
from fabric.markers import best_marker
from fabric.marking import BY_PHANTOM, BY_RED, BY_TRUE_QUEUE, Marker, MarkReader, Marks, Threshold
from fabric.qdiscs import QueueReader, Watched
from fabric.telemetry import read_queues
from topologies.single_switch import single_switch

pytestmark = pytest.mark.emulation

SHAPE = Shape(20, 1500, queue_packets=100)
FRAME = SHAPE.frame
BURST = 90
PORT = Port("a", 0)  # interface a-eth0
IPV4_ECT = bytes.fromhex("450205dc00004000401100000a0000010a000002")  # 1500 bytes of UDP, ECT(0)
IPV4_NOT_ECT = bytes.fromhex("450005dc00004000401100000a0000010a000002")
LINE = Path(__file__).with_name("line.py")
EXPERIMENT = """
question: Does DCTCP hold its queue at the threshold?
topology: {use: ./line.py}
links: {mbps: 20, queue_packets: 100, ecn: {min_bytes: 30280, max_bytes: 30280}}
controller: {use: single-path}
load: [{use: stride, step: 2}]
duration_s: 6
transport: {tcp: dctcp}
telemetry: {period_ms: 10}
sweep:
  transport: [{tcp: dctcp}, {tcp: cubic, ecn: false}]
"""


@contextlib.contextmanager
def wire() -> Iterator[tuple[Any, int]]:
    """A shaped veth pair in a namespace of its own: netlink there, and the index of its near end."""
    new_network_namespace()
    with IPRoute() as netlink:
        netlink.link("add", ifname=PORT.interface, kind="veth", peer={"ifname": "far"})
        near, far = (netlink.link_lookup(ifname=name)[0] for name in (PORT.interface, "far"))
        netlink.link("set", index=far, state="up")
        for command, kind, arguments in requests(SHAPE):
            netlink.tc(command, kind, near, **arguments)
        netlink.link("set", index=near, state="up", gso_max_segs=1)
        yield netlink, near


def send(near: socket.socket, count: int, packet: bytes = IPV4_ECT) -> None:
    """So many full frames into the queue of the interface that the socket is bound to."""
    frame = b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00" + packet
    for _ in range(count):
        near.send(frame.ljust(FRAME, b"\0"))


def received(far: socket.socket) -> bytes:
    """The next frame with IPv4 in it."""
    while True:
        frame = far.recv(2000)
        if frame[12:14] == b"\x08\x00":
            return frame


def burst(by: str, threshold: Threshold, packet: bytes = IPV4_ECT) -> tuple[Marks, int, int]:
    """Send a burst into the queue: what the marker saw, frames with CE at the far end, and marks as the sampler reads them.

    When all has left the queue one more frame comes, which finds nothing there.
    """
    needs(by)
    answer: list[tuple[Marks, int, int]] = []

    def inside() -> None:
        with wire() as (netlink, index), best_marker(False, by) as marker:
            marker.attach(netlink, index, PORT, SHAPE, threshold)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as far, \
                    socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as near:  # fmt: skip
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
                far.bind(("far", 0))
                far.settimeout(2)
                near.bind((PORT.interface, 0x0800))
                send(near, BURST, packet)
                got = [received(far) for _ in range(BURST)]
                answer.append((marker.marks()[PORT], sum(frame[15] & 3 == 3 for frame in got), marks_told(marker)))
                send(near, 1, packet)
                assert received(far)[15] & 3 == packet[1], "a frame that found an empty queue was marked"

    # A namespace belongs to a thread: this one's goes with it.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(inside).result()
    return answer[0]


def needs(by: str) -> None:
    """Skip what this kernel does not mark by."""
    try:
        best_marker(False, by).close()
    except MachineError as err:
        pytest.skip(str(err))


def marks_told(marker: Marker) -> int:
    """What the sampler would read of the port."""
    if marker.by != BY_RED:
        return MarkReader(marker.told(), ["other", PORT.interface]).read()[1]
    with QueueReader([Watched("lo"), Watched(PORT.interface)]) as queues:
        for _ in range(2):  # learnt, and at the learnt positions
            queues.read()
        return queues.marked()[1]


@pytest.mark.parametrize("by", [BY_RED, BY_TRUE_QUEUE, BY_PHANTOM])
@pytest.mark.parametrize("packets", [10, 40, 80])
def test_what_comes_over_the_threshold_is_marked(by: str, packets: int) -> None:
    """Of a burst of 90 frames those that find more than the threshold: the shaper has sent a few by then."""
    marks, arrived, read = burst(by, Threshold(packets * FRAME, packets * FRAME))
    assert marks.marked == arrived == read
    assert BURST - packets - 8 <= marks.marked <= BURST - packets - 1
    assert marks.capable == (None if by == BY_RED else BURST)


@pytest.mark.parametrize("by", [BY_RED, BY_TRUE_QUEUE, BY_PHANTOM])
def test_what_cannot_be_marked_is_not(by: str) -> None:
    """A sender that did not agree on ECN: counted, left as it is, and none of it dropped."""
    marks, arrived, _ = burst(by, Threshold(10 * FRAME, 10 * FRAME), IPV4_NOT_ECT)
    assert (marks.marked, marks.capable, arrived) == (0, None if by == BY_RED else 0, 0)
    assert marks.not_capable > BURST - 20


@pytest.mark.parametrize(("by", "most"), [(BY_RED, 60), (BY_TRUE_QUEUE, 45), (BY_PHANTOM, 45)])
def test_between_two_thresholds_some_are_marked(by: str, most: int) -> None:
    """Linearly more: from none at no backlog to all at twice the burst, about a quarter; by RED's law up to twice as many."""
    marks, _, _ = burst(by, Threshold(0, 2 * BURST * FRAME))
    assert 5 < marks.marked < most


def test_a_phantom_queue_follows_its_link_to_another_rate(bring_up: Any) -> None:
    """At 10 Gb/s a burst finds it empty; at 1 Mb/s it fills; and what waits in it then are bytes, also at 2 Mb/s."""
    needs(BY_PHANTOM)
    fabric = single_switch(2)
    port = fabric.peer[Port(fabric.hosts[0].name, 0)]
    with bring_up(fabric, Shape(10_000, 1500, queue_packets=100)) as net, best_marker(False, BY_PHANTOM) as marker, \
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as near:  # fmt: skip
        net.mark(marker, {port: Threshold(20 * FRAME, 20 * FRAME)})
        near.bind((port.interface, 0x0800))
        send(near, BURST)
        assert marker.marks()[port].marked == 0
        net.set_rate([port], 1)
        send(near, BURST)
        seen = marker.marks()[port]
        assert BURST - 20 - 8 <= seen.marked <= BURST - 20 and seen.most_bytes is not None
        net.set_rate([port], 2)
        send(near, 1)
        after = marker.marks()[port]
        assert after.packets == 2 * BURST + 1 and after.most_bytes is not None
        assert after.most_bytes <= seen.most_bytes + FRAME
        assert net.read_back() == []


def test_a_threshold_is_changed_while_packets_wait(bring_up: Any) -> None:
    """From far above the queue to far below it: what comes afterwards is marked, and nothing that waited is lost."""
    fabric = single_switch(2)
    port = fabric.peer[Port(fabric.hosts[0].name, 0)]
    with bring_up(fabric, Shape(1, 1500, queue_packets=100)) as net, best_marker(False) as marker, \
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as near:  # fmt: skip
        net.mark(marker, {port: Threshold(99 * FRAME, 99 * FRAME)})
        near.bind((port.interface, 0x0800))
        send(near, BURST)
        assert marker.marks()[port].marked == 0
        before = in_queue(port)
        net.set_thresholds({port: Threshold(20 * FRAME, 20 * FRAME)})
        assert before - 8 <= in_queue(port) <= before
        send(near, 5)
        assert marker.marks()[port].marked == 5
        assert net.read_back() == []


def in_queue(port: Port) -> int:
    """Packets that wait at a port of this thread's namespace."""
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname=port.interface)
        return int(next(
            qdisc.get_attr("TCA_STATS2").get_attr("TCA_STATS_QUEUE")["qlen"]
            for qdisc in netlink.get_qdiscs(index) if qdisc["parent"] == 0xFFFFFFFF
        ))  # fmt: skip


@pytest.fixture(scope="module")
def points(module_fabriclab: Any) -> tuple[list[dict[str, Any]], list[Path]]:
    """The rows and folders of two arms: DCTCP, and cubic without ECN, over the same marking queue."""
    shutil.copy(LINE, module_fabriclab.folder)
    done, folder = module_fabriclab.run(EXPERIMENT)
    return [json.loads(line) for line in done.stdout.splitlines()], sorted((folder / "points").iterdir())


def test_dctcp_holds_its_queue_at_the_threshold(points: Any) -> None:
    """Around twenty packets at full rate without a drop, where cubic fills the queue; on a machine that can be believed."""
    (dctcp, cubic), _ = points
    assert dctcp["refused"] is None and cubic["refused"] is None
    assert dctcp["tcp_by"] in ("bpf", "kernel") and cubic["tcp_by"] == "kernel"
    assert (dctcp["ecn"], dctcp["ecn_by"] in ("red", "bpf", "phantom")) == ("30280 bytes", True)
    if dctcp["fidelity"] != "FAIL":
        assert 14 < dctcp["queue_p50_packets"] < 26
        assert dctcp["drops"] == 0
    if cubic["fidelity"] != "FAIL":
        assert cubic["queue_p95_packets"] > 60


def test_what_was_marked_is_proven(points: Any) -> None:
    """Marks at the queue came to the hosts, every socket agreed on ECN; and nothing of it where nobody asked for it."""
    (dctcp, cubic), (folder, other) = points
    assert dctcp["marks"] > 100 and cubic["marks"] == 0
    words = ("did not negotiate", "marked none", "hosts received", "never held")
    assert not [reason for row in (dctcp, cubic) for reason in row["fidelity_reasons"] for word in words if word in reason]
    marking = json.loads((folder / "network.json").read_text())["marking"]
    marked, received = sum(port["marked"] for port in marking["ports"].values()), sum(marking["ce_received"].values())
    assert marked >= received > 100 and (marked == received or marking["by"] == BY_RED)  # which counts at each switch
    queues = read_queues(folder / "telemetry" / "queues.jsonl")
    assert queues.marks is not None and int(queues.marks[-1].sum()) == marked
    assert np.all(np.diff(queues.marks, axis=0) >= 0)
    assert sum(json.loads((other / "network.json").read_text())["marking"]["ce_received"].values()) == 0
