"""Queue counters of hundreds of interfaces, straight from the kernel, cheaply enough to be read 20 times a second.

Comes in: the interfaces to watch and the network namespaces they are in. Goes out: a list of numbers for each of
`FIELDS`, in the order of the interfaces, each time `QueueReader.read` is called. Raw netlink is spoken only here.

All dumps of one reading land in one buffer. The first reading walks it message by message (`learn`) and keeps the
positions of the counters; later ones check that every header is still what it was, then gather the counters at those
positions by a handful of numpy calls. Whatever differs (an interface more, a qdisc replaced) is learnt again.

Measured on 2 cores (Linux 6.18), k=4 (64 switch ports, 16 host namespaces), 20 readings a second: 0.7 ms of CPU each
after a pause, four fifths of it in the kernel; 0.25 ms back to back. 768 interfaces in one namespace: 2.6 ms.

Sources: linux/rtnetlink.h (tcmsg, TCA_*), linux/gen_stats.h (TCA_STATS_*), linux/netlink.h.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType

import numpy as np
import numpy.typing as npt

from fabric.errors import RequestError, RunError

__all__ = ["FIELDS", "Layout", "QueueReader", "Segment", "Watched", "learn"]

# What a reading holds, row by row. Tried on a veth with HTB over pfifo and over bfifo (Linux 6.18): a packet that the
# leaf drops is counted once by the leaf and once more by the root, and the root's backlog is the sum of its leaves'.
# So a queue's figures are summed over the leaves only, and what was sent is taken from the root only.
FIELDS = ("backlog_bytes", "backlog_packets", "drops", "sent_bytes", "sent_packets")

_NETLINK_ROUTE, _RTM_NEWQDISC, _RTM_GETQDISC = 0, 36, 38
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_TCA_KIND, _TCA_STATS2, _TCA_STATS_BASIC, _TCA_STATS_QUEUE, _TCA_STATS_APP = 1, 7, 1, 3, 4
_RED, _RED_MARKED = b"red\0", 12  # offset in struct tc_red_xstats, linux/pkt_sched.h
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_PARENT_ROOT = 0xFFFFFFFF
_MAJOR = 0xFFFF0000
_CLONE_NEWNET = 0x40000000

_MESSAGE = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length with this header, type
_DONE = struct.Struct("=IHHI")  # the part of a closing message that is known beforehand

_SEQUENCE = 0x66616221  # any constant: a socket has one dump at a time
_DONE_BYTES = 20
_REQUEST = _MESSAGE.pack(36, _RTM_GETQDISC, _NLM_F_REQUEST | _NLM_F_DUMP, _SEQUENCE, 0) + _TCMSG.pack(0, 0, 0, 0, 0)
_CHUNK = 32768  # the kernel never puts more of a dump into one datagram
_TIMEOUT_S = 5

Rows = list[list[int]]
Words = npt.NDArray[np.uint32]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Watched:
    """An interface to watch, in the network namespace of process `pid`; 0 is our own namespace."""

    interface: str
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """One namespace's dump inside the buffer: bytes `begin` to `end`, and the column of each watched ifindex."""

    begin: int
    end: int
    column: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Qdisc:
    """A qdisc's message: its identity, and the byte offsets of its two statistics' payloads; of RED's own as well, else 0."""

    ifindex: int
    handle: int
    parent: int
    basic: int
    queue: int
    red: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the counters are in a buffer of `size` bytes, while its headers do not change.

    `found` are the columns of the interfaces that were there, ascending: n of them, with m leaves in all. `at` are
    positions in 32-bit words, gathered at once because each numpy call costs: two of each interface's sent bytes, one
    of each word of `headers`, m of each of a leaf's three figures, one of each interface's sent packets.
    `marking` are the columns with a RED, and the positions of how many it marked.
    """

    size: int
    found: tuple[int, ...]
    at: Index
    headers: bytes
    first_leaf: Index
    marking: Mapping[int, int]

    def gather(self, words: Words, size: int) -> Rows | None:
        """The counters of the found interfaces, a list for each of `FIELDS`; None when the headers have changed."""
        if size != self.size:
            return None
        got = words.take(self.at)
        sent, headers = 2 * len(self.found), 2 * len(self.found) + len(self.headers) // 4
        if got[sent:headers].tobytes() != self.headers:
            return None
        queues = got[headers : len(got) - len(self.found)].reshape(3, -1)
        if queues.shape[1] > len(self.found):
            queues = np.add.reduceat(queues, self.first_leaf, axis=1, dtype=np.int64)
        # Two words beside each other are one 64-bit counter, in whatever byte order this machine has.
        return [*queues.tolist(), got[:sent].view(np.uint64).tolist(), got[len(got) - len(self.found) :].tolist()]


def learn(buffer: bytes | bytearray, segments: Sequence[Segment]) -> Layout:
    """The layout of a buffer of dumps; RunError when the kernel answered something else than qdiscs."""
    headers: list[int] = []
    queues: dict[int, tuple[_Qdisc, list[_Qdisc]]] = {}  # of each column: root, leaves
    for segment in segments:
        qdiscs: dict[int, list[_Qdisc]] = {}
        for at, length, kind in _messages(buffer, segment.begin, segment.end):
            headers += _header_words(at, kind)
            if kind == _RTM_NEWQDISC and _TCMSG.unpack_from(buffer, at + 16)[1] in segment.column:
                qdisc = _qdisc(buffer, at, length)
                headers += [place // 4 - 1 for place in (qdisc.basic, qdisc.queue, qdisc.red) if place]
                qdiscs.setdefault(segment.column[qdisc.ifindex], []).append(qdisc)
        for column, those in qdiscs.items():
            for root in [qdisc for qdisc in those if qdisc.parent == _PARENT_ROOT][:1]:
                queues[column] = root, _leaves(root, those)
    return _layout(buffer, segments[-1].end if segments else 0, headers, dict(sorted(queues.items())))


def _layout(
    buffer: bytes | bytearray, size: int, headers: list[int], queues: Mapping[int, tuple[_Qdisc, list[_Qdisc]]]
) -> Layout:
    # struct gnet_stats_basic: bytes (64 bits), packets (32 bits: they wrap after 4 thousand million)
    roots = [root.basic // 4 for root, _ in queues.values()]
    # struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits; here in the order of FIELDS
    leaves = [leaf.queue // 4 for _, leaves in queues.values() for leaf in leaves]
    sent_bytes, sent_packets = [word for at in roots for word in (at, at + 1)], [at + 2 for at in roots]
    figures = [at + field for field in (1, 0, 2) for at in leaves]
    return Layout(
        size=size,
        found=tuple(queues),
        at=_index([*sent_bytes, *headers, *figures, *sent_packets]),
        headers=np.frombuffer(buffer, np.uint32, size // 4).take(_index(headers)).tobytes(),
        first_leaf=_index([0, *accumulate(len(leaves) for _, leaves in queues.values())][:-1]),
        marking={column: (leaf.red + _RED_MARKED) // 4 for column, (_, leaves) in queues.items() for leaf in leaves if leaf.red},
    )


def _index(values: list[int]) -> Index:
    return np.array(values, np.intp)


def _leaves(root: _Qdisc, qdiscs: Sequence[_Qdisc]) -> list[_Qdisc]:
    """The qdiscs in the root's classes, one a priority class; a root without classes is its own leaf.

    What hangs below one of them is not counted again: a qdisc's queue includes that of its inner ones.
    """
    below = [qdisc for qdisc in qdiscs if qdisc.parent & _MAJOR == root.handle and qdisc.parent != _PARENT_ROOT]
    return below or [root]


def _header_words(at: int, kind: int) -> list[int]:
    """The words that say what a message is: length, type and flags; of a qdisc also ifindex, handle and parent."""
    word = at // 4
    return [word, word + 1] + ([word + 5, word + 6, word + 7] if kind == _RTM_NEWQDISC else [])


def _messages(buffer: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Offset, length and type of each message between two offsets."""
    while at < end:
        length, kind, *_ = _MESSAGE.unpack_from(buffer, at)
        if kind not in (_RTM_NEWQDISC, _NLMSG_DONE) or length < 16:
            raise RunError(f"netlink: got a message of type {kind}, {length} bytes, in a list of qdiscs")
        yield at, length, kind
        at += length + 3 & ~3


