"""Cuts a recorded run down to what `fabric.explain` reads of it: `python make.py RUN FOLDER`.

Comes in: a run folder of one size. Goes out: FOLDER, with each point's slowest iteration, the telemetry of that time on
the collective's links, and its decision log; `expected-*.txt` beside it are the texts, checked by eye.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

BESIDE_S = 0.2


def main(run: Path, folder: Path) -> None:
    """Write the folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("rows.jsonl", "finished.json"):
        shutil.copy(run / name, folder / name)
    write(folder / "run.json", {"question": json.loads((run / "run.json").read_text())["question"]})
    for point in sorted((run / "points").iterdir()):
        cut_point(point, folder / "points" / point.name)


def cut_point(point: Path, to: Path) -> None:
    """Copy what is read, shortened."""
    for name in ("controller", "telemetry", "traffic"):
        (to / name).mkdir(parents=True)
    records = [json.loads(line) for line in (point / "traffic" / "records.jsonl").read_text().splitlines()]
    slowest = max((one for one in records if one["event"] == "iteration"), key=lambda one: max(one["ends_ms"]))
    window = (slowest["release"] - BESIDE_S, slowest["release"] + max(slowest["ends_ms"]) / 1000 + BESIDE_S)
    kept = [shortened(one, window) for one in records if one["event"] in ("iteration", "flows")]
    write_lines(to / "traffic" / "records.jsonl", kept)
    shutil.copy(point / "installed.json", to / "installed.json")
    plan = json.loads((point / "traffic" / "traffic.json").read_text())
    write(to / "traffic" / "traffic.json", {"schedules": plan["schedules"]})
    described = json.loads((point / "point.json").read_text())
    del described["fabric"]
    write(to / "point.json", described)
    network = json.loads((point / "network.json").read_text())
    write(to / "network.json", {key: network[key] for key in ("payload_mbps", "rto_min_ms", "shapes")})
    edges = json.loads((point / "installed.json").read_text())["edges"]
    cut_queues(point / "telemetry" / "queues.jsonl", to, {name for edge in edges for name in edge[3]}, window)
    if (point / "controller" / "decisions.jsonl").is_file():
        log = (point / "controller" / "decisions.jsonl").read_text().splitlines()
        lines = [json.loads(line) for line in log]
        write_lines(to / "controller" / "decisions.jsonl", [one for one in lines if one["event"] != "flow"])


def shortened(record: dict[str, Any], window: tuple[float, float]) -> dict[str, Any]:
    """A record of flows keeps their counts of the window alone."""
    if record["event"] != "flows":
        return record
    for flow in record["flows"].values():
        inside = [n for n, t in enumerate(flow["t"]) if window[0] <= t <= window[1]]
        flow.update({key: [flow[key][n] for n in inside] for key in ("t", "nbytes")}, silences=[])
    return record


def cut_queues(path: Path, to: Path, names: set[str], window: tuple[float, float]) -> None:
    """Samples of the window, of these interfaces."""
    header, *samples = [json.loads(line) for line in path.read_text().splitlines()]
    columns = [n for n, name in enumerate(header["interfaces"]) if name in names]
    for line in (header, *samples):
        for key in header["fields"] if line is not header else ("interfaces",):
            line[key] = [line[key][n] for n in columns]
    write_lines(to / "telemetry" / "queues.jsonl", [header, *(one for one in samples if window[0] <= one["t"] <= window[1])])


def write(path: Path, data: Any) -> None:
    """One JSON object."""
    path.write_text(json.dumps(data, separators=(",", ":")) + "\n")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
