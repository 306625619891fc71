"""What a person sees while a run goes on and when it is over: progress with time left, and a table like nccl-tests'.

Everything goes to standard error but what the caller prints itself, so that `--json` leaves standard output clean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fabric.check_controller import Report
from fabric.claims import Claim, Interval, claims
from fabric.compare import Comparison
from fabric.expecting import Outcome
from fabric.experiment import Point
from fabric.explain import Explanation
from fabric.graph import Fabric
from fabric.journeys import Journey, hops
from fabric.results import Row
from fabric.telling import told

if TYPE_CHECKING:
    from fabric.tracing import Traced  # and scapy, which takes its time to load

__all__ = ["Screen", "claim_table", "comparisons", "explanation", "hop_heading", "hop_table", "judgement", "outcomes", "report", "size_label", "table", "traced", "verdict_table", "verdicts"]

_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red", None: "red"}


def size_label(nbytes: int) -> str:
    """A size as people write it: 64 KiB, 1 MiB, 100 B."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= unit and nbytes % unit == 0:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} B"


def hop_heading(point: str, journey: Journey) -> str:
    """The pair of hosts, and how many of its in-band probes arrived."""
    elsewhere = f", {journey.elsewhere} of them by another way" if journey.elsewhere else ""
    return f"{point}, {journey.src} → {journey.dst}: {journey.came} of {journey.probes} probes arrived{elsewhere}"


def hop_table(journey: Journey) -> Table:
    """What the in-band probes of one pair of hosts saw, a line a hop."""
    shown = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("hop", "port", "queue\np50", "\np95", "\nmax", "utili-\nsation", "onward\np50 ms", "\np95 ms"):
        shown.add_column(name, justify="left" if name == "port" else "right", no_wrap=True)
    for hop in hops(journey):
        shown.add_row(
            str(hop.hop), escape(hop.port), _number(hop.queue_p50_packets, 0), _number(hop.queue_p95_packets, 0), str(hop.queue_max_packets),
            _number(hop.utilisation), _number(hop.onward_p50_ms), _number(hop.onward_p95_ms),
        )  # fmt: skip
    return shown


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_NARROW = 100  # columns; below, the figures that can be derived from others are left to rows.csv


def table(rows: Sequence[Row], width: int = _NARROW) -> Table:
    """Rows as a table that fits `width` columns; columns that no row fills are left out."""
    shown = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = _columns(rows, width)
    for name in columns:
        left, least = name in ("variant", "fidelity"), 12 if name == "variant" else None
        shown.add_column(name, justify="left" if left else "right", no_wrap=name != "variant", min_width=least)
    for row in rows:
        cells = _cells(row)
        shown.add_row(*(cells[name] for name in columns))
    return shown


def _columns(rows: Sequence[Row], width: int) -> list[str]:
    wide = width >= _NARROW
    collective, load = any(row.collective for row in rows), any(row.load for row in rows)
    columns = ["variant", "seed"]
    if collective:
        columns += ["size", *(["#wrong"] if wide else []), "p50\nms", *(["p95\nms"] if wide else []), "ideal\nms", "slow-\ndown"]
        columns += ["itera-\ntion ms"] if any(row.iteration_ms is not None for row in rows) else []
        columns += ["expo-\nsed ms"] if any(row.exposed_ms is not None for row in rows) else []
        columns += ["predic-\nted ms", "algbw\nMb/s"] if wide else []
        columns += ["busbw\nMb/s"]
    if any(row.workload for row in rows):
        columns += ["program\ns", "NIC\nMB"]
    if load:
        columns += [*(["load\nMb/s"] if wide or not collective else []), "share\nof NB"]
        columns += [] if collective else ["predic-\nted"]
    if any(row.answers for row in rows):
        columns += ["answers", "their\np95 ms", *(["their\nslowdown"] if any(_answers(row, "slowdown_mean") != "-" for row in rows) else [])]
    return [*columns, *(["drops", "re-\ntrans"] if wide or not collective else []), "fidelity"]


def _cells(row: Row) -> dict[str, str]:
    """The text of every column that a table may show."""
    colour = _COLOURS[row.fidelity]
    return {
        "variant": row.arm, "seed": str(row.seed), "size": size_label(row.nbytes) if row.nbytes else "-",
        "#wrong": _number(row.wrong, 0), "p50\nms": _number(row.p50_ms, 1), "p95\nms": _number(row.p95_ms, 1),
        "itera-\ntion ms": _number(row.iteration_ms, 0), "expo-\nsed ms": _number(row.exposed_ms, 0),
        "program\ns": _number(row.program_s), "NIC\nMB": _number(None if row.nic_bytes is None else row.nic_bytes / 1e6, 1),
        "ideal\nms": _number(row.ideal_ms, 1), "slow-\ndown": _number(row.slowdown),
        "predic-\nted ms": _number(row.predicted_ms, 1), "algbw\nMb/s": _number(row.algbw_mbps),
        "busbw\nMb/s": _number(row.busbw_mbps), "load\nMb/s": _number(row.load_goodput_mbps, 1),
        "share\nof NB": _number(row.load_share_of_nb, 3), "predic-\nted": _number(row.load_share_predicted, 3),
        "answers": _answers(row, "due", 0), "their\np95 ms": _answers(row, "p95_ms", 1), "their\nslowdown": _answers(row, "slowdown_mean"),
        "drops": _number(row.drops, 0), "re-\ntrans": _number(row.retransmits, 0),
        "fidelity": f"[{colour}]{row.fidelity or 'refused'}[/]",
    }  # fmt: skip


