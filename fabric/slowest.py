"""Which all-reduce was slowest, and which of its flows kept it waiting; or which background flow got least.

Comes in: a point's record and its `Tracks`. Goes out: `Work` and `Slow`. Nobody records when single transfers begin and
end: it is read off the byte counts of the hosts' links. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.fluid import max_min
from fabric.graph import Fabric
from fabric.ideal import CREDIT_FRAMES, TCP_IP_HEADERS, ideal_ms
from fabric.predictions import servers_of
from fabric.recorded import Recorded
from fabric.schedule import Connection, Schedule
from fabric.telemetry import Queues
from fabric.tracks import Stream, Tracks, Window, nodes

__all__ = ["Leg", "Slow", "Work", "carried", "load_window", "slowest_edge", "slowest_flow", "slowest_iteration"]

_NOTHING = 1e-6  # Mb/s, or ms: keeps a ratio a number

_LAST = 1e-6  # of the bytes: less than one

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Work:
    """What was slow: an all-reduce, or without `iteration` the load of a point; times in ms.

    `bucket` is which of a backward pass's it was, from 0; `part` is the collective, or the one of several; `hosts` are those of its ranks, `ends_ms` by rank, of the job that it was
    where jobs have clocks of their own; `ideal_ms` is of this size, `median_ms` over the measured iterations of this size, and job.
    """

    time_ms: float
    begin: float
    iteration: int | None = None
    iterations: int | None = None
    nbytes: int | None = None
    collective: str | None = None
    ideal_ms: float | None = None
    median_ms: float | None = None
    hosts: tuple[str, ...] = ()
    job: str | None = None
    part: str = "collective"
    bucket: int | None = None
    ends_ms: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leg:
    """The nodes that a flow crossed, from when to when; no nodes where nothing says them."""

    from_ms: float
    until_ms: float
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slow:
    """The slowest flow: what it got, and how that is known (`by`: byte counts, fluid model or goodput).

    `busy_ms` is how long it had data on its way, `alone_ms` how long these need on an idle path; None where not known.
    `ideal_mbps` is its share on one ideal switch. `silence_ms` is its receiver's longest silence, from `silence_from_ms`.
    """

    name: str
    src: str
    dst: str
    mbps: float
    ideal_mbps: float
    by: str
    legs: tuple[Leg, ...]
    nbytes: int | None = None
    busy_ms: float | None = None
    alone_ms: float | None = None
    silence_ms: float | None = None
    silence_from_ms: float | None = None


def slowest_iteration(seen: Recorded, tracks: Tracks) -> Work:
    """The measured iteration that took longest against the ideal of its size."""
    point, schedules = tracks.point, seen.schedules
    measured = [record for record in seen.event("iteration") if record["iteration"] >= 0]
    burst, payload = CREDIT_FRAMES * (point["links"]["mtu"] - TCP_IP_HEADERS), seen.network["payload_mbps"]
    fabric = Fabric.from_json({**point["fabric"], "links": []}) if "fabric" in point else None  # older records do not say
    ideals = {
        (part, nbytes): ideal_ms(
            schedule, alpha_ms=point["alpha_ms"], payload_mbps=payload, burst_bytes=burst,
            servers=servers_of(fabric, tracks.hosts(part), payload) if fabric else None,
        )
        for (part, nbytes), schedule in schedules.items()
    }  # fmt: skip

    def key(record: Mapping[str, Any]) -> tuple[str, int]:
        """Which of the schedules; groups of one collective are jobs too, with the same one."""
        own = (record.get("job", "collective"), record["nbytes"])
        return own if own in schedules else ("collective", record["nbytes"])

    worst = max(measured, key=lambda record: max(record["ends_ms"]) / ideals[key(record)])
    part = key(worst)[0]
    mine = [one for one in measured if (one["nbytes"], one.get("job")) == (worst["nbytes"], worst.get("job"))]
    alike = [max(one["ends_ms"]) for one in mine]
    return Work(
        time_ms=max(worst["ends_ms"]), begin=worst["release"], iteration=worst["iteration"], iterations=len({one["iteration"] for one in mine}),
        nbytes=worst["nbytes"], collective=schedules[key(worst)].collective, ideal_ms=ideals[key(worst)],
        median_ms=float(np.median(alike)), hosts=tracks.hosts(part), job=worst.get("job"), part=part,
        bucket=worst.get("bucket") if len(mine) > len({one["iteration"] for one in mine}) else None,
        ends_ms=dict(zip(worst.get("ranks", range(len(worst["ends_ms"]))), worst["ends_ms"], strict=True)),
    )  # fmt: skip


def carried(seen: Recorded, part: str, nbytes: int) -> dict[Connection, int]:
    """The payload bytes that each connection of a collective, by its own ranks, carries in one iteration of a size."""
    schedule = seen.schedules[part, nbytes]
    return {edge: sum(schedule.transfers[number].nbytes for number in ids) for edge, ids in schedule.connections.items()}


def load_window(seen: Recorded) -> Work:
    (load,) = seen.event("load")
    # Beside a program a load lasts as long as that.
    end = load["end"] if load["end"] is not None else seen.event("programs")[0]["end"]
    return Work(time_ms=1000 * (end - load["begin"]), begin=load["begin"])


def slowest_edge(seen: Recorded, tracks: Tracks, work: Work) -> tuple[Stream | None, Slow | None]:
    """The collective's connection with data on its way for longest; by the fluid model where byte counts cannot tell."""
    assert work.nbytes is not None
    schedule, nbytes_of = seen.schedules[work.part, work.nbytes], carried(seen, work.part, work.nbytes)
    nbytes_of = {edge: nbytes for edge, nbytes in nbytes_of.items() if edge[0] in work.ends_ms}
    edges = {own: stream for own, stream in _streams_of(tracks, work.part) if own in nbytes_of}
    window = (work.begin, work.begin + work.time_ms / 1000)
    busy = _busy_ms(seen, tracks, schedule, work)
    needs = _modelled_ms(tracks, {edges[edge]: nbytes for edge, nbytes in nbytes_of.items()}, window)
    if not busy and not needs:
        return None, None
    edge = max(busy, key=lambda one: busy[one]) if busy else max(edges, key=lambda one: needs.get(edges[one], 0.0))
    stream = edges[edge]
    path = tracks.path(stream, work.begin) or ()
    mbps = tracks.rates(work.begin)[path[0]] * tracks.payload if len(path) == 1 else seen.network["payload_mbps"]  # one: inside a server
    end = busy.get(edge)
    slow = Slow(
        stream.name, stream.src, stream.dst, mbps=nbytes_of[edge] * 8e-3 / max(end or work.time_ms, _NOTHING), ideal_mbps=mbps,
        by="byte counts" if busy else "fluid model", legs=_legs(tracks, stream, window), nbytes=nbytes_of[edge],
        busy_ms=end, alone_ms=nbytes_of[edge] * 8e-3 / mbps,
    )  # fmt: skip
    return stream, _with_silence(seen, slow, edge, work)


