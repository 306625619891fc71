"""The sampler on real shaped interfaces, in network namespaces made for the test, against what tc prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fabric.qdiscs import FIELDS, QueueReader, Watched
from fabric.telemetry import Queues, read_cpu, read_queues

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30

pytestmark = pytest.mark.emulation

# 8 kbit/s: a packet of 1042 bytes leaves once in a second, so that a full queue stands still while it is compared.
BUILD = """
ip link add {near} type veth peer name {far}
ip link set {far} netns {pid}
tc qdisc add dev {near} root handle 1: htb default 1 r2q 1
tc class add dev {near} parent 1: classid 1:1 htb rate 8kbit burst 1600
tc qdisc add dev {near} parent 1:1 handle 10: {queue}
ip addr add {address}/24 dev {near}
ip link set {near} up
ip neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev {near}
"""
SECOND_CLASS = """
tc class add dev q0 parent 1: classid 1:2 htb rate 8kbit burst 1600
tc qdisc add dev q0 parent 1:2 handle 20: pfifo limit 5
tc filter add dev q0 parent 1: protocol ip u32 match u32 0 0 flowid 1:2
"""
SEND = """
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, 32, 1 << 22)  # SO_SNDBUFFORCE: the queue must be what drops, not the socket
for _ in range({count}):
    sender.sendto(bytes(1000), ("10.9.0.9", 9))
