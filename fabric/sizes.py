"""Sizes of flows as they are drawn: distributions that the literature uses, or a file of one's own.

Comes in: a name, or a CSV file. Goes out: a cumulative distribution, linear between its points, its mean, and draws from it. Pure but for the file.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fabric.errors import RequestError

__all__ = ["DISTRIBUTIONS", "Sizes", "bins", "sizes_of"]

# (bytes, share of the flows that are at most so large)
DISTRIBUTIONS: dict[str, tuple[tuple[float, float], ...]] = {
    # Alizadeh et al., "Data Center TCP", SIGCOMM 2010, in the table that HPCC (SIGCOMM 2019) published with its simulator
    "websearch": (
        (0, 0.0), (10_000, 0.15), (20_000, 0.20), (30_000, 0.30), (50_000, 0.40), (80_000, 0.53), (200_000, 0.60), (1_000_000, 0.70),
        (2_000_000, 0.80), (5_000_000, 0.90), (10_000_000, 0.97), (30_000_000, 1.0),
    ),
    # Greenberg et al., "VL2", SIGCOMM 2009, in the table of HKUST's TrafficGenerator (NSDI 2015)
    "data-mining": (
        (0, 0.0), (180, 0.1), (216, 0.2), (560, 0.3), (900, 0.4), (1100, 0.5), (1870, 0.6), (3160, 0.7), (10_000, 0.8), (400_000, 0.9),
        (3_160_000, 0.95), (100_000_000, 0.98), (1_000_000_000, 1.0),
    ),
}  # fmt: skip
_BINS = tuple(unit * 10**power for power in range(3, 8) for unit in (1, 3))  # upper ends in bytes: two a decade


@dataclass(frozen=True, slots=True)
class Sizes:
    """A cumulative distribution of sizes in bytes: shares grow linearly between `points`, from 0 to 1."""

    points: tuple[tuple[float, float], ...]

    def mean(self) -> float:
        """The mean size.

        >>> Sizes(((0, 0.0), (10, 0.5), (30, 1.0))).mean()
        12.5
        """
        nbytes, shares = np.array(self.points).T
        return float(np.sum(np.diff(shares) * (nbytes[1:] + nbytes[:-1]) / 2))

    def at(self, share: float) -> int:
        """The size below which such a share of the flows is, at least one byte."""
        nbytes, shares = np.array(self.points).T
        return max(1, round(float(np.interp(share, shares, nbytes))))

    def scaled(self, scale: float) -> Sizes:
        """The same with every size so many times as large."""
        return Sizes(tuple((nbytes * scale, share) for nbytes, share in self.points))


def sizes_of(name: str, base: Path) -> Sizes:
    """The distribution of a name, or of a CSV file beside the experiment; RequestError, in one line, for what is neither.

    The file has a line a point: bytes, share. Shares are from 0 to 1, or to 100; its first line may be a heading.
    """
    if name in DISTRIBUTIONS:
        return Sizes(DISTRIBUTIONS[name])
    known = f"{', '.join(DISTRIBUTIONS)}, or a file, ./sizes.csv"
    if not name.endswith(".csv"):
        raise RequestError(f"got {name}; accepted: {known}; write one of those")
    try:
        lines = [line for line in csv.reader((base / name).read_text().splitlines()) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise RequestError(f"got {name}, which cannot be read: {getattr(err, 'strerror', None) or err}; accepted: {known}; check the path") from None
    return Sizes(_checked(name, list(_points(name, lines))))


def _points(name: str, lines: Sequence[Sequence[str]]) -> Iterator[tuple[float, float]]:
    for number, line in enumerate(lines, 1):
        try:
            nbytes, share = (float(cell) for cell in line)
        except ValueError:
            if number > 1:
                raise RequestError(f"got {','.join(line)!r} in line {number} of {name}; accepted: bytes,share; write e.g. 10000,0.15") from None
            continue
        yield nbytes, share


def _checked(name: str, points: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    whole = points[-1][1] if points else 0.0
    rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(points))
    if len(points) < 2 or not rising or whole not in (1.0, 100.0) or points[0][0] < 0 or points[0][1] < 0 or points[-1][0] > 1 << 40:
        accepted = "two lines or more of rising bytes and shares, the last share 1 or 100"
        raise RequestError(f"got {len(points)} points in {name}; accepted: {accepted}; write e.g. 0,0 and 10000,0.5 and 100000,1")
    first = [] if points[0][1] == 0 else [(points[0][0], 0.0)]  # so many are just as large as the first point says
    return tuple([*first, *((nbytes, share / whole) for nbytes, share in points)])


def bins(nbytes: Sequence[int]) -> list[tuple[int | None, list[int]]]:
    """Which of the sizes lie up to each bin's end; None is the end of what is larger than all. Bins that have none are left out.

    >>> bins([400, 5000, 2000, 90_000_000])
    [(1000, [0]), (3000, [2]), (10000, [1]), (None, [3])]
    """
    place = np.searchsorted(_BINS, np.asarray(nbytes), side="left")
    return [
        (_BINS[number] if number < len(_BINS) else None, [int(index) for index in np.flatnonzero(place == number)])
        for number in range(len(_BINS) + 1) if (place == number).any()
    ]
