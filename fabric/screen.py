"""What a person sees while a run goes on and when it is over: progress with time left, and a table like nccl-tests'.

Everything goes to standard error but what the caller prints itself, so that `--json` leaves standard output clean.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fabric.experiment import Experiment, Point
from fabric.results import Row

__all__ = ["Screen", "size_label", "table"]

_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red", None: "red"}


def size_label(nbytes: int) -> str:
    """A size as people write it: 64 KiB, 1 MiB, 100 B."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= unit and nbytes % unit == 0:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} B"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def table(rows: Sequence[Row], title: str = "") -> Table:
    """Rows as a table; columns that no row fills are left out."""
    collective = any(row.collective for row in rows)
    load = any(row.load for row in rows)
    shown = Table(title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("variant", overflow="fold", min_width=12)
    shown.add_column("seed", justify="right", no_wrap=True)
    if collective:
        for name in ("size", "#wrong", "p50\nms", "p95\nms", "ideal\nms", "slow-\ndown", "pre-\ndicted", "algbw\nMb/s", "busbw\nMb/s"):
            shown.add_column(name, justify="right", no_wrap=True)
    if load:
        for name in ("load\nMb/s", "share\nof NB"):
            shown.add_column(name, justify="right")
    if load and not collective:
        shown.add_column("pre-\ndicted", justify="right")
    for name in ("drops", "retr."):
        shown.add_column(name, justify="right")
    shown.add_column("fidelity")
    for row in rows:
        shown.add_row(*_cells(row, collective, load))
    return shown


def _cells(row: Row, collective: bool, load: bool) -> list[str]:
    cells = [row.variant, str(row.seed)]
    if collective:
        cells += [
            size_label(row.nbytes) if row.nbytes else "-", "-" if row.wrong is None else str(row.wrong),
            _number(row.p50_ms, 1), _number(row.p95_ms, 1), _number(row.ideal_ms, 1), _number(row.slowdown),
            _number(row.predicted_ms, 1), _number(row.algbw_mbps), _number(row.busbw_mbps),
        ]  # fmt: skip
    if load:
        cells += [_number(row.load_goodput_mbps, 1), _number(row.load_share_of_nb, 3)]
    if load and not collective:
        cells.append(_number(row.load_share_predicted, 3))
    cells += ["-" if count is None else str(count) for count in (row.drops, row.retransmits)]
    colour = _COLOURS[row.fidelity]
    return [*cells, f"[{colour}]{row.fidelity or 'refused'}[/]"]


class Screen:
    """A Watcher that draws a progress bar and prints each point's rows as they come."""

    def __init__(self, console: Console, experiment: Experiment) -> None:
        self.console = console
        self.total = sum(_steps(point) for point in experiment.points)
        self.points = len(experiment.points)
        self.done: list[Row] = []
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self.task: TaskID = self.progress.add_task("starting", total=self.total)
        self.began = time.monotonic()

    def __enter__(self) -> Screen:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def calibrating(self, what: str) -> None:
        """Say that the machine's own latency is being measured."""
        self.progress.update(self.task, description=f"measuring α ({what})")

    def point_begins(self, point: Point, total: int) -> None:
        """Name the point that comes up."""
        self.progress.update(self.task, description=f"{point.index + 1}/{total} {point.variant}, seed {point.seed}")

    def record(self, record: Mapping[str, Any]) -> None:
        """Move on with each iteration, or a load's end."""
        if record["event"] in ("iteration", "flows"):
            self.progress.advance(self.task)

    def rows(self, rows: list[Row]) -> None:
        """Print a line for each row."""
        self.done += rows
        for row in rows:
            self.console.print(_line(row), highlight=False)

    def closing(self, folder: str) -> None:
        """The whole table, why rows are not PASS, and where everything lies."""
        self.console.print(table(self.done))
        self.console.print(verdicts(self.done), highlight=False)
        for reason, count in _reasons(self.done).most_common(5):
            self.console.print(f"  {count} x {reason}", highlight=False, markup=False)
        self.console.print(f"results: {folder}", highlight=False, soft_wrap=True)


def verdicts(rows: Sequence[Row]) -> str:
    """How many rows passed, in one line."""
    counts = Counter("refused" if row.refused else row.fidelity for row in rows)
    return "fidelity: " + ", ".join(f"{counts[name]} {name}" for name in ("PASS", "WARN", "FAIL", "refused"))


def _reasons(rows: Sequence[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        found.update([row.refused] if row.refused else row.fidelity_reasons)
    return found


def _line(row: Row) -> str:
    what = f"{row.variant}, seed {row.seed}"
    if row.refused:
        return f"{what}: [red]refused[/]: {row.refused}"
    colour = _COLOURS[row.fidelity]
    figures = []
    if row.p50_ms is not None and row.nbytes is not None:
        figures.append(f"{size_label(row.nbytes)} p50 {row.p50_ms:.1f} ms, {row.slowdown:.2f} x ideal")
    if row.load_share_of_nb is not None:
        figures.append(f"load {row.load_share_of_nb:.3f} of non-blocking")
    return f"{what}: {'; '.join(figures)} [{colour}]{row.fidelity}[/]"


def _steps(point: Point) -> int:
    if point.collective is None:
        return 1
    sizes = len(point.collective.nbytes) * (point.collective.iterations + point.collective.warmup)
    return sizes + (1 if point.load else 0)
