"""Controllers that are somebody else's program: Ryu's own learning switch, started by hand, outside every run."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

BEGIN_S = 30.0
# As `ryu-manager ryu.app.simple_switch_13` on an eventlet that still has what Ryu 4.34 asks for.
OUTSIDE = """
import sys
import eventlet
eventlet.monkey_patch()
import eventlet.wsgi
eventlet.wsgi.ALREADY_HANDLED = object()
from ryu.cmd import manager
manager.main(["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", sys.argv[1], "ryu.app.simple_switch_13"])
"""
EXPERIMENT = """
question: Does a controller that runs elsewhere lead the ranks to each other?
topology: {{use: single-switch, hosts: 4}}
links: {{mbps: 10, mtu: 1500, queue_packets: 50}}
collective: {{use: ring-allreduce, nbytes: 64KiB, iterations: 3, warmup: 0}}
controller: {{use: "tcp:127.0.0.1:{port}"}}
repeat: 2
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def outside(folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Ryu's learning switch, and the port it listens on."""
    port = free_port()
    with open(folder / "ryu.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-c", OUTSIDE, str(port)], stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + BEGIN_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port, process
    finally:
        process.kill()
        process.wait()


def test_a_controller_outside_leads_a_run(fabriclab: Any, tmp_path: Path) -> None:
    """Two points go by it, one after the other; its switches' counters are read all the same, and it lives on."""
    with outside(tmp_path) as (port, process):
        done, folder = fabriclab.run(EXPERIMENT.format(port=port))
        assert process.poll() is None
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["correct"] for row in rows] == [True, True] and {row["controller"] for row in rows} == {f"tcp:127.0.0.1:{port}"}
    for row in rows:
        point = folder / "points" / row["point"]
        rounds = [json.loads(line) for line in (point / "controller" / "ports.jsonl").read_text().splitlines()]
        assert rounds[-1]["missing"] == 0
        # Every rank sends 3 x 96 KiB and more: what the switch counted was this run's.
        assert rounds[-1]["ports"]["s0-eth1"][0] - rounds[0]["ports"]["s0-eth1"][0] > 3 * 96 * 1024
        assert not row["fidelity_reasons"] or "controller" not in " ".join(row["fidelity_reasons"])


def test_nobody_at_the_address_is_said_before_anything_starts(fabriclab: Any) -> None:
    """One line, with the address and the remedy."""
    port = free_port()
    done = fabriclab.alone("run", str(fabriclab.file(EXPERIMENT.format(port=port))), "--out", str(fabriclab.folder / "nothing"))
    assert done.returncode == 3
    assert f"got tcp:127.0.0.1:{port}, where no controller answers (Connection refused)" in done.stderr
    assert "start it before the run" in done.stderr and "Traceback" not in done.stderr
    assert not list((fabriclab.folder / "nothing").glob("*/points/*"))
