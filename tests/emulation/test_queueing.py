"""Queueing delays on real queues: of a burst against the receiver's own clock, and of a run against queues and counters."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyroute2 import IPRoute

from fabric.delaymeter import DelayMeter
from fabric.graph import Fabric, FabricBuilder, Port
from fabric.kernel import new_network_namespace, silence_ipv6
from fabric.links import Shape, requests
from fabric.marking import BY_PHANTOM, BpfMarker, Threshold
from fabric.queueing import read_queueing
from fabric.telemetry import read_queues

pytestmark = pytest.mark.emulation

SHAPE = Shape(20, 1500, queue_packets=60)
FRAME_MS = SHAPE.frame * 8 / 20e3
BURST, TOO_MANY = 50, 90
SO_TIMESTAMPNS = 35
LINE = Path(__file__).with_name("line.py")
EXPERIMENT = """
question: How long do packets wait?
topology: {use: ./line.py}
links: {mbps: 20, queue_packets: 100, ecn: {min_packets: 20, max_packets: 20}}
controller: {use: single-path}
load: [{use: stride, step: 2}]
duration_s: 5
transport: {tcp: dctcp}
telemetry: {period_ms: 10, queueing_delay: true}
"""


def pair() -> Fabric:
    """A host and a switch."""
    build = FabricBuilder("pair", {})
    build.link(build.host("h"), build.switch("s"))
    return build.fabric()


@contextlib.contextmanager
def wire(fabric: Fabric) -> Iterator[tuple[Any, dict[Port, int]]]:
    """The pair's link in a namespace of its own, shaped at its near end: netlink there, and interface numbers."""
    new_network_namespace()
    silence_ipv6()
    near, far = fabric.links[0].a, fabric.links[0].b
    with IPRoute() as netlink:
        netlink.link("add", ifname=near.interface, kind="veth", peer={"ifname": far.interface})
        index = {port: netlink.link_lookup(ifname=port.interface)[0] for port in (near, far)}
        for command, kind, arguments in requests(SHAPE):
            netlink.tc(command, kind, index[near], **arguments)
        for number in index.values():
            netlink.link("set", index=number, state="up", gso_max_segs=1)
        yield netlink, index


@dataclass
class Seen:
    """What the meter told of the near port; how long frames took by the sender's and the receiver's own clocks, and how long
    they should have waited, given when they were sent; all in ms.
    """

    port: dict[str, Any]
    took_ms: list[float]
    due_ms: list[float]
    marked: int | None


def burst(frames: int, expected: int, marker: bool = False, again: bool = False) -> Seen:
    """Send frames at once into the queue, of which `expected` arrive; `again` sends a second burst when it is empty."""
    answer: list[Seen] = []

    def inside() -> None:
        fabric = pair()
        near, far = fabric.links[0].a, fabric.links[0].b
        with contextlib.ExitStack() as held:
            netlink, index = held.enter_context(wire(fabric))
            marks = held.enter_context(BpfMarker(BY_PHANTOM)) if marker else None
            if marks:
                marks.attach(netlink, index[near], near, SHAPE, Threshold(10 * SHAPE.frame, 10 * SHAPE.frame))
            meter = held.enter_context(DelayMeter(fabric, 1))
            for port, number in index.items():
                meter.attach(netlink, number, port)
            sent = [_sent(near, far, frames, expected) for _ in range(1 + again)]
            took, due = ([ms for one in sent for ms in one[n]] for n in (0, 1))
            answer.append(Seen(meter.totals()[near.interface], took, due, marks.marks()[near].marked if marks else None))

    # A namespace belongs to a thread: this one's goes with it.
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    return answer[0]


def _sent(near: Port, far: Port, frames: int, expected: int) -> tuple[list[float], list[float]]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as there, \
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as here:  # fmt: skip
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        there.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        there.bind((far.interface, 0))
        there.settimeout(2)
        here.bind((near.interface, 0x0800))
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        head = b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00" + bytes.fromhex("450205dc00004000401100000a0000010a000002")
        sent = []
        for number in range(frames):
            sent.append(time.time_ns())
            with contextlib.suppress(OSError):  # a full queue says so
                here.send((head + number.to_bytes(4, "big")).ljust(SHAPE.frame, b"\0"))
        took: list[float] = []
        while len(took) < expected:
            data, notes, _, _ = there.recvmsg(2000, 128)
            if data[12:14] == b"\x08\x00":
                seconds, nanoseconds = struct.unpack("@qq", notes[0][2])
                took.append((seconds * 10**9 + nanoseconds - sent[int.from_bytes(data[34:38], "big")]) / 1e6)
        return took, _due(sent)


