"""The fluid model: fair shares proved by their definition, plays by hand-made cases, and the figures of theory."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.collectives.ring_allreduce import ring_allreduce
from fabric.errors import RequestError
from fabric.fluid import max_min, play, share_of_nonblocking
from fabric.graph import Fabric, Port
from fabric.ideal import ideal_ms
from fabric.load import Flow, permutation, stride
from fabric.paths import NextHops, Path, next_hops, spanning_tree_hops, walk
from fabric.schedule import Schedule, Transfer
from topologies.fat_tree import fat_tree

SEEDS = 200

# ---- max-min, by definition ----

Problem = tuple[list[list[int]], dict[Hashable, float], list[float | None]]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to 12 flows over up to 8 links of any capacity, zero included; a third of the flows has a demand."""
    links = draw(st.integers(1, 8))
    number = st.floats(0, 100, allow_subnormal=False).map(lambda value: round(value, 3))
    capacity = {link: draw(number) for link in range(links)}
    paths = draw(st.lists(st.lists(st.integers(0, links - 1), min_size=1, max_size=links, unique=True), max_size=12))
    demand = [draw(st.one_of(st.none(), st.none(), number)) for _ in paths]
    return paths, capacity, demand


def load_of(link: int, paths: list[list[int]], rates: npt.NDArray[np.float64]) -> float:
    return float(sum(rate for path, rate in zip(paths, rates, strict=True) if link in path))


@given(problems())
def test_no_link_carries_more_than_it_can(problem: Problem) -> None:
    """The rates over each link sum to its capacity at most, and no flow gets more than it asks for."""
    paths, capacity, demand = problem
    rates = max_min(paths, capacity, demand)
    for link, limit in capacity.items():
        assert load_of(link, paths, rates) <= limit * (1 + 1e-9) + 1e-9
    assert all(rate <= (math.inf if cap is None else cap) * (1 + 1e-9) for rate, cap in zip(rates, demand, strict=True))


def is_bottleneck(link: int, rate: float, problem: Problem, rates: npt.NDArray[np.float64]) -> bool:
    paths, capacity, _ = problem
    most = max(other for path, other in zip(paths, rates, strict=True) if link in path)
    full = load_of(link, paths, rates) >= capacity[link] * (1 - 1e-9) - 1e-9
    return full and rate >= most * (1 - 1e-9) - 1e-9


@given(problems())
def test_every_flow_is_at_its_demand_or_has_a_bottleneck(problem: Problem) -> None:
    """A bottleneck is full, and nobody on it has more: the definition of max-min fairness."""
    paths, capacity, demand = problem
    rates = max_min(paths, capacity, demand)
    for path, rate, cap in zip(paths, rates, demand, strict=True):
        satisfied = cap is not None and rate >= cap * (1 - 1e-9)
        assert satisfied or any(is_bottleneck(link, rate, problem, rates) for link in path)


@given(problems(), st.integers(0, 1000))
def test_the_order_of_flows_does_not_matter(problem: Problem, seed: int) -> None:
    """Permuting the flows permutes the rates."""
    paths, capacity, demand = problem
    order = np.random.default_rng(seed).permutation(len(paths)).tolist()
    rates = max_min(paths, capacity, demand)
    permuted = max_min([paths[i] for i in order], capacity, [demand[i] for i in order])
    assert permuted == pytest.approx(rates[order], rel=1e-9, abs=1e-9)


def test_max_min_of_a_known_case() -> None:
    """Three flows hold link a at 1 each, so the one that meets them elsewhere gets the rest of b, up to its demand."""
    paths = ["a", "a", "ab", "b"]
    assert max_min(paths, {"a": 3.0, "b": 10.0}).tolist() == pytest.approx([1, 1, 1, 9])
    assert max_min(paths, {"a": 3.0, "b": 10.0}, [0.2, None, None, 4.0]).tolist() == pytest.approx([0.2, 1.4, 1.4, 4])


