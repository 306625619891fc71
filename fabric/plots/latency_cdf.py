"""How an iteration's time is distributed: a line an arm, over all iterations of its repeats, and a panel a size.

Comes in: rows with a collective, and their traffic's records. Goes out: the drawing, and its table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fabric.plots.frame import (
    GREY,
    Floats,
    Look,
    Plot,
    Table,
    arms_of,
    grouped,
    lay_out,
    load_of,
    looks_of,
    put_legend,
    reported,
    size_of,
    some,
)
from fabric.recorded import Recorded
from fabric.results import Row

__all__ = ["LATENCY_CDF"]

RECORDS = "traffic/records.jsonl"
LOGARITHMIC = 10.0  # from that ratio of the longest to the shortest on


def _pick(folder: Path, rows: Sequence[Row]) -> list[Row]:
    found = [row for row in rows if row.collective is not None]
    there = {point for point in {row.point for row in reported(found, "p50_ms")} if (folder / "points" / point / RECORDS).is_file()}
    return [row for row in found if row.point in there]


def _paint(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    arms, looks, shown = arms_of(rows), looks_of(rows), reported(rows, "p50_ms")
    panels = grouped(shown, lambda row: (load_of(row), row.nbytes))
    loads = {load for load, _ in panels}
    titles = [f"{size_of(size)}{f' · {load}' if len(loads) > 1 else ''}" for load, size in panels]
    lines: list[tuple[Any, ...]] = []
    for axis, here in zip(lay_out(figure, titles, 2, 2.9, sharex=False), panels.values(), strict=True):
        for arm, mine in grouped(here, lambda row: arms[row.variant]).items():
            lines += _arm(axis, folder, looks[arm], mine)
        _marks(axis, here)
        axis.set_xlabel(f"time of one {some(sorted({str(row.algorithm or row.collective) for row in here}))}, ms")
    _time_axes(figure.axes)
    figure.axes[0].set_ylim(0, 1.02)
    for axis in figure.axes:
        axis.set_ylabel("share of iterations")
    ideal = Line2D([], [], color=GREY, ls="--", lw=1.2, label="ideal")
    rto = [Line2D([], [], color=GREY, ls=":", lw=1.2, label="ideal + smallest RTO")] if any(row.rto_over_ideal for row in shown) else []
    put_legend(figure, [_plain(look) for look in looks.values()], [], ideal, *rto, line=True)
    columns = ("variant", "load", "nbytes", "point", "repeat", "seed", "fidelity", "iteration", "ms", "share")
    reading = "all measured iterations of all repeats together · refused rows are left out"
    if any(row.fidelity == "FAIL" for row in shown):
        reading += " · thin and dashed: with those of rows that are FAIL"
    return Table(columns, tuple(lines)), reading


def _plain(look: Look) -> Look:
    return Look(look.name, look.colour, "", look.size)


def _arm(axis: Any, folder: Path, look: Look, rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """One arm's steps, with the rows that are FAIL and without them.

    Yields a line of the table for every iteration, with the share of the arm's that are as short or shorter.
    """
    found = [(row, number, ms) for row in rows for number, ms in _times(folder, row)]
    times = np.sort(np.array([ms for *_, ms in found], np.float64))
    believed = np.sort(np.array([ms for row, _, ms in found if row.fidelity != "FAIL"], np.float64))
    if len(believed) < len(times):
        _steps(axis, times, color=look.colour, lw=0.9, ls="--")
    if len(believed):
        _steps(axis, believed, color=look.colour)
    for row, number, ms in found:
        below = int(np.searchsorted(times, ms, side="right")) / len(times)
        yield (row.variant, load_of(row), row.nbytes, row.point, row.repeat, row.seed, row.fidelity, number, ms, round(below, 6))


def _steps(axis: Any, times: Floats, **style: Any) -> None:
    share = np.arange(1, len(times) + 1) / len(times)
    axis.step(np.concatenate((times[:1], times)), np.concatenate(([0.0], share)), where="post", **style)


def _times(folder: Path, row: Row) -> list[tuple[int, float]]:
    """Number and time in ms of each measured iteration of a row."""
    records = Recorded(folder / "points" / row.point).event("iteration")
    mine = [one for one in records if one["nbytes"] == row.nbytes and one["iteration"] >= 0 and row.job in (None, one.get("job"))]
    return [(one["iteration"], max(one["ends_ms"])) for one in mine]


def _marks(axis: Any, rows: Sequence[Row]) -> None:
    """The ideal, and what the ideal and one retransmission timeout make; both medians over rows, as alpha differs a little."""
    ideals: Floats = np.array([row.ideal_ms for row in rows if row.ideal_ms is not None], np.float64)
    after = [row.ideal_ms * (1 + row.rto_over_ideal) for row in rows if row.ideal_ms is not None and row.rto_over_ideal is not None]
    if len(ideals):
        axis.axvline(float(np.median(ideals)), color=GREY, ls="--", lw=1.2)
    if after:
        axis.axvline(float(np.median(after)), color=GREY, ls=":", lw=1.2)


def _time_axes(axes: Sequence[Any]) -> None:
    """Logarithmic in all panels where one needs it."""
    ranges = [(min(float(min(line.get_xdata())) for line in axis.lines), float(axis.get_xlim()[1])) for axis in axes]
    if all(high / low < LOGARITHMIC for low, high in ranges):
        for axis, (_, high) in zip(axes, ranges, strict=True):
            axis.set_xlim(0, high)
        return
    for axis, (low, high) in zip(axes, ranges, strict=True):
        axis.set_xscale("log")
        axis.set_xlim(0.8 * low, 1.1 * high)
        axis.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 1e3 else (1,)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())


LATENCY_CDF = Plot(
    "the distribution of the collective's iteration times, per variant and size",
    f"points with a collective whose iterations were recorded ({RECORDS})",
    _pick,
    _paint,
    by_job=True,
)
