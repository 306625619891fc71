"""What came of requests in a window: how long answers took, and how many were in time.

Comes in: a point's record. Goes out: figures by entry of `requests`. Pure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fabric.experiment import Point
from fabric.recorded import Recorded
from fabric.results import P99_NEEDS
from fabric.workload import Workload

__all__ = ["answered", "describe_requests"]


def describe_requests(point: Point) -> str | None:
    """The entries in a few words, `poisson 5/s 4096+65536 B`; None without any."""
    words = [f"{one.arrivals} {one.rate_hz:g}/s {one.request}+{one.response} B" for one in point.requests]
    return " + ".join(words) or None


def answered(point: Point, work: Workload, seen: Recorded, window: tuple[float, float]) -> dict[str, dict[str, Any]] | None:
    """By entry: how many requests were due in the window, `p50_ms`, `p95_ms` and (of 100 or more) `p99_ms` of their times, `in_time` as a share.

    A request without an answer counts with the time that it had waited for when all ended: no longer time is known. None without requests.
    """
    if not work.askings:
        return None
    (load,), (record,) = seen.event("load"), seen.event("answers")
    begin, stop = load["begin"], record["t"]
    found: dict[str, dict[str, Any]] = {}
    for entry, asked in enumerate(point.requests):
        mine = [record["answers"][str(number)] for number, one in enumerate(work.asking_entries) if one == entry]
        due = begin + np.array([t for one in mine for t in (*one["due_s"], *one["unanswered_s"])], np.float64)
        took = np.array([ms for one in mine for ms in (*one["took_ms"], *(1000 * (stop - begin - t) for t in one["unanswered_s"]))], np.float64)
        inside = (due >= window[0]) & (due < window[1])
        times = took[inside]
        figures: dict[str, Any] = {"due": int(inside.sum()), "unanswered": sum(len(one["unanswered_s"]) for one in mine)}
        for name, percentile, least in (("p50_ms", 50, 1), ("p95_ms", 95, 1), ("p99_ms", 99, P99_NEEDS)):
            figures[name] = round(float(np.percentile(times, percentile)), 3) if len(times) >= least else None
        if asked.objective_ms is not None:
            figures["in_time"] = round(float((times <= asked.objective_ms).mean()), 4) if len(times) else None
        found[f"requests.{entry}"] = figures
    return found
