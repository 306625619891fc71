"""A claim is a mean over seeds with an interval that covers, and counts every row it rests on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fabric.claims import claims, interval, paired
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


def timed(variant: str, seed: int, p50_ms: float | None, fidelity: str = "PASS") -> Row:
    """A row of a collective."""
    return replace(row(seed, None, fidelity), variant=variant, p50_ms=p50_ms)


def test_paired_ratios_are_taken_seed_by_seed() -> None:
    """A pair needs both arms; PASS pairs need two PASS rows; what has no figure has no ratio."""
    rows = [
        timed("a", 1, 4.0), timed("b", 1, 2.0),
        timed("a", 2, 9.0), timed("b", 2, 3.0, "WARN"),
        timed("a", 3, 5.0), timed("b", 4, 5.0),
        timed("a", 5, None), timed("b", 5, 5.0),
        timed("c", 1, 100.0),
    ]  # fmt: skip
    passed, every = paired(rows, "a", "b", "p50_ms")
    assert passed is not None and (passed.n, passed.mean) == (1, 2.0)
    assert every is not None and (every.n, every.mean) == (2, 2.5)
    assert paired(rows, "a", "nobody", "p50_ms") == (None, None)