def _due(sent_ns: list[int]) -> list[float]:
    """How long each frame waits for those before it, in ms; an idle link lets the first one pass at once, and has earned it."""
    waits, free = [], -np.inf
    for ms in (ns / 1e6 for ns in sent_ns):
        waits.append(max(0.0, free - ms))
        free = max(free, ms) + (FRAME_MS if waits[1:] else 0.0)
    return waits


def test_a_standing_queue_gives_the_delay_of_what_stands_in_it() -> None:
    """Frame n of a burst waits for the n before it: at the median about half the burst, by the receiver's clock too.

    A machine that is busy with something else can only delay frames, and delays them for both.
    """
    seen = burst(BURST, BURST)
    assert (seen.port["offered"], seen.port["packets"], seen.port["missed"], seen.port["stale"]) == (BURST, BURST, 0, 0)
    due, there = float(np.median(seen.due_ms)), float(np.median(seen.took_ms))
    assert due > FRAME_MS * BURST / 3
    assert due - FRAME_MS < seen.port["p50_ms"] < due + FRAME_MS + max(0.0, there - due)
    assert seen.port["p50_ms"] <= seen.port["p95_ms"] <= seen.port["p99_ms"] <= seen.port["max_ms"]


def test_what_the_queue_dropped_is_offered_and_not_counted_and_spoils_nothing_later() -> None:
    """Each of two bursts loses what does not fit; the notes that those left behind are nobody's delay."""
    fit = 61  # the queue's sixty, and one that had gone by then
    seen = burst(TOO_MANY, fit, again=True)
    assert seen.port["offered"] == 2 * TOO_MANY
    assert 2 * fit <= seen.port["packets"] <= 2 * fit + 8
    assert (seen.port["missed"], seen.port["stale"]) == (0, 0)
    assert seen.port["max_ms"] < 1.02 * max(seen.took_ms) + FRAME_MS


def test_marks_and_delays_are_of_the_same_packets() -> None:
    """Both programs see every frame at the same hook, whichever was there first."""
    seen = burst(BURST, BURST, marker=True)
    assert seen.marked is not None and BURST - 10 - 8 <= seen.marked <= BURST - 10 - 1
    assert (seen.port["offered"], seen.port["packets"]) == (BURST, BURST)


@pytest.fixture(scope="module")
def point(module_fabriclab: Any) -> tuple[dict[str, Any], Path]:
    """The row and folder of two DCTCP flows over one link of the two-switch line."""
    shutil.copy(LINE, module_fabriclab.folder)
    done, folder = module_fabriclab.run(EXPERIMENT)
    [row] = [json.loads(line) for line in done.stdout.splitlines()]
    return row, next((folder / "points").iterdir())


def test_every_packet_of_a_run_was_seen(point: Any) -> None:
    """At every port, of switches and of hosts, as many as its queue says it sent; and nothing is held against the row."""
    row, folder = point
    assert row["refused"] is None
    seen, queues = read_queueing(folder), read_queues(folder / "telemetry" / "queues.jsonl")
    assert seen is not None and seen.ports.keys() == set(queues.interfaces)
    for name, sent in zip(queues.interfaces, queues.sent_packets[-1].tolist(), strict=True):
        port = seen.ports[name]
        assert abs(port["packets"] - sent) <= 20, name
        assert (port["missed"], port["stale"]) == (0, 0)
    assert max(port["packets"] for port in seen.ports.values()) > 1000
    assert not [reason for reason in row["fidelity_reasons"] if "queueing delay" in reason or "were seen to leave" in reason]


def test_delays_are_what_the_queues_held(point: Any) -> None:
    """At the port that sent most, packets standing there over the link's rate: two ways to say how long the queue is."""
    row, folder = point
    seen, queues = read_queueing(folder), read_queues(folder / "telemetry" / "queues.jsonl")
    assert seen is not None
    if row["fidelity"] == "FAIL":
        pytest.skip(f"the machine was not fit to compare two ways of looking: {'; '.join(row['fidelity_reasons'])}")
    busy = queues.backlog_bytes[:, queues.interfaces.index(row["busiest_port"])]
    inside = queues.sent_bytes[:, queues.interfaces.index(row["busiest_port"])]
    held = busy[(inside > inside[-1] * 0.2) & (inside < inside[-1] * 0.9)]
    assert abs(seen.ports[row["busiest_port"]]["p50_ms"] - float(np.median(held)) * 8 / 20e3) < 1.5 * FRAME_MS


def test_the_row_has_the_delays_of_switches(point: Any) -> None:
    """In order, and between nothing and the longest that any port of a switch had."""
    row, folder = point
    ports = json.loads((folder / "queueing.json").read_text())["ports"]
    longest = max(port.get("max_ms", 0) for name, port in ports.items() if name.startswith(("left", "right")))
    assert 0 < row["queueing_p50_ms"] <= row["queueing_p95_ms"] <= row["queueing_p99_ms"] <= longest * 1.01
