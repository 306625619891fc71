"""The incast: who must hold the sum, what the interpreter refuses of it, its ideal by hand, and how a rank is judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabric.collectives import bus_factor
from fabric.collectives.incast import incast
from fabric.errors import RequestError
from fabric.experiment import load_experiment
from fabric.ideal import busbw_mbps, ideal_ms, payload_mbps
from fabric.interpreter import check_allreduce, check_result
from fabric.rank import initial, wrong
from fabric.schedule import Schedule, Transfer, check_structure
from fabric.workload import workload


@pytest.mark.parametrize("ranks", [2, 3, 16])
@pytest.mark.parametrize("elements", [1, 61])
def test_the_first_rank_holds_the_sum(ranks: int, elements: int) -> None:
    """In whatever order the senders' data comes; the others keep what they had, and nobody asks them."""
    check_result(incast(ranks, elements))


def test_every_other_rank_sends_its_whole_buffer_at_once() -> None:
    """One transfer a sender, of all elements, that waits for none."""
    schedule = incast(5, 61)
    assert [(item.src, item.dst, item.start, item.stop, item.op, item.after) for item in schedule.transfers] == [
        (src, 0, 0, 61, "sum", ()) for src in (1, 2, 3, 4)
    ]
    assert schedule.result == "reduce" and incast(3, 0).transfers == ()


def test_it_is_no_allreduce() -> None:
    """Where every rank must hold the sum it is refused, by its word, and by what it leaves with the senders."""
    with pytest.raises(RequestError, match="schedule incast: got result 'reduce'; accepted: 'allreduce'"):
        check_allreduce(incast(4, 8))
    with pytest.raises(RequestError, match="rank 1 ends with a wrong sum at element 0"):
        check_allreduce(replace(incast(4, 8), result="allreduce"))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_an_incast_that_lacks_a_sender_is_refused(missing: int) -> None:
    """A sum without one rank's data is wrong, whichever rank it is."""
    whole = incast(4, 8).transfers
    rest = [replace(item, id=number) for number, item in enumerate(item for item in whole if item.id != missing)]
    with pytest.raises(RequestError, match="schedule incast: rank 0 ends with a wrong sum at element 0"):
        check_result(replace(incast(4, 8), transfers=tuple(rest)))


def test_an_incast_that_lacks_elements_is_refused() -> None:
    """The first element that one sender left out is named."""
    first, *others = incast(4, 8).transfers
    with pytest.raises(RequestError, match="rank 0 ends with a wrong sum at element 5"):
        check_result(replace(incast(4, 8), transfers=(replace(first, stop=5), *others)))


def test_each_groups_first_rank_holds_its_sum() -> None:
    """Ranks 2 and 3 send to the first of their group; the sum of the other group would be wrong there."""
    pairs = (Transfer(0, 2, 0, 0, 4, "sum"), Transfer(1, 3, 1, 0, 4, "sum"))
    check_result(Schedule("pairs", 4, 4, pairs, groups=2, result="reduce"))
    crossed = (Transfer(0, 3, 0, 0, 4, "sum"), Transfer(1, 2, 1, 0, 4, "sum"))
    with pytest.raises(RequestError, match="rank 0 ends with a wrong sum"):
        check_result(Schedule("pairs", 4, 4, crossed, groups=2, result="reduce"))


def test_a_schedule_keeps_its_result_in_json() -> None:
    """Written and read it is the same; one that was written before there was a choice all-reduces."""
    schedule = incast(3, 4)
    data = json.loads(json.dumps(schedule.to_json()))
    assert Schedule.from_json(data) == schedule
    del data["result"]
    assert Schedule.from_json(data).result == "allreduce"


def test_another_result_is_refused() -> None:
    """With what is accepted."""
    with pytest.raises(RequestError, match="got result 'scan'; accepted: 'allreduce', 'reduce', "):
        check_structure(Schedule("mine", 2, 4, (), result="scan"))  # type: ignore[arg-type]


def test_a_rank_that_need_not_hold_the_sum_is_not_judged() -> None:
    """On real bytes: rank 0 by every element, rank 1 not at all."""
    schedule = incast(3, 8)
    right = initial(0, 8, 2, "int32") + initial(1, 8, 2, "int32") + initial(2, 8, 2, "int32")  # type: ignore[operator]
    assert wrong(schedule, 0, 2, right) == 0
    assert wrong(schedule, 0, 2, initial(0, 8, 2, "int32")) == 8
    assert wrong(schedule, 1, 2, np.zeros(8, "int32")) == 0
    assert wrong(replace(schedule, result="allreduce"), 1, 2, np.zeros(8, "int32")) == 8


@pytest.mark.parametrize("ranks", [2, 5, 16])
def test_its_ideal_is_that_of_one_link(ranks: int) -> None:
    """(n-1) x nbytes over the payload rate, and one latency: 15 x 64 KiB at 10 Mb/s are 0.79 s."""
    rate = payload_mbps(10, 9000)
    by_hand = (ranks - 1) * 65536 * 8 / 1000 / rate + 0.7
    assert ideal_ms(incast(ranks, 16384), alpha_ms=0.7, payload_mbps=rate) == pytest.approx(by_hand)
    if ranks == 16:
        assert by_hand == pytest.approx(793, abs=1)


def test_the_receivers_link_has_one_bucket_for_all_senders() -> None:
    """What an idle link passes at once is one frame, not one a sender."""
    rate, frame = 8.0, 8948
    by_hand = (15 * 65536 - frame) * 8 / 1000 / rate
    assert ideal_ms(incast(16, 16384), alpha_ms=0, payload_mbps=rate, burst_bytes=frame) == pytest.approx(by_hand)


def test_its_bus_bandwidth_is_that_of_a_reduce() -> None:
    """nccl-tests' factor of 1: what a flat reduce gets of a link is 1/(p-1) at best, which is the point."""
    assert bus_factor("incast", 16) == bus_factor("reduce", 16) == 1.0
    time_ms = ideal_ms(incast(16, 16384), alpha_ms=0, payload_mbps=9.9)
    assert busbw_mbps("incast", 16, 65536, time_ms) == pytest.approx(9.9 / 15)


def test_an_experiment_may_ask_for_it(tmp_path: Path) -> None:
    """By its import path, as by its name: four ranks make three connections."""
    text = """
question: Does it fit?
topology: {use: single-switch, hosts: 4}
links: {mbps: 10}
controller: {use: ecmp}
collective: {use: "fabric.collectives.incast:incast", nbytes: 64KiB}
"""
    file = tmp_path / "incast.yaml"
    file.write_text(text)
    (point,) = load_experiment(file).points
    work = workload(point)
    assert work.schedules == (incast(4, 16384),) and len(work.edges) == 3
