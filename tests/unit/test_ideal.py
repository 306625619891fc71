"""Ideal times and the bandwidths users compare."""

from __future__ import annotations

import math
from itertools import product

import pytest

from fabric.collectives.ring_allreduce import ring_allreduce
from fabric.errors import RequestError
from fabric.ideal import algbw_mbps, busbw_mbps, ideal_ms, payload_mbps, ring_allreduce_ms
from fabric.schedule import Schedule, Transfer


@pytest.mark.parametrize(("mtu", "share"), [(9000, 8948 / 9014), (1500, 1448 / 1514)])
def test_payload_is_mss_over_frame(mtu: int, share: float) -> None:
    """The payload rate is MSS / (MTU + 14), with 52 bytes of headers in every MTU."""
    assert payload_mbps(20, mtu) == pytest.approx(20 * share, rel=1e-15)


@pytest.mark.parametrize(
    ("ranks", "alpha_ms", "chunk"),
    [*product([2, 3, 8, 16], [0.0, 0.7, 40.0], [1, 2048]), (128, 0.7, 2048)],
)
def test_playing_the_ring_gives_the_textbooks_time(ranks: int, alpha_ms: float, chunk: int) -> None:
    """The general way, playing the schedule on one switch, agrees with 2(p-1)α + 2(p-1)/p·n/rate within 1e-9."""
    ring = ring_allreduce(ranks, ranks * chunk)
    textbook = ring_allreduce_ms(ranks, ring.nbytes, alpha_ms=alpha_ms, payload_mbps=19.85)
    assert ideal_ms(ring, alpha_ms=alpha_ms, payload_mbps=19.85) == pytest.approx(textbook, rel=1e-9)


def test_groups_take_the_time_of_one_of_them() -> None:
    """On one switch rings side by side share no link: 16 ranks in 4 groups are as fast as 4 ranks alone."""
    textbook = ring_allreduce_ms(4, 4 * 2048, alpha_ms=0.7, payload_mbps=19.85)
    assert ideal_ms(ring_allreduce(16, 2048, groups=4), alpha_ms=0.7, payload_mbps=19.85) == pytest.approx(textbook)


def test_the_ring_of_the_field_notes() -> None:
    """16 ranks, 1 MiB, 20 Mb/s links at MTU 9000 without latency: 0.79 s."""
    ring = ring_allreduce(16, (1 << 20) // 4)
    assert ideal_ms(ring, alpha_ms=0, payload_mbps=payload_mbps(20, 9000)) == pytest.approx(792, abs=1)


def test_ideal_sees_incast() -> None:
    """Three ranks that send to one share its link in: three times as long as one would take."""
    incast = Schedule("gather", 4, 1000, tuple(Transfer(i, i + 1, 0, 0, 1000, "sum") for i in range(3)))
    assert ideal_ms(incast, alpha_ms=0.5, payload_mbps=8.0) == pytest.approx(3 * 4.0 + 0.5)


def test_bandwidths_are_those_of_nccl_tests() -> None:
    """algbw is size over time; busbw of an ideal all-reduce without latency is the link's payload rate."""
    assert algbw_mbps(1_000_000, 8.0) == 1000.0
    time_ms = ring_allreduce_ms(16, 1 << 20, alpha_ms=0, payload_mbps=19.85)
    assert busbw_mbps("ring-allreduce", 16, 1 << 20, time_ms) == pytest.approx(19.85)
    assert busbw_mbps("ring-allreduce", 64, 1 << 20, time_ms, groups=4) == pytest.approx(19.85)


def test_bad_values_are_refused() -> None:
    """No rate, no room for payload, no time: a request error, never infinity."""
    with pytest.raises(RequestError, match=r"links\.mbps: got 0; accepted: a number above 0"):
        payload_mbps(0, 1500)
    with pytest.raises(RequestError, match=r"links\.mtu: got 52; accepted: above 52"):
        payload_mbps(20, 52)
    for time_ms in (0.0, -1.0, math.nan):
        with pytest.raises(RequestError, match="time_ms: got"):
            algbw_mbps(1, time_ms)
