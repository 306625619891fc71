"""What ovs-vswitchd's memory allocator costs on a k=4 fat-tree: idle RTT across it, and the switch thread under load.

Runs the same point with each allocator in turn, several times, and prints medians. Root; about two minutes.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from fabric import ovs
from fabric.emulation import emulate, machine_sysctls
from fabric.endpoints import Provided
from fabric.experiment import load_experiment
from fabric.sandbox import sandbox
from fabric.telemetry import read_cpu
from fabric.workload import workload

ROUNDS = 3
CUBIC = Provided("cubic", "cubic", "kernel")
EXPERIMENT = """
question: What does the allocator cost?
topology: {use: fat-tree, k: 4}
links: {mbps: 10, mtu: 9000, queue_packets: 50}
controller: {use: two-level}
load: [{use: stride, step: 8}]
duration_s: 4
"""
KEEP = str(1 << 30)
ALLOCATORS = {
    "glibc, default": {},
    "glibc, keeping memory": {"MALLOC_TRIM_THRESHOLD_": KEEP, "MALLOC_MMAP_THRESHOLD_": KEEP, "MALLOC_TOP_PAD_": str(64 << 20)},
    "tcmalloc": {"LD_PRELOAD": "libtcmalloc_minimal.so.4"},
}


def main() -> int:
    """Measure each allocator ROUNDS times, interleaved."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ALLOCATORS}
    with tempfile.TemporaryDirectory() as scratch, sandbox() as place:
        file = Path(scratch) / "allocator.yaml"
        file.write_text(EXPERIMENT)
        (point,) = load_experiment(file).points
        place.set_machine_sysctls(machine_sysctls(CUBIC))
        for turn in range(ROUNDS):
            for name, environment in ALLOCATORS.items():
                ovs.allocator_environment = partial(dict, environment)
                folder = Path(scratch) / f"{turn}-{len(environment)}-{name.split()[0].strip(',')}"
                emulate(point, workload(point), folder, place, {"cubic": CUBIC}, 0.0, lambda _: None)
                rtt = json.loads((folder / "network.json").read_text())["idle_rtt_ms"]
                busy = [sample.threads["switch"] for sample in read_cpu(folder / "telemetry" / "cpu.jsonl")[4:-4]]
                seen[name].append((rtt, statistics.median(one.busiest for one in busy if one)))
    for name, figures in seen.items():
        rtts, shares = zip(*figures, strict=True)
        print(f"{name}: idle RTT {statistics.median(rtts):.1f} ms, switch thread {statistics.median(shares):.0%} of a core")
    return 0


if __name__ == "__main__":
    sys.exit(main())
