"""What a controller did, on the picture that it decided by: the load of links over time, and every move of a flow on it.

Comes in: telemetry and decision logs of points. Goes out: the drawing, and its table. A move is drawn where the old path
and the new one part: on the link that the flow left there, and on the one that it took instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from fabric.decisions import read_decisions
from fabric.events import Happened, read_happened
from fabric.graph import Fabric
from fabric.plots.frame import WIDTH, Plot, Table, arms_of, grouped, wrapped
from fabric.plots.utilisation import TOPOLOGY, Heat, heading, heat_of, tier_axis, with_telemetry
from fabric.results import Row

__all__ = ["DECISIONS"]

USED = 0.05  # of the rate: a link that never reached it in a column carried acknowledgements at most
LEFT, TAKEN = "#D00000", "white"
FAN = 0.009  # of the time axis: how far apart moves stand that would hide each other
BESIDE_S = 0.05  # moves closer than this are of one tick
MARKS = {"down": "v", "up": "^", "rate": "d", "degraded": "D"}


@dataclass(frozen=True, slots=True)
class _Move:
    """A reroute, in seconds from the first sample: the interfaces where the paths part, None of a path not known."""

    at_s: float
    flow: str
    left: str | None
    taken: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Change:
    """Something that befell a link (`seen_by` is event or controller), in seconds from the first sample."""

    at_s: float
    interface: str
    what: str
    seen_by: str


def _with_log(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows of one point a variant: of its first repeat whose controller keeps a decision log."""
    logged = [row for row in rows if (folder / "points" / row.point / "controller" / "decisions.jsonl").is_file()]
    return with_telemetry(folder, logged)


def _decisions(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """A heat map a point, its links between switches by tier, with the moves and the events on it."""
    points, arms = grouped(rows, lambda row: row.point), arms_of(rows)
    seen = {point: _seen(folder / "points" / point) for point in points}
    heights = [1.2 + max(1.6, 0.115 * len(heat.ports)) for heat, *_ in seen.values()]
    figure.set_size_inches(WIDTH, 1.5 + sum(heights))
    axes = figure.subplots(len(points), 1, squeeze=False, height_ratios=heights).ravel()
    lines: list[tuple[Any, ...]] = []
    for axis, (point, mine) in zip(axes, points.items(), strict=True):
        heat, moves, changes = seen[point]
        axis.set_title(wrapped(f"{heading(arms[mine[0].variant], mine)} · {len(moves)} moves", 100), loc="left")
        colours = _background(axis, heat)
        _draw_moves(axis, heat, moves)
        _draw_changes(axis, heat, changes)
        lines += _lines(mine[0], moves, changes)
    figure.colorbar(colours, ax=axes, extend="max", label="share of the configured rate", aspect=40, pad=0.02)
    _explain_marks(figure, [change.what for _, _, changes in seen.values() for change in changes])
    reading = (
        "each row is one direction of a link between switches · a move is drawn where its two paths part; those that would "
        "hide each other stand side by side · time from the first sample"
    )
    return Table(("variant", "point", "at_s", "what", "flow", "left", "taken", "reason"), tuple(lines)), reading


def _seen(point: Path) -> tuple[Heat, list[_Move], list[_Change]]:
    """The links between switches that were used, or that something befell; the moves; what befell links."""
    fabric = Fabric.from_json(json.loads((point / TOPOLOGY).read_text()))
    whole = heat_of(point)
    log, happened = read_decisions(point / "controller"), read_happened(point / "events.jsonl")
    begin, end = whole.first_t, whole.first_t + float(whole.edges[-1])
    between = {port.interface for port, far in fabric.peer.items() if {port.node, far.node} <= fabric.switch_by_name.keys()}
    moves = [_move(line, begin) for line in log if line["event"] == "reroute" and begin <= line["t"] <= end]
    changes = [one for one in _changes(log, happened, begin) if one.interface in between and 0 <= one.at_s <= end - begin]
    marked = {one.interface for one in changes} | {name for move in moves for name in (move.left, move.taken)}
    peaks = whole.shares.max(axis=0)
    keep = [
        n for n, port in enumerate(whole.ports) if port.interface in between and (peaks[n] >= USED or port.interface in marked)
    ]
    return whole.only(keep), moves, changes


def _move(line: Mapping[str, Any], begin: float) -> _Move:
    old, new = line["old"] or [], line["new"]
    place = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(1, len(new) - 1))
    left = old[place] if place < len(old) else None
    return _Move(line["t"] - begin, line["flow"], left, new[place], line["reason"])


