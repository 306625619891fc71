"""Policies: what each of them answers, what none of them may, and that all come to rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.policies.annealing import Annealing
from controllers.policies.exact import Exact, Search
from controllers.policies.first_fit import FirstFit
from controllers.policies.least_loaded import LeastLoaded
from controllers.policies.weighted import Weighted
from fabric.bookings import Bookings, open_books
from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder, Port
from fabric.load import Flow, permutation, stride
from fabric.paths import Path, PathSets
from fabric.plugins import load_policy, names
from fabric.policy import FlowKey, FlowView, LinkView, Policy, Reroute, Reweight, View
from fabric.rehearsal import Rehearsal
from fabric.seeds import rng
from topologies.fat_tree import fat_tree

FABRIC = fat_tree(4)
HOSTS = [host.name for host in FABRIC.hosts]
SETS = PathSets(FABRIC)
MOVERS: list[Policy] = [LeastLoaded(), FirstFit(), Annealing(iterations=300), Exact()]
ALL: list[Policy] = [*MOVERS, Weighted()]
each_mover = pytest.mark.parametrize("policy", MOVERS, ids=lambda policy: type(policy).__name__)
each_policy = pytest.mark.parametrize("policy", ALL, ids=lambda policy: type(policy).__name__)


def leaf_spine(leaves: int = 4, spines: int = 3, hosts: int = 3) -> Fabric:
    """Every leaf to every spine, and two cables from the first leaf to the first spine."""
    build = FabricBuilder("leaf-spine")
    for spine in range(spines):
        build.switch(f"s{spine}")
    for leaf in range(leaves):
        build.switch(f"l{leaf}")
        for spine in range(spines):
            build.link(f"l{leaf}", f"s{spine}")
        for host in range(hosts):
            build.link(build.host(f"l{leaf}h{host}"), f"l{leaf}")
    build.link("l0", "s0")
    return build.fabric()


LEAF_SPINE = leaf_spine()


def flow(index: int, src: str, dst: str, path: Path | None, demand: float = 1.0, movable: bool = True) -> FlowView:
    key = FlowKey(src, 20000 + index, dst, 5001)
    return FlowView(key, src, dst, path, demand, movable=movable)


def view_of(
    flows: Sequence[FlowView], rates: Mapping[Port, float] | None = None, fabric: Fabric = FABRIC, tick: int = 0
) -> View:
    """Links of 1 Mb/s, but for those with a rate; both directions of them."""
    found = {port: rate for near, rate in (rates or {}).items() for port in (near, fabric.peer[near])}
    links = {port: LinkView(port, found.get(port, 1.0), 1.0) for port in fabric.peer}
    sets = PathSets(fabric, frozenset(port for port, rate in found.items() if rate == 0))
    return View(0.0, tick, 0.1, links, tuple(flows), sets, {}, sets.between)


def after(view: View, policy: Policy) -> View:
    """The view with the policy's reroutes carried out."""
    to = {action.flow: action.path for action in policy.decide(view) if isinstance(action, Reroute)}
    flows = tuple(replace(flow, path=to.get(flow.key, flow.path)) for flow in view.flows)
    return replace(view, flows=flows, tick=view.tick + 1)


def worst(view: View) -> float:
    """How full the fullest link between switches is booked."""
    books = Bookings(view.links)
    inner: set[int] = set()
    for flow in view.flows:
        path = flow.path or only(view.paths(flow.src, flow.dst))
        books.add(books.links(path), flow.demand_mbps)
        inner.update(books.links(path[1:-1]))
    return books.worst(tuple(inner))


def only(paths: Sequence[Path]) -> Path:
    """Where a flow is that a policy has no need to place."""
    (path,) = paths
    return path


TO_POD_1 = SETS("p0e0h0", "p1e0h0")
BESIDE = SETS("p0e0h1", "p1e0h1")
COLLISION = [flow(0, "p0e0h0", "p1e0h0", TO_POD_1[0]), flow(1, "p0e0h1", "p1e0h1", BESIDE[0])]


# ---- what they answer ----


@each_mover
def test_two_flows_on_one_path_are_parted(policy: Policy) -> None:
    """One moves, to a path that shares no link with the other's; the reason names the link and how it was booked."""
    view = view_of(COLLISION)
    actions = policy.decide(view)
    assert worst(after(view, policy)) == 1
    reroutes = [action for action in actions if isinstance(action, Reroute)]
    assert any("was booked 2.00 times over" in action.reason and "p0e0-eth3" in action.reason for action in reroutes)
    assert all(action.numbers["demand_mbps"] == action.numbers["worst_after"] == 1 for action in reroutes)
    assert reroutes[0].numbers["worst_before"] == 2


