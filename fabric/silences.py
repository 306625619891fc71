"""The longest silences of a connection, as its receiver sees them: when each began, and how long it lasted.

Comes in: the moments at which data came. Goes out: a few pairs of seconds, for a record line.
"""

from __future__ import annotations

import heapq

__all__ = ["SHORTEST_S", "Silences"]

SHORTEST_S = 0.030  # a background receiver looks every 10 ms, so shorter ones would be its own
_KEPT = 64  # the longest ones: many more than a run has events


class Silences:
    """Counts from `begin` (CLOCK_MONOTONIC)."""

    def __init__(self, begin: float) -> None:
        self._last = begin
        self._longest: list[tuple[float, float]] = []  # a heap of (seconds, begin)

    def heard(self, now: float) -> None:
        """Data came now, or nothing more is awaited."""
        seconds = now - self._last
        if seconds >= SHORTEST_S:
            (heapq.heappush if len(self._longest) < _KEPT else heapq.heappushpop)(self._longest, (seconds, self._last))
        self._last = now

    def to_json(self) -> list[tuple[float, float]]:
        """(begin, seconds) of each silence kept, in order of time."""
        return sorted((round(begin, 6), round(seconds, 6)) for seconds, begin in self._longest)
