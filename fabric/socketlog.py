"""Sending sockets over time: round trips, windows, retransmissions, sent and delivered bytes, ten times a second.

A process that owns sockets asks the kernel for their TCP_INFO between two other things that it does, and appends what it
heard to `sockets.jsonl`, a line a socket, when the traffic has ended. Comes in: sockets, or that file. Goes out: the
file, or `SocketSeries`.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from fabric.errors import RunError
from fabric.tcp import Endpoints
from fabric.telemetry import Floats, Ints

__all__ = ["FILE", "PERIOD_S", "SocketLog", "SocketSeries", "read_sockets", "rtt_percentiles_ms"]

FILE = "sockets.jsonl"
PERIOD_S = 0.1
# struct tcp_info (linux/tcp.h): rtt at 68, snd_cwnd at 80, total_retrans at 100, bytes_acked at 120, min_rtt at 148,
# bytes_sent, repeated ones included, at 200.
_INFO = struct.Struct("=68xI8xI16xI16xQ20xI48xQ")
_NO_RTT_YET = 0xFFFFFFFF

Sample = tuple[float, int, int, int, int, int, int]  # when; rtt and its minimum in microseconds, window, retransmissions, bytes acknowledged and sent


class SocketLog:
    """Samples of sockets by whatever key their owner uses; the first is taken at the first turn."""

    def __init__(self, ends: Mapping[Any, socket.socket]) -> None:
        self._ends = ends
        self._samples: dict[Any, list[Sample]] = {key: [] for key in ends}
        self._due = 0.0 if ends else inf
        self.taken, self.took_s = 0, 0.0

    def turn(self) -> float:
        """Sample when it is time; the seconds until it is again, infinite without sockets."""
        now = time.monotonic()
        if now >= self._due:
            self._sample(now)
            self._due = now + PERIOD_S
            self.took_s += time.monotonic() - now
        return self._due - now

    def _sample(self, now: float) -> None:
        for key, end in self._ends.items():
            rtt, window, resent, acked, least, sent = _INFO.unpack(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
            self._samples[key].append((now, rtt, least, window, resent, acked, sent))
        self.taken += 1

    def write(self, path: Path, kind: str, plugs: Mapping[Any, Endpoints]) -> dict[str, Any]:
        """Take a last sample and append all, a line a socket; how many there were and what they cost, for a record line."""
        if self._ends:
            self._sample(time.monotonic())
            with open(path, "a") as file:
                file.writelines(_line(kind, plugs[key], samples) for key, samples in self._samples.items())
        return {"samples": self.taken, "took_ms": round(1000 * self.took_s, 3)}


def _line(kind: str, ends: Endpoints, samples: Iterable[Sample]) -> str:
    t, rtt, least, window, resent, acked, sent = zip(*samples, strict=True)
    told = {
        "kind": kind, **asdict(ends), "t": [round(one, 4) for one in t], "rtt_ms": [one / 1000 for one in rtt],
        "min_rtt_ms": [None if one == _NO_RTT_YET else one / 1000 for one in least],
        "cwnd": window, "retransmits": resent, "acked_bytes": acked, "sent_bytes": sent,
    }  # fmt: skip
    return json.dumps(told, separators=(",", ":")) + "\n"


@dataclass(frozen=True, slots=True)
class SocketSeries:
    """One sending socket over S samples: `kind` is collective or load, `t` CLOCK_MONOTONIC, `cwnd` in segments.

    `rtt_ms` is the kernel's smoothed one, NaN before it has any; the last three are totals, that of the sent ones with what was sent again.
    """

    kind: str
    ends: Endpoints
    t: Floats
    rtt_ms: Floats
    min_rtt_ms: Floats
    cwnd: Ints
    retransmits: Ints
    acked_bytes: Ints
    sent_bytes: Ints


def read_sockets(path: Path) -> list[SocketSeries]:
    """The series of a `sockets.jsonl`, none when there is no such file: it is younger than other records. RunError for another file."""
    if not path.is_file():
        return []
    try:
        return [_series(json.loads(line)) for line in path.read_text().splitlines()]
    except (KeyError, TypeError, ValueError) as err:
        raise RunError(f"{path}: is not what the traffic writes: {type(err).__name__}: {err}") from err


def _series(line: Mapping[str, Any]) -> SocketSeries:
    rtt = np.array(line["rtt_ms"], np.float64)
    ends = Endpoints(*(line[name] for name in ("src_ip", "src_port", "dst_ip", "dst_port")))
    return SocketSeries(
        line["kind"], ends, np.array(line["t"], np.float64), np.where(rtt > 0, rtt, np.nan), np.array(line["min_rtt_ms"], np.float64),
        *(np.array(line[name], np.int64) for name in ("cwnd", "retransmits", "acked_bytes", "sent_bytes")),
    )  # fmt: skip


def rtt_percentiles_ms(series: Iterable[SocketSeries], window: tuple[float, float], shares: tuple[float, ...] = (50, 95)) -> list[float] | None:
    """Percentiles of the smoothed round trip over all sockets' samples in a window; None when there is none to count.

    A sample counts when something had been acknowledged since the one before: else it only repeats what was.
    """
    found = [
        one.rtt_ms[1:][(one.t[1:] >= window[0]) & (one.t[1:] <= window[1]) & (np.diff(one.acked_bytes) > 0) & np.isfinite(one.rtt_ms[1:])]
        for one in series
    ]
    every = np.concatenate(found) if found else np.empty(0)
    return [float(value) for value in np.percentile(every, shares)] if len(every) else None
