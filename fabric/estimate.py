"""How long a point takes at least: its ideal times, what it waits for by itself, and the time to bring a network up and judge what was recorded."""

from __future__ import annotations

from fabric.experiment import Point
from fabric.ideal import ideal_ms, payload_mbps
from fabric.keys import Job
from fabric.predictions import servers_of
from fabric.workload import Part, Workload, workload

__all__ = ["least_s"]

_AROUND_S = 3.0  # before and after the traffic of a point, on 2 cores: 2 s on a switch of its own, 3.5 to 5 s on a k=4 fat-tree
_A_SWITCH_S = 0.06


def least_s(point: Point) -> float:
    """Seconds, without a controller's or a queue's doing; of a program, whose time nobody knows, only what is around it."""
    work = workload(point)
    around = _AROUND_S + _A_SWITCH_S * len(point.fabric.switches)
    rounds = [_part_s(point, work, part) for part in work.parts]
    traffic = max(rounds) if point.jobs or _paced(point) else sum(rounds)
    last = max((event.at_s + (event.times - 1) * (event.every_s or 0) for event in point.events), default=0.0)
    return around + max(traffic, point.duration_s or 0.0, last) if work.parts or point.load or point.requests else around


def _paced(point: Point) -> bool:
    return point.collective is not None and point.collective.compute_ms is not None


def _part_s(point: Point, work: Workload, part: Part) -> float:
    """Of one collective, all of its sizes and iterations."""
    payload = payload_mbps(point.links.mbps, point.links.mtu)
    delay, servers = point.links.delay_ms or 0.0, servers_of(point.fabric, part.ranks, payload)
    collective = point.collectives[part.name]
    repeats = collective.iterations + collective.warmup
    ideals = sum(ideal_ms(schedule, alpha_ms=delay, payload_mbps=payload, servers=servers) for schedule in part.schedules)
    if isinstance(collective, Job):
        own = (collective.compute_ms or 0.0) + max(collective.backward_ms, ideals * part.pieces)
        return collective.start_s + repeats * own / 1000
    return repeats * (ideals + (collective.compute_ms or 0.0) * len(part.schedules)) / 1000
