"""How long the queue of the port that sent most was, in every point of runs, refused ones too: percentiles in packets.

    python benchmarks/queue_lengths.py RUN...

The middle of the record counts, from its first quarter to its last fifth: by then flows have begun, and none has ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fabric.results import read_rows
from fabric.telemetry import read_queues

PERCENTILES = (5, 50, 95)


def main() -> None:
    """Print a line per point."""
    for run in map(Path, sys.argv[1:]):
        for row in read_rows(run):
            queues = read_queues(run / "points" / row.point / "telemetry" / "queues.jsonl")
            port = int(queues.sent_bytes[-1].argmax()) if row.busiest_port is None else queues.interfaces.index(row.busiest_port)
            packets = queues.backlog_packets[len(queues.t) // 4 : -(len(queues.t) // 5), port]
            lengths = ", ".join(f"{length:.0f}" for length in np.percentile(packets, PERCENTILES))
            print(f"{row.point}: {queues.interfaces[port]} {lengths} (p5, p50, p95), {row.fidelity or row.refused}")


if __name__ == "__main__":
    main()
