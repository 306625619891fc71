"""The scouts' process, `python -m fabric.scout`: in-band probes at a fixed rhythm between pairs of hosts, and what they came back with.

Its folder is in FABRIC_RUN: `scout.json` comes in, with the period, the latest end, and for each pair its hosts' process ids and its
endpoints. Goes out: `ready` with the first packets; `inband.jsonl`, a line for each probe that arrived (`pair`, `number`, `sent` and
`arrived` in seconds of CLOCK_MONOTONIC, `without`, and by hop `[port, packets, bytes, kb/s, seconds, bytes sent]`); and when it
is told to end `report.json` (probes sent by pair, its own CPU and lateness, and packets that a full receive buffer dropped).

One process serves all: a socket belongs to the namespace that it was made in, whoever uses it.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fabric.datagrams import arrivals, receiver_in, socket_in, turns
from fabric.kernel import die_with_parent
from fabric.polling import until
from fabric.stamps import PAYLOAD_BYTES, Stamped, blank, parse

__all__ = ["Scout", "main", "take_the_last"]

_SO_NO_CHECK = 11  # asm-generic/socket.h
_LOOK_S = 0.1  # the kernel stamps what arrives: looking more often would only cost
_LAST_WAIT_S = 0.3  # what was sent longer ago is lost


@dataclass
class Scout:
    """One pair: its two sockets, how many probes were sent, when those that have not come were (ns, by number), and how many a full buffer dropped."""

    pair: int
    sender: socket.socket
    receiver: socket.socket
    sent: int = 0
    missing: dict[int, int] = field(default_factory=dict)
    overflows: int = 0

    def send(self) -> None:
        """Send the next probe; one that the host refuses at once counts as sent, and as lost."""
        now = time.monotonic_ns()
        with contextlib.suppress(OSError):
            self.sender.send(blank(self.sent, now))
        self.missing[self.sent] = now
        self.sent += 1

    def take(self, file: IO[str]) -> None:
        """Write down all that has come, at the times the kernel gave it."""
        for arrival in arrivals(self.receiver, PAYLOAD_BYTES):
            self.overflows = self.overflows if arrival.overflows is None else arrival.overflows
            if probe := parse(arrival.data):
                self.missing.pop(probe.number, None)
                file.write(_line(self.pair, probe, arrival.at_ns))

    def awaits(self, since_ns: int) -> bool:
        """Whether a probe that was sent since then has not come."""
        return next(reversed(self.missing.values()), since_ns) > since_ns


def main() -> int:
    """Send and receive until told to end."""
    die_with_parent()
    folder = Path(os.environ["FABRIC_RUN"])
    plan = json.loads((folder / "scout.json").read_text())
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    scouts = [_scout(number, pair) for number, pair in enumerate(plan["pairs"])]
    begin, used = time.monotonic(), time.process_time()
    with open(folder / "inband.jsonl", "w", buffering=1 << 16) as file:
        late_ms = _send_and_take(scouts, plan, told, file, folder / "ready")
        seconds, used_s = time.monotonic() - begin, time.process_time() - used
        take_the_last(scouts, file)
    late = sorted(late_ms) or [0.0]
    report = {
        "core_share": round(used_s / max(seconds, 1e-9), 4), "late_ms_p99": round(late[int(0.99 * (len(late) - 1))], 3),
        "late_ms_max": round(late[-1], 3), "sent": [scout.sent for scout in scouts], "overflows": [scout.overflows for scout in scouts],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report) + "\n")
    return 0


def take_the_last(scouts: Iterable[Scout], file: IO[str]) -> None:
    """Write down what is still on its way when nothing more is sent."""
    until(lambda: _none_awaited(scouts, file), _LAST_WAIT_S)


def _none_awaited(scouts: Iterable[Scout], file: IO[str]) -> bool:
    for scout in scouts:
        scout.take(file)
    since_ns = time.monotonic_ns() - round(_LAST_WAIT_S * 1e9)
    return not any(scout.awaits(since_ns) for scout in scouts)


def _send_and_take(
    scouts: list[Scout], plan: Mapping[str, Any], told: list[int], file: IO[str], ready: Path
) -> array.array[float]:
    """Until told to end or `plan["until"]`; the lateness of each turn in ms."""
    late_ms, look = array.array("d"), 0.0
    for late in turns(plan["period_ms"], plan["until"], told):
        late_ms.append(late)
        for scout in scouts:
            scout.send()
        if (now := time.monotonic()) >= look:
            look = now + _LOOK_S
            for scout in scouts:
                scout.take(file)
        if len(late_ms) == 1:
            ready.touch()
    return late_ms


def _line(pair: int, probe: Stamped, arrived_ns: int) -> str:
    """A probe as a line."""
    hops = [[one.port, one.queue_packets, one.queue_bytes, one.kbps, one.ns / 1e9, one.sent_bytes] for one in probe.stamps]
    told = {"pair": pair, "number": probe.number, "sent": probe.sent_ns / 1e9, "arrived": arrived_ns / 1e9, "without": probe.without, "hops": hops}
    return json.dumps(told) + "\n"


def _scout(number: int, pair: Mapping[str, Any]) -> Scout:
    ends = pair["endpoints"]
    receiver = receiver_in(pair["dst_pid"], ends["dst_ip"], ends["dst_port"])
    sender = socket_in(pair["src_pid"], ends["src_ip"], ends["src_port"])
    # All pairs share a port: a receiver is told apart by whom it is connected to.
    receiver.connect((ends["src_ip"], ends["src_port"]))
    sender.connect((ends["dst_ip"], ends["dst_port"]))
    sender.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)  # stamps would make any checksum wrong
    return Scout(number, sender, receiver)


if __name__ == "__main__":
    sys.exit(main())
