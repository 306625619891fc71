"""The probes' process, `python -m fabric.prober`: small UDP packets at a fixed rhythm, and which of them arrived.

Its folder is in FABRIC_RUN: `prober.json` comes in, with the period, the latest end and for each probe its two hosts'
process ids and its endpoints; after a SIGHUP it is read again, for probes added at its end and for those `stopped`. Goes
out: `ready` with the first packets, and when it is told to end `probes.npz` (by probe `sent_0`, `arrived_0`:
CLOCK_MONOTONIC in nanoseconds, -1 for one that never came) and `report.json` (its own CPU and lateness, and packets that
a full receive buffer dropped).

One process serves all: a socket belongs to the namespace that it was made in, whoever uses it.
"""

from __future__ import annotations

import array
import errno
import json
import os
import signal
import socket
import struct
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabric.datagrams import arrivals, receiver_in, socket_in, turns
from fabric.kernel import die_with_parent
from fabric.polling import until

__all__ = ["PAYLOAD_BYTES", "Line", "main", "take_the_last"]

PAYLOAD_BYTES = 16
_HEAD = struct.Struct("!IQ")  # sequence number, time of sending
_PADDING = bytes(PAYLOAD_BYTES - _HEAD.size)
_TURNS_A_LOOK = 10  # the kernel stamps what arrives: looking more often would only cost
_LAST_WAIT_S = 0.3  # what was sent longer ago is lost


@dataclass
class Line:
    """One probe: its two sockets, and by sequence number when each packet was sent and arrived (ns, -1 for not)."""

    sender: socket.socket
    receiver: socket.socket
    sent: array.array[int] = field(default_factory=lambda: array.array("q"))
    arrived: array.array[int] = field(default_factory=lambda: array.array("q"))
    overflows: int = 0
    stopped: bool = False

    def send(self) -> None:
        """Send the next packet; one that the host refuses at once counts as sent, and as lost."""
        if self.stopped:
            return
        now = time.monotonic_ns()
        try:
            self.sender.send(_HEAD.pack(len(self.sent), now) + _PADDING)
        except OSError as err:
            if err.errno in (errno.EAGAIN, errno.EINTR):
                return
        self.sent.append(now)
        self.arrived.append(-1)

    def take(self) -> None:
        """Note all that has come, at the times the kernel gave it."""
        for arrival in arrivals(self.receiver, PAYLOAD_BYTES):
            number, _ = _HEAD.unpack_from(arrival.data)
            self.arrived[number] = arrival.at_ns
            self.overflows = self.overflows if arrival.overflows is None else arrival.overflows

    def awaits(self, since_ns: int) -> bool:
        """Whether a packet that was sent since then has not come."""
        return -1 in self.arrived[bisect_left(self.sent, since_ns) :]


def main() -> int:
    """Probe until told to end."""
    die_with_parent()
    folder = Path(os.environ["FABRIC_RUN"])
    plan = json.loads((folder / "prober.json").read_text())
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    lines = [_line(probe) for probe in plan["probes"]]
    signal.signal(signal.SIGHUP, lambda *_: _change(lines, folder))
    begin, used = time.monotonic(), time.process_time()
    late_ms = _probe(lines, plan, told, folder / "ready")
    seconds, used_s = time.monotonic() - begin, time.process_time() - used
    take_the_last(lines)
    _record(lines, folder, late_ms, used_s / max(seconds, 1e-9))
    return 0


def take_the_last(lines: Iterable[Line]) -> None:
    """Take what is still on its way when nothing more is sent."""
    until(lambda: _none_awaited(lines), _LAST_WAIT_S)


def _none_awaited(lines: Iterable[Line]) -> bool:
    for line in lines:
        line.take()
    since_ns = time.monotonic_ns() - round(_LAST_WAIT_S * 1e9)
    return not any(line.awaits(since_ns) for line in lines)


def _probe(lines: list[Line], plan: Mapping[str, Any], told: list[int], ready: Path) -> array.array[float]:
    """Send and take until told to end or `plan["until"]`; the lateness of each turn in ms."""
    late_ms = array.array("d")
    for turn, late in enumerate(turns(plan["period_ms"], plan["until"], told)):
        late_ms.append(late)
        for line in lines:
            line.send()
        if turn % _TURNS_A_LOOK == 0:
            for line in lines:
                line.take()
        if turn == 0:
            ready.touch()
    return late_ms


def _change(lines: list[Line], folder: Path) -> None:
    """Take up what was added to the plan, and leave off what was stopped."""
    probes = json.loads((folder / "prober.json").read_text())["probes"]
    for line, probe in zip(lines, probes, strict=False):
        line.stopped = probe["stopped"]
    lines += [_line(probe) for probe in probes[len(lines) :]]


def _line(probe: Mapping[str, Any]) -> Line:
    ends = probe["endpoints"]
    receiver = receiver_in(probe["dst_pid"], ends["dst_ip"], ends["dst_port"])
    sender = socket_in(probe["src_pid"], ends["src_ip"], ends["src_port"])
    sender.connect((ends["dst_ip"], ends["dst_port"]))
    return Line(sender, receiver)


def _record(lines: list[Line], folder: Path, late_ms: array.array[float], core_share: float) -> None:
    times = {
        f"{name}_{number}": np.array(getattr(line, name), np.int64)
        for number, line in enumerate(lines)
        for name in ("sent", "arrived")
    }
    np.savez_compressed(folder / "probes.npz", **times)  # type: ignore[arg-type]
    late = np.array(late_ms) if late_ms else np.zeros(1)
    report = {
        "core_share": round(core_share, 4), "late_ms_p99": round(float(np.percentile(late, 99)), 3),
        "late_ms_max": round(float(late.max()), 3), "overflows": [line.overflows for line in lines],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    sys.exit(main())
