"""The conductor: an Experiment goes through the rooms in order, point by point, and ends as a run folder."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from fabric import __version__
from fabric.calibration import calibrated, measure_alpha_ms
from fabric.clamps import clamps_of
from fabric.doctor import refusals
from fabric.emulation import emulate, machine_sysctls, stand
from fabric.endpoints import Provided, offered, providers
from fabric.errors import MachineError, RequestError
from fabric.experiment import Experiment, Point, load_experiment
from fabric.ideal import ideal_ms, payload_mbps
from fabric.network import Network
from fabric.patience import Waited, wait_until_quiet
from fabric.predictions import servers_of
from fabric.results import SCHEMA_VERSION, Row, RunFolder, read_rows
from fabric.sandbox import Sandbox, sandbox
from fabric.summary import summarise
from fabric.transports import refuse_unmarked, tcps_of
from fabric.unfinished import ALPHAS, chosen, left, reopened, set_aside
from fabric.workload import Workload, workload

__all__ = ["Nobody", "Watcher", "command_line", "judge_again", "machine", "resume", "run", "standing"]


class Watcher(Protocol):
    """Who looks on: the screen, a test, or nobody."""

    def begins(self, folder: Path, points: Sequence[Point]) -> None:
        """These points are going to be run, into this folder."""
        return

    def calibrating(self, what: str) -> None:
        """The machine's own latency is being measured."""
        return

    def waiting(self, stolen: float) -> None:
        """The machine's neighbours take this share of its processors; a point is held back."""
        return

    def point_begins(self, point: Point, total: int) -> None:
        """A point is being brought up."""
        return

    def record(self, record: Mapping[str, Any]) -> None:
        """The traffic reported something."""
        return

    def rows(self, rows: list[Row]) -> None:
        """A point ended in these rows."""
        return


class Nobody(Watcher):
    """Who does not look."""


def run(experiment: Experiment, out: Path, watcher: Watcher, command: list[str], patience_s: float = 0, only: Sequence[str] = ()) -> RunFolder:
    """Run the points of an experiment, or those that fit a pattern of `only`, into a new folder under `out`.

    Before each it waits at most `patience_s` for a quiet machine. MachineError before anything starts when this machine cannot; RunError when
    a point broke, with the folder kept.
    """
    points = chosen(experiment.points, only)
    return _conduct(experiment, points, lambda: _new_folder(experiment, out, command), watcher, patience_s)


def resume(path: Path, watcher: Watcher, command: list[str], patience_s: float = 0) -> RunFolder:
    """Run the points of an interrupted run that have no rows yet, into its own folder and with its own α; errors as of `run`."""
    experiment, told = reopened(path)
    told.setdefault("resumed", []).append({"command": command, "at": _now(), "machine": machine()})

    def folder() -> RunFolder:
        found = RunFolder(path)
        found.write_json("run.json", told)
        return found

    return _conduct(experiment, left(path, experiment), folder, watcher, patience_s)


def _conduct(experiment: Experiment, points: Sequence[Point], open_folder: Callable[[], RunFolder], watcher: Watcher, patience_s: float) -> RunFolder:
    if refused := refusals(points):
        raise MachineError("; ".join(refused))
    works = [workload(point) for point in points]
    for point, work in zip(points, works, strict=True):
        clamps_of(point, work)
    with _prepared(experiment, points, works) as (place, tcps):
        folder = open_folder()
        watcher.begins(folder.path, points)
        alphas: dict[str, float] = json.loads(folder.path.joinpath(ALPHAS).read_text()) if folder.path.joinpath(ALPHAS).is_file() else {}
        for point, work in zip(points, works, strict=True):
            waited = wait_until_quiet(patience_s, watcher.waiting) if patience_s else None
            alpha_ms = _alpha_ms(point, alphas, folder, place, tcps, watcher)
            watcher.point_begins(point, len(experiment.points))
            rows = _run_point(point, work, folder, place, tcps, alpha_ms, watcher, waited)
            folder.append_rows(rows)
            watcher.rows(rows)
    if {row.point for row in read_rows(folder.path)} == {point.label for point in experiment.points}:
        folder.write_json("finished.json", {"points": len(experiment.points), "at": _now()})
    return folder


@contextlib.contextmanager
def _prepared(experiment: Experiment, points: Sequence[Point], works: Sequence[Workload]) -> Iterator[tuple[Sandbox, Mapping[str, Provided]]]:
    """A sandbox on a machine that has what the points ask for, for the time of the block."""
    with sandbox() as place, contextlib.ExitStack() as held:
        tcps = providers(tcps_of(points), experiment.base, place.folder)
        refuse_unmarked(points, works, tcps)
        # Before ours are offered: what is put back afterwards must not name one that has gone by then.
        for tcp in tcps.values():
            place.set_machine_sysctls(machine_sysctls(tcp))
        held.enter_context(offered(tcps.values()))
        yield place, tcps


