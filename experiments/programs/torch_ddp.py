"""A small training run with PyTorch's DistributedDataParallel over Gloo: every rank must end with the same model.

    python3 torch_ddp.py [--steps 10] [--width 256]

Every rank prints the loss before and after, on data that nobody learns from; rank 0 reports it, and the time of a step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    """Learn a fixed linear map from noise; each rank has data of its own."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--steps", type=int, default=10)
    asked.add_argument("--width", type=int, default=256)
    options = asked.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, width = dist.get_rank(), options.width
    torch.manual_seed(1)  # the same model everywhere
    truth = torch.randn(width, 1)
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 1)))
    held_out = torch.randn(256, width)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    torch.manual_seed(100 + rank)  # other data everywhere
    first, times = loss_of(model, held_out, truth), []
    for _ in range(options.steps):
        x = torch.randn(32, width)
        started = time.monotonic()
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), x @ truth)
        loss.backward()
        optimizer.step()
        times.append(1000 * (time.monotonic() - started))
    last, same = loss_of(model, held_out, truth), check_alike(model)
    print(f"rank {rank}: loss {first:.6f} to {last:.6f}, parameters {same}", flush=True)
    if rank == 0:
        with open(os.environ["FABRICLAB_REPORT"], "w") as file:
            json.dump({"step ms": round(statistics.median(times), 2), "first loss": first, "last loss": last, "parameters": same}, file)
    dist.barrier()
    dist.destroy_process_group()


def loss_of(model: torch.nn.Module, x: torch.Tensor, truth: torch.Tensor) -> float:
    """What this rank's own model makes of data that no rank learns from; the same on every rank, as the models are."""
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(model(x), x @ truth))


def check_alike(model: torch.nn.Module) -> str:
    """The sum of the parameters, in hexadecimal, which must be the same to the last bit on every rank."""
    own = torch.cat([one.detach().flatten() for one in model.parameters()])
    least, most = own.clone(), own.clone()
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    assert bool((least == most).all()), "ranks ended with different models"
    return float(own.sum()).hex()


if __name__ == "__main__":
    main()
