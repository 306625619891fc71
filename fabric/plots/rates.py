"""What every background flow got over time, and how even that was: a panel a point, Jain's index beneath.

Comes in: the traffic's records of points with a load. Goes out: the drawing, and its table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fabric.events import Happened
from fabric.goodput import jain
from fabric.plots.frame import COLOURS, GREY, WIDTH, Floats, Plot, Table, arms_of, grouped, wrapped
from fabric.plots.utilisation import heading
from fabric.recorded import Recorded
from fabric.results import Row

__all__ = ["RATES"]

RECORDS = "traffic/records.jsonl"
SHORTEST_S = 0.25  # a window: at a few Mb/s it holds some ten full frames of 9000 bytes
WINDOWS = 100
SHADE, EVENT = "0.92", "#D00000"


@dataclass(frozen=True, slots=True)
class _Rates:
    """Rates [T, N] in Mb/s of N flows between the T + 1 `edges`, in seconds from the load's begin; `jain` [T], NaN where nothing came.

    `measured` are the stretches in which the collective was measured, `events` when something befell the network.
    """

    flows: tuple[tuple[str, str], ...]
    edges: Floats
    mbps: Floats
    jain: Floats
    measured: tuple[tuple[float, float], ...]
    events: tuple[tuple[float, str], ...]


def _pick(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows of one point a variant: of its first repeat whose background flows were recorded, rather one not refused."""
    there = {point for point in {row.point for row in rows if row.load} if _recorded(folder / "points" / point)}
    found = sorted((row for row in rows if row.point in there), key=lambda row: (bool(row.refused), row.repeat))
    points = {mine[0].point for mine in grouped(found, lambda row: row.variant).values()}
    return [row for row in rows if row.point in points]


def _recorded(point: Path) -> bool:
    return (point / RECORDS).is_file() and bool(Recorded(point).event("flows"))


