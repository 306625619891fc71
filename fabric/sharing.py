"""What jobs with clocks of their own have to do with each other: for how long they met on links, and what their computing hid.

Comes in: iteration records of jobs, and where their connections went (`Tracks`). Goes out: milliseconds an iteration. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fabric.tracks import Stream, Tracks, Window

__all__ = ["Members", "communicating", "exposed_ms", "overlap", "shared", "shared_ms"]

Members = Mapping[str, Sequence[Stream]]


def exposed_ms(measured: Sequence[Mapping[str, Any]], backward_ms: float) -> float:
    """The mean over a job's iterations of how long it still communicated when its backward pass was over, in ms.

    What a training step waits for the network: with everything hidden behind the computing, 0. An iteration takes what is
    computed, and this.
    """
    last: dict[int, float] = {}
    for record in measured:
        end = 1000 * (record["release"] - record["begun"]) + max(record["ends_ms"])
        last[record["iteration"]] = max(last.get(record["iteration"], 0.0), end - backward_ms)
    return float(np.mean(list(last.values())))


def communicating(records: Sequence[Mapping[str, Any]], job: str) -> list[Window]:
    """From when to when a job's communications were under way (CLOCK_MONOTONIC), in order, warm-ups included.

    >>> communicating([{"job": "a", "release": 1.0, "ends_ms": [500, 250]}, {"job": "b", "release": 1.0, "ends_ms": [9]}], "a")
    [(1.0, 1.5)]
    """
    return sorted((one["release"], one["release"] + max(one["ends_ms"]) / 1000) for one in records if one.get("job") == job)


def shared(tracks: Tracks, records: Sequence[Mapping[str, Any]], members: Members, job: str) -> dict[str, list[Window]]:
    """By each other job from when to when both communicated while a connection of each used the same direction of a link.

    `members` are every job's connections. What moves has moved from its moment on.
    """
    own = communicating(records, job)
    found: dict[str, list[Window]] = {other: [] for other in members if other != job}
    if not own:
        return found
    first, last = own[0][0], max(end for _, end in own)
    turns = {line["t"] for lines in tracks.reroutes.values() for line in lines}
    for begin, end in pairwise([first, *sorted(turn for turn in turns if first < turn < last), last]):
        links = {name: _links(tracks, streams, begin) for name, streams in members.items()}
        for other in found:
            if links[job] & links[other]:
                found[other] += overlap(own, communicating(records, other), (begin, end))
    return found


def shared_ms(tracks: Tracks, records: Sequence[Mapping[str, Any]], members: Members, job: str) -> dict[str, float]:
    """By each other job the ms that a measured iteration of `job` shared with it in the mean, as `shared` has it."""
    counted = [record for record in records if record["iteration"] >= 0 or record.get("job") != job]
    iterations = len({record["iteration"] for record in counted if record.get("job") == job})
    found = shared(tracks, counted, members, job)
    return {other: round(1000 * sum(end - begin for begin, end in stretches) / iterations, 3) for other, stretches in found.items() if iterations}


def _links(tracks: Tracks, streams: Sequence[Stream], t: float) -> set[str]:
    return {name for stream in streams for name in tracks.path(stream, t) or ()}


def overlap(one: Sequence[Window], other: Sequence[Window], within: Window) -> list[Window]:
    """Where two lists of stretches overlap within a window.

    >>> overlap([(0, 2), (4, 6)], [(1, 5)], (0, 4.5))
    [(1, 2), (4, 4.5)]
    """
    found = ((max(a, b, within[0]), min(a_end, b_end, within[1])) for a, a_end in one for b, b_end in other)
    return [(begin, end) for begin, end in found if begin < end]