def test_max_min_at_the_edges() -> None:
    """No flows, no path, a dead link: no rate, the demand or infinity, and 0."""
    assert max_min([], {}).tolist() == []
    assert max_min([(), ()], {}, [None, 5.0]).tolist() == [math.inf, 5.0]
    assert max_min(["a", "ab", "b"], {"a": 0.0, "b": 1.0}).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("capacity", "demand", "message"),
    [
        ({}, None, "fluid model: a path crosses a, which has no capacity; give it one"),
        ({"a": -1.0}, None, "fluid model: a has capacity -1.0; accepted: a number from 0"),
        ({"a": math.nan}, None, "fluid model: a has capacity nan; accepted: a number from 0"),
        ({"a": 1.0}, [], "fluid model: got 0 demands for 1 flows; give one each, None for no cap"),
        ({"a": 1.0}, [-2.0], "fluid model: got a demand of -2.0; accepted: a number from 0, or None for no cap"),
    ],
)
def test_max_min_refuses_bad_numbers(capacity: dict[Hashable, float], demand: list[float] | None, message: str) -> None:
    """Each bad input gets its exact line."""
    with pytest.raises(RequestError) as caught:
        max_min(["a"], capacity, demand)
    assert str(caught.value) == message


# ---- play, by hand: 1000 elements are 32 kbit, at 32 Mb/s one ms ----


def kilo(number: int, src: int, dst: int, *after: int, channel: int = 0) -> Transfer:
    return Transfer(number, src, dst, 0, 1000, "sum", after, channel)


def by_hosts(src: int, dst: int, _channel: int) -> Sequence[Hashable]:
    return (("out", src), ("in", dst))


LINKS: dict[Hashable, float] = {(way, rank): 32.0 for way in ("out", "in") for rank in range(4)}


def ends(*transfers: Transfer, **options: Sequence[Sequence[Hashable]]) -> list[float]:
    played = play(Schedule("mine", 4, 1000, transfers), by_hosts, LINKS, 0.25, **options)
    assert played.end_ms == max(played.transfer_end_ms)
    return list(played.transfer_end_ms)


def test_a_connection_sends_one_transfer_after_another() -> None:
    """Two on one connection: the second leaves after the first, without waiting for its arrival."""
    assert ends(kilo(0, 0, 1), kilo(1, 0, 1)) == pytest.approx([1.25, 2.25])


def test_channels_share() -> None:
    """Two on two channels of one pair each have half the link."""
    assert ends(kilo(0, 0, 1), kilo(1, 0, 1, channel=1)) == pytest.approx([2.25, 2.25])


def test_a_receiver_passes_on_after_arrival_and_a_sender_after_departure() -> None:
    """Rank 1 waits for the latency of what it receives; rank 0, for what it sent itself, does not."""
    assert ends(kilo(0, 0, 1), kilo(1, 1, 2, 0), kilo(2, 0, 3, 0)) == pytest.approx([1.25, 2.5, 2.25])


def test_shares_follow_what_is_busy() -> None:
    """Two flows into rank 2 share its link while both are busy, and each has all of it before and after."""
    half = Transfer(0, 3, 0, 0, 500, "sum")
    # half arrives at 0.75 and frees (2), when (1) has sent 3/4; its last 1/4 leaves at half rate by 1.25; (2) has then
    # sent 1/4 and goes on alone until 2.0.
    assert ends(half, kilo(1, 1, 2), kilo(2, 0, 2, 0)) == pytest.approx([0.75, 1.5, 2.25])


def test_background_takes_its_share() -> None:
    """An endless flow on the same link halves the rate; one that asks for a quarter leaves three quarters."""
    assert ends(kilo(0, 0, 1), background=[[("in", 1)]]) == pytest.approx([2.25])
    schedule = Schedule("mine", 4, 1000, (kilo(0, 0, 1),))
    played = play(schedule, by_hosts, LINKS, 0.25, background=[[("in", 1)]], background_demand=[8.0])
    assert played.end_ms == pytest.approx(4 / 3 + 0.25)


