"""A run that is killed at any moment leaves nothing that `clean` does not remove. FABRIC_KILLS=50 tries fifty moments, two by default."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

KILLS = int(os.environ.get("FABRIC_KILLS", "2"))
LONGEST_S = 12.0
# All that a run can have on a machine: our congestion control, marking, delay line, counters and probes in the kernel, agents, a load, jobs.
FILE = """
question: What is left of it?
topology: {use: leaf-spine, leaves: 2, spines: 2, hosts: 2}
links: {mbps: 5, mtu: 1500, delay_ms: 1, priority_floor: 0.1, ecn: {min_packets: 10, max_packets: 10}}
controller: {use: congestion, policy: combined}
collective: {use: ring-allreduce, nbytes: 16KiB, iterations: 2000, hints: true}
load: [{use: stride, step: 2}]
requests: [{servers: [l0h0], rate_hz: 5, request: 1KiB, response: 4KiB}]
transport: {tcp: dctcp}
telemetry: {queueing_delay: true, probes: {hz: 20}}
"""


@pytest.mark.parametrize("number", range(KILLS))
def test_nothing_is_left_of_a_killed_run(state: Any, fabriclab: Any, start_alone: Any, number: int) -> None:
    """Interfaces, processes, sysctls, state folders: all as before. The moment is drawn from the number."""
    before = state()
    process = start_alone(fabriclab, "run", str(fabriclab.file(FILE)), "--out", str(fabriclab.folder / "out"))
    time.sleep(random.Random(number).uniform(0, LONGEST_S))
    assert process.poll() is None, process.communicate()[1]
    process.kill()
    fabriclab.finish(process)
    cleaned = fabriclab.call("clean")
    assert cleaned.returncode == 0, cleaned.stderr
    assert state() == before
    refused = fabriclab.call("clean")
    assert refused.returncode == 0 and refused.stdout.strip() == "nothing to clean"
