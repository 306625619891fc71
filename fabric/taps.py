"""Packets as they pass interfaces: a raw socket with a filter in the kernel, and what it missed.

Comes in: an interface, or all of a namespace. Goes out: packets with the time, the interface, and whether they left by it or came in.
"""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

__all__ = ["Seen", "Tap", "holding"]

_ETH_P_ALL = 0x0003  # linux/if_ether.h
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 26, 35  # asm-generic/socket.h
_SO_RCVBUFFORCE = 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/if_packet.h
_OUTGOING = 4  # PACKET_OUTGOING
_BUFFER = 16 << 20
_LARGEST = 65_535
_Instruction = tuple[int, int, int, int]
_LOAD_WORD, _LOAD_BYTE, _EQUAL, _RETURN = 0x20, 0x30, 0x15, 0x06  # linux/bpf_common.h, classic BPF


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet: `t` in seconds of CLOCK_REALTIME, as the kernel stamped it."""

    t: float
    interface: str
    left: bool
    data: bytes


def holding(offset: int, word: int) -> list[_Instruction]:
    """A filter of packets that have this 32-bit word at an offset from their Ethernet header."""
    return [(_LOAD_WORD, 0, 0, offset), (_EQUAL, 0, 1, word), (_RETURN, 0, 0, 0x40000), (_RETURN, 0, 0, 0)]


class Tap:
    """What passes one interface, or all of this thread's namespace, from now on."""

    def __init__(self, interface: str | None = None, program: Sequence[_Instruction] = ()) -> None:
        # With protocol 0 nothing comes before filter and interface are in force; of all interfaces there is no name to begin with.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0 if interface else socket.htons(_ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if program:
            self._attach(program)
        if interface:
            self.socket.bind((interface, _ETH_P_ALL))
        while select.select([self.socket], [], [], 0)[0]:  # what came before the filter
            self.socket.recv(1)

    def _attach(self, program: Sequence[_Instruction]) -> None:
        words = b"".join(struct.pack("HBBI", *one) for one in program)
        text = ctypes.create_string_buffer(words, len(words))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(text)))

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def until(self, end: float) -> Iterator[Seen]:
        """The packets that come before a moment (CLOCK_MONOTONIC)."""
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.socket], [], [], left)[0]:
                return
            data, notes, _, address = self.socket.recvmsg(_LARGEST, 64)
            yield Seen(_stamped(notes), address[0], address[2] == _OUTGOING, data)

    def missed(self) -> int:
        """How many packets found no room since this was last asked."""
        return int(struct.unpack("II", self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1])


def _stamped(notes: Sequence[tuple[int, int, bytes]]) -> float:
    for level, kind, data in notes:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("ll", data[:16])
            return float(seconds + nanoseconds / 1e9)
    return time.time()
