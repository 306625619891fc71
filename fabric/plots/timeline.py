"""Jobs over time, a lane a job: when each computed, when it communicated, and when it shared links with another one.

Comes in: points with jobs, and their iteration records. Goes out: the drawing of one point a variant, and its table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fabric.plots.frame import COLOURS, GREY, WIDTH, Plot, Table, grouped, wrapped
from fabric.recorded import Recorded
from fabric.results import Row
from fabric.sharing import communicating, shared
from fabric.tracks import Tracks, Window

__all__ = ["TIMELINE"]

_MOST = 4  # points that are drawn: each needs the whole width
SHARING = COLOURS[1]


def _pick(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """Each variant that has jobs, or several where any has, in the repeat in which most of them passed."""
    there = [row for row in rows if row.job and not row.refused and (folder / "points" / row.point / "traffic" / "records.jsonl").is_file()]
    several = [row for row in there if len(json.loads((folder / "points" / row.point / "point.json").read_text())["parts"]) > 1]
    by_repeat = grouped(several or there, lambda row: row.repeat)
    best = max(by_repeat.values(), key=lambda mine: sum(row.fidelity == "PASS" for row in mine), default=[])
    return best[:_MOST]


def _paint(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    found = [_read(folder / "points" / row.point) for row in rows]
    lanes = [len(jobs) for jobs in found]
    figure.set_size_inches(WIDTH, 1.9 + sum(0.7 + 0.42 * count for count in lanes))
    axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True, height_ratios=lanes).ravel()
    lines: list[tuple[Any, ...]] = []
    for axis, row, jobs in zip(axes, rows, found, strict=True):
        zero = min(begin for job in jobs.values() for begin, _ in job["computing"] + job["communicating"])
        for place, (name, job) in enumerate(jobs.items()):
            for what, stretches in job.items():
                lines += [(row.variant, row.point, name, what, round(begin - zero, 5), round(end - zero, 5)) for begin, end in stretches]
            _lane(axis, place, COLOURS[(place * 2) % len(COLOURS)], {what: [(a - zero, b - a) for a, b in own] for what, own in job.items()})
        axis.set_yticks(range(len(jobs)), list(jobs))
        axis.set_ylim(len(jobs) - 0.4, -0.6)
        axis.grid(visible=False)
        axis.set_title(wrapped(f"{row.variant}, seed {row.seed}", 100), loc="left")
    axes[-1].set_xlabel("s since the first job began")
    entries = [
        Line2D([], [], color=GREY, lw=3, label="a backward pass"), Patch(color=GREY, alpha=0.6, label="communicating"),
        Line2D([], [], color=SHARING, lw=3, label="sharing a link's direction with another job that communicates"),
    ]  # fmt: skip
    figure.legend(handles=entries, loc="outside upper left", ncols=3, alignment="left")
    reading = "warm-ups included · a job is drawn as communicating from its last rank's begin to its last rank's end"
    return Table(("variant", "point", "job", "what", "begin_s", "end_s"), tuple(lines)), reading


def _read(point: Path) -> dict[str, dict[str, list[Window]]]:
    """By job: its backward passes, its communications, and when it shared links."""
    tracks = Tracks(seen := Recorded(point))
    records, found = seen.event("iteration"), {}
    for name, asked in _asked(tracks).items():
        begun = sorted({one["begun"] for one in records if one["job"] == name})
        backward_s = asked.get("backward_ms", 0.0) / 1000
        met = sorted(window for windows in shared(tracks, records, tracks.members, name).values() for window in windows)
        found[name] = {
            "computing": [(one, one + backward_s) for one in begun if backward_s], "communicating": communicating(records, name), "sharing": met,
        }  # fmt: skip
    return found


def _asked(tracks: Tracks) -> dict[str, Mapping[str, Any]]:
    return dict(zip([part["name"] for part in tracks.point["parts"]], tracks.point["jobs"], strict=True))


def _lane(axis: Any, place: int, colour: str, stretches: Mapping[str, Sequence[Window]]) -> None:
    axis.broken_barh(stretches["communicating"], (place - 0.3, 0.5), facecolor=colour, alpha=0.6, edgecolor="white", lw=0.4)
    axis.broken_barh(stretches["computing"], (place - 0.42, 0.1), color=GREY, lw=0)
    axis.broken_barh(stretches["sharing"], (place + 0.22, 0.12), color=SHARING, lw=0)


TIMELINE = Plot(
    "jobs over time: when each computed and communicated, and when it shared links with another",
    "rows with jobs",
    _pick,
    _paint,
)
