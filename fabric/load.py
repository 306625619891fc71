"""Background traffic: the patterns in which hosts keep each other's links busy.

Comes in: the hosts' names in order, and a random generator; a load that has a parameter `fabric` is given the Fabric
too. Goes out: flows, each lasting as long as the experiment.
Source of the patterns: Al-Fares et al., "Hedera: Dynamic Flow Scheduling for Data Center Networks", NSDI 2010; incast:
Phanishayee et al., "Measurement and Analysis of TCP Throughput Collapse in Cluster-based Storage Systems", FAST 2008.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np

from fabric.errors import RequestError
from fabric.graph import Fabric

__all__ = ["Flow", "elephants", "hotspot", "incast", "permutation", "random", "randx", "staggered", "stride"]

RINGS = ("on the same edge switch", "in the same pod under another edge switch", "outside the pod")
ROUNDING = 9  # decimals of a probability: 1 - 0.7 - 0.3 is 0, not 5e-17
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


def random(hosts: Sequence[str], rng: np.random.Generator, *, mbps: float | None = None) -> list[Flow]:
    """Every host sends to one other host, each equally likely; a receiver may be drawn by several, or by none."""
    return randx(hosts, rng, n=1, mbps=mbps)


def randx(hosts: Sequence[str], rng: np.random.Generator, *, n: int, mbps: float | None = None) -> list[Flow]:
    """Every host sends to `n` different other hosts, each equally likely, as Hedera's randx2, randx3 and so on.

    >>> [(flow.src, flow.dst) for flow in randx("abc", np.random.default_rng(0), n=2)]
    [('a', 'b'), ('a', 'c'), ('b', 'a'), ('b', 'c'), ('c', 'a'), ('c', 'b')]
    """
    size = _size(hosts, mbps)
    if not 1 <= n < size:
        raise RequestError(f"load.n: got {n}; accepted: 1 to {size - 1} for {size} hosts, none to itself")
    flows: list[Flow] = []
    for own, src in enumerate(hosts):
        drawn = sorted(rng.choice(size - 1, n, replace=False).tolist())
        flows += [Flow(src, hosts[index + (index >= own)], mbps) for index in drawn]  # the own index is left out
    return flows


def incast(hosts: Sequence[str], rng: np.random.Generator, *, senders: int, mbps: float | None = None) -> list[Flow]:
    """`senders` random hosts send to one other random host, whose link they share; in host order."""
    size = _size(hosts, mbps)
    if not 1 <= senders < size:
        raise RequestError(f"load.senders: got {senders}; accepted: 1 to {size - 1} for {size} hosts, one receives")
    to, *drawn = rng.choice(size, senders + 1, replace=False).tolist()
    return [Flow(hosts[source], hosts[to], mbps) for source in sorted(drawn)]


def hotspot(hosts: Sequence[str], rng: np.random.Generator, *, mbps: float | None = None) -> list[Flow]:
    """All other hosts send to one random host: the largest incast there is.

    >>> flows = hotspot("abcd", np.random.default_rng(0))
    >>> len(flows), len({flow.dst for flow in flows})
    (3, 1)
    """
    return incast(hosts, rng, senders=_size(hosts, mbps) - 1, mbps=mbps)


def staggered(
    hosts: Sequence[str],
    rng: np.random.Generator,
    *,
    fabric: Fabric,
    edge: float,
    pod: float,
    mbps: float | None = None,
) -> list[Flow]:
    """Every host sends to one on its edge switch with probability `edge`, in its pod with `pod`, else outside of it.

    Within the three each host is equally likely; a receiver may be drawn by several. On any topology: hosts on the same
    edge switch share a switch, hosts in the same pod are the next fewest switches apart, all others are outside.
    RequestError when a host may have to send where the load has no other host.

    >>> from topologies.fat_tree import fat_tree
    >>> hosts = [host.name for host in fat_tree(4).hosts]
    >>> staggered(hosts, np.random.default_rng(0), fabric=fat_tree(4), edge=1.0, pod=0.0)[6]
    Flow(src='p1e1h0', dst='p1e1h1', mbps=None)
    """
    _size(hosts, mbps)
    chances = _chances(edge, pod)
    rings = _rings(fabric, hosts)
    for host, near in rings.items():
        _check_reachable(host, near, chances)
    drawn = {host: near[int(rng.choice(len(RINGS), p=chances))] for host, near in rings.items()}
    return [Flow(host, ring[int(rng.integers(len(ring)))], mbps) for host, ring in drawn.items()]


def _chances(edge: float, pod: float) -> tuple[float, float, float]:
    """The probabilities of the three rings."""
    for name, chance in (("edge", edge), ("pod", pod)):
        if not 0 <= chance <= 1:
            raise RequestError(f"load.{name}: got {chance}; accepted: a probability, 0 to 1")
    rest = round(1 - edge - pod, ROUNDING)
    if rest < 0:
        raise RequestError(f"load.pod: got {pod}; accepted: 0 to {round(1 - edge, ROUNDING)} beside edge: {edge}, both are shares of 1")
    return edge, pod, rest


def _check_reachable(host: str, near: Sequence[Sequence[str]], chances: Sequence[float]) -> None:
    for key, chance, where, ring in zip(("edge", "pod", "pod"), chances, RINGS, near, strict=True):
        if chance and not ring:
            text = f"got a probability of {chance:g} {where} of {host}, where this load has no other host"
            raise RequestError(f"load.{key}: {text}; accepted: 0 there; change edge and pod, or the hosts")


def _rings(fabric: Fabric, hosts: Sequence[str]) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """By host: the others of `hosts` that share a switch with it, that are the next fewest switches apart, the rest."""
    attached = fabric.attached_to
    apart = {switches: _switches_apart(fabric, switches) for switches in set(attached.values())}
    # What a pod is does not depend on which hosts take part in the load.
    pod = min((count for found in apart.values() for count in found.values() if 1 < count < inf), default=1)
    rings: dict[str, tuple[list[str], list[str], list[str]]] = {host: ([], [], []) for host in hosts}
    for host, near in rings.items():
        found = apart[attached[host]]
        for other in hosts:
            if other != host:
                near[(found[other] > 1) + (found[other] > pod)].append(other)
    return rings


def _switches_apart(fabric: Fabric, switches: Iterable[str]) -> Mapping[str, float]:
    """By host: how many switches a packet crosses to it at least, the first being one of `switches`.

    Hosts pass nothing on; one that cannot be reached without them is infinitely far.
    """
    crossed = {switch: 1 for switch in switches}
    queue = deque(crossed)
    while queue:
        node = queue.popleft()
        for far in fabric.graph[node]:
            if far in fabric.switch_by_name and fabric.switch_by_name[far].transit and far not in crossed:
                crossed[far] = crossed[node] + 1
                queue.append(far)
    return {host.name: min(crossed.get(near, inf) for near in fabric.attached_to[host.name]) for host in fabric.hosts}


def _size(hosts: Sequence[str], mbps: float | None) -> int:
    """The number of hosts, once that and the flows' cap are known to make sense."""
    if len(hosts) < 2 or len(set(hosts)) < len(hosts):
        raise RequestError(f"load: got {len(hosts)} hosts, {len(set(hosts))} different; accepted: 2 or more, each once")
    if mbps is not None and not 0 < mbps < float("inf"):
        raise RequestError(f"load.mbps: got {mbps}; accepted: above 0, or leave it out for all there is")
    return len(hosts)
