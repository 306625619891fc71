"""What background flows got, against what was left for them; how evenly; and how full the fullest port of a switch was.

Comes in: a point's record and a window. Goes out: shares and indices for its row. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from fabric.events import in_force
from fabric.fluid import max_min
from fabric.recorded import Recorded, fabric_of
from fabric.schedule import Schedule
from fabric.tracks import Names, Stream, Tracks, Window

__all__ = ["fabric_utilisation", "jain", "leftover_mbps", "leftover_share"]


def jain(rates: Sequence[float]) -> float | None:
    """Jain's index of fairness, (Σx)² / (n Σx²): 1 when all are equal, 1/n when one has everything; None of nothing.

    Source: Jain, Chiu, Hawe, "A Quantitative Measure of Fairness and Discrimination", DEC TR-301, 1984.

    >>> jain([3.0, 3.0]), jain([1.0, 0.0, 0.0, 0.0]), jain([0.0])
    (1.0, 0.25, None)
    """
    total, squares = float(np.sum(rates)), float(np.sum(np.square(rates)))
    return total * total / (len(rates) * squares) if squares > 0 else None


def leftover_share(seen: Recorded, schedule: Schedule, iterations: int, rates: Sequence[float], window: Window) -> float | None:
    """The sum of `rates` over that of `leftover_mbps`; None where that is not known, or nothing was left."""
    left = leftover_mbps(seen, schedule, iterations, window)
    return float(sum(rates)) / left if left else None


def leftover_mbps(seen: Recorded, schedule: Schedule, iterations: int, window: Window) -> float | None:
    """The max-min rates of all background flows together, in Mb/s, on what `iterations` of a schedule left of each link.

    A link's capacity is its rate in force, as payload, less what the collective's connections over it delivered in the
    window (CLOCK_MONOTONIC) per second of the window. Paths are those in force: the window is cut at every reroute and
    event, and the mean over its pieces is told. What no line of the decision log moved is where it was when all had ended.
    None where a path is not known.
    """
    tracks = Tracks(seen)
    seconds = window[1] - window[0]
    taken = {
        edge: sum(schedule.transfers[number].nbytes for number in ids) * iterations * 8e-6 / seconds
        for edge, ids in schedule.connections.items()
    }
    paths = _resting(tracks, seen)
    means = [(end - begin, _left(tracks, paths, taken, begin)) for begin, end in pairwise(_cuts(tracks, seen, window))]
    if any(mbps is None for _, mbps in means):
        return None
    return sum(lasts * (mbps or 0.0) for lasts, mbps in means) / seconds


def _cuts(tracks: Tracks, seen: Recorded, window: Window) -> list[float]:
    """The window's begin and end, and every moment in it at which a path or a link changed."""
    moments = [line["t"] for lines in tracks.reroutes.values() for line in lines] + [one.begin for one in seen.happened]
    return [window[0], *sorted({moment for moment in moments if window[0] < moment < window[1]}), window[1]]


def _resting(tracks: Tracks, seen: Recorded) -> dict[str, Names | None]:
    """By 5-tuple the last path of every stream that has no line of its own in the decision log, as under weights of groups."""
    edges, flows = seen.last_paths
    last = [*(edges[stream.edge] for stream in tracks.streams if stream.edge), *flows]
    return {
        stream.key: None if path is None else tuple(path)
        for stream, path in zip(tracks.streams, last, strict=True)
        if stream.key not in tracks.reroutes
    }


def _left(tracks: Tracks, resting: dict[str, Names | None], taken: dict[tuple[int, int, int], float], t: float) -> float | None:
    """The background flows' max-min rates together at a moment, when each edge takes so many Mb/s off its path."""
    capacity: dict[Hashable, float] = {name: mbps * tracks.payload for name, mbps in tracks.rates(t).items()}
    flows: list[tuple[Stream, Names]] = []
    for stream in tracks.streams:
        path = resting[stream.key] if stream.key in resting else tracks.path(stream, t)
        if path is None:
            return None
        if stream.edge is None:
            flows.append((stream, path))
            continue
        for name in path:
            capacity[name] = max(0.0, capacity[name] - taken.get(stream.edge, 0.0))
    return float(max_min([path for _, path in flows], capacity, [stream.mbps for stream, _ in flows]).sum())


def fabric_utilisation(seen: Recorded, window: Window) -> float | None:
    """The largest share of its capacity that any port of a switch sent in the window, headers counted, idle moments too.

    Capacity is the rate in force. None where fewer than two samples of the telemetry fell into the window.
    """
    queues, switches = seen.queues, fabric_of(seen).switch_by_name
    inside = (queues.t >= window[0]) & (queues.t <= window[1])
    if inside.sum() < 2:
        return None
    t, sent = queues.t[inside], queues.sent_bytes[inside]
    force = in_force(t, seen.mbps, queues.interfaces, seen.happened).mbps
    able = (np.diff(t)[:, np.newaxis] * np.maximum(force[1:], force[:-1])).sum(axis=0) * 1e6 / 8
    moved = (sent[-1] - sent[0]).astype(float)
    shares = np.divide(moved, able, out=np.zeros_like(moved), where=able > 0)
    ports = [n for n, name in enumerate(queues.interfaces) if name.rpartition("-eth")[0] in switches]
    return float(shares[ports].max()) if ports else None
