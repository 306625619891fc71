"""What only a kernel of a distribution has, tried inside the VM: its RED, its DCTCP and its Open vSwitch datapath, in a run.

`tests/vm/check` boots it and runs this by name, after the tests of marking; it is never collected elsewhere. No figure of
it means anything: the processor is emulated.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fabric.doctor import examine
from fabric.endpoints import Provided, providers
from fabric.markers import best_marker
from fabric.ovs import best_datapath
from fabric.results import read_rows

pytestmark = pytest.mark.emulation

COMMAND = (sys.executable, "-c", "from fabric.cli import main; main()")
LINE = Path(__file__).parents[1] / "emulation" / "line.py"
DEADLINE_S = 300
EXPERIMENT = """
question: Do the kernel's datapath, its RED and its DCTCP do what ours do?
topology: {use: ./line.py}
links: {mbps: 10, queue_packets: 50, ecn: {min_packets: 10, max_packets: 10}}
controller: {use: single-path}
load: [{use: stride, step: 2}]
duration_s: 8
telemetry: {period_ms: 50}
sweep:
  transport: [{tcp: dctcp}, {tcp: cubic, ecn: false}]
"""


def test_the_machine_offers_what_a_distribution_does(tmp_path: Path) -> None:
    """The doctor finds nothing absent that the VM is a remedy for; the best of everything is the kernel's."""
    found = {finding.name: finding for finding in examine(tmp_path)}
    absent = [finding for name, finding in found.items() if not finding.ok and name not in ("cores", "memory")]
    assert absent == []
    assert found["ecn marking"].got == "by the queue itself (RED)"
    assert best_marker(False).by == "red" and best_datapath() == "system"
    assert providers(["dctcp"])["dctcp"] == Provided("dctcp", "dctcp", "kernel", needs_ecn=True)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, dict[str, Any]]]:
    """Row and record of each arm: DCTCP, and cubic without ECN."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "vm.yaml").write_text(EXPERIMENT)
    shutil.copy(LINE, folder)
    done = subprocess.run(
        [*COMMAND, "run", "vm.yaml", "--out", "out"], cwd=folder, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (folder / "out").iterdir()
    rows = read_rows(run)
    return [(row, json.loads((run / "points" / row.point / "network.json").read_text())) for row in rows]


def test_a_run_by_the_kernel_alone(points: Any) -> None:
    """Its datapath forwards, its RED marks, its DCTCP answers; nothing is refused, and both arms carry the link's traffic."""
    (dctcp, record), (cubic, other) = points
    for row, network in ((dctcp, record), (cubic, other)):
        assert row.refused is None and row.datapath == "system" and network["differences"] == []
        assert row.tcp_by == "kernel" and row.ecn_by == network["marking"]["by"] == "red"
        assert row.load_goodput_mbps > 4


def test_marks_arrive_and_are_heard(points: Any) -> None:
    """Marks of the link that two flows share came to the hosts, senders heard of them, and whoever did not ask got none."""
    (dctcp, record), (cubic, other) = points
    ports, received = record["marking"]["ports"], sum(record["marking"]["ce_received"].values())
    assert sum(port["marked"] for port in ports.values()) >= received > 20
    assert dctcp.marks > 20 and dctcp.ce_marked > 20
    assert cubic.marks == 0 and sum(other["marking"]["ce_received"].values()) == 0
    assert dctcp.queue_p50_packets < 20 < 30 < cubic.queue_p95_packets


def test_no_proof_of_marking_fails(points: Any) -> None:
    """The machine may be too slow to be believed, but what was asked of queues and senders was in force."""
    words = "did not negotiate|negotiated ECN|marked none|hosts received|never held"
    assert [reason for row, _ in points for reason in row.fidelity_reasons if re.search(words, reason)] == []