def _paint(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """Two axes a point, one above the other: the rates, and Jain's index of each window."""
    points, arms = grouped(rows, lambda row: row.point), arms_of(rows)
    found = {point: _rates(folder / "points" / point) for point in points}
    across = min(2, len(points))
    down = -(-len(points) // across)
    figure.set_size_inches(WIDTH, 1.8 + 3.0 * down)
    axes = figure.subplots(2 * down, across, sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1] * down)
    colours = _colours(found.values())
    lines: list[tuple[Any, ...]] = []
    for number, (point, rates) in enumerate(found.items()):
        place = 2 * (number // across), number % across
        upper, lower = axes[place], axes[place[0] + 1, place[1]]
        upper.set_title(wrapped(heading(arms[points[point][0].variant], points[point]), 100 // across), loc="left")
        _panel(upper, lower, rates, colours)
        lines += _lines(points[point][0], rates)
    for number in range(len(points), across * down):
        for axis in (axes[2 * (number // across), number % across], axes[2 * (number // across) + 1, number % across]):
            axis.remove()
    top = max(float(rates.mbps.max(initial=0.0)) for rates in found.values())
    for axis in axes[::2, 0]:
        axis.set_ylim(0, 1.05 * top if top > 0 else 1)
        axis.set_ylabel("goodput, Mb/s")
    for axis in axes[1::2, 0]:
        axis.set_ylim(0, 1.08)
        axis.set_yticks([0, 0.5, 1])
        axis.set_ylabel("Jain")
    axes[0, 0].set_xlim(0, max(float(rates.edges[-1]) for rates in found.values()))
    _explain(figure, colours, found.values())
    window = max(float(rates.edges[1]) for rates in found.values())
    reading = f"a line a flow, each by windows of up to {window:.2g} s · beneath: Jain's index of each window · time from the load's begin"
    if top > max(row.mbps for row in rows):
        reading += " · above a link's rate: what had waited behind a lost packet"
    return Table(("variant", "point", "flow", "src", "dst", "from_s", "until_s", "mbps", "jain"), tuple(lines)), reading


def _rates(point: Path) -> _Rates:
    seen = Recorded(point)
    flows = seen.event("flows")[0]["flows"]
    begin = min(flow["t"][0] for flow in flows.values())
    lasts = max(flow["t"][-1] for flow in flows.values()) - begin
    edges = np.linspace(0, lasts, max(1, min(WINDOWS, int(lasts / SHORTEST_S))) + 1)
    totals = np.stack([np.interp(begin + edges, flow["t"], np.array(flow["nbytes"], float)) for flow in flows.values()], axis=1)
    mbps = np.diff(totals, axis=0) * 8e-6 / np.diff(edges)[:, np.newaxis]
    index = np.array([np.nan if (one := jain(row)) is None else one for row in mbps.tolist()])
    events = tuple((one.begin - begin, _words(one)) for one in seen.happened)
    return _Rates(_ends(point, len(flows)), edges, mbps, index, _measured(seen, begin), events)


def _ends(point: Path, size: int) -> tuple[tuple[str, str], ...]:
    """Source and destination of every flow, empty where the point does not say them."""
    if not (point / "point.json").is_file():
        return (("", ""),) * size
    flows = json.loads((point / "point.json").read_text()).get("flows", [])
    return tuple((flow["src"], flow["dst"]) for flow in flows) if len(flows) == size else (("", ""),) * size


def _measured(seen: Recorded, begin: float) -> tuple[tuple[float, float], ...]:
    """From the first release of each size to its last end."""
    sizes: dict[int, list[float]] = {}
    for one in seen.event("iteration"):
        if one["iteration"] >= 0:
            sizes.setdefault(one["nbytes"], []).extend((one["release"], one["release"] + max(one["ends_ms"]) / 1000))
    return tuple((min(times) - begin, max(times) - begin) for times in sizes.values())


def _words(one: Happened) -> str:
    return f"{' '.join(one.event.names) or 'controller'} {one.event.do}"


def _colours(found: Any) -> list[Any]:
    """A colour a flow, the same in every panel: as many as can be told apart, else along a colour map."""
    size = max(len(rates.flows) for rates in found)
    if size <= len(COLOURS):
        return list(COLOURS[:size])
    return list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, size)))


def _panel(upper: Any, lower: Any, rates: _Rates, colours: Sequence[Any]) -> None:
    middles = (rates.edges[1:] + rates.edges[:-1]) / 2
    for axis in (upper, lower):
        for first, last in rates.measured:
            axis.axvspan(first, last, color=SHADE, lw=0, zorder=0)
        for at, _ in rates.events:
            axis.axvline(at, color=EVENT, lw=1, ls=":")
    for number in range(len(rates.flows)):
        upper.plot(middles, rates.mbps[:, number], color=colours[number], lw=1.1)
    lower.plot(middles, rates.jain, color="black", lw=1.2)
    lower.axhline(1, color=GREY, lw=0.8, ls=":")
    lower.set_xlabel("time, s")
    lower.tick_params(labelbottom=True)


def _explain(figure: Any, colours: Sequence[Any], found: Any) -> None:
    """The flows by name where all panels have the same ones and few; else what a line is."""
    ends = {rates.flows for rates in found}
    entries: list[Any] = []
    if len(colours) <= len(COLOURS):
        same = next(iter(ends)) if len(ends) == 1 else ()
        names = [f"{src} > {dst}" for src, dst in same if src] or [f"flow {number}" for number in range(len(colours))]
        entries = [Line2D([], [], color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    if any(rates.measured for rates in found):
        entries.append(Patch(color=SHADE, label="collective measured"))
    if any(rates.events for rates in found):
        entries.append(Line2D([], [], color=EVENT, lw=1, ls=":", label="event"))
    if entries:
        figure.legend(handles=entries, loc="outside upper left", ncols=min(len(entries), 4), alignment="left")


def _lines(row: Row, rates: _Rates) -> Iterator[tuple[Any, ...]]:
    for number, ends in enumerate(rates.flows):
        for n, (first, last) in enumerate(zip(rates.edges[:-1].tolist(), rates.edges[1:].tolist(), strict=True)):
            index = "" if np.isnan(rates.jain[n]) else round(float(rates.jain[n]), 5)
            yield (row.variant, row.point, number, *ends, round(first, 4), round(last, 4), round(float(rates.mbps[n, number]), 5), index)


RATES = Plot(
    "what each background flow got over time, with Jain's index of fairness",
    f"points with a load whose flows were recorded ({RECORDS})",
    _pick,
    _paint,
)