def _streams_of(tracks: Tracks, part: str) -> list[tuple[Connection, Stream]]:
    """The streams of a collective, with their connections by its own ranks."""
    every = ((tracks.own(stream.edge), stream) for stream in tracks.streams if stream.edge is not None)
    return [(own, stream) for (name, own), stream in every if name == part]


def _with_silence(seen: Recorded, slow: Slow, edge: Connection, work: Work) -> Slow:
    (record,) = [one for one in seen.event("iteration") if one["release"] == work.begin and one.get("job") == work.job]
    quiet = [line[3:] for line in record.get("silences", ()) if tuple(line[:3]) == edge]
    if not quiet:
        return slow
    begin, seconds = max(quiet, key=lambda pair: pair[1])
    return replace(slow, silence_ms=1000 * seconds, silence_from_ms=1000 * (begin - work.begin))


def _modelled_ms(tracks: Tracks, carried: Mapping[Stream, int], window: Window) -> dict[Stream, float]:
    """How long each connection's bytes need at its max-min share in the middle of the window, all of them sending."""
    shares = tracks.shares(sum(window) / 2)
    return {stream: nbytes * 8e-3 / max(shares[stream], _NOTHING) for stream, nbytes in carried.items() if stream in shares}


def _busy_ms(seen: Recorded, tracks: Tracks, schedule: Schedule, work: Work) -> dict[Connection, float]:
    """For how long each connection had data on its way, by what the switches handed to its receiver's host.

    A transfer is on its way from when it may begin until it has arrived; both are read off the byte counts of the
    receivers' links. Empty where these cannot tell: a rank that hears several others, or whose host has other traffic.
    """
    if work.job is not None:
        return {}  # other jobs' bytes are on the same links
    into = {edge[1]: edge for edge in schedule.connections}
    busy_hosts = {end for stream in tracks.streams if stream.edge is None for end in (stream.src, stream.dst)}
    hosts = [work.hosts[rank] for rank in into]
    if len(into) < len(schedule.connections) or len(set(hosts)) < len(hosts) or busy_hosts & set(hosts):
        return {}
    arrived: dict[int, float] = {}
    for edge, ids in schedule.connections.items():
        stream = next(one for one in tracks.streams if one.edge == edge)
        path = tracks.path(stream, work.begin)
        if path is None or path[-1] not in seen.queues.interfaces:
            return {}
        sizes = np.cumsum([schedule.transfers[number].nbytes for number in ids])
        end = work.begin + work.ends_ms[edge[1]] / 1000
        times = _arrivals(seen.queues, path[-1], (work.begin, end), sizes)
        arrived.update(zip(ids, (1000 * (times - work.begin)).tolist(), strict=True))
    return {edge: _on_its_way(schedule, edge, arrived) for edge in schedule.connections}


