"""What links ask to be delayed and lost, what that would cost in user space, and what the line's record says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from fabric import run
from fabric.calibration import calibrated
from fabric.delay import MOST_CORES, Delay, cores_needed, delay_of, fastest_mbps, line_seen, round_trip_ms
from fabric.errors import MachineError
from fabric.experiment import Point, load_experiment
from fabric.keys import Links
from fabric.nfqueue import queue_what_comes_in

EXPERIMENT = """
question: What would it cost?
topology: {use: single-switch, hosts: 16}
links: {mbps: 20, mtu: 1500, delay_ms: 5}
controller: {use: two-level}
"""



class Silent:
    """A watcher that says nothing."""

    def calibrating(self, what: str) -> None:
        """Nothing."""


ALL = "load: [{use: stride, step: 8}]\nduration_s: 1"
PACED = "load: [{use: stride, step: 8, mbps: 2}]\nduration_s: 1"
TWO = "collective: {use: ring-allreduce, ranks: 2, nbytes: 8}"


def point(folder: Path, traffic: str) -> Point:
    """The point of an experiment with this traffic."""
    file = folder / "experiment.yaml"
    file.write_text(EXPERIMENT + traffic)
    return load_experiment(file).points[0]


def with_links(one: Point, **changes: object) -> Point:
    """The same with other links."""
    return replace(one, links=one.links.model_copy(update=changes))


@pytest.mark.parametrize(
    ("links", "delay", "round_trip"),
    [
        (Links(mbps=20), None, 0),
        (Links(mbps=20, delay_ms=0, loss_percent=0), None, 0),
        (Links(mbps=20, delay_ms=2.5), Delay(2.5, 0.0), 5),
        (Links(mbps=20, loss_percent=1), Delay(0.0, 0.01), 0),
    ],
)
def test_what_is_asked(links: Links, delay: Delay | None, round_trip: float) -> None:
    """A delay is one way; a delay and a loss of 0 are none."""
    assert (delay_of(links), round_trip_ms(links)) == (delay, round_trip)


def test_alpha_is_measured_without_delay_and_loss() -> None:
    """A loss would measure TCP's timers, a delay how late ranks wake; all arms share one measurement."""
    links = Links(mbps=20, delay_ms=5, loss_percent=1)
    assert calibrated(links) == Links(mbps=20)
    assert calibrated(Links(mbps=20, mtu=9000)) != calibrated(links)


def test_alpha_holds_the_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured once and the delay of each arm's links, exactly."""
    measured = iter([0.25])
    monkeypatch.setattr(run, "measure_alpha_ms", lambda *_: next(measured))
    known: dict[str, float] = {}
    arms = [with_links(point(tmp_path, TWO), delay_ms=delay) for delay in (None, 5, 20)]
    folder, place, tcp, watcher = cast(Any, run.RunFolder(tmp_path)), cast(Any, None), cast(Any, None), cast(Any, Silent())
    assert [run._alpha_ms(arm, known, folder, place, tcp, watcher) for arm in arms] == [0.25, 5.25, 20.25]


def test_cost_grows_with_packets_and_only_with_those_that_come(tmp_path: Path) -> None:
    """In proportion to the rate, against the packets' size; only hosts that receive count, and no more than is sent to them."""
    full = point(tmp_path, ALL)
    assert cores_needed(with_links(full, mbps=10.0)) == pytest.approx(cores_needed(full) / 2)
    assert cores_needed(with_links(full, mtu=9000)) == pytest.approx(cores_needed(full) * 1514 / 9014)
    assert cores_needed(point(tmp_path, TWO)) == pytest.approx(cores_needed(full) / 8)
    assert cores_needed(point(tmp_path, PACED)) == pytest.approx(cores_needed(full) / 10)


@pytest.mark.parametrize("traffic", [ALL, TWO, "load: [{use: stride, step: 8}, {use: stride, step: 1, mbps: 2}]\nduration_s: 1"])
def test_the_rate_that_is_named_would_do(tmp_path: Path, traffic: str) -> None:
    """It holds, and a tenth more does not."""
    fast = with_links(point(tmp_path, traffic), mbps=900.0)
    mbps = fastest_mbps(fast)
    assert cores_needed(with_links(fast, mbps=mbps)) <= MOST_CORES < cores_needed(with_links(fast, mbps=1.1 * mbps))


def totals(folder: Path, *lines: dict[str, float]) -> Path:
    """A line's record."""
    (folder / "delay.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_window_is_judged_by_what_happened_in_it(tmp_path: Path) -> None:
    """Between the last line before it and the first after it; shares of what was released and of what came."""
    base = {"t": 10.0, "packets": 100, "released": 90, "lost": 5, "late": 50, "waiting": 5, "overrun": 7, "cpu_s": 1.0}
    begin = {**base, "t": 11.0}
    end = {**base, "t": 13.0, "packets": 300, "released": 290, "lost": 7, "late": 60, "overrun": 57, "cpu_s": 1.5}
    after = {**end, "t": 14.0, "late": 160}
    seen = line_seen(totals(tmp_path, base, begin, end, after), (11.1, 12.9))
    assert seen is not None
    assert (seen.late, seen.overrun, seen.lost, seen.cores, seen.packets_a_second) == (10 / 200, 50 / 250, 2, 0.25, 100)


def test_without_a_line_there_is_nothing_to_judge(tmp_path: Path) -> None:
    """No folder, no evidence; and a window before the first line and after the last is the whole record."""
    assert line_seen(tmp_path / "delay", (0, 1)) is None
    only = {"t": 1.0, "packets": 0, "released": 0, "lost": 0, "late": 0, "waiting": 0, "overrun": 0, "cpu_s": 0.0}
    seen = line_seen(totals(tmp_path, only), (0, 2))
    assert seen is not None and (seen.late, seen.overrun, seen.cores) == (0, 0, 0)


def test_without_a_tool_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No iptables, and one that fails: a line each, with what to do or what it said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"^no iptables to queue packets with: install it \(\.ci/provision\)$"):
        queue_what_comes_in()
    tool = tmp_path / "iptables"
    tool.write_text("#!/bin/sh\necho 'no such target' >&2\nexit 2\n")
    tool.chmod(0o755)
    with pytest.raises(MachineError, match=r"^iptables said: no such target$"):
        queue_what_comes_in()
