"""The rehearsal: policies against the fluid model, up to the figures that theory gives for a k=4 fat-tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from controllers.policies.annealing import Annealing
from controllers.policies.exact import Exact
from controllers.policies.first_fit import FirstFit
from controllers.policies.least_loaded import LeastLoaded
from controllers.policies.weighted import Weighted
from fabric.errors import RequestError
from fabric.fluid import share_of_nonblocking
from fabric.graph import Port
from fabric.load import Flow, permutation, stride
from fabric.policy import Action, FlowKey, Policy, Reroute, Reweight, View
from fabric.rehearsal import Rehearsal
from fabric.seeds import rng
from topologies.fat_tree import fat_tree

FABRIC = fat_tree(4)
HOSTS = [host.name for host in FABRIC.hosts]
SEEDS = range(1, 41)


@dataclass(frozen=True)
class Says:
    """A policy with one answer."""

    answer: Callable[[View], Sequence[Action]]

    def decide(self, view: View) -> Sequence[Action]:
        """The answer."""
        return self.answer(view)


LEAVES_ALL = Says(lambda _: ())


def rehearsal(flows: Sequence[Flow], seed: int, **options: object) -> Rehearsal:
    return Rehearsal(FABRIC, flows, rng(seed, "hash"), **options)  # type: ignore[arg-type]


def ring(seed: int) -> list[Flow]:
    """The 16 edges of a ring of all hosts in a random order."""
    order = [HOSTS[index] for index in rng(seed, "placement").permutation(len(HOSTS)).tolist()]
    return [Flow(src, dst) for src, dst in zip(order, [*order[1:], order[0]], strict=True)]


def random_permutation(seed: int) -> list[Flow]:
    """Every host sends to one other, in a random order of flows."""
    flows = permutation(HOSTS, rng(seed, "load"))
    return [flows[index] for index in rng(seed, "order").permutation(len(flows)).tolist()]


def shares(policy: Policy, patterns: Sequence[Sequence[Flow]], ticks: int = 3, **options: object) -> tuple[float, float]:
    """Over the seeds, the mean share of non-blocking and slowdown of the slowest flow after so many ticks."""
    found = []
    for seed, flows in zip(SEEDS, patterns, strict=True):
        played = rehearsal(flows, seed, **options)
        rates = played.run(policy, ticks)[-1].rates
        found.append((played.share_of_nb(rates), played.slowdown(rates)))
    share, slowdown = np.mean(found, axis=0)
    return float(share), float(slowdown)


PERMUTATIONS = [random_permutation(seed) for seed in SEEDS]
RINGS = [ring(seed) for seed in SEEDS]


# ---- theory's figures: TARGET, what a flow-level model computed, and how far a mean over 40 seeds may lie from it ----


def test_random_permutations_under_ecmp() -> None:
    """A random hash gets .59 of non-blocking, the slowest flow is 2.6 times slower."""
    hashed = [rehearsal(random_permutation(seed), seed) for seed in range(200)]
    found = [(played.share_of_nb(rates), played.slowdown(rates)) for played in hashed for rates in [played.rates()]]
    share, slowdown = np.mean(found, axis=0)
    assert share == pytest.approx(0.59, abs=0.02)
    assert slowdown == pytest.approx(2.6, abs=0.15)


def test_random_permutations_placed_first_fit() -> None:
    """Flows that arrive one by one and go on the first path with room get .86, the slowest 1.85 times slower."""
    share, slowdown = shares(FirstFit(), PERMUTATIONS, 1, shows_hash=False)
    assert share == pytest.approx(0.86, abs=0.04)
    assert slowdown == pytest.approx(1.85, abs=0.15)


def test_random_permutations_placed_greedily() -> None:
    """Flows that arrive one by one and go on the least loaded path get .84, the slowest 1.93 times slower."""
    share, slowdown = shares(LeastLoaded(), PERMUTATIONS, 1, shows_hash=False)
    assert share == pytest.approx(0.85, abs=0.05)
    assert slowdown == pytest.approx(1.93, abs=0.2)


@pytest.mark.parametrize("policy", [FirstFit(), LeastLoaded()])
def test_moving_one_flow_at_a_time_gets_stuck(policy: Policy) -> None:
    """From where a hash put the flows, neither first fit nor greedy reaches .90 of non-blocking, in any number of ticks."""
    share, _ = shares(policy, PERMUTATIONS, 8)
    assert 0.75 < share < 0.9


def test_random_permutations_annealed() -> None:
    """Annealing is well above first fit within three ticks."""
    assert shares(Annealing(), PERMUTATIONS)[0] > 0.97


@pytest.mark.parametrize("shows_hash", [True, False])
def test_random_permutations_placed_exactly(shows_hash: bool) -> None:
    """Every one of 200 permutations reaches non-blocking in the first tick, all 16 flows, and stays as it is then."""
    for seed in range(200):
        played = rehearsal(permutation(HOSTS, rng(seed, "load")), seed, shows_hash=shows_hash)
        first, second, third = played.run(Exact(), 3)
        assert first.share_of_nb == pytest.approx(1), f"seed {seed}"
        assert second.moves == third.moves == 0


def test_128_flows_placed_exactly() -> None:
    """Random permutations of the k=8 fat-tree, where every link may be full, reach non-blocking as well."""
    fabric = fat_tree(8)
    hosts = [host.name for host in fabric.hosts]
    for seed in range(8):
        played = Rehearsal(fabric, permutation(hosts, rng(seed, "load")), rng(seed, "hash"))
        assert played.tick(Exact()).share_of_nb == pytest.approx(1), f"seed {seed}"


@pytest.mark.parametrize("policy", [FirstFit(), LeastLoaded(), Annealing(), Exact()])
@pytest.mark.parametrize("step", [1, 2, 4, 8])
def test_strides_are_placed_without_collision(policy: Policy, step: int) -> None:
    """Every policy but ECMP reaches non-blocking on every stride."""
    patterns = [stride(HOSTS, rng(0, "load"), step=step)] * len(SEEDS)
    assert shares(policy, patterns, shows_hash=False)[0] == pytest.approx(1, abs=0.005)


def test_rings_at_random_places() -> None:
    """The slowest edge of a 16-rank ring: 2.6 times slower under ECMP, 1.9 by first fit and greedy, 1.0 exact."""
    assert shares(LEAVES_ALL, RINGS)[1] == pytest.approx(2.6, abs=0.2)
    assert shares(FirstFit(), RINGS, shows_hash=False)[1] == pytest.approx(1.87, abs=0.2)
    assert shares(LeastLoaded(), RINGS, shows_hash=False)[1] == pytest.approx(1.94, abs=0.25)
    assert shares(Exact(), RINGS)[1] == pytest.approx(1)


def test_a_ring_in_rank_order_has_nothing_to_win() -> None:
    """Each edge has a way to itself: no policy that moves flows makes it worse than 1.0, and exact reaches it."""
    flows = [Flow(src, dst) for src, dst in zip(HOSTS, [*HOSTS[1:], HOSTS[0]], strict=True)]
    assert shares(Exact(), [flows] * len(SEEDS))[1] == pytest.approx(1)


# ---- broken fabrics ----

HALF = {Port("p0a0", 3): 0.5}
DEAD = {Port("p0a0", 3): 0.0}
SPARE = stride(HOSTS, rng(0, "load"), step=4)[::2]  # one flow an edge switch: half of the paths are free


@pytest.mark.parametrize("policy", [FirstFit(), LeastLoaded(), Annealing(), Exact()])
@pytest.mark.parametrize("rates_mbps", [HALF, DEAD], ids=["half-rate", "dead"])
def test_a_broken_link_is_routed_around_where_paths_are_spare(policy: Policy, rates_mbps: dict[Port, float]) -> None:
    """Eight flows with free paths beside them all run at full rate again, whichever of them the link hit."""
    for seed in SEEDS:
        played = rehearsal(SPARE, seed)
        played.run(policy, 3)
        played.break_links(rates_mbps)
        rates = played.run(policy, 3)[-1].rates
        assert played.slowdown(rates) <= (1.0001 if isinstance(policy, Exact) else 2.0001)
        broken = [path for path in played.paths if path and Port("p0a0", 3) in path]
        assert not broken or rates.min() >= 0.5


def test_exact_does_what_can_be_done_where_a_dead_link_leaves_too_little() -> None:
    """One of 16 aggregation-core links down under stride 8: four flows share three uplinks, the slowest 2.0, none worse."""
    for seed in SEEDS:
        played = rehearsal(stride(HOSTS, rng(0, "load"), step=8), seed, rates_mbps=DEAD)
        steps = played.run(Exact(), 4)
        assert played.slowdown(steps[-1].rates) == pytest.approx(2)
        assert [step.moves for step in steps[2:]] == [0, 0]


def test_flows_return_to_a_link_that_is_mended_only_as_needed() -> None:
    """After the repair the permutation is placed exactly again."""
    played = rehearsal(stride(HOSTS, rng(0, "load"), step=8), 1, rates_mbps=DEAD)
    played.run(Exact(), 2)
    played.break_links({})
    assert played.tick(Exact()).share_of_nb == pytest.approx(1)


def test_flows_of_a_lost_host_are_left_alone() -> None:
    """A host whose link is down has no paths; the others are placed as if it did not send."""
    played = rehearsal(random_permutation(1), 1, rates_mbps={Port("p0e0h0", 0): 0.0})
    rates = played.run(Exact(), 2)[-1].rates.tolist()
    hit = [flow for flow, rate in zip(played.flows, rates, strict=True) if rate == 0]
    assert len(hit) == 2
    assert all("p0e0h0" in (flow.src, flow.dst) for flow in hit)


# ---- the rehearsal itself ----


def test_the_share_is_that_of_the_fluid_model() -> None:
    """Where all hosts have the same NIC it is what `share_of_nonblocking` says, also with flows that ask for little."""
    flows = [Flow(flow.src, flow.dst, mbps) for flow, mbps in zip(random_permutation(1), [None, 3.0] * 8, strict=True)]
    played = rehearsal(flows, 1, mbps=10.0)
    rates = played.rates()
    assert played.share_of_nb(rates) == pytest.approx(share_of_nonblocking(rates, flows, 10.0))


def test_an_unseen_hash_is_not_seen() -> None:
    """Without `shows_hash` a flow's path is None until a policy has placed it."""
    played = rehearsal(random_permutation(1), 1, shows_hash=False)
    assert {flow.path for flow in played.view().flows} == {None}
    first = played.view().flows[0]
    played.tick(Says(lambda view: [Reroute(first.key, view.paths(first.src, first.dst)[0], "to see it")]))
    assert [flow.path is None for flow in played.view().flows] == [False] + [True] * 15


