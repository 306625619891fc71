"""What of an experiment is to be run: all of it, the points that somebody names, or what an interrupted run has left.

Comes in: an experiment's points, patterns, a run folder. Goes out: points; what a broken point had recorded is set aside, not thrown away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fabric.errors import RequestError
from fabric.experiment import Experiment, Point, load_experiment
from fabric.results import SCHEMA_VERSION, RunFolder, read_rows

__all__ = ["ALPHAS", "chosen", "left", "reopened", "set_aside"]

ALPHAS = "alphas.json"  # the latencies that ideals were computed with: a run that goes on keeps them
_FEW = 8  # variants that an error lists


def chosen(points: Sequence[Point], patterns: Sequence[str]) -> list[Point]:
    """The points whose folder's name or variant fits one of the patterns (`*` and `?` as in a shell), all without patterns.

    RequestError for a pattern that fits none.
    """
    for pattern in patterns:
        if not any(_fits(point, pattern) for point in points):
            variants = list(dict.fromkeys(point.variant for point in points))
            more = "" if len(variants) <= _FEW else f" and {len(variants) - _FEW} more"
            names = f"{'; '.join(variants[:_FEW])}{more}, or folders such as {points[0].label}"
            raise RequestError(f"--only: got {pattern}, which fits no point; accepted: {names}; write * for any letters, e.g. --only '*-r1'")
    return [point for point in points if not patterns or any(_fits(point, pattern) for pattern in patterns)]


def _fits(point: Point, pattern: str) -> bool:
    return fnmatchcase(point.label, pattern) or fnmatchcase(point.variant, pattern)


def reopened(path: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a run folder as it was begun, and its run.json; RequestError when it cannot go on here."""
    if not (path / "run.json").is_file() or not (path / "experiment.yaml").is_file():
        raise RequestError(f"{path}: not a run folder (it has no run.json and experiment.yaml); accepted: a folder that `fabriclab run` made")
    told = json.loads((path / "run.json").read_text())
    if told.get("schema") != SCHEMA_VERSION or "arms" not in told:
        raise RequestError(f"{path}: was begun by another version of fabriclab; accepted: runs of this one; run its experiment.yaml anew")
    if not Path(told["base"]).is_dir():
        raise RequestError(f"{path}: its experiment's folder {told['base']} is gone, from which it takes files; put it back")
    experiment = load_experiment(path / "experiment.yaml", told["overrides"], Path(told["base"]))
    if {name: list(labels) for name, labels in experiment.arms.items()} != told["arms"]:
        raise RequestError(f"{path}: its experiment.yaml no longer has the arms that were run; put back what was changed, or run it anew")
    return experiment, told


def left(path: Path, experiment: Experiment) -> list[Point]:
    """The points of a run folder that have no row yet; RequestError when there are none."""
    done = {row.point for row in read_rows(path)} if (path / "rows.jsonl").is_file() else set()
    found = [point for point in experiment.points if point.label not in done]
    if not found:
        raise RequestError(f"{path}: all of its {len(experiment.points)} points have been run; see fabriclab show")
    return found


def set_aside(path: Path, folder: RunFolder) -> None:
    """Move what a broken point or calibration had recorded out of the way, to `interrupted/`; nothing where there is none."""
    if path.exists():
        place = folder.path / "interrupted"
        place.mkdir(exist_ok=True)
        path.rename(place / f"{path.name}-{sum(1 for _ in place.iterdir()) + 1}")
