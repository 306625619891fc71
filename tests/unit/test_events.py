"""Timed events: in what order they come, what they touch, which rate is in force when, and what a row says of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.events import (
    Happened,
    Timed,
    degraded,
    describe_events,
    expand,
    in_force,
    ports_of,
    read_happened,
    undone_at,
)
from fabric.experiment import Event, Point, load_experiment
from fabric.fidelity import gather
from fabric.results import Row
from fabric.summary import summarise
from fabric.telemetry import Queues
from fabric.workload import workload
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch

RECORDED = Path(__file__).parents[1] / "data" / "recorded"
LINK = ["p0a0", "g0c0"]


def event(**keys: Any) -> Event:
    """An event of a file."""
    return Event.model_validate({"at_s": 3, "do": "down", **keys})


def done(begin: float, do: str, names: tuple[str, ...] = ("a", "b"), **mbps: float) -> Happened:
    """Something that happened, and took a tenth of a second."""
    return Happened(Timed(begin, do, names), begin, begin + 0.1, mbps)


def test_flaps_come_one_after_the_other() -> None:
    """Repeats of two events interleave in order of time; those of one moment keep the file's order."""
    flaps = [event(link=LINK, times=3, every_s=2), event(at_s=4, link=LINK, do="up", times=3, every_s=2), event(at_s=5, controller=True)]
    assert [(one.at_s, one.do, one.target) for one in expand(flaps)] == [
        (3, "down", "link p0a0-g0c0"), (4, "up", "link p0a0-g0c0"), (5, "down", "link p0a0-g0c0"), (5, "down", "controller"),
        (6, "up", "link p0a0-g0c0"), (7, "down", "link p0a0-g0c0"), (8, "up", "link p0a0-g0c0"),
    ]  # fmt: skip


def test_events_are_told_in_a_few_words() -> None:
    """What a row says; nothing without events."""
    told = describe_events([event(link=LINK, times=10, every_s=2), event(link=LINK, do="rate", mbps=5), event(switch="g0c0")])
    assert told == "3 s link p0a0-g0c0 down 10 times every 2 s; 3 s link p0a0-g0c0 rate 5 Mb/s; 3 s switch g0c0 down"
    assert describe_events([]) is None


def test_an_event_touches_both_directions_of_its_links_and_no_other() -> None:
    """A link has two ends, a core switch of k=4 four links, the controller none."""
    fabric = fat_tree(4)
    assert {port.interface for port in ports_of(fabric, Timed(0, "down", ("g0c0", "p0a0")))} == {"p0a0-eth3", "g0c0-eth1"}
    assert {port.node for port in ports_of(fabric, Timed(0, "down", ("g0c0",)))} == {"g0c0", "p0a0", "p1a0", "p2a0", "p3a0"}
    assert ports_of(fabric, Timed(0, "down")) == ()


def test_events_come_back_from_their_record(tmp_path: Path) -> None:
    """Lines of another kind and a last one that was cut short are passed over; no file is no event."""
    one = Happened(Timed(5, "rate", ("a", "b"), 2.5), 10.0, 10.1, {"a-eth1": 2.5}, {"0": True})
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(one.to_json()) + '\n{"t": 11, "controller": "ready"}\n{"begin": 12')
    assert read_happened(file) == [one]
    assert read_happened(tmp_path / "none") == []


def test_an_event_is_undone_by_its_opposite_on_the_same_target() -> None:
    """Down by up of the same link, named either way round; a rate by any other; else by the end."""
    happened = [done(1, "down"), done(2, "up", ("a", "c")), done(3, "rate"), done(4, "up", ("b", "a"))]
    assert (undone_at(happened, 0, 9), undone_at(happened, 2, 9)) == (4, 4)
    assert undone_at(happened[:2], 0, 9) == 9


def test_the_degraded_stretch_is_after_the_first_failure_of_the_network() -> None:
    """From a second after it to its end; the controller's only where nothing else failed; none in quick flaps."""
    dead = done(1, "down", ())
    assert degraded([dead, done(3, "down"), done(6, "up")], 9) == (4.1, 6)
    assert degraded([dead], 9) == (2.1, 9)
    assert degraded([done(3, "down"), done(4, "up")], 9) is None
    assert degraded([done(3, "up")], 9) is None


def test_the_rate_in_force_follows_the_events() -> None:
    """The higher one while it changes; 0 while down; and only then is the network not whole."""
    t = np.arange(0, 8, 0.5)
    force = in_force(t, {"x": 10, "y": 10}, ("x", "y"), [done(2, "rate", x=4.0), done(4, "down", x=0.0), done(6, "up", x=4.0)])
    assert force.mbps[:, 1].tolist() == [10] * 16
    assert force.mbps[:, 0].tolist() == [10] * 5 + [4] * 4 + [0] * 3 + [4] * 4
    assert force.steady[:, 1].all()
    quiet = [(t[n], t[n + 1]) for n in np.flatnonzero(~force.steady[:, 0])]
    assert quiet[0] == (1.5, 2.0) and all(first >= 3.5 and last <= 6.5 for first, last in quiet[2:])
    assert np.flatnonzero(~force.whole).tolist() == [7, 8, 9, 10, 11, 12]