def test_utilisation_is_of_the_configured_rate() -> None:
    """A flow that gets 5 of 10 through a half-rate link fills it, which reads as one half."""
    near = FABRIC.peer[Port("p0e0h0", 0)]
    played = rehearsal([Flow("p0e0h1", "p0e0h0")], 1, mbps=10.0, rates_mbps={near: 5.0})
    link = played.view().links[near]
    assert (link.mbps, link.configured_mbps, link.utilisation) == (5.0, 10.0, 0.5)


def test_a_reweight_draws_the_group_anew_and_leaves_placed_flows() -> None:
    """With all weight on one path the group's hashed flows go there; the one that was rerouted stays."""
    flows = [Flow("p0e0h0", "p1e0h0"), Flow("p0e0h1", "p1e0h1")]
    played = rehearsal(flows, 1)
    third = played.sets("p0e0h0", "p1e0h0")[2]
    played.tick(Says(lambda view: [Reroute(view.flows[0].key, third, "to see it")]))
    played.tick(Says(lambda _: [Reweight("p0e0", "p1e0", (0, 1, 0, 0), "to see it")]))
    assert played.paths == [third, played.sets("p0e0h1", "p1e0h1")[1]]


def first_flow(view: View) -> Reroute:
    flow = view.flows[0]
    return Reroute(flow.key, view.paths(flow.src, flow.dst)[0], "to see it")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda view: [first_flow(view)] * 2, "a flow or a group twice"),
        (lambda view: [Reroute(FlowKey("10.9.9.9", 1, "10.9.9.8", 2), (), "")], "no active flow"),
        (lambda view: [Reroute(view.flows[0].key, view.paths(view.flows[1].src, view.flows[1].dst)[0], "")], "not offered"),
        (lambda _: [Reweight("p0e0", "p1e0", (1, 1), "")], r"got weights \(1, 1\) from p0e0 to p1e0"),
        (lambda _: [Reweight("p0e0", "p1e0", (0, 0, 0, 0), "")], "not all 0"),
    ],
    ids=["twice", "unknown flow", "foreign path", "too few weights", "no weight"],
)
def test_what_a_policy_may_not_say_is_refused(answer: Callable[[View], Sequence[Action]], message: str) -> None:
    """Instead of being carried out, which would make a bad policy look good."""
    with pytest.raises(RequestError, match=message):
        rehearsal(random_permutation(1), 1).tick(Says(answer))


def test_weights_spread_what_no_flow_entry_places() -> None:
    """Weighted hashing alone ends above the plain hash; without its rests, which last longer than this rehearsal."""
    before = np.mean([rehearsal(flows, seed).share_of_nb(rehearsal(flows, seed).rates()) for seed, flows in zip(SEEDS, PERMUTATIONS, strict=True)])
    assert shares(Weighted(rest_s=0.0), PERMUTATIONS, 20, shows_hash=False)[0] > before + 0.1
