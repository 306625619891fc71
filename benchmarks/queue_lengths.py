"""How long the queue of the port that sent most was, in every point of runs, refused ones too: percentiles in packets; and the means
that are the longest, of a switch's port and of a host's.

    python benchmarks/queue_lengths.py RUN...

The middle of the record counts, from its first quarter to its last fifth: by then flows have begun, and none has ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fabric.recorded import Recorded, switch_ports
from fabric.results import read_rows
from fabric.telemetry import read_queues

PERCENTILES = (5, 50, 95)


def main() -> None:
    """Print a line per point."""
    for run in map(Path, sys.argv[1:]):
        for row in read_rows(run):
            queues = read_queues(run / "points" / row.point / "telemetry" / "queues.jsonl")
            port = int(queues.sent_bytes[-1].argmax()) if row.busiest_port is None else queues.interfaces.index(row.busiest_port)
            packets = queues.backlog_packets[len(queues.t) // 4 : -(len(queues.t) // 5)]
            lengths = ", ".join(f"{length:.0f}" for length in np.percentile(packets[:, port], PERCENTILES))
            of_switches = switch_ports(Recorded(run / "points" / row.point))
            means = {name: float(mean) for name, mean in zip(queues.interfaces, packets.mean(axis=0), strict=True)}
            longest = max(mean for name, mean in means.items() if name in of_switches), max(mean for name, mean in means.items() if name not in of_switches)
            print(
                f"{row.point}: {queues.interfaces[port]} {lengths} (p5, p50, p95), longest mean of a switch's port {longest[0]:.2f}, of a host's {longest[1]:.2f}, "
                f"{row.fidelity or row.refused}"
            )


if __name__ == "__main__":
    main()
