"""What every process that probes needs: UDP sockets inside hosts, arrivals at the kernel's own times, and a steady rhythm.

Comes in: a host's process, addresses, a period. Goes out: sockets, what came in by them, and turns.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fabric.kernel import inside_namespace, namespace_of

__all__ = ["Arrival", "arrivals", "receiver_in", "socket_in", "turns"]

_TIMESPEC = struct.Struct("@qq")
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS, _SO_RXQ_OVFL = 33, 35, 40  # asm-generic/socket.h
_RECEIVE_BUFFER = 4 << 20  # seconds of probes, so that none is lost while this process waits for a processor
_NOTES_BYTES = 128


@dataclass(frozen=True, slots=True)
class Arrival:
    """A datagram, when the kernel took it (ns of CLOCK_MONOTONIC), and how many a full buffer had dropped until then."""

    data: bytes
    at_ns: int
    overflows: int | None


def socket_in(pid: int, ip: str, port: int) -> socket.socket:
    """A UDP socket in a process' network namespace, which does not block."""
    namespace = namespace_of(pid)
    try:
        with inside_namespace(namespace):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            # A probe that takes another's place may have its source port, towards another service.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((ip, port))
            made.setblocking(False)
            return made
    finally:
        os.close(namespace)


def receiver_in(pid: int, ip: str, port: int) -> socket.socket:
    """One whose arrivals the kernel stamps, and whose buffer holds seconds of them."""
    receiver = socket_in(pid, ip, port)
    receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    receiver.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    return receiver


def arrivals(receiver: socket.socket, nbytes: int) -> Iterator[Arrival]:
    """All that has come, up to `nbytes` of each."""
    ahead = time.time_ns() - time.monotonic_ns()  # the kernel stamps by the clock on the wall
    while True:
        try:
            data, notes, _, _ = receiver.recvmsg(nbytes, _NOTES_BYTES)
        except BlockingIOError:
            return
        at_ns, overflows = time.monotonic_ns(), None
        for _, kind, value in notes:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                at_ns = seconds * 1_000_000_000 + nanoseconds - ahead
            elif kind == _SO_RXQ_OVFL:
                (overflows,) = struct.unpack_from("=I", value)
        yield Arrival(data, at_ns, overflows)


def turns(period_ms: float, until_s: float, told: Sequence[object]) -> Iterator[float]:
    """A turn every period, until something is in `told` or that time (CLOCK_MONOTONIC) has come: how late each is, in ms."""
    period, until = round(period_ms * 1e6), round(until_s * 1e9)
    due = time.monotonic_ns()
    while not told and (now := time.monotonic_ns()) < until:
        if now < due:
            time.sleep((due - now) / 1e9)
            continue
        yield (now - due) / 1e6
        # Due times stay on the grid of the first one; those that were missed are left out, not caught up in a burst.
        due += period * max(1, (time.monotonic_ns() - due) // period)
