"""Packets that the kernel holds back until we say so: one NFQUEUE over raw netlink, and the rule that fills it.

Only a packet's number and its time of arrival come here; the packet itself stays in the kernel. Layout as in
linux/netfilter/nfnetlink_queue.h. The rule is iptables', which names the target on every kernel that has it.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator

from fabric.errors import MachineError

__all__ = ["QUEUE", "PacketQueue", "queue_what_comes_in", "stamp_arrivals"]

QUEUE = 0  # the number of the queue; namespaces have their own
_TOOLS = ("iptables-legacy", "iptables-nft", "iptables")
_NETLINK_NETFILTER = 12
_SUBSYSTEM = 3 << 8  # NFNL_SUBSYS_QUEUE
_PACKET, _VERDICT, _CONFIG, _VERDICT_BATCH = (_SUBSYSTEM | kind for kind in range(4))
_CFG_COMMAND, _CFG_PARAMETERS, _CFG_LENGTH = 1, 2, 3
_VERDICT_HEADER = 2
_COMMAND_BIND, _COPY_META = 1, 1
_DROP, _ACCEPT = 0, 1
_REQUEST, _ACK = 1, 4
_NLMSG_ERROR = 2
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS, _SOL_NETLINK, _NO_ENOBUFS = 33, 35, 270, 5
_RECEIVE_BUFFER = 16 << 20  # messages that were not read yet, a kilobyte each as the kernel counts
_LONGEST = 1 << 18  # packets that may wait
_BATCH, _ROOM = 64, 512  # messages a call, and bytes for each: one without payload has some 120
_HEADER = struct.Struct("=IHHII")
_FIRST = struct.Struct("!I")  # the packet's number, first in the first attribute
_NUMBER_AT = 24
_STAMP = struct.Struct("!QQ")
_STAMP_KIND, _STAMP_BYTES = 4, 20
_ANSWER_S = 2.0
_libc = ctypes.CDLL(None, use_errno=True)


class _Span(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("nbytes", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """A struct mmsghdr, with the padding after its two last numbers counted to them."""

    _fields_ = [
        ("name", ctypes.c_void_p), ("name_bytes", ctypes.c_uint32), ("spans", ctypes.c_void_p), ("span_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_bytes", ctypes.c_size_t), ("flags", ctypes.c_size_t), ("nbytes", ctypes.c_size_t),
    ]  # fmt: skip


class PacketQueue:
    """The queue of this thread's network namespace, bound until it is closed; it can be used from any namespace then.

    MachineError when the kernel has no such queue, or somebody else has bound it.
    """

    def __init__(self) -> None:
        self._socket = _bound()
        self._waits = open("/proc/thread-self/net/netfilter/nfnetlink_queue", "rb", buffering=0)  # noqa: SIM115
        self._room = ctypes.create_string_buffer(_BATCH * _ROOM)
        first = ctypes.addressof(self._room)
        self._spans = (_Span * _BATCH)(*(_Span(first + at * _ROOM, _ROOM) for at in range(_BATCH)))
        spans = ctypes.addressof(self._spans)
        self._messages = (_Message * _BATCH)(*(_Message(spans=spans + at * ctypes.sizeof(_Span), span_count=1) for at in range(_BATCH)))
        self._view = memoryview(self._room).cast("B")
        self._receive = (self._socket.fileno(), ctypes.byref(self._messages), _BATCH, socket.MSG_DONTWAIT, None)
        self._stamp_at = 0

    def __enter__(self) -> PacketQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._waits.close()

    def fileno(self) -> int:
        """For epoll: readable when packets have come."""
        return self._socket.fileno()

    def read(self) -> Iterator[tuple[int, int]]:
        """The number of each packet that has come, and when, in nanoseconds of CLOCK_REALTIME; 0 where it bears no time."""
        room = self._view
        while True:
            count = _libc.recvmmsg(*self._receive)
            for at in range(0, max(0, count) * _ROOM, _ROOM):
                if _kind(room, at) == _PACKET:
                    yield _FIRST.unpack_from(room, at + _NUMBER_AT)[0], self._stamp(at)
            if count < _BATCH:
                return

    def _stamp(self, at: int) -> int:
        """The time attribute of the message at an offset; it stands where it stood in the last one."""
        found = self._stamp_at
        if not found or self._view[at + found : at + found + 4] != _STAMP_HEADER:
            found = self._stamp_at = self._find_stamp(at)
            if not found:
                return 0
        seconds, micros = _STAMP.unpack_from(self._view, at + found + 4)
        return int(seconds * 1_000_000_000 + micros * 1000)

    def _find_stamp(self, at: int) -> int:
        end, offset = _HEADER.unpack_from(self._view, at)[0], 20
        while offset + 4 <= end:
            nbytes, kind = struct.unpack_from("=HH", self._view, at + offset)
            if kind == _STAMP_KIND and nbytes == _STAMP_BYTES:
                return offset
            offset += (max(4, nbytes) + 3) & ~3
        return 0

    def accept(self, last: int) -> None:
        """Let all packets up to that number go on."""
        self._socket.send(_verdict(_VERDICT_BATCH, _ACCEPT, last))

    def drop(self, packet: int) -> None:
        """Lose one packet."""
        self._socket.send(_verdict(_VERDICT, _DROP, packet))

    def overrun(self) -> int:
        """How many packets the kernel dropped because the queue, or our socket's buffer, was full."""
        os.lseek(self._waits.fileno(), 0, os.SEEK_SET)
        lines = self._waits.read().decode().splitlines()
        # Columns: queue, its owner, waiting, mode, range, dropped by the queue, dropped by the socket, last number, 1.
        return sum(int(words[5]) + int(words[6]) for words in map(str.split, lines) if int(words[0]) == QUEUE)


