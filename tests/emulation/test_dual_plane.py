"""A NIC with a port in each of two planes outlives the death of a leaf; one with a single port does not, and its ranks are named."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

TWO_PORTS = """
question: Does an all-reduce get over the death of a leaf?
topology: {use: dual-plane, racks: 2, hosts: 2, spines: 2}
links: {mbps: 10, mtu: 9000, queue_bytes: 450000}
controller: {use: adaptive}
collective: {use: ring-allreduce, nbytes: 256KiB, channels: 2, iterations: 12, warmup: 0}
events: [{at_s: 1, switch: p0l1, do: down, probe: false}]
"""
ONE_PORT = """
question: And where every host hangs on one leaf?
topology: {use: leaf-spine, leaves: 2, spines: 2, hosts: 2}
links: {mbps: 10, mtu: 9000}
controller: {use: adaptive}
collective: {use: ring-allreduce, nbytes: 256KiB, iterations: 12, warmup: 0}
events: [{at_s: 1, switch: l1, do: down, probe: false}]
"""


def test_the_other_plane_takes_over(fabriclab: Any) -> None:
    """All sums are right; afterwards nothing goes through the dead leaf, and two connections share one port where they had one each."""
    done, folder = fabriclab.run(TWO_PORTS)
    row, (point,) = json.loads(done.stdout), (folder / "points").iterdir()
    assert row["correct"] is True and row["refused"] is None and row["iterations"] == 12
    before, after = (json.loads((point / name).read_text())["edges"] for name in ("installed.json", "installed_after.json"))
    assert any(name.startswith("p0l1-") for *_, path in before for name in path)
    assert not [name for *_, path in after for name in path if name.startswith("p0l1-")]
    for *_, path in (*before, *after):
        assert len({name[:2] for name in path if name.startswith(("p0", "p1"))}) == 1  # planes are never mixed
    records = [json.loads(line) for line in (point / "traffic" / "records.jsonl").read_text().splitlines()]
    silent = [seconds for record in records if record["event"] == "iteration" for *_, seconds in record["silences"]]
    assert max(silent, default=0) < 10  # retransmission timers double from 200 ms
    if row["fidelity"] != "FAIL":
        assert row["after_slowdown"] < 2.3
        fastest = min(max(record["ends_ms"]) for record in records if record["event"] == "iteration")
        assert fastest < 1.2 * row["ideal_ms"]  # two connections have the whole NIC


def test_a_host_with_one_port_is_lost_and_named(fabriclab: Any) -> None:
    """The run ends when its ranks have not answered in time, with one line that says which are cut off."""
    done = fabriclab.alone("run", str(fabriclab.file(ONE_PORT)), "--out", str(fabriclab.folder / "out"))
    assert done.returncode == 4, done.stderr
    (message,) = [line for line in done.stderr.splitlines() if "cut off" in line]
    assert message.endswith("; cut off by what is down: rank 2 on l1h0, rank 3 on l1h1")
    assert "Traceback" not in done.stderr
