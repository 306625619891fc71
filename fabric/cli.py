"""The command line: one small function a verb, and the only place that prints results and picks exit codes.

    0 done   1 ran, but a check failed   2 the request is wrong   3 this machine cannot   4 the run broke   130 interrupted
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fabric import __version__
from fabric.errors import FabricError, MachineError, RequestError, RunError
from fabric.experiment import Experiment, load_experiment, parse_override, schema
from fabric.plugins import KINDS, names
from fabric.results import Row, RunFolder, is_full

if TYPE_CHECKING:
    from fabric.experiment import Point
    from fabric.graph import Fabric
    from fabric.screen import Screen

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="A testbed for AI-cluster networks: how long does a collective take while the fabric is busy, and why?",
)  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_ROOM = "make room, or name another place by --out"
_INTERRUPTED = 130  # as shells count it: 128 and SIGINT
_err = Console(stderr=True)
_out = Console()

File = Annotated[Path, typer.Argument(help="the experiment file", show_default=False)]
Set = Annotated[list[str], typer.Option("--set", help="replace a value of the file: key.path=value (may be repeated)")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object a line on standard output, nothing else there")]


def main() -> None:
    """Entry point: errors of the user's become one line and an exit code; ours keep their traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in a shell's background
        signal.signal(signal.SIGINT, _interrupt)
    try:
        # Typer returns the code of an Exit here; of an interrupt too, where its older releases raise Abort.
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code or 0)
    except FabricError as err:
        _err.print(f"fabriclab: {err}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(err.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _err.print("fabriclab: interrupted; the network is down, what was measured until then is kept", style="bold red")
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as err:
        if err.errno not in _FULL:
            raise
        where = f"{err.filename}: " if err.filename else ""
        _err.print(
            f"fabriclab: {where}{err.strerror}; {_ROOM}; what was measured until then is kept",
            style="bold red", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        sys.exit(MachineError.exit_code)
    except Exception as err:
        # Typer's own usage errors are click's; naming that class would tie us to what typer builds on.
        if not hasattr(err, "format_message"):
            raise
        _err.print(f"fabriclab: {err.format_message().rstrip('.')}; see fabriclab --help", style="bold red", markup=False)
        sys.exit(2)


def _interrupt(*_: Any) -> None:
    # A second signal must not break the clean-up that the first one began.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


def _load(file: Path, overrides: list[str]) -> Experiment:
    return load_experiment(file, dict(parse_override(text) for text in overrides))


def _version(wanted: bool) -> None:
    if wanted:
        _out.print(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    """Options before the verb."""


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do, what it cannot, and the remedy."""
    from fabric.doctor import examine

    findings = examine()
    if as_json:
        for finding in findings:
            print(json.dumps({name: getattr(finding, name) for name in ("name", "ok", "needed", "got", "reason", "remedy")}))
    else:
        shown = Table(header_style="bold", pad_edge=False)
        for name in ("", "what", "found", "remedy"):
            shown.add_column(name, overflow="fold")
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]missing[/]" if finding.needed else "[yellow]optional[/]"
            shown.add_row(mark, finding.name, finding.got if finding.ok else f"{finding.got}: {finding.reason}", "" if finding.ok else finding.remedy)
        _out.print(shown)
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(3)


@app.command("list")
def list_plugins(as_json: Json = False) -> None:
    """List the topologies, controllers, collectives and loads that a name stands for."""
    for kind in KINDS:
        if as_json:
            print(json.dumps({"kind": kind, "names": names(kind)}))
        else:
            _out.print(f"[bold]{kind}[/]: {', '.join(names(kind))}", highlight=False)


@app.command()
def validate(
    file: Annotated[Path | None, typer.Argument(help="the experiment file", show_default=False)] = None,
    overrides: Set = [],  # noqa: B006  (typer reads the default, nobody changes it)
    as_json: Json = False,
    print_schema: Annotated[bool, typer.Option("--schema", help="print the JSON Schema for editors instead")] = False,
) -> None:
    """Check an experiment file and every point of its sweep, without touching the machine."""
    if print_schema:
        print(json.dumps(schema(), indent=1))
        return
    if file is None:
        raise RequestError("validate: got no file; accepted: an experiment file, or --schema; e.g. fabriclab validate experiments/quickstart.yaml")
    experiment = _load(file, overrides)
    if as_json:
        for point in experiment.points:
            print(json.dumps(point.to_json()))
    else:
        variants = dict.fromkeys(point.variant for point in experiment.points)
        _out.print(f"{file}: fine, {len(experiment.points)} points: {'; '.join(variants)}", highlight=False, soft_wrap=True)


@app.command()
def run(
    file: File,
    overrides: Set = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="where the run folder is made")] = Path("runs"),
    patience: Annotated[
        float, typer.Option(min=0, help="before each point, wait up to so many seconds for a hypervisor that takes over 10 % of the processors")
    ] = 0,
    only: Annotated[list[str], typer.Option(help="only points whose variant or folder fits, e.g. 'ecmp*' or '*-r1' (may be repeated)")] = [],  # noqa: B006
    check: Annotated[bool, typer.Option("--check", help="end with 1 unless all that the file expects is shown")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say which points would be run, and how long that takes at least; no root")] = False,
    as_json: Json = False,
) -> None:
    """Run an experiment (root): rows on the screen, everything else in a run folder."""
    from fabric.run import command_line
    from fabric.run import run as conduct
    from fabric.unfinished import chosen

    experiment = _load(file, overrides)
    if check and not experiment.expect:
        raise RequestError(f"{file}: --check: got a file that expects nothing; accepted: one with expect; add e.g. expect: [{{measure: slowdown, below: 1.5}}] to it")
    if dry_run:
        _plan(chosen(experiment.points, only), as_json)
        return
    _conducted(lambda screen: conduct(experiment, out, screen, command_line(), patience, only), check, as_json)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="a run folder that was interrupted, or run in part", show_default=False)],
    patience: Annotated[float, typer.Option(min=0, help="as of run")] = 0,
    check: Annotated[bool, typer.Option("--check", help="as of run")] = False,
    as_json: Json = False,
) -> None:
    """Go on with an interrupted run (root): the points that have no rows yet, into the same folder."""
    from fabric.run import command_line
    from fabric.run import resume as conduct

    _conducted(lambda screen: conduct(folder, screen, command_line(), patience), check, as_json)


def _plan(points: Sequence[Point], as_json: bool) -> None:
    """Print what would be run, and the least time that it takes."""
    from fabric.estimate import least_s

    seconds = [least_s(point) for point in points]
    for point, some in zip(points, seconds, strict=True):
        if as_json:
            print(json.dumps({"point": point.label, "variant": point.variant, "seed": point.seed, "least_s": round(some, 1)}))
        else:
            _out.print(f"{point.label}: {point.variant}, seed {point.seed}, {some:.0f} s", highlight=False, markup=False, soft_wrap=True)
    _err.print(f"{len(points)} points, {sum(seconds) / 60:.1f} minutes at least: a busy fabric takes longer than the ideal times that this counts", highlight=False, soft_wrap=True)


def _conducted(conduct: Callable[[Screen], RunFolder], check: bool, as_json: bool) -> None:
    """Run points and show what came out; an interruption says how to go on."""
    from fabric.plots import draw
    from fabric.screen import Screen

    screen = Screen(_err)
    try:
        with screen:
            folder = conduct(screen)
    except (FabricError, KeyboardInterrupt) as err:
        if screen.folder is not None:
            _err.print(f"to go on: fabriclab resume {screen.folder}", highlight=False, markup=False, soft_wrap=True)
            if isinstance(err, RunError) and is_full(screen.folder):  # whoever stopped could not even say why
                raise RunError(f"{screen.folder}: No space left on device; {_ROOM} ({err})") from None
        raise
    if as_json:
        for row in screen.done:
            print(json.dumps(row.to_json()))
    screen.closing(str(folder.path))
    if not folder.finished:
        _err.print(f"not all points of the file have been run; the others: fabriclab resume {folder.path}", highlight=False, markup=False, soft_wrap=True)
    figures = draw(folder.path)
    _err.print("figures: " + " ".join(str(path) for path in figures if path.suffix == ".png"), highlight=False, soft_wrap=True)
    shown = _expected(_err, folder.path, check)
    if any(row.refused for row in screen.done) or (check and not shown):
        raise typer.Exit(1)


def _expected(console: Console, folder: Path, check: bool) -> bool:
    """Print whether what a run's file expects was shown; whether all of it was."""
    from fabric.api import Run
    from fabric.screen import outcomes

    found = Run(folder).expected()
    if check and not found:
        raise RequestError(f"{folder}: --check: got a run whose file expects nothing; accepted: one with expect; add e.g. expect: [{{measure: slowdown, below: 1.5}}] to it")
    outcomes(console, found)
    return all(outcome.verdict == "met" for outcome in found)


@app.command()
def bench(
    collective: Annotated[str, typer.Argument(help="all-reduce, reduce-scatter, all-gather, or a collective with its parameters", show_default=False)],
    first: Annotated[str, typer.Option("-b", "--minbytes", help="the first size, as 64K")] = "64K",
    last: Annotated[str, typer.Option("-e", "--maxbytes", help="the last size at most")] = "1M",
    factor: Annotated[int | None, typer.Option("-f", "--stepfactor", help="each size is that many times the one before; 2 without -i")] = None,
    step: Annotated[str | None, typer.Option("-i", "--stepbytes", help="or that much more")] = None,
    iterations: Annotated[int, typer.Option("-n", "--iters", help="measured iterations of each size")] = 20,
    warmup: Annotated[int, typer.Option("-w", "--warmup_iters", help="iterations before those")] = 5,
    check: Annotated[int, typer.Option("-c", "--check", min=0, max=1, help="1 checks every element of every iteration")] = 1,
    dtype: Annotated[str, typer.Option("-d", "--datatype", help="float or int32")] = "float",
    report_file: Annotated[Path | None, typer.Option("-J", "--output_json", help="also write nccl-tests' JSON here")] = None,
    topology: Annotated[str, typer.Option(help="name,key=value,...")] = "fat-tree,k=4",
    controller: Annotated[str, typer.Option(help="name,key=value,...")] = "ecmp",
    loads: Annotated[list[str], typer.Option("--load", help="name,key=value,...: what else is on the network (may be repeated)")] = [],  # noqa: B006
    ranks: Annotated[int | None, typer.Option(help="how many; by default one on every host")] = None,
    placement: Annotated[str, typer.Option(help="ranked or random")] = "ranked",
    channels: Annotated[int, typer.Option(help="connections that share what goes from rank to rank")] = 1,
    mbps: Annotated[float, typer.Option(help="the links' rate")] = 10,
    mtu: Annotated[int, typer.Option(help="the links' MTU")] = 9000,
    queue_packets: Annotated[int, typer.Option(help="the switches' queues")] = 50,
    tcp: Annotated[str, typer.Option(help="the ranks' congestion control")] = "cubic",
    hints: Annotated[bool, typer.Option("--hints", help="tell the controller of the collective's connections")] = False,
    seed: Annotated[int, typer.Option(help="of placement, ports and hashing")] = 1,
    out: Annotated[Path, typer.Option(help="where the run folder is made")] = Path("runs"),
    patience: Annotated[float, typer.Option(min=0, help="as of run")] = 0,
) -> None:
    """Scan sizes as nccl-tests do (root): their options, their table in ms and Mb/s, then what theory allows and whether to believe it."""
    from datetime import datetime

    from fabric import nccl_table
    from fabric.bench import Bench, sizes
    from fabric.run import command_line
    from fabric.screen import judgement

    kind = {"float": "float32"}.get(dtype, dtype)
    asked = Bench(
        collective, sizes(first, last, factor, step), iterations, warmup, check == 1, kind, topology, controller, tuple(loads), ranks,
        placement, channels, mbps, mtu, queue_packets, tcp, hints, seed=seed,
    )  # fmt: skip
    if report_file is not None:
        try:
            report_file.touch()
        except OSError as err:
            raise RequestError(f"bench: -J {report_file}: got {err.strerror}; accepted: a file that can be written; name another one") from None
    started = datetime.now()
    rows, folder = _scan(asked.name, asked.experiment(), out, patience)
    words = f"{collective} on {topology}, {controller}: {rows[0].ranks} ranks, {mbps:g} Mb/s links, MTU {mtu}, {tcp}; the time is the median"
    for text in (*nccl_table.heading(words), *(nccl_table.line(row, kind) for row in rows), *nccl_table.footer(rows)):
        print(text)
    if report_file is not None:
        when = [moment.strftime("%Y-%m-%d %H:%M:%S") for moment in (started, datetime.now())]
        report_file.write_text(json.dumps(nccl_table.report(rows, kind, command_line(), *when), indent=1) + "\n")
    judgement(_err, rows)
    _err.print(f"results: {folder}", highlight=False, soft_wrap=True)
    if any(row.refused or row.wrong for row in rows):
        raise typer.Exit(1)


def _scan(name: str, text: str, out: Path, patience: float) -> tuple[list[Row], Path]:
    """The rows of an experiment that is no file of the user's, and its run folder."""
    import tempfile

    from fabric.run import command_line
    from fabric.run import run as conduct
    from fabric.screen import Screen

    with tempfile.TemporaryDirectory(prefix="fabriclab-") as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(text)
        try:
            experiment = load_experiment(file, base=Path.cwd())
        except RequestError as err:
            _, _, found = str(err).removeprefix(f"{file}:").partition(": ")  # the line is one of a file that nobody wrote
            raise RequestError(f"bench: {found}") from None
        with Screen(_err) as screen:
            return screen.done, conduct(experiment, out, screen, command_line(), patience).path


@app.command()
def shell(
    file: File,
    overrides: Set = [],  # noqa: B006
    only: Annotated[list[str], typer.Option(help="which point's network: as of run")] = [],  # noqa: B006
) -> None:
    """Mininet's command line on an experiment's network, up and controlled, without its traffic (root)."""
    from fabric.live import live
    from fabric.network import command_line as mininet
    from fabric.run import standing
    from fabric.screen import traced
    from fabric.tracing import trace as find_out

    def look(words: str) -> None:
        try:
            up, asked = live(), words.split()
            if not 2 <= len(asked) <= 4:
                raise RequestError(f"trace: got {len(asked)} words; accepted: SRC DST [SPORT [DPORT]]; write e.g. trace {hosts[0]} {hosts[-1]}")
            sport, dport = [*(_number(text) for text in asked[2:]), None, None][:2]
            traced(_out, find_out(up, asked[0], asked[1], sport=sport, dport=dport), up.fabric)
        except FabricError as err:
            _out.print(str(err), highlight=False, markup=False, soft_wrap=True)

    experiment = _load(file, overrides)
    with standing(experiment, only) as (point, network):
        hosts = [host.name for host in point.fabric.hosts]
        _err.print(
            f"{point.topology.use} with {len(hosts)} hosts, {point.controller.use}: try pingall, {hosts[0]} ping {hosts[-1]}, "
            f"trace {hosts[0]} {hosts[-1]}; exit ends it", highlight=False, soft_wrap=True,
        )  # fmt: skip
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a Ctrl-C is for the command that runs in there
        try:
            mininet(network.mininet, {"trace": look})
        finally:
            signal.signal(signal.SIGINT, _interrupt)


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise RequestError(f"trace: got port {text}; accepted: a whole number from 1 to 65535; write e.g. 5001")
    return int(text)


@app.command()
def trace(
    src: Annotated[str, typer.Argument(help="the host that sends", show_default=False)],
    dst: Annotated[str, typer.Argument(help="the host that it sends to", show_default=False)],
    sport: Annotated[int | None, typer.Option(min=1, max=65535, help="source port; by default the run's own connection's")] = None,
    dport: Annotated[int | None, typer.Option(min=1, max=65535, help="destination port; likewise")] = None,
    udp: Annotated[bool, typer.Option("--udp", help="UDP instead of TCP")] = False,
    probes: Annotated[int, typer.Option(min=1, max=1000, help="how many packets are sent")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output, nothing else there")] = False,
) -> None:
    """The path that a flow really takes on the network that is up now, and what the switches' rules say (root)."""
    from fabric.live import live
    from fabric.screen import traced
    from fabric.tracing import trace as find_out

    up = live()
    with up.noted("trace"):
        found = find_out(up, src, dst, sport=sport, dport=dport, protocol="udp" if udp else "tcp", probes=probes)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        traced(_out, found, up.fabric)
    if not found.agrees:
        raise typer.Exit(1)


@app.command()
def capture(
    a: Annotated[str, typer.Argument(help="a node", show_default=False)],
    b: Annotated[str, typer.Argument(help="a node that a link joins it with", show_default=False)],
    out: Annotated[Path, typer.Option(help="where the packets are written, for Wireshark")] = Path("capture.pcap"),
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="for how long")] = 5,
    count: Annotated[int | None, typer.Option(min=1, help="or until so many packets have come")] = None,
) -> None:
    """Capture the packets of a link on the network that is up now (root); rows measured meanwhile say so."""
    from fabric.capturing import capture as take
    from fabric.live import live

    up = live()
    with up.noted(f"capture of {a} - {b}"):
        found = take(up, a, b, out, seconds=seconds, most=count)
    missed = f", {found.missed} missed" if found.missed else ""
    _out.print(f"{out}: {found.out} packets out of {found.interface}, {found.back} into it{missed}", highlight=False, soft_wrap=True)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="a run folder", show_default=False)],
    as_json: Json = False,
    again: Annotated[bool, typer.Option("--again", help="summarise and judge what was recorded anew, and keep that")] = False,
    check: Annotated[bool, typer.Option("--check", help="end with 1 unless all that the file expected is shown")] = False,
) -> None:
    """Print a run folder's rows again, and what they may claim: means over seeds with 95 % intervals."""
    from fabric.results import read_rows
    from fabric.run import judge_again
    from fabric.screen import report

    rows = judge_again(folder) if again else read_rows(folder)
    if as_json:
        for row in rows:
            print(json.dumps(row.to_json()))
    else:
        report(_out, rows)
    if not _expected(_err if as_json else _out, folder, check) and check:
        raise typer.Exit(1)


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="a run folder, whose arms are compared, or several, which are", show_default=False)],
    by: Annotated[str | None, typer.Option(help="the swept key whose values are compared; by default the first, of several runs `run`")] = None,
    base: Annotated[str | None, typer.Option(help="what the others are compared with, as the table calls it; by default the first")] = None,
    wanted: Annotated[list[str], typer.Option("--measure", help="a figure of a row, e.g. p95_ms (may be repeated)")] = [],  # noqa: B006
    fail_if: Annotated[str | None, typer.Option(help="lower, higher or different: end with 1 where such a difference is seen, or no pair passed")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="how much of one does not count: 0.05 is 5 %")] = 0,
    as_json: Json = False,
) -> None:
    """Compare arms of a run, or runs, seed by seed: ratios with 95 % intervals, and whether a difference was seen; no root."""
    from fabric.api import Run
    from fabric.compare import failing
    from fabric.screen import comparisons

    fails = failing(fail_if, tolerance)
    first, *others = (Run(folder) for folder in folders)
    found = first.compare(*others, by=by, base=base, measure=wanted)
    if as_json:
        for one in found:
            print(json.dumps(one.to_json()))
    else:
        comparisons(_out, found)
    if any(fails(one) for one in found):
        raise typer.Exit(1)


