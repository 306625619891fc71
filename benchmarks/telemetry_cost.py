"""What telemetry costs: nanoseconds a packet of each of our programs, and the sampler's share of a core (root).

    python benchmarks/telemetry_cost.py [--packets 20000] [--rounds 5] [--interfaces 96]

Packets of 1500 bytes go through one shaped veth pair in a namespace of its own, at 20,000 a second, with one program (or pair of
programs) at its hooks at a time. The kernel adds up how long each ran (sysctl kernel.bpf_stats_enabled, set while this runs
and put back); that adding up is in the figures, and `nothing`, a stamp program that finds no probe in the packets, is about what it costs.
The sampler reads as many interfaces as a fat-tree of k=4 has, 20 times a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from fabric.delaymeter import DelayMeter
from fabric.errors import MachineError
from fabric.graph import Fabric, FabricBuilder, Port
from fabric.kernel import inside_namespace, namespace_of, new_network_namespace, set_sysctl, silence_ipv6
from fabric.links import Shape, requests
from fabric.marking import BY_PHANTOM, BY_TRUE_QUEUE, BpfMarker, Threshold
from fabric.process import companion
from fabric.stamping import Stamper
from fabric.stamps import FRAME_BYTES, PROBES, blank
from fabric.telemetry import read_cpu

RATE = 20_000  # packets a second
SHAPE = Shape(1000, 1500, queue_packets=1000)
HEAD = b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00"
SAMPLER_S = 10.0
STATISTICS = "kernel.bpf_stats_enabled"
Ran = Callable[[], list[tuple[int, int]]]


def pair() -> Fabric:
    """Two nodes and a link."""
    build = FabricBuilder("pair", {})
    build.link(build.host("h"), build.switch("s"))
    return build.fabric()


@contextlib.contextmanager
def statistics_on() -> Iterator[None]:
    """The kernel counts how long programs run, within the block."""
    before = set_sysctl(STATISTICS, "1")
    try:
        yield
    finally:
        set_sysctl(STATISTICS, before)


@contextlib.contextmanager
def wire(fabric: Fabric) -> Iterator[tuple[Any, dict[Port, int]]]:
    """The link of a pair, shaped at its near end, in a namespace of this thread's own."""
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


