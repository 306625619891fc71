"""How many times its ideal a collective takes: a bar an arm, beside what the installed paths predict, a panel a load and size.

Comes in: rows of a collective. Goes out: the drawing, and its table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    with_any,
    wrapped,
)
from fabric.results import Row

__all__ = ["SLOWDOWN"]

_LETTERS = 30  # of an arm's name beside its bar


def _pick(_: Path, rows: Sequence[Row]) -> list[Row]:
    return with_any([row for row in rows if row.collective is not None], "slowdown")


def _paint(figure: Any, _: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """Bars are means over repeats, with their intervals and the repeats themselves."""
    arms, looks, shown = arms_of(rows), looks_of(rows), reported(rows, "slowdown")
    panels = grouped(shown, lambda row: (load_of(row), row.nbytes))
    lines: list[tuple[Any, ...]] = []
    titles = [f"{load} · {size_of(nbytes or 0)}" for load, nbytes in panels]
    for axis, here in zip(lay_out(figure, titles, 2, 0.9 + 0.42 * len(looks)), panels.values(), strict=True):
        for place, arm in enumerate(looks):
            mine = [row for row in here if arms[row.variant] == arm]
            lines += _bar(axis, place, looks[arm], mine) if mine else ()
        axis.axvline(1, color=GREY, lw=1.2, ls="--")
        axis.grid(axis="y", visible=False)
        axis.grid(axis="x")
        axis.set_xlabel("p50 over the ideal")
    axis.set_xlim(left=0)
    axis.set_ylim(len(looks) - 0.4, -0.6)
    axis.set_yticks(range(len(looks)), [wrapped(arm, _LETTERS) for arm in looks])
    mean = Line2D([], [], color="black", lw=1.2, label="95 % bootstrap interval of the mean")
    predicted = Line2D([], [], color="black", marker="|", ms=12, mew=2, ls="", label="predicted from paths")
    put_legend(figure, looks.values(), shown, mean, predicted, line=False)
    columns = ("load", "nbytes", "variant", "repeat", "seed", "fidelity", "slowdown", "predicted", "mean", "low_95", "high_95")
    return Table(columns, tuple(lines)), "bars: means of all dots · dots: one repeat each · dashed: the ideal · refused rows are left out"


def _bar(axis: Any, place: int, look: Look, rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    values: Floats = np.array([row.slowdown for row in rows], np.float64)
    told = {row.point: (row.predicted_ms or 0.0) / row.ideal_ms for row in rows if row.predicted_ms and row.ideal_ms}
    mean, (low, high) = float(values.mean()), interval(values)
    axis.barh(place, mean, 0.62, color=look.colour, alpha=0.35, zorder=1)
    rise = np.linspace(-0.2, 0.2, len(rows)) if len(rows) > 1 else np.array([0.0])
    draw_dots(axis, values.tolist(), (place + rise).tolist(), rows, look)
    if low is not None:
        axis.plot([low, high], [place, place], color="black", lw=1.2, zorder=4)
    if told:
        axis.plot(float(np.mean(list(told.values()))), place, color="black", marker="|", ms=14, mew=2, zorder=4)
    for row, value in zip(rows, values.tolist(), strict=True):
        yield (load_of(row), row.nbytes, row.variant, row.repeat, row.seed, row.fidelity, value, told.get(row.point), mean, low, high)


SLOWDOWN = Plot("how many times its ideal a collective takes, per variant", "rows of a collective and its slowdown", _pick, _paint, by_job=True)
