"""What was recorded of every packet's queueing delay: percentiles of a port, or of all that left switches, in any window.

Comes in: queueing.json and queueing.npz of a point's folder, which `fabric.delaymeter` wrote. Goes out: histograms and percentiles.
Pure: any machine can read a recorded run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.errors import RunError
from fabric.histogram import BUCKETS, percentiles_ms

__all__ = ["Queueing", "read_queueing", "unseen"]

_LOST_SHARE = 0.001  # of a port's packets; more would move a 99th percentile
_SENT_SLACK = (20, 0.01)  # packets between the two last looks at a port, of the sampler and of the meter

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Queueing:
    """Delays of every packet: `ports` has each interface's totals, in the order of the histograms.

    `times` [S + 1] are seconds of CLOCK_MONOTONIC; a row of `counts` is a stretch between two of them, a port, a bucket, and how many.
    """

    ports: Mapping[str, Mapping[str, Any]]
    times: Floats
    counts: Ints

    def histogram(self, window: tuple[float, float], interfaces: Collection[str]) -> Ints:
        """How many packets of these interfaces waited how long, [BUCKETS], in the stretches whose middle is within the window.

        When it is shorter than a stretch, in all that touch it.
        """
        middles = (self.times[1:] + self.times[:-1]) / 2
        inside = (middles >= window[0]) & (middles <= window[1])
        if not inside.any():
            inside = (self.times[1:] >= window[0]) & (self.times[:-1] <= window[1])
        wanted = np.array([name in interfaces for name in self.ports], bool)
        rows = self.counts[inside[self.counts[:, 0]] & wanted[self.counts[:, 1]]]
        return np.bincount(rows[:, 2], weights=rows[:, 3], minlength=BUCKETS).astype(np.int64)

    def percentiles(self, window: tuple[float, float], interfaces: Collection[str]) -> list[float] | None:
        """p50, p95 and p99 in ms of all packets that left these interfaces in a window; None when there were none."""
        return percentiles_ms(self.histogram(window, interfaces), (50, 95, 99))


def read_queueing(folder: Path) -> Queueing | None:
    """The record in a point's folder; None where nothing was asked for. RunError when it is not such a record."""
    if not (folder / "queueing.json").is_file():
        return None
    try:
        told = json.loads((folder / "queueing.json").read_text())
        with np.load(folder / "queueing.npz") as kept:
            return Queueing(told["ports"], kept["times"], kept["counts"])
    except (OSError, KeyError, ValueError) as err:
        raise RunError(f"{folder}/queueing.json and .npz: not what the run writes: {type(err).__name__}: {err}") from err


def unseen(seen: Queueing, sent: Mapping[str, int]) -> Iterator[str]:
    """In words, where delays were not those of all packets; `sent` is what the queues themselves say they sent."""
    for name, port in seen.ports.items():
        lost = port["missed"] + port["stale"]
        if lost > _LOST_SHARE * (port["packets"] + lost):
            yield f"the queueing delay of {lost} of {port['packets'] + lost} packets out of {name} is not known"
        slack = _SENT_SLACK[0] + _SENT_SLACK[1] * sent.get(name, 0)
        if name in sent and abs(port["packets"] + lost - sent[name]) > slack:
            yield f"{name} sent {sent[name]} packets, and {port['packets'] + lost} were seen to leave its queue"
