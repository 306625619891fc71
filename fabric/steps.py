"""When every transfer of an iteration began and arrived, and who in the end was waited for.

Comes in: what ranks noted of their transfers, a line an iteration in `steps.jsonl`. Goes out: `Steps`, the chain of transfers that decided the
end, and by how much ranks delayed it of themselves. Pure but for the file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fabric.schedule import Schedule

__all__ = ["FILE", "Hop", "Steps", "append_steps", "chain", "lag", "read_steps"]

FILE = "steps.jsonl"


@dataclass(frozen=True, slots=True)
class Steps:
    """One iteration, in ms from its release, by transfer: when its sender had handed over its first and its last byte, and when it had arrived."""

    nbytes: int
    iteration: int
    begun_ms: Mapping[int, float]
    left_ms: Mapping[int, float]
    arrived_ms: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Hop:
    """A transfer of the chain: until `ready_ms` its sender waited for others, until `begun_ms` others for its sender, until `arrived_ms` all for the network."""

    transfer: int
    src: int
    dst: int
    ready_ms: float
    begun_ms: float
    arrived_ms: float


def append_steps(folder: Path, schedule: Schedule, iteration: int, release: float, reports: Sequence[Mapping[str, Any]]) -> None:
    """Add an iteration to the file; `reports` are the ranks', in order, with `begun` and `done` as lists of (transfer, CLOCK_MONOTONIC)."""
    begun, left, arrived = dict[int, float](), dict[int, float](), dict[int, float]()
    for rank, report in enumerate(reports):
        for number, t in report["begun"]:
            begun[number] = round(1000 * (t - release), 3)
        for number, t in report["done"]:
            transfer = schedule.transfers[number]
            ms = round(1000 * (t - release), 3)
            if transfer.src == rank:
                left[number] = ms
            if transfer.dst == rank:
                arrived[number] = ms
    line = {"nbytes": schedule.nbytes, "iteration": iteration}
    times = [[begun[number], left[number], arrived[number]] for number in range(len(schedule.transfers))]
    with open(folder / FILE, "a") as file:
        file.write(json.dumps({**line, "times": times}, separators=(",", ":")) + "\n")


def read_steps(folder: Path) -> list[Steps]:
    """All measured iterations of a point's traffic folder; none where they were not asked for."""
    file = folder / FILE
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [
        Steps(line["nbytes"], line["iteration"], *(dict(enumerate(column)) for column in zip(*line["times"], strict=True)))
        for line in lines
        if line["iteration"] >= 0 and line["times"]
    ]


def chain(schedule: Schedule, steps: Steps) -> list[Hop]:
    """The transfers that decided the end, the first one first: each began when the one before it had arrived, or had left room on its connection.

    A transfer waits for its connection where the one before it on the same arrived after it was handed over, else for the
    last of those it comes after.
    """
    before = {later: earlier for ids in schedule.connections.values() for earlier, later in pairwise(ids)}
    hops: list[Hop] = []
    number: int | None = max(steps.arrived_ms, key=lambda one: steps.arrived_ms[one])
    while number is not None:
        transfer, begun = schedule.transfers[number], steps.begun_ms[number]
        came = {
            other: steps.arrived_ms[other] if schedule.transfers[other].dst == transfer.src else steps.left_ms[other] for other in transfer.after
        }
        earlier = before.get(number)
        if earlier is not None and steps.arrived_ms[earlier] > begun:
            came = {earlier: begun}
        elif earlier is not None:
            came.setdefault(earlier, steps.left_ms[earlier])
        ready = max(came.values(), default=0.0)
        hops.append(Hop(number, transfer.src, transfer.dst, min(ready, begun), begun, steps.arrived_ms[number]))
        number = max(came, key=lambda one: came[one]) if came else None
    return hops[::-1]


def lag(schedule: Schedule, measured: Sequence[Steps]) -> tuple[int, float] | None:
    """The rank that delayed the end of iterations most of itself, beginning later than it could, and by how much in the mean, in ms; None of nothing."""
    total: dict[int, float] = defaultdict(float)
    for steps in measured:
        for hop in chain(schedule, steps):
            total[hop.src] += hop.begun_ms - hop.ready_ms
    if not total:
        return None
    rank, ms = max(total.items(), key=lambda item: item[1])
    return rank, ms / len(measured)
