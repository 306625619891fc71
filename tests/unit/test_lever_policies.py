"""Policies that pull levers: what each asks of hosts and ports, and that it comes to rest once it has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.policies.combined import Combined
from controllers.policies.ecn_tuner import EcnTuner
from controllers.policies.incast_guard import IncastGuard
from controllers.policies.interleave import Interleave
from controllers.policies.max_min import MaxMin
from controllers.policies.priority import Priority
from fabric.graph import Fabric, Port
from fabric.paths import PathSets
from fabric.policy import (
    Action,
    FlowKey,
    FlowView,
    JobView,
    LinkView,
    Reroute,
    SetEcn,
    SetPriority,
    SetRate,
    SetTransport,
    Shift,
    Transport,
    View,
    Wires,
)
from topologies.dumbbell import dumbbell
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch

FABRIC, STAR, BELL = fat_tree(4), single_switch(16), dumbbell(3)
SETS = {id(fabric): PathSets(fabric) for fabric in (FABRIC, STAR, BELL)}
WIRES = Wires(frame=1514, queue_bytes=50 * 1514, floor=0.05)


def flow(fabric: Fabric, number: int, src: str, dst: str, choice: int = 0, **more: Any) -> FlowView:
    """A flow on one of its paths."""
    paths = SETS[id(fabric)](src, dst)
    key = FlowKey(fabric.host_by_name[src].ip, 20000 + number, fabric.host_by_name[dst].ip, 5001 + number)
    return FlowView(key, src, dst, paths[choice % len(paths)], 10.0, **more)


def view(fabric: Fabric, flows: Sequence[FlowView], wires: Wires | None = WIRES, **more: Any) -> View:
    """Links of 10 Mb/s."""
    sets = SETS[id(fabric)]
    links = {port: LinkView(port, 10.0, 10.0) for port in fabric.peer}
    return View(0.0, 1, 0.1, links, tuple(flows), sets, {}, sets.between, wires=wires, **more)


# -- priority


def test_a_jobs_flows_go_first_and_nobody_elses() -> None:
    """Each is asked for once; one that goes first is left alone."""
    flows = [
        flow(FABRIC, 0, "p0e0h0", "p1e0h0", job="ring"), flow(FABRIC, 1, "p0e0h1", "p1e0h1"),
        flow(FABRIC, 2, "p1e0h0", "p2e0h0", job="ring", first=True),
    ]  # fmt: skip
    (order,) = Priority().decide(view(FABRIC, flows))
    assert isinstance(order, SetPriority) and (order.flow, order.first) == (flows[0].key, True)


@pytest.mark.parametrize("wires", [None, replace(WIRES, floor=None)])
def test_where_queues_know_no_priority_none_is_asked_for(wires: Wires | None) -> None:
    """It would be refused every time."""
    flows = [flow(FABRIC, 0, "p0e0h0", "p1e0h0", job="ring")]
    assert Priority().decide(view(FABRIC, flows, wires)) == []


# -- combined


def two_of_a_job() -> list[FlowView]:
    """Two flows of a job from two hosts of an edge over the same uplink; each of the hosts also sends background."""
    return [
        flow(FABRIC, 0, "p0e0h0", "p1e0h0", 0, job="ring", first=True), flow(FABRIC, 1, "p0e0h1", "p1e1h0", 0, job="ring", first=True),
        flow(FABRIC, 2, "p0e0h0", "p2e0h0", 0), flow(FABRIC, 3, "p0e0h1", "p3e0h0", 0),
    ]  # fmt: skip


def test_flows_that_go_first_are_booked_by_all_that_they_will_take() -> None:
    """Beside background on the same NICs they would pass for halves that fit on one uplink."""
    flows = two_of_a_job()
    halves = [replace(one, demand_mbps=5.0) for one in flows]
    moves = [action for action in Combined().decide(view(FABRIC, halves)) if isinstance(action, Reroute)]
    paths = {one.key: one.path for one in flows} | {move.flow: move.path for move in moves}
    uplinks = [paths[one.key][1] for one in flows[:2]]  # type: ignore[index]
    assert uplinks[0] != uplinks[1]


def test_combined_without_a_floor_is_exact() -> None:
    """Nothing goes first then, and halves are halves."""
    halves = [replace(one, demand_mbps=5.0) for one in two_of_a_job()]
    assert Combined().decide(view(FABRIC, halves[:2], replace(WIRES, floor=None))) == []


def ring_and_stranger(began: tuple[float, ...] = (), **more: Any) -> View:
    """A job from h0 to h1 with 1 MB in each iteration, background from h0 to h2, and another from h3 to h4; 10 Mb/s."""
    flows = [flow(STAR, 0, "h0", "h1", job="ring", first=True), flow(STAR, 1, "h0", "h2", **more), flow(STAR, 2, "h3", "h4")]
    job = JobView("ring", (("h0", "h1"),), (1_000_000,), len(began) - 1, began, (0.1,) * len(began))
    return view(STAR, flows, jobs=(job,))


def test_background_keeps_the_floor_of_a_link_whose_job_is_new() -> None:
    """What the job leaves is not known yet; who shares nothing with it is not limited."""
    seen = ring_and_stranger()
    assert limits(Combined().decide(seen)) == {seen.flows[1].key: 0.5}


@pytest.mark.parametrize(("slowing", "mbps"), [(0.0, 10 - 8 / 0.95641), (0.25, 10 - 6.4 / 0.95641)])
def test_background_gets_what_the_job_leaves_at_its_best(slowing: float, mbps: float) -> None:
    """A megabyte a second, headers counted: what a slower iteration leaves besides is not given away as well."""
    seen = ring_and_stranger((0.0, 1.0, 2.0, 5.0))
    assert limits(Combined(slowing=slowing).decide(seen)) == {seen.flows[1].key: pytest.approx(mbps, rel=1e-3)}
    assert limits(Combined(slowing=slowing).decide(ring_and_stranger((0.0, 1.0), limit_mbps=mbps * 1.1))) == {}


def test_a_limit_is_lifted_where_no_job_is() -> None:
    """Or where the job takes next to nothing."""
    alone = view(STAR, [flow(STAR, 1, "h0", "h2", limit_mbps=1.0)])
    assert limits(Combined().decide(alone)) == {alone.flows[0].key: None}
    seldom = ring_and_stranger((0.0, 100.0), limit_mbps=1.0)
    assert limits(Combined().decide(seldom)) == {seldom.flows[1].key: None}


def test_a_gift_of_speed_is_refused() -> None:
    """With what would do."""
    with pytest.raises(ValueError, match="accepted: 0 or more"):
        Combined(slowing=-0.1)


# -- interleave


def periodic(*jobs: tuple[float, float, float], **more: Any) -> View:
    """Jobs from side to side of a dumbbell of 10 Mb/s: when each began last, its period alone, and its megabits in it."""
    flows = [flow(BELL, n, f"l{n}", f"r{n}", job=f"job.{n}") for n in range(len(jobs))]
    told = []
    for n, (began, period, megabits) in enumerate(jobs):
        busy = megabits / 10 / 0.9564
        times = tuple(began - back * period for back in (2, 1, 0))
        told.append(JobView(f"job.{n}", ((f"l{n}", f"r{n}"),), (round(megabits * 1e6 / 8),), 2, times, (busy,) * 3, **more))
    return replace(view(BELL, flows, jobs=tuple(told)), t=max(began for began, _, _ in jobs) + 0.5)


def turned(seen: View) -> dict[str, float]:
    """By job, the delay that was ordered, in s."""
    return {order.job: order.delay_ms / 1000 for order in Interleave(route=False).decide(seen) if isinstance(order, Shift)}


def test_two_jobs_in_phase_are_set_opposite() -> None:
    """Each busy for a quarter of its second: the middle of what is free, half a period, leaves most room on both sides."""
    assert turned(periodic((10.0, 1.0, 2.4), (10.0, 1.0, 2.4))) == {"job.1": pytest.approx(0.5, abs=0.02)}


def test_jobs_that_are_apart_are_left_alone() -> None:
    """Also when nothing can be gained: both are busy all the time."""
    assert turned(periodic((10.0, 1.0, 2.4), (10.5, 1.0, 2.4))) == {}
    assert turned(periodic((10.0, 1.0, 9.5), (10.0, 1.0, 9.5))) == {}


def test_three_jobs_find_room_for_each() -> None:
    """A third of the circle each; nobody overlaps with anybody."""
    delays = {"job.0": 0.0, "job.1": 0.0, "job.2": 0.0} | turned(periodic(*[(10.0, 1.0, 2.8)] * 3))
    begins = sorted(delay % 1.0 for delay in delays.values())
    assert min(b - a for a, b in zip(begins, [*begins[1:], begins[0] + 1], strict=True)) >= 0.28 / 0.9564 - 0.02


def test_who_is_in_the_way_is_delayed_least() -> None:
    """A little too early is put right by delaying the other a little, not by a whole period."""
    delays = turned(periodic((10.0, 1.0, 4.6), (10.6, 1.0, 4.6)))
    assert list(delays) == ["job.0"] and delays["job.0"] == pytest.approx(0.1, abs=0.02)


def test_a_job_twice_as_fast_fits_between() -> None:
    """Its two turns stay clear of the slow one's."""
    delays = turned(periodic((10.0, 2.0, 4.0), (10.0, 1.0, 3.0)))
    begin = (delays.get("job.1", 0.0) - delays.get("job.0", 0.0)) % 1.0
    assert 0.4 <= begin <= 0.7


