"""A collective's transfers over time, a lane a rank, and the chain that decided its end: who waited for whom.

Comes in: points whose ranks noted their steps. Goes out: the drawing of each one's median iteration of its largest size, and its table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fabric.plots.frame import COLOURS, GREY, WIDTH, Plot, Table, grouped, size_of, wrapped
from fabric.recorded import Recorded
from fabric.results import Row
from fabric.schedule import Schedule
from fabric.steps import FILE, Hop, Steps, chain

__all__ = ["GANTT"]

_MOST = 3  # points that are drawn: each needs the whole width
NETWORK, SENDER = COLOURS[5], COLOURS[1]


def _pick(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows of the largest size of the first repeat of each variant whose steps were noted."""
    there = [row for row in rows if row.p50_ms is not None and (folder / "points" / row.point / "traffic" / FILE).is_file()]
    largest = [max(mine, key=lambda row: row.nbytes or 0) for mine in grouped(there, lambda row: row.point).values()]
    return [mine[0] for mine in grouped(largest, lambda row: row.variant).values()][:_MOST]


def _paint(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    lanes = [row.ranks or 1 for row in rows]
    figure.set_size_inches(WIDTH, 1.6 + sum(0.7 + 0.2 * count for count in lanes))
    axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=lanes).ravel()
    lines: list[tuple[Any, ...]] = []
    for axis, row in zip(axes, rows, strict=True):
        seen = Recorded(folder / "points" / row.point)
        schedule, steps = seen.schedules["collective", row.nbytes or 0], _typical(seen.steps, row)
        hops = chain(schedule, steps)
        _lanes(axis, schedule, steps, hops)
        lag = "" if row.lag_rank is None else f": in the mean rank {row.lag_rank} delayed it by {row.lag_ms:.1f} ms of its own"
        axis.set_title(wrapped(f"{row.variant}, {size_of(row.nbytes or 0)}, iteration {steps.iteration + 1}{lag}", 100), loc="left")
        decisive = {hop.transfer for hop in hops}
        lines += [
            (row.variant, row.nbytes, steps.iteration, number, item.src, item.dst, item.nbytes, steps.begun_ms[number], steps.left_ms[number],
             steps.arrived_ms[number], number in decisive)
            for number, item in enumerate(schedule.transfers)
        ]  # fmt: skip
    axes[-1].set_xlabel("ms since the common release")
    entries = [
        Patch(color=NETWORK, label="a transfer on its way to this rank"), Line2D([], [], color="black", lw=1.8, label="the chain that decided the end"),
        Line2D([], [], color=SENDER, lw=3, label="its sender could have begun, and had not"),
    ]  # fmt: skip
    figure.legend(handles=entries, loc="outside upper left", ncols=2, alignment="left")
    columns = ("variant", "nbytes", "iteration", "transfer", "src", "dst", "bytes", "begun_ms", "left_ms", "arrived_ms", "decisive")
    reading = "the iteration whose time is the median · a bar begins when its sender had handed over the first byte, and ends when all of it was taken in"
    return Table(columns, tuple(lines)), reading


def _typical(measured: Sequence[Steps], row: Row) -> Steps:
    """The iteration of the row's size whose end is nearest to the median one."""
    mine = [steps for steps in measured if steps.nbytes == row.nbytes]
    ends = [max(steps.arrived_ms.values()) for steps in mine]
    return mine[int(np.argmin(np.abs(np.array(ends) - np.median(ends))))]


def _lanes(axis: Any, schedule: Schedule, steps: Steps, hops: Sequence[Hop]) -> None:
    """Bars in the lane of the receiver; the chain goes from lane to lane."""
    for number, item in enumerate(schedule.transfers):
        begun, arrived = steps.begun_ms[number], steps.arrived_ms[number]
        axis.barh(item.dst, arrived - begun, left=begun, height=0.6, color=NETWORK, alpha=0.45, lw=0.4, ec="white", zorder=2)
    for hop in hops:
        axis.plot([hop.begun_ms, hop.arrived_ms], [hop.src, hop.dst], color="black", lw=1.2, zorder=4)
        if hop.begun_ms > hop.ready_ms:
            axis.plot([hop.ready_ms, hop.begun_ms], [hop.src] * 2, color=SENDER, lw=3, solid_capstyle="butt", zorder=3)
    axis.axvline(0, color=GREY, lw=0.8)
    axis.set_ylim(schedule.ranks - 0.4, -0.6)
    axis.set_yticks(range(0, schedule.ranks, max(1, schedule.ranks // 8)))
    axis.set_ylabel("rank")
    axis.grid(visible=False)


GANTT = Plot(
    "the transfers of a collective over time, a lane a rank, and the chain that decided its end",
    "rows of points with telemetry.steps",
    _pick,
    _paint,
)
