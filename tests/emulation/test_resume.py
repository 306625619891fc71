"""A run that was broken off, or run in part, goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

FILE = """
question: Does it go on?
topology: {use: single-switch, hosts: 2}
links: {mbps: 10}
collective: {use: ring-allreduce, nbytes: [4KiB, 8KiB], iterations: 150, warmup: 0}
controller: {use: two-level}
sweep: {controller.use: [two-level, ecmp, single-path]}
"""


def points(folder: Path) -> list[str]:
    """The point of each row, in order."""
    return [json.loads(line)["point"] for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_an_interrupted_run_goes_on(state: Any, fabriclab: Any, start_alone: Any, wait: Any) -> None:
    """What has rows is not run again, what was broken off is, with the same α; its record is set aside."""
    before, out = state(), fabriclab.folder / "out"
    process = start_alone(fabriclab, "run", str(fabriclab.file(FILE)), "--out", str(out), "--only", "*-r1")
    wait(lambda: [path for path in out.glob("*/points/001-*/traffic/records.jsonl") if '"iteration"' in path.read_text()], "the second point's first iteration")
    os.killpg(process.pid, signal.SIGINT)
    done = fabriclab.finish(process)
    (folder,) = out.iterdir()
    assert done.returncode == 130 and f"to go on: fabriclab resume {folder}" in done.stderr
    rows, alphas = (folder / "rows.jsonl").read_text(), (folder / "alphas.json").read_text()
    assert points(folder) == ["000-two-level-r1"] * 2 and not (folder / "finished.json").exists()
    done = fabriclab.alone("resume", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["point"] for line in done.stdout.splitlines()] == ["001-ecmp-r1"] * 2 + ["002-single-path-r1"] * 2
    assert (folder / "rows.jsonl").read_text().startswith(rows) and (folder / "alphas.json").read_text() == alphas
    assert {json.loads(line)["alpha_ms"] for line in (folder / "rows.jsonl").read_text().splitlines()} == {*json.loads(alphas).values()}
    assert (folder / "interrupted" / "001-ecmp-r1-1" / "traffic").is_dir() and (folder / "finished.json").exists()
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 1
    assert state() == before
    done = fabriclab.call("resume", str(folder))
    assert done.returncode == 2 and done.stderr.strip() == f"fabriclab: {folder}: all of its 3 points have been run; see fabriclab show"


def test_a_run_in_part_says_what_is_left(fabriclab: Any) -> None:
    """Its folder is not finished until the others have been run, too."""
    out = fabriclab.folder / "out"
    done = fabriclab.alone("run", str(fabriclab.file(FILE)), "--out", str(out), "--only", "ecmp")
    (folder,) = out.iterdir()
    assert done.returncode == 0 and points(folder) == ["001-ecmp-r1"] * 2
    assert f"not all points of the file have been run; the others: fabriclab resume {folder}" in done.stderr
    assert not (folder / "finished.json").exists()