def test_periods_of_three_to_two_meet_on_a_larger_circle() -> None:
    """Round 3 s the one comes thrice and the other twice, half a second apart at the nearest: there is just room for both."""
    delays = turned(periodic((10.0, 1.5, 2.0), (10.0, 1.0, 2.0)))
    begin = (delays.get("job.1", 0.0) - delays.get("job.0", 0.0)) % 0.5
    assert begin == pytest.approx(0.25, abs=0.03)


def test_periods_that_do_not_fit_are_left_alone() -> None:
    """They would not stay where they are put."""
    assert turned(periodic((10.0, 1.0, 3.0), (10.0, 0.7, 2.0))) == {}


def test_nothing_is_judged_while_a_shift_is_coming_nor_without_a_clock() -> None:
    """And a job that has not been heard of for long is over."""
    jobs = ((10.0, 1.0, 2.4), (10.0, 1.0, 2.4))
    assert turned(periodic(*jobs, shifted=3)) == {}
    assert turned(periodic(*jobs, shifted=2)) != {}
    assert turned(replace(periodic(*jobs), t=20.0)) == {}
    silent = periodic(*jobs)
    assert turned(replace(silent, jobs=tuple(replace(job, began=(), busy_s=()) for job in silent.jobs))) == {}


def test_jobs_on_other_links_do_not_matter() -> None:
    """In phase, and nothing shared."""
    seen = periodic((10.0, 1.0, 2.4), (10.0, 1.0, 2.4))
    apart = view(STAR, [flow(STAR, 0, "h0", "h1", job="job.0"), flow(STAR, 1, "h2", "h3", job="job.1")])
    jobs = tuple(replace(job, flows=(ends,)) for job, ends in zip(seen.jobs, (("h0", "h1"), ("h2", "h3")), strict=True))
    assert turned(replace(apart, jobs=jobs, t=10.5)) == {}


