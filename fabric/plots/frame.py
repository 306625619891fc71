"""What all figures share: what a figure is, its colours and markers, panels, dots and legend.

Comes in: rows. Goes out: how each arm looks, and the parts that figures are put together from.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from fabric.results import Row

__all__ = [
    "GREY",
    "WIDTH",
    "Floats",
    "Look",
    "Plot",
    "Table",
    "arms_of",
    "draw_dots",
    "grouped",
    "interval",
    "lay_out",
    "load_of",
    "looks_of",
    "put_legend",
    "reported",
    "size_axis",
    "size_of",
    "some",
    "time_axis",
    "with_any",
    "wrapped",
]  # fmt: skip

WIDTH = 8.0  # inches: 1200 pixels, whose smallest letters are still read when shown at 900
# Okabe and Ito, "Color Universal Design", 2008
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "X")
GREY = "0.45"
ARM_KEYS = (  # what a row says of its arm, but for its load
    "engine", "topology", "controller", "policy", "collective", "algorithm", "ranks", "placement", "channels",
    "tcp", "ecn", "mtu", "mbps",
)  # fmt: skip

Floats = npt.NDArray[np.float64]
_RESAMPLES = 10_000
_LONG = 60  # letters of a variant's name: as of one whose topology is swept with all its parameters
_LEGEND_LINES, _LINE, _TALLEST = 3, 0.19, 40.0  # that figures have room for; inches of each further one, and of the tallest figure
_LEGEND_LETTERS = 95  # a line of the legend: more would run out of the figure


@dataclass(frozen=True, slots=True)
class Table:
    """What a figure shows, for its CSV."""

    columns: tuple[str, ...]
    lines: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A kind of figure: `pick` chooses the rows it is about, and `paint` draws them and says how to read it.

    `needs` names the rows in words, for whoever has none of them. With `by_job` each job is an arm of its own; else a point
    is shown once, whoever uses it.
    """

    description: str
    needs: str
    pick: Callable[[Path, Sequence[Row]], list[Row]]
    paint: Callable[[Any, Path, Sequence[Row]], tuple[Table, str]]
    by_job: bool = False


def some(words: Iterable[str]) -> str:
    every = list(words)
    return " / ".join(every if len(every) <= 4 else [*every[:3], "..."])


def wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))


@dataclass(frozen=True, slots=True)
class Look:
    """How an arm is drawn; `size` is of its dots, in points."""

    name: str
    colour: str
    marker: str
    size: float


def arms_of(rows: Sequence[Row]) -> dict[str, str]:
    """The arm of every variant: where a variant is an arm under one of several loads, the arm's name is without it; a long name is what arms differ by."""
    loads = {row.variant: row.load for row in rows}
    keys = {row.variant: tuple(getattr(row, key) for key in ARM_KEYS) for row in rows}
    differ = [n for n in range(len(ARM_KEYS)) if len({key[n] for key in keys.values()}) > 1]
    words = {variant: list(dict.fromkeys(str(key[n]) for n in differ if key[n] is not None)) for variant, key in keys.items()}
    if max(map(len, keys), default=0) > _LONG and len({tuple(found) for found in words.values()}) == len(keys) > 1:
        return {variant: ", ".join(found) for variant, found in words.items()}
    told_apart = len({(loads[variant], keys[variant]) for variant in keys}) == len(keys)
    if not told_apart or len(set(keys.values())) == len(keys):
        return {variant: variant for variant in keys}
    return {variant: ", ".join(found) or rows[0].controller for variant, found in words.items()}


