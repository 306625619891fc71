"""Packets that wait for their release, and those that are to be lost: the schedule of a delay line. Pure; time comes in.

Comes in: for each host its packets' numbers and when they arrived. Goes out: up to which number a host's packets may go
on, and a tally of how precise that was. All times are nanoseconds of one clock.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Lateness", "Waiting", "gaps"]

BIN_NS = 20_000
LATE_NS = 1_000_000  # from here on a packet counts as late
_BINS = 5_000  # 100 ms; what is later is counted in the last one
_EARLY_BINS = 50  # of them below zero: a packet may be released a little early, together with its neighbour


def gaps(seed: int, share: float) -> Iterator[int]:
    """How many packets get through before each one that is lost, when each is lost with probability `share`, 0 to 1.

    Geometric: one draw for each loss instead of one for each packet. Never ends, but for a share of 0, which has none.
    """
    if share <= 0:
        return
    draw, scale = random.Random(seed), math.log1p(-share)
    while True:
        yield int(math.log(1.0 - draw.random()) / scale)


@dataclass
class Lateness:
    """How much later than due packets were released: counts by bins of 20 us, and those over a millisecond."""

    bins: list[int] = field(default_factory=lambda: [0] * (_BINS + _EARLY_BINS))
    released: int = 0
    late: int = 0
    worst_ns: int = 0

    def count(self, late_ns: int) -> None:
        """One packet was released so much after it was due; below zero when before."""
        self.released += 1
        self.bins[min(len(self.bins) - 1, max(0, late_ns // BIN_NS + _EARLY_BINS))] += 1
        if late_ns > self.worst_ns:
            self.worst_ns = late_ns
        if late_ns > LATE_NS:
            self.late += 1

    def percentile_ms(self, percent: float) -> float | None:
        """The lateness that so many percent do not exceed, to the bin; None when nothing was released."""
        due, seen = self.released * percent / 100, 0
        for number, count in enumerate(self.bins):
            seen += count
            if count and seen >= due:
                return (number - _EARLY_BINS + 0.5) * BIN_NS / 1e6
        return None


class Waiting:
    """The packets of all hosts that wait, each for `delay_ns` after it arrived.

    A packet that is due within `slack_ns` after another goes along with it, which saves a wake-up. `gaps` has for each host
    how many packets get through before each lost one.
    """

    def __init__(self, delay_ns: int, gaps: list[Iterator[int]], slack_ns: int = 0) -> None:
        self.delay_ns, self.slack_ns = delay_ns, slack_ns
        self.lateness = Lateness()
        self.lost = 0
        self._heap: list[tuple[int, int, int]] = []
        self._last_due = [0] * len(gaps)
        self._gaps = gaps
        self._through = [next(one, -1) for one in gaps]

    def __len__(self) -> int:
        return len(self._heap)

    def arrive(self, host: int, packet: int, at: int) -> bool:
        """Keep a packet that arrived at that time; False when it is to be lost instead."""
        through = self._through[host]
        if not through:
            self._through[host] = next(self._gaps[host])
            self.lost += 1
            return False
        if through > 0:
            self._through[host] = through - 1
        # Two processors may stamp two packets of a host out of order; released they are in order.
        due = self._last_due[host] = max(at + self.delay_ns, self._last_due[host])
        heapq.heappush(self._heap, (due, host, packet))
        return True

    def wake_at(self) -> int | None:
        """When the first packet is due; None when nothing waits."""
        return self._heap[0][0] if self._heap else None

    def release(self, now: int) -> dict[int, int]:
        """What is due at that time, or within the slack after it. For each host that has packets due, the number of the last of them: it and all before it go on."""
        heap, until, found = self._heap, now + self.slack_ns, {}
        while heap and heap[0][0] <= until:
            due, host, packet = heapq.heappop(heap)
            found[host] = packet
            self.lateness.count(now - due)
        return found
