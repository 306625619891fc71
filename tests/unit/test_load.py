"""Background patterns: who sends to whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from fabric.errors import RequestError
from fabric.fluid import share_of_nonblocking
from fabric.graph import Fabric, FabricBuilder
from fabric.load import Flow, elephants, hotspot, incast, permutation, random, randx, staggered, stride
from topologies.dual_plane import dual_plane
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch

HOSTS = [f"h{index}" for index in range(16)]
TREE = fat_tree(4)
TREE_HOSTS = [host.name for host in TREE.hosts]
Z = 3.2905  # 99.9 % of a normal distribution lie within so many standard deviations


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_share(count: int, draws: int, chance: float) -> None:
    """A count is within the 99.9 % bounds of a binomial distribution, which is near a normal one at these sizes."""
    bound = Z * (draws * chance * (1 - chance)) ** 0.5
    assert abs(count - draws * chance) <= bound, f"{count} of {draws}, not {chance}"


def ring_of(flow: Flow, fabric: Fabric = TREE) -> str:
    """Where a flow stays in a fat-tree, by its hosts' coordinates: edge, pod or rest."""
    src, dst = (fabric.host_by_name[name].position for name in (flow.src, flow.dst))
    return "edge" if src[:2] == dst[:2] else "pod" if src[0] == dst[0] else "rest"


def leaf_spine() -> Fabric:
    """Two spines over three leaves of two hosts: h0, h1 on the first leaf, and so on."""
    build = FabricBuilder("leaf-spine")
    spines = [build.switch(f"s{index}") for index in range(2)]
    for index in range(3):
        leaf = build.switch(f"l{index}")
        for spine in spines:
            build.link(leaf, spine)
        for nth in range(2):
            build.link(build.host(f"h{2 * index + nth}"), leaf)
    return build.fabric()


@pytest.mark.parametrize("step", [1, 2, 8, 15])
def test_stride_is_hederas(step: int) -> None:
    """Host i sends to host (i + step) mod n, all of them, in host order."""
    flows = stride(HOSTS, rng(), step=step)
    assert flows == [Flow(HOSTS[i], HOSTS[(i + step) % 16]) for i in range(16)]


def test_stride_with_pairs_keeps_some_of_it() -> None:
    """`pairs` draws that many sources by the seed, in host order, each to its usual destination."""
    every = stride(HOSTS, rng(), step=8)
    drawn = [stride(HOSTS, rng(seed), step=8, pairs=4) for seed in range(20)]
    for flows in drawn:
        assert len(flows) == 4
        assert flows == [flow for flow in every if flow in flows]
    assert len({tuple(flows) for flows in drawn}) > 10
    assert drawn[3] == stride(HOSTS, rng(3), step=8, pairs=4)


@pytest.mark.parametrize("size", [2, 3, 16])
def test_permutation_is_a_bijection_without_self_traffic(size: int) -> None:
    """Every host sends once and receives once, never to itself."""
    for seed in range(50):
        flows = permutation(HOSTS[:size], rng(seed))
        assert [flow.src for flow in flows] == HOSTS[:size]
        assert sorted(flow.dst for flow in flows) == sorted(HOSTS[:size])
        assert all(flow.src != flow.dst for flow in flows)


def test_permutation_is_uniform() -> None:
    """Each of the 9 permutations of 4 hosts without a fixed point is 1/9 of draws (chi-square, 8 d.o.f., p = 1e-4)."""
    counts = Counter(tuple(flow.dst for flow in permutation(HOSTS[:4], rng(seed))) for seed in range(1800))
    assert len(counts) == 9
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 31.8


def test_elephants_exchange_in_disjoint_pairs() -> None:
    """2 x pairs different hosts, each sending to its partner and receiving from it."""
    for seed in range(20):
        flows = elephants(HOSTS, rng(seed), pairs=5)
        assert len(flows) == 10
        assert {(flow.src, flow.dst) for flow in flows} == {(flow.dst, flow.src) for flow in flows}
        assert max(Counter(flow.src for flow in flows).values()) == 1
    assert elephants(HOSTS, rng(1), pairs=5) != elephants(HOSTS, rng(2), pairs=5)


