"""The wire format of in-band telemetry: what a probe carries, and what every port that it left by wrote into it.

Comes in: bytes of a UDP payload. Goes out: frozen values, and back. fabric/bpf/stamp.bpf.c writes the stamps, `fabric.scout` sends and
receives the probes, `fabric.inband` shows them to scapy. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["FRAME_BYTES", "MAGIC", "MOST_HOPS", "PAYLOAD_BYTES", "PROBES", "STAMP", "Stamp", "Stamped", "blank", "parse"]

PROBES = 9999  # the UDP port that the program looks for
MAGIC = 0x494E4231  # INB1
MOST_HOPS = 8
HEAD = struct.Struct("!IBBHQQ")  # magic, hops written, room, hops without room, number, time of sending
STAMP = struct.Struct("!IIIIQQ")  # port, packets, bytes, kb/s, time, bytes sent
PAYLOAD_BYTES = HEAD.size + MOST_HOPS * STAMP.size
FRAME_BYTES = 14 + 20 + 8 + PAYLOAD_BYTES


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a probe found at a port before it joined its queue: the port's number, packets and bytes waiting, the link's rate in kb/s.

    `ns` is CLOCK_MONOTONIC, `sent_bytes` what the queue has sent since it was made.
    """

    port: int
    queue_packets: int
    queue_bytes: int
    kbps: int
    ns: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Stamped:
    """A probe: its number, when it was sent (CLOCK_MONOTONIC, ns), its stamps in order, and hops that found no room."""

    number: int
    sent_ns: int
    stamps: tuple[Stamp, ...]
    without: int = 0

    def packed(self) -> bytes:
        """Its payload, always of the same size; ValueError with more stamps than there is room for."""
        if len(self.stamps) > MOST_HOPS:
            raise ValueError(f"a probe of {len(self.stamps)} stamps; there is room for {MOST_HOPS}")
        head = HEAD.pack(MAGIC, len(self.stamps), MOST_HOPS, self.without, self.number, self.sent_ns)
        return (head + b"".join(_packed(self.stamps))).ljust(PAYLOAD_BYTES, b"\0")


def blank(number: int, sent_ns: int) -> bytes:
    """The payload of a probe that nobody has stamped yet."""
    return Stamped(number, sent_ns, ()).packed()


def parse(payload: bytes) -> Stamped | None:
    """The probe in a payload; None when it is none.

    >>> parse(blank(7, 1_000))
    Stamped(number=7, sent_ns=1000, stamps=(), without=0)
    """
    if len(payload) < PAYLOAD_BYTES:
        return None
    magic, hops, _, without, number, sent_ns = HEAD.unpack_from(payload)
    if magic != MAGIC or hops > MOST_HOPS:
        return None
    stamps = (Stamp(*STAMP.unpack_from(payload, HEAD.size + hop * STAMP.size)) for hop in range(hops))
    return Stamped(number, sent_ns, tuple(stamps), without)


def _packed(stamps: Iterable[Stamp]) -> Iterable[bytes]:
    for one in stamps:
        yield STAMP.pack(one.port, one.queue_packets, one.queue_bytes, one.kbps, one.ns, one.sent_bytes)