def looks_of(rows: Sequence[Row]) -> dict[str, Look]:
    """The look of every arm, in the order of the rows."""
    names = list(dict.fromkeys(arms_of(rows).values()))
    size = 4.5 if len(names) < 4 else 3.5
    styles = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    return {name: Look(name, *style, size) for name, style in zip(names, styles, strict=False)}


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def size_of(nbytes: float) -> str:
    """A size in the largest unit that is at most itself: 64 KiB, 1.5 MiB."""
    power = min(3, max(0, int(np.log2(max(1.0, nbytes))) // 10))
    return f"{nbytes / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def interval(values: Floats) -> tuple[float | None, float | None]:
    """The 95 % percentile bootstrap interval of the mean (Efron 1979), with resamples that are always the same."""
    if len(values) < 2:
        return None, None
    drawn = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def load_of(row: Row) -> str:
    return row.load or "no load"


def time_axis(axis: Any, margin: float = 1.0) -> None:
    """Logarithmic, upwards, with a few labels whatever the range; `margin` times more of it above and below."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(low / margin, high * margin)
    axis.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 1e3 else (1,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def size_axis(axis: Any, sizes: Sequence[int]) -> None:
    """Logarithmic, to the right, with a few of the sizes named."""
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(sizes[:: -(-len(sizes) // 6)]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_of(value)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(sizes[0] / 2, sizes[-1] * 2)


def lay_out(figure: Any, titles: Sequence[str], columns: int, height: float, sharey: bool = True, sharex: bool = True) -> list[Any]:
    """One panel a title, `columns` beside each other at most, by default with the same axes; unused places stay empty."""
    across = min(columns, len(titles))
    down = -(-len(titles) // across)
    figure.set_size_inches(WIDTH, 1.6 + height * down)
    axes = figure.subplots(down, across, sharex=sharex, sharey=sharey, squeeze=False).ravel()
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(wrapped(title, 100 // across), loc="left")
        axis.tick_params(labelbottom=True)
    for axis in axes[len(titles) :]:
        axis.remove()
    return list(axes[: len(titles)])


def _face(row: Row, colour: str) -> str:
    return colour if row.fidelity == "PASS" else "white"


def draw_dots(axis: Any, x: Sequence[float], y: Sequence[float], rows: Sequence[Row], look: Look) -> None:
    """A dot a row: full for PASS, a cross for FAIL, hollow for all else."""
    for at, value, row in zip(x, y, rows, strict=True):
        style = {"marker": "x"} if row.fidelity == "FAIL" else {"marker": look.marker, "mfc": _face(row, look.colour)}
        axis.plot(at, value, ls="", color=look.colour, ms=look.size, mew=1.1, zorder=3, **style)


def put_legend(figure: Any, looks: Iterable[Look], rows: Sequence[Row], *more: Line2D, line: bool) -> None:
    style = "-" if line else ""
    entries = [Line2D([], [], color=look.colour, marker=look.marker, ls=style, label=look.name) for look in looks]
    verdicts = {row.fidelity for row in rows}
    if verdicts - {"PASS", "FAIL"}:
        unsure = " or ".join(str(name or "not judged") for name in ("WARN", None) if name in verdicts)
        entries.append(Line2D([], [], ls="", marker="o", mfc="white", color=GREY, label=unsure))
    if "FAIL" in verdicts:
        entries.append(Line2D([], [], ls="", marker="x", color=GREY, label="FAIL"))
    entries += more
    widths = [8 + len(str(entry.get_label())) for entry in entries]  # in letters, with the sample before it
    columns = len(entries) if sum(widths) <= _LEGEND_LETTERS else max(1, _LEGEND_LETTERS // max(widths))
    more_lines = -(-len(entries) // columns) - _LEGEND_LINES
    if more_lines > 0:  # or it would take the panels' room
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, min(_TALLEST, height + _LINE * more_lines))
    figure.legend(handles=entries, loc="outside upper left", ncols=columns, alignment="left")


def with_any(rows: list[Row], key: str) -> list[Row]:
    """The rows, where at least one has the figure: all refused would leave nothing to see."""
    return rows if reported(rows, key) else []


def reported(rows: Iterable[Row], key: str) -> list[Row]:
    return [row for row in rows if getattr(row, key) is not None and not row.refused]