def _attributes(buffer: bytes | bytearray, at: int, end: int) -> dict[int, tuple[int, int]]:
    """Offset and length of each attribute's payload, by type."""
    found: dict[int, tuple[int, int]] = {}
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(buffer, at)
        found[kind & _TYPE_MASK] = at + 4, length - 4
        at += max(length + 3 & ~3, 4)
    return found


def _qdisc(buffer: bytes | bytearray, at: int, length: int) -> _Qdisc:
    _, ifindex, handle, parent, _ = _TCMSG.unpack_from(buffer, at + 16)
    attributes = _attributes(buffer, at + 36, at + length)
    begin, size = attributes.get(_TCA_STATS2, (0, 0))
    stats = _attributes(buffer, begin, begin + size)
    if _TCA_STATS_BASIC not in stats or _TCA_STATS_QUEUE not in stats:
        raise RunError(f"netlink: qdisc {handle >> 16:x}: of ifindex {ifindex} came without statistics")
    name, letters = attributes.get(_TCA_KIND, (0, 0))
    red = stats.get(_TCA_STATS_APP, (0, 0))[0] if buffer[name : name + letters] == _RED else 0
    return _Qdisc(ifindex, handle, parent, stats[_TCA_STATS_BASIC][0], stats[_TCA_STATS_QUEUE][0], red)


