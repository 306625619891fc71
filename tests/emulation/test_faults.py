"""Timed events on real networks: what goes down is down, what comes up carries again, and what is measured is what was lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.events import Happened, read_happened
from fabric.prober import PAYLOAD_BYTES

pytestmark = pytest.mark.emulation

PROBE_MBPS = 1000 * (14 + 20 + 8 + PAYLOAD_BYTES) * 8e-6  # on each direction of the link: Ethernet, IPv4, UDP and the payload

LINE = Path(__file__).with_name("line.py")
FAULTS = """
question: What do a pulled cable, a slower one, a dead controller and a dead switch do?
topology: {use: ./line.py}
links: {mbps: 5}
load: [{use: stride, step: 2}]
controller: {use: single-path}
duration_s: 16
events:
  - {at_s: 2, link: [left, right], do: down}
  - {at_s: 3.3, link: [left, right], do: up}
  - {at_s: 6, link: [left, right], do: rate, mbps: 2}
  - {at_s: 8, link: [left, right], do: rate, mbps: 5}
  - {at_s: 8.5, controller: true, do: down}
  - {at_s: 10, controller: true, do: up}
  - {at_s: 12, switch: right, do: down, probe: false}
  - {at_s: 12.5, switch: right, do: up}
"""
COLLECTIVE = """
question: Does an all-reduce get over a pulled cable?
topology: {use: ./line.py}
links: {mbps: 5}
collective: {use: ring-allreduce, nbytes: 64KiB, iterations: 16, warmup: 2}
controller: {use: single-path}
events:
  - {at_s: 1, link: [right, left], do: down}
  - {at_s: 1.6, link: [right, left], do: up}
"""


@dataclass(frozen=True)
class Ran:
    """A run that has ended."""

    row: dict[str, Any]
    point: Path

    @cached_property
    def happened(self) -> list[Happened]:
        """The events, as they happened."""
        return read_happened(self.point / "events.jsonl")

    @cached_property
    def begin(self) -> float:
        """When the load began."""
        return float(next(record["begin"] for record in self.records if record["event"] == "load"))

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The traffic's record lines."""
        return [json.loads(line) for line in (self.point / "traffic" / "records.jsonl").read_text().splitlines()]

    def goodput_mbps(self, first_s: float, last_s: float) -> float:
        """Of all flows, from one moment to another, in seconds after the load began."""
        flows = next(record["flows"] for record in self.records if record["event"] == "flows").values()
        window = (self.begin + first_s, self.begin + last_s)
        nbytes = [np.diff(np.interp(window, flow["t"], flow["nbytes"]))[0] for flow in flows]
        return float(sum(nbytes) * 8e-6 / (last_s - first_s))


@pytest.fixture(scope="module")
def ran(module_fabriclab: Any) -> Ran:
    """One run with every kind of event, seen by several tests."""
    shutil.copy(LINE, module_fabriclab.folder)
    done, folder = module_fabriclab.run(FAULTS)
    (point,) = (folder / "points").iterdir()
    return Ran(json.loads(done.stdout), point)


def test_events_come_in_time_and_in_order(ran: Ran) -> None:
    """Each once, not before its time and well within a second after it."""
    assert [one.event.at_s for one in ran.happened] == [2, 3.3, 6, 8, 8.5, 10, 12, 12.5]
    late = [one.begin - ran.begin - one.event.at_s for one in ran.happened]
    assert min(late) >= 0, late
    assert max(late) < 0.5 or ran.row["fidelity"] == "FAIL", late


def test_a_link_that_is_down_carries_nothing_and_then_again(ran: Ran) -> None:
    """No byte in the middle of the outage; after it a good part of what went before."""
    assert ran.goodput_mbps(2.4, 3.2) == 0
    assert ran.goodput_mbps(4.5, 6) > ran.goodput_mbps(0.5, 2) / 4