def send(interface: str, packet: bytes, packets: int) -> float:
    """Send at RATE, a millisecond's packets at a time, from this thread; packets a second that came of it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as here:
        here.bind((interface, 0x0800))
        begin = time.monotonic()
        for number in range(packets):
            if number % (RATE // 1000) == 0 and (ahead := begin + number / RATE - time.monotonic()) > 0:
                time.sleep(ahead)
            with contextlib.suppress(OSError):
                here.send(packet)
        return packets / (time.monotonic() - begin)


def ip_packet(payload: bytes, nbytes: int, ports: tuple[int, int]) -> bytes:
    """A frame of IPv4 and UDP without a checksum, ECT(0)."""
    nbytes -= len(HEAD)
    addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    ip = bytes((0x45, 2)) + nbytes.to_bytes(2, "big") + bytes.fromhex("0000400040110000") + addresses
    udp = b"".join(word.to_bytes(2, "big") for word in (*ports, nbytes - 20, 0))
    return (HEAD + ip + udp + payload).ljust(len(HEAD) + nbytes, b"\0")


DATA = ip_packet(b"", SHAPE.frame, (20000, 5001))
PROBE = ip_packet(blank(1, 1), FRAME_BYTES, (20000, PROBES))


@contextlib.contextmanager
def marking(by: str, fabric: Fabric, netlink: Any, index: dict[Port, int]) -> Iterator[Ran]:
    """The marker at the near port."""
    near = fabric.links[0].a
    with BpfMarker(by) as marker:
        marker.attach(netlink, index[near], near, SHAPE, Threshold(20 * SHAPE.frame, 20 * SHAPE.frame))
        yield lambda: [marker.ran()]


@contextlib.contextmanager
def delays(fabric: Fabric, netlink: Any, index: dict[Port, int]) -> Iterator[Ran]:
    """The pair of programs for queueing delay, at both ends."""
    with DelayMeter(fabric, 1e9) as meter:
        for port, number in index.items():
            meter.attach(netlink, number, port)
        yield meter.ran


@contextlib.contextmanager
def stamping(fabric: Fabric, netlink: Any, index: dict[Port, int]) -> Iterator[Ran]:
    """The stamping program at the near port."""
    near = fabric.links[0].a
    with Stamper(fabric, {near: SHAPE.mbps}) as stamper:
        stamper.attach(netlink, index[near], near)
        yield lambda: [stamper.ran()]


def round_of(what: Callable[..., contextlib.AbstractContextManager[Ran]], packet: bytes, packets: int) -> tuple[list[float], float]:
    """Nanoseconds a packet of each program of one kind, and the packets a second they were measured at."""
    answer: list[tuple[list[float], float]] = []

    def inside() -> None:
        fabric = pair()
        with wire(fabric) as (netlink, index), what(fabric, netlink, index) as ran:
            rate = send(fabric.links[0].a.interface, packet, packets)
            answer.append(([spent / times for times, spent in ran() if times], rate))

    # A namespace belongs to a thread: this one's goes with it.
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    return answer[0]


def programs(packets: int, rounds: int) -> float:
    """Print a line for each program; gives the ns a packet of the best marker and of queueing delay together."""
    kinds: dict[str, tuple[Callable[..., Any], bytes, tuple[str, ...]]] = {
        "nothing": (stamping, DATA, ("a packet that is no probe",)),
        "marking, true queue": (lambda *to: marking(BY_TRUE_QUEUE, *to), DATA, ("mark",)),
        "marking, phantom": (lambda *to: marking(BY_PHANTOM, *to), DATA, ("mark",)),
        "queueing delay": (delays, DATA, ("note", "take")),
        "stamp of a probe": (stamping, PROBE, ("stamp",)),
    }
    together: dict[str, float] = {}
    print(f"{'program':>22} {'ns a packet: min':>17} {'median':>7} {'max':>6} {'at packets/s':>13} {'% of a core at 20,000/s':>24}")
    for name, (what, packet, parts) in kinds.items():
        try:
            found = [round_of(what, packet, packets) for _ in range(rounds)]
        except (MachineError, IndexError) as err:
            print(f"{name:>22} cannot be measured here: {err}")
            continue
        total = sorted(sum(costs) for costs, _ in found)
        together[name] = statistics.median(total)
        rate = statistics.median(rate for _, rate in found)
        detail = ", ".join(f"{part} {statistics.median(costs[n] for costs, _ in found):.0f}" for n, part in enumerate(parts))
        print(f"{name:>22} {total[0]:>17.0f} {together[name]:>7.0f} {total[-1]:>6.0f} {rate:>13.0f} {together[name] * RATE / 1e7:>24.2f}  ({detail})")
    marks = together.get("marking, true queue", together.get("marking, phantom", 0.0))
    return marks + together.get("queueing delay", 0.0)


def sampler_shares(interfaces: int, rounds: int) -> list[float]:
    """The sampler's share of a core over so many shaped interfaces, 20 times a second, in each round."""
    home, found = namespace_of(), list[float]()
    answer: list[int] = []

    def inside() -> None:
        new_network_namespace()
        silence_ipv6()
        with IPRoute() as netlink:
            for number in range(interfaces // 2):
                netlink.link("add", ifname=f"a{number}", kind="veth", peer={"ifname": f"b{number}"})
            for link in netlink.get_links():
                if link.get_attr("IFLA_IFNAME") != "lo":
                    for command, kind, arguments in requests(SHAPE):
                        netlink.tc(command, kind, link["index"], **arguments)
        answer.append(namespace_of())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    names = [f"{side}{number}" for number in range(interfaces // 2) for side in "ab"]
    try:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(prefix="fabriclab-") as folder, inside_namespace(answer[0]):
                asked = {"period_ms": 50, "cpu_period_ms": 250, "interfaces": [{"interface": name} for name in names], "parent": os.getpid()}
                (Path(folder) / "sampler.json").write_text(json.dumps(asked))
                with companion("the sampler", "fabric.sampler", Path(folder)) as running:
                    running.wait_for("ready", 10, "take its first sample")
                    time.sleep(SAMPLER_S)
                found.append(statistics.mean(sample.sampler for sample in read_cpu(Path(folder) / "cpu.jsonl")))
    finally:
        os.close(answer[0])
        os.close(home)
    return sorted(found)


def main() -> None:
    """Print what each costs, and the sum for 20,000 packets a second."""
    asked = argparse.ArgumentParser(description="What telemetry costs (root).")
    asked.add_argument("--packets", type=int, default=20_000)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--interfaces", type=int, default=96)
    options = asked.parse_args()
    with statistics_on():
        both = programs(options.packets, options.rounds)
    print(f"marking and queueing delay: {both:.0f} ns a packet, {both * RATE / 1e7:.2f} % of a core at {RATE} packets/s")
    shares = sampler_shares(options.interfaces, options.rounds)
    print(f"sampler, {options.interfaces} interfaces 20 times a second: {100 * statistics.median(shares):.2f} % of a core ({100 * shares[0]:.2f} to {100 * shares[-1]:.2f})")


if __name__ == "__main__":
    main()