"""


class Namespace:
    """A network namespace that lives as long as a process of ours does."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        home = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{self.pid}/ns/net") != home, "a namespace")

    @property
    def pid(self) -> int:
        return self.process.pid

    def command(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def run(self, *command: str) -> str:
        return subprocess.run(self.command(*command), check=True, capture_output=True, text=True).stdout

    def show(self, interface: str) -> dict[str, int]:
        """The five figures from tc's own table: queue from the leaf, sent from the root."""
        root, leaf = json.loads(self.run("tc", "-s", "-j", "qdisc", "show", "dev", interface))
        figures = (leaf["backlog"], leaf["qlen"], leaf["drops"], root["bytes"], root["packets"])
        return dict(zip(FIELDS, figures, strict=True))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
        time.sleep(0.02)


@pytest.fixture
def namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    """A switches' side with q0 (pfifo), and a host with h0 (bfifo), each shaped and joined to the other by its peer."""
    made: list[Namespace] = []
    try:
        made += [Namespace()]
        made += [Namespace()]
        switches, host = made
        plan = [(switches, host, "q0", "pfifo limit 20"), (host, switches, "h0", "bfifo limit 9000")]
        for side, other, name, queue in plan:
            script = BUILD.format(near=name, far=f"{name}-far", pid=other.pid, queue=queue, address="10.9.0.1")
            side.run("sh", "-ec", script)
            other.run("ip", "link", "set", f"{name}-far", "up")
        yield switches, host
    finally:
        for namespace in made:
            namespace.end()


@pytest.fixture
def sampling(namespaces: tuple[Namespace, Namespace], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A sampler that lives in the switches' namespace and looks into the host's."""
    switches, host = namespaces
    request = {
        "period_ms": 10,
        "cpu_period_ms": 100,
        "interfaces": [{"interface": "h0", "pid": host.pid}, {"interface": "q0", "pid": 0}],
        "processes": {"switch": switches.pid},
    }
    (tmp_path / "sampler.json").write_text(json.dumps(request))
    environment = {**os.environ, "FABRIC_RUN": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(switches.command(sys.executable, "-m", "fabric.sampler"), env=environment)
    try:
        wait_for((tmp_path / "ready").exists, "ready")
        yield process
    finally:
        process.kill()
        process.wait()


def last(queues: Queues, interface: str) -> dict[str, int]:
    column = queues.interfaces.index(interface)
    return {name: int(getattr(queues, name)[-1, column]) for name in FIELDS}


def has_sample_after(path: Path, at: float) -> bool:
    return bool(read_queues(path).t[-1] > at)


def sampled_between(path: Path, look: Callable[[], dict[str, Any]]) -> tuple[Queues, dict[str, Any]]:
    """The record up to a sample that lies between two looks at tc which saw the same."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        before, at = look(), time.monotonic()
        wait_for(partial(has_sample_after, path, at), "a later sample")
        queues = read_queues(path)
        if look() == before:
            return queues, before
    pytest.fail(f"the queues never stood still within {DEADLINE_S} s")


def test_samples_are_what_tc_prints(
    namespaces: tuple[Namespace, Namespace], sampling: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Backlog, drops and what was sent equal tc's figures, in our own and in another namespace."""
    switches, host = namespaces
    switches.run(sys.executable, "-c", SEND.format(count=60))
    host.run(sys.executable, "-c", SEND.format(count=30))
    path = tmp_path / "queues.jsonl"
    queues, shown = sampled_between(path, lambda: {"q0": switches.show("q0"), "h0": host.show("h0")})
    assert {name: last(queues, name) for name in shown} == shown
    for figures in shown.values():
        assert all(figures.values()), f"a figure is 0, so that comparing it says nothing: {figures}"
    assert queues.gone == ()
    sampling.terminate()
    assert sampling.wait(DEADLINE_S) == 0
    assert read_cpu(tmp_path / "cpu.jsonl")[-1].threads["switch"] is not None


def test_each_drop_is_counted_once(
    namespaces: tuple[Namespace, Namespace], sampling: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Of the packets offered, those sent, waiting and dropped are the whole."""
    switches, _ = namespaces
    switches.run("sysctl", "-qw", "net.ipv6.conf.q0.disable_ipv6=1")  # nothing but our packets
    wait_for(lambda: last(read_queues(tmp_path / "queues.jsonl"), "q0")["backlog_packets"] == 0, "an empty queue")
    queues, _ = sampled_between(tmp_path / "queues.jsonl", lambda: switches.show("q0"))
    before = last(queues, "q0")
    switches.run(sys.executable, "-c", SEND.format(count=50))
    queues, shown = sampled_between(tmp_path / "queues.jsonl", lambda: switches.show("q0"))
    after = last(queues, "q0")
    assert after == shown and after["drops"] > 0
    gained = {name: after[name] - before[name] for name in FIELDS}
    assert gained["sent_packets"] + gained["backlog_packets"] + gained["drops"] == 50


def test_an_interface_that_vanishes_keeps_its_totals_and_is_named(
    namespaces: tuple[Namespace, Namespace], sampling: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """The others go on being sampled; nothing is read from the vanished one's place."""
    switches, host = namespaces
    path = tmp_path / "queues.jsonl"
    switches.run(sys.executable, "-c", SEND.format(count=60))
    host.run(sys.executable, "-c", SEND.format(count=30))
    wait_for(lambda: last(read_queues(path), "q0")["drops"] and last(read_queues(path), "h0")["drops"], "drops")
    switches.run("ip", "link", "delete", "q0")
    wait_for(lambda: read_queues(path).gone, "the note that it is gone")
    queues, shown = sampled_between(path, lambda: host.show("h0"))
    assert queues.gone == ("q0",) and last(queues, "h0") == shown
    gone = last(queues, "q0")
    assert gone["backlog_bytes"] == gone["backlog_packets"] == 0 and gone["drops"] > 0 and gone["sent_bytes"] > 0
    assert sampling.poll() is None


def test_reading_another_namespace_leaves_us_in_our_own(namespaces: tuple[Namespace, Namespace]) -> None:
    """After the sockets are open this thread is where it was."""
    _, host = namespaces
    home = os.readlink("/proc/thread-self/ns/net")
    with QueueReader([Watched("h0", host.pid)]) as reader:
        assert os.readlink("/proc/thread-self/ns/net") == home
        assert reader.read()[0] == [host.show("h0")["backlog_bytes"]]


def test_several_priority_classes_sum_up(namespaces: tuple[Namespace, Namespace]) -> None:
    """A second class with a queue of its own is seen at once, and its backlog added."""
    switches, _ = namespaces
    with QueueReader([Watched("q0", switches.pid)]) as reader:
        reader.read()
        switches.run(sys.executable, "-c", SEND.format(count=60))
        first = dict(zip(FIELDS, reader.read(), strict=True))
        switches.run("sh", "-ec", SECOND_CLASS)
        switches.run(sys.executable, "-c", SEND.format(count=60))
        both = dict(zip(FIELDS, reader.read(), strict=True))
        *_, one, two = json.loads(switches.run("tc", "-s", "-j", "qdisc", "show", "dev", "q0"))
    assert two["drops"] > 0 and both["drops"] == [one["drops"] + two["drops"]]
    assert both["drops"][0] > first["drops"][0] > 0
