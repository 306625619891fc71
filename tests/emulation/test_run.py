"""`fabriclab run`, as a person calls it, on the smallest experiments: what it prints, what it keeps, and what it moved."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from fabric.results import Row, read_rows
from fabric.telemetry import Queues, read_queues

pytestmark = pytest.mark.emulation

RANKS, NBYTES, ITERATIONS, WARMUP = 4, 64 * 1024, 4, 1
HEADERS = 14 + 20 + 20 + 12  # Ethernet, IPv4, TCP, TCP's timestamps: every segment and every pure acknowledgement
RING = f"""
question: Does a ring all-reduce move the bytes it must?
topology: {{use: single-switch, hosts: {RANKS}}}
links: {{mbps: 10, queue_packets: 50}}
collective: {{use: ring-allreduce, nbytes: {NBYTES}, iterations: {ITERATIONS}, warmup: {WARMUP}}}
controller: {{use: two-level}}
"""
HASHED = """
question: Is a run the same run when it is run again?
topology: {use: fat-tree, k: 4}
links: {mbps: 10}
collective: {use: ring-allreduce, ranks: 8, placement: random, nbytes: 4KiB, iterations: 1, warmup: 0}
load: [{use: elephants, pairs: 2, mbps: 1, hosts: idle}]
controller: {use: ecmp}
seed: 3
"""
PACED = """
question: Does a load keep its rate?
topology: {use: fat-tree, k: 2}
links: {mbps: 10}
load: [{use: stride, step: 1, mbps: 3}]
controller: {use: single-path}
duration_s: 2
"""
PLAIN = """
question: Does a plain Ryu app work from end to end?
topology: {{use: single-switch, hosts: 4}}
links: {{mbps: 10}}
collective: {{use: ring-allreduce, nbytes: 16KiB, iterations: 2, warmup: 1, dtype: int32}}
controller: {{use: {app}}}
"""


@dataclass(frozen=True)
class Ran:
    """A run that has ended: what it printed, and its folder."""

    done: subprocess.CompletedProcess[str]
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The objects on standard output, which has nothing else."""
        return [json.loads(line) for line in self.done.stdout.splitlines()]

    @property
    def point(self) -> Path:
        """The folder of the only point."""
        (found,) = (self.folder / "points").iterdir()
        return found

    def json(self, name: str) -> Any:
        """A JSON file of the point."""
        return json.loads((self.point / name).read_text())

    @cached_property
    def sockets(self) -> list[dict[str, Any]]:
        """What every socket reported at the end."""
        records = [json.loads(line) for line in (self.point / "traffic" / "records.jsonl").read_text().splitlines()]
        return [end for record in records if record["event"] == "sockets" for end in record["sockets"]]

    @cached_property
    def queues(self) -> Queues:
        """The recorded queues."""
        return read_queues(self.point / "telemetry" / "queues.jsonl")

    def sent(self, interface: str) -> tuple[int, int]:
        """Bytes and packets that an interface sent between the first and the last sample."""
        column = self.queues.interfaces.index(interface)
        nbytes, packets = (getattr(self.queues, name)[:, column] for name in ("sent_bytes", "sent_packets"))
        return int(nbytes[-1] - nbytes[0]), int(packets[-1] - packets[0])


@pytest.fixture(scope="module")
def ring(module_fabriclab: Any) -> Ran:
    """A ring all-reduce over one switch."""
    return Ran(*module_fabriclab.run(RING))


def test_json_prints_rows_with_every_key_and_nothing_else(ring: Ran) -> None:
    """One object a row on standard output; the table and the messages are on standard error."""
    (row,) = ring.rows
    assert list(row) == [field.name for field in fields(Row)]
    assert str(ring.folder) in ring.done.stderr


def test_the_row_says_that_the_sums_are_right(ring: Ran) -> None:
    """Correct, none wrong, not refused; what was asked stands in it by the names of the file."""
    (row,) = ring.rows
    assert row["correct"] is True and row["wrong"] == 0 and row["refused"] is None
    asked = {key: row[key] for key in ("topology", "controller", "collective", "nbytes", "ranks", "mbps", "tcp", "seed")}
    assert asked == {
        "topology": "single-switch", "controller": "two-level", "collective": "ring-allreduce", "nbytes": NBYTES,
        "ranks": RANKS, "mbps": 10.0, "tcp": "cubic", "seed": 1,
    }  # fmt: skip
    assert row["iterations"] == ITERATIONS and row["p99_ms"] is None and row["fidelity"] in ("PASS", "WARN", "FAIL")
    assert row["slowdown"] == pytest.approx(row["p50_ms"] / row["ideal_ms"])


def test_the_run_folder_holds_what_results_promises(ring: Ran) -> None:
    """The file as it was, versions, rows in two forms, the finished mark, and a folder a point."""
    assert {path.name for path in ring.folder.iterdir()} >= {
        "experiment.yaml", "run.json", "rows.jsonl", "rows.csv", "finished.json", "figures", "points", "calibration",
    }  # fmt: skip
    assert (ring.folder / "experiment.yaml").read_text() == RING
    assert {path.name for path in ring.point.iterdir()} >= {
        "point.json", "network.json", "installed.json", "controller", "traffic", "telemetry",
    }  # fmt: skip
    about = json.loads((ring.folder / "run.json").read_text())
    assert about["schema"] == 1 and about["command"][:2] == ["fabriclab", "run"]
    assert about["machine"].keys() >= {"kernel", "python", "packages", "git", "cores"}