@each_mover
def test_flows_that_do_not_meet_stay(policy: Policy) -> None:
    """Nothing is done where nothing improves."""
    assert list(policy.decide(view_of([COLLISION[0], flow(1, "p0e0h1", "p1e0h1", BESIDE[3])]))) == []


@each_mover
def test_a_flow_that_may_not_move_is_gone_round(policy: Policy) -> None:
    """The other one of the two moves."""
    view = view_of([replace(COLLISION[0], movable=False), COLLISION[1]])
    assert [action.flow for action in policy.decide(view)] == [COLLISION[1].key]  # type: ignore[union-attr]
    assert worst(after(view, policy)) == 1


@each_mover
def test_a_flow_on_a_dead_path_is_moved(policy: Policy) -> None:
    """Also when it is small, and it says why."""
    dead = Port("p0a0", 3)
    view = view_of([flow(0, "p0e0h0", "p1e0h0", TO_POD_1[0], 0.01)], {dead: 0.0})
    (action,) = policy.decide(view)
    assert isinstance(action, Reroute)
    assert "down" in action.reason
    assert dead not in action.path


@each_mover
def test_a_degraded_link_is_left_where_another_has_room(policy: Policy) -> None:
    """A flow of 1.0 on a link that carries 0.5 moves to a path that carries it."""
    view = view_of([COLLISION[0]], {Port("p0a0", 3): 0.5})
    assert worst(after(view, policy)) == 1


@each_mover
def test_flows_without_a_known_path_are_placed_apart(policy: Policy) -> None:
    """Two elephants that only a hash knows get a path each, that meet nowhere."""
    view = after(view_of([replace(flow, path=None) for flow in COLLISION]), policy)
    assert worst(view) == 1


@each_mover
def test_hosts_that_share_their_own_link_are_no_reason_to_move(policy: Policy) -> None:
    """Four flows into one host, booked above its link by rough demands, stay where they are."""
    paths = [SETS(f"p{pod}e0h0", "p0e0h0") for pod in (1, 2, 3)]
    flows = [flow(pod, f"p{pod}e0h0", "p0e0h0", options[pod], 0.4) for pod, options in enumerate(paths, 1) for options in [paths[pod - 1]]]
    assert list(policy.decide(view_of(flows))) == []


@each_mover
def test_paths_that_are_not_offered_any_more_may_be_kept(policy: Policy) -> None:
    """A flow on a longer way than the shortest is left there while nothing is wrong with it, and is not sent there."""
    longer = PathSets(FABRIC, frozenset([Port("p0e0", 3), Port("p0e1", 4)]))("p0e0h0", "p0e1h0")[0]
    assert list(policy.decide(view_of([flow(0, "p0e0h0", "p0e1h0", longer)]))) == []


def test_first_fit_leaves_mice() -> None:
    """Flows below a tenth of the NIC are not moved, nor are those that fit nowhere else."""
    mice = [flow(index, f"p0e0h{index % 2}", f"p1e0h{index % 2}", SETS(f"p0e0h{index % 2}", f"p1e0h{index % 2}")[0], 0.09) for index in range(14)]
    assert FirstFit().decide(view_of(mice)) == []
    assert FirstFit(elephant=0.05).decide(view_of(mice)) != []


def test_annealing_depends_on_its_seed_and_the_tick_alone() -> None:
    """The same view gives the same answer; another seed or tick may give another."""
    played = Rehearsal(FABRIC, permutation(HOSTS, rng(1, "load")), rng(1, "hash"))
    view = played.view()
    answers = {seed: tuple(map(repr, Annealing(seed=seed, iterations=50).decide(view))) for seed in range(1, 6)}
    assert answers[1] == tuple(map(repr, Annealing(seed=1, iterations=50).decide(view)))
    assert len(set(answers.values())) > 1
    assert tuple(map(repr, Annealing(seed=1, iterations=50).decide(replace(view, tick=1)))) != answers[1]


# ---- exact ----


