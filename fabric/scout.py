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
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fabric.kernel import die_with_parent, inside_namespace, namespace_of
from fabric.stamps import PAYLOAD_BYTES, blank, parse

__all__ = ["Scout", "main"]

_TIMESPEC = struct.Struct("@qq")
_SO_NO_CHECK, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS, _SO_RXQ_OVFL = 11, 33, 35, 40  # asm-generic/socket.h
_RECEIVE_BUFFER = 4 << 20
_LOOK_S = 0.1  # the kernel stamps what arrives: looking more often would only cost
_LAST_WAIT_S = 0.3


@dataclass
class Scout:
    """One pair: its two sockets, how many probes were sent, and how many a full buffer dropped."""

    pair: int
    sender: socket.socket
    receiver: socket.socket
    sent: int = 0
    overflows: int = 0

    def send(self) -> None:
        """Send the next probe; one that the host refuses at once counts as sent, and as lost."""
        with contextlib.suppress(OSError):
            self.sender.send(blank(self.sent, time.monotonic_ns()))
        self.sent += 1

    def take(self, file: IO[str]) -> None:
        """Write down all that has come, at the times the kernel gave it."""
        ahead = time.time_ns() - time.monotonic_ns()
        while True:
            try:
                data, notes, _, _ = self.receiver.recvmsg(PAYLOAD_BYTES, 128)
            except BlockingIOError:
                return
            arrived = time.monotonic_ns()
            for _, kind, value in notes:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                    arrived = seconds * 1_000_000_000 + nanoseconds - ahead
                elif kind == _SO_RXQ_OVFL:
                    (self.overflows,) = struct.unpack_from("=I", value)
            if line := _line(self.pair, data, arrived):
                file.write(line)


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
        time.sleep(_LAST_WAIT_S)
        for scout in scouts:
            scout.take(file)
    late = sorted(late_ms) or [0.0]
    report = {
        "core_share": round(used_s / max(seconds, 1e-9), 4), "late_ms_p99": round(late[int(0.99 * (len(late) - 1))], 3),
        "late_ms_max": round(late[-1], 3), "sent": [scout.sent for scout in scouts], "overflows": [scout.overflows for scout in scouts],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report) + "\n")
    return 0


def _send_and_take(
    scouts: list[Scout], plan: Mapping[str, Any], told: list[int], file: IO[str], ready: Path
) -> array.array[float]:
    """Until told to end or `plan["until"]`; the lateness of each turn in ms."""
    period, until = round(plan["period_ms"] * 1e6), round(plan["until"] * 1e9)
    late_ms, look = array.array("d"), 0.0
    due = time.monotonic_ns()
    while not told and (now := time.monotonic_ns()) < until:
        if now < due:
            time.sleep((due - now) / 1e9)
            continue
        late_ms.append((now - due) / 1e6)
        for scout in scouts:
            scout.send()
        if now / 1e9 >= look:
            look = now / 1e9 + _LOOK_S
            for scout in scouts:
                scout.take(file)
        if len(late_ms) == 1:
            ready.touch()
        # Due times stay on the grid of the first one; those that were missed are left out, not caught up in a burst.
        due += period * max(1, (time.monotonic_ns() - due) // period)
    return late_ms


def _line(pair: int, data: bytes, arrived_ns: int) -> str | None:
    """A probe as a line; None of what is none."""
    probe = parse(data)
    if probe is None:
        return None
    hops = [[one.port, one.queue_packets, one.queue_bytes, one.kbps, one.ns / 1e9, one.sent_bytes] for one in probe.stamps]
    told = {"pair": pair, "number": probe.number, "sent": probe.sent_ns / 1e9, "arrived": arrived_ns / 1e9, "without": probe.without, "hops": hops}
    return json.dumps(told) + "\n"


def _scout(number: int, pair: Mapping[str, Any]) -> Scout:
    ends = pair["endpoints"]
    receiver = _socket(pair["dst_pid"], ends["dst_ip"], ends["dst_port"])
    sender = _socket(pair["src_pid"], ends["src_ip"], ends["src_port"])
    # All pairs share a port: a receiver is told apart by whom it is connected to.
    receiver.connect((ends["src_ip"], ends["src_port"]))
    sender.connect((ends["dst_ip"], ends["dst_port"]))
    sender.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)  # stamps would make any checksum wrong
    receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    receiver.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    return Scout(number, sender, receiver)


def _socket(pid: int, ip: str, port: int) -> socket.socket:
    namespace = namespace_of(pid)
    try:
        with inside_namespace(namespace):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((ip, port))
            made.setblocking(False)
            return made
    finally:
        os.close(namespace)


if __name__ == "__main__":
    sys.exit(main())
