"""In-band telemetry without a network: the wire format against scapy's layers, who probes whom, and what a record says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scapy.all import IP, UDP, Raw

from fabric.cli import inband
from fabric.errors import RequestError, RunError
from fabric.experiment import load_experiment
from fabric.inband import Inband, InbandStamp, layer, probe_of
from fabric.journeys import astray, hops, journeys_of, read_journeys
from fabric.scouting import MOST_PAIRS, pairs_of
from fabric.stamps import FRAME_BYTES, MOST_HOPS, PAYLOAD_BYTES, PROBES, Stamp, Stamped, blank, parse
from fabric.workload import workload

WORD, LONG = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
STAMPS = st.builds(Stamp, WORD, WORD, WORD, WORD, LONG, LONG)
STAMPED = st.builds(Stamped, LONG, LONG, st.lists(STAMPS, max_size=MOST_HOPS).map(tuple), st.integers(0, 65535))
EXPERIMENT = """
question: Who probes whom?
topology: {use: fat-tree, k: 4}
links: {mbps: 10, mtu: 9000}
controller: {use: ecmp}
"""


@given(STAMPED)
def test_a_probe_comes_back_as_it_went(probe: Stamped) -> None:
    """By struct and by scapy: the same bytes either way, always of the same size."""
    payload = probe.packed()
    assert len(payload) == PAYLOAD_BYTES
    assert parse(payload) == probe
    assert bytes(layer(probe)) == payload
    packet = IP(bytes(IP(dst="10.0.0.1") / UDP(sport=20000, dport=PROBES, chksum=0) / payload))
    assert probe_of(packet[Inband]) == probe
    assert Raw not in packet and len(packet) + 14 == FRAME_BYTES


def test_a_probe_that_is_changed_by_hand_keeps_its_size() -> None:
    """Another stamp takes room that was spare, and the count follows."""
    found = Inband(blank(4, 5))
    found.stamps, found.hops, found.spare = [*found.stamps, InbandStamp(port=9)], None, b""
    assert parse(bytes(found)) == Stamped(4, 5, (Stamp(9, 0, 0, 0, 0, 0),))
    assert len(bytes(found)) == PAYLOAD_BYTES


@pytest.mark.parametrize("payload", [b"", b"INB1", bytes(PAYLOAD_BYTES), blank(1, 1)[:-1], b"INB1\xff" + bytes(PAYLOAD_BYTES)])
def test_what_is_no_probe_is_none(payload: bytes) -> None:
    """Too short, another magic word, more hops than there is room for."""
    assert parse(payload) is None


def test_more_stamps_than_room_are_a_mistake() -> None:
    """Nobody writes what nobody could read."""
    with pytest.raises(ValueError, match="9 stamps; there is room for 8"):
        Stamped(1, 1, (Stamp(1, 1, 1, 1, 1, 1),) * 9).packed()


def asked(tmp_path: Path, more: str) -> list[tuple[str, str]]:
    """The pairs of an experiment with these further lines."""
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT + more)
    (point,) = load_experiment(file).points
    return pairs_of(point, workload(point))


def test_pairs_are_the_collectives_then_the_loads_or_those_asked_for(tmp_path: Path) -> None:
    """Each once, at most eight, spread over all; none where no probes are asked for."""
    ring = "collective: {use: ring-allreduce, nbytes: 64KiB, placement: random}\nload: [{use: stride, step: 1}]\n"
    load = "load: [{use: stride, step: 8, pairs: 2}]\nduration_s: 1\n"
    assert asked(tmp_path, ring) == []
    pairs = asked(tmp_path, ring + "telemetry: {probes: {hz: 50}}\n")
    assert len(pairs) == len(set(pairs)) == MOST_PAIRS == 8
    follows = workload(load_experiment(tmp_path / "experiment.yaml").points[0]).hosts_by_edge.values()
    assert set(pairs) <= set(follows) and len(set(follows)) == 16
    assert len(asked(tmp_path, load + "telemetry: {probes: {}}\n")) == 2
    own = "telemetry: {probes: {pairs: [[p0e0h0, p3e1h1], [p3e1h1, p0e0h0]]}}\n"
    assert asked(tmp_path, load + own) == [("p0e0h0", "p3e1h1"), ("p3e1h1", "p0e0h0")]


def line(number: int, *found: tuple[int, int], without: int = 0) -> dict[str, Any]:
    """A probe sent every 10 ms: stamped by (port, packets) 1 ms apart, ports having sent 12,500 bytes since the one before."""
    sent = 100 + number / 100
    stamps = [[port, packets, 1500 * packets, 20_000, sent + hop / 1000, 12_500 * number] for hop, (port, packets) in enumerate(found)]
    return {"pair": 0, "number": number, "sent": sent, "arrived": sent + 0.005, "without": without, "hops": stamps}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A point with one pair over two hops, of whose eleven probes one was lost and one went elsewhere."""
    point = tmp_path / "points" / "000-ecmp-r1"
    (point / "inband").mkdir(parents=True)
    pair = {"src": "a", "dst": "b", "path": ["a-eth0", "s-eth2"]}
    ports = {"1": "a-eth0", "2": "s-eth2", "3": "s-eth3"}
    (point / "inband" / "pairs.json").write_text(json.dumps({"hz": 100, "pairs": [pair], "ports": ports}))
    (point / "inband" / "report.json").write_text(json.dumps({"sent": [11]}))
    write(point, [*(line(n, (1, 0), (2, n)) for n in range(9)), line(9, (1, 0), (3, 40))])
    return point


