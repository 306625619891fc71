"""What links delay and lose, by which means, and what holding packets back in user space would cost. Pure.

Comes in: points, and what a delay line wrote. Goes out: what is asked, packets a second, shares of a core.
A packet meets the delay, or is lost, as it comes *into a host*: behind every shaper, so that no queue of the fabric, no marker and
no sampled backlog ever counts one that merely waits. One way costs `delay_ms`, a round trip twice that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric.experiment import Point, flows, placement
from fabric.keys import ETHERNET_HEADER, Links

__all__ = ["MOST_CORES", "NETEM", "NFQUEUE", "WAYS", "Delay", "LineSeen", "cores_needed", "delay_of", "fastest_mbps", "line_seen", "round_trip_ms"]

NETEM, NFQUEUE = "netem", "nfqueue"
WAYS = (NETEM, NFQUEUE)  # best first
MOST_CORES = 0.6  # of the core that the line would share with everything else
PACKET_US = 30.0  # of a core for a packet, the host's own handling of it included; docs/delay.md has how it was measured
_ACKS = 0.5  # acknowledgements that come back for each data packet: TCP acknowledges every second one


@dataclass(frozen=True, slots=True)
class Delay:
    """One-way delay in ms for what every host receives, and the share of it that is lost, 0 to 1."""

    delay_ms: float
    loss: float


def delay_of(links: Links) -> Delay | None:
    """What links ask for; None where they neither delay nor lose."""
    asked = Delay(links.delay_ms or 0.0, (links.loss_percent or 0.0) / 100)
    return asked if asked != Delay(0.0, 0.0) else None


def round_trip_ms(links: Links) -> float:
    """What the delay adds to every round trip, in ms."""
    return 2 * (links.delay_ms or 0.0)


# -- what the user-space line would cost


def cores_needed(point: Point) -> float:
    """The share of a core that the user-space line takes where all that may send does so at its full rate."""
    return _cores(_receivers(point), point.links.mbps, point.links.mtu)


def fastest_mbps(point: Point) -> float:
    """The highest `links.mbps` at which the line would hold this point, rounded down to two digits."""
    receivers, slow, fast = _receivers(point), 0.0, point.links.mbps
    for _ in range(40):
        middle = (slow + fast) / 2
        holds = _cores(receivers, middle, point.links.mtu) <= MOST_CORES
        slow, fast = (middle, fast) if holds else (slow, middle)
    digit = 10.0 ** (math.floor(math.log10(fast)) - 1)
    return float(f"{math.floor(fast / digit) * digit:.6g}")


def _cores(receivers: Sequence[tuple[float, float]], mbps: float, mtu: int) -> float:
    into = sum(min(scale * mbps, most) for scale, most in receivers)
    return into * 1e6 / 8 / (mtu + ETHERNET_HEADER) * (1 + _ACKS) * PACKET_US / 1e6


def _receivers(point: Point) -> list[tuple[float, float]]:
    """For each host that will receive: its links' rate over `links.mbps`, and the most that is sent to it in Mb/s."""
    most = {name: math.inf for name in placement(point)}
    for flow in flows(point):
        most[flow.dst] = most.get(flow.dst, 0.0) + (math.inf if flow.mbps is None else flow.mbps)
    fabric = point.fabric
    return [(sum(fabric.scale[fabric.peer[port]] for port in fabric.ports_of[host]), mbps) for host, mbps in most.items()]


# -- what a line wrote


@dataclass(frozen=True, slots=True)
class LineSeen:
    """What the user-space line did in a window: shares of its packets that were `late` by more than 1 ms or that the kernel
    dropped because it was `overrun`; how many it `lost` because it should; `cores`, its share of one core.
    """

    packets_a_second: float

    late: float
    overrun: float
    lost: int
    cores: float


def line_seen(folder: Path, window: tuple[float, float]) -> LineSeen | None:
    """What the line whose folder this is did between two moments (CLOCK_MONOTONIC seconds); None where there was none."""
    file = folder / "delay.jsonl"
    if not file.is_file():
        return None
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    # From the last line before the window to the first one after it: none of it may go unseen.
    first = max((line for line in lines if line["t"] <= window[0]), key=lambda line: line["t"], default=lines[0])
    last = min((line for line in lines if line["t"] >= window[1]), key=lambda line: line["t"], default=lines[-1])
    more = {key: last[key] - first[key] for key in ("released", "late", "overrun", "lost", "packets", "cpu_s", "t")}
    seconds = max(1e-9, more["t"])
    return LineSeen(
        packets_a_second=more["packets"] / seconds, late=more["late"] / max(1, more["released"]), overrun=more["overrun"] / max(1, more["packets"] + more["overrun"]),
        lost=int(more["lost"]), cores=more["cpu_s"] / seconds,
    )  # fmt: skip
