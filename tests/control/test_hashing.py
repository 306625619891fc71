"""ECMP's hash spreads flows as an honest random choice would, in each tier on its own; and the test can tell when not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from fabric.paths import Path as Route
from fabric.paths import equal_cost_paths, next_hops
from topologies.fat_tree import fat_tree

FABRIC = fat_tree(4)
ECMP = "controllers.ecmp"
# 99.9 % quantiles of the chi-square distribution, for 3 and for 1 degrees of freedom
QUANTILE_3 = 16.27
QUANTILE_1 = 10.83
POLARIZED = '''"""The trap: every switch hashes with the same basis."""
from dataclasses import replace

from controllers.ecmp import Ecmp
from fabric.openflow import HashIntoRegister


class Polarized(Ecmp):
    def rules(self, switch):
        for rule in super().rules(switch):
            same = [replace(item, basis=4711) if isinstance(item, HashIntoRegister) else item for item in rule.actions]
            yield replace(rule, actions=tuple(same))
'''

Tuples = Sequence[tuple[str, str, int, int]]


def synthetic(number: int, seed: int) -> Tuples:
    """Flows from hosts of pod 0 to hosts of pod 1 between random ports: (src, dst, source port, destination port)."""
    draw = random.Random(seed)
    pods = [[host.name for host in FABRIC.hosts if host.position[0] == pod] for pod in (0, 1)]
    return [
        (draw.choice(pods[0]), draw.choice(pods[1]), draw.randint(20000, 60000), draw.randint(5001, 9000))
        for _ in range(number)
    ]


def routes_of(running: Any, flows: Tuples) -> list[Route]:
    """Their installed paths; every one is there."""
    found = [running.route(*flow) for flow in flows]
    assert None not in found
    return found


@pytest.fixture(scope="module")
def ecmp(start: Any) -> Iterator[Any]:
    """The shipped ECMP on a fat-tree with four paths between pods."""
    with start(FABRIC, ECMP) as running:
        yield running


@pytest.fixture(scope="module")
def choices(ecmp: Any) -> list[tuple[int, int]]:
    """What 1,000 flows between two pods were dealt: (uplink of the edge switch, uplink of the aggregation switch)."""
    return choices_of(routes_of(ecmp, synthetic(1000, seed=1)))


def choices_of(routes: Sequence[Route]) -> list[tuple[int, int]]:
    """The two choices on the way up; on the way down there is none."""
    return [(route[1].number, route[2].number) for route in routes]


def chi_square(seen: Sequence[int], expected: Sequence[float]) -> float:
    """Pearson's statistic."""
    return sum((count - due) ** 2 / due for count, due in zip(seen, expected, strict=True))


def uniformity(choices: Sequence[tuple[int, int]]) -> float:
    """Chi-square of the four core paths against equal shares; 3 degrees of freedom."""
    counts = Counter(choices)
    cells = [counts[edge, aggregation] for edge in (3, 4) for aggregation in (3, 4)]
    return chi_square(cells, [len(choices) / 4] * 4)


def dependence(choices: Sequence[tuple[int, int]]) -> float:
    """Chi-square of the contingency table of the edge's choice and the aggregation's; 1 degree of freedom."""
    counts, total = Counter(choices), len(choices)
    edge = Counter(first for first, _ in choices)
    aggregation = Counter(second for _, second in choices)
    pairs = [(first, second) for first in (3, 4) for second in (3, 4)]
    return chi_square([counts[pair] for pair in pairs], [edge[a] * aggregation[b] / total for a, b in pairs])


def test_the_four_paths_between_pods_get_equal_shares(choices: list[tuple[int, int]]) -> None:
    """1,000 flows with random ports: chi-square stays below its 99.9 % quantile."""
    assert uniformity(choices) < QUANTILE_3


def test_edge_and_aggregation_choose_independently(choices: list[tuple[int, int]]) -> None:
    """No polarization: knowing the edge switch's choice says nothing about the next one."""
    assert dependence(choices) < QUANTILE_1


def test_one_basis_everywhere_fails_both_tests(start: Any, tmp_path: Path) -> None:
    """The measure is able to fail: with the same hash in both tiers half of the core lies idle."""
    (tmp_path / "polarized.py").write_text(POLARIZED)
    with start(FABRIC, str(tmp_path / "polarized.py")) as running:
        found = choices_of(routes_of(running, synthetic(200, seed=1)))
    assert len(set(found)) == 2
    assert uniformity(found) > 10 * QUANTILE_3
    assert dependence(found) > 10 * QUANTILE_1


def test_every_equal_cost_path_is_used(ecmp: Any) -> None:
    """40 connections between two hosts, for each two pods and each two edges of a pod: no path stays empty."""
    hops = next_hops(FABRIC)
    across = permutations([f"p{pod}e0h0" for pod in range(4)], 2)
    within = ((f"p{pod}e{edge}h0", f"p{pod}e{1 - edge}h1") for pod in range(4) for edge in (0, 1))
    draw = random.Random(2)
    for src, dst in (*across, *within):
        ports = [(src, dst, draw.randint(20000, 60000), 5001) for _ in range(40)]
        assert set(routes_of(ecmp, ports)) == set(equal_cost_paths(FABRIC, src, dst, hops)), f"{src} to {dst}"


def test_a_connection_keeps_its_path(ecmp: Any) -> None:
    """The path is a function of the 5-tuple: asked again, it is the same."""
    flows = synthetic(50, seed=3)
    assert routes_of(ecmp, flows) == routes_of(ecmp, flows)


def test_the_path_follows_from_the_hash_basis(ecmp: Any, start: Callable[..., Any]) -> None:
    """A second start with the same basis gives the same paths, so a run can be repeated; another basis gives others."""
    flows = synthetic(100, seed=4)
    before = routes_of(ecmp, flows)
    with start(FABRIC, ECMP) as again:
        assert routes_of(again, flows) == before
    with start(FABRIC, ECMP, hash_basis=1) as other:
        same = sum(new == old for new, old in zip(routes_of(other, flows), before, strict=True))
    # Independent draws agree in a quarter of cases: 25 of 100, with a standard deviation of 4.3.
    assert same < 25 + 5 * 4.3
