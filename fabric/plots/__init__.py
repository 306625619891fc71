"""Figures of a run folder, each beside the numbers behind it and above a line that says how far to trust it.

Comes in: a run folder's rows (`fabric.results`) and its points' telemetry. Goes out: PNG, SVG and CSV in its `figures`.
The same folder gives the same bytes. A figure is a room of its own here; a further one is one more entry of FIGURES.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fabric.errors import RequestError
from fabric.graph import Fabric
from fabric.plots.bandwidth import BANDWIDTH
from fabric.plots.completions import COMPLETIONS
from fabric.plots.decisions import DECISIONS
from fabric.plots.frame import WIDTH, Plot, Table, some, wrapped
from fabric.plots.gantt import GANTT
from fabric.plots.inband import INBAND
from fabric.plots.latency import LATENCY
from fabric.plots.latency_cdf import LATENCY_CDF
from fabric.plots.latency_goodput import LATENCY_GOODPUT
from fabric.plots.load_share import LOAD_SHARE
from fabric.plots.queueing import QUEUEING
from fabric.plots.queues import QUEUES
from fabric.plots.rails import RAILS
from fabric.plots.rates import RATES
from fabric.plots.slowdown import SLOWDOWN
from fabric.plots.timeline import TIMELINE
from fabric.plots.topology import TOPOLOGY, draw_fabric
from fabric.plots.utilisation import UTILISATION
from fabric.results import Row, read_rows

__all__ = ["FIGURES", "Plot", "Table", "draw", "draw_topology"]

FIGURES: dict[str, Plot] = {
    "latency": LATENCY, "bandwidth": BANDWIDTH, "load-share": LOAD_SHARE, "utilisation": UTILISATION, "decisions": DECISIONS,
    "queues": QUEUES, "rates": RATES, "latency-cdf": LATENCY_CDF, "latency-goodput": LATENCY_GOODPUT,
    "queueing": QUEUEING, "inband": INBAND, "gantt": GANTT, "timeline": TIMELINE, "rails": RAILS, "topology": TOPOLOGY, "completions": COMPLETIONS, "slowdown": SLOWDOWN,
}  # fmt: skip
DPI = 150
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 9, "figure.titlesize": 11, "legend.fontsize": 9, "legend.frameon": False,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "0.88", "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "lines.linewidth": 1.6, "lines.markersize": 6, "svg.hashsalt": "fabriclab",
}  # fmt: skip
VERDICTS = ("PASS", "WARN", "FAIL")
DATAPATHS = {"netdev": "userspace datapath (netdev)", "system": "kernel datapath (system)"}


def draw(folder: Path, figure: str | None = None, *, point: str | None = None) -> list[Path]:
    """Draw one figure of a run folder, or all that apply, and return the files: PNG, SVG and CSV of each.

    `point` keeps the rows of one point. RequestError when a figure, a point or the rows for it are not there.
    """
    rows = _rows(folder, point)
    if figure is not None and figure not in FIGURES:
        raise RequestError(f"figure {figure!r}: no such figure; accepted: {', '.join(FIGURES)}")
    apply = {name: found for name, plot in FIGURES.items() if (found := plot.pick(folder, _for(plot, rows)))}
    offers = f"this folder offers {', '.join(apply) or 'no figure'}"
    if figure is not None and figure not in apply:
        raise RequestError(f"{folder}: no {FIGURES[figure].needs}: figure {figure} needs some; {offers}")
    if not apply:
        raise RequestError(f"{folder}: nothing to draw in {len(rows)} rows; accepted: a folder with results")
    return [path for name in apply if figure in (None, name) for path in _write(folder, name, apply[name])]


def draw_topology(fabric: Fabric, title: str, path: Path) -> Path:
    """Draw a fabric that need not be up, as PNG or whatever the path's ending says; RequestError when it cannot be written."""
    with matplotlib.style.context(["default", STYLE], after_reset=True):
        figure = Figure(figsize=(WIDTH, 4.8), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        draw_fabric(figure.subplots(), fabric)
        figure.suptitle(wrapped(title, 80), x=0.01, ha="left", weight="bold")
        try:
            figure.savefig(path, dpi=DPI)
        except (OSError, ValueError) as err:
            reason = getattr(err, "strerror", None) or str(err)
            raise RequestError(f"{path}: cannot be written: {reason}; name another one, e.g. topology.png") from None
    return path


def _for(plot: Plot, rows: Sequence[Row]) -> list[Row]:
    """The rows as a figure takes them: each job as an arm, or of several jobs of a point the first."""
    if plot.by_job:
        return [replace(row, variant=row.arm) for row in rows]
    first = {row.point: row.job for row in reversed(rows)}
    return [row for row in rows if row.job == first[row.point]]


def _rows(folder: Path, point: str | None) -> list[Row]:
    rows = read_rows(folder)
    if point is None:
        return rows
    found = [row for row in rows if row.point == point]
    if not found:
        known = ", ".join(sorted({row.point for row in rows})[:8])
        raise RequestError(f"{folder}: no rows of point {point!r}; accepted: {known}")
    return found


def _write(folder: Path, name: str, rows: Sequence[Row]) -> list[Path]:
    # The user's own matplotlib settings must not change a result's looks, nor ours theirs.
    with matplotlib.style.context(["default", STYLE], after_reset=True):
        figure = Figure(figsize=(WIDTH, 4.8), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        table, reading = FIGURES[name].paint(figure, folder, rows)
        _head(figure, wrapped(_question(folder), 80))
        foot = f"{wrapped(reading, 130)}\n{wrapped(_trust(rows), 130)}"
        figure.supxlabel(foot, x=0.01, ha="left", size=8, color="0.25")
        return _save(folder / "figures", name, figure, table)


def _head(figure: Any, question: str) -> None:
    """The question above all; where there is a legend they are one, since the layout makes room for the higher only."""
    if figure.legends:
        figure.legends[0].set_title(question, {"weight": "bold", "size": 11})
    else:
        figure.suptitle(question, x=0.01, ha="left", weight="bold")


def _save(figures: Path, name: str, figure: Any, table: Table) -> list[Path]:
    png, svg, data = (figures / f"{name}.{kind}" for kind in ("png", "svg", "csv"))
    try:
        figures.mkdir(exist_ok=True)
        # Once for both, since finding all its place takes most of the time; with an engine, saving would draw all twice as well.
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(None)
        figure.savefig(png, dpi=DPI, metadata={"Software": None})
        figure.savefig(svg, dpi=DPI, metadata={"Date": None, "Creator": None})
        with open(data, "w", newline="") as file:
            csv.writer(file).writerows([table.columns, *table.lines])
    except OSError as err:
        text = f"{figures}: cannot be written: {err.strerror}; use sudo, or copy the run folder"
        raise RequestError(text) from err
    return [png, svg, data]


def _question(folder: Path) -> str:
    try:
        question: str = json.loads((folder / "run.json").read_text())["question"]
    except (OSError, ValueError, KeyError):
        return folder.resolve().name
    return question


def _trust(rows: Sequence[Row]) -> str:
    """The line beneath every figure: the verdicts of its rows, refused ones too, and what they were measured on."""
    shown = [row for row in rows if not row.refused]
    verdicts = Counter(row.fidelity or "not judged" for row in shown)
    counts = [f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS]
    counts += [f"{verdicts['not judged']} not judged"] if verdicts["not judged"] else []
    counts += [f"{len(rows) - len(shown)} refused"]
    engines = {DATAPATHS.get(row.datapath, row.datapath) if row.engine == "emulation" else row.engine for row in rows}
    rates = some(f"{mbps:g}" for mbps in sorted({row.mbps for row in rows}))
    links = f"{rates} Mb/s links, MTU {some(map(str, sorted({row.mtu for row in rows})))}"
    seeds = len({row.seed for row in rows})
    return f"fidelity: {', '.join(counts)} · {some(sorted(engines))} · {links} · {seeds} seed{'s' * (seeds != 1)}"
