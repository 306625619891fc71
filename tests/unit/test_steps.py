"""Who was waited for: the chain of transfers that decided an iteration's end, and what ranks delayed of themselves."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fabric.collectives.ring_allreduce import ring_allreduce
from fabric.fluid import play
from fabric.schedule import Draft, Schedule
from fabric.steps import Hop, Steps, append_steps, chain, lag, read_steps


def played(schedule: Schedule, late_ms: dict[int, float], mbps: float = 8.0) -> Steps:
    """As the fluid model plays it where every transfer takes its bytes' time, and the ranks in `late_ms` dawdle before each of theirs."""
    begun: dict[int, float] = {}
    arrived: dict[int, float] = {}
    for transfer in schedule.transfers:  # ids are in an order in which they can happen
        ready = max((arrived[other] for other in transfer.after), default=0.0)
        begun[transfer.id] = ready + late_ms.get(transfer.src, 0.0)
        arrived[transfer.id] = begun[transfer.id] + transfer.nbytes * 8 / 1000 / mbps
    return Steps(schedule.nbytes, 0, begun, dict(begun), arrived)


def test_a_straggler_is_found() -> None:
    """The chain goes through its transfers, and what it delayed is its own."""
    schedule = ring_allreduce(4, 4000)
    steps = played(schedule, {2: 5.0})
    hops = chain(schedule, steps)
    assert hops[-1].arrived_ms == max(steps.arrived_ms.values()) and hops[0].ready_ms == 0.0
    for before, after in pairwise(hops):  # over to the next rank, or after one another on a connection
        assert before.dst == after.src or (before.src, before.dst) == (after.src, after.dst)
        assert before.begun_ms <= after.begun_ms and after.ready_ms <= after.begun_ms < after.arrived_ms
    found = lag(schedule, [steps, steps])
    assert found is not None and found[0] == 2
    assert 5.0 <= found[1] <= 5.0 * sum(hop.src == 2 for hop in hops)


def test_nobody_lags_where_nobody_does() -> None:
    """Ranks that begin at once have nothing to answer for; of no iterations nothing is told."""
    schedule = ring_allreduce(4, 4000)
    steps = played(schedule, {})
    assert lag(schedule, [steps]) in ((rank, 0.0) for rank in range(4))
    assert lag(schedule, []) is None
    assert max(steps.arrived_ms.values()) == pytest.approx(play(schedule, lambda *edge: (edge,), dict.fromkeys(schedule.connections, 8.0), 0.0).end_ms)


def test_a_connection_is_waited_for() -> None:
    """Two transfers that were handed over at once go one after another: the second waited for the first, and nobody lagged."""
    draft = Draft("reduce", 2, 2000)
    draft.send(0, 1, 0, 1000, "sum")
    draft.send(0, 1, 1000, 2000, "sum")
    steps = Steps(8000, 0, {0: 0.0, 1: 0.2}, {0: 0.1, 1: 0.3}, {0: 4.0, 1: 8.0})
    assert chain(draft.schedule(), steps) == [Hop(0, 0, 1, 0.0, 0.0, 4.0), Hop(1, 0, 1, 0.2, 0.2, 8.0)]


def test_the_file_is_read_again(tmp_path: Path) -> None:
    """Sent and received ends come from two ranks, warm-ups are left out, and a folder without one has none."""
    draft = Draft("pair-allreduce", 2, 8)
    there = draft.send(0, 1, 0, 8, "sum")
    draft.send(1, 0, 0, 8, "copy", [there])
    schedule, release = draft.schedule(), time.monotonic()
    reports: list[dict[str, Any]] = [
        {"begun": [[0, release + 0.001]], "done": [[0, release + 0.002], [1, release + 0.006]]},
        {"begun": [[1, release + 0.004]], "done": [[0, release + 0.003], [1, release + 0.005]]},
    ]
    assert read_steps(tmp_path) == []
    for iteration in (-1, 0, 1):
        append_steps(tmp_path, schedule, iteration, release, reports)
    one, other = read_steps(tmp_path)
    assert (one.iteration, other.iteration, one.nbytes) == (0, 1, 32)
    assert (one.begun_ms, one.left_ms, one.arrived_ms) == ({0: 1.0, 1: 4.0}, {0: 2.0, 1: 5.0}, {0: 3.0, 1: 6.0})
    assert [(hop.ready_ms, hop.begun_ms) for hop in chain(schedule, one)] == [(0.0, 1.0), (3.0, 4.0)]
