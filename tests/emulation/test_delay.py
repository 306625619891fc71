"""Links that delay and lose, on a real network: by what this machine has, as much as was asked, and nothing of it in a queue."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyroute2 import IPRoute

from fabric import netem
from fabric.delay import NETEM, NFQUEUE, WAYS, Delay
from fabric.delayline import best_way, try_way
from fabric.errors import FabricError
from fabric.ideal import CREDIT_FRAMES
from fabric.kernel import inside_namespace, namespace_of, new_network_namespace
from fabric.nfqueue import PacketQueue
from fabric.telemetry import read_queues

pytestmark = pytest.mark.emulation

DELAY_MS = 5.0
LOSS_PERCENT = 2.0
LINE = Path(__file__).with_name("line.py")
TWO_ARMS = f"""
question: What do delay and loss do to an all-reduce?
topology: {{use: single-switch, hosts: 3}}
links: {{mbps: 20, mtu: 1500, queue_packets: 50}}
controller: {{use: two-level}}
collective: {{use: ring-allreduce, nbytes: 16KiB, iterations: 40, warmup: 1}}
sweep:
  links: [{{mbps: 20}}, {{mbps: 20, delay_ms: {DELAY_MS:g}}}]
"""
LOAD = f"""
question: How many packets are lost, and where do those wait that are late?
topology: {{use: ./line.py}}
links: {{mbps: 10, queue_packets: 100, delay_ms: 40, loss_percent: {LOSS_PERCENT:g}}}
controller: {{use: single-path}}
load: [{{use: stride, step: 2, mbps: 4}}]
duration_s: 4
transport: {{tcp: bbr}}
telemetry: {{period_ms: 10}}
"""
LONG = """
question: What happens when the delay line dies?
topology: {use: single-switch, hosts: 3}
links: {mbps: 10, delay_ms: 5}
collective: {use: ring-allreduce, nbytes: 4KiB, iterations: 100000}
controller: {use: two-level}
"""


@pytest.fixture(scope="module")
def arms(module_fabriclab: Any) -> tuple[list[dict[str, Any]], list[Path]]:
    """Rows and folders without and with a delay."""
    done, folder = module_fabriclab.run(TWO_ARMS)
    return [json.loads(line) for line in done.stdout.splitlines()], sorted((folder / "points").iterdir())


@pytest.fixture(scope="module")
def loaded(module_fabriclab: Any) -> tuple[dict[str, Any], Path]:
    """The row and folder of a load that never fills its links, over links that delay and lose."""
    shutil.copy(LINE, module_fabriclab.folder)
    done, folder = module_fabriclab.run(LOAD)
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    (point,) = (folder / "points").iterdir()
    return row, point


def network(folder: Path) -> dict[str, Any]:
    """network.json of a point."""
    found: dict[str, Any] = json.loads((folder / "network.json").read_text())
    return found


def last_totals(folder: Path) -> dict[str, Any]:
    """Packets in all and of them lost, of a whole point: netem's counters, or the last line of the process."""
    record: dict[str, Any] = network(folder)["delay"]
    if record["by"] != NFQUEUE:
        return record
    last: dict[str, Any] = json.loads((folder / "delay" / "delay.jsonl").read_text().splitlines()[-1])
    return last


def test_a_delay_is_in_every_round_trip_twice(arms: Any) -> None:
    """The idle ping grows by what was asked; on a machine that can be believed by less than a third more, which is its waking up."""
    (plain, delayed), (without, with_delay) = arms
    more = network(with_delay)["idle_rtt_ms"] - network(without)["idle_rtt_ms"]
    assert more >= 0.98 * 2 * DELAY_MS
    if plain["fidelity"] == delayed["fidelity"] == "PASS":
        assert more < 2 * DELAY_MS * 4 / 3
    assert delayed["delay_by"] in WAYS and delayed["delay_ms"] == DELAY_MS and plain["delay_by"] is None
    assert network(without)["delay"] is None
    assert delayed["bdp_packets"] > plain["bdp_packets"] + 0.98 * 20e6 / 8 * 0.01 / 1514


def test_the_ideal_knows_the_delay(arms: Any) -> None:
    """Of four steps each costs the delay once, less at most the frames that its link earned while it waited; so in what was measured,
    which is never refused as too fast.
    """
    (plain, delayed), _ = arms
    assert plain["refused"] is None and delayed["refused"] is None
    assert delayed["alpha_ms"] - plain["alpha_ms"] == pytest.approx(DELAY_MS)
    more, frame_ms = delayed["ideal_ms"] - plain["ideal_ms"], 1514 * 8 / 20e3
    assert 4 * (DELAY_MS - CREDIT_FRAMES * frame_ms) <= more <= 4 * DELAY_MS
    assert delayed["predicted_ms"] == pytest.approx(delayed["ideal_ms"], rel=0.1)
    if plain["fidelity"] == delayed["fidelity"] == "PASS":
        assert delayed["slowdown"] < 1.5
        assert 0.95 * more < delayed["p50_ms"] - plain["p50_ms"] < 1.5 * more


def test_the_line_says_how_precise_it_was(arms: Any) -> None:
    """The process's own record: every packet it took it let go, as late as asked in the median; and what that cost."""
    _, (_, folder) = arms
    record = network(folder)["delay"]
    if record["by"] != NFQUEUE:
        pytest.skip("the kernel's netem delays here, and keeps no such record")
    report = json.loads((folder / "delay" / "report.json").read_text())
    last = last_totals(folder)
    assert last["packets"] == last["released"] > 1000 and last["lost"] == last["overrun"] == last["waiting"] == 0
    assert report["unstamped"] == 0
    assert 0.96 * DELAY_MS < report["added_ms"]["p50"] < 1.2 * DELAY_MS