@app.command()
def explain(
    folder: Annotated[Path, typer.Argument(help="a run folder", show_default=False)],
    point: Annotated[str | None, typer.Option(help="this point; by default the slowest")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output, nothing else there")] = False,
) -> None:
    """Say in words where the time of a run's slowest all-reduce went, or its slowest flow's rate."""
    from fabric.explain import explain as find_out
    from fabric.screen import explanation

    found = find_out(folder, point)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        explanation(_out, found)


@app.command()
def inband(
    folder: Annotated[Path, typer.Argument(help="a run folder", show_default=False)],
    point: Annotated[str | None, typer.Option(help="only this point")] = None,
    as_json: Json = False,
) -> None:
    """Print what in-band probes saw on their way: by hop the queue that they found, and how full the link was; no root."""
    from fabric.journeys import hops, journeys_of
    from fabric.screen import hop_heading, hop_table

    for name, journeys in journeys_of(folder, point):
        if as_json:
            for hop in (hop for journey in journeys for hop in hops(journey)):
                print(json.dumps({"point": name, **hop.to_json()}))
        else:
            for journey in journeys:
                _out.print(hop_heading(name, journey), highlight=False, markup=False, soft_wrap=True)
                _out.print(hop_table(journey))


@app.command()
def plot(
    folders: Annotated[list[Path], typer.Argument(help="run folders", show_default=False)],
    figure: Annotated[str | None, typer.Option(help="only this figure")] = None,
) -> None:
    """Draw a run folder's figures again, as PNG, SVG and CSV."""
    from fabric.plots import draw

    for folder in folders:
        for path in draw(folder, figure):
            _out.print(str(path), highlight=False, soft_wrap=True)


@app.command("draw")
def draw_map(
    file: Annotated[Path, typer.Argument(help="an experiment file, or a run folder, whose links are coloured by what they carried", show_default=False)],
    overrides: Set = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="the picture's file, of an experiment file: PNG, SVG or PDF")] = Path("topology.png"),
) -> None:
    """Draw the fabric of an experiment, or of a run; no root."""
    from fabric.plots import draw, draw_topology

    if file.is_dir():
        paths = draw(file, "topology")
    else:
        fabrics = {name: point.fabric for point in reversed(_load(file, overrides).points) for name in [_described(point.fabric)]}
        names = list(reversed(fabrics))
        files = [out if number == 0 else out.with_stem(f"{out.stem}-{number + 1}") for number in range(len(names))]
        paths = [draw_topology(fabrics[name], name, path) for name, path in zip(names, files, strict=True)]
    for path in paths:
        _out.print(str(path), highlight=False, soft_wrap=True)