class QueueReader:
    """Reads the queues of the watched interfaces; a context manager that holds one netlink socket a namespace.

    A socket keeps its namespace alive: close the reader before the network is taken down.
    """

    def __init__(self, watched: Sequence[Watched]) -> None:
        """Open the sockets and resolve the names; RequestError names an interface or process that is not there."""
        self.watched = tuple(watched)
        self._rows: Rows = [[0] * len(self.watched) for _ in FIELDS]
        self._layout: Layout | None = None
        self._marked = [0] * len(self.watched)
        self._resize(4 * _CHUNK)
        columns: dict[int, list[int]] = {}
        for column, one in enumerate(self.watched):
            columns.setdefault(one.pid, []).append(column)
        self._sources: list[tuple[socket.socket, dict[int, int]]] = []
        with ExitStack() as undo:
            undo.callback(self.close)
            for pid, those in columns.items():
                self._sources.append(_source(pid, {self.watched[column].interface: column for column in those}))
            undo.pop_all()

    def __enter__(self) -> QueueReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        for source, _ in self._sources:
            source.close()

    def read(self) -> Rows:
        """The counters now: a list for each of `FIELDS`. An interface that is gone keeps its totals, its queue is 0."""
        segments = self._receive_all()
        size = segments[-1].end if segments else 0
        rows = self._layout.gather(self._words, size) if self._layout else None
        if rows is None:
            self._layout = learn(self._buffer, segments)
            rows = self._layout.gather(self._words, size)
            assert rows is not None  # a layout fits what it was learnt from
        self._rows = self._filled(rows, self._layout.found) if self._layout and self.gone else rows
        return self._rows

    def marked(self) -> list[int]:
        """Packets that RED had marked at the last reading, by watched interface; 0 where there is none."""
        for column, word in (self._layout.marking if self._layout else {}).items():
            self._marked[column] = int(self._words[word])
        return list(self._marked)

    def _filled(self, rows: Rows, found: tuple[int, ...]) -> Rows:
        """The rows of the found columns, widened to all of them."""
        blank = [0] * len(self.watched)
        full = [list(last) for last in (blank, blank, *self._rows[2:])]
        for filled, row in zip(full, rows, strict=True):
            for column, value in zip(found, row, strict=True):
                filled[column] = value
        return full

    @property
    def gone(self) -> tuple[str, ...]:
        """The watched interfaces that the last reading did not find."""
        if self._layout is None or len(self._layout.found) == len(self.watched):
            return ()
        found = set(self._layout.found)
        return tuple(one.interface for column, one in enumerate(self.watched) if column not in found)

    def _receive_all(self) -> list[Segment]:
        # The kernel writes the first datagram of a dump while it takes the request: asking everyone first puts the
        # readings as close together as they can be.
        for source, _ in self._sources:
            source.send(_REQUEST)
        segments: list[Segment] = []
        at = 0
        for source, column in self._sources:
            end = self._receive(source, at)
            segments.append(Segment(at, end, column))
            at = end
        return segments

    def _receive(self, source: socket.socket, at: int) -> int:
        """One dump, to the buffer from offset `at`; returns where it ends."""
        while True:
            if len(self._buffer) - at < _CHUNK:
                self._resize(2 * len(self._buffer))
            size = _receive_chunk(source, self._view[at:])
            if size > _CHUNK or size % 4:
                raise RunError(f"netlink: got a datagram of {size} bytes; expected at most {_CHUNK}, in words of 4")
            if _MESSAGE.unpack_from(self._buffer, at)[1] == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", self._buffer, at + 16)[0]
                raise RunError(f"netlink: the kernel refused to list qdiscs: {os.strerror(code)}")
            at += size
            length, kind, _, sequence = _DONE.unpack_from(self._buffer, at - _DONE_BYTES)
            if (length, kind, sequence) == (_DONE_BYTES, _NLMSG_DONE, _SEQUENCE):
                return at

    def _resize(self, nbytes: int) -> None:
        old = bytes(getattr(self, "_buffer", b""))
        self._buffer = bytearray(nbytes)
        self._buffer[: len(old)] = old
        self._view = memoryview(self._buffer)
        self._words: Words = np.frombuffer(self._buffer, np.uint32)


