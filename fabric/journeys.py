"""What in-band probes saw, hop by hop: the way they took, the queues that they found there, and how full the links were.

Comes in: the folder `inband` of a point. Goes out: arrays by pair and hop, and a table. Pure: any machine can read a recorded run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.errors import RequestError, RunError

__all__ = ["Hop", "Journey", "astray", "hops", "journeys_of", "read_journeys"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Journey:
    """The probes of one pair of hosts that took its usual way, P of them: `way` are the H interfaces that they left by.

    `installed` is the way that the switches' rules gave before the traffic, None where they did not say. `sent`, `arrived` [P] are seconds
    of CLOCK_MONOTONIC, `at` [P, H] the same at each stamp, `packets`, `nbytes` what waited there, `sent_bytes` what had been sent, `kbps` the
    link's rate. `probes` were sent, `came` arrived, `elsewhere` of them by another way, and `without` passed hops that they had no room for.
    """

    src: str
    dst: str
    installed: tuple[str, ...] | None
    way: tuple[str, ...]
    sent: Floats
    arrived: Floats
    at: Floats
    packets: Floats
    nbytes: Floats
    kbps: Floats
    sent_bytes: Floats
    probes: int
    came: int
    elsewhere: int
    without: int


@dataclass(frozen=True, slots=True)
class Hop:
    """A hop of a pair's way: packets that its probes found waiting, how full the link was meanwhile, and the time to the next stamp.

    `utilisation` is what was sent between the first and the last probe over the rate; None of fewer than two.
    """

    src: str
    dst: str
    hop: int
    port: str
    probes: int
    queue_p50_packets: float
    queue_p95_packets: float
    queue_max_packets: int
    utilisation: float | None
    onward_p50_ms: float
    onward_p95_ms: float

    def to_json(self) -> dict[str, Any]:
        """A dictionary for a line."""
        return asdict(self)


def read_journeys(folder: Path) -> list[Journey]:
    """The journeys of a point's folder; empty where no probes were asked for. RunError when the record is none."""
    if not (folder / "inband" / "pairs.json").is_file():
        return []
    try:
        told = json.loads((folder / "inband" / "pairs.json").read_text())
        *whole, _ = (folder / "inband" / "inband.jsonl").read_text().split("\n")  # the last line may be cut
        lines = [json.loads(line) for line in whole]
        report = folder / "inband" / "report.json"
        sent = json.loads(report.read_text())["sent"] if report.is_file() else [0] * len(told["pairs"])
        return [
            _journey(pair, [line for line in lines if line["pair"] == number], told["ports"], sent[number])
            for number, pair in enumerate(told["pairs"])
        ]
    except (OSError, KeyError, TypeError, ValueError, IndexError) as err:
        raise RunError(f"{folder / 'inband'}: not what a run writes: {type(err).__name__}: {err}") from err


def journeys_of(run: Path, point: str | None = None) -> Iterator[tuple[str, list[Journey]]]:
    """The points of a run folder that have probes, with their journeys; RequestError where there is none."""
    found = sorted(path.parent.parent.name for path in run.glob("points/*/inband/pairs.json"))
    if not found:
        raise RequestError(f"{run}: no point with in-band probes; accepted: a run folder of an experiment with telemetry.probes: {{hz: 100}}")
    if point is not None and point not in found:
        raise RequestError(f"{run}: no in-band probes of point {point!r}; accepted: {', '.join(found[:8])}")
    for name in found:
        if point in (None, name):
            yield name, read_journeys(run / "points" / name)


def hops(journey: Journey) -> list[Hop]:
    """The hops of a journey, in order; empty when no probe arrived."""
    if not len(journey.sent):
        return []
    onward = 1000 * np.diff(np.column_stack([journey.at, journey.arrived]), axis=1)
    return [
        Hop(
            journey.src, journey.dst, number + 1, port, len(journey.sent),
            float(np.percentile(journey.packets[:, number], 50)), float(np.percentile(journey.packets[:, number], 95)),
            int(journey.packets[:, number].max()), _utilisation(journey, number),
            float(np.percentile(onward[:, number], 50)), float(np.percentile(onward[:, number], 95)),
        )
        for number, port in enumerate(journey.way)
    ]  # fmt: skip


def astray(journeys: list[Journey]) -> Iterator[str]:
    """In words, each pair whose probes did not come, or not over the way that the switches' rules gave."""
    for one in journeys:
        name = f"in-band probes from {one.src} to {one.dst}"
        if not one.came:
            yield f"{name}: none of {one.probes} arrived"
        elif one.without:
            yield f"{name}: passed more hops than they have room for"
        elif one.installed is not None and one.way != one.installed:
            yield f"{name} went by {' '.join(one.way)}; installed was {' '.join(one.installed)}"


def _utilisation(journey: Journey, number: int) -> float | None:
    order = np.argsort(journey.at[:, number])  # probes may overtake each other in user space, not in a queue
    at, nbytes, kbps = (column[order, number] for column in (journey.at, journey.sent_bytes, journey.kbps))
    room = float((np.diff(at) * kbps[1:]).sum()) * 125  # kb/s into bytes a second
    return float(nbytes[-1] - nbytes[0]) / room if room > 0 else None


def _journey(pair: dict[str, Any], lines: list[dict[str, Any]], ports: dict[str, str], sent: int) -> Journey:
    ways = Counter(tuple(hop[0] for hop in line["hops"]) for line in lines)
    way = max(ways, key=ways.__getitem__, default=())
    kept = [line for line in lines if tuple(hop[0] for hop in line["hops"]) == way]
    stamps = np.array([line["hops"] for line in kept], np.float64).reshape(len(kept), len(way), 6)
    return Journey(
        pair["src"], pair["dst"], pair["path"] and tuple(pair["path"]), tuple(ports[str(number)] for number in way),
        np.array([line["sent"] for line in kept], np.float64), np.array([line["arrived"] for line in kept], np.float64),
        at=stamps[:, :, 4], packets=stamps[:, :, 1], nbytes=stamps[:, :, 2], kbps=stamps[:, :, 3], sent_bytes=stamps[:, :, 5],
        probes=sent, came=len(lines), elsewhere=len(lines) - len(kept), without=sum(line["without"] > 0 for line in lines),
    )  # fmt: skip
