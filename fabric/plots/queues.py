"""The queue of the busiest port over time, its threshold, and when it marked: a panel a point.

Comes in: telemetry of points. Goes out: the drawing, and its table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fabric.keys import ETHERNET_HEADER, Ecn
from fabric.plots.frame import GREY, Floats, Plot, Table, arms_of, grouped, lay_out
from fabric.plots.utilisation import heading, with_telemetry
from fabric.results import Row
from fabric.telemetry import Ints, read_queues

__all__ = ["QUEUES"]

SAMPLES = 2000  # more than a panel has columns, and a CSV that still opens
LINE, MARKED = "#0072B2", "#D55E00"


@dataclass(frozen=True, slots=True)
class _Queue:
    """One port's queue: times in seconds from the first sample, packets waiting, and packets marked since the sample before."""

    port: str
    t: Floats
    packets: Ints
    marked: Ints | None
    thresholds: tuple[float, ...]


def _pick(folder: Path, rows: Sequence[Row]) -> list[Row]:
    return [row for row in with_telemetry(folder, rows) if row.busiest_port]


def _paint(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    points, arms = grouped(rows, lambda row: row.point), arms_of(rows)
    found = {point: _queue(folder / "points" / point, str(mine[0].busiest_port)) for point, mine in points.items()}
    axes = lay_out(figure, [heading(arms[mine[0].variant], mine) for mine in points.values()], 2, 2.6)
    lines: list[tuple[Any, ...]] = []
    for axis, (point, queue) in zip(axes, found.items(), strict=True):
        _panel(axis, queue)
        lines += _lines(points[point][0], queue)
    reading = "packets in the queue of the port that sent most while it was measured"
    if any(queue.thresholds for queue in found.values()):
        reading += "; dashed: where marking begins, and where it is certain"
    if any(queue.marked is not None for queue in found.values()):
        reading += "; ticks below: samples in which it marked"
    return Table(("variant", "point", "port", "t_s", "packets", "marked"), tuple(lines)), reading


def _queue(point: Path, port: str) -> _Queue:
    queues = read_queues(point / "telemetry" / "queues.jsonl")
    column, step = queues.interfaces.index(port), -(-len(queues.t) // SAMPLES)
    marked = None if queues.marks is None else np.diff(queues.marks[::step, column], prepend=queues.marks[0, column])
    return _Queue(
        port, queues.t[::step] - queues.t[0], queues.backlog_packets[::step, column], marked,
        _thresholds(point / "point.json"),
    )  # fmt: skip


def _thresholds(described: Path) -> tuple[float, ...]:
    """Where a point's queues begin to mark and are certain to, in full frames, which are the figure's unit; () where none marks."""
    links: dict[str, Any] = json.loads(described.read_text())["links"] if described.is_file() else {"ecn": None}
    if not links["ecn"]:
        return ()
    return tuple(sorted({nbytes / (links["mtu"] + ETHERNET_HEADER) for nbytes in Ecn(**links["ecn"]).in_bytes(links["mtu"])}))


def _panel(axis: Any, queue: _Queue) -> None:
    axis.plot(queue.t, queue.packets, color=LINE, lw=0.8, drawstyle="steps-post")
    for threshold in queue.thresholds:
        axis.axhline(threshold, color=GREY, lw=1, ls="--")
    top = max(1, int(queue.packets.max(initial=0)), *queue.thresholds) * 1.08
    if queue.marked is not None:
        at = queue.t[queue.marked > 0]
        axis.vlines(at, -0.07 * top, -0.02 * top, color=MARKED, lw=0.5)
    axis.set_ylim(-0.08 * top if queue.marked is not None else 0, top)
    axis.set_xlabel("time, s")
    axis.set_ylabel(f"packets in {queue.port}")


def _lines(row: Row, queue: _Queue) -> Iterator[tuple[Any, ...]]:
    marked = queue.marked if queue.marked is not None else [None] * len(queue.t)
    for t, packets, marks in zip(queue.t, queue.packets, marked, strict=True):
        yield row.variant, row.point, queue.port, round(float(t), 4), int(packets), "" if marks is None else int(marks)


QUEUES = Plot(
    "the queue of the busiest port over time, with threshold and marks", "points with telemetry and a busiest port", _pick, _paint
)