@contextlib.contextmanager
def standing(experiment: Experiment, only: Sequence[str] = ()) -> Iterator[tuple[Point, Network]]:
    """The network of an experiment's first point, or of the first that fits `only`: up, controlled and without traffic, for the time of the block."""
    point = chosen(experiment.points, only)[0]
    if refused := refusals([point]):
        raise MachineError("; ".join(refused))
    work = workload(point)
    with _prepared(experiment, [point], [work]) as (place, tcps), stand(point, work, place.folder / "standing", place, tcps) as net:
        yield point, net


def judge_again(path: Path) -> list[Row]:
    """The rows of a recorded run by today's rules, written in place of the old ones; no root, nothing is run.

    RequestError when the folder is no run folder, or its experiment no longer gives the same points.
    """
    read_rows(path)
    told = json.loads((path / "run.json").read_text())
    experiment = load_experiment(path / "experiment.yaml", told.get("overrides"), Path(told["base"]) if "base" in told else None)
    folder, rows = RunFolder(path), []
    for point in experiment.points:
        record = folder.point(point.label)
        if (record / "point.json").is_file():
            alpha_ms = json.loads((record / "point.json").read_text())["alpha_ms"]
            rows += summarise(point, workload(point), record, alpha_ms)
    if not rows:
        raise RequestError(f"{path}: none of its points is one of its experiment.yaml; judge it with the version that ran it")
    (path / "rows.jsonl").unlink()
    folder.append_rows(rows)
    return rows


def _run_point(
    point: Point, work: Workload, folder: RunFolder, place: Sandbox, tcps: Mapping[str, Provided], alpha_ms: float, watcher: Watcher,
    waited: Waited | None,
) -> list[Row]:  # fmt: skip
    path = folder.point(point.label)
    set_aside(path, folder)
    payload = payload_mbps(point.links.mbps, point.links.mtu)
    servers = servers_of(point.fabric, work.ranks, payload)
    largest = max((ideal_ms(schedule, alpha_ms=alpha_ms, payload_mbps=payload, servers=servers) for schedule in work.schedules), default=0.0)
    emulate(point, work, path, place, tcps, largest, watcher.record)
    described = {**point.to_json(), "alpha_ms": alpha_ms, "waited": waited and asdict(waited), **work.to_json()}
    (path / "point.json").write_text(json.dumps(described, indent=1) + "\n")
    return summarise(point, work, path, alpha_ms)


def _alpha_ms(
    point: Point, known: dict[str, float], folder: RunFolder, place: Sandbox, tcps: Mapping[str, Provided], watcher: Watcher
) -> float:
    """α for a point's links and transport, measured once for all points that share them, and the delay of its links."""
    own = point.collective and point.collective.transport
    key = f"{calibrated(point.links).model_dump_json()} {point.transport.model_dump_json(exclude={'hosts'})} {own}"
    if key not in known:
        watcher.calibrating(f"{point.links.mbps:g} Mb/s links, MTU {point.links.mtu}, {point.transport.tcp}")
        path = folder.path / "calibration" / f"{len(known):03d}"
        set_aside(path, folder)
        known[key] = measure_alpha_ms(point, path, place, tcps)
        folder.write_json(ALPHAS, known)
    return known[key] + (point.links.delay_ms or 0.0)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _new_folder(experiment: Experiment, out: Path, command: list[str]) -> RunFolder:
    path = out / f"{experiment.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise RequestError(f"{path} exists already; wait a second, or give another --out") from None
    except OSError as err:
        raise MachineError(f"{path}: cannot be made: {err.strerror}; give a writable folder by --out") from None
    folder = RunFolder(path)
    (path / "experiment.yaml").write_text(experiment.text)
    folder.write_json("run.json", {
        "schema": SCHEMA_VERSION, "question": experiment.question, "experiment": str(experiment.path),
        "base": str(experiment.base.resolve()), "swept": list(experiment.swept), "arms": dict(experiment.arms),
        "expect": [wish.model_dump(exclude_none=True) for wish in experiment.expect],
        "overrides": dict(experiment.overrides), "command": command, "started": _now(), "machine": machine(),
    })  # fmt: skip
    return folder


def machine() -> dict[str, Any]:
    """What a result must name: versions, kernel, processors, memory, git revision."""
    packages = ("mininet", "ryu", "eventlet", "numpy", "scapy", "pyroute2")
    return {
        "fabriclab": __version__,
        "git": _git_revision(),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "packages": {name: version(name) for name in packages},
    }


def _git_revision() -> str | None:
    """The revision of the source tree, with a + when it was changed since; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        words = ["git", "-C", str(here), "-c", f"safe.directory={here.parent}"]
        revision = subprocess.run([*words, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*words, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.stdout.strip() + ("+" if changed.stdout.strip() else "")


def command_line() -> list[str]:
    """The command that this process was started by."""
    return ["fabriclab", *sys.argv[1:]]