_STAMP_HEADER = struct.pack("=HH", _STAMP_BYTES, _STAMP_KIND)


def _kind(room: memoryview, at: int) -> int:
    return room[at + 4] | room[at + 5] << 8


def _message(kind: int, attribute: int, data: bytes, flags: int = _REQUEST) -> bytes:
    padded = struct.pack("=HH", 4 + len(data), attribute) + data + bytes(-len(data) % 4)
    return _HEADER.pack(20 + len(padded), kind, flags, 0, 0) + struct.pack("!BBH", 0, 0, QUEUE) + padded


def _verdict(kind: int, verdict: int, packet: int) -> bytes:
    return _message(kind, _VERDICT_HEADER, struct.pack("!II", verdict, packet))


def _bound() -> socket.socket:
    try:
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as err:
        raise MachineError(f"this kernel has no nfnetlink: {err.strerror}") from err
    try:
        channel.bind((0, 0))
        channel.connect((0, 0))
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        channel.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)  # what it could not take is counted by the kernel
        _configure(channel, _CFG_COMMAND, struct.pack("!BBH", _COMMAND_BIND, 0, socket.AF_INET))
        _configure(channel, _CFG_PARAMETERS, struct.pack("!IB", 0, _COPY_META))
        _configure(channel, _CFG_LENGTH, struct.pack("!I", _LONGEST))
    except BaseException:
        channel.close()
        raise
    return channel


def _configure(channel: socket.socket, attribute: int, data: bytes) -> None:
    """Ask for one thing, and hear that it was granted."""
    channel.send(_message(_CONFIG, attribute, data, _REQUEST | _ACK))
    while True:  # packets may come before the answer does: they are not read, and the kernel's queue keeps them
        if not select.select([channel], [], [], _ANSWER_S)[0]:
            raise MachineError("the kernel did not answer a request for a packet queue")
        answer = channel.recv(4096)
        if struct.unpack_from("=H", answer, 4)[0] == _NLMSG_ERROR:
            if code := -struct.unpack_from("=i", answer, 16)[0]:
                raise MachineError(f"the kernel refused a packet queue: {os.strerror(code)}")
            return


def stamp_arrivals() -> socket.socket:
    """Have the kernel stamp every packet that it receives, for as long as this socket is open."""
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return asking


def queue_what_comes_in(interface: str | None = None) -> str:
    """Send everything that this thread's network namespace receives, but from itself, to the queue; gives the tool that did it.

    Or only what it receives by one `interface`. Without anyone who has bound the queue packets pass. MachineError, with the remedy, when no tool could.
    """
    which = ["-i", interface] if interface else ["!", "-i", "lo"]
    rule = ["-w", "-t", "mangle", "-A", "PREROUTING", *which, "-j", "NFQUEUE", "--queue-num", str(QUEUE), "--queue-bypass"]
    said = []
    for tool in _TOOLS:
        try:
            done = subprocess.run([tool, *rule], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return tool
        said.append(f"{tool} said: {(done.stderr.strip().splitlines() or ['nothing'])[0]}")
    if not said:
        raise MachineError("no iptables to queue packets with: install it (.ci/provision)")
    raise MachineError("; ".join(said))
