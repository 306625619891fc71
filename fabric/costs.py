"""The α-β model of a collective on one machine: a latency and a bandwidth tell its time at any size.

Comes in: sizes and measured times. Goes out: the `Cost` that fits them best. Pure. Source of the model: Hockney, "The communication
challenge for MPP: Intel Paragon and Meiko CS-2", Parallel Computing 20(3), 1994.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabric.errors import RequestError

__all__ = ["Cost", "fit"]

_ROUNDS = 50  # at most, of Gauss and Newton
_CLOSE = 1e-12


@dataclass(frozen=True, slots=True)
class Cost:
    """What nothing takes, in ms, and what bytes pass at, in Mb/s of the collective's size (its algbw where sizes are large)."""

    alpha_ms: float
    mbps: float

    def time_ms(self, nbytes: float) -> float:
        """α + n/β."""
        return self.alpha_ms + nbytes * 8 / 1000 / self.mbps


def fit(nbytes: Sequence[float], times_ms: Sequence[float]) -> Cost:
    """The cost whose times differ least from those measured, as ratios: least squares of the logarithms, with no latency below 0.

    RequestError for fewer than two sizes, or a time that is none.

    Logarithms, as small sizes would otherwise count for nothing beside large ones.

    >>> cost = fit([1000, 10_000, 100_000], [Cost(2.0, 8.0).time_ms(n) for n in (1000, 10_000, 100_000)])
    >>> round(cost.alpha_ms, 6), round(cost.mbps, 6)
    (2.0, 8.0)
    """
    sizes, times = np.array(nbytes, np.float64), np.array(times_ms, np.float64)
    if len(set(nbytes)) < 2 or not (times > 0).all() or len(sizes) != len(times):
        raise RequestError(f"got {len(sizes)} sizes and {len(times)} times; accepted: two sizes or more, with a time above 0 each")
    columns = np.stack((np.ones_like(sizes), sizes), axis=1)
    # Relative errors first, which is nearly the same, and linear; then Gauss and Newton on the logarithms.
    found = np.linalg.lstsq(columns / times[:, np.newaxis], np.ones_like(times), rcond=None)[0]
    for _ in range(_ROUNDS):
        told = np.maximum(columns @ found, 1e-9)
        step = np.linalg.lstsq(columns / told[:, np.newaxis], np.log(times / told), rcond=None)[0]
        found = found + step
        if np.abs(step / np.where(found == 0, 1, found)).max() < _CLOSE:
            break
    if found[0] < 0:  # links that were idle pass two packets at once: small sizes may be faster than none at all would have it
        return Cost(0.0, float(np.exp(np.log(sizes * 8 / 1000 / times).mean())))
    return Cost(float(found[0]), float(8 / 1000 / found[1]))