def _answers(row: Row, key: str, digits: int = 2) -> str:
    """A figure of each entry of requests."""
    found = [entry.get(key) for entry in (row.answers or {}).values()]
    return " / ".join(_number(value, digits) for value in found) if any(value is not None for value in found) else "-"


def claim_table(found: Sequence[Claim]) -> Table:
    """Means over seeds with their 95 % intervals, of the rows that passed and of all."""
    shown = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("variant", min_width=12)
    for name in ("mean [95 %]", "PASS rows", "all rows"):
        shown.add_column(name, no_wrap=name != "mean [95 %]")
    for claim in found:
        words = f"{size_label(claim.nbytes)} {_SHORT[claim.measure]}" if claim.nbytes else _SHORT[claim.measure]
        shown.add_row(claim.variant, words, str(claim.passed or "-"), str(claim.all or "-"))
    return shown


def comparisons(console: Console, found: Sequence[Comparison]) -> None:
    """What arms take or get over what another one does, a table an arm, and whether a difference was seen."""
    for arm in dict.fromkeys(one.arm for one in found):
        console.print(f"{arm}, over {found[0].base}", highlight=False, markup=False, soft_wrap=True, style="bold")
        shown = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("where", "ratio of", "PASS pairs", "all pairs", "difference"):
            shown.add_column(name, no_wrap=name != "where", overflow="fold")
        for one in (one for one in found if one.arm == arm):
            where = ", ".join([*([one.where] if one.where else []), *([size_label(one.nbytes)] if one.nbytes else [])])
            shown.add_row(escape(where) or "-", one.measure, _ratio(one.passed), _ratio(one.all, between=False), _SEEN[one.seen])
        console.print(shown)


def traced(console: Console, found: Traced, fabric: Fabric) -> None:
    """The way that probes took, a line a port, and whether it is the one that the rules lead."""
    ends = f"{found.src} → {found.dst}, {found.protocol} {found.ports[0]} → {found.ports[1]}"
    console.print(f"{ends}: {found.arrived} of {found.sent} probes arrived" + (f", {found.one_way_ms:.2f} ms" if found.one_way_ms is not None else ""), highlight=False)
    shown = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("hop", "port", "to", "probes", "packets sent meanwhile"):
        shown.add_column(name, justify="left" if name in ("port", "to") else "right", no_wrap=True)
    for path, probes in found.paths:
        for hop, port in enumerate(path, 1):
            peer = fabric.peer[port]
            shown.add_row(str(hop), escape(port.interface), escape(peer.node), str(probes), str(found.counted.get(port.interface, "-")))
        shown.add_section()
    console.print(shown)
    rules = "the rules lead the same way" if found.agrees else f"by the rules it {_led(found, fabric)}"
    many = "the only shortest path" if found.equal_cost == 1 else f"one of {found.equal_cost} shortest paths"
    colour = "green" if found.agrees else "red"
    console.print(f"[{colour}]{escape(rules)}[/], {many}" if found.paths else f"[{colour}]{escape(rules)}[/]", highlight=False, soft_wrap=True)


def _led(found: Traced, fabric: Fabric) -> str:
    way = " > ".join(port.interface for port in found.rules.path)
    return f"leaves by {way}, and {found.rules.words(fabric)}"


def outcomes(console: Console, found: Sequence[Outcome]) -> None:
    """What was expected, what came out, and whether that meets it, a line each."""
    for one in found:
        colour = {"met": "green", "not met": "red"}.get(one.verdict, "yellow")
        said = f"{_ratio(one.found)} over PASS seeds" if one.found else "no row passed"
        console.print(f"[{colour}]{one.verdict}[/] {escape(one.words)}: {escape(said)}", highlight=False, soft_wrap=True)


def _ratio(found: Interval | None, between: bool = True) -> str:
    if found is None:
        return "-"
    interval = f" [{found.low:.3f}, {found.high:.3f}]" if between and found.low is not None and found.high is not None else ""
    return f"{found.mean:.3f}{interval} n={found.n}"


_SEEN = {"lower": "[cyan]lower[/]", "higher": "[magenta]higher[/]", "no difference seen": "none seen", "one pair": "one pair", "no ratio": "[yellow]has zeros[/]", None: "none passed"}
_SHORT = {"slowdown": "slowdown", "iteration_ms": "iteration ms", "load_share_of_nb": "share", "load_leftover_share": "of what was left"}