def test_probes_measure_the_outage_in_both_directions(ran: Ran) -> None:
    """Nobody repairs it: what was lost is as long as the outage, and never recovered while it lasted."""
    down, up = ran.happened[:2]
    outage_ms = 1000 * (up.begin - down.begin)
    lines = [json.loads(line) for line in (ran.point / "recovery.jsonl").read_text().splitlines()]
    assert {line["out"] for line in lines} == {"left-eth1", "right-eth1"}
    for line in lines:
        assert line["out"] in line["path"]
        if ran.row["fidelity"] != "FAIL":  # a switch that stood still delivers the last ones when the link is back
            assert not line["loss"]["complete"]
        assert 0.9 * outage_ms < line["loss"]["ms"] < outage_ms + 1500  # the queues are full when it is back
    assert ran.row["recovery_complete"] is all(line["loss"]["complete"] for line in lines)
    assert ran.row["recovery_data_ms"] == max(line["loss"]["ms"] for line in lines)


def test_the_transport_is_silent_for_at_least_the_outage(ran: Ran) -> None:
    """TCP waits for its timer besides."""
    down, up = ran.happened[:2]
    assert ran.row["recovery_transport_ms"] > 0.9 * 1000 * (up.begin - down.begin)


def test_a_changed_rate_is_the_rate(ran: Ran) -> None:
    """While it is slow the flows get never more than that, and not nothing; when it is back they go on.

    How flows and probes share what an overflowing queue drops is nobody's promise.
    """
    slow, after = ran.goodput_mbps(6.5, 8), ran.goodput_mbps(9, 12)
    both_ways = 2
    assert 0.25 * (2 - PROBE_MBPS) * both_ways < slow < 2 * both_ways
    assert after > 0.25 * (5 - PROBE_MBPS) * both_ways


def test_a_dead_controller_stops_nothing(ran: Ran) -> None:
    """The switches go on as they were told, and the controller that comes back finds them."""
    assert ran.goodput_mbps(8.8, 10) > 0.25 * ran.goodput_mbps(0.5, 2)
    assert '"controller":"ready"' in (ran.point / "events.jsonl").read_text()


def test_a_switch_comes_back_with_the_rules_of_its_controller(ran: Ran) -> None:
    """It forgot them; nothing passes while it is down, and traffic goes on after it is up."""
    assert ran.goodput_mbps(12.2, 12.5) == 0
    flows = next(record["flows"] for record in ran.records if record["event"] == "flows").values()
    last = ran.begin + 12.5
    assert all(flow["nbytes"][-1] > np.interp(last, flow["t"], flow["nbytes"]) for flow in flows)


def test_what_events_change_is_no_difference_and_no_defect(ran: Ran) -> None:
    """Shapers read back at the end are what the last event asked for; the verdict does not blame the events."""
    assert json.loads((ran.point / "network.json").read_text())["differences"] == []
    assert ran.row["refused"] is None
    failed = [reason for reason in ran.row["fidelity_reasons"] if "FAIL" in reason]
    assert not [reason for reason in failed if "saturated" in reason or "ahead" in reason]
    if not any("hypervisor" in reason for reason in failed):  # which loses packets of its own
        assert not [reason for reason in failed if "lost outside" in reason]
    assert ran.row["events"].startswith("2 s link left-right down; 3.3 s link left-right up")
    assert ran.row["after_share_of_nb"] is None  # up comes 0.3 s into the stretch, which is too little to judge


def test_an_all_reduce_gets_over_a_pulled_cable(module_fabriclab: Any) -> None:
    """Without a load events count from the first release; the sums are right, and its connections were silent meanwhile."""
    shutil.copy(LINE, module_fabriclab.folder)
    done, folder = module_fabriclab.run(COLLECTIVE)
    (point,) = (folder / "points").iterdir()
    ran = Ran(json.loads(done.stdout), point)
    release = next(record["release"] for record in ran.records if record["event"] == "release")
    assert 0.99 < ran.happened[0].begin - release < 1.5
    assert ran.row["correct"] is True and ran.row["refused"] is None
    assert 0.9 * 600 < ran.row["recovery_transport_ms"] < 20 * 600
    assert 0.8 * 600 < ran.row["recovery_data_ms"] < 2 * 600 and ran.row["recovery_complete"] is False
    assert ran.row["max_ms"] > 600 + ran.row["ideal_ms"]
