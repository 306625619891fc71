"""The time of a collective against its size, a line an arm and a panel a load.

Comes in: rows with a collective. Goes out: the drawing, and its table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    lay_out,
    load_of,
    looks_of,
    put_legend,
    reported,
    size_axis,
    some,
    time_axis,
    with_any,
)
from fabric.results import Row

__all__ = ["LATENCY"]


def _with_collective(_: Path, rows: Sequence[Row]) -> list[Row]:
    return with_any([row for row in rows if row.collective is not None], "p50_ms")


def _latency(figure: Any, _: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """Time against size, a panel a load; the line goes through the medians over repeats, of all rows not refused."""
    arms, looks, shown = arms_of(rows), looks_of(rows), reported(rows, "p50_ms")
    panels = grouped(rows, load_of)
    lines: list[tuple[Any, ...]] = []
    for axis, title in zip(lay_out(figure, list(panels), 3, 3.4), panels, strict=True):
        here = [row for row in shown if load_of(row) == title]
        found = grouped(here, lambda row: arms[row.variant])
        one_size = len({row.nbytes for row in rows}) == 1
        for number, (arm, mine) in enumerate(found.items()):
            aside = 2 ** (1.5 * ((number + 0.5) / len(found) - 0.5)) if one_size else 1.0
            lines += _latency_arm(axis, looks[arm], mine, aside)
        _ideal(axis, grouped(here, lambda row: arms[row.variant]), looks)
        size_axis(axis, sorted({int(row.nbytes or 0) for row in rows}))
        axis.set_xlabel("size")
    figure.axes[0].set_ylabel(f"{some(sorted({str(row.collective) for row in rows}))}, p50, ms")
    time_axis(figure.axes[0])
    ideal = Line2D([], [], color=GREY, ls="--", lw=1.2, label="ideal")
    put_legend(figure, looks.values(), shown, ideal, line=True)
    columns = ("load", "variant", "nbytes", "repeat", "seed", "fidelity", "p50_ms", "ideal_ms",
               "median_ms", "mean_ms", "min_ms", "max_ms")  # fmt: skip
    reading = "dots: one repeat each · line: their median · bar: their minimum to maximum · refused rows are left out"
    return Table(columns, tuple(lines)), reading


def _latency_arm(axis: Any, look: Look, rows: Sequence[Row], aside: float) -> Iterator[tuple[Any, ...]]:
    """One arm's line, bars and dots, drawn at `aside` times the size; yields a line of the table for every row."""
    medians = {}
    for nbytes, mine in sorted(grouped(rows, lambda row: row.nbytes).items()):
        times = np.array([row.p50_ms for row in mine], np.float64)
        low, mean, high = float(times.min()), float(times.mean()), float(times.max())
        medians[nbytes] = float(np.median(times))
        axis.plot([nbytes * aside] * 2, [low, high], color=look.colour, lw=5, alpha=0.3, solid_capstyle="butt")
        draw_dots(axis, [nbytes * aside] * len(mine), times.tolist(), mine, look)
        for row in mine:
            told = (load_of(row), row.variant, nbytes, row.repeat, row.seed, row.fidelity, row.p50_ms, row.ideal_ms)
            yield (*told, medians[nbytes], mean, low, high)
    axis.plot(list(medians), list(medians.values()), color=look.colour, zorder=2.5)


def _ideal(axis: Any, rows_of: Mapping[str, Sequence[Row]], looks: Mapping[str, Look]) -> None:
    """The ideal, once in grey where all arms have the same, else in each arm's colour."""
    curves: dict[str, dict[int, float]] = {}
    for arm, rows in rows_of.items():
        sizes = grouped((row for row in rows if row.ideal_ms is not None), lambda row: row.nbytes)
        curves[arm] = {size: float(np.median([row.ideal_ms for row in mine])) for size, mine in sorted(sizes.items())}
    longest = max(curves.values(), key=len, default={})
    every = [item for curve in curves.values() for item in curve.items()]
    # alpha is measured anew for every point, so the ideals of equal arms differ a little.
    same = all(size in longest and abs(ideal / longest[size] - 1) < 0.05 for size, ideal in every)
    for arm, curve in {"": longest}.items() if same else curves.items():
        colour = GREY if same else looks[arm].colour
        x, y = list(curve), list(curve.values())
        if len(curve) == 1:  # a line over all arms, which stand side by side
            x, y = [x[0] // 2, x[0] * 2], y * 2
        axis.plot(x, y, color=colour, ls="--", lw=1.2, zorder=2)


LATENCY = Plot(
    "time of the collective against its size, per variant, with the ideal",
    "rows with a collective and its time",
    _with_collective,
    _latency,
    by_job=True,
)