# -- max-min


def limits(actions: Sequence[Action]) -> dict[FlowKey, float]:
    """The rates that were ordered."""
    return {action.target: action.mbps for action in actions if isinstance(action, SetRate)}  # type: ignore[misc]


def test_shares_of_one_link_are_equal_and_leave_room() -> None:
    """Three into one receiver: a third of 95 % each; the fourth, elsewhere, gets 95 % for itself."""
    flows = [flow(STAR, n, f"h{n}", "h9") for n in range(3)] + [flow(STAR, 3, "h3", "h8")]
    rates = limits(MaxMin().decide(view(STAR, flows)))
    assert [rates[one.key] for one in flows] == pytest.approx([9.5 / 3] * 3 + [9.5], rel=1e-4)


def test_a_flow_that_wants_less_leaves_the_rest_to_others() -> None:
    """One that used a fifth of its limit is given a little more than it used, and no more."""
    flows = [
        flow(STAR, 0, "h0", "h9", limit_mbps=4.75, mbps=0.95),
        flow(STAR, 1, "h1", "h9", limit_mbps=4.75, mbps=4.7),
    ]  # fmt: skip
    rates = limits(MaxMin().decide(view(STAR, flows)))
    assert [rates[one.key] for one in flows] == pytest.approx([0.95 * 1.25, 9.5 - 0.95 * 1.25], rel=1e-4)


def test_limits_that_are_right_are_left_alone() -> None:
    """Within the step."""
    flows = [flow(STAR, n, f"h{n}", "h9", limit_mbps=limit, mbps=4.7) for n, limit in enumerate((4.75, 4.8))]
    assert MaxMin().decide(view(STAR, flows)) == []
    assert len(MaxMin(step=0.001).decide(view(STAR, flows))) == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15), st.integers(0, 3)), min_size=1, max_size=24))
def test_no_link_is_ever_given_more_than_its_headroom(pairs: list[tuple[int, int, int]]) -> None:
    """Whatever flows there are; and each is stopped by a link that is full, or takes all of its NIC's share."""
    hosts = [host.name for host in FABRIC.hosts]
    flows = [flow(FABRIC, n, hosts[a], hosts[b], choice) for n, (a, b, choice) in enumerate(pairs) if a != b]
    rates = limits(MaxMin(route=False).decide(view(FABRIC, flows)))
    load = {port: sum(rates[one.key] for one in flows if port in (one.path or ())) for port in FABRIC.peer}
    assert max(load.values()) <= 9.5 + 1e-3
    for one in flows:
        assert any(load[port] >= 9.5 - 1e-2 for port in one.path or ())


def test_a_headroom_that_is_none_is_refused() -> None:
    """With what would do."""
    with pytest.raises(ValueError, match="accepted: above 0 and at most 1"):
        MaxMin(headroom=1.5)


# -- incast-guard