def write(point: Path, lines: list[dict[str, Any]]) -> None:
    (point / "inband" / "inband.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"pair": 0, "cut')


def test_hops_tell_queue_utilisation_and_time(folder: Path) -> None:
    """Of the probes on the usual way: 12,500 bytes in 10 ms are half of 20 Mb/s; a stamp is 1 ms from the next, 4 from the receiver."""
    [journey] = read_journeys(folder)
    assert (journey.way, journey.probes, journey.came, journey.elsewhere) == (("a-eth0", "s-eth2"), 11, 10, 1)
    first, second = hops(journey)
    assert (first.port, first.queue_max_packets, second.queue_p50_packets, second.queue_max_packets) == ("a-eth0", 0, 4, 8)
    assert first.utilisation == pytest.approx(0.5) and second.utilisation == pytest.approx(0.5)
    assert (first.onward_p50_ms, second.onward_p50_ms) == (pytest.approx(1), pytest.approx(4))
    assert list(astray([journey])) == []


def test_probes_that_went_astray_are_told(folder: Path) -> None:
    """Another way than the installed one, hops without room, or nothing that came at all."""
    [journey] = read_journeys(folder)
    other = dataclasses.replace(journey, installed=("a-eth0", "s-eth3"))
    assert list(astray([other])) == ["in-band probes from a to b went by a-eth0 s-eth2; installed was a-eth0 s-eth3"]
    assert list(astray([dataclasses.replace(journey, installed=None)])) == []
    assert list(astray([dataclasses.replace(journey, without=2)])) == ["in-band probes from a to b: passed more hops than they have room for"]
    write(folder, [])
    [nothing] = read_journeys(folder)
    assert hops(nothing) == [] and list(astray([nothing])) == ["in-band probes from a to b: none of 11 arrived"]


def test_a_folder_without_probes_says_so(folder: Path) -> None:
    """A point has none; a run has none; a record is broken; a point is misspelt."""
    run = folder.parent.parent
    assert [name for name, _ in journeys_of(run)] == [folder.name]
    with pytest.raises(RequestError, match="no in-band probes of point 'x'; accepted: 000-ecmp-r1"):
        list(journeys_of(run, "x"))
    (folder / "inband" / "inband.jsonl").write_text("no JSON\n")
    with pytest.raises(RunError, match="inband: not what a run writes: JSONDecodeError"):
        read_journeys(folder)
    (folder / "inband" / "pairs.json").unlink()
    assert read_journeys(folder) == []
    with pytest.raises(RequestError, match="no point with in-band probes; accepted: a run folder of an experiment with"):
        list(journeys_of(run))


def test_the_command_line_prints_hops(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table for a person, and as an object a line with nothing else beside it; a run without probes is told so, in a line."""
    run = folder.parent.parent
    inband(run, as_json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["point"], one["hop"], one["port"]) for one in found] == [(folder.name, 1, "a-eth0"), (folder.name, 2, "s-eth2")]
    monkeypatch.setattr("fabric.cli._out", Console(width=160))
    inband(run)
    text = capsys.readouterr().out
    assert "a → b: 10 of 11 probes arrived, 1 of them by another way" in text and "s-eth2" in text and "0.50" in text
    write(folder, [])
    inband(run)
    assert "a → b: 0 of 11 probes arrived" in capsys.readouterr().out
