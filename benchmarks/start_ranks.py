"""How long it takes to start and connect 128 ranks, in 128 network namespaces, from one prepared process. Root.

The figure is the coordinator's own: from its start until every rank has been forked into its namespace, listens, and is
connected to its neighbour in the ring.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from fabric.emulation import emulate, machine_sysctls
from fabric.endpoints import Provided
from fabric.experiment import load_experiment
from fabric.sandbox import sandbox
from fabric.workload import workload

ROUNDS = 3
CUBIC = Provided("cubic", "cubic", "kernel")
EXPERIMENT = """
question: How fast do 128 ranks start?
topology: {use: single-switch, hosts: 128}
links: {mbps: 5, mtu: 9000, queue_packets: 50}
controller: {use: two-level, poll_ms: 1000}
collective: {use: ring-allreduce, nbytes: 64KiB, iterations: 1, warmup: 0}
"""


def main() -> int:
    """Start them ROUNDS times."""
    took = []
    with tempfile.TemporaryDirectory() as scratch, sandbox() as place:
        file = Path(scratch) / "ranks.yaml"
        file.write_text(EXPERIMENT)
        (point,) = load_experiment(file).points
        place.set_machine_sysctls(machine_sysctls(CUBIC))
        for turn in range(ROUNDS):
            folder = Path(scratch) / str(turn)
            emulate(point, workload(point), folder, place, {"cubic": CUBIC}, 0.0, lambda _: None)
            records = map(json.loads, (folder / "traffic" / "records.jsonl").read_text().splitlines())
            took += [record["took_s"] for record in records if record["event"] == "started"]
    print(f"128 ranks started and connected in {statistics.median(took):.2f} s ({min(took):.2f} to {max(took):.2f}, n={len(took)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