def _arrivals(queues: Queues, interface: str, window: Window, sizes: npt.NDArray[np.int64]) -> Floats:
    """When so many payload bytes had left an interface, all of them within the window; s.

    Headers and acknowledgements count as a constant part of all it sent meanwhile.
    """
    sent = queues.sent_bytes[:, queues.interfaces.index(interface)].astype(float)
    first, last = np.interp(window, queues.t, sent)
    inside = (queues.t > window[0]) & (queues.t < window[1])
    t = np.concatenate(([window[0]], queues.t[inside], [window[1]]))
    share = np.concatenate(([first], sent[inside], [last])) - first
    # np.interp wants growing abscissae: a standstill becomes the tiniest of slopes.
    rising = np.maximum.accumulate(share + np.arange(len(share)) * 1e-9)
    # The last byte came when the count stood still, not when the window ended.
    wanted = np.minimum(sizes / sizes[-1], 1 - _LAST) * rising[-1]
    times: Floats = np.interp(wanted, rising, t)
    return times


def _on_its_way(schedule: Schedule, edge: Connection, arrived: Mapping[int, float]) -> float:
    total = before = 0.0
    for number in schedule.connections[edge]:
        heard = [arrived[other] for other in schedule.transfers[number].after if _heard(schedule, other, edge)]
        ready = max(heard, default=0.0)
        total += max(0.0, arrived[number] - max(ready, before))
        before = max(before, arrived[number])
    return total


def _heard(schedule: Schedule, number: int, edge: Connection) -> bool:
    """Whether a transfer arrives at the edge's sender, which is what the edge waits for."""
    return schedule.transfers[number].dst == edge[0] and not schedule.transfers[number].local


def slowest_flow(seen: Recorded, tracks: Tracks, window: Window) -> tuple[Stream | None, Slow | None]:
    """The background flow that got least of what one ideal switch would give it."""
    streams = [stream for stream in tracks.streams if stream.edge is None]
    paths = [((stream.src, "out"), (stream.dst, "in")) for stream in streams]
    mbps = seen.network["payload_mbps"]
    ideal = max_min(paths, {end: mbps for path in paths for end in path}, [stream.mbps for stream in streams]).tolist()
    got = [tracks.goodput(stream, window) or 0.0 for stream in streams]
    worst = max(range(len(streams)), key=lambda number: ideal[number] / max(got[number], _NOTHING))
    stream = streams[worst]
    slow = Slow(stream.name, stream.src, stream.dst, got[worst], ideal[worst], "goodput", _legs(tracks, stream, window))
    return stream, slow


def _legs(tracks: Tracks, stream: Stream, window: Window) -> tuple[Leg, ...]:
    legs: list[Leg] = []
    for begin, end, path in tracks.spans(stream, *window):
        along = () if path is None else nodes(path, stream.dst)
        since = legs.pop().from_ms if legs and legs[-1].nodes == along else 1000 * (begin - window[0])
        legs.append(Leg(since, 1000 * (end - window[0]), along))
    return tuple(legs)
