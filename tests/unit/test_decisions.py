"""The decision log is written line by line and read back the same."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fabric.decisions import DecisionLog, count, interfaces, read_decisions
from fabric.errors import RunError
from fabric.graph import Port

PATH = (Port("h0", 0), Port("s0", 3), Port("s1", 1))


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    """Event and time first, then the fields as they were given."""
    log = DecisionLog(tmp_path)
    log.write("link", t=1.5, port="s0-eth3", up=False)
    log.write("reroute", t=2.0, tick=7, old=None, new=interfaces(PATH), numbers={"demand_mbps": 20.0})
    first, second = read_decisions(tmp_path)
    assert first == {"event": "link", "t": 1.5, "port": "s0-eth3", "up": False}
    assert second["new"] == ["h0-eth0", "s0-eth3", "s1-eth1"] and second["old"] is None
    assert list(second)[:2] == ["event", "t"]


def test_without_a_time_it_is_now(tmp_path: Path) -> None:
    """On the clock that everything else in a run folder is on."""
    before = time.monotonic()
    DecisionLog(tmp_path).write("flow", flow="a")
    (line,) = read_decisions(tmp_path)
    assert before - 1e-6 <= line["t"] <= time.monotonic() + 1e-6


def test_a_line_is_whole_on_disk_at_once(tmp_path: Path) -> None:
    """While the controller runs, and if it is killed the next moment."""
    log = DecisionLog(tmp_path)
    for number in range(3):
        log.write("flow", flow=str(number))
        text = (tmp_path / "decisions.jsonl").read_text()
        assert text.endswith("\n") and len([json.loads(line) for line in text.splitlines()]) == number + 1


def test_a_second_life_goes_on_in_the_same_log(tmp_path: Path) -> None:
    """Nothing of the first one's is lost."""
    for number in (1, 2):
        DecisionLog(tmp_path).write("resynchronised", t=float(number), flows=number)
    assert [line["flows"] for line in read_decisions(tmp_path)] == [1, 2]


def test_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    """A crash leaves what was written."""
    DecisionLog(tmp_path).write("flow", t=1.0)
    with open(tmp_path / "decisions.jsonl", "a") as file:
        file.write('{"event":"flo')
    assert [line["t"] for line in read_decisions(tmp_path)] == [1.0]


def test_a_line_that_is_no_json_is_refused(tmp_path: Path) -> None:
    """With the file's name."""
    (tmp_path / "decisions.jsonl").write_text("hello\n")
    with pytest.raises(RunError) as error:
        read_decisions(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'decisions.jsonl'}: is not a decision log (")


def test_a_controller_without_a_log_has_decided_nothing(tmp_path: Path) -> None:
    """ECMP keeps none."""
    assert read_decisions(tmp_path) == []


def test_counting_is_by_event_within_the_window() -> None:
    """Both ends belong to it."""
    lines = [{"event": "reroute", "t": t} for t in (1.0, 2.0, 3.0, 4.0)] + [{"event": "flow", "t": 2.5}]
    assert count(lines, "reroute", (2.0, 3.0)) == 2
    assert count(lines, "reroute", (5.0, 9.0)) == 0


def test_a_path_that_nobody_knows_stays_unknown() -> None:
    """None, not an empty list."""
    assert interfaces(None) is None and interfaces(()) == []
