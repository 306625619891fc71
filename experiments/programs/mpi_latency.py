"""The latency between the first two ranks of an MPI program by message size, in the form of the OSU micro-benchmarks.

    python3 mpirun.py python3 mpi_latency.py [--most 65536] [--iterations 50]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics

from mpi4py import MPI


def main() -> None:
    """Ping-pong; half a round trip is the latency, in microseconds."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--most", type=int, default=65536)
    asked.add_argument("--iterations", type=int, default=50)
    options = asked.parse_args()
    world, rank = MPI.COMM_WORLD, MPI.COMM_WORLD.Get_rank()
    report = {}
    if rank == 0:
        print("# MPI latency, half a round trip\n# Size          Latency (us)", flush=True)
    for size in [1 << power for power in range(options.most.bit_length())]:
        data, times = bytearray(size), []
        for _ in range(options.iterations + 2):
            world.Barrier()
            started = MPI.Wtime()
            if rank == 0:
                world.Send(data, dest=1)
                world.Recv(data, source=1)
            elif rank == 1:
                world.Recv(data, source=0)
                world.Send(data, dest=0)
            times.append(1e6 * (MPI.Wtime() - started) / 2)
        if rank == 0:
            report[f"{size} B, us"] = round(statistics.median(times[2:]), 2)
            print(f"{size:<16}{report[f'{size} B, us']:>12.2f}", flush=True)
    if rank == 0:
        with open(os.environ["FABRICLAB_REPORT"], "w") as file:
            json.dump(report, file)


if __name__ == "__main__":
    main()
