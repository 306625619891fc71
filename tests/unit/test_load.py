"""Background patterns: who sends to whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from fabric.errors import RequestError
from fabric.load import Flow, elephants, permutation, stride

HOSTS = [f"h{index}" for index in range(16)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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


def test_a_cap_reaches_every_flow() -> None:
    """`mbps` is each flow's demand; left out, flows ask for all there is."""
    for flows in (
        stride(HOSTS, rng(), step=1, mbps=2.5),
        permutation(HOSTS, rng(), mbps=2.5),
        elephants(HOSTS, rng(), pairs=2, mbps=2.5),
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
    ],
)
def test_bad_values_say_what_is_accepted(draw: Callable[[], list[Flow]], message: str) -> None:
    """Each bad value gets its exact line."""
    with pytest.raises(RequestError) as caught:
        draw()
    assert str(caught.value) == message
