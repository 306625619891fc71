"""Which link of a flow's path was the fullest while the flow was on it, from when to when, and who shared it.

Comes in: a point's record, its `Tracks`, a stream and a window. Goes out: a `FullLink`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabric.recorded import Recorded
from fabric.tracks import Span, Stream, Tracks, Window, nodes

__all__ = ["FULL", "FullLink", "Share", "fullest"]

FULL = 0.9  # of a link's rate: above, a link counts as full
_NOTHING = 1e-6  # Mb/s: keeps a ratio a number

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Share:
    """A flow on the fullest link: its max-min share were all flows sending, and what it got; None where not recorded."""

    name: str
    src: str
    dst: str
    fair_mbps: float | None
    mbps: float | None


@dataclass(frozen=True, slots=True)
class FullLink:
    """The fullest link of the slowest flow's path, while the flow was on it.

    `full_ms` is for how long it was above `FULL` of its rate, `from_ms` and `until_ms` the longest stretch of that (None
    without one); `share` is its mean utilisation, `drops` what its queue dropped, `explained` which
    part of what it carried the flows that the record puts on it account for. `at_ms` is the moment of `sharers`.
    """

    interface: str
    near: str
    far: str
    on_ms: float
    full_ms: float
    from_ms: float | None
    until_ms: float | None
    share: float
    queue_mean_packets: float
    queue_max_packets: int
    drops: int
    explained: float
    at_ms: float
    sharers: tuple[Share, ...]


def _ms(t: float, window: Window) -> float:
    return 1000 * (t - window[0])


@dataclass(frozen=True)
class _Watched:
    """A link while the flow was on it: sample intervals, and how full it was in each."""

    interface: str
    begin: Floats
    end: Floats
    sent_mbps: Floats
    share: Floats
    backlog: Floats
    drops: int

    @property
    def full_s(self) -> float:
        return float((self.end - self.begin)[self.share >= FULL].sum())

    @property
    def queue(self) -> float:
        return float(self.backlog.mean())


def fullest(
    seen: Recorded, tracks: Tracks, stream: Stream | None, window: Window, got_mbps: Mapping[Stream, float]
) -> FullLink | None:
    """The fullest link of the stream's path; `got_mbps` are the payload rates of all streams over the window.

    Of the links that were full for at least half as long as any of the path, the one with the longest queue.

    Behind a link that is too slow the next ones are full too, but nothing waits there.
    """
    spans = tracks.spans(stream, *window) if stream else []
    names = dict.fromkeys(name for _, _, path in spans for name in path or ())
    every = [found for name in names if (found := _watch(seen, tracks, name, spans)) is not None]
    if not every or stream is None:
        return None
    longest = max(one.full_s for one in every)
    full = [one for one in every if one.full_s > 0 and one.full_s >= longest / 2]
    chosen = max(full, key=lambda one: one.queue) if full else max(every, key=lambda one: float(one.share.mean()))
    begin, end = _longest_stretch(chosen)
    at = (begin + end) / 2 if begin is not None and end is not None else (chosen.begin[0] + chosen.end[-1]) / 2
    path = next(path for _, _, path in spans if path and chosen.interface in path)
    along = nodes(path, stream.dst)
    place = path.index(chosen.interface)
    return FullLink(
        chosen.interface, along[place], along[place + 1], on_ms=1000 * float((chosen.end - chosen.begin).sum()),
        full_ms=1000 * chosen.full_s, from_ms=None if begin is None else _ms(begin, window),
        until_ms=None if end is None else _ms(end, window),
        share=float(np.average(chosen.share, weights=chosen.end - chosen.begin)),
        queue_mean_packets=chosen.queue, queue_max_packets=int(chosen.backlog.max()), drops=chosen.drops,
        explained=_explained(tracks, chosen, window, got_mbps), at_ms=_ms(at, window),
        sharers=tuple(_sharers(tracks, chosen.interface, at, got_mbps)),
    )  # fmt: skip


def _watch(seen: Recorded, tracks: Tracks, name: str, spans: Sequence[Span]) -> _Watched | None:
    """The sample intervals whose middle lies where the flow was on this link; None without any, or without a record."""
    queues = seen.queues
    if name not in queues.interfaces:
        return None
    column = queues.interfaces.index(name)
    middle = (queues.t[1:] + queues.t[:-1]) / 2
    on = np.zeros(len(middle), bool)
    for since, until, path in spans:
        if path and name in path:
            on |= (middle >= since) & (middle <= until)
    if not on.any():
        return None
    begin, end = queues.t[:-1][on], queues.t[1:][on]
    mbps = np.array([tracks.rates(t)[name] for t in begin.tolist()])
    sent = np.diff(queues.sent_bytes[:, column])[on] * 8e-6 / (end - begin)
    drops = int(np.diff(queues.drops[:, column])[on].sum())
    backlog = queues.backlog_packets[1:, column][on].astype(float)
    return _Watched(name, begin, end, sent, sent / np.maximum(mbps, _NOTHING), backlog, drops)


def _longest_stretch(link: _Watched) -> tuple[float, float] | tuple[None, None]:
    """The longest run of full intervals, from when to when."""
    best: tuple[float, float] | tuple[None, None] = (None, None)
    since: float | None = None
    for begin, end, share in zip(link.begin.tolist(), link.end.tolist(), link.share.tolist(), strict=True):
        since = None if share < FULL else begin if since is None else since
        if since is not None and (best[0] is None or best[1] is None or end - since > best[1] - best[0]):
            best = (since, end)
    return best


def _sharers(tracks: Tracks, interface: str, at: float, got_mbps: Mapping[Stream, float]) -> list[Share]:
    fair = tracks.shares(at)
    return [
        Share(one.name, one.src, one.dst, fair.get(one), got_mbps.get(one)) for one in tracks.crossing(interface, at)
    ]


def _explained(tracks: Tracks, link: _Watched, window: Window, got_mbps: Mapping[Stream, float]) -> float:
    """What the flows that the record puts on a link carried there, over what the link carried; headers left out."""
    begin, end = max(window[0], link.begin[0]), min(window[1], link.end[-1])
    known = sum(
        mbps * (until - since)
        for stream, mbps in got_mbps.items()
        for since, until, path in tracks.spans(stream, begin, end)
        if path and link.interface in path
    )
    carried = float((link.sent_mbps * (link.end - link.begin)).sum()) * tracks.payload
    return float(known / max(carried, _NOTHING))