class Screen:
    """A Watcher that draws a progress bar and prints each point's rows as they come."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done: list[Row] = []
        self.folder: Path | None = None  # once there is one
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self.task: TaskID = self.progress.add_task("starting", total=None)

    def __enter__(self) -> Screen:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begins(self, folder: Path, points: Sequence[Point]) -> None:
        """Know how much there is to do, and where it goes."""
        self.folder = folder
        self.progress.update(self.task, total=sum(_steps(point) for point in points))

    def calibrating(self, what: str) -> None:
        """Say that the machine's own latency is being measured."""
        self.progress.update(self.task, description=f"measuring α ({what})")

    def waiting(self, stolen: float) -> None:
        """Say why nothing happens."""
        self.progress.update(self.task, description=f"waiting: the hypervisor takes {stolen:.0%} of the processors")

    def point_begins(self, point: Point, total: int) -> None:
        """Name the point that comes up."""
        self.progress.update(self.task, description=f"{point.index + 1}/{total} {point.variant}, seed {point.seed}")

    def record(self, record: Mapping[str, Any]) -> None:
        """Move on with each iteration, and with the end of a load and of programs."""
        if record["event"] in ("iteration", "flows", "programs"):
            self.progress.advance(self.task)

    def rows(self, rows: list[Row]) -> None:
        """Print a line for each row."""
        self.done += rows
        for row in rows:
            self.console.print(_line(row), highlight=False)

    def closing(self, folder: str) -> None:
        """The whole table, why rows are not PASS, and where everything lies."""
        report(self.console, self.done)
        self.console.print(f"results: {folder}", highlight=False, soft_wrap=True)


def report(console: Console, rows: Sequence[Row]) -> None:
    """Rows, what they may claim where there are several seeds, and why rows are not PASS."""
    console.print(table(rows, console.width))
    if len({row.seed for row in rows}) > 1 and (found := claims(rows)):
        console.print(claim_table(found))
    judgement(console, rows)


def judgement(console: Console, rows: Sequence[Row]) -> None:
    """How far to trust the rows, and why no further."""
    console.print(verdicts(rows), highlight=False)
    for reason, count in _reasons(rows).most_common(5):
        console.print(f"  {count} x {reason}", highlight=False, markup=False, soft_wrap=True)


def verdicts(rows: Sequence[Row]) -> str:
    """How many rows passed, in one line."""
    counts = Counter("refused" if row.refused else row.fidelity for row in rows)
    return "fidelity: " + ", ".join(f"{counts[name]} {name}" for name in ("PASS", "WARN", "FAIL", "refused"))


def explanation(console: Console, found: Explanation) -> None:
    """What happened at a point, in words; as wide as the screen, whole lines where it is none."""
    console.print(told(found), highlight=False, markup=False, soft_wrap=not console.is_terminal)


def verdict_table(found: Report) -> Table:
    """What was found of a controller on one topology, a check a line."""
    size = f"{len(found.fabric.switches)} switches, {len(found.fabric.hosts)} hosts"
    title = f"on {escape(found.topology)} ({size})"
    shown = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for name in ("check", "verdict", "what was seen"):
        shown.add_column(name, no_wrap=name != "what was seen", overflow="fold")
    for finding in found.findings:
        colour = _COLOURS[{"NOTE": "WARN"}.get(finding.verdict, finding.verdict)]
        shown.add_row(finding.check, f"[{colour}]{finding.verdict}[/]", escape(finding.sentence))
    return shown


def _reasons(rows: Sequence[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        found.update([row.refused] if row.refused else row.fidelity_reasons)
    return found


def _line(row: Row) -> str:
    what = f"{row.arm}, seed {row.seed}"
    if row.refused:
        return f"{what}: [red]refused[/]: {row.refused}"
    colour = _COLOURS[row.fidelity]
    figures = []
    if row.p50_ms is not None and row.nbytes is not None:
        if row.picked:
            figures.append(f"picked {row.algorithm}")
        figures.append(f"{size_label(row.nbytes)} p50 {row.p50_ms:.1f} ms, {row.slowdown:.2f} x ideal")
    for name, found in (row.answers or {}).items():
        if found["p95_ms"] is not None:
            share = f", {found['in_time']:.1%} in time" if found.get("in_time") is not None else ""
            slowdown = f", mean slowdown {found['slowdown_mean']:.2f}" if found.get("slowdown_mean") is not None else ""
            figures.append(f"{name} p95 {found['p95_ms']:.1f} ms{share}{slowdown}")
    if row.program_s is not None:
        figures.append(f"the program took {row.program_s:.2f} s, {row.nic_bytes or 0:,} bytes on {row.ranks} NICs")
    if row.load_share_of_nb is not None:
        figures.append(f"load {row.load_share_of_nb:.3f} of non-blocking")
    return f"{what}: {'; '.join(figures)} [{colour}]{row.fidelity}[/]"


def _steps(point: Point) -> int:
    if point.jobs:
        return sum(job.buckets * (job.iterations + job.warmup) for job in point.jobs) + (1 if point.load else 0)
    if point.collective is None:
        return 1 + (point.workload is not None and bool(point.load))
    sizes = len(point.collective.nbytes) * (point.collective.iterations + point.collective.warmup)
    jobs = 1 if point.collective.compute_ms is None else point.collective.params.get("groups", 1)
    return sizes * (jobs if isinstance(jobs, int) else 1) + (1 if point.load else 0)