def test_random_sends_once_from_every_host_and_never_to_itself() -> None:
    """Source by source in host order; over many draws some receiver is drawn twice and some is not."""
    for seed in range(50):
        flows = random(HOSTS, rng(seed))
        assert [flow.src for flow in flows] == HOSTS and all(flow.src != flow.dst for flow in flows)
    assert any(len({flow.dst for flow in random(HOSTS, rng(seed))}) < 16 for seed in range(3))


def test_random_is_uniform_over_the_others() -> None:
    """Each of the 240 pairs of two hosts is 1/15 of its source's draws (chi-square, 224 d.o.f., p = 1e-4)."""
    counts = Counter((flow.src, flow.dst) for seed in range(1500) for flow in random(HOSTS, rng(seed)))
    assert len(counts) == 240
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 311


@pytest.mark.parametrize("n", [1, 2, 4, 15])
def test_randx_sends_to_n_different_others(n: int) -> None:
    """n flows a host, in host order, each to another one; receivers are shared between sources."""
    for seed in range(20):
        flows = randx(HOSTS, rng(seed), n=n)
        assert [flow.src for flow in flows] == [host for host in HOSTS for _ in range(n)]
        assert len(set(flows)) == 16 * n and all(flow.src != flow.dst for flow in flows)
    assert randx(HOSTS, rng(1), n=n) == randx(HOSTS, rng(1), n=n)
    assert n == 15 or randx(HOSTS, rng(1), n=n) != randx(HOSTS, rng(2), n=n)


def test_randx_is_uniform_over_the_others() -> None:
    """With two a host, each other host gets 2/15 of a source's draws."""
    counts = Counter((flow.src, flow.dst) for seed in range(1000) for flow in randx(HOSTS, rng(seed), n=2))
    per_receiver = Counter({dst: sum(counts[src, dst] for src in HOSTS) for dst in HOSTS})
    assert len(counts) == 240
    for count in per_receiver.values():
        assert_share(count, 15_000, 2 / 15)


@pytest.mark.parametrize("senders", [1, 5, 15])
def test_incast_is_many_to_one(senders: int) -> None:
    """That many different senders in host order, one receiver, who does not send."""
    for seed in range(50):
        flows = incast(HOSTS, rng(seed), senders=senders)
        sources = [flow.src for flow in flows]
        (to,) = {flow.dst for flow in flows}
        assert len(set(sources)) == senders and to not in sources
        assert sources == [host for host in HOSTS if host in sources]


def test_incast_draws_receiver_and_senders_alike() -> None:
    """Every host receives in 1 of 16 draws and sends in 3 of 16 where there are three senders."""
    drawn = [incast(HOSTS, rng(seed), senders=3) for seed in range(4000)]
    receivers = Counter(flows[0].dst for flows in drawn)
    senders = Counter(flow.src for flows in drawn for flow in flows)
    for host in HOSTS:
        assert_share(receivers[host], 4000, 1 / 16)
        assert_share(senders[host], 4000, 3 / 16)


def test_hotspot_is_everyone_to_one() -> None:
    """All others send, in host order; who receives is drawn."""
    drawn = [hotspot(HOSTS, rng(seed)) for seed in range(50)]
    for flows in drawn:
        (to,) = {flow.dst for flow in flows}
        assert [flow.src for flow in flows] == [host for host in HOSTS if host != to]
    assert len({flows[0].dst for flows in drawn}) > 10


def test_a_receiver_that_is_hit_often_is_no_loss_against_an_ideal_switch() -> None:
    """The non-blocking reference has the same receivers: 15 flows sharing one link of 20 Mb/s are a share of 1."""
    flows = hotspot(HOSTS, rng())
    assert share_of_nonblocking([20 / 15] * 15, flows, 20.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("edge", "pod"), [(0.2, 0.3), (0.5, 0.3), (0.0, 0.5), (1.0, 0.0), (0.0, 0.0), (0.7, 0.3)])