def test_play_of_nothing_ends_at_once() -> None:
    """A schedule without transfers takes no time; an empty transfer takes the latency alone."""
    assert play(Schedule("none", 4, 0, ()), by_hosts, LINKS, 0.25).end_ms == 0.0
    assert ends(Transfer(0, 0, 1, 5, 5, "copy"), kilo(1, 1, 0, 0)) == pytest.approx([0.25, 1.5])


def test_play_refuses_what_never_ends() -> None:
    """A dead link, a cycle, a latency that is no number: request errors, not endless loops."""
    with pytest.raises(RequestError, match="transfer 0 never ends, its path has no capacity; check the path"):
        play(Schedule("mine", 4, 1000, (kilo(0, 0, 1),)), by_hosts, {**LINKS, ("in", 1): 0.0}, 0.25)
    with pytest.raises(RequestError, match="transfers wait for each other: 0 -> 1 -> 0"):
        ends(kilo(0, 0, 1, 1), kilo(1, 1, 0, 0))
    with pytest.raises(RequestError, match="got alpha_ms nan"):
        play(Schedule("mine", 4, 1000, (kilo(0, 0, 1),)), by_hosts, LINKS, math.nan)


def test_a_straggler_sets_the_rings_pace() -> None:
    """One link of half the rate, always busy, makes a ring without latency take twice as long."""
    ring = ring_allreduce(4, 4000)
    slow = {**LINKS, ("out", 2): 16.0}
    assert play(ring, by_hosts, slow, 0.0).end_ms == pytest.approx(2 * play(ring, by_hosts, LINKS, 0.0).end_ms)


def test_a_large_ring_keeps_step() -> None:
    """128 ranks, 32,512 transfers: every step of all ranks ends at one moment, so at most 254 different ones."""
    ring = ring_allreduce(128, 128)
    capacity: dict[Hashable, float] = {(way, rank): 32.0 for way in ("out", "in") for rank in range(128)}
    played = play(ring, by_hosts, capacity, 0.5)
    assert len(played.transfer_end_ms) == 32_512
    assert len({round(moment, 9) for moment in played.transfer_end_ms}) == 254


def test_share_of_nonblocking_respects_demand() -> None:
    """Two flows into one host can have its link only; a capped one its cap; the share is of what NB would carry."""
    flows = [Flow("a", "c"), Flow("b", "c"), Flow("c", "a", 2.0)]
    assert share_of_nonblocking([5, 5, 2], flows, 10.0) == pytest.approx(1.0)
    assert share_of_nonblocking([2, 2, 2], flows, 10.0) == pytest.approx(0.5)
    with pytest.raises(RequestError, match="got 1 rates for 3 flows, links of 10"):
        share_of_nonblocking([1.0], flows, 10.0)


# ---- figures of theory: routing on a k=4 fat-tree, links of 1 ----

Choose = Callable[[np.random.Generator, Flow], Path]
Pattern = Callable[[np.random.Generator], list[Flow]]


@cache
def fabric() -> Fabric:
    return fat_tree(4)


@cache
def hops() -> NextHops:
    return next_hops(fabric())


def names() -> list[str]:
    return [host.name for host in fabric().hosts]


def honest(rng: np.random.Generator, flow: Flow) -> Path:
    """ECMP with a hash of its own in every switch."""

    def choose(switch: str) -> Port:
        ports = hops()[switch][flow.dst]
        return ports[rng.integers(len(ports))]

    return walk(fabric(), flow.src, flow.dst, choose)


def polarized(rng: np.random.Generator, flow: Flow) -> Path:
    """ECMP with one hash for all switches: edge and aggregation choose the same index."""
    drawn = int(rng.integers(2))

    def choose(switch: str) -> Port:
        ports = hops()[switch][flow.dst]
        return ports[drawn % len(ports)]

    return walk(fabric(), flow.src, flow.dst, choose)


def single_tree(_rng: np.random.Generator, flow: Flow) -> Path:
    """No ECMP: one spanning tree."""
    tree = spanning_tree_hops(fabric())
    return walk(fabric(), flow.src, flow.dst, lambda switch: tree[switch][flow.dst][0])


