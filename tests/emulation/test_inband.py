"""In-band probes through real switches: the way they took, the queues they found, and that the rate they say is the one in force."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.all import IP, UDP

from fabric.inband import Inband, probe_of
from fabric.journeys import Journey, astray, hops, read_journeys
from fabric.stamps import PAYLOAD_BYTES, Stamp, Stamped
from fabric.telemetry import read_queues, utilisation

pytestmark = pytest.mark.emulation

LINE = Path(__file__).with_name("line.py")
EXPERIMENT = """
question: Do probes find the queue that the sampler sees?
topology: {use: ./line.py}
links: {mbps: 20, queue_packets: 50}
controller: {use: single-path}
load: [{use: stride, step: 2}]
duration_s: 5
events: [{at_s: 4, link: [right, h3], do: rate, mbps: 10}]
telemetry: {period_ms: 10, queueing_delay: true, probes: {hz: 100, pairs: [[h0, h2], [h2, h1], [h0, h1], [h0, h3]]}}
"""


@pytest.fixture(scope="module")
def point(module_fabriclab: Any) -> tuple[dict[str, Any], Path, list[Journey]]:
    """The row, the folder and the journeys of four pairs on the two-switch line, whose middle link is busy both ways."""
    shutil.copy(LINE, module_fabriclab.folder)
    done, run = module_fabriclab.run(EXPERIMENT)
    folder = next((run / "points").iterdir())
    return json.loads(done.stdout), folder, read_journeys(folder)


def test_probes_go_the_installed_way(point: Any) -> None:
    """Hop by hop what the switches' rules say of that UDP flow, from the host's own port on, and nearly all arrive."""
    row, _, journeys = point
    assert row["refused"] is None
    ways = {(one.src, one.dst): one.way for one in journeys}
    assert ways[("h0", "h2")] == ("h0-eth0", "left-eth1", "right-eth2")
    assert ways[("h2", "h1")] == ("h2-eth0", "right-eth1", "left-eth3")
    assert ways[("h0", "h1")] == ("h0-eth0", "left-eth3")
    assert [one.way for one in journeys] == [one.installed for one in journeys]
    assert list(astray(journeys)) == []
    for one in journeys:
        assert one.elsewhere == 0 and one.probes > 100
        assert one.came > 0.5 * one.probes


def test_stamps_are_in_order(point: Any) -> None:
    """A probe is sent, stamped at one port after the other, and arrives; what a port has sent never shrinks."""
    for one in point[2]:
        assert np.all(np.diff(np.column_stack([one.sent, one.at, one.arrived]), axis=1) >= -1e-4)
        assert np.all(np.diff(one.sent_bytes[np.argsort(one.at[:, 0])], axis=0) >= 0)


def test_the_stamped_queue_is_the_samplers(point: Any) -> None:
    """At the port that sent most, each stamp against the two samples around it: within what can change between them."""
    row, folder, journeys = point
    port = row["busiest_port"]
    queues = read_queues(folder / "telemetry" / "queues.jsonl")
    column = queues.interfaces.index(port)
    seen, sampled = [], []
    for one in journeys:
        for number in [n for n, name in enumerate(one.way) if name == port]:
            within = (one.at[:, number] > queues.t[0]) & (one.at[:, number] < queues.t[-1])
            seen += one.packets[within, number].tolist()
            sampled += np.interp(one.at[within, number], queues.t, queues.backlog_packets[:, column]).tolist()
    assert len(seen) > 100 and max(seen) > 10
    assert np.corrcoef(seen, sampled)[0, 1] > 0.8
    for percent in (50, 90):
        assert abs(np.percentile(seen, percent) - np.percentile(sampled, percent)) <= 3 + 0.1 * np.percentile(sampled, percent)


def test_utilisation_is_the_samplers(point: Any) -> None:
    """Of the link between the switches, over the probes' time, from bytes that the queue itself counted."""
    _, folder, journeys = point
    queues = read_queues(folder / "telemetry" / "queues.jsonl")
    one = next(journey for journey in journeys if journey.src == "h0" and journey.dst == "h2")
    inside = (queues.t >= one.at[0, 1]) & (queues.t <= one.at[-1, 1])
    _, shares = utilisation(queues, dict.fromkeys(queues.interfaces, 20.0))
    there = float(np.average(shares[inside[1:], queues.interfaces.index("left-eth1")], weights=np.diff(queues.t)[inside[1:]]))
    found = hops(one)[1].utilisation
    assert found is not None and abs(found - there) < 0.05


def test_stamps_say_the_rate_in_force(point: Any) -> None:
    """The configured one, until an event gives the port another."""
    one = next(journey for journey in point[2] if journey.dst == "h3")
    rates = one.kbps[:, one.way.index("right-eth3")]
    assert (rates[0], rates[-1]) == (20_000, 10_000) and set(rates) == {10_000, 20_000}
    assert set(one.kbps[:, 1]) == {20_000}


def test_a_line_of_the_record_is_a_packet_for_scapy(point: Any) -> None:
    """As it would be found in a capture."""
    line = json.loads((point[1] / "inband" / "inband.jsonl").read_text().splitlines()[10])
    stamps = tuple(Stamp(*hop[:4], round(hop[4] * 1e9), hop[5]) for hop in line["hops"])
    probe = Stamped(line["number"], round(line["sent"] * 1e9), stamps)
    packet = IP(bytes(IP() / UDP(sport=20000, dport=9999, chksum=0) / probe.packed()))
    assert probe_of(packet[Inband]) == probe and len(bytes(packet[Inband])) == PAYLOAD_BYTES


def test_probes_and_delays_do_not_disturb_each_other(point: Any) -> None:
    """Both programs at the same hook: no packet's delay was missed."""
    ports = json.loads((point[1] / "queueing.json").read_text())["ports"]
    assert sum(port["missed"] + port["stale"] for port in ports.values()) == 0
    assert sum(port["packets"] for port in ports.values()) > 1000


def test_the_record_says_what_probes_cost(point: Any) -> None:
    """The process's share of a core, and how late it sent."""
    report = json.loads((point[1] / "inband" / "report.json").read_text())
    assert 0 < report["core_share"] < 1
    assert sum(report["overflows"]) == 0 and len(report["sent"]) == 4
