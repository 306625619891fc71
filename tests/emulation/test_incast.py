"""An incast over the emulated network, and background flows beside one, whose share of what is left is known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.ideal import CREDIT_FRAMES, payload_mbps
from fabric.socketlog import FILE, PERIOD_S, SocketSeries, read_sockets

pytestmark = pytest.mark.emulation

HOSTS, NBYTES, ITERATIONS, WARMUP = 6, 64 * 1024, 4, 1
# While the tests run on an installation that is older than the incast's name, its import path finds it as well.
INCAST = f"""
question: Does an incast move the bytes it must, and end with the right sums?
topology: {{use: single-switch, hosts: {HOSTS}}}
links: {{mbps: 10, mtu: 9000, queue_packets: 50}}
collective: {{use: "fabric.collectives.incast:incast", nbytes: {NBYTES}, iterations: {ITERATIONS}, warmup: {WARMUP}, dtype: int32}}
controller: {{use: two-level}}
transport: {{rto_min_ms: 200}}
"""
# h1 sends to h0 for the collective and to h2 for ever: of its link that flow gets what the collective leaves. The other
# flow meets nobody.
BESIDE = """
question: What does a collective leave to two flows?
topology: {use: single-switch, hosts: 5}
links: {mbps: 10, mtu: 9000, queue_packets: 50}
collective: {use: "fabric.collectives.incast:incast", ranks: [h0, h1], nbytes: 256KiB, iterations: 8, warmup: 1}
load: [{use: ./two.py}]
controller: {use: two-level}
"""
TWO = """
from fabric.load import Flow

def two(hosts, rng, *, mbps=None):
    return [Flow("h1", "h2", mbps), Flow("h3", "h4", mbps)]
"""


def point_of(folder: Path) -> Path:
    """The folder of the only point."""
    (found,) = (folder / "points").iterdir()
    return found


def series(folder: Path, kind: str) -> list[SocketSeries]:
    return [one for one in read_sockets(point_of(folder) / "traffic" / FILE) if one.kind == kind]


@pytest.fixture(name="ran", scope="module")
def _ran(module_fabriclab: Any) -> tuple[dict[str, Any], Path]:
    """The incast's only row, and its run folder."""
    done, folder = module_fabriclab.run(INCAST)
    (row,) = map(json.loads, done.stdout.splitlines())
    return row, folder


@pytest.fixture(name="beside", scope="module")
def _beside(module_fabriclab: Any) -> tuple[dict[str, Any], Path]:
    """The row of two flows beside a collective, and its run folder."""
    (module_fabriclab.folder / "two.py").write_text(TWO)
    done, folder = module_fabriclab.run(BESIDE)
    (row,) = map(json.loads, done.stdout.splitlines())
    return row, folder


def test_the_first_rank_ends_with_the_right_sums(ran: tuple[dict[str, Any], Path]) -> None:
    """Every element of every iteration; the row says what it is and what its ideal would be."""
    row, folder = ran
    assert row["correct"] is True and row["wrong"] == 0 and row["refused"] is None
    assert (row["algorithm"], row["ranks"], row["straggler_rank"]) == ("incast", HOSTS, 0)
    one_link = ((HOSTS - 1) * NBYTES - CREDIT_FRAMES * 8948) * 8e-3 / payload_mbps(10, 9000)
    assert row["ideal_ms"] == pytest.approx(one_link + row["alpha_ms"], rel=1e-6)
    assert row["rto_over_ideal"] == pytest.approx(200 / row["ideal_ms"])
    traffic = json.loads((point_of(folder) / "traffic" / "traffic.json").read_text())
    assert traffic["parts"][0]["schedules"][0]["result"] == "reduce"


def test_every_other_rank_sent_its_buffer_to_the_first(ran: tuple[dict[str, Any], Path]) -> None:
    """One connection a sender, with the bytes of all iterations, as the receiving sockets report them."""
    _, folder = ran
    records = [json.loads(line) for line in (point_of(folder) / "traffic" / "records.jsonl").read_text().splitlines()]
    got = [
        (end["dst_ip"], end["bytes_received"])
        for record in records if record["event"] == "sockets"
        for end in record["sockets"] if end["role"] == "receiver"
    ]  # fmt: skip
    assert got == [("10.0.0.2", NBYTES * (ITERATIONS + WARMUP))] * (HOSTS - 1)


def test_each_sender_was_asked_while_it_sent(ran: tuple[dict[str, Any], Path]) -> None:
    """Ten samples a second of each of its sockets: all bytes are acknowledged in the last, and totals never fall."""
    row, folder = ran
    found = series(folder, "collective")
    assert len(found) == HOSTS - 1
    for one in found:
        assert one.acked_bytes[-1] in (NBYTES * (ITERATIONS + WARMUP), NBYTES * (ITERATIONS + WARMUP) + 1)  # and the SYN
        assert (np.diff(one.acked_bytes) >= 0).all() and (np.diff(one.retransmits) >= 0).all()
        assert np.median(np.diff(one.t)) >= PERIOD_S * 0.9
    # The sender's packets wait in the queue before the receiver's link: the round trip is some of its time.
    if row["fidelity"] != "FAIL":
        assert row["rtt_p95_ms"] >= row["rtt_p50_ms"] > 2 * row["alpha_ms"]


def test_the_load_gets_what_the_collective_leaves(beside: tuple[dict[str, Any], Path]) -> None:
    """A link that always has something to send leaves nothing idle: goodput is all that was left, to 6 %."""
    row, _ = beside
    assert row["refused"] is None and row["correct"] is True
    if row["fidelity"] == "FAIL":
        pytest.skip(f"the machine could not emulate it: {row['fidelity_reasons']}")
    assert row["load_leftover_share"] == pytest.approx(1.0, abs=0.06)
    assert row["fabric_utilisation"] == pytest.approx(1.0, abs=0.03)
    payload = payload_mbps(10, 9000)
    alone = payload  # what the flow that meets nobody gets
    assert alone < row["load_goodput_mbps"] < 1.9 * payload
    shared = row["load_goodput_mbps"] - alone
    assert row["load_jain"] == pytest.approx((alone + shared) ** 2 / (2 * (alone**2 + shared**2)), abs=0.03)


def test_background_senders_are_asked_ten_times_a_second(beside: tuple[dict[str, Any], Path]) -> None:
    """Two series, whose delivered bytes are those that their receivers counted, but for what was under way; at hardly any cost."""
    _, folder = beside
    records = [json.loads(line) for line in (point_of(folder) / "traffic" / "records.jsonl").read_text().splitlines()]
    (flows,) = (record["flows"] for record in records if record["event"] == "flows")
    found = series(folder, "load")
    assert len(found) == 2
    for one, count in zip(sorted(found, key=lambda one: one.ends.src_ip), flows.values(), strict=True):
        assert one.acked_bytes[-1] == pytest.approx(count["nbytes"][-1], rel=0.1)
        assert (one.t[-1] - one.t[0]) / (len(one.t) - 1) == pytest.approx(PERIOD_S, rel=0.3)
    watched = [record["watched"] for record in records if record["event"] == "sockets"]
    seconds = found[0].t[-1] - found[0].t[0]
    assert sum(one["took_ms"] for one in watched) / 1000 < 0.01 * seconds
