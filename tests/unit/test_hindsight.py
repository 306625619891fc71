"""Rows of controllers that keep a decision log: what they count, and when a log without a move refuses the row."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fabric.experiment import Controller, Point, load_experiment
from fabric.hindsight import better_paths
from fabric.load import Flow
from fabric.results import Row
from fabric.summary import summarise
from fabric.workload import Workload, workload
from topologies.fat_tree import fat_tree

RECORDED = Path(__file__).parents[1] / "data" / "recorded"


@pytest.fixture(name="point", scope="module")
def _point() -> Point:
    (point,) = load_experiment(RECORDED / "experiment.yaml").points
    return point


@pytest.fixture(name="work", scope="module")
def _work(point: Point) -> Workload:
    return workload(point)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A copy that a test may falsify; its controller keeps a decision log, which is empty."""
    folder = Path(shutil.copytree(RECORDED / "point", tmp_path / "000-ecmp-r1"))
    (folder / "controller" / "decisions.jsonl").write_text("")
    return folder


def the_row(point: Point, work: Workload, folder: Path) -> Row:
    """The one row of a point folder."""
    alpha_ms = json.loads((folder / "point.json").read_text())["alpha_ms"]
    (row,) = summarise(point, work, folder, alpha_ms)
    return row


def polled(point: Point, poll_ms: int) -> Point:
    """The point with another period of the controller's loop."""
    return replace(point, controller=point.controller.model_copy(update={"poll_ms": poll_ms}))


def measured(folder: Path) -> tuple[float, float]:
    """The release of the first measured iteration, and the end of the last."""
    records = [json.loads(line) for line in (folder / "traffic" / "records.jsonl").read_text().splitlines()]
    found = [record for record in records if record["event"] == "iteration" and record["iteration"] >= 0]
    return found[0]["release"], found[-1]["release"] + max(found[-1]["ends_ms"]) / 1000


def log(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / "controller" / "decisions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def at(t: float, event: str, **fields: Any) -> dict[str, Any]:
    return {"event": event, "t": t, "flow": "10.0.0.2:1>10.0.0.3:2", **fields}


def apart(point: Point, work: Workload, folder: Path) -> None:
    """Install paths on which nobody is in anybody's way, as far as that can be."""
    data = json.loads((folder / "installed.json").read_text())
    streams = [*(Flow(*work.hosts_by_edge[edge]) for edge in work.edges), *work.flows]
    installed = [edge[3] for edge in data["edges"]] + data["flows"]
    paths = better_paths(point.fabric, streams, installed, 20.0)
    data["edges"] = [[*edge[:3], path] for edge, path in zip(data["edges"], paths, strict=False)]
    data["flows"] = paths[len(data["edges"]) :]
    (folder / "installed.json").write_text(json.dumps(data))


def test_reroutes_are_those_of_the_measured_window(point: Point, work: Workload, folder: Path) -> None:
    """One before, two within, one after: two."""
    begin, end = measured(folder)
    log(folder, *(at(t, "reroute") for t in (begin - 1, begin, end, end + 1)), at(begin, "held", reason="moved a moment ago"))
    row = the_row(point, work, folder)
    assert (row.reroutes, row.refused) == (2, None)


def test_a_log_without_moves_counts_0_and_no_log_nothing(point: Point, work: Workload, folder: Path) -> None:
    """Moved nothing is another thing than cannot move."""
    apart(point, work, folder)
    assert the_row(point, work, folder).reroutes == 0
    (folder / "controller" / "decisions.jsonl").unlink()
    assert the_row(point, work, folder).reroutes is None


def test_nothing_moved_where_a_move_would_have_helped_is_refused(point: Point, work: Workload, folder: Path) -> None:
    """Three flows on one uplink of pod 3's first aggregation switch, a ring's edge among them: they could be apart."""
    data = json.loads((folder / "installed.json").read_text())
    up = ["p3e1-eth3", "p3a0-eth4"]
    data["edges"][2][3] = ["p3e1h1-eth0", *up, "g0c1-eth1", "p0a0-eth2", "p0e1-eth2"]
    data["flows"][2] = ["p3e0h1-eth0", "p3e0-eth3", up[1], "g0c1-eth2", "p1a0-eth1", "p1e0-eth2"]
    data["flows"][3] = ["p3e1h1-eth0", *up, "g0c1-eth2", "p1a0-eth2", "p1e1-eth2"]
    (folder / "installed.json").write_text(json.dumps(data))
    refused = the_row(polled(point, 10), work, folder).refused
    assert refused is not None
    assert refused.startswith("the controller moved nothing, though on the installed paths the collective is ")
    assert the_row(polled(point, 5000), work, folder).refused is None, "a loop slower than what was measured is a result"


def test_nothing_moved_where_nothing_would_have_helped_is_reported(point: Point, work: Workload, folder: Path) -> None:
    """An idle controller is no fault where flows are apart already."""
    apart(point, work, folder)
    assert the_row(point, work, folder).refused is None


def test_a_move_that_was_held_back_is_refused_whatever_the_model_says(point: Point, work: Workload, folder: Path) -> None:
    """The log itself shows what the policy wanted."""
    apart(point, work, folder)
    begin, _ = measured(folder)
    log(folder, at(begin + 0.1, "held", reason="the switch is not connected"))
    assert the_row(point, work, folder).refused == (
        "the controller moved nothing, though its policy wanted 1 moves; the first, of 10.0.0.2:1>10.0.0.3:2, was held: "
        "the switch is not connected"
    )


@pytest.mark.parametrize("event", ["reroute", "reweight"])
def test_what_was_done_before_the_window_counts_as_done(point: Point, work: Workload, folder: Path, event: str) -> None:
    """Placed in the warm-up, or by weights, is placed."""
    begin, _ = measured(folder)
    log(folder, at(begin - 0.5, event))
    row = the_row(point, work, folder)
    assert (row.refused, row.reroutes) == (None, 0)


@pytest.mark.parametrize(
    ("controller", "policy"),
    [
        (Controller.model_validate({"use": "adaptive"}), "exact"),
        (Controller.model_validate({"use": "adaptive", "policy": "first-fit"}), "first-fit"),
        (Controller.model_validate({"use": "ecmp"}), None),
    ],
)
def test_a_row_names_the_policy_in_force(
    point: Point, work: Workload, folder: Path, controller: Controller, policy: str | None
) -> None:
    """Also where the file leaves it to the controller's own default."""
    (folder / "controller" / "decisions.jsonl").unlink()
    assert the_row(replace(point, controller=controller), work, folder).policy == policy


def test_better_paths_keep_flows_apart() -> None:
    """Two flows on one uplink: afterwards no link carries both."""
    both = ["p0e0-eth3", "p0a0-eth3", "g0c0-eth2", "p1a0-eth1"]
    installed = [["p0e0h0-eth0", *both, "p1e0-eth1"], ["p0e0h1-eth0", *both, "p1e0-eth2"]]
    first, second = better_paths(fat_tree(4), [Flow("p0e0h0", "p1e0h0"), Flow("p0e0h1", "p1e0h1")], installed, 10.0)
    assert not set(first) & set(second)
