"""Background traffic: the patterns in which hosts keep each other's links busy.

Comes in: the hosts' names in order, and a random generator. Goes out: flows, each lasting as long as the experiment.
Source of the patterns: Al-Fares et al., "Hedera: Dynamic Flow Scheduling for Data Center Networks", NSDI 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fabric.errors import RequestError

__all__ = ["Flow", "elephants", "permutation", "stride"]

DRAWS = 1000  # a permutation has no fixed point in 1 of e draws: all 1000 failing has a probability below 1e-170


@dataclass(frozen=True, slots=True)
class Flow:
    """Host `src` sends to host `dst` without end; `mbps` is the most it asks for, None as much as it can get."""

    src: str
    dst: str
    mbps: float | None = None


def stride(
    hosts: Sequence[str], rng: np.random.Generator, *, step: int, pairs: int | None = None, mbps: float | None = None
) -> list[Flow]:
    """Host i sends to host (i + step) mod n; with `pairs` only that many sources do, drawn by `rng`, in host order.

    >>> [(flow.src, flow.dst) for flow in stride("abc", np.random.default_rng(0), step=2)]
    [('a', 'c'), ('b', 'a'), ('c', 'b')]
    """
    size = _size(hosts, mbps)
    if not 1 <= step < size:
        raise RequestError(f"load.step: got {step}; accepted: 1 to {size - 1} for {size} hosts, none to itself")
    if pairs is not None and not 1 <= pairs <= size:
        raise RequestError(f"load.pairs: got {pairs}; accepted: 1 to {size} for {size} hosts, or leave it out for all")
    sources = range(size) if pairs is None else sorted(rng.choice(size, pairs, replace=False).tolist())
    return [Flow(hosts[source], hosts[(source + step) % size], mbps) for source in sources]


def permutation(hosts: Sequence[str], rng: np.random.Generator, *, mbps: float | None = None) -> list[Flow]:
    """Every host sends to one and receives from one other: Hedera's random bijection, without self-traffic.

    Uniform over all permutations without a fixed point: drawn by rejection, 2.7 draws on average.
    """
    size = _size(hosts, mbps)
    own = np.arange(size)
    draws = (rng.permutation(size) for _ in range(DRAWS))
    to = next(drawn for drawn in draws if not (drawn == own).any())
    return [Flow(src, hosts[dst], mbps) for src, dst in zip(hosts, to.tolist(), strict=True)]


def elephants(hosts: Sequence[str], rng: np.random.Generator, *, pairs: int, mbps: float | None = None) -> list[Flow]:
    """`pairs` disjoint pairs of hosts drawn at random, each exchanging in both directions: two flows a pair."""
    size = _size(hosts, mbps)
    if not 1 <= pairs <= size // 2:
        raise RequestError(f"load.pairs: got {pairs}; accepted: 1 to {size // 2} for {size} hosts, two a pair")
    drawn = [hosts[index] for index in rng.choice(size, 2 * pairs, replace=False).tolist()]
    return [flow for a, b in list(pairwise(drawn))[::2] for flow in (Flow(a, b, mbps), Flow(b, a, mbps))]


def _size(hosts: Sequence[str], mbps: float | None) -> int:
    """The number of hosts, once that and the flows' cap are known to make sense."""
    if len(hosts) < 2 or len(set(hosts)) < len(hosts):
        raise RequestError(f"load: got {len(hosts)} hosts, {len(set(hosts))} different; accepted: 2 or more, each once")
    if mbps is not None and not 0 < mbps < float("inf"):
        raise RequestError(f"load.mbps: got {mbps}; accepted: above 0, or leave it out for all there is")
    return len(hosts)
