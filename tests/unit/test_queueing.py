"""Queueing delays in buckets: the maths of the histogram, what a record says of a window, and when it is not believed."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import RunError
from fabric.histogram import BUCKETS, MIDDLES_MS, RELATIVE_ERROR, UNIT_NS, bucket_of, edges_ns, percentiles_ms
from fabric.queueing import Queueing, read_queueing, unseen

LINEAR_NS = 64 * UNIT_NS
DELAYS = st.integers(0, (1 << 34) - 1)


@given(DELAYS)
def test_a_delay_is_in_the_bucket_that_holds_it(ns: int) -> None:
    """Every delay of up to 17 s lies between the edges of its bucket, whose middle is at most 1/128 or 64 ns away."""
    bucket = bucket_of(ns)
    first, after = edges_ns(bucket)
    assert first <= ns < after
    assert abs(MIDDLES_MS[bucket] * 1e6 - ns) <= max(UNIT_NS / 2, RELATIVE_ERROR * ns) + 1e-6


def test_buckets_follow_each_other() -> None:
    """Without a gap, from 0 to the last one, which holds all that is longer too."""
    edges = [edges_ns(bucket) for bucket in range(BUCKETS)]
    assert edges[0][0] == 0 and edges[-1][1] == 1 << 34
    assert all(one[1] == other[0] for one, other in pairwise(edges))
    assert bucket_of(1 << 50) == BUCKETS - 1


@given(st.lists(DELAYS, min_size=1, max_size=300), st.sampled_from([1, 50, 95, 99, 100]))
def test_a_percentile_is_within_its_error(delays: list[int], percent: int) -> None:
    """Against the nearest rank of the delays themselves: 0.8 %, or 64 ns of those below 8 us."""
    exact = sorted(delays)[max(1, -(-percent * len(delays) // 100)) - 1]
    counts = np.bincount([bucket_of(ns) for ns in delays], minlength=BUCKETS)
    [found] = percentiles_ms(counts, [percent]) or []
    assert abs(found * 1e6 - exact) <= max(UNIT_NS / 2, RELATIVE_ERROR * exact) + 1e-6


def test_no_packet_has_no_percentile() -> None:
    """None, not a zero that looks like an empty queue."""
    assert percentiles_ms(np.zeros(BUCKETS, np.int64), [50]) is None


def record(folder: Path) -> None:
    """Two ports over two seconds from 100: a waits 1 ms in the first and 4 ms in the second, b always 16 ms, a tenth as often."""
    totals = {"offered": 110, "packets": 100, "missed": 0, "stale": 0}
    ports = {"a-eth0": {**totals, "packets": 200}, "b-eth0": {**totals, "packets": 20}}
    (folder / "queueing.json").write_text(json.dumps({"ports": ports}))
    counts = [(0, 0, bucket_of(1_000_000), 100), (1, 0, bucket_of(4_000_000), 100)]
    counts += [(second, 1, bucket_of(16_000_000), 10) for second in (0, 1)]
    np.savez(folder / "queueing.npz", times=np.array([100.0, 101.0, 102.0]), counts=np.array(counts))


def test_a_window_holds_what_came_in_it(tmp_path: Path) -> None:
    """Stretches whose middle is inside, or, of a window shorter than one, those that touch it; of the ports asked for."""
    record(tmp_path)
    seen = read_queueing(tmp_path)
    assert seen is not None
    both = ("a-eth0", "b-eth0")
    assert seen.percentiles((100.0, 101.0), both) == pytest.approx([1, 16, 16], rel=0.01)
    assert seen.percentiles((101.2, 101.3), both) == pytest.approx([4, 16, 16], rel=0.01)
    assert seen.percentiles((99.0, 103.0), ["a-eth0"]) == pytest.approx([1, 4, 4], rel=0.01)
    assert seen.histogram((99.0, 103.0), both).sum() == 220
    assert seen.percentiles((99.0, 103.0), []) is None
    assert seen.percentiles((200.0, 300.0), both) is None


def test_a_record_that_is_not_there_is_none_and_a_broken_one_is_named(tmp_path: Path) -> None:
    """Nobody asked for it; or its second half is missing."""
    assert read_queueing(tmp_path) is None
    record(tmp_path)
    (tmp_path / "queueing.npz").unlink()
    with pytest.raises(RunError, match=r"queueing\.json and \.npz: not what the run writes"):
        read_queueing(tmp_path)


@pytest.mark.parametrize(
    ("port", "sent", "words"),
    [
        ({"packets": 1000, "missed": 0, "stale": 0}, 1010, []),
        ({"packets": 1000, "missed": 1, "stale": 0}, 1001, []),
        ({"packets": 1000, "missed": 1, "stale": 4}, 1005, ["the queueing delay of 5 of 1005 packets out of a-eth0 is not known"]),
        ({"packets": 1000, "missed": 0, "stale": 0}, 1100, ["a-eth0 sent 1100 packets, and 1000 were seen to leave its queue"]),
    ],
)
def test_delays_of_only_some_packets_are_not_believed(port: dict[str, int], sent: int, words: list[str]) -> None:
    """Nothing is said where all were seen, and up to one in a thousand missed; else it is said how many are not known."""
    assert list(unseen(Queueing({"a-eth0": port}, np.zeros(2), np.zeros((0, 4), np.int64)), {"a-eth0": sent})) == words
