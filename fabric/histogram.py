"""Delays counted in log-linear buckets, as fabric/bpf/queueing.bpf.c counts them, and percentiles of what was counted.

Below 64 units of 128 ns every unit has a bucket of its own; from there on there are 64 between two powers of two. So a
bucket is at most 1/64 of its delay wide, and its middle, which stands for all in it, at most 1/128 (0.8 %) away; below 8 us the
middle is at most 64 ns away. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["BUCKETS", "MIDDLES_MS", "RELATIVE_ERROR", "UNIT_NS", "bucket_of", "edges_ns", "percentiles_ms"]

UNIT_NS = 128
_LINEAR = 64
_OCTAVES = 21  # the last one ends at 2^34 ns, 17 s
BUCKETS = _LINEAR * (_OCTAVES + 1)
RELATIVE_ERROR = 1 / (2 * _LINEAR)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def bucket_of(ns: int) -> int:
    """The bucket that a delay is counted in.

    >>> bucket_of(0), bucket_of(127), bucket_of(128), bucket_of(8192), bucket_of(1 << 40) == BUCKETS - 1
    (0, 0, 1, 64, True)
    """
    units = ns // UNIT_NS
    if units < _LINEAR:
        return units
    octave = units.bit_length() - _LINEAR.bit_length()
    return min(octave * _LINEAR + (units >> octave), BUCKETS - 1)


def edges_ns(bucket: int) -> tuple[int, int]:
    """Where a bucket begins and ends.

    >>> edges_ns(0), edges_ns(64), edges_ns(128)
    ((0, 128), (8192, 8320), (16384, 16640))
    """
    octave = max(0, bucket // _LINEAR - 1)
    first = bucket - octave * _LINEAR
    return (first << octave) * UNIT_NS, (first + 1 << octave) * UNIT_NS


MIDDLES_MS: Floats = np.array([sum(edges_ns(bucket)) / 2e6 for bucket in range(BUCKETS)])


def percentiles_ms(counts: Ints, percents: Sequence[float]) -> list[float] | None:
    """Percentiles of a histogram by nearest rank: the middle of the bucket that holds it; None of nothing."""
    upto = np.cumsum(counts)
    if not len(upto) or upto[-1] == 0:
        return None
    ranks = np.maximum(1, np.ceil(np.array(percents) / 100 * upto[-1]))
    return [float(MIDDLES_MS[bucket]) for bucket in np.searchsorted(upto, ranks)]
