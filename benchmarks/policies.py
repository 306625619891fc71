"""What do the policies cost and gain? Random permutations, first hashed, then steered, in the fluid model; no root.

Prints for each policy and fat-tree: the time of the first decision and of one that finds nothing to do, flows moved,
the share of non-blocking and the slowdown of the slowest flow after five ticks; and how many search nodes `exact`
weighs in a ms.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from controllers.policies.exact import Search
from fabric.bookings import open_books
from fabric.graph import Fabric
from fabric.load import permutation
from fabric.plugins import load_policy
from fabric.policy import Policy, View
from fabric.rehearsal import Rehearsal
from fabric.seeds import rng
from topologies.fat_tree import fat_tree

POLICIES = ("least-loaded", "first-fit", "annealing", "exact", "weighted")
TICKS = 5


def main() -> int:
    """One table a fat-tree."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--k", type=int, nargs="+", default=[4, 8])
    options.add_argument("--seeds", type=int, default=20)
    asked = options.parse_args()
    for k in asked.k:
        fabric = fat_tree(k)
        hashed = [rehearsal(fabric, seed) for seed in range(1, asked.seeds + 1)]
        share = fmean(played.share_of_nb(played.rates()) for played in hashed)
        print(f"k={k}, {len(fabric.hosts)} flows, seeds 1..{asked.seeds}; hashed alone: {share:.3f} of non-blocking")
        print("policy         first ms  rest ms   moves  share of nb  slowest")
        for name in POLICIES:
            print(row(name, fabric, asked.seeds), flush=True)
        print(f"exact: {nodes_per_ms(hashed):.0f} nodes a ms\n", flush=True)
    return 0


def rehearsal(fabric: Fabric, seed: int) -> Rehearsal:
    """A random permutation of all hosts, hashed."""
    return Rehearsal(fabric, permutation([host.name for host in fabric.hosts], rng(seed, "load")), rng(seed, "hash"))


def row(name: str, fabric: Fabric, seeds: int) -> str:
    """A policy's line: means over the seeds."""
    policy = load_policy(name, Path(), {})
    first, rest, moves, share, slowest = [], [], [], [], []
    for seed in range(1, seeds + 1):
        played = rehearsal(fabric, seed)
        first.append(decision_ms(policy, played.view()))
        steps = played.run(policy, TICKS)
        moves.append(sum(step.moves for step in steps))
        share.append(steps[-1].share_of_nb)
        slowest.append(played.slowdown(steps[-1].rates))
        rest.append(decision_ms(policy, played.view()))
    times = f"{fmean(first):8.1f} {fmean(rest):8.1f}"
    return f"{name:14} {times} {fmean(moves):7.1f} {fmean(share):12.3f} {fmean(slowest):8.2f}"


def decision_ms(policy: Policy, view: View) -> float:
    """How long one decision takes."""
    return 1000 * timed(lambda: policy.decide(view))


def nodes_per_ms(hashed: list[Rehearsal]) -> float:
    """Over all the searches from the hashed placements."""
    nodes, spent = 0, 0.0
    for played in hashed:
        books, choices = open_books(played.view(), 0.05)
        search = Search(books, choices, 20000)
        spent += timed(lambda search=search: search.run(0.1, 1.0))  # type: ignore[misc]
        nodes += search.nodes
    return nodes / spent / 1000


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
