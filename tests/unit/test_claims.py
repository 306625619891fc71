"""A claim is a mean over seeds with an interval that covers, and counts every row it rests on."""

from __future__ import annotations

import numpy as np
import pytest

from fabric.claims import claims, interval, ratio
from fabric.results import Row


def row(seed: int, share: float | None, fidelity: str | None = "PASS", refused: str | None = None) -> Row:
    """A row of a load alone."""
    return Row(
        variant="ecmp", topology="fat-tree", controller="ecmp", tcp="cubic", mtu=9000, mbps=20.0, repeat=seed, seed=seed,
        datapath="netdev", point=f"{seed}", load_share_of_nb=share, fidelity=fidelity, refused=refused,
    )  # fmt: skip


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 300 samples of 20 normal draws, 95 % intervals miss the mean in 2 to 11 of a hundred."""
    rng = np.random.Generator(np.random.PCG64(1))
    found = [interval(rng.normal(0.6, 0.05, 20).tolist()) for _ in range(300)]
    missed = sum(1 for one in found if one and not (one.low or 0) <= 0.6 <= (one.high or 0))
    assert 6 <= missed <= 33


def test_one_seed_has_no_interval() -> None:
    """It is a value, not an estimate of one."""
    one = interval([0.5])
    assert one is not None and (one.n, one.mean, one.low, one.high) == (1, 0.5, None, None)
    assert interval([]) is None


def test_the_same_rows_give_the_same_claim() -> None:
    """The bootstrap's draws are fixed."""
    rows = [row(seed, 0.5 + seed / 100) for seed in range(10)]
    assert claims(rows) == claims(rows)


def test_passed_and_all_rows_are_claimed_apart_and_refused_ones_counted() -> None:
    """Rows that failed are in the mean over all, refused ones in the count alone."""
    rows = [row(1, 0.6), row(2, 0.7), row(3, 0.1, "FAIL"), row(4, None, None, "a sum is wrong")]
    (claim,) = claims(rows)
    assert claim.verdicts == {"PASS": 2, "FAIL": 1, "refused": 1}
    assert claim.passed is not None and claim.passed.mean == pytest.approx(0.65)
    assert claim.all is not None and claim.all.mean == pytest.approx(1.4 / 3)
    assert (claim.passed.n, claim.all.n) == (2, 3)


def test_a_ratio_turned_over_has_its_interval_turned_over() -> None:
    """Whichever arm is named first, the same is said."""
    ratios = [0.4, 0.5, 0.45, 0.6]
    one, other = ratio(ratios), ratio([1 / value for value in ratios])
    assert one and other and one.low and one.high and other.low and other.high
    assert (one.mean, one.low, one.high) == pytest.approx((1 / other.mean, 1 / other.high, 1 / other.low))
    assert ratio([]) is None and ratio([2.0]) is not None


@pytest.mark.parametrize("n", [3, 5, 20])
def test_equal_arms_are_told_apart_in_one_of_twenty_cases_at_most(n: int) -> None:
    """Whatever the number of seeds: the bootstrap alone would do so in more than one of five for three."""
    rng = np.random.Generator(np.random.PCG64(n))
    found = [ratio(np.exp(rng.normal(0, 0.1, n)).tolist()) for _ in range(400)]
    wrong = sum(1 for one in found if one and not (one.low or 0) <= 1 <= (one.high or 0))
    assert 2 <= wrong <= 36
