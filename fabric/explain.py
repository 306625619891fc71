"""What happened at a point of a run, and where the time of its slowest all-reduce, or slowest background flow, went.

Comes in: a run folder. Goes out: an `Explanation`: the iteration, the slowest flow, its fullest link, who shared it, what
the controller did meanwhile, and what the record does not say. Pure; `fabric.telling` puts it into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from fabric.decisions import count
from fabric.errors import RequestError
from fabric.fullest import FullLink, fullest
from fabric.recorded import Recorded
from fabric.results import Row, RunFolder, read_rows
from fabric.slowest import Slow, Work, carried, load_window, slowest_edge, slowest_flow, slowest_iteration
from fabric.tracks import Stream, Tracks, Window, nodes

__all__ = ["Explanation", "Move", "explain"]

_OUTCOME_S = 10.0  # an outcome line later than this after a move is another's


@dataclass(frozen=True, slots=True)
class Move:
    """A reroute while it lasted: `old` and `new` are nodes, `after_mbps` what the log says the flow got seconds later."""

    at_ms: float
    name: str
    src: str
    dst: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    reason: str
    numbers: Mapping[str, float]
    before_mbps: float | None
    after_mbps: float | None
    concerned: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is said of a point; `missing` is what its record does not say.

    `chosen` says that nobody asked for this point: it is the slowest of `points`. `before` counts the reroutes before the
    window, `others` the decisions of other kinds in it.
    """

    run: str
    point: str
    points: int
    chosen: bool
    row: Row
    work: Work
    slow: Slow | None
    link: FullLink | None
    has_log: bool
    moves: tuple[Move, ...]
    before: int
    others: Mapping[str, int]
    events: tuple[str, ...]
    rto_min_ms: float
    sampled_ms: float
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return asdict(self)


def explain(folder: Path, point: str | None = None) -> Explanation:
    """What happened at a point; by default at the one with the slowest all-reduce against its ideal, or flow.

    RequestError when the folder is no run folder, the run did not finish, the point is not there, or has nothing whose paths are known.
    """
    rows = read_rows(folder)
    row = _pick(folder, rows, point)
    tracks = Tracks(seen := _recorded(folder, row.point))
    if not seen.event("iteration") and not tracks.streams:
        text = "accepted: a point with a collective or a load, whose flows are known; look at its figures, or at a program's own output"
        raise RequestError(f"{folder}: point {row.point} has {'a program' if row.workload else 'nothing but requests'}; {text}")
    work = slowest_iteration(seen, tracks) if seen.event("iteration") else load_window(seen)
    window = (work.begin, work.begin + work.time_ms / 1000)
    stream, slow = slowest_edge(seen, tracks, work) if work.ends_ms else slowest_flow(seen, tracks, window)
    link = fullest(seen, tracks, stream, window, _got_mbps(seen, tracks, work, window))
    moves = tuple(_moves(tracks, stream, link, window)) if stream else ()
    size = [one for one in rows if one.point == row.point and one.nbytes == work.nbytes and one.job in (None, work.part)]
    return Explanation(
        run=folder.resolve().name, point=row.point, points=len({one.point for one in rows}),
        chosen=point is None and len({one.point for one in rows}) > 1, row=(size or [row])[0],
        work=work, slow=slow, link=link, has_log=tracks.has_log, moves=moves,
        before=count(tracks.log, "reroute", (-inf, window[0])), others=_others(tracks, window),
        events=_events(seen, window),
        rto_min_ms=seen.network.get("rto_min_ms", 200), sampled_ms=seen.queues.period_ms,
        missing=tuple(_missing(seen, tracks, slow, link)),
    )  # fmt: skip


def _pick(folder: Path, rows: Sequence[Row], point: str | None) -> Row:
    """The row of the point to explain; RequestError says which there are."""
    known = list(dict.fromkeys(row.point for row in rows))
    some = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    if point is not None:
        found = [row for row in rows if row.point == point]
        if not found:
            raise RequestError(f"{folder}: no rows of point {point!r}; accepted: {some}")
        return max(found, key=_badness)
    if not RunFolder(folder).finished or not rows:
        remedy = f"name a point that ended, by --point: {some}" if rows else "run it again"
        raise RequestError(f"{folder}: the run did not finish; accepted: a run with finished.json; {remedy}")
    return max(rows, key=_badness)


def _badness(row: Row) -> tuple[bool, float]:
    if row.max_ms is not None and row.ideal_ms:
        return True, row.max_ms / row.ideal_ms
    return False, row.slowest_flow_slowdown or 0.0