def _described(fabric: Fabric) -> str:
    params = ", ".join(f"{key} {value}" for key, value in fabric.params.items() if value is not None)
    return f"{fabric.topology}{f' ({params})' if params else ''}: {len(fabric.switches)} switches, {len(fabric.hosts)} hosts, {len(fabric.links)} links"


@app.command("check-controller")
def check_controller(
    controller: Annotated[str, typer.Argument(help="a name, pkg.module, or ./file.py", show_default=False)],
    overrides: Annotated[list[str], typer.Option("--set", help="a parameter of the controller: key=value (may be repeated)")] = [],  # noqa: B006
    topologies: Annotated[list[str], typer.Option("--topology", help="e.g. fat-tree,k=4 (may be repeated); by default single-switch and that")] = [],  # noqa: B006
    max_rules: Annotated[int, typer.Option(min=1, help="the rules a switch may hold; 2000 is an assumption of what hardware does")] = 2000,
    poll_ms: Annotated[int, typer.Option(min=10, max=5000, help="how often counters are read")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output, nothing else there")] = False,
) -> None:
    """Judge anyone's controller: routes, limits, and what it survives; no root."""
    from fabric.check_controller import check, request
    from fabric.screen import verdict_table

    asked = request(controller, overrides, topologies, Path.cwd(), max_rules=max_rules, poll_ms=poll_ms)
    reports = []
    with _err.status("starting") as status:
        for report in check(asked, lambda what: status.update(what)):
            reports.append(report)
            if not as_json:
                _out.print(verdict_table(report))
    passed = all(report.passed for report in reports)
    if as_json:
        print(json.dumps({"controller": controller, "passed": passed, "reports": [report.to_json() for report in reports]}))
    else:
        failed = sum(finding.verdict == "FAIL" for report in reports for finding in report.findings)
        _out.print(f"{controller}: {'all checks passed' if passed else f'{failed} checks failed'}", markup=False, highlight=False, soft_wrap=True)
    if not passed:
        raise typer.Exit(1)


@app.command("check-cc")
def check_cc(
    file: Annotated[str, typer.Argument(help="./my_cc.bpf.c, its .o, or a name as transport.tcp has it", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output, nothing else there")] = False,
) -> None:
    """Judge anyone's congestion control on a small real fabric: loads, negotiates, fills, shares, backs off (root)."""
    from dataclasses import asdict

    from fabric.check_cc import UNDECIDED, check

    findings = []
    with _err.status("starting") as status:
        for finding in check(file, Path.cwd(), lambda what: status.update(what)):
            findings.append(finding)
            if not as_json:
                colour = {"PASS": "green", "NOTE": "yellow", "FAIL": "red"}[finding.verdict]
                _out.print(f"[{colour}]{finding.verdict}[/] {finding.check}: {escape(finding.sentence)}", highlight=False, soft_wrap=True)
    failed = sum(finding.verdict == "FAIL" for finding in findings)
    undecided = sum(finding.sentence.startswith(UNDECIDED) for finding in findings)
    if as_json:
        print(json.dumps({"tcp": file, "passed": not failed + undecided, "findings": [asdict(finding) for finding in findings]}))
    else:
        said = f"{failed} checks failed, {undecided} undecided" if failed + undecided else "all checks passed"
        _out.print(f"{file}: {said}", markup=False, highlight=False, soft_wrap=True)
    if failed + undecided:
        raise typer.Exit(1)


@app.command()
def clean() -> None:
    """Remove exactly what a killed run left behind (root)."""
    from fabric.sandbox import clean as remove
    from fabric.sandbox import leftovers

    found = leftovers()
    if found and os.geteuid() != 0:
        raise MachineError(f"a killed run (process {found[0].pid}) left things behind; removing them needs root: sudo fabriclab clean")
    for leftover in found:
        remove(leftover)
        processes = f"{len(leftover.processes)} processes, " if leftover.processes else ""
        _out.print(f"cleaned after run {leftover.pid}: {processes}{len(leftover.sysctls)} sysctls, {leftover.folder}", highlight=False)
    if not found:
        _out.print("nothing to clean")
