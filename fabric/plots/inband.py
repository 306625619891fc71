"""The queues that in-band probes found: a heat map a point, a row a hop of each pair's way, from the sender down.

Comes in: the journeys of points. Goes out: the drawing, and its table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fabric.journeys import Journey, hops, read_journeys
from fabric.plots.frame import Floats, Plot, Table, arms_of, grouped, lay_out
from fabric.plots.utilisation import COLUMNS_OF_HEAT, heading, with_telemetry
from fabric.results import Row

__all__ = ["INBAND"]


@dataclass(frozen=True, slots=True)
class _Heat:
    """The mean queue that probes found at each hop [T, N] between the T + 1 `edges`, in seconds; nan where none came by."""

    names: tuple[str, ...]
    begins: tuple[int, ...]
    edges: Floats
    packets: Floats


def _pick(folder: Path, rows: Sequence[Row]) -> list[Row]:
    return [row for row in with_telemetry(folder, rows) if _came(folder / "points" / row.point)]


def _came(point: Path) -> list[Journey]:
    return [journey for journey in read_journeys(point) if len(journey.sent)]


def _paint(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    points, arms = grouped(rows, lambda row: row.point), arms_of(rows)
    journeys = {point: _came(folder / "points" / point) for point in points}
    heats = {point: _heat(mine) for point, mine in journeys.items()}
    height = 0.8 + 0.17 * max(len(heat.names) for heat in heats.values())
    axes = lay_out(figure, [heading(arms[mine[0].variant], mine) for mine in points.values()], 1, height, sharey=False)
    top = max(1.0, *(float(np.nanmax(heat.packets)) for heat in heats.values()))
    lines: list[tuple[Any, ...]] = []
    for axis, (point, heat) in zip(axes, heats.items(), strict=True):
        colours = _panel(axis, heat, top)
        lines += _lines(points[point][0], journeys[point])
    figure.colorbar(colours, ax=axes, label="packets waiting, mean", aspect=40, pad=0.02)
    reading = "each row is a port that a pair's probes left by, from the sender (top) to the receiver; blank: no probe came by"
    columns = ("variant", "point", "src", "dst", "hop", "port", "probes", "queue_p50_packets", "queue_p95_packets", "queue_max_packets",
               "utilisation", "onward_p50_ms", "onward_p95_ms")  # fmt: skip
    return Table(columns, tuple(lines)), reading


def _heat(journeys: Sequence[Journey]) -> _Heat:
    first = min(float(journey.at.min()) for journey in journeys)
    last = max(float(journey.at.max()) for journey in journeys)
    probes = max(len(journey.sent) for journey in journeys)
    edges = np.linspace(0, max(last - first, 1e-3), max(2, min(COLUMNS_OF_HEAT, probes // 2)))
    names, begins, columns = list[str](), list[int](), list[Floats]()
    for journey in journeys:
        begins.append(len(names))
        for number, port in enumerate(journey.way):
            names.append(f"{journey.src} → {journey.dst}: {port}" if number == 0 else port)
            at = journey.at[:, number] - first
            total, count = (np.histogram(at, edges, weights=weights)[0] for weights in (journey.packets[:, number], None))
            columns.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return _Heat(tuple(names), tuple(begins), edges, np.stack(columns, axis=1))


def _panel(axis: Any, heat: _Heat, top: float) -> Any:
    down = np.arange(len(heat.names) + 1)
    colours = axis.pcolormesh(heat.edges, down, heat.packets.T, vmin=0, vmax=top, cmap="viridis", rasterized=True)
    for begin in heat.begins[1:]:
        axis.axhline(begin, color="white", lw=1.5)
    axis.set_yticks(down[:-1] + 0.5, heat.names, fontsize=7)
    axis.invert_yaxis()
    axis.grid(False)
    axis.set_xlabel("time, s")
    return colours


def _lines(row: Row, journeys: Sequence[Journey]) -> Iterator[tuple[Any, ...]]:
    for journey in journeys:
        for hop in hops(journey):
            yield row.variant, row.point, *hop.to_json().values()


INBAND = Plot("the queues that in-band probes found, by hop over time", "points with telemetry.probes that arrived", _pick, _paint)
