"""Figures of a run folder, each beside the numbers behind it and above a line that says how far to trust it.

Comes in: a run folder's rows (`fabric.results`) and its points' telemetry. Goes out: PNG, SVG and CSV in its `figures`.
The same folder gives the same bytes. A further figure is one more entry of FIGURES.
"""

from __future__ import annotations

import csv
import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from fabric.errors import RequestError
from fabric.graph import Fabric, Port
from fabric.results import Row, read_rows
from fabric.telemetry import Queues, read_queues, utilisation

__all__ = ["FIGURES", "Plot", "Table", "draw"]

DPI = 150
WIDTH = 8.0  # inches: 1200 pixels, whose smallest letters are still read when shown at 900
# Okabe and Ito, "Color Universal Design", 2008
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "X")
GREY = "0.45"
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 9, "figure.titlesize": 11, "legend.fontsize": 9, "legend.frameon": False,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "0.88", "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "lines.linewidth": 1.6, "lines.markersize": 6, "svg.hashsalt": "fabriclab",
}  # fmt: skip
ARM_KEYS = (  # what a row says of its arm, but for its load
    "engine", "topology", "controller", "policy", "collective", "algorithm", "ranks", "placement",
    "tcp", "ecn", "mtu", "mbps",
)  # fmt: skip
VERDICTS = ("PASS", "WARN", "FAIL")
DATAPATHS = {"netdev": "userspace datapath (netdev)", "system": "kernel datapath (system)"}
RESAMPLES = 10_000
COLUMNS_OF_HEAT = 240  # finer than a screen shows, and a CSV that still opens
QUEUES, NETWORK, TOPOLOGY = "telemetry/queues.jsonl", "network.json", "controller/topology.json"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Table:
    """What a figure shows, for its CSV."""

    columns: tuple[str, ...]
    lines: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A kind of figure: `pick` chooses the rows it is about, and `paint` draws them and says how to read it.

    `needs` names the rows in words, for whoever has none of them.
    """

    description: str
    needs: str
    pick: Callable[[Path, Sequence[Row]], list[Row]]
    paint: Callable[[Any, Path, Sequence[Row]], tuple[Table, str]]


def draw(folder: Path, figure: str | None = None, *, point: str | None = None) -> list[Path]:
    """Draw one figure of a run folder, or all that apply, and return the files: PNG, SVG and CSV of each.

    `point` keeps the rows of one point. RequestError when a figure, a point or the rows for it are not there.
    """
    rows = _rows(folder, point)
    if figure is not None and figure not in FIGURES:
        raise RequestError(f"figure {figure!r}: no such figure; accepted: {', '.join(FIGURES)}")
    apply = {name: found for name, plot in FIGURES.items() if (found := plot.pick(folder, rows))}
    offers = f"this folder offers {', '.join(apply) or 'no figure'}"
    if figure is not None and figure not in apply:
        raise RequestError(f"{folder}: no {FIGURES[figure].needs}: figure {figure} needs some; {offers}")
    if not apply:
        raise RequestError(f"{folder}: nothing to draw in {len(rows)} rows; accepted: a folder with results")
    return [path for name in apply if figure in (None, name) for path in _write(folder, name, apply[name])]


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
        figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        table, reading = FIGURES[name].paint(figure, folder, rows)
        _head(figure, _wrapped(_question(folder), 88))
        foot = f"{_wrapped(reading, 130)}\n{_wrapped(_trust(rows), 130)}"
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
        figure.savefig(png, dpi=DPI, metadata={"Software": None})
        figure.set_layout_engine("none")  # all is in its place now; finding it takes most of the time
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
    rates = _some(f"{mbps:g}" for mbps in sorted({row.mbps for row in rows}))
    links = f"{rates} Mb/s links, MTU {_some(map(str, sorted({row.mtu for row in rows})))}"
    seeds = len({row.seed for row in rows})
    return f"fidelity: {', '.join(counts)} · {_some(sorted(engines))} · {links} · {seeds} seed{'s' * (seeds != 1)}"


def _some(words: Iterable[str]) -> str:
    every = list(words)
    return " / ".join(every if len(every) <= 4 else [*every[:3], "..."])


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))


# -- what figures of rows share


@dataclass(frozen=True, slots=True)
class _Look:
    """How an arm is drawn; `size` is of its dots, in points."""

    name: str
    colour: str
    marker: str
    size: float


def _arms(rows: Sequence[Row]) -> dict[str, str]:
    """The arm of every variant: where a variant is an arm under one of several loads, the arm's name is without it."""
    loads = {row.variant: row.load for row in rows}
    keys = {row.variant: tuple(getattr(row, key) for key in ARM_KEYS) for row in rows}
    told_apart = len({(loads[variant], keys[variant]) for variant in keys}) == len(keys)
    if not told_apart or len(set(keys.values())) == len(keys):
        return {variant: variant for variant in keys}
    differ = [n for n in range(len(ARM_KEYS)) if len({key[n] for key in keys.values()}) > 1]
    words = {variant: [str(key[n]) for n in differ if key[n] is not None] for variant, key in keys.items()}
    return {variant: ", ".join(found) or rows[0].controller for variant, found in words.items()}


