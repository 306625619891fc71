"""The latency α of this machine's emulated links: half the idle round trip of one rank's element over a single switch.

Measured with the ranks' own sockets and the run's own link model, because it stands in every ideal time.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fabric.emulation import emulate
from fabric.endpoints import Provided
from fabric.errors import RunError
from fabric.experiment import Collective, Controller, Links, Point, Use
from fabric.keys import Telemetry
from fabric.sandbox import Sandbox
from fabric.schedule import Schedule, Transfer
from fabric.tcp import Endpoints
from fabric.workload import FIRST_SERVICE_PORT, Part, Workload
from topologies.single_switch import single_switch

__all__ = ["calibrated", "measure_alpha_ms", "ping_pong"]

_ROUNDS = 50
_REPEATS = 9


def ping_pong(rounds: int) -> Schedule:
    """One element thrown back and forth between two ranks: it takes 2 x `rounds` one-way latencies."""
    transfers = tuple(
        Transfer(number, number % 2, 1 - number % 2, 0, 1, "copy", (number - 1,) if number else ())
        for number in range(2 * rounds)
    )
    return Schedule("ping-pong", 2, 1, transfers)


def calibrated(links: Links) -> Links:
    """The links that α is measured over: without loss, which is no latency, and without delay, which is known exactly.

    Measured, a delay would bring along how late ranks wake after it, which is this machine's doing and no ideal's: α would come out
    so large that a run beside it seemed faster than ideal.
    """
    return links.model_copy(update={"delay_ms": None, "loss_percent": None})


def measure_alpha_ms(point: Point, folder: Path, place: Sandbox, tcps: Mapping[str, Provided]) -> float:
    """α in ms for the links of `point`, but for their delay, and its collective's transport: the median over repeats, after one for warming up."""
    fabric = single_switch(2)
    collective = Collective.model_validate(
        {"use": "ping-pong", "nbytes": 4, "iterations": _REPEATS, "warmup": 1, "check": False,
         "transport": point.collective and point.collective.transport}
    )
    bench = replace(
        point, fabric=fabric, topology=Use(use="single-switch"), controller=Controller(use="two-level"),
        collective=collective, workload=None, load=(), requests=(), duration_s=None, events=(), links=calibrated(point.links),
        # What a point measures besides costs it time; the ideal is without that.
        telemetry=Telemetry(period_ms=point.telemetry.period_ms),
        transport=point.transport.model_copy(update={"hosts": {}}),
    )  # fmt: skip
    a, b = fabric.hosts
    edges = {
        (0, 1, 0): Endpoints(a.ip, 20001, b.ip, FIRST_SERVICE_PORT),
        (1, 0, 0): Endpoints(b.ip, 20002, a.ip, FIRST_SERVICE_PORT + 1),
    }
    work = Workload((Part("collective", collective, 0, (a.name, b.name), (ping_pong(_ROUNDS),)),), edges, (), ())
    emulate(bench, work, folder, place, tcps, 0.0, lambda _: None)
    times: list[float] = [
        max(record["ends_ms"])
        for record in map(json.loads, (folder / "traffic" / "records.jsonl").read_text().splitlines())
        if record["event"] == "iteration" and record["iteration"] >= 0
    ]
    if not times:
        raise RunError(f"the calibration of alpha recorded no iteration; see {folder}")
    return statistics.median(times) / (2 * _ROUNDS)