def test_small_flows_are_packed() -> None:
    """Halves and thirds on four uplinks that they fill to the last part: depth-first search finds the packing."""
    build = FabricBuilder("two-leaves")
    for name in ("left", "right", "m0", "m1", "m2"):
        build.switch(name)
    for middle in ("m0", "m1", "m2"):
        build.link("left", middle)
        build.link(middle, "right")
    for index in range(8):
        build.link(build.host(f"a{index}"), "left")
        build.link(build.host(f"b{index}"), "right")
    fabric = build.fabric()
    sets = PathSets(fabric)
    demands = [0.5, 0.5, 0.4, 0.35, 0.25, 0.4, 0.3, 0.3]  # 1.0 = .5+.5 = .4+.35+.25 = .4+.3+.3, and no other way
    flows = [flow(index, f"a{index}", f"b{index}", sets(f"a{index}", f"b{index}")[0], mbps) for index, mbps in enumerate(demands)]
    assert worst(after(view_of(flows, fabric=fabric), Exact(slack=0.0))) == pytest.approx(1)


def test_several_flows_of_a_host_are_placed() -> None:
    """All-to-all among one host of each pod and its neighbours: demands of a third, without any overbooking."""
    members = [f"p{pod}e{edge}h0" for pod in range(4) for edge in range(2)]
    pairs = [(src, dst) for index, src in enumerate(members) for dst in (members[(index + step) % 8] for step in (2, 4, 6))]
    for seed in range(10):
        played = Rehearsal(FABRIC, [Flow(src, dst) for src, dst in pairs], rng(seed, "hash"))
        assert played.tick(Exact()).share_of_nb == pytest.approx(1), f"seed {seed}"


def test_a_flow_that_arrives_finds_the_others_in_place() -> None:
    """One that fits beside the others moves none of them; over 20 seeds a flow that does not, fewer than half."""
    moves = []
    for seed in range(20):
        flows = permutation(HOSTS, rng(seed, "load"))
        played = Rehearsal(FABRIC, flows, rng(seed, "hash"))
        played.tick(Exact())
        view = played.view()
        late = replace(view, flows=(*view.flows[:-1], replace(view.flows[-1], path=None)))
        assert worst(after(late, Exact())) == pytest.approx(1)
        moves.append(sum(action.flow != view.flows[-1].key for action in Exact().decide(late)))
    assert np.mean(moves) < 8


def test_the_bound_stops_the_search_where_nothing_can_be_won() -> None:
    """Four flows of a pod over three uplinks, two on one: no placement is better, and no node is spent on looking."""
    played = Rehearsal(FABRIC, stride(HOSTS, rng(0, "load"), step=8), rng(1, "hash"), rates_mbps={Port("p0a0", 3): 0.0})
    played.run(Exact(), 3)
    books, choices = open_books(played.view(), 0.05)
    search = Search(books, choices, 20000)
    search.run(0.1, 1.0)
    assert search.nodes < 3 * len(choices)
    assert [choice.at for choice in choices] == [choice.start for choice in choices]


def test_a_budget_of_nothing_is_obeyed() -> None:
    """Without a node to spend it leaves all as it is."""
    assert Exact(budget=0).decide(view_of(COLLISION)) == []


def test_overload_that_cannot_be_avoided_is_spread() -> None:
    """Six flows over the three spines of a leaf, four of them on one: two on each afterwards."""
    sets = PathSets(LEAF_SPINE)
    ends = [(f"l1h{index % 3}", f"l{2 + index % 2}h{index % 3}") for index in range(6)]
    flows = [flow(index, src, dst, sets(src, dst)[0 if index < 4 else 1]) for index, (src, dst) in enumerate(ends)]
    view = view_of(flows, fabric=LEAF_SPINE)
    assert worst(view) == 4
    assert worst(after(after(view, Exact()), Exact())) == 2


# ---- weighted ----


def groups_view(utilisation: Mapping[Port, float], weights: tuple[int, ...] = (1, 1, 1, 1)) -> View:
    view = view_of([])
    links = {port: replace(link, utilisation=utilisation.get(port, 0.0)) for port, link in view.links.items()}
    return replace(view, links=links, groups={("p0e0", "p1e0"): weights})


def test_weights_follow_what_is_left() -> None:
    """A path with a full link keeps the least weight, the other ones are equal; whole numbers, in the paths' order."""
    busy = SETS.between("p0e0", "p1e0")[0][1]
    (action,) = Weighted(smoothing=1.0).decide(groups_view({busy: 1.0}))
    assert isinstance(action, Reweight)
    assert (action.switch, action.group) == ("p0e0", "p1e0")
    first, *others = action.weights
    assert 0 < first < others[0] / 5
    assert len(set(others)) == 1
    assert "from 0.00 to 1.00 Mb/s left" in action.reason


