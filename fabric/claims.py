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

__all__ = ["MEASURES", "Claim", "Interval", "claims", "interval", "ratio"]

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


def ratio(ratios: Sequence[float]) -> Interval | None:
    """The geometric mean of positive ratios, one per seed, and its interval: turned over, a ratio has one's interval turned over.

    Of few seeds the bootstrap's interval is too narrow (of three, it never leaves what they span), so that it is as wide as
    Student's at least (Student, "The Probable Error of a Mean", 1908), both on logarithms.
    """
    logs = interval(list(np.log(ratios)))
    if logs is None:
        return None
    if logs.low is None or logs.high is None:
        return Interval(1, float(np.exp(logs.mean)), None, None)
    half = student(logs.n) * float(np.std(np.log(ratios), ddof=1)) / logs.n**0.5
    low, high = min(logs.low, logs.mean - half), max(logs.high, logs.mean + half)
    return Interval(logs.n, *(float(np.exp(value)) for value in (logs.mean, low, high)))


def student(n: int) -> float:
    """How many standard errors a 95 % interval of the mean of `n` values reaches, for n from 2: the quantile of Student's t.

    >>> [round(student(n), 2) for n in (2, 3, 4, 11, 1000)]
    [12.71, 4.3, 3.18, 2.23, 1.96]
    """
    low, high = 0.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, n - 1) < _LEVEL / 100 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """The probability that Student's t lies between -t and t (Abramowitz, Stegun, "Handbook of Mathematical Functions", 26.7.3 and 4)."""
    angle = np.arctan(t / np.sqrt(freedom))
    odd = freedom % 2
    term, total = (np.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= (k + 1) / (k + 2) * np.cos(angle) ** 2
    return float(2 / np.pi * (angle + np.sin(angle) * total) if odd else np.sin(angle) * total)
