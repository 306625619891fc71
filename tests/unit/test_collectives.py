"""The collectives: each leaves with every rank what it promises, sends what its cost model says, and needs what it waits for."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import replace

import numpy as np
import pytest

from fabric.collectives import bus_factor
from fabric.collectives.all_gather import all_gather
from fabric.collectives.all_to_all import all_to_all, shift_all_to_all
from fabric.collectives.barrier import barrier
from fabric.collectives.bidirectional_ring_allreduce import bidirectional_ring_allreduce
from fabric.collectives.chains import broadcast, reduce
from fabric.collectives.double_tree_allreduce import double_tree_allreduce
from fabric.collectives.halving_doubling_allreduce import halving_doubling_allreduce
from fabric.collectives.hierarchical_allreduce import hierarchical_allreduce
from fabric.collectives.recursive_doubling_allreduce import recursive_doubling_allreduce
from fabric.collectives.reduce_scatter import reduce_scatter
from fabric.collectives.ring_allreduce import ring_allreduce
from fabric.collectives.two_phase_all_to_all import two_phase_all_to_all
from fabric.cutting import in_pieces, over_channels, side_by_side
from fabric.errors import RequestError
from fabric.fluid import play
from fabric.ideal import ideal_ms
from fabric.interpreter import check_result
from fabric.relaying import relayed
from fabric.schedule import Draft, Schedule

Maker = Callable[[int, int], Schedule]


def halving_from_afar(ranks: int, elements: int) -> Schedule:
    """With the largest chunk at the largest distance."""
    return halving_doubling_allreduce(ranks, elements, largest="far")


MAKERS: tuple[Maker, ...] = (
    ring_allreduce, bidirectional_ring_allreduce, halving_doubling_allreduce, halving_from_afar, recursive_doubling_allreduce,
    double_tree_allreduce, reduce_scatter, all_gather, all_to_all, shift_all_to_all, broadcast, reduce,
)  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("ranks", range(2, 34))
def test_every_number_of_ranks(make: Maker, ranks: int) -> None:
    """From 2 to 33, with fewer elements than ranks, and with a number that nothing divides."""
    check_result(make(ranks, ranks // 2), orders=2)
    check_result(make(ranks, 61), orders=3)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("elements", [0, 1, 2, 16, 97])
def test_every_size(make: Maker, elements: int) -> None:
    """None, one, as many as ranks."""
    check_result(make(16, elements), orders=2)


@pytest.mark.parametrize(("ranks", "per_server"), [(4, 2), (16, 4), (16, 1), (16, 8), (12, 3), (33, 3)])
@pytest.mark.parametrize("elements", [0, 1, 61])
def test_the_hierarchical_one(ranks: int, per_server: int, elements: int) -> None:
    """Servers of any size; only ranks with the same number in their servers talk across these."""
    schedule = hierarchical_allreduce(ranks, elements, per_server)
    check_result(schedule)
    between = [(src, dst) for src, dst, _ in schedule.connections if src // per_server != dst // per_server]
    assert all(src % per_server == dst % per_server for src, dst in between)


@pytest.mark.parametrize("ranks", range(2, 34))
def test_a_barrier_hears_of_everybody(ranks: int) -> None:
    """In log2 p steps, rounded up."""
    schedule = barrier(ranks, ranks)
    check_result(schedule)
    alpha_ms = 1.0
    assert ideal_ms(schedule, alpha_ms=alpha_ms, payload_mbps=1e9) == pytest.approx(math.ceil(math.log2(ranks)) * alpha_ms, rel=1e-3)


ALPHA, RATE, RANKS, NBYTES = 0.5, 20.0, 16, 1 << 20
WHOLE_MS = NBYTES * 8 / 1000 / RATE  # a buffer over one link


def fluid_ms(schedule: Schedule, burst_bytes: int = 0) -> float:
    """On one switch, with max-min shares."""
    capacity: dict[Hashable, float] = {(rank, way): RATE for rank in range(schedule.ranks) for way in ("out", "in")}
    return play(schedule, lambda src, dst, _: ((src, "out"), (dst, "in")), capacity, ALPHA, burst_bytes=burst_bytes).end_ms


@pytest.mark.parametrize(
    ("make", "steps", "buffers"),
    [
        (ring_allreduce, 30, 2 * 15 / 16), (bidirectional_ring_allreduce, 30, 2 * 15 / 16), (halving_doubling_allreduce, 8, 2 * 15 / 16),
        (halving_from_afar, 8, 2 * 15 / 16), (recursive_doubling_allreduce, 4, 4), (reduce_scatter, 15, 15 / 16), (all_gather, 15, 15 / 16),
        (shift_all_to_all, 15, 15 / 16), (all_to_all, 1, 15 / 16),
    ],
)  # fmt: skip
def test_the_fluid_model_gives_the_textbooks_time(make: Maker, steps: int, buffers: float) -> None:
    """Steps of one latency, and buffers over the rate, on one switch. Source: Thakur, Rabenseifner, Gropp, IJHPCA 2005."""
    schedule = make(RANKS, NBYTES // 4)
    assert fluid_ms(schedule) == pytest.approx(steps * ALPHA + buffers * WHOLE_MS, rel=1e-6)
    if make is not bidirectional_ring_allreduce:  # each way could wait for its latencies while the other sends
        assert ideal_ms(schedule, alpha_ms=ALPHA, payload_mbps=RATE) == pytest.approx(fluid_ms(schedule), rel=1e-6)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("ranks", [2, 5, 8])
@pytest.mark.parametrize("burst_bytes", [0, 8948])
def test_no_sharing_of_links_beats_the_ideal(make: Maker, ranks: int, burst_bytes: int) -> None:
    """Max-min shares, which TCP comes near to, take as long or longer; in small pieces and large."""
    for elements in (64, 100_000):
        schedule = make(ranks, elements)
        least = ideal_ms(schedule, alpha_ms=ALPHA, payload_mbps=RATE, burst_bytes=burst_bytes)
        assert 0 < least <= fluid_ms(schedule, burst_bytes) * (1 + 1e-9)


@pytest.mark.parametrize("make", [broadcast, reduce])
def test_a_chain_is_a_pipeline(make: Callable[..., Schedule]) -> None:
    """p - 2 pieces to fill it, then all of them: (p - 2 + m)(n / m over the rate), and a latency a hop."""
    for pieces in (1, 16, 64):
        time_ms = ideal_ms(make(RANKS, NBYTES // 4, pieces=pieces), alpha_ms=ALPHA, payload_mbps=RATE)
        assert time_ms == pytest.approx((RANKS - 2 + pieces) * WHOLE_MS / pieces + (RANKS - 1) * ALPHA, rel=1e-6)


def test_the_double_tree_comes_near_two_buffers() -> None:
    """With many pieces; 15/16 of the bus bandwidth of a ring, at 16 ranks. Source: Sanders, Speck, Träff 2009."""
    few, many = (fluid_ms(double_tree_allreduce(RANKS, NBYTES // 4, pieces)) for pieces in (4, 64))
    assert few > 1.2 * many
    assert 2 * WHOLE_MS < many < 2.15 * WHOLE_MS


@pytest.mark.parametrize("ranks", range(2, 34))
def test_nobody_is_inside_both_trees(ranks: int) -> None:
    """Save for one rank where their number is odd; so nobody sends much more than two buffers."""
    schedule = double_tree_allreduce(ranks, 2, pieces=1)
    inside = [{item.dst for item in schedule.transfers if item.op == "sum" and item.channel == tree and item.after} for tree in (0, 1)]
    assert len(inside[0] & inside[1]) <= ranks % 2
    assert max(schedule.nbytes_sent_by(rank) for rank in range(ranks)) <= 3 * schedule.nbytes


@pytest.mark.parametrize(
    "schedule",
    [
        bidirectional_ring_allreduce(4, 16), recursive_doubling_allreduce(4, 3),
        recursive_doubling_allreduce(5, 3), double_tree_allreduce(6, 8, 2), reduce_scatter(4, 8), all_gather(4, 8),
        broadcast(4, 8, 2), reduce(4, 8, 2),
    ],
    ids=lambda schedule: f"{schedule.collective}-{schedule.ranks}",
)  # fmt: skip
def test_a_missing_dependency_shows(schedule: Schedule) -> None:
    """Whichever single dependency is dropped, some order gives a wrong value: each is there for a reason."""
    for broken in (item for item in schedule.transfers if item.after):
        for lost in broken.after:
            rest = tuple(number for number in broken.after if number != lost)
            early = tuple(replace(item, after=rest) if item.id == broken.id else item for item in schedule.transfers)
            with pytest.raises(RequestError, match="a transfer is missing, doubled, or begins too early"):
                check_result(replace(schedule, transfers=early), orders=60)


@pytest.mark.parametrize(
    "schedule",
    [hierarchical_allreduce(8, 16, 4), halving_doubling_allreduce(8, 16), halving_doubling_allreduce(6, 16)],
    ids=lambda schedule: f"{schedule.collective}-{schedule.ranks}",
)
def test_a_transfer_that_waits_for_nothing_any_more_shows(schedule: Schedule) -> None:
    """Where one dependency may follow from another in some steps: dropped all together they are found out."""
    for broken in (item for item in schedule.transfers if item.after):
        early = tuple(replace(item, after=()) if item.id == broken.id else item for item in schedule.transfers)
        with pytest.raises(RequestError, match="begins too early"):
            check_result(replace(schedule, transfers=early), orders=60)


@pytest.mark.parametrize("make", MAKERS)
def test_channels_and_pieces_leave_the_same(make: Maker) -> None:
    """Cut both ways, for numbers that divide and that do not; the bytes are the same, the connections as many times more."""
    whole = make(5, 613)
    for parts in (2, 3):
        wide, long = over_channels(whole, parts), in_pieces(whole, parts)
        for schedule in (wide, long):
            check_result(schedule, orders=4)
            assert [schedule.nbytes_sent_by(rank) for rank in range(5)] == [whole.nbytes_sent_by(rank) for rank in range(5)]
        assert len(wide.connections) == parts * len(whole.connections)
        assert long.connections.keys() == whole.connections.keys()


def test_parts_wait_for_their_own_parts() -> None:
    """Of a ring on two channels, each channel is a ring by itself."""
    wide = over_channels(ring_allreduce(4, 64), 2)
    assert all(wide.transfers[number].channel == item.channel for item in wide.transfers for number in item.after)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("servers", "rails"), [(2, 2), (3, 2), (2, 4)])
def test_what_changes_rails_is_passed_on_inside_a_server(make: Maker, servers: int, rails: int) -> None:
    """In any order of ranks: the same result, and no transfer across the network from rail to rail."""
    ranks = servers * rails
    order = np.random.default_rng(ranks).permutation(ranks).tolist()
    rail, server = [place % rails for place in order], [f"n{place // rails}" for place in order]
    schedule = relayed(make(ranks, 61), rail, server)
    check_result(schedule, orders=6)
    assert all(rail[src] == rail[dst] or server[src] == server[dst] for src, dst, _ in schedule.connections)


def test_what_is_passed_on_keeps_its_channels() -> None:
    """Four connections an edge are four on both legs."""
    schedule = relayed(over_channels(all_to_all(4, 64), 4), [0, 1, 0, 1], ["a", "a", "b", "b"])
    check_result(schedule, orders=2)
    assert sum((src, dst) == (1, 3) for src, dst, _ in schedule.connections) == 4 + 4  # its own, and what rank 0 has for rank 3


def test_the_ideal_does_not_depend_on_the_order_of_what_is_independent() -> None:
    """Two branches that begin on one link: whichever is listed first, the longer one decides, and may have what the link holds."""
    times = []
    for first, second in (((1,), (2, 3, 4)), ((2, 3, 4), (1,))):
        draft = Draft("tree", 5, 4000, "broadcast")
        for branch in (first, second):
            last, at = None, 0
            for rank in branch:
                last, at = draft.send(at, rank, 0, 4000, "copy", [last]), rank
        times.append(ideal_ms(draft.schedule(), alpha_ms=0, payload_mbps=8, burst_bytes=8000))
    assert times[0] == pytest.approx(times[1])


def test_without_rails_nothing_is_passed_on() -> None:
    """And where there is nobody to pass it on, that is said."""
    ring = ring_allreduce(4, 8)
    assert relayed(ring, [0] * 4, ["a", "a", "b", "b"]) is ring
    with pytest.raises(RequestError, match="got rank 0 in a sending to rank 1, on whose rail nobody of that server is"):
        relayed(ring_allreduce(2, 8), [0, 1], ["a", "b"])


@pytest.mark.parametrize(("ranks", "per_server"), [(4, 2), (16, 4), (16, 8), (6, 3), (4, 1)])
@pytest.mark.parametrize("elements", [0, 3, 61, 256])
def test_the_all_to_all_of_two_phases(ranks: int, per_server: int, elements: int) -> None:
    """It leaves what any all-to-all leaves, and sends nothing across the network from rail to rail."""
    schedule = two_phase_all_to_all(ranks, elements, per_server)
    check_result(schedule)
    between = [(src, dst) for src, dst, _ in schedule.connections if src // per_server != dst // per_server]
    assert all(src % per_server == dst % per_server for src, dst in between)


@pytest.mark.parametrize(("servers", "rails", "least"), [(4, 4, 0.0833), (2, 8, 0.0972)])
def test_two_phases_cost_what_the_first_one_takes(servers: int, rails: int, least: float) -> None:
    """(G - 1) / G of a buffer at nine times a NIC's rate, over the time of one buffer at a NIC's; the rest is as without it.

    Source: Wang et al., arXiv 2307.12169, section 4.
    """
    ranks = servers * rails
    capacity: dict[Hashable, float] = {(rank, way): RATE * (9 if way == "inside" else 1) for rank in range(ranks) for way in ("out", "in", "inside")}

    def path(src: int, dst: int, _: int) -> tuple[Hashable, ...]:
        return ((src, "inside"),) if src // rails == dst // rails else ((src, "out"), (dst, "in"))

    two, one = (play(made, path, capacity, 0).end_ms for made in (two_phase_all_to_all(ranks, 1 << 18, rails), all_to_all(ranks, 1 << 18)))
    assert (two - one) / WHOLE_MS == pytest.approx((rails - 1) / rails / 9, abs=1e-3) == pytest.approx(least, abs=2e-3)


@pytest.mark.parametrize("make", MAKERS)
def test_side_by_side_each_group_has_its_own(make: Maker) -> None:
    """Three of everything, and no transfer between them."""
    schedule = side_by_side(make(4, 13), 3)
    check_result(schedule, orders=3)
    assert all((src - dst) % 3 == 0 for src, dst, _ in schedule.connections)


def test_what_is_refused() -> None:
    """One line each, with what would do."""
    for make in MAKERS:
        with pytest.raises(RequestError, match=r"collective\.ranks: got 1; accepted: 2 or more"):
            make(1, 8)
        with pytest.raises(RequestError, match="got -1 elements"):
            make(4, -1)
    with pytest.raises(RequestError) as caught:
        hierarchical_allreduce(16, 64, 3)
    assert str(caught.value) == "collective.per_server: got 3; accepted: 1, 2, 4, 8 for 16 ranks, two servers or more"
    with pytest.raises(RequestError, match=r"collective\.largest: got 'here'; accepted: 'near', 'far'"):
        halving_doubling_allreduce(4, 8, largest="here")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"collective\.nbytes: got 4 bytes; accepted: 64 for 16 ranks"):
        barrier(16, 1)
    with pytest.raises(RequestError, match=r"collective\.pieces: got 0"):
        broadcast(4, 8, pieces=0)
    with pytest.raises(RequestError, match=r"collective\.channels: got 0"):
        over_channels(ring_allreduce(4, 8), 0)


@pytest.mark.parametrize(("name", "factor"), [("ring-reduce-scatter", 0.9375), ("shift-all-to-all", 0.9375), ("reduce", 1.0), ("barrier", None)])
def test_their_bus_factors(name: str, factor: float | None) -> None:
    """As nccl-tests counts them; a barrier moves nothing to speak of, so it has none."""
    assert bus_factor(name, 16) == factor
