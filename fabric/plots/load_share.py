"""The throughput of a load as a share of non-blocking, a line an arm and a panel a load.

Comes in: rows of a load alone. Goes out: the drawing, and its table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from fabric.plots.frame import (
    GREY,
    Look,
    Plot,
    Table,
    arms_of,
    draw_dots,
    grouped,
    interval,
    lay_out,
    load_of,
    looks_of,
    put_legend,
    reported,
    with_any,
    wrapped,
)
from fabric.results import Row

__all__ = ["LOAD_SHARE"]


def _without_collective(_: Path, rows: Sequence[Row]) -> list[Row]:
    return with_any([row for row in rows if row.collective is None], "load_share_of_nb")


def _load_share(figure: Any, _: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """The load's share of non-blocking, a panel a load and a line an arm, beside what the model predicts."""
    arms, looks, shown = arms_of(rows), looks_of(rows), reported(rows, "load_share_of_nb")
    panels = grouped(rows, load_of)
    lines: list[tuple[Any, ...]] = []
    for axis, title in zip(lay_out(figure, list(panels), 2, 0.9 + 0.5 * len(looks)), panels, strict=True):
        axis.axvline(1, color=GREY, lw=0.8, ls=":")
        for place, arm in enumerate(looks):
            mine = [row for row in shown if load_of(row) == title and arms[row.variant] == arm]
            lines += _share_arm(axis, place, looks[arm], mine) if mine else ()
        axis.grid(axis="y", visible=False)
        axis.grid(axis="x")
        axis.set_xlabel("throughput of the load, share of non-blocking")
    highest = max(row.load_share_of_nb or 0 for row in shown)
    axis.set_xlim(0, max(1.05, 1.05 * highest))
    axis.set_ylim(len(looks) - 0.4, -0.6)
    axis.set_yticks(range(len(looks)), [wrapped(arm, 30) for arm in looks])
    mean = Line2D([], [], color="black", marker="|", ms=9, mew=2, lw=1.2, label="mean, 95 % bootstrap")
    predicted = Line2D([], [], color="0.6", marker="|", ms=12, mew=2.5, ls="", label="predicted from paths")
    put_legend(figure, looks.values(), shown, mean, predicted, line=False)
    columns = ("load", "variant", "repeat", "seed", "fidelity", "load_share_of_nb", "load_share_predicted",
               "mean", "low_95", "high_95", "mean_predicted")  # fmt: skip
    reading = "dots: one repeat each · below: means of all dots · dotted: non-blocking · refused rows are left out"
    return Table(columns, tuple(lines)), reading


def _share_arm(axis: Any, place: float, look: Look, rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """One arm's dots, mean and prediction; yields a line of the table for every row."""
    shares = np.array([row.load_share_of_nb for row in rows], np.float64)
    told = [row.load_share_predicted for row in rows if row.load_share_predicted is not None]
    mean, predicted, (low, high) = float(shares.mean()), float(np.mean(told)) if told else None, interval(shares)
    rise = np.linspace(-0.36, 0.08, len(rows)) if len(rows) > 1 else np.array([-0.14])
    draw_dots(axis, shares.tolist(), (place + rise).tolist(), rows, look)
    for up, row, share in zip(rise.tolist(), rows, shares.tolist(), strict=True):
        foretold = row.load_share_predicted
        _tick(axis, foretold, place + up, 5)
        yield (load_of(row), row.variant, row.repeat, row.seed, row.fidelity, share, foretold, mean, low, high, predicted)
    below = place + 0.3
    _tick(axis, predicted, below, 12)
    if low is not None:
        axis.plot([low, high], [below, below], color="black", lw=1.2, zorder=3)
    axis.plot(mean, below, color="black", marker="|", ms=9, mew=2, zorder=3)


def _tick(axis: Any, predicted: float | None, y: float, size: float) -> None:
    if predicted is not None:
        axis.plot(predicted, y, color="0.6", marker="|", ms=size, mew=2.5, zorder=2)


LOAD_SHARE = Plot(
    "throughput of the load alone as a share of a non-blocking fabric, with the prediction",
    "rows of a load alone and its share",
    _without_collective,
    _load_share,
)