def test_as_many_are_lost_as_asked(loaded: Any) -> None:
    """Within four standard deviations of the binomial share; senders send them again, and no queue is said to have dropped them."""
    row, folder = loaded
    record = last_totals(folder)
    n, share = record["packets"], LOSS_PERCENT / 100
    assert n > 1000
    assert abs(record["lost"] - share * n) < 4 * math.sqrt(n * share * (1 - share))
    assert row["refused"] is None
    assert row["retransmits"] > 0 and row["drops"] == 0
    if row["delay_by"] == NFQUEUE:
        assert 0 < row["losses"] <= record["lost"] and row["delay_line_cores"] > 0


def test_what_waits_for_its_time_stands_in_no_queue(loaded: Any) -> None:
    """At 4 of 10 Mb/s and 40 ms some thirteen packets of each flow are on their way; no queue of the fabric holds as many, nor a fifth, in the median."""
    _, folder = loaded
    queues = read_queues(folder / "telemetry" / "queues.jsonl")
    under_way = 4e6 / 8 / 1514 * 0.04
    busy = np.diff(queues.sent_packets.sum(axis=1)) > 0
    assert busy.sum() > 50
    assert statistics.median(queues.backlog_packets[1:][busy].max(axis=1).tolist()) < under_way / 5


def test_a_line_that_dies_ends_the_run(fabriclab: Any, start_alone: Any, wait: Any, marked: Any, state: Any) -> None:
    """Packets would pass at once from then on: exit code 4, its name in one line, and nothing left behind."""
    if best_way() != NFQUEUE:
        pytest.skip("the kernel's netem delays here: there is no process that could die")
    before, out = state(), fabriclab.folder / "out"
    process = start_alone(fabriclab, "run", str(fabriclab.file(LONG)), "--out", str(out), "--json")

    def iterating() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return any('"event":"iteration"' in path.read_text() for path in out.glob("*/points/*/traffic/records.jsonl"))

    wait(iterating, "the first iteration")
    (victim,) = [pid for pid, command in marked(process.pid).items() if "fabric.delayer" in command]
    os.kill(victim, signal.SIGKILL)
    done = fabriclab.finish(process)
    assert done.returncode == 4
    assert "the delay line was killed by signal 9" in done.stderr and "Traceback" not in done.stderr
    assert marked(process.pid) == {} and state() == before


def between_two_hosts(before_ping: Callable[[], object], count: int) -> tuple[float, int]:
    """The median round trip in ms, and how many of so many pings were answered, between two namespaces; both of whose ends
    `before_ping` is done to first.
    """
    answer: list[str] = []

    def inside() -> None:
        new_network_namespace()
        far = namespace_of()
        new_network_namespace()
        with IPRoute() as netlink:
            netlink.link("add", ifname="end", kind="veth", peer={"ifname": "end", "net_ns_fd": far})
        for address in ("10.0.0.1", "10.0.0.2"):
            with inside_namespace(far) if address == "10.0.0.2" else contextlib.nullcontext(), IPRoute() as netlink:
                (index,) = netlink.link_lookup(ifname="end")
                netlink.addr("add", index=index, address=address, prefixlen=24)
                netlink.link("set", index=index, state="up")
                before_ping()
        words = ["ping", "-n", "-U", "-c", str(count), "-i", "0.01", "-W", "2", "10.0.0.2"]
        answer.append(subprocess.run(words, capture_output=True, text=True, check=False).stdout)
        os.close(far)

    in_a_thread(inside)
    times = [float(found) for found in re.findall(r"time=([0-9.]+)", answer[0])]
    return statistics.median(times), len(times)


def in_a_thread(action: Callable[[], None]) -> None:
    """A namespace belongs to a thread: this one's go with it."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def attach_netem(asked: Delay) -> None:
    """netem at what this namespace receives, where somebody has been at the hook before."""
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname="end")
        netlink.tc("add", "clsact", index)
        netem.attach(netlink, [index], asked)


def test_netem_delays_each_way_and_loses() -> None:
    """Twice the delay more between two namespaces; and of packets that meet a loss twice, as many answered as the binomial says."""
    if best_way() != NETEM:
        pytest.skip("this kernel has no netem: the user-space line is what is tested here")
    plain, answered = between_two_hosts(lambda: None, 20)
    assert answered == 20
    delayed, answered = between_two_hosts(lambda: attach_netem(Delay(20.0, 0.0)), 20)
    assert answered == 20 and 2 * 20 <= delayed - plain < 2 * 20 * 4 / 3
    _, answered = between_two_hosts(lambda: attach_netem(Delay(0.0, 0.1)), 400)
    through = 0.9**2
    assert abs(answered - 400 * through) < 4 * math.sqrt(400 * through * (1 - through))


def test_a_queue_that_somebody_has_is_not_taken() -> None:
    """Two lines in one namespace would each think the packets theirs: the second is refused, in words."""
    said: list[str] = []

    def inside() -> None:
        try:
            try_way(NFQUEUE)  # leaves this thread in a namespace of its own, with nobody at the queue
            with PacketQueue():
                PacketQueue()
        except FabricError as err:
            said.append(str(err))

    in_a_thread(inside)
    assert said in (["the kernel refused a packet queue: Operation not permitted"], ["the kernel refused a packet queue: Device or resource busy"])