def test_rows_on_disk_are_those_that_were_printed(ring: Ran) -> None:
    """rows.jsonl line by line, and rows.csv with a column a key."""
    assert [json.loads(line) for line in (ring.folder / "rows.jsonl").read_text().splitlines()] == ring.rows
    assert [row.to_json()["p50_ms"] for row in read_rows(ring.folder)] == [row["p50_ms"] for row in ring.rows]
    with open(ring.folder / "rows.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert list(line) == list(ring.rows[0]) and float(line["p50_ms"]) == ring.rows[0]["p50_ms"]


def test_every_shaper_and_sysctl_was_read_back(ring: Ran) -> None:
    """Eight interfaces with what was asked, no difference at the end, and the congestion control in every host."""
    network = ring.json("network.json")
    assert len(network["shapes"]) == 2 * RANKS and network["differences"] == []
    assert {shape["mbps"] for shape in network["shapes"].values()} == {10.0}
    assert {host["net.ipv4.tcp_congestion_control"] for host in network["host_sysctls"].values()} == {"cubic"}
    assert len(ring.sockets) == 2 * RANKS and {end["tcp"] for end in ring.sockets} == {"cubic"}


def test_each_rank_moves_exactly_the_bytes_of_a_ring(ring: Ran) -> None:
    """2(p-1)/p of the buffer an iteration, warm-up included: sent by each rank's socket, received by the next one's."""
    due = 2 * (RANKS - 1) * NBYTES // RANKS * (ITERATIONS + WARMUP)
    assert [end["bytes_received"] for end in ring.sockets if end["role"] == "receiver"] == [due] * RANKS
    resent = sum(end["retransmits"] for end in ring.sockets)
    assert resent or [end["bytes_sent"] for end in ring.sockets if end["role"] == "sender"] == [due] * RANKS


@pytest.mark.parametrize("rank", range(RANKS))
def test_the_counters_of_a_hosts_links_hold_these_bytes_and_no_others(ring: Ran, rank: int) -> None:
    """Out of the host and out of the switch to it: payload is what is left without 66 bytes of headers a packet, to 1 %.

    Each packet, data or not, has these headers; SYN and SYN-ACK carry 8 bytes more.
    """
    due = 2 * (RANKS - 1) * NBYTES // RANKS * (ITERATIONS + WARMUP)
    for interface in (f"h{rank}-eth0", f"s0-eth{rank + 1}"):
        nbytes, packets = ring.sent(interface)
        assert nbytes - HEADERS * packets == pytest.approx(due, rel=0.01), interface


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_hosts_packets_are_those_its_sockets_report(ring: Ran, rank: int) -> None:
    """One segment a packet: the shaper saw as many as TCP says it sent, but for the few that end the connections."""
    _, packets = ring.sent(f"h{rank}-eth0")
    ip = f"10.0.0.{rank + 2}"
    own = [end for end in ring.sockets if (end["src_ip"] if end["role"] == "sender" else end["dst_ip"]) == ip]
    reported = sum(end["segments_out"] for end in own)
    assert len(own) == 2
    assert reported <= packets <= reported + 8


def test_the_same_file_and_seed_give_the_same_run(module_fabriclab: Any) -> None:
    """Placement, flows, every 5-tuple and every installed path under ECMP are equal in a second run."""
    first, second = (Ran(*module_fabriclab.run(HASHED)) for _ in range(2))
    installed = first.json("installed.json")
    assert len(installed["edges"]) == 8 and len(installed["flows"]) == 4 and None not in installed["flows"]
    assert second.json("installed.json") == installed
    for key in ("placement", "edges", "flows", "seed"):
        assert second.json("point.json")[key] == first.json("point.json")[key], key
    assert first.rows[0]["correct"] is second.rows[0]["correct"] is True
    paths = {tuple(path) for *_, path in installed["edges"]}
    assert len(paths) == 8 and first.json("point.json")["seed"] == 3


def test_a_load_alone_runs_and_keeps_its_rate(fabriclab: Any) -> None:
    """Two flows of 3 Mb/s on 10 Mb/s links, and no collective: the goodput is 6 Mb/s to 10 %, and there are no times."""
    ran = Ran(*fabriclab.run(PACED))
    (row,) = ran.rows
    assert row["refused"] is None and row["collective"] is None and row["p50_ms"] is None and row["correct"] is None
    assert row["load_goodput_mbps"] == pytest.approx(6, rel=0.1)
    assert row["load_share_of_nb"] == pytest.approx(1, rel=0.1) and row["drops"] == 0


def test_a_plain_ryu_app_and_whole_numbers_work_end_to_end(fabriclab: Any) -> None:
    """Ryu's own learning switch, by its file, carries an int32 all-reduce whose every sum is right."""
    spec = importlib.util.find_spec("ryu")
    assert spec and spec.origin
    app = Path(spec.origin).parent / "app" / "simple_switch_13.py"
    ran = Ran(*fabriclab.run(PLAIN.format(app=app)))
    (row,) = ran.rows
    assert row["correct"] is True and row["wrong"] == 0 and row["refused"] is None
    assert ran.json("traffic/traffic.json")["parts"][0]["dtype"] == "int32"
    setup = ran.json("controller/controller.json")
    assert setup["app"] == str(app) and ran.json("network.json")["controller_exceptions"] == 0