def incast(senders: int, **more: Any) -> View:
    """A job in which all send to host 0."""
    job = JobView("gather", tuple((f"h{n + 1}", "h0") for n in range(senders)), (8192,) * senders)
    return view(STAR, [], jobs=(job,), **more)


def test_windows_of_an_incast_fit_its_queue() -> None:
    """15 senders on a queue of 50 frames: 3 frames each, and a time-out after all of it has drained."""
    orders = IncastGuard().decide(incast(15))
    found = {order.host: order.transport for order in orders if isinstance(order, SetTransport)}
    assert found.keys() == {f"h{n}" for n in range(1, 16)}
    # 50 frames of 1514 bytes take 60.6 ms at 10 Mb/s; idle, a frame and its acknowledgement cross two links in 2.5 ms.
    assert set(found.values()) == {Transport(rto_min_ms=64, initcwnd=3, window_packets=3)}


def test_hosts_that_are_set_so_are_left_alone() -> None:
    """It comes to rest."""
    first = {order.host: order.transport for order in IncastGuard().decide(incast(15)) if isinstance(order, SetTransport)}
    assert IncastGuard().decide(incast(15, wires=replace(WIRES, transport=first))) == []


def test_a_window_is_never_less_than_two_packets() -> None:
    """A single one would wait for the receiver's timer."""
    orders = IncastGuard().decide(incast(15, wires=replace(WIRES, queue_bytes=1514)))
    assert {order.transport.initcwnd for order in orders if isinstance(order, SetTransport)} == {2}


def test_few_senders_are_no_incast() -> None:
    """Two share a link well; and who does not know the queue does not guess."""
    assert IncastGuard().decide(incast(2)) == []
    assert IncastGuard().decide(incast(15, wires=None)) == []


# -- ecn-tuner


def port_view(utilisation: float, backlog: int, ecn: tuple[int, int] | None) -> View:
    """One port that shows this, all others idle."""
    port = Port("s0", 1)
    base = view(STAR, [])
    link = replace(base.links[port], utilisation=utilisation, backlog_bytes=backlog, ecn_bytes=ecn)
    return replace(base, links={**base.links, port: link})


def judged(looks: Sequence[tuple[float, int]], ecn: tuple[int, int] | None = (15140, 15140)) -> list[SetEcn]:
    """What the tuner orders after it has met the port, at each of these looks of utilisation and backlog."""
    tuner = EcnTuner(every=5, route=False)
    tuner.decide(port_view(0.0, 0, (2 * WIRES.frame,) * 2 if ecn else None))
    return [order for look in looks for order in tuner.decide(port_view(*look, ecn)) if isinstance(order, SetEcn)]


def bounds(orders: list[SetEcn]) -> list[tuple[int, int]]:
    return [(order.min_bytes, order.max_bytes) for order in orders]


def test_a_port_begins_low_whatever_it_was_set_to() -> None:
    """With two frames, asked for until they are in force; one that does not mark is left alone."""
    tuner, view = EcnTuner(route=False), port_view(0.0, 0, (48448, 48448))
    (order,) = (order for order in tuner.decide(view) if isinstance(order, SetEcn))
    assert order.min_bytes == order.max_bytes == 2 * WIRES.frame
    assert tuner.decide(view) == [order]
    assert tuner.decide(port_view(0.0, 0, (2 * WIRES.frame,) * 2)) == [] == EcnTuner(route=False).decide(port_view(0.0, 0, None))


def test_a_port_that_falls_short_marks_later_and_a_full_one_earlier() -> None:
    """Up by the factor; down by half of what always stood there, or by the factor where that is more."""
    assert bounds(judged([(0.8, 3000)] * 6)) == [(22710, 22710)]
    assert bounds(judged([(0.99, 3000)] * 6)) == [(12869, 12869)]
    assert bounds(judged([(0.99, 14000), (0.99, 12000)] * 3)) == [(9140, 9140)]
    assert judged([(0.99, 3000)] * 6, None) == []


def test_a_port_whose_senders_pause_is_left_alone() -> None:
    """What began or ended without a queue lacked data: an incast's bursts do not raise its threshold."""
    assert judged([(0.8, 3000), (0.8, 0)] * 20) == judged([(0.8, 0)] * 20) == judged([(0.1, 3000)] * 20) == []


def test_thresholds_stay_within_the_queue() -> None:
    """Not below two frames, not above half of it."""
    assert judged([(0.99, 3000)] * 6, (3028, 3028)) == []
    assert judged([(0.6, 3000)] * 6, (37850, 37850)) == []


def test_nothing_is_judged_before_its_time() -> None:
    """Nor by looks at an idle port."""
    assert judged([(0.99, 3000)] * 5 + [(0.0, 0)] * 9) == []


def test_a_beginning_below_the_least_is_refused() -> None:
    """With what would do."""
    with pytest.raises(ValueError, match="accepted: 1 to start, which is 2"):
        EcnTuner(least=3)