def test_smoothing_goes_part_of_the_way() -> None:
    """From a quarter each, with one path full: half of the way leaves it an eighth, no smoothing step leaves all."""
    busy = SETS.between("p0e0", "p1e0")[0][1]
    (action,) = Weighted(smoothing=0.5).decide(groups_view({busy: 1.0}))
    assert isinstance(action, Reweight)
    assert action.weights[0] / sum(action.weights) == pytest.approx(1 / 8, abs=0.02)
    assert Weighted(smoothing=0.0).decide(groups_view({busy: 1.0})) == []


def test_weights_do_not_flee_from_their_own_traffic() -> None:
    """A path that is full of the group's own flow counts as free; full of another's it does not."""
    own = flow(0, "p0e0h0", "p1e0h0", TO_POD_1[0])
    view = groups_view(dict.fromkeys(TO_POD_1[0], 1.0))
    assert Weighted().decide(view) != []
    assert Weighted().decide(replace(view, flows=(replace(own, mbps=1.0),))) == []


def test_full_paths_do_not_differ() -> None:
    """All but nothing is left on any of them: a hundredth here and two there are no reason to send flows elsewhere."""
    ports = [path[1] for path in SETS.between("p0e0", "p1e0")]
    assert Weighted(smoothing=1.0).decide(groups_view(dict(zip(ports, (0.99, 1.0, 0.95, 0.98), strict=True)))) == []


def test_a_group_rests_after_a_change() -> None:
    """Asked again at once it says the same, then nothing for five seconds, and then what there is to say."""
    policy, view = Weighted(), groups_view({SETS.between("p0e0", "p1e0")[0][1]: 1.0})
    said = policy.decide(view)
    assert said and policy.decide(view) == said
    assert [bool(policy.decide(replace(view, t=view.t + later))) for later in (0.1, 4.9, 5.0)] == [False, False, True]


@given(st.lists(st.floats(0, 0.07), min_size=8, max_size=8))
def test_noise_below_the_margin_changes_no_weights(noise: list[float]) -> None:
    """Utilisation that wavers by a few per cent is no reason."""
    ports = sorted({port for path in SETS.between("p0e0", "p1e0") for port in path})
    assert Weighted().decide(groups_view(dict(zip(ports, noise, strict=False)))) == []


# ---- what none of them may do ----

rates = st.dictionaries(st.sampled_from(sorted(FABRIC.uplinks())), st.sampled_from([0.0, 0.3, 0.5]), max_size=3)


@st.composite
def views(draw: st.DrawFn) -> View:
    """Up to 20 flows between any hosts, of any demand, wherever and in whatever state they are; broken links."""
    broken = draw(rates)
    flows = []
    for index in range(draw(st.integers(0, 20))):
        src, dst = draw(st.lists(st.sampled_from(HOSTS), min_size=2, max_size=2, unique=True))
        path = draw(st.sampled_from([None, *SETS(src, dst)]))
        demand = draw(st.sampled_from([0.0, 0.05, 0.25, 1 / 3, 0.5, 1.0, 1.01]))
        flows.append(flow(index, src, dst, path, demand, movable=draw(st.sampled_from([True, True, False]))))
    return view_of(flows, broken, tick=draw(st.integers(0, 3)))


@each_mover
@given(view=views())
@settings(max_examples=60)
def test_answers_keep_the_contract(policy: Policy, view: View) -> None:
    """No flow twice, only movable ones, only along paths that are offered and not where they are; the same again."""
    actions = policy.decide(view)
    by_key = {flow.key: flow for flow in view.flows}
    assert len({action.flow for action in actions if isinstance(action, Reroute)}) == len(actions)
    for action in actions:
        assert isinstance(action, Reroute)
        moved = by_key[action.flow]
        assert moved.movable
        assert action.path in view.paths(moved.src, moved.dst)
        assert action.path != moved.path
        assert action.reason
        assert all(math.isfinite(number) for number in action.numbers.values())
    assert policy.decide(view) == actions


def excess(view: View) -> float:
    """What is booked above capacity on links between switches, among flows whose path is known and alive."""
    books = Bookings(view.links, 0.05)
    inner: set[int] = set()
    for flow in view.flows:
        if flow.path is not None:
            books.add(books.links(flow.path), flow.demand_mbps)
            inner.update(books.links(flow.path[1:-1]))
    return books.overbooked(inner)


@given(view=views())
@settings(max_examples=60)
def test_exact_never_adds_to_the_overload(view: View) -> None:
    """Where all flows have a living path, what is booked too much is no more than before, and no more than others leave."""
    placed = replace(view, flows=tuple(flow for flow in view.flows if flow.path and all(view.links[port].up for port in flow.path)))
    best = excess(after(placed, Exact()))
    assert best <= excess(placed) + 1e-6
    assert best <= min(excess(after(placed, policy)) for policy in MOVERS[:3]) + 0.1 + 1e-6  # the margin