def test_staggered_keeps_its_shares(edge: float, pod: float) -> None:
    """Of 8000 flows on a k=4 fat-tree those under the edge switch, in the pod and outside are within 99.9 % bounds."""
    flows = [flow for seed in range(500) for flow in staggered(TREE_HOSTS, rng(seed), fabric=TREE, edge=edge, pod=pod)]
    counts = Counter(ring_of(flow) for flow in flows)
    for name, chance in (("edge", edge), ("pod", pod), ("rest", round(1 - edge - pod, 9))):
        assert_share(counts[name], len(flows), chance)
    assert all(flow.src != flow.dst for flow in flows)
    assert [flow.src for flow in flows] == TREE_HOSTS * 500


def test_staggered_is_uniform_within_a_ring() -> None:
    """Outside its pod each of 12 hosts is as likely as another, for every source (chi-square, 176 d.o.f., p = 1e-4)."""
    draws = [staggered(TREE_HOSTS, rng(seed), fabric=TREE, edge=0, pod=0) for seed in range(1200)]
    counts = Counter((flow.src, flow.dst) for flows in draws for flow in flows)
    assert len(counts) == 16 * 12
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 254


def test_staggered_knows_what_is_near_on_any_fabric() -> None:
    """Whatever it is called: sharing a switch is near, and the next fewest switches apart, here all others, the pod."""
    fabric = leaf_spine()
    hosts = [host.name for host in fabric.hosts]
    near = staggered(hosts, rng(), fabric=fabric, edge=1, pod=0)
    assert [flow.dst for flow in near] == ["h1", "h0", "h3", "h2", "h5", "h4"]
    far = [flow for seed in range(50) for flow in staggered(hosts, rng(seed), fabric=fabric, edge=0, pod=1)]
    assert len({(flow.src, flow.dst) for flow in far}) == 6 * 4
    assert not any(flow in near for flow in far)
    planes = dual_plane(3, 2, 2)
    racks = [{planes.host_by_name[end].position[0] for end in (flow.src, flow.dst)} for flow in staggered(list(planes.host_by_name), rng(), fabric=planes, edge=1, pod=0)]
    assert len(racks) == 6 and all(len(rack) == 1 for rack in racks)  # a NIC is no switch that hosts share
    one = single_switch(4)
    assert len(staggered(list(one.host_by_name), rng(), fabric=one, edge=1, pod=0)) == 4


def test_staggered_stays_among_its_hosts() -> None:
    """A load over some of the hosts draws from these; what a pod is does not change with them."""
    some = [host.name for host in TREE.hosts if host.position[0] in (0, 3) and host.position[2] == 1]
    flows = [flow for seed in range(50) for flow in staggered(some, rng(seed), fabric=TREE, edge=0, pod=0.5)]
    assert {flow.src for flow in flows} == {flow.dst for flow in flows} == set(some)
    assert {ring_of(flow) for flow in flows} == {"pod", "rest"}


def test_a_host_with_two_links_is_near_to_both_switches_and_passes_nothing_on() -> None:
    """It shares a switch with either side, and joins two fabrics for nobody but itself."""
    build = FabricBuilder("two-sides")
    for side in ("a", "b"):
        build.switch(f"s{side}")
        build.link(build.host(side), f"s{side}")
    build.link(build.host("both"), "sa")
    build.link("both", "sb")
    fabric = build.fabric()
    flows = [flow for seed in range(30) for flow in staggered(["both", "a"], rng(seed), fabric=fabric, edge=1, pod=0)]
    assert set(flows) == {Flow("both", "a"), Flow("a", "both")}
    assert staggered(["a", "b"], rng(), fabric=fabric, edge=0, pod=0) == [Flow("a", "b"), Flow("b", "a")]


