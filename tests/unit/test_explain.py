"""What is said of a recorded run: the exact words, where each figure comes from, and what the record does not say.

`tests/data/explained/ring` is cut from a real run: a ring all-reduce of 8 ranks beside elephants, with ECMP and with
adaptive routing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from fabric.cli import app
from fabric.errors import RequestError
from fabric.explain import _iterations_within, explain
from fabric.recorded import Recorded
from fabric.telling import told
from fabric.tracks import Tracks

EXPLAINED = Path(__file__).parents[1] / "data" / "explained"
ECMP, ADAPTIVE = "000-ecmp-r1", "001-adaptive-r1"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A copy that a test may falsify."""
    return Path(shutil.copytree(EXPLAINED / "ring", tmp_path / "ring"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_lines(path: Path, change: Callable[[Any], Any]) -> None:
    """Change every line of a JSONL file in place."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def add_decisions(folder: Path, *lines: dict[str, Any]) -> None:
    """Append lines to the adaptive point's decision log."""
    with open(folder / "points" / ADAPTIVE / "controller" / "decisions.jsonl", "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def slow_stream(folder: Path) -> dict[str, Any]:
    """A move of the adaptive point's slowest flow, 100 ms into its slowest iteration; other fields as the log has them."""
    found = explain(folder, ADAPTIVE)
    tracks = Tracks(Recorded(folder / "points" / ADAPTIVE))
    assert found.slow is not None
    stream = next(one for one in tracks.streams if one.name == found.slow.name)
    path = tracks.path(stream, found.work.begin)
    assert path is not None
    new = [path[0], "p1e0-eth4", "p1a1-eth3", "g1c0-eth4", "p3a1-eth2", path[-1]]
    return {
        "event": "reroute", "t": found.work.begin + 0.1, "tick": 1, "flow": stream.key, "src": stream.src, "dst": stream.dst,
        "old": list(path), "new": new, "signal": "syn", "mbps": 5.0, "reason": "its fullest link was full", "numbers": {"worst": 2.0},
    }  # fmt: skip


@pytest.mark.parametrize("point", [ECMP, ADAPTIVE])
def test_a_recorded_point_is_told_in_these_words(point: str) -> None:
    """Every sentence and every number, on any machine."""
    assert told(explain(EXPLAINED / "ring", point)) + "\n" == (EXPLAINED / f"expected-{point}.txt").read_text()


def test_without_a_point_the_slowest_is_explained(folder: Path) -> None:
    """By time over ideal; and it says that there are others."""
    found = explain(folder)
    assert (found.point, found.chosen, found.points) == (ECMP, True, 2)
    assert "It is the slowest of 2 points" in told(found)


def test_the_slowest_edge_is_the_one_that_was_busy_longest(folder: Path) -> None:
    """Bytes that reach a rank's host late make its incoming edge the slowest, whatever the model says of shares."""
    found = explain(folder, ADAPTIVE)
    assert found.slow is not None and (found.slow.by, found.slow.name) == ("byte counts", "rank 5 -> 6")
    seen = Recorded(folder / "points" / ADAPTIVE)
    (last,) = (path[-1] for edge, path in seen.edge_paths.items() if edge == (1, 2, 0) and path)
    column = seen.queues.interfaces.index(last)
    last_sent = seen.queues.sent_bytes[-1].tolist()

    def late(line: Any) -> None:
        """Elsewhere all has come after 100 ms."""
        if line.get("t", 0) > found.work.begin + 0.1:
            line["sent_bytes"] = [sent if n == column else last_sent[n] for n, sent in enumerate(line["sent_bytes"])]

    edit_lines(folder / "points" / ADAPTIVE / "telemetry" / "queues.jsonl", late)
    slow = explain(folder, ADAPTIVE).slow
    assert slow is not None and slow.name == "rank 1 -> 2"


def test_where_hosts_have_other_traffic_the_model_tells_and_says_so(folder: Path) -> None:
    """Byte counts of a host with a background flow are not the collective's."""
    def on_a_rank(data: Any) -> None:
        data["flows"][0]["dst"] = data["placement"][0]

    edit(folder / "points" / ECMP / "point.json", on_a_rank)
    found = explain(folder, ECMP)
    assert found.slow is not None and found.slow.by == "fluid model" and found.slow.busy_ms is None
    assert "byte counts of hosts cannot tell it" in told(found)


def test_the_share_on_a_link_is_max_min(folder: Path) -> None:
    """Those who share the fullest link are those whose path crosses it, and their shares fit into its payload rate."""
    link = explain(folder, ECMP).link
    assert link is not None
    tracks = Tracks(seen := Recorded(folder / "points" / ECMP))
    crossing = {one.name for one in tracks.streams if link.interface in (tracks.path(one, 0.0) or ())}
    assert {one.name for one in link.sharers} == crossing
    assert sum(one.fair_mbps or 0 for one in link.sharers) <= seen.network["payload_mbps"] * (1 + 1e-9)
    assert link.explained == pytest.approx(1, abs=0.05)


def test_a_path_that_is_not_where_packets_went_is_said(folder: Path) -> None:
    """The byte counters of a link do not fit a record that leaves its elephant out."""
    link = explain(folder, ECMP).link
    assert link is not None
    (number,) = (int(one.name.split()[1]) for one in link.sharers if one.name.startswith("flow"))

    def elsewhere(data: Any) -> None:
        data["flows"][number] = data["flows"][number - 1]

    edit(folder / "points" / ECMP / "installed.json", elsewhere)
    found = explain(folder, ECMP)
    assert found.link is not None and found.link.explained < 0.5
    assert "some flow went another way than the record says" in told(found)


def test_a_move_meanwhile_is_told_with_its_reason_and_outcome(folder: Path) -> None:
    """When, from where to where, why, what came of it; and the flow's path before and after it."""
    move = slow_stream(folder)
    outcome = {"event": "outcome", "t": move["t"] + 3.2, "flow": move["flow"], "before_mbps": 5.0, "after_mbps": 9.5}
    add_decisions(folder, move, outcome)
    found = explain(folder, ADAPTIVE)
    (told_move,) = found.moves
    assert told_move.concerned and (told_move.before_mbps, told_move.after_mbps) == (5.0, 9.5)
    assert told_move.at_ms == pytest.approx(100)
    text = told(found)
    assert "from p1a0 > g0c0 > p3a0 to p1a1 > g1c0 > p3a1: its fullest link was full (worst 2)" in text
    assert "5.00 Mb/s before, 9.50 Mb/s some seconds later" in text
    assert found.slow is not None
    if found.slow.name == told_move.name:
        assert [leg.nodes[2] for leg in found.slow.legs] == ["p1a0", "p1a1"]


def test_an_outcome_that_is_not_there_is_said_to_be_so(folder: Path) -> None:
    """A run that ended soon after a move has no outcome line."""
    add_decisions(folder, slow_stream(folder))
    assert "its outcome is not recorded" in told(explain(folder, ADAPTIVE))


def test_paths_that_no_rule_tells_are_said_to_be_missing(folder: Path) -> None:
    """Without any path there is no link to name, and nothing is made up."""
    def forget(data: Any) -> None:
        data["edges"] = [[*edge[:3], None] for edge in data["edges"]]
        data["flows"] = [None for _ in data["flows"]]

    edit(folder / "points" / ECMP / "installed.json", forget)
    found = explain(folder, ECMP)
    assert found.slow is None and found.link is None
    assert "The record does not say which flow was slowest" in told(found)


def load_alone(folder: Path) -> None:
    """Make the ECMP point one of a load alone, and slow its flow 3 down to a quarter."""
    point = folder / "points" / ECMP
    records = [json.loads(line) for line in (point / "traffic" / "records.jsonl").read_text().splitlines()]
    (flows,) = [one for one in records if one["event"] == "flows"]
    times = flows["flows"]["0"]["t"]
    flows["flows"]["3"]["nbytes"] = [nbytes // 4 for nbytes in flows["flows"]["3"]["nbytes"]]
    lines = [{"t": 0, "event": "load", "begin": times[2], "end": times[-2]}, flows]
    (point / "traffic" / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = json.loads((folder / "rows.jsonl").read_text().splitlines()[0])
    row.update(dict.fromkeys(("collective", "nbytes", "p50_ms", "max_ms", "ideal_ms", "ranks")), load="elephants pairs=4")
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")


def test_of_a_load_alone_the_slowest_flow_is_explained(folder: Path) -> None:
    """By its goodput against its share on one ideal switch."""
    load_alone(folder)
    found = explain(folder)
    assert found.slow is not None
    assert (found.slow.name, found.slow.by, found.work.iteration) == ("flow 3", "goodput", None)
    assert found.slow.ideal_mbps == pytest.approx(9.9268, abs=1e-3)
    assert "Times count from its begin" in told(found) and "The slowest flow was flow 3, from p3e0h1 to p2e0h1" in told(found)


def test_a_degraded_link_counts_as_full_at_its_own_rate(folder: Path) -> None:
    """At half its rate a link is full when it carries half; shares are of that half."""
    seen = Recorded(folder / "points" / ECMP)
    name = explain(folder, ECMP).link
    assert name is not None
    line = {
        "begin": seen.queues.t[0] - 1, "end": seen.queues.t[0] - 1, "at_s": 1.0, "do": "rate", "names": ["p2a1", "p2e0"], "mbps": 5.0,
        "probe": False, "in_force": {name.interface: 5.0}, "crossing": {},
    }  # fmt: skip
    (seen.folder / "events.jsonl").write_text(json.dumps(line) + "\n")
    found = explain(folder, ECMP)
    assert found.link is not None and found.link.interface == name.interface
    assert found.link.share == pytest.approx(2 * name.share, rel=0.01)
    assert sum(one.fair_mbps or 0 for one in found.link.sharers) <= 5.0
    assert len(found.events) == 1 and "link p2a1-p2e0 rate" in told(found)


def finished(folder: Path) -> None:
    (folder / "finished.json").unlink()


def no_rows(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()


def no_telemetry(folder: Path) -> None:
    (folder / "points" / ECMP / "telemetry" / "queues.jsonl").unlink()


@pytest.mark.parametrize(
    ("spoil", "point", "message"),
    [
        (finished, None, f"the run did not finish; accepted: a run with finished.json; name a point that ended, by --point: {ECMP}"),
        (no_rows, None, "not a run folder"),
        (no_telemetry, ECMP, "has no telemetry/queues.jsonl; accepted: a point's folder as the run left it"),
        (finished, "nowhere", f"no rows of point 'nowhere'; accepted: {ECMP}, {ADAPTIVE}"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    folder: Path, spoil: Callable[[Path], None], point: str | None, message: str
) -> None:
    """The error says what is there instead."""
    spoil(folder)
    with pytest.raises(RequestError) as caught:
        explain(folder, point)
    assert message in str(caught.value)


def test_a_point_of_an_unfinished_run_may_be_named(folder: Path) -> None:
    """What ended before the interruption is recorded whole."""
    finished(folder)
    assert explain(folder, ADAPTIVE).point == ADAPTIVE


def test_the_verb_prints_the_words_or_one_object(folder: Path) -> None:
    """Text for a person; with --json one line that holds the same figures."""
    text = CliRunner().invoke(app, ["explain", str(folder), "--point", ECMP])
    assert text.exit_code == 0 and text.stdout == (EXPLAINED / f"expected-{ECMP}.txt").read_text()
    answer = CliRunner().invoke(app, ["explain", str(folder), "--json"])
    data = json.loads(answer.stdout)
    assert data["work"]["time_ms"] == pytest.approx(max(data["work"]["ends_ms"].values()))
    assert data["slow"]["name"] == "rank 3 -> 4" and data["link"]["interface"] == "p2a1-eth1"


def test_a_job_with_another_clock_is_counted_by_what_fell_into_the_window() -> None:
    """One iteration that it ends, half of one that it cuts, none of another size or job."""
    iterations = [
        {"nbytes": 8, "ranks": [1, 3], "release": 0.5, "ends_ms": [900.0, 1000.0]}, {"nbytes": 8, "ranks": [1, 3], "release": 2.5, "ends_ms": [1000.0, 400.0]},
        {"nbytes": 4, "ranks": [1, 3], "release": 1.6, "ends_ms": [100.0, 100.0]}, {"nbytes": 8, "ranks": [0, 2], "release": 1.6, "ends_ms": [100.0, 100.0]},
    ]  # fmt: skip
    seen = cast(Recorded, SimpleNamespace(event=lambda _: iterations))
    assert _iterations_within(seen, "collective", 3, 8, (0.0, 3.0)) == pytest.approx(1.5)
    assert _iterations_within(seen, "collective", 3, 8, (1.5, 2.5)) == 0.0
