"""What a run may claim: means over seeds with 95 % bootstrap intervals, over the rows that passed and over all of them.

Comes in: rows. Goes out: one `Claim` per variant, size and measure. Pure, and the same rows always give the same claim.
Source of the interval: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile method, over seeds).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabric.results import Row

__all__ = ["MEASURES", "Claim", "Interval", "claims", "interval", "paired"]

MEASURES = ("slowdown", "iteration_ms", "load_share_of_nb", "load_leftover_share")
_RESAMPLES = 10_000
_LEVEL = 95.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` seeds and its 95 % bootstrap interval; of one seed there is no interval."""

    n: int
    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """`0.612 [0.588, 0.634] n=20`."""
        between = "" if self.low is None or self.high is None else f" [{_short(self.low)}, {_short(self.high)}]"
        return f"{_short(self.mean)}{between} n={self.n}"


def _short(value: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


@dataclass(frozen=True, slots=True)
class Claim:
    """One measure of one variant (or of its job, and size): `verdicts` counts its rows, refused ones too."""

    variant: str
    nbytes: int | None
    measure: str
    verdicts: Counter[str]
    passed: Interval | None
    all: Interval | None


def claims(rows: Sequence[Row]) -> list[Claim]:
    """The claims of a run, in the order in which its variants first appear."""
    found = []
    for variant, nbytes in dict.fromkeys((row.arm, row.nbytes) for row in rows):
        group = [row for row in rows if (row.arm, row.nbytes) == (variant, nbytes)]
        verdicts = Counter("refused" if row.refused else str(row.fidelity) for row in group)
        for measure in MEASURES:
            values = [(row.fidelity, getattr(row, measure)) for row in group if getattr(row, measure) is not None]
            if values:
                passed = interval([value for level, value in values if level == "PASS"])
                found.append(Claim(variant, nbytes, measure, verdicts, passed, interval([value for _, value in values])))
    return found


def paired(rows: Sequence[Row], over: str, under: str, measure: str) -> tuple[Interval | None, Interval | None]:
    """The mean of the ratios `over` / `under` of two variants (`Row.arm`), seed by seed (and size by size): of PASS pairs, and of all.

    Both arms of a pair have the same placement, load and source ports, so that chance is the same in both.
    """
    found: dict[tuple[int, int | None], dict[str, Row]] = {}
    for row in rows:
        if row.arm in (over, under) and getattr(row, measure):
            found.setdefault((row.seed, row.nbytes), {})[row.arm] = row
    pairs = [(pair[over], pair[under]) for pair in found.values() if len(pair) == 2]
    ratios = [(getattr(a, measure) / getattr(b, measure), a.fidelity == b.fidelity == "PASS") for a, b in pairs]
    return interval([ratio for ratio, passed in ratios if passed]), interval([ratio for ratio, _ in ratios])


def interval(values: Sequence[float]) -> Interval | None:
    """Mean and bootstrap interval of one value per seed; None of none."""
    if not values:
        return None
    data = np.array(values, dtype=np.float64)
    if len(data) == 1:
        return Interval(1, float(data[0]), None, None)
    draws = np.random.Generator(np.random.PCG64(len(data))).integers(len(data), size=(_RESAMPLES, len(data)))
    low, high = np.percentile(data[draws].mean(axis=1), [50 - _LEVEL / 2, 50 + _LEVEL / 2])
    return Interval(len(data), float(data.mean()), float(low), float(high))