def test_a_cap_reaches_every_flow() -> None:
    """`mbps` is each flow's demand; left out, flows ask for all there is."""
    for flows in (
        stride(HOSTS, rng(), step=1, mbps=2.5),
        permutation(HOSTS, rng(), mbps=2.5),
        elephants(HOSTS, rng(), pairs=2, mbps=2.5),
        random(HOSTS, rng(), mbps=2.5),
        randx(HOSTS, rng(), n=3, mbps=2.5),
        incast(HOSTS, rng(), senders=3, mbps=2.5),
        hotspot(HOSTS, rng(), mbps=2.5),
        staggered(TREE_HOSTS, rng(), fabric=TREE, edge=0.5, pod=0.3, mbps=2.5),
    ):
        assert {flow.mbps for flow in flows} == {2.5}
    assert stride(HOSTS, rng(), step=1)[0].mbps is None


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: stride(HOSTS, rng(), step=0), "load.step: got 0; accepted: 1 to 15 for 16 hosts, none to itself"),
        (lambda: stride(HOSTS, rng(), step=16), "load.step: got 16; accepted: 1 to 15 for 16 hosts, none to itself"),
        (
            lambda: stride(HOSTS, rng(), step=1, pairs=17),
            "load.pairs: got 17; accepted: 1 to 16 for 16 hosts, or leave it out for all",
        ),
        (lambda: elephants(HOSTS, rng(), pairs=9), "load.pairs: got 9; accepted: 1 to 8 for 16 hosts, two a pair"),
        (lambda: elephants(HOSTS, rng(), pairs=0), "load.pairs: got 0; accepted: 1 to 8 for 16 hosts, two a pair"),
        (lambda: permutation(["a"], rng()), "load: got 1 hosts, 1 different; accepted: 2 or more, each once"),
        (lambda: permutation(["a", "a"], rng()), "load: got 2 hosts, 1 different; accepted: 2 or more, each once"),
        (
            lambda: permutation(HOSTS, rng(), mbps=0),
            "load.mbps: got 0; accepted: above 0, or leave it out for all there is",
        ),
        (lambda: randx(HOSTS, rng(), n=0), "load.n: got 0; accepted: 1 to 15 for 16 hosts, none to itself"),
        (lambda: randx(HOSTS, rng(), n=16), "load.n: got 16; accepted: 1 to 15 for 16 hosts, none to itself"),
        (lambda: incast(HOSTS, rng(), senders=0), "load.senders: got 0; accepted: 1 to 15 for 16 hosts, one receives"),
        (
            lambda: incast(HOSTS, rng(), senders=16),
            "load.senders: got 16; accepted: 1 to 15 for 16 hosts, one receives",
        ),
        (lambda: hotspot(["a"], rng()), "load: got 1 hosts, 1 different; accepted: 2 or more, each once"),
        (lambda: random(["a", "a"], rng()), "load: got 2 hosts, 1 different; accepted: 2 or more, each once"),
        (
            lambda: staggered(TREE_HOSTS, rng(), fabric=TREE, edge=1.5, pod=0),
            "load.edge: got 1.5; accepted: a probability, 0 to 1",
        ),
        (
            lambda: staggered(TREE_HOSTS, rng(), fabric=TREE, edge=0, pod=float("nan")),
            "load.pod: got nan; accepted: a probability, 0 to 1",
        ),
        (
            lambda: staggered(TREE_HOSTS, rng(), fabric=TREE, edge=0.8, pod=0.3),
            "load.pod: got 0.3; accepted: 0 to 0.2 beside edge: 0.8, both are shares of 1",
        ),
        (
            lambda: staggered(TREE_HOSTS[::2], rng(), fabric=TREE, edge=0.5, pod=0.3),
            "load.edge: got a probability of 0.5 on the same edge switch of p0e0h0, where this load has no other host; "
            "accepted: 0 there; change edge and pod, or the hosts",
        ),
        (
            lambda: staggered(["h0", "h1", "h2"], rng(), fabric=leaf_spine(), edge=0, pod=0.75),
            "load.pod: got a probability of 0.25 outside the pod of h0, where this load has no other host; "
            "accepted: 0 there; change edge and pod, or the hosts",
        ),
    ],
)
def test_bad_values_say_what_is_accepted(draw: Callable[[], list[Flow]], message: str) -> None:
    """Each bad value gets its exact line."""
    with pytest.raises(RequestError) as caught:
        draw()
    assert str(caught.value) == message