def _receive_chunk(source: socket.socket, room: memoryview) -> int:
    try:
        return source.recv_into(room, _CHUNK, socket.MSG_TRUNC)  # the whole size, even if it was cut
    except BlockingIOError as err:
        raise RunError(f"netlink: a list of qdiscs was not finished within {_TIMEOUT_S} s") from err


def _source(pid: int, column_by_name: Mapping[str, int]) -> tuple[socket.socket, dict[int, int]]:
    """A netlink socket in the namespace of `pid`, and the column of each ifindex there."""
    with _namespace(pid):
        column = {_ifindex(name, pid): column for name, column in column_by_name.items()}
        source = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        # A dump is answered at once; the limit only keeps a kernel that never closes one from hanging us. It is the
        # kernel's own time-out, because Python's costs a poll before each call.
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))
        return source, column


def _ifindex(interface: str, pid: int) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as err:
        where = f"of process {pid}" if pid else "of the sampler"
        raise RequestError(f"sampler.json: no interface {interface} in the namespace {where}; build it first") from err


@contextmanager
def _namespace(pid: int) -> Iterator[None]:
    """This thread inside the network namespace of `pid`, and back again; 0 stays where we are."""
    if not pid:
        yield
        return
    with ExitStack() as stack:
        home = _open("/proc/thread-self/ns/net", pid)
        stack.callback(os.close, home)
        there = _open(f"/proc/{pid}/ns/net", pid)
        stack.callback(os.close, there)
        _setns(there, pid)
        try:
            yield
        finally:
            _setns(home, pid)


def _open(path: str, pid: int) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        raise RequestError(f"sampler.json: pid {pid}: {path}: {err.strerror}; name a process that runs") from err


def _setns(namespace: int, pid: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        reason = os.strerror(ctypes.get_errno())
        raise RunError(f"cannot enter the network namespace of process {pid}: {reason}; the sampler needs root")