def test_a_link_is_judged_by_the_rate_in_force() -> None:
    """A link at half its rate that carries half of it is saturated at 1, not at a half; nor is what goes into a dead one lost."""
    fabric = single_switch(2)
    names = tuple(port.interface for port in fabric.peer)
    t = np.arange(0, 6, 0.05)
    zeros = np.zeros((len(t), len(names)), np.int64)
    out, into = names.index("s0-eth2"), names.index("h0-eth0")
    sent, backlog = zeros.copy(), zeros.copy()
    sent[:, into] = sent[:, out] = (np.where(t < 3, t, 3 + (t - 3) / 2) * 1000).astype(np.int64)
    backlog[:, out] = 100
    flat = np.zeros(len(t))
    queues = Queues(names, 50.0, t, flat, flat.astype(np.int64), backlog * 1000, zeros, zeros, sent * 1000, sent)
    asked = {"frame": 1000, "idle_rtt_ms": 1.0, "switches_on_path": 1, "release_late": None}
    mbps = dict.fromkeys(names, 8.0)
    halved = Happened(Timed(3, "rate", ("h1", "s0")), 3.0, 3.0, {"s0-eth2": 4.0, "h1-eth0": 4.0})
    assert gather(queues, [], fabric, mbps, (0, 6), **asked, happened=[halved]).saturated_low == pytest.approx(1, abs=0.01)  # type: ignore[arg-type]
    assert gather(queues, [], fabric, mbps, (0, 6), **asked).saturated_low == pytest.approx(0.75, abs=0.01)  # type: ignore[arg-type]
    dead = sent.copy()
    dead[t >= 3, out] = sent[t < 3, out][-1]
    lost = replace(queues, sent_packets=dead)
    gone = Happened(Timed(3, "down", ("h1", "s0")), 2.98, 2.99, {"s0-eth2": 0.0, "h1-eth0": 0.0})
    assert gather(lost, [], fabric, mbps, (0, 6), **asked, happened=[gone]).unaccounted == 0  # type: ignore[arg-type]
    assert gather(lost, [], fabric, mbps, (0, 6), **asked).unaccounted == pytest.approx(1 / 3, abs=0.01)  # type: ignore[arg-type]


@pytest.fixture(name="point")
def _point() -> Point:
    (point,) = load_experiment(RECORDED / "experiment.yaml").points
    return replace(point, events=(event(at_s=0.2, link=LINK),))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A recorded point, in which an event can be made to have happened."""
    return Path(shutil.copytree(RECORDED / "point", tmp_path / "point"))


def the_row(point: Point, folder: Path) -> Row:
    """The one row of a folder."""
    (row,) = summarise(point, workload(point), folder, json.loads((folder / "point.json").read_text())["alpha_ms"])
    return row


def test_an_event_that_never_came_is_refused(point: Point, folder: Path) -> None:
    """The traffic had ended before: such a row would say nothing of the failure."""
    reason = "1 events never happened, the first: 0.2 s link p0a0-g0c0 down; the traffic had ended before"
    assert the_row(point, folder).refused == reason


def test_the_longest_silence_of_a_connection_that_crossed_the_failure_counts(point: Point, folder: Path) -> None:
    """Not that of others, nor one that ended before, nor one that began later."""
    installed = json.loads((folder / "installed.json").read_text())
    crossed, other = installed["flows"][0], next(path for path in installed["flows"] if path[1] != installed["flows"][0][1])
    (failed,) = set(crossed[1:2]) - set(other)
    records = [json.loads(line) for line in (folder / "traffic" / "records.jsonl").read_text().splitlines()]
    begin = next(record["begin"] for record in records if record["event"] == "load") + 0.2
    for record in records:
        for number, path in enumerate(installed["flows"] if record["event"] == "flows" else []):
            mine = [[begin - 5, 4.9], [begin - 0.1, 0.4], [begin + 0.5, 0.3], [begin + 1.5, 9]]
            record["flows"][str(number)]["silences"] = mine if path == crossed else [[begin, 7]] if failed not in path else []
    (folder / "traffic" / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    happened = Happened(expand(point.events)[0], begin, begin + 0.001, {failed: 0.0})
    (folder / "events.jsonl").write_text(json.dumps(happened.to_json()) + "\n")
    row = the_row(point, folder)
    assert row.recovery_transport_ms == pytest.approx(400)
    assert (row.recovery_data_ms, row.recovery_complete) == (None, None)
    assert row.events == "0.2 s link p0a0-g0c0 down"


def test_iterations_within_the_degraded_stretch_say_how_the_collective_does_afterwards(point: Point, folder: Path) -> None:
    """From a second after the event on; one that began before that is not among them."""
    records = [json.loads(line) for line in (folder / "traffic" / "records.jsonl").read_text().splitlines()]
    iterations = [record for record in records if record["event"] == "iteration" and record["iteration"] >= 0]
    begin = iterations[1]["release"] - 1.0 - 1e-3
    happened = Happened(expand(point.events)[0], begin - 1e-3, begin, {"p0a0-eth3": 0.0})
    (folder / "events.jsonl").write_text(json.dumps(happened.to_json()) + "\n")
    row = the_row(point, folder)
    times = [max(record["ends_ms"]) for record in iterations]
    assert row.ideal_ms is not None and row.after_slowdown == pytest.approx(float(np.median(times[1:])) / row.ideal_ms)
    assert row.slowdown == pytest.approx(float(np.median(times)) / row.ideal_ms)


def test_a_prediction_knows_the_rates_that_events_left(point: Point, folder: Path) -> None:
    """A tenth of the rate on a link of the ring's path: predicted slower, as theory has it."""
    before = json.loads((RECORDED / "expected.json").read_text())["predicted_ms"]
    crossed = json.loads((folder / "installed.json").read_text())["edges"][0][-1][1]
    happened = Happened(expand((event(at_s=0.2, do="rate", mbps=1.0, link=LINK),))[0], 0.0, 0.0, {crossed: 1.0})
    (folder / "events.jsonl").write_text(json.dumps(happened.to_json()) + "\n")
    after = the_row(point, folder).predicted_ms
    assert after is not None and after > 2 * before
