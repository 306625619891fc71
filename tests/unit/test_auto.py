"""Choosing an all-reduce: by size, by what the fabric carries, by where ranks are; and the two numbers of a model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fabric.collectives.auto_allreduce import auto_allreduce
from fabric.composing import compose
from fabric.costs import Cost, fit
from fabric.errors import RequestError
from fabric.graph import Fabric
from fabric.interpreter import check_result
from fabric.keys import Collective, Links
from topologies.fat_tree import fat_tree
from topologies.leaf_spine import leaf_spine
from topologies.rails import rail_only, rail_optimized
from topologies.single_switch import single_switch

LINKS = Links(mbps=10, mtu=9000)


def picked(fabric: Fabric, nbytes: int, alpha_ms: float = 1.3) -> str:
    """The algorithm that is taken with a rank on every host."""
    return auto_allreduce(len(fabric.hosts), nbytes // 4, fabric, [host.name for host in fabric.hosts], LINKS, alpha_ms).collective


def test_size_decides() -> None:
    """All is waiting where little is sent, and all is sending where much is: few steps first, then few bytes."""
    one = single_switch(16)
    assert picked(one, 64) == "recursive-doubling-allreduce"
    assert picked(one, 16384) == "halving-doubling-allreduce"
    assert picked(one, 1 << 20) == "ring-allreduce"  # within 2 % of the best, and the simplest
    assert picked(one, 16384, alpha_ms=0.0) == "ring-allreduce"
    assert picked(one, 16384, alpha_ms=50.0) == "recursive-doubling-allreduce"


def test_the_fabric_decides() -> None:
    """Where leaves have one uplink for four hosts, whoever talks across it least."""
    assert picked(leaf_spine(4, 1, 4), 65536) == "ring-allreduce"
    assert picked(fat_tree(4), 64) == "recursive-doubling-allreduce"


@pytest.mark.parametrize("fabric", [rail_optimized(4, 4), rail_only(4, 4)], ids=["spines", "none"])
def test_servers_decide(fabric: Fabric) -> None:
    """By servers where much is sent; without spines nothing is taken that would have to change rails."""
    assert picked(fabric, 1 << 20) == "hierarchical-allreduce"
    hosts = [host.name for host in fabric.hosts]
    odd = auto_allreduce(16, 1 << 18, fabric, hosts[::4] + hosts[1::4] + hosts[2::4] + hosts[3::4], LINKS)  # ranks rail by rail
    assert odd.collective != "hierarchical-allreduce"


def test_it_says_why_and_is_right() -> None:
    """What was expected of it and of the others; over channels, too, the note stays, and the sum is one."""
    fabric = single_switch(6)
    asked = Collective.model_validate({"use": "auto-allreduce", "nbytes": 4000, "channels": 2, "alpha_ms": 2.0})
    schedule = compose(asked, fabric, [host.name for host in fabric.hosts], 4000, Path(), LINKS)
    check_result(schedule, orders=3)
    name, _, why = schedule.note.partition(": ")
    assert name == schedule.collective and "ms expected at 2 ms a transfer; " in why
    assert {word.split()[0] for word in why.partition("; ")[2].split(", ")} == {
        "ring", "halving-doubling", "double-binary-tree", "bidirectional-ring", "recursive-doubling",
    } - {name.removesuffix("-allreduce")}  # fmt: skip


@pytest.mark.parametrize("alpha_ms", [-1.0, math.inf, math.nan])
def test_a_latency_that_is_none(alpha_ms: float) -> None:
    """With what would do."""
    with pytest.raises(RequestError, match=r"collective\.alpha_ms: got .*; accepted: a latency of 0 ms or more"):
        picked(single_switch(2), 64, alpha_ms)


def test_two_numbers_are_found_again() -> None:
    """In spite of a few percent of noise, small sizes counting as much as large ones."""
    rng, sizes = np.random.default_rng(1), [1 << power for power in range(10, 22)]
    times = [Cost(5.0, 4.0).time_ms(size) * (1 + 0.02 * rng.standard_normal()) for size in sizes]
    found = fit(sizes, times)
    assert found.alpha_ms == pytest.approx(5.0, rel=0.05) and found.mbps == pytest.approx(4.0, rel=0.03)
    assert max(abs(found.time_ms(size) / time - 1) for size, time in zip(sizes, times, strict=True)) < 0.06


def test_no_latency_is_below_none() -> None:
    """Where small sizes are faster than large ones would have it, the bandwidth is that of all."""
    found = fit([1000, 2000, 4000], [0.9, 1.95, 4.0])
    assert found.alpha_ms == 0.0 and found.mbps == pytest.approx(8.0 / (0.9 * 0.975 * 1.0) ** (1 / 3))


@pytest.mark.parametrize(("sizes", "times"), [([1000], [1.0]), ([1000, 1000], [1.0, 1.1]), ([1000, 2000], [1.0, 0.0]), ([1000, 2000], [1.0])])
def test_what_cannot_be_fitted(sizes: list[float], times: list[float]) -> None:
    """One size tells nothing of two numbers."""
    with pytest.raises(RequestError, match="two sizes or more"):
        fit(sizes, times)