def _looks(rows: Sequence[Row]) -> dict[str, _Look]:
    """The look of every arm, in the order of the rows."""
    names = list(dict.fromkeys(_arms(rows).values()))
    size = 4.5 if len(names) < 4 else 3.5
    styles = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    return {name: _Look(name, *style, size) for name, style in zip(names, styles, strict=False)}


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _load(row: Row) -> str:
    return row.load or "no load"


def _panels(figure: Any, titles: Sequence[str], columns: int, height: float, sharey: bool = True) -> list[Any]:
    """One panel a title, `columns` beside each other at most, with the same axes; unused places stay empty."""
    across = min(columns, len(titles))
    down = -(-len(titles) // across)
    figure.set_size_inches(WIDTH, 1.6 + height * down)
    axes = figure.subplots(down, across, sharex=True, sharey=sharey, squeeze=False).ravel()
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(_wrapped(title, 100 // across), loc="left")
        axis.tick_params(labelbottom=True)
    for axis in axes[len(titles) :]:
        axis.remove()
    return list(axes[: len(titles)])


def _face(row: Row, colour: str) -> str:
    return colour if row.fidelity == "PASS" else "white"


def _dots(axis: Any, x: Sequence[float], y: Sequence[float], rows: Sequence[Row], look: _Look) -> None:
    """A dot a row: full for PASS, a cross for FAIL, hollow for all else."""
    for at, value, row in zip(x, y, rows, strict=True):
        style = {"marker": "x"} if row.fidelity == "FAIL" else {"marker": look.marker, "mfc": _face(row, look.colour)}
        axis.plot(at, value, ls="", color=look.colour, ms=look.size, mew=1.1, zorder=3, **style)


def _legend(figure: Any, looks: Iterable[_Look], rows: Sequence[Row], *more: Line2D, line: bool) -> None:
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
    columns = len(entries) if sum(widths) <= 120 else max(1, 120 // max(widths))
    figure.legend(handles=entries, loc="outside upper left", ncols=columns, alignment="left")


# -- latency


def _with_collective(_: Path, rows: Sequence[Row]) -> list[Row]:
    return _with_any([row for row in rows if row.collective is not None], "p50_ms")


def _with_any(rows: list[Row], key: str) -> list[Row]:
    """The rows, where at least one has the figure: all refused would leave nothing to see."""
    return rows if _shown(rows, key) else []


def _shown(rows: Iterable[Row], key: str) -> list[Row]:
    return [row for row in rows if getattr(row, key) is not None and not row.refused]


def _latency(figure: Any, _: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """Time against size, a panel a load; the line goes through the medians over repeats, of all rows not refused."""
    arms, looks, shown = _arms(rows), _looks(rows), _shown(rows, "p50_ms")
    panels = _grouped(rows, _load)
    lines: list[tuple[Any, ...]] = []
    for axis, title in zip(_panels(figure, list(panels), 3, 3.4), panels, strict=True):
        here = [row for row in shown if _load(row) == title]
        for arm, mine in _grouped(here, lambda row: arms[row.variant]).items():
            lines += _latency_arm(axis, looks[arm], mine)
        _ideal(axis, _grouped(here, lambda row: arms[row.variant]), looks)
        _size_axis(axis, sorted({int(row.nbytes or 0) for row in rows}))
        axis.set_xlabel("size")
    figure.axes[0].set_ylabel(f"{_some(sorted({str(row.collective) for row in rows}))}, p50, ms")
    _time_axis(figure.axes[0])
    ideal = Line2D([], [], color=GREY, ls="--", lw=1.2, label="ideal")
    _legend(figure, looks.values(), shown, ideal, line=True)
    columns = ("load", "variant", "nbytes", "repeat", "seed", "fidelity", "p50_ms", "ideal_ms",
               "median_ms", "mean_ms", "min_ms", "max_ms")  # fmt: skip
    reading = "dots: one repeat each · line: their median · bar: their minimum to maximum · refused rows are left out"
    return Table(columns, tuple(lines)), reading


def _latency_arm(axis: Any, look: _Look, rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """One arm's line, bars and dots; yields a line of the table for every row."""
    medians = {}
    for nbytes, mine in sorted(_grouped(rows, lambda row: row.nbytes).items()):
        times = np.array([row.p50_ms for row in mine], np.float64)
        low, mean, high = float(times.min()), float(times.mean()), float(times.max())
        medians[nbytes] = float(np.median(times))
        axis.plot([nbytes, nbytes], [low, high], color=look.colour, lw=5, alpha=0.3, solid_capstyle="butt")
        _dots(axis, [nbytes] * len(mine), times.tolist(), mine, look)
        for row in mine:
            told = (_load(row), row.variant, nbytes, row.repeat, row.seed, row.fidelity, row.p50_ms, row.ideal_ms)
            yield (*told, medians[nbytes], mean, low, high)
    axis.plot(list(medians), list(medians.values()), color=look.colour, zorder=2.5)


def _ideal(axis: Any, rows_of: Mapping[str, Sequence[Row]], looks: Mapping[str, _Look]) -> None:
    """The ideal, once in grey where all arms have the same, else in each arm's colour."""
    curves: dict[str, dict[int, float]] = {}
    for arm, rows in rows_of.items():
        sizes = _grouped((row for row in rows if row.ideal_ms is not None), lambda row: row.nbytes)
        curves[arm] = {size: float(np.median([row.ideal_ms for row in mine])) for size, mine in sorted(sizes.items())}
    longest = max(curves.values(), key=len, default={})
    every = [item for curve in curves.values() for item in curve.items()]
    # alpha is measured anew for every point, so the ideals of equal arms differ a little.
    same = all(size in longest and abs(ideal / longest[size] - 1) < 0.05 for size, ideal in every)
    for arm, curve in {"": longest}.items() if same else curves.items():
        colour = GREY if same else looks[arm].colour
        alone = {"marker": "_", "ms": 16} if len(curve) == 1 else {}
        axis.plot(list(curve), list(curve.values()), color=colour, ls="--", lw=1.2, zorder=2, **alone)


def _size_axis(axis: Any, sizes: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(sizes[:: -(-len(sizes) // 6)]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _bytes(value)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(sizes[0] / 2, sizes[-1] * 2)


def _bytes(value: float) -> str:
    """A size in the largest unit that is at most itself: 64 KiB, 1.5 MiB."""
    power = min(3, max(0, int(np.log2(max(1.0, value))) // 10))
    return f"{value / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _time_axis(axis: Any) -> None:
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 1e3 else (1,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


# -- load share


def _without_collective(_: Path, rows: Sequence[Row]) -> list[Row]:
    return _with_any([row for row in rows if row.collective is None], "load_share_of_nb")


def _load_share(figure: Any, _: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """The load's share of non-blocking, a panel a load and a line an arm, beside what the model predicts."""
    arms, looks, shown = _arms(rows), _looks(rows), _shown(rows, "load_share_of_nb")
    panels = _grouped(rows, _load)
    lines: list[tuple[Any, ...]] = []
    for axis, title in zip(_panels(figure, list(panels), 2, 0.9 + 0.5 * len(looks)), panels, strict=True):
        axis.axvline(1, color=GREY, lw=0.8, ls=":")
        for place, arm in enumerate(looks):
            mine = [row for row in shown if _load(row) == title and arms[row.variant] == arm]
            lines += _share_arm(axis, place, looks[arm], mine) if mine else ()
        axis.grid(axis="y", visible=False)
        axis.grid(axis="x")
        axis.set_xlabel("throughput of the load, share of non-blocking")
    highest = max(row.load_share_of_nb or 0 for row in shown)
    axis.set_xlim(0, max(1.05, 1.05 * highest))
    axis.set_ylim(len(looks) - 0.4, -0.6)
    axis.set_yticks(range(len(looks)), [_wrapped(arm, 30) for arm in looks])
    mean = Line2D([], [], color="black", marker="|", ms=9, mew=2, lw=1.2, label="mean, 95 % bootstrap")
    predicted = Line2D([], [], color="0.6", marker="|", ms=12, mew=2.5, ls="", label="predicted from paths")
    _legend(figure, looks.values(), shown, mean, predicted, line=False)
    columns = ("load", "variant", "repeat", "seed", "fidelity", "load_share_of_nb", "load_share_predicted",
               "mean", "low_95", "high_95", "mean_predicted")  # fmt: skip
    reading = "dots: one repeat each · below: means of all dots · dotted: non-blocking · refused rows are left out"
    return Table(columns, tuple(lines)), reading


def _share_arm(axis: Any, place: float, look: _Look, rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """One arm's dots, mean and prediction; yields a line of the table for every row."""
    shares = np.array([row.load_share_of_nb for row in rows], np.float64)
    told = [row.load_share_predicted for row in rows if row.load_share_predicted is not None]
    mean, predicted, (low, high) = float(shares.mean()), float(np.mean(told)) if told else None, _interval(shares)
    rise = np.linspace(-0.36, 0.08, len(rows)) if len(rows) > 1 else np.array([-0.14])
    _dots(axis, shares.tolist(), (place + rise).tolist(), rows, look)
    for up, row, share in zip(rise.tolist(), rows, shares.tolist(), strict=True):
        foretold = row.load_share_predicted
        _tick(axis, foretold, place + up, 5)
        yield (_load(row), row.variant, row.repeat, row.seed, row.fidelity, share, foretold, mean, low, high, predicted)
    below = place + 0.3
    _tick(axis, predicted, below, 12)
    if low is not None:
        axis.plot([low, high], [below, below], color="black", lw=1.2, zorder=3)
    axis.plot(mean, below, color="black", marker="|", ms=9, mew=2, zorder=3)


def _tick(axis: Any, predicted: float | None, y: float, size: float) -> None:
    if predicted is not None:
        axis.plot(predicted, y, color="0.6", marker="|", ms=size, mew=2.5, zorder=2)


def _interval(values: Floats) -> tuple[float | None, float | None]:
    """The 95 % percentile bootstrap interval of the mean (Efron 1979), with resamples that are always the same."""
    if len(values) < 2:
        return None, None
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


# -- utilisation


def _with_telemetry(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows of one point a variant: of its first repeat that was recorded, rather one that was not refused."""
    there = {point for point in {row.point for row in rows} if _recorded(folder / "points" / point)}
    recorded = sorted((row for row in rows if row.point in there), key=lambda row: (bool(row.refused), row.repeat))
    points = {mine[0].point for mine in _grouped(recorded, lambda row: row.variant).values()}
    return [row for row in rows if row.point in points]


def _recorded(point: Path) -> bool:
    return all((point / name).is_file() for name in (QUEUES, NETWORK, TOPOLOGY))


def _utilisation(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """Heat maps of every port over time, a panel a point."""
    points = _grouped(rows, lambda row: row.point)
    heats, arms = {point: _heat(folder / "points" / point) for point in points}, _arms(rows)
    lines: list[tuple[Any, ...]] = []
    axes = _panels(figure, [_heading(arms[mine[0].variant], mine) for mine in points.values()], 2, 4.2,
                   sharey=len({heat.tiers for heat in heats.values()}) == 1)  # fmt: skip
    for axis, (point, heat) in zip(axes, heats.items(), strict=True):
        down = np.arange(len(heat.ports) + 1)
        colours = axis.pcolormesh(heat.edges, down, heat.shares.T, vmin=0, vmax=1, cmap="viridis", rasterized=True)
        _port_axis(axis, heat)
        axis.set_xlabel("time, s")
        lines += _heat_lines(points[point][0], heat)
    figure.colorbar(colours, ax=axes, extend="max", label="share of the configured rate", aspect=40, pad=0.02)
    reading = "each row is one port, by the direction it sends in; time from the first sample"
    return Table(("variant", "point", "tier", "port", "to", "from_s", "until_s", "share"), tuple(lines)), reading


def _heading(arm: str, rows: Sequence[Row]) -> str:
    """A point in words, with the worst that was said of its rows."""
    verdicts = ["refused" if row.refused else row.fidelity for row in rows]
    worst = next((verdict for verdict in ("refused", "FAIL", "WARN") if verdict in verdicts), "")
    return " · ".join(filter(None, (arm, _load(rows[0]), f"repeat {rows[0].repeat}", worst)))


@dataclass(frozen=True, slots=True)
class _Heat:
    """Shares [T, N] of N ports between the T + 1 `edges`, in seconds; `tiers` are the ports' groups."""

    ports: tuple[Port, ...]
    peers: tuple[str, ...]
    tiers: tuple[str, ...]
    edges: Floats
    shares: Floats


def _heat(point: Path) -> _Heat:
    fabric = Fabric.from_json(json.loads((point / TOPOLOGY).read_text()))
    shapes = json.loads((point / NETWORK).read_text())["shapes"]
    queues = read_queues(point / QUEUES)
    known = {*queues.interfaces} & {*shapes}
    found = [port for port in fabric.peer if port.interface in known]
    ports = tuple(sorted(found, key=lambda port: _place(fabric, port)))
    if not ports or len(queues.t) < 2:
        got = f"got {len(ports)} ports of the topology and {len(queues.t)} samples"
        raise RequestError(f"{point / QUEUES}: {got}; accepted: one port and two samples or more; run it again")
    thinned = _thinned(queues, [port.interface for port in ports])
    _, shares = utilisation(thinned, {name: shapes[name]["mbps"] for name in thinned.interfaces})
    peers = tuple(fabric.peer[port].node for port in ports)
    return _Heat(ports, peers, tuple(_tier(fabric, port) for port in ports), thinned.t - queues.t[0], shares)


def _thinned(queues: Queues, names: Sequence[str]) -> Queues:
    """The interfaces of these names, at no more samples than the heat map has columns; totals lose nothing by that."""
    step = -(-(len(queues.t) - 1) // COLUMNS_OF_HEAT)
    columns = [queues.interfaces.index(name) for name in names]
    return replace(queues, interfaces=tuple(names), t=queues.t[::step], sent_bytes=queues.sent_bytes[::step, columns])


def _place(fabric: Fabric, port: Port) -> tuple[Any, ...]:
    """Where a port stands: in the order a packet passes the tiers, up first, then as the topology counts."""
    near, far = (fabric.level[node] for node in (port.node, fabric.peer[port].node))
    node = fabric.switch_by_name.get(port.node) or fabric.host_by_name[port.node]
    return (near > far, near == far, near if near <= far else -near, _tier(fabric, port), node.position, port)


def _tier(fabric: Fabric, port: Port) -> str:
    near, far = (fabric.level[node] for node in (port.node, fabric.peer[port].node))
    tier = fabric.graph.nodes[port.node]["tier"]
    return f"{tier} {'up' if near < far else 'down' if near > far else 'across'}"


def _port_axis(axis: Any, heat: _Heat) -> None:
    """Tiers from the top down, named at their middle and parted by lines."""
    axis.grid(False)
    axis.set_ylim(len(heat.ports), 0)
    names = list(dict.fromkeys(heat.tiers))
    sizes = [heat.tiers.count(name) for name in names]
    ends = np.cumsum(sizes)
    for end in ends[:-1]:
        axis.axhline(end, color="white", lw=1.5)
    labels = [f"{name}\n{size} ports" for name, size in zip(names, sizes, strict=True)]
    axis.set_yticks(ends - np.array(sizes) / 2, labels)
    axis.tick_params(axis="y", length=0)


def _heat_lines(row: Row, heat: _Heat) -> Iterator[tuple[Any, ...]]:
    for n, (port, peer, tier) in enumerate(zip(heat.ports, heat.peers, heat.tiers, strict=True)):
        for t, share in enumerate(heat.shares[:, n]):
            span = (round(float(heat.edges[t]), 4), round(float(heat.edges[t + 1]), 4))
            yield (row.variant, row.point, tier, port.interface, peer, *span, round(float(share), 5))


FIGURES: dict[str, Plot] = {
    "latency": Plot(
        "time of the collective against its size, per variant, with the ideal",
        "rows with a collective and its time",
        _with_collective,
        _latency,
    ),
    "load-share": Plot(
        "throughput of the load alone as a share of a non-blocking fabric, with the prediction",
        "rows of a load alone and its share",
        _without_collective,
        _load_share,
    ),
    "utilisation": Plot(
        "how full every link was over time, per variant",
        f"points with telemetry ({QUEUES}, {NETWORK}, {TOPOLOGY})",
        _with_telemetry,
        _utilisation,
    ),
}
