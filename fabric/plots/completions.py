"""How much longer flows took than they had to, by their size: medians and tails, a panel an entry of `requests`.

Comes in: rows with sizes that were drawn. Goes out: the drawing, and its table.
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
    lay_out,
    looks_of,
    put_legend,
    time_axis,
)
from fabric.results import P99_NEEDS, Row

__all__ = ["COMPLETIONS"]

_TAILS = {"p50_slowdown": "-", "p95_slowdown": ":"}  # the 99th would leave out every size that few flows have


def _pick(_: Path, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if any(entry.get("slowdowns") for entry in (row.answers or {}).values())]


def _paint(figure: Any, _: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """A line an arm and percentile, through means over repeats; dots are one repeat's medians."""
    arms, looks = arms_of(rows), looks_of(rows)
    shown = [row for row in rows if not row.refused]
    entries = list(dict.fromkeys(name for row in shown for name, found in (row.answers or {}).items() if found.get("slowdowns")))
    lines: list[tuple[Any, ...]] = []
    axes = lay_out(figure, [f"{name}: {rows[0].requests}" if len(entries) == 1 else name for name in entries], 2, 3.6)
    for axis, entry in zip(axes, entries, strict=True):
        ends = sorted({_end(one) for row in shown for one in (row.answers or {})[entry]["slowdowns"]})
        for arm, mine in grouped(shown, lambda row: arms[row.variant]).items():
            lines += _arm(axis, looks[arm], entry, mine, ends)
        axis.axhline(1, color=GREY, ls="--", lw=1.2)
        axis.set_xticks(range(len(ends)), [_called(end) for end in ends], rotation=30, ha="right")
        axis.set_xlabel("answers of up to so many bytes")
        time_axis(axis)
    axes[0].set_ylabel("time over what the bytes take by themselves")
    put_legend(figure, looks.values(), shown, *(Line2D([], [], color=GREY, ls=style, label=name.partition("_")[0]) for name, style in _TAILS.items()), line=True)
    columns = ("entry", "variant", "up_to", "repeat", "seed", "fidelity", "due", "mean", "p50_slowdown", "p95_slowdown", "p99_slowdown")
    reading = f"lines: means over repeats · dots: the median of one repeat · 1 is an empty link · the 99th percentile, of {P99_NEEDS} or more, stands in the table beside the figure"
    return Table(columns, tuple(lines)), reading


def _arm(axis: Any, look: Look, entry: str, rows: Sequence[Row], ends: Sequence[float]) -> Iterator[tuple[Any, ...]]:
    tables = {row.point: {_end(one): one for one in (row.answers or {})[entry]["slowdowns"]} for row in rows}
    for name, style in _TAILS.items():
        means = {place: [table[end][name] for table in tables.values() if end in table] for place, end in enumerate(ends)}
        there = {place: float(np.mean(values)) for place, values in means.items() if values}
        axis.plot(list(there), list(there.values()), color=look.colour, ls=style, zorder=2.5)
    for row in rows:
        own = tables[row.point]
        places = [place for place, end in enumerate(ends) if end in own]
        draw_dots(axis, places, [own[ends[place]]["p50_slowdown"] for place in places], [row] * len(places), look)
        for one in own.values():
            yield (entry, row.variant, one["up_to"], row.repeat, row.seed, row.fidelity, one["due"], one["mean"], one["p50_slowdown"], one["p95_slowdown"], one["p99_slowdown"])


def _end(one: dict[str, Any]) -> float:
    return float("inf") if one["up_to"] is None else float(one["up_to"])


def _called(end: float) -> str:
    if end == float("inf"):
        return "more"
    return f"{end / 1e6:g} MB" if end >= 1e6 else f"{end / 1e3:g} kB"


COMPLETIONS = Plot("how much longer flows took than they had to, by size, per variant", "rows of requests with sizes that are drawn", _pick, _paint)
