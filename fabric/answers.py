"""What came of requests in a window: how long answers took, and how many were in time.

Comes in: a point's record. Goes out: figures by entry of `requests`. Pure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fabric.experiment import Point
from fabric.ideal import payload_mbps
from fabric.keys import Requests
from fabric.recorded import Recorded
from fabric.results import P99_NEEDS
from fabric.sizes import bins
from fabric.telemetry import Floats, Ints
from fabric.workload import Workload

__all__ = ["answered", "describe_requests", "least_ms"]


def describe_requests(point: Point) -> str | None:
    """The entries in a few words, `poisson 5/s 4096+65536 B`; None without any."""
    return " + ".join(_described(one) for one in point.requests) or None


def _described(one: Requests) -> str:
    often = f"{one.rate_hz:g}/s" if one.rate_hz is not None else f"load {one.load:g}"
    scale = "" if one.scale == 1 else f" x {one.scale:g}"
    return f"{one.arrivals} {often} {one.request}+{one.response if one.sizes is None else one.sizes + scale} B"


def answered(point: Point, work: Workload, seen: Recorded, window: tuple[float, float], alpha_ms: float) -> dict[str, dict[str, Any]] | None:
    """By entry: how many requests were due in the window, `p50_ms`, `p95_ms` and (of 100 or more) `p99_ms` of their times, `in_time` as a share.

    Where sizes are drawn, also `slowdown_mean`, and `slowdowns` by size: each answer's time over what its bytes take by themselves (`least_ms`). A request
    without an answer counts with the time that it had waited for when all ended: no longer time is known. None without requests.
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
        figures: dict[str, Any] = {"due": int(inside.sum()), "unanswered": sum(len(one["unanswered_s"]) for one in mine)}
        figures |= _percentiles(took[inside], "ms", 3)
        if asked.objective_ms is not None:
            figures["in_time"] = round(float((took[inside] <= asked.objective_ms).mean()), 4) if inside.any() else None
        if asked.sizes is not None:
            nbytes = np.array([size for one in mine for size in (*one["nbytes"], *one["unanswered_nbytes"])], np.int64)[inside]
            figures |= _by_size(nbytes, took[inside] / least_ms(point, asked.request, nbytes, alpha_ms))
        found[f"requests.{entry}"] = figures
    return found


def least_ms(point: Point, request: int, nbytes: Ints, alpha_ms: float) -> Floats:
    """What requests and answers of so many bytes take by themselves, as the literature has it: a latency each way, and their bytes at the payload rate.

    An idle link passes two frames at once, so that a lone small answer may take less.
    """
    return 2 * alpha_ms + (nbytes + request) * 8 / 1000 / payload_mbps(point.links.mbps, point.links.mtu)


def _percentiles(values: Floats, unit: str, digits: int) -> dict[str, float | None]:
    enough = ((50, 1), (95, 1), (99, P99_NEEDS))
    return {f"p{part}_{unit}": round(float(np.percentile(values, part)), digits) if len(values) >= least else None for part, least in enough}


def _by_size(nbytes: Ints, slowdowns: Floats) -> dict[str, Any]:
    """The mean over all, and by size; `up_to` is in bytes, None for what is larger than all bins."""
    table = [
        {"up_to": up_to, "due": len(those), "mean": round(float(slowdowns[those].mean()), 3), **_percentiles(slowdowns[those], "slowdown", 3)}
        for up_to, those in bins(nbytes.tolist())
    ]  # fmt: skip
    return {"slowdown_mean": round(float(slowdowns.mean()), 3) if len(slowdowns) else None, "slowdowns": table}