def _changes(log: Sequence[Mapping[str, Any]], happened: Sequence[Happened], begin: float) -> Iterator[_Change]:
    for one in happened:
        yield from (_Change(one.begin - begin, name, one.event.do, "event") for name in one.mbps)
    for line in log:
        if line["event"] == "link":
            yield _Change(line["t"] - begin, line["port"], "up" if line["up"] else "down", "controller")
        elif line["event"] == "degraded":
            yield _Change(line["t"] - begin, line["port"], "degraded", "controller")


def _background(axis: Any, heat: Heat) -> Any:
    down = np.arange(len(heat.ports) + 1)
    colours = axis.pcolormesh(heat.edges, down, heat.shares.T, vmin=0, vmax=1, cmap="viridis", rasterized=True)
    tier_axis(axis, heat, "links")
    names = [f"{port.node} > {peer}" for port, peer in zip(heat.ports, heat.peers, strict=True)]
    beside = axis.secondary_yaxis("right")
    beside.set_yticks(down[:-1] + 0.5, names, fontsize=6)
    beside.tick_params(length=0, pad=2)
    axis.set_xlabel("time, s")
    return colours


def _draw_moves(axis: Any, heat: Heat, moves: Sequence[_Move]) -> None:
    """A ring on the link left, a dot on the link taken, a line between; only moves that would hide each other stand apart."""
    row = {port.interface: n + 0.5 for n, port in enumerate(heat.ports)}
    step = FAN * float(heat.edges[-1])
    for move, slot in _slots(moves, row):
        x = move.at_s + slot * step
        ends = [row[name] for name in (move.left, move.taken) if name is not None]
        for colour, width in (("white", 2.4), ("black", 0.9)):
            axis.plot([x] * len(ends), ends, color=colour, lw=width, zorder=3)
        if move.left is not None:
            axis.plot(x, row[move.left], marker="o", ms=5, mfc=LEFT, mec="white", mew=0.8, zorder=4)
        axis.plot(x, row[move.taken], marker="o", ms=5, mfc=TAKEN, mec="black", mew=0.9, zorder=4)


def _slots(moves: Sequence[_Move], row: Mapping[str, float]) -> Iterator[tuple[_Move, int]]:
    """For each move how many places to the right it stands: 0 but where one of the same tick covers the same rows."""
    taken: list[tuple[float, int, float, float]] = []  # when, slot, first and last row
    for move in sorted(moves, key=lambda one: one.at_s):
        rows = [row[name] for name in (move.left, move.taken) if name is not None]
        beside = [one for one in taken if move.at_s - one[0] < BESIDE_S and one[2] <= max(rows) and min(rows) <= one[3]]
        slot = next(n for n in range(len(beside) + 1) if n not in {one[1] for one in beside})
        taken.append((move.at_s, slot, min(rows), max(rows)))
        yield move, slot


def _draw_changes(axis: Any, heat: Heat, changes: Sequence[_Change]) -> None:
    row = {port.interface: n + 0.5 for n, port in enumerate(heat.ports)}
    for one in changes:
        colour, size = ("red", 8) if one.seen_by == "event" else ("magenta", 4)
        axis.plot(one.at_s, row[one.interface], marker=MARKS[one.what], ms=size, mfc=colour, mec="white", mew=0.6, zorder=5)


def _explain_marks(figure: Any, befell: Sequence[str]) -> None:
    entries = [
        Line2D([], [], marker="o", ms=5, mfc=LEFT, mec="white", ls="", label="link that a flow left"),
        Line2D([], [], marker="o", ms=5, mfc=TAKEN, mec="black", ls="", label="link that it took"),
    ]
    words = {"down": "link down", "up": "link up", "rate": "link's rate changed", "degraded": "link found slow"}
    entries += [Line2D([], [], marker=MARKS[what], ms=5, color="red", ls="", label=words[what]) for what in MARKS if what in befell]
    if befell:
        entries.append(Line2D([], [], marker="s", ms=4, color="magenta", ls="", label="the same, as the controller saw it"))
    figure.legend(handles=entries, loc="outside upper left", ncols=min(len(entries), 4), alignment="left")


def _lines(row: Row, moves: Sequence[_Move], changes: Sequence[_Change]) -> Iterator[tuple[Any, ...]]:
    for move in moves:
        yield (row.variant, row.point, round(move.at_s, 4), "move", move.flow, move.left or "", move.taken, move.reason)
    for one in changes:
        yield (row.variant, row.point, round(one.at_s, 4), one.what, "", one.interface, "", f"{one.seen_by} {one.what}")


DECISIONS = Plot(
    "how full links between switches were over time, and where and when the controller moved flows",
    "points with telemetry and a decision log (controller/decisions.jsonl)",
    _with_log,
    _decisions,
)
