"""The schedule of a delay line: what waits how long, in what order it goes on, and what is lost."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.waiting import BIN_NS, LATE_NS, Lateness, Waiting, gaps

MS = 1_000_000


def lossless(hosts: int = 1, delay_ms: float = 5, slack_ns: int = 0) -> Waiting:
    """A line that loses nothing."""
    return Waiting(round(delay_ms * MS), [gaps(1, 0.0)] * hosts, slack_ns)


def test_a_packet_waits_for_its_delay_and_no_longer() -> None:
    """Nothing a nanosecond before it is due, then all of the host's packets that are due by the number of the last."""
    line = lossless(hosts=2)
    assert line.wake_at() is None
    assert all((line.arrive(0, 1, 0), line.arrive(1, 1, 1 * MS), line.arrive(0, 2, 2 * MS)))
    assert (line.wake_at(), len(line)) == (5 * MS, 3)
    assert line.release(5 * MS - 1) == {}
    assert line.release(5 * MS) == {0: 1}
    assert line.release(7 * MS) == {1: 1, 0: 2}
    assert (len(line), line.wake_at()) == (0, None)


def test_what_is_due_soon_goes_along() -> None:
    """Within the slack after another, never before: one wake-up for both, and the second counts as early."""
    line = lossless(slack_ns=100_000)
    for packet, at in ((1, 0), (2, 100_000), (3, 100_001)):
        line.arrive(0, packet, at)
    assert line.release(5 * MS) == {0: 2}
    assert line.lateness.percentile_ms(5) == pytest.approx(-0.1, abs=BIN_NS / MS)


def test_stamps_out_of_order_do_not_reorder_a_host() -> None:
    """Two processors stamp a host's packets the wrong way round: the second is never due before the first."""
    line = lossless()
    line.arrive(0, 1, 10)
    line.arrive(0, 2, 5)
    assert line.release(5 * MS + 9) == {}
    assert line.release(5 * MS + 10) == {0: 2}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50 * MS)), max_size=60), st.integers(0, 200_000), st.integers(1, 9))
def test_every_packet_goes_on_once_and_in_order(arrivals: list[tuple[int, int]], slack_ns: int, step_ms: int) -> None:
    """Whatever arrives and whenever one looks: all go on, none twice, each host's in order, none earlier than the slack allows."""
    line = lossless(hosts=4, slack_ns=slack_ns)
    arrived = {host: [at for other, at in sorted(arrivals, key=lambda one: one[1]) if other == host] for host in range(4)}
    gone = dict.fromkeys(range(4), 0)
    unread = {host: list(enumerate(times, 1)) for host, times in arrived.items()}
    for now in range(0, 70 * MS, step_ms * MS):
        for host, times in unread.items():
            while times and times[0][1] <= now:
                line.arrive(host, *times.pop(0))
        for host, last in line.release(now).items():
            assert last > gone[host]
            assert all(at + 5 * MS - slack_ns <= now for at in arrived[host][gone[host] : last])
            gone[host] = last
    assert gone == {host: len(times) for host, times in arrived.items()}
    assert line.lateness.released == len(arrivals)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3])
def test_as_many_are_lost_as_asked(share: float) -> None:
    """Over many packets within four standard deviations of the binomial distribution."""
    packets = 100_000
    line = Waiting(0, [gaps(7, share)])
    kept = sum(line.arrive(0, packet, packet) for packet in range(packets))
    assert kept + line.lost == packets
    assert abs(line.lost - share * packets) < 4 * math.sqrt(packets * share * (1 - share))


def test_losses_depend_on_the_seed_and_the_count_alone() -> None:
    """The same packets of a host are lost again with the same seed, whatever other hosts receive; others with another."""

    def lost(seed: int, others: int) -> list[int]:
        line = Waiting(0, [gaps(seed, 0.05), gaps(99, 0.5)])
        found = []
        for packet in range(500):
            if not line.arrive(0, packet, packet):
                found.append(packet)
            for other in range(others):
                line.arrive(1, other, packet)
        return found

    assert lost(1, 0) == lost(1, 3) != lost(2, 0)


def test_nothing_asked_is_nothing_lost() -> None:
    """A share of 0 has no gap at all."""
    assert list(itertools.islice(gaps(1, 0.0), 3)) == []
    line = lossless()
    assert all(line.arrive(0, packet, packet) for packet in range(1000)) and line.lost == 0


def test_lateness_is_told_to_the_bin() -> None:
    """Percentiles, the worst, and those over a millisecond, of a hundred packets that were 0.00, 0.02, ... ms late."""
    late = Lateness()
    assert late.percentile_ms(50) is None
    for number in range(100):
        late.count(number * BIN_NS)
    assert late.percentile_ms(50) == pytest.approx(0.99, abs=0.011)
    assert late.late == sum(number * BIN_NS > LATE_NS for number in range(100)) == 49
    assert late.worst_ns == 99 * BIN_NS
    late.count(10**12)
    assert late.percentile_ms(100) == pytest.approx(100, abs=1)
