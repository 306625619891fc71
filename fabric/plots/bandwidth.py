"""Bus bandwidth against size, a line an arm: what the links give at most, and each algorithm's own ceiling.

Comes in: rows of collectives at several sizes. Goes out: the drawing, and its table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from fabric.ideal import payload_mbps
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
)
from fabric.results import Row

__all__ = ["BANDWIDTH"]

_MARGIN = 1.15


def _of_several_sizes(_: Path, rows: Sequence[Row]) -> list[Row]:
    found = reported([row for row in rows if row.collective is not None], "busbw_mbps")
    sizes = {arm: {row.nbytes for row in mine} for arm, mine in grouped(found, lambda row: arms_of(found)[row.variant]).items()}
    return found if any(len(own) > 1 for own in sizes.values()) else []


def _ceiling(row: Row) -> float | None:
    """The bus bandwidth of the ideal time."""
    return None if row.busbw_mbps is None or row.slowdown is None else row.busbw_mbps * row.slowdown


def _paint(figure: Any, _: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    arms, looks = arms_of(rows), looks_of(rows)
    lines: list[tuple[Any, ...]] = []
    panels = grouped(rows, load_of)
    for axis, (title, here) in zip(lay_out(figure, list(panels), 2, 3.6), panels.items(), strict=True):
        for arm, mine in grouped(here, lambda row: arms[row.variant]).items():
            lines += _arm(axis, looks[arm], mine, title)
        for rate in sorted({payload_mbps(row.mbps, row.mtu) for row in here}):
            axis.axhline(rate, color=GREY, lw=1.0, zorder=1)
        # Ceilings of small sizes may be far above what anything reaches.
        axis.set_ylim(0, _MARGIN * max(*(row.busbw_mbps or 0.0 for row in here), *(payload_mbps(row.mbps, row.mtu) for row in here)))
        size_axis(axis, sorted({int(row.nbytes or 0) for row in rows}))
        axis.set_xlabel("size")
    figure.axes[0].set_ylabel("bus bandwidth, Mb/s (more is better)")
    ceiling = Line2D([], [], color=GREY, ls="--", lw=1.2, label="ceiling: at the ideal time")
    wire = Line2D([], [], color=GREY, lw=1.0, label="payload that a link carries")
    put_legend(figure, looks.values(), rows, ceiling, wire, line=True)
    columns = ("load", "variant", "nbytes", "repeat", "seed", "fidelity", "busbw_mbps", "ceiling_mbps", "median_mbps", "median_ceiling_mbps")
    reading = "dots: one repeat each · line: their median · where sizes are small a ceiling is above the links' rate, as idle links pass two packets at once"
    return Table(columns, tuple(lines)), reading


def _arm(axis: Any, look: Look, rows: Sequence[Row], load: str) -> Iterator[tuple[Any, ...]]:
    """One arm's line, ceiling and dots; yields a line of the table for every row."""
    medians: dict[int, tuple[float, float]] = {}
    for nbytes, mine in sorted(grouped(rows, lambda row: int(row.nbytes or 0)).items()):
        got = [row.busbw_mbps or 0.0 for row in mine]
        ceilings = [found for row in mine if (found := _ceiling(row)) is not None]
        medians[nbytes] = float(np.median(got)), float(np.median(ceilings)) if ceilings else float("nan")
        draw_dots(axis, [nbytes] * len(mine), got, mine, look)
        for row, value in zip(mine, got, strict=True):
            yield (load, row.variant, nbytes, row.repeat, row.seed, row.fidelity, value, _ceiling(row), *medians[nbytes])
    axis.plot(list(medians), [got for got, _ in medians.values()], color=look.colour, zorder=2.5)
    axis.plot(list(medians), [most for _, most in medians.values()], color=look.colour, ls="--", lw=1.2, zorder=2)


BANDWIDTH = Plot(
    "bus bandwidth of the collective against its size, per variant, with each algorithm's ceiling",
    "rows of a collective at several sizes",
    _of_several_sizes,
    _paint,
    by_job=True,
)
