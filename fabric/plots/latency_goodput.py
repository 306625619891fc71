"""What a scheme costs on both sides: the collective's time against the load's goodput, a point an arm and a panel a size.

Comes in: rows of a collective beside a load. Goes out: the drawing, and its table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from fabric.plots.frame import (
    GREY,
    Floats,
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
    size_of,
    some,
    time_axis,
)
from fabric.results import P99_NEEDS, Row

__all__ = ["LATENCY_GOODPUT"]


def _both(rows: Sequence[Row]) -> list[Row]:
    return reported(reported(rows, "p50_ms"), "load_goodput_mbps")


def _pick(_: Path, rows: Sequence[Row]) -> list[Row]:
    found = [row for row in rows if row.collective is not None and row.load is not None]
    return found if _both(found) else []


def _paint(figure: Any, _: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    arms, looks, shown = arms_of(rows), looks_of(rows), _both(rows)
    tail = _tail(shown)
    panels = grouped(shown, lambda row: (load_of(row), row.nbytes))
    loads = {load for load, _ in panels}
    titles = [f"{size_of(size)}{f' · {load}' if len(loads) > 1 else ''}" for load, size in panels]
    lines: list[tuple[Any, ...]] = []
    for axis, here in zip(lay_out(figure, titles, 2, 3.4, sharey=False, sharex=False), panels.values(), strict=True):
        for arm, mine in grouped(here, lambda row: arms[row.variant]).items():
            lines += _arm(axis, looks[arm], mine, tail)
        if ideals := [row.ideal_ms for row in here if row.ideal_ms is not None]:
            axis.axhline(float(np.median(ideals)), color=GREY, ls="--", lw=1.2)
        time_axis(axis, margin=1.1)
        axis.grid(axis="x")
        axis.margins(x=0.12)
        axis.set_xlabel("goodput of the load beside it, Mb/s (more is better)")
        axis.set_ylabel(f"{some(sorted({str(row.algorithm or row.collective) for row in here}))}, ms (less is better)")
    ideal = Line2D([], [], color=GREY, ls="--", lw=1.2, label="ideal")
    above = Line2D([], [], color=GREY, marker="_", ms=11, mew=2.2, lw=0.9, ls=":", label=f"{tail[:3]}, above its p50")
    put_legend(figure, looks.values(), shown, above, ideal, line=False)
    columns = ("variant", "load", "nbytes", "repeat", "seed", "fidelity", "load_goodput_mbps", "p50_ms", tail,
               "mean_goodput_mbps", "goodput_low_95", "goodput_high_95", "mean_p50_ms", "p50_low_95", "p50_high_95",
               f"mean_{tail}", f"{tail[:3]}_low_95", f"{tail[:3]}_high_95")  # fmt: skip
    reading = "large: means over repeats that are not FAIL, bars their 95 % bootstrap intervals (wide: of p50) · small: p50 of one repeat · refused rows are left out"
    if tail != "p99_ms":
        reading += f" · p95, as p99 needs {P99_NEEDS} iterations"
    return Table(columns, tuple(lines)), reading


def _tail(rows: Sequence[Row]) -> str:
    """The highest percentile that all rows have."""
    return "p99_ms" if all(row.p99_ms is not None for row in rows) else "p95_ms"


def _arm(axis: Any, look: Look, rows: Sequence[Row], tail: str) -> list[tuple[Any, ...]]:
    """One arm's mean with its bars, the tail above it, and its repeats; a line of the table for every row.

    Rows that are FAIL are shown and do not count, unless there are no others.
    """
    believed = [row for row in rows if row.fidelity != "FAIL"] or rows
    told = believed if all(getattr(row, tail) is not None for row in rows) else []
    values = {key: np.array([getattr(row, key) for row in mine], np.float64) for key, mine in
              (("load_goodput_mbps", believed), ("p50_ms", believed), (tail, told))}  # fmt: skip
    (x, *across), (y, *along), (top, *beyond) = (_mean(values[key]) for key in ("load_goodput_mbps", "p50_ms", tail))
    if len(rows) > 1:
        x_of, y_of = [row.load_goodput_mbps or 0.0 for row in rows], [row.p50_ms or 0.0 for row in rows]
        draw_dots(axis, x_of, y_of, rows, Look(look.name, look.colour, look.marker, 3))
    axis.plot([x, x], [y, top], color=look.colour, lw=0.9, ls=":", zorder=2)
    # Wide for p50, narrow for the tail: the two often overlap.
    for ends, width, strength in ((along, 9, 0.22), (beyond, 1.6, 1.0)):
        if ends[0] is not None:
            axis.plot([x, x], ends, color=look.colour, lw=width, alpha=strength, solid_capstyle="butt", zorder=2)
    if across[0] is not None:
        axis.plot(across, [y, y], color=look.colour, lw=1.6, zorder=2)
    axis.plot(x, y, ls="", color=look.colour, marker=look.marker, ms=8, mec="white", mew=0.8, zorder=4)
    axis.plot(x, top, ls="", color=look.colour, marker="_", ms=13, mew=2.6, zorder=4)
    return [
        (row.variant, load_of(row), row.nbytes, row.repeat, row.seed, row.fidelity, row.load_goodput_mbps, row.p50_ms, getattr(row, tail),
         x, *across, y, *along, top, *beyond)
        for row in rows
    ]  # fmt: skip


def _mean(values: Floats) -> tuple[float | None, float | None, float | None]:
    """The mean over repeats and its interval; None of nothing."""
    return (float(values.mean()), *interval(values)) if len(values) else (None, None, None)


LATENCY_GOODPUT = Plot(
    "time of the collective, p50 and p99, against the goodput of the load beside it, per variant and size",
    "rows of a collective beside a load, with its time and the load's goodput",
    _pick,
    _paint,
    by_job=True,
)