def _recorded(folder: Path, point: str) -> Recorded:
    seen = Recorded(RunFolder(folder).point(point))
    needed = ("point.json", "network.json", "installed.json", "traffic/records.jsonl", "telemetry/queues.jsonl")
    if lost := [name for name in needed if not (seen.folder / name).is_file()]:
        raise RequestError(f"{seen.folder}: has no {lost[0]}; accepted: a point's folder as the run left it; copy it whole")
    return seen


def _events(seen: Recorded, window: Window) -> tuple[str, ...]:
    """The timed events until the window's end, for a person."""
    before = (one for one in seen.happened if one.begin <= window[1])
    return tuple(f"{_ms(one.begin, window):.0f} ms: {one.event.target} {one.event.do}" for one in before)


def _ms(t: float, window: Window) -> float:
    return 1000 * (t - window[0])


def _got_mbps(seen: Recorded, tracks: Tracks, work: Work, window: Window) -> dict[Stream, float]:
    """The payload rate of every stream that sent in the window, over the whole of it."""
    found: dict[Stream, float] = {}
    for stream in tracks.streams:
        if stream.edge is None:
            found[stream] = tracks.goodput(stream, window) or 0.0
        elif work.nbytes is not None:
            part, own = tracks.own(stream.edge)
            nbytes = work.nbytes if part == work.part else next(size for name, size in seen.schedules if name == part)
            # Another job has a clock of its own, and may have computed for some of the time.
            mine = part == work.part and own[0] in work.ends_ms
            times = 1.0 if mine else _iterations_within(seen, part, own[0], nbytes, window)
            if own in (sent := carried(seen, part, nbytes)):
                found[stream] = times * sent[own] * 8e-3 / work.time_ms
    return found


def _iterations_within(seen: Recorded, part: str, rank: int, nbytes: int, window: Window) -> float:
    """How many iterations of a rank's job fell into a window, parts of them by time."""
    total = 0.0
    for record in seen.event("iteration"):
        if record["nbytes"] == nbytes and part in ("collective", record.get("job")) and rank in record.get("ranks", ()):
            begin, seconds = record["release"], max(record["ends_ms"]) / 1000
            total += max(0.0, min(window[1], begin + seconds) - max(window[0], begin)) / seconds
    return total


# -- what the controller did


def _moves(tracks: Tracks, stream: Stream | None, link: FullLink | None, window: Window) -> list[Move]:
    """The reroutes meanwhile; those of the slowest flow, or off or onto its fullest link, are `concerned`."""
    found = []
    for line in tracks.log:
        if line["event"] != "reroute" or not window[0] <= line["t"] <= window[1]:
            continue
        one = tracks.by_key.get(line["flow"])
        changed = set(line["old"] or ()) ^ set(line["new"])
        concerned = one == stream or (link is not None and link.interface in changed)
        before, after = _outcome(tracks, line)
        found.append(Move(
            _ms(line["t"], window), one.name if one else line["flow"], line["src"], line["dst"],
            nodes(line["old"], line["dst"]) if line["old"] else (), nodes(line["new"], line["dst"]),
            line["reason"], line["numbers"], before, after, concerned,
        ))  # fmt: skip
    return found


def _outcome(tracks: Tracks, move: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """What the log says that a flow got before a move, and some seconds after it."""
    for line in tracks.log:
        if line["event"] == "outcome" and line["flow"] == move["flow"] and 0 < line["t"] - move["t"] < _OUTCOME_S:
            return line["before_mbps"], line["after_mbps"]
    return move.get("mbps"), None


def _others(tracks: Tracks, window: Window) -> dict[str, int]:
    """How many decisions of other kinds there were meanwhile."""
    inside = [line["event"] for line in tracks.log if window[0] <= line["t"] <= window[1]]
    return {kind: inside.count(kind) for kind in ("reweight", "held", "link", "degraded") if kind in inside}


def _missing(seen: Recorded, tracks: Tracks, slow: Slow | None, link: FullLink | None) -> list[str]:
    found = []
    if slow is None:
        found.append("which flow was slowest: no path of any flow is known, the switches' rules did not say them")
    elif slow.by == "fluid model":
        why = "byte counts of hosts cannot tell it, since their links carried more than one flow each way"
        found.append(f"when each transfer began and ended; and {why}")
    if slow is not None and link is None:
        found.append("how full its links were: no telemetry sample fell into this time, or its path is not known")
    if any(tracks.path(stream, seen.queues.t[-1]) is None for stream in tracks.streams):
        found.append("the paths of some flows: the switches' rules did not say them, so sharers may be left out")
    return found
