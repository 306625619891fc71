"""What a delay costs and how exact it is: the user-space line, or netem, on one switch of 16 hosts. Root; about two minutes.

For each delay the round trip of one element between two ranks on an idle network, over their own sockets; then, with all hosts
sending and receiving at the links' rate, what the line's process took of a core, by packet, and how late it was.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fabric.calibration import ping_pong
from fabric.delay import line_seen
from fabric.emulation import emulate, machine_sysctls
from fabric.endpoints import Provided
from fabric.experiment import Point, load_experiment
from fabric.sandbox import Sandbox, sandbox
from fabric.tcp import Endpoints
from fabric.workload import FIRST_SERVICE_PORT, Part, Workload, workload

CUBIC = Provided("cubic", "cubic", "kernel")
DELAYS_MS = (0, 1, 5, 20)
LINKS = ((20, 9000), (10, 1500), (20, 1500))  # Mb/s and MTU
EXPERIMENT = """
question: What does a delay cost?
topology: {{use: single-switch, hosts: 16}}
links: {{mbps: {mbps}, mtu: {mtu}, delay_ms: {delay_ms}}}
controller: {{use: two-level}}
{traffic}
"""
PING = "collective: {use: ring-allreduce, ranks: 2, nbytes: 8, iterations: 300, warmup: 20, check: false}"
LOAD = "load: [{use: stride, step: 8}]\nduration_s: 5"


def main() -> int:
    """Print a line for each delay on an idle network, then one for each pair of rate and MTU under load."""
    with tempfile.TemporaryDirectory() as scratch, sandbox() as place:
        place.set_machine_sysctls(machine_sysctls(CUBIC))
        for number, delay_ms in enumerate(DELAYS_MS):
            folder = Path(scratch) / f"ping-{number}"
            point = _point(Path(scratch), mbps=20, mtu=9000, delay_ms=delay_ms, traffic=PING)
            _run(point, _round_trips(point), folder, place)
            print(f"idle, {delay_ms} ms by {_by(folder)}: {_round_trip_words(folder)}", flush=True)
        for mbps, mtu in LINKS:
            folder = Path(scratch) / f"load-{mbps}-{mtu}"
            point = _point(Path(scratch), mbps=mbps, mtu=mtu, delay_ms=5, traffic=LOAD)
            _run(point, workload(point), folder, place)
            print(f"16 hosts at {mbps} Mb/s, MTU {mtu}, 5 ms by {_by(folder)}: {_load_words(folder)}", flush=True)
    return 0


def _point(scratch: Path, **values: Any) -> Point:
    file = scratch / "delay.yaml"
    file.write_text(EXPERIMENT.format(**values))
    (point,) = load_experiment(file).points
    return point


def _run(point: Point, work: Workload, folder: Path, place: Sandbox) -> None:
    emulate(point, work, folder, place, {"cubic": CUBIC}, 0.0, lambda _: None)


def _round_trips(point: Point) -> Workload:
    a, b = point.fabric.hosts[:2]
    edges = {
        (0, 1, 0): Endpoints(a.ip, 20001, b.ip, FIRST_SERVICE_PORT),
        (1, 0, 0): Endpoints(b.ip, 20002, a.ip, FIRST_SERVICE_PORT + 1),
    }
    assert point.collective is not None  # the file of this benchmark has one
    return Workload((Part("collective", point.collective, 0, (a.name, b.name), (ping_pong(1),)),), edges, (), ())


def _records(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "traffic" / "records.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def _by(folder: Path) -> str:
    found = json.loads((folder / "network.json").read_text())["delay"]
    return str(found["by"]) if found else "nobody"


def _round_trip_words(folder: Path) -> str:
    times = [max(record["ends_ms"]) for record in _records(folder, "iteration") if record["iteration"] >= 0]
    p5, p50, p95 = np.percentile(times, (5, 50, 95))
    return f"round trip p5 {p5:.2f}, p50 {p50:.2f}, p95 {p95:.2f} ms (n={len(times)})"


def _load_words(folder: Path) -> str:
    (load,) = _records(folder, "load")
    seconds = load["end"] - load["begin"]
    (flows,) = _records(folder, "flows")
    goodput = sum(flow["nbytes"][-1] for flow in flows["flows"].values()) * 8e-6 / seconds
    seen = line_seen(folder / "delay", (load["begin"], load["end"]))
    if seen is None:
        return f"{goodput:.0f} Mb/s in all"
    added = json.loads((folder / "delay" / "report.json").read_text())["added_ms"]
    return (
        f"{goodput:.0f} Mb/s in all, {seen.packets_a_second:.0f} packets/s, {seen.cores:.2f} of a core, "
        f"{1e6 * seen.cores / seen.packets_a_second:.0f} us a packet; added p5 {added['p5']}, p50 {added['p50']}, p95 {added['p95']} ms, "
        f"{seen.late:.1%} over 1 ms late, overrun {seen.overrun:.2%}"
    )


if __name__ == "__main__":
    sys.exit(main())