def figures(choose: Choose, pattern: Pattern, seeds: int = SEEDS) -> tuple[float, float]:
    """Aggregate as a share of non-blocking, and the slowest flow's slowdown: means over seeds."""
    capacity: dict[Hashable, float] = {port: 1.0 for port in fabric().peer}
    shares, slowdowns = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        flows = pattern(rng)
        rates = max_min([choose(rng, flow) for flow in flows], capacity)
        shares.append(share_of_nonblocking(rates, flows, 1.0))
        slowdowns.append(1.0 / rates.min())
    return float(np.mean(shares)), float(np.mean(slowdowns))


def strides(step: int) -> Pattern:
    return lambda rng: stride(names(), rng, step=step)


@pytest.mark.parametrize(("step", "share", "slowdown"), [(2, 0.75, 2.0), (4, 0.615, 2.65), (8, 0.615, 2.65)])
def test_honest_ecmp_on_strides(step: int, share: float, slowdown: float) -> None:
    """A random hash in every switch carries .75 and .615 of non-blocking, its slowest flow 2.0 and 2.65 slower."""
    got = figures(honest, strides(step))
    assert got[0] == pytest.approx(share, abs=0.02)
    assert got[1] == pytest.approx(slowdown, abs=0.1)


def test_nothing_collides_under_stride_1() -> None:
    """Stride 1 puts one flow on each uplink: every routing gets exactly 1."""
    for choose in (honest, polarized, single_tree):
        assert figures(choose, strides(1), seeds=20) == pytest.approx((1.0, 1.0), rel=1e-12)


def test_ecmp_on_random_permutations() -> None:
    """An honest hash carries .59 of non-blocking, its slowest flow 2.6 times slower."""
    share, slowdown = figures(honest, lambda rng: permutation(names(), rng))
    assert share == pytest.approx(0.59, abs=0.03)
    assert slowdown == pytest.approx(2.6, abs=0.1)


@pytest.mark.parametrize("step", [4, 8])
def test_a_polarized_hash_is_worse(step: int) -> None:
    """When edge and aggregation hash alike, half the cores stay empty: .47."""
    assert figures(polarized, strides(step))[0] == pytest.approx(0.47, abs=0.02)


@pytest.mark.parametrize(("step", "share"), [(2, 0.5), (4, 0.25), (8, 0.25)])
def test_a_single_tree_is_no_ecmp(step: int, share: float) -> None:
    """One spanning tree gives exactly the figures that are often quoted as ECMP's."""
    assert figures(single_tree, strides(step), seeds=1)[0] == pytest.approx(share, rel=1e-12)


# ---- figures of theory: ring all-reduce of 16 ranks on that fat-tree ----


def ring_slowdown(seed: int, order: Sequence[int]) -> float:
    """Time under ECMP over the ideal, rank r on host `order[r]`, without latency."""
    rng = np.random.default_rng(seed)
    hosts = [names()[index] for index in order]
    ring = ring_allreduce(16, 16 * 1024)
    capacity: dict[Hashable, float] = {port: 20.0 for port in fabric().peer}
    played = play(ring, lambda src, dst, _: honest(rng, Flow(hosts[src], hosts[dst])), capacity, 0.0)
    return played.end_ms / ideal_ms(ring, alpha_ms=0.0, payload_mbps=20.0)


def test_a_ring_in_rank_order_loses_nothing_to_ecmp() -> None:
    """The control: neighbours side by side never meet, whatever the hash."""
    for seed in range(20):
        assert ring_slowdown(seed, range(16)) == pytest.approx(1.0, rel=1e-12)


def test_a_ring_at_random_places_is_2_6_times_slower_under_ecmp() -> None:
    """Mean over 100 draws of places and hashes; each draw takes a whole number of shares, its worst collision's."""
    drawn = [ring_slowdown(seed, np.random.default_rng([seed, 1]).permutation(16).tolist()) for seed in range(100)]
    assert np.mean(drawn) == pytest.approx(2.6, abs=0.15)
    assert set(np.round(drawn, 6)) <= {1.0, 2.0, 3.0, 4.0}