# ---- coming to rest ----

PATTERNS = {
    "permutation": lambda seed: permutation(HOSTS, rng(seed, "load")),
    "two a host": lambda seed: permutation(HOSTS, rng(seed, "load")) + stride(HOSTS, rng(seed, "load"), step=5),
}


def noisy(view: View, noise: np.random.Generator) -> View:
    """The same flows and links, as counters that waver would show them."""
    links = {
        port: replace(link, utilisation=float(np.clip(link.utilisation + noise.normal(0, 0.1), 0, 1)))
        for port, link in view.links.items()
    }
    wavering = [replace(flow, demand_mbps=flow.demand_mbps * float(noise.uniform(0.98, 1.02))) for flow in view.flows]
    return replace(view, links=links, flows=tuple(wavering))


@pytest.mark.parametrize("policy", [LeastLoaded(), FirstFit(), Exact()], ids=repr)
@pytest.mark.parametrize("pattern", PATTERNS)
@given(seed=st.integers(0, 50), noise=st.integers(0, 1000))
@settings(max_examples=10)
def test_noise_moves_nothing_after_convergence(policy: Policy, pattern: str, seed: int, noise: int) -> None:
    """Once two ticks went by without a move, wavering counters and demands cause none in this tick or the two after."""
    played = Rehearsal(FABRIC, PATTERNS[pattern](seed), rng(seed, "hash"))
    quiet = 0
    for _ in range(20):
        quiet = 0 if played.tick(policy).moves else quiet + 1
        if quiet == 2:
            break
    assert quiet == 2
    draws = rng(noise, "noise")
    for tick in range(3):
        assert list(policy.decide(noisy(replace(played.view(), tick=20 + tick), draws))) == []


@given(seed=st.integers(0, 50), noise=st.integers(0, 1000))
@settings(max_examples=20)
def test_annealing_rests_where_nothing_is_overbooked(seed: int, noise: int) -> None:
    """A random search may find what is better in a later tick; where nothing can be, noise does not set it off."""
    played = Rehearsal(FABRIC, permutation(HOSTS, rng(seed, "load")), rng(seed, "hash"))
    played.run(Exact(), 2)
    draws = rng(noise, "noise")
    for tick in range(3):
        assert Annealing().decide(noisy(replace(played.view(), tick=tick), draws)) == []


# ---- any fabric, and the door ----


def test_any_topology_will_do() -> None:
    """A leaf-spine fabric with a double cable: what theory can place is placed, whatever the switches are called."""
    hosts = [host.name for host in LEAF_SPINE.hosts]
    for seed in range(10):
        played = Rehearsal(LEAF_SPINE, permutation(hosts, rng(seed, "load")), rng(seed, "hash"))
        assert played.tick(Exact()).share_of_nb == pytest.approx(1), f"seed {seed}"
        assert played.run(LeastLoaded(), 2)[-1].moves == 0


@each_policy
def test_an_empty_fabric_needs_nothing(policy: Policy) -> None:
    """No flow and no group: no answer."""
    assert list(policy.decide(view_of([]))) == []


def test_every_policy_is_found_by_its_name() -> None:
    """The entry points lead to the classes, with their parameters as options."""
    assert set(names("policy")) >= {"least-loaded", "first-fit", "annealing", "exact", "weighted"}
    assert load_policy("first-fit", File(), {"elephant": 0.2}) == FirstFit(elephant=0.2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("least-loaded", {"margin": -0.1}, "policy least-loaded: margin: got -0.1; accepted: a number from 0"),
        ("first-fit", {"elephant": 2}, "policy first-fit: elephant: got 2; accepted: a number from 0 to 1"),
        ("annealing", {"iterations": -1}, "policy annealing: iterations: got -1; accepted: a number from 0"),
        ("exact", {"slack": 1.5}, "policy exact: slack: got 1.5; accepted: a number from 0 to 1"),
        ("weighted", {"smoothing": 1.1}, "policy weighted: smoothing: got 1.1; accepted: a number from 0 to 1"),
    ],
)
def test_parameters_out_of_bounds_are_refused(name: str, options: dict[str, float], message: str) -> None:
    """The message says which, what was got and what is accepted."""
    with pytest.raises(RequestError, match=message):
        load_policy(name, File(), options)
