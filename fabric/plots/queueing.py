"""How long packets waited in queues: the distribution of every packet out of a switch, a line an arm and a panel for all.

Comes in: queueing.json and queueing.npz of points. Goes out: the drawing, and a table with the percentiles of every port.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter

from fabric.histogram import MIDDLES_MS
from fabric.plots.frame import Plot, Table, arms_of, grouped, looks_of, put_legend
from fabric.plots.utilisation import with_telemetry
from fabric.queueing import Queueing, read_queueing
from fabric.recorded import Recorded, switch_ports
from fabric.results import Row

__all__ = ["QUEUEING"]

EVER = (-np.inf, np.inf)
LEAST_MS = 0.001  # shorter waits are those of packets that found no queue
PORTS_BESIDE = 3  # the ports whose 99th percentiles are longest get a thin line of their own
TOLD = ("offered", "packets", "missed", "stale", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms")


def _pick(folder: Path, rows: Sequence[Row]) -> list[Row]:
    return [row for row in with_telemetry(folder, rows) if (folder / "points" / row.point / "queueing.json").is_file()]


def _paint(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    axis = figure.subplots()
    arms, looks = arms_of(rows), looks_of(rows)
    lines: list[tuple[Any, ...]] = []
    for point, mine in grouped(rows, lambda row: row.point).items():
        seen = read_queueing(folder / "points" / point)
        assert seen is not None
        out = _out_of_switches(folder / "points" / point, seen)
        colour = looks[arms[mine[0].variant]].colour
        _curve(axis, seen, out, color=colour)
        for name in _longest(seen, out):
            _curve(axis, seen, [name], color=colour, lw=0.7, alpha=0.6)
        lines += _lines(mine[0], seen)
    axis.set_xscale("log")
    axis.set_xlim(left=LEAST_MS)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("queueing delay, ms")
    axis.set_ylabel("share of packets that waited at most so long")
    put_legend(figure, looks.values(), rows, line=True)
    reading = (
        "thick: every packet that left a switch in the whole point · thin: the three ports with the longest 99th percentiles · "
        f"waits below {1000 * LEAST_MS:g} µs are drawn at the left edge"
    )
    return Table(("variant", "point", "port", *TOLD), tuple(lines)), reading


def _out_of_switches(point: Path, seen: Queueing) -> list[str]:
    """The interfaces of switches that sent anything."""
    known = switch_ports(Recorded(point))
    return [name for name, port in seen.ports.items() if name in known and port["packets"]]


def _longest(seen: Queueing, names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: -seen.ports[name]["p99_ms"])[:PORTS_BESIDE]


def _curve(axis: Any, seen: Queueing, names: Sequence[str], **style: Any) -> None:
    counts = seen.histogram(EVER, names)
    if total := counts.sum():
        held = np.flatnonzero(counts)
        x = np.maximum(LEAST_MS, MIDDLES_MS[held])
        axis.plot([LEAST_MS, *x], [0, *(np.cumsum(counts)[held] / total)], drawstyle="steps-post", **style)


def _lines(row: Row, seen: Queueing) -> Iterator[tuple[Any, ...]]:
    for name, port in seen.ports.items():
        yield row.variant, row.point, name, *(port.get(key, "") for key in TOLD)


QUEUEING = Plot("how long packets waited in queues, over all ports of switches and in the worst", "points with telemetry.queueing_delay", _pick, _paint)
