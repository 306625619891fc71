"""All-reduces of PyTorch's own, by Gloo on the CPU, timed as nccl-tests does: run it with `workload: {use: command}`.

    python3 torch_allreduce.py [--sizes 65536 1048576] [--iterations 10] [--warmup 2]

Rank 0 prints a table and reports the medians; every element of every sum is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import torch
import torch.distributed as dist


def main() -> None:
    """Every size in turn; busbw counts 2 (n - 1) / n of the bytes, as nccl-tests."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--sizes", type=int, nargs="+", default=[65536, 1048576])
    asked.add_argument("--iterations", type=int, default=10)
    asked.add_argument("--warmup", type=int, default=2)
    options = asked.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")  # rank, world size and master are in the environment
    rank, world = dist.get_rank(), dist.get_world_size()
    report: dict[str, float] = {}
    for nbytes in options.sizes:
        times = [timed(nbytes // 4, rank, world) for _ in range(options.warmup + options.iterations)][options.warmup :]
        ms = statistics.median(times)
        report[f"{nbytes} B, ms"] = round(ms, 3)
        report[f"{nbytes} B, busbw Mb/s"] = round(2 * (world - 1) / world * nbytes * 8e-3 / ms, 3)
        if rank == 0:
            print(f"{nbytes:>10} B  p50 {ms:9.2f} ms  busbw {report[f'{nbytes} B, busbw Mb/s']:8.2f} Mb/s", flush=True)
    if rank == 0:
        with open(os.environ["FABRICLAB_REPORT"], "w") as file:
            json.dump(report, file)
    dist.barrier()
    dist.destroy_process_group()


def timed(elements: int, rank: int, world: int) -> float:
    """One all-reduce of all ranks, from when all are ready until the last has its sum, in ms."""
    data = torch.full((elements,), float(rank + 1))
    dist.barrier()
    started = time.monotonic()
    dist.all_reduce(data)
    took = torch.tensor([1000 * (time.monotonic() - started)])
    assert bool((data == world * (world + 1) / 2).all()), "a sum is wrong"
    dist.all_reduce(took, op=dist.ReduceOp.MAX)
    return float(took)


if __name__ == "__main__":
    main()
