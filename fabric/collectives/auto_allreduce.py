"""The all-reduce that a model of the fabric expects to be the fastest, by size, ranks and topology.

Comes in: ranks and elements, the fabric, the ranks' hosts, the links. Goes out: the Schedule of the one that was picked, whose `note` says why.
Every candidate is played in virtual time, a latency a transfer and max-min rates on shortest paths, which connections between the
same switches take in turn: on a fabric that blocks those lose which ask most of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import count

from fabric.collectives.bidirectional_ring_allreduce import bidirectional_ring_allreduce
from fabric.collectives.double_tree_allreduce import double_tree_allreduce
from fabric.collectives.halving_doubling_allreduce import halving_doubling_allreduce
from fabric.collectives.hierarchical_allreduce import hierarchical_allreduce
from fabric.collectives.recursive_doubling_allreduce import recursive_doubling_allreduce
from fabric.collectives.ring_allreduce import ring_allreduce
from fabric.errors import RequestError
from fabric.fluid import play
from fabric.graph import INSIDE, Fabric, Port
from fabric.ideal import CREDIT_FRAMES, TCP_IP_HEADERS, payload_mbps
from fabric.keys import Links
from fabric.paths import Path, PathSets
from fabric.schedule import Schedule

__all__ = ["auto_allreduce"]

ALPHA_MS = 1.3  # a step among 16 ranks on two cores: 0.7 to 2.2 from 256 B to 4 KiB, see `algorithms` in experiments/README.md
_UNLIMITED = 1000.0  # what a NIC is given inside its server where that is not limited, in rates of a link
_ALIKE = 1.02  # times the best: nearer than the model is right, and of these the first is picked


def auto_allreduce(
    ranks: int, elements: int, fabric: Fabric, hosts: Sequence[str], links: Links, alpha_ms: float = ALPHA_MS
) -> Schedule:
    """The all-reduce that is expected to be done first where a transfer has a latency of `alpha_ms`.

    RequestError for fewer than two ranks, or a latency that is none. Of those within 2 % of the best the first of `_candidates` is taken.
    """
    if not 0 <= alpha_ms < float("inf"):
        raise RequestError(f"collective.alpha_ms: got {alpha_ms}; accepted: a latency of 0 ms or more; benchmarks/alpha_beta.py fits it")
    schedules = [make(ranks, elements) for make in _candidates(ranks, fabric, hosts)]
    times = _expected(schedules, fabric, hosts, links, alpha_ms)
    best = min(times)
    picked = next(number for number, ms in enumerate(times) if ms <= best * _ALIKE)
    others = sorted((ms, one.collective) for number, (ms, one) in enumerate(zip(times, schedules, strict=True)) if number != picked)
    words = ", ".join(f"{name.removesuffix('-allreduce')} {ms:.4g}" for ms, name in others)
    why = f"{schedules[picked].collective}: {times[picked]:.4g} ms expected at {alpha_ms:g} ms a transfer; {words}"
    return replace(schedules[picked], note=why)


def _candidates(ranks: int, fabric: Fabric, hosts: Sequence[str]) -> list[Callable[[int, int], Schedule]]:
    """Those that fit, the simplest first; by servers where ranks lie in equal ones, side by side."""
    found: list[Callable[[int, int], Schedule]] = [
        ring_allreduce, halving_doubling_allreduce, recursive_doubling_allreduce, double_tree_allreduce, bidirectional_ring_allreduce,
    ]  # fmt: skip
    machines = [fabric.host_by_name[host].machine for host in hosts]
    size = machines.count(machines[0])
    together = all(len(set(machines[first : first + size])) == 1 for first in range(0, ranks, size))
    if 1 < size < ranks and together and len(set(machines)) * size == ranks:
        found.insert(0, lambda ranks, elements: hierarchical_allreduce(ranks, elements, per_server=size))
    return found


def _expected(schedules: Sequence[Schedule], fabric: Fabric, hosts: Sequence[str], links: Links, alpha_ms: float) -> list[float]:
    """What each is expected to take, in ms; infinity where hosts do not reach each other over the network."""
    rate, sets = payload_mbps(links.mbps, links.mtu), PathSets(fabric)
    inside = _UNLIMITED if fabric.inside is None else fabric.inside
    capacity: dict[Hashable, float] = {port: rate * scale for port, scale in fabric.scale.items()}
    capacity.update((Port(host, INSIDE), rate * inside) for host in hosts)

    def alpha(src: int, dst: int, _: int) -> float:
        return 0.0 if fabric.together(hosts[src], hosts[dst]) else alpha_ms

    def expected(schedule: Schedule) -> float:
        paths = _dealt(schedule, sets, fabric, hosts)
        if paths is None:
            return float("inf")
        return play(schedule, lambda *connection: paths[connection], capacity, alpha, burst_bytes=CREDIT_FRAMES * (links.mtu - TCP_IP_HEADERS)).end_ms

    return [expected(schedule) for schedule in schedules]


def _dealt(schedule: Schedule, sets: PathSets, fabric: Fabric, hosts: Sequence[str]) -> Mapping[tuple[int, int, int], Path] | None:
    """A path for every connection, in turn of those between the same two switches; None where there is none."""
    turns: dict[tuple[str, str], count[int]] = defaultdict(count)
    found = {}
    for src, dst, channel in schedule.connections:
        paths = sets(hosts[src], hosts[dst])
        if not paths:
            return None
        ends = fabric.peer.get(paths[0][0], paths[0][0]).node, paths[0][-1].node
        found[src, dst, channel] = paths[next(turns[ends]) % len(paths)]
    return found
