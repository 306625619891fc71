"""Marks on real queues and DCTCP between real sockets: where the program marks, what comes of it, and that it can be told."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyroute2 import IPRoute

from fabric.graph import Port
from fabric.kernel import new_network_namespace
from fabric.links import Shape, requests
from fabric.marking import BY_PHANTOM, BY_TRUE_QUEUE, Marker, MarkReader, Marks, Threshold
from fabric.telemetry import read_queues

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
links: {mbps: 20, queue_packets: 100, ecn: {min_packets: 20, max_packets: 20}}
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


def burst(by: str, threshold: Threshold, packet: bytes = IPV4_ECT) -> tuple[Marks, int, int]:
    """Send a burst into the queue: what the program saw, frames with CE at the far end, and marks as another process reads them."""
    answer: list[tuple[Marks, int, int]] = []

    def inside() -> None:
        with wire() as (netlink, index), Marker(by) as marker:
            marker.attach(netlink, index, PORT, SHAPE, threshold)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as far, \
                    socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as near:  # fmt: skip
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
                far.bind(("far", 0))
                far.settimeout(2)
                near.bind((PORT.interface, 0x0800))
                frame = b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00" + packet
                for _ in range(BURST):
                    near.send(frame.ljust(FRAME, b"\0"))
                got: list[bytes] = []
                while len(got) < BURST:
                    one = far.recv(2000)
                    got += [one] if one[12:14] == b"\x08\x00" else []
                read = MarkReader(marker.told(), ["other", PORT.interface]).read()
                answer.append((marker.marks()[PORT], sum(frame[15] & 3 == 3 for frame in got), read[1]))

    # A namespace belongs to a thread: this one's goes with it.
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    return answer[0]


@pytest.mark.parametrize("by", [BY_TRUE_QUEUE, BY_PHANTOM])
@pytest.mark.parametrize("packets", [10, 40, 80])
def test_what_comes_over_the_threshold_is_marked(by: str, packets: int) -> None:
    """Of a burst of 90 frames those that find more than the threshold: the shaper has sent a few by then."""
    marks, arrived, read = burst(by, Threshold(packets * FRAME, packets * FRAME))
    assert marks.marked == arrived == read
    assert BURST - packets - 8 <= marks.marked <= BURST - packets - 1
    assert marks.capable == BURST


def test_what_cannot_be_marked_is_not() -> None:
    """A sender that did not agree on ECN: counted, and left as it is."""
    marks, arrived, _ = burst(BY_TRUE_QUEUE, Threshold(10 * FRAME, 10 * FRAME), IPV4_NOT_ECT)
    assert (marks.marked, marks.capable, arrived) == (0, 0, 0)
    assert marks.not_capable > BURST - 20


def test_between_two_thresholds_some_are_marked() -> None:
    """Linearly more: from none at no backlog to all at twice the burst, about a quarter."""
    marks, _, _ = burst(BY_TRUE_QUEUE, Threshold(0, 2 * BURST * FRAME))
    assert 5 < marks.marked < 45


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
    assert (dctcp["ecn"], dctcp["ecn_by"] in ("bpf", "phantom")) == ("20 packets", True)
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
    assert sum(port["marked"] for port in marking["ports"].values()) == sum(marking["ce_received"].values()) > 100
    queues = read_queues(folder / "telemetry" / "queues.jsonl")
    assert queues.marks is not None and int(queues.marks[-1].sum()) == sum(marking["ce_received"].values())
    assert np.all(np.diff(queues.marks, axis=0) >= 0)
    assert sum(json.loads((other / "network.json").read_text())["marking"]["ce_received"].values()) == 0
