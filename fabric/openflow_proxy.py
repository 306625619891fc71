"""A proxy between switches and their controller: watches OpenFlow 1.3 go by, cuts connections, spoils counters.

Comes in: the port the controller listens on. Goes out: an `OpenFlowProxy`, whose own port the switches connect to; all on
loopback. It lets every message pass as it is, but for counters while `spoil` is set: those become 2^64 - 1, which is
how a switch says that it does not count something (OpenFlow 1.3.5, 7.3.5).
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["CHANGES", "HEADER", "OpenFlowProxy", "Refused", "openflow_proxy", "pump", "spoilt"]

# Message types and bodies by the OpenFlow 1.3.5 specification, appendix A.
_ERROR, _FEATURES_REPLY, _FLOW_REMOVED, _MULTIPART_REQUEST, _MULTIPART_REPLY = 1, 6, 11, 18, 19
_PACKET_OUT, _TO_ALL = 13, (0xFFFFFFFB, 0xFFFFFFFC)  # OFPP_FLOOD, OFPP_ALL
CHANGES = {14: "FLOW_MOD", 15: "GROUP_MOD", 29: "METER_MOD"}
_NAMES = {0: "HELLO", 9: "SET_CONFIG", 13: "PACKET_OUT", 16: "PORT_MOD", 17: "TABLE_MOD", 18: "MULTIPART_REQUEST"} | CHANGES
HEADER = struct.Struct("!BBHI")
_UNSUPPORTED = b"\xff" * 8
_FLOW, _AGGREGATE, _TABLE, _PORT, _QUEUE, _GROUP = range(1, 7)
_KINDS = {_FLOW: "flow", _AGGREGATE: "aggregate", _TABLE: "table", _PORT: "port", _QUEUE: "queue", _GROUP: "group"}
# Of entries of a fixed size: that size, and where the 64-bit counters begin and end.
_FIXED = {_AGGREGATE: (24, 0, 16), _TABLE: (24, 8, 24), _PORT: (112, 8, 104), _QUEUE: (40, 8, 32)}
# Of entries that begin with their length: where the two counters, packets and bytes, begin.
_LENGTHY = {_FLOW: 32, _GROUP: 16}
_GROUP_BUCKETS = 40  # each two counters more, to the entry's end
_MULTIPART_BODY = 16
_FLOW_REMOVED_COUNTERS = 32

Look = Callable[[int, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of the controller's that a switch answered with an error, by OpenFlow's numbers."""

    dpid: int
    message: str
    error_type: int
    code: int


@dataclass
class OpenFlowProxy:
    """What went by so far. `changes` counts the messages that change a table, `last_change` is when (monotonic).

    `floods` counts the packets that the controller had sent out of all ports of a switch.
    `connections` counts, by datapath id, how often a switch has connected; `requests` and `spoiled` count requests for
    counters, and replies that came while they were spoilt, by kind (port, flow, group, ...).
    """

    port: int
    spoil: bool = False
    changes: int = 0
    last_change: float = 0.0
    floods: int = 0
    connections: Counter[int] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    spoiled: Counter[str] = field(default_factory=Counter)
    refused: deque[Refused] = field(default_factory=lambda: deque(maxlen=1000))
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _links: dict[int, _Connection] = field(default_factory=dict)

    def cut(self, dpid: int) -> None:
        """End the connection of one switch; the switch comes back by itself, its tables as they are."""
        link = self._links[dpid]
        self._loop.call_soon_threadsafe(link.close)


class _Connection:
    """One switch's connection: two pumps, and what has to be remembered between the two directions."""

    def __init__(self, proxy: OpenFlowProxy, switch: asyncio.StreamWriter, controller: asyncio.StreamWriter) -> None:
        self.proxy, self.switch, self.controller = proxy, switch, controller
        self.dpid = 0

    def close(self) -> None:
        self.switch.close()
        self.controller.close()

    def from_controller(self, kind: int, message: bytes) -> bytes:
        if kind in CHANGES:
            self.proxy.changes += 1
            self.proxy.last_change = time.monotonic()
        elif kind == _MULTIPART_REQUEST:
            self.proxy.requests[_KINDS.get(_multipart_kind(message), "other")] += 1
        elif kind == _PACKET_OUT and _floods(message):
            self.proxy.floods += 1
        return message

    def from_switch(self, kind: int, message: bytes) -> bytes:
        if kind == _FEATURES_REPLY:
            self.dpid = int.from_bytes(message[8:16], "big")
            self.proxy._links[self.dpid] = self
            self.proxy.connections[self.dpid] += 1
        elif kind == _ERROR:
            self._refused(message)
        elif self.proxy.spoil and kind in (_MULTIPART_REPLY, _FLOW_REMOVED):
            name = "flow removed" if kind == _FLOW_REMOVED else _KINDS.get(_multipart_kind(message))
            if name is not None:
                self.proxy.spoiled[name] += 1
            return spoilt(message)
        return message

    def _refused(self, message: bytes) -> None:
        """An error carries at least 64 bytes of the message that it answers."""
        error_type, code = struct.unpack_from("!HH", message, 8)
        kind = message[13] if len(message) > 13 else -1
        self.proxy.refused.append(Refused(self.dpid, _NAMES.get(kind, f"message type {kind}"), error_type, code))


def _floods(packet_out: bytes) -> bool:
    """Whether one of its actions sends the packet out of all ports."""
    at, end = 24, 24 + int.from_bytes(packet_out[16:18], "big")
    while at + 8 <= end:
        action, size, port = struct.unpack_from("!HHI", packet_out, at)
        if action == 0 and port in _TO_ALL:
            return True
        at += max(size, 8)
    return False


def spoilt(message: bytes) -> bytes:
    """A whole OpenFlow 1.3 message with every counter in it set to 2^64 - 1; unchanged where it has none.

    Durations, lengths and the number of flows in an aggregate stay: a switch always knows those.
    """
    text = bytearray(message)
    if message[1] == _FLOW_REMOVED:
        text[_FLOW_REMOVED_COUNTERS : _FLOW_REMOVED_COUNTERS + 16] = _UNSUPPORTED * 2
    elif message[1] == _MULTIPART_REPLY:
        for begin, end in _counters(message):
            text[begin:end] = _UNSUPPORTED * ((end - begin) // 8)
    return bytes(text)


def _counters(message: bytes) -> Iterator[tuple[int, int]]:
    """From where to where the counters of a multipart reply lie."""
    kind, at = _multipart_kind(message), _MULTIPART_BODY
    while at < len(message):
        if kind in _FIXED:
            size, begin, end = _FIXED[kind]
            yield at + begin, at + end
        elif kind in _LENGTHY:
            (size,) = struct.unpack_from("!H", message, at)
            yield at + _LENGTHY[kind], at + _LENGTHY[kind] + 16
            if kind == _GROUP:
                yield at + _GROUP_BUCKETS, at + size
        else:
            return
        at += max(size, 8)  # an entry of no length would be met for ever


def _multipart_kind(message: bytes) -> int:
    return int.from_bytes(message[8:10], "big")


@contextlib.contextmanager
def openflow_proxy(controller_port: int) -> Iterator[OpenFlowProxy]:
    """Stand between switches and the controller on 127.0.0.1 while the block lasts, in a thread of its own."""
    proxy = OpenFlowProxy(0)
    thread = threading.Thread(target=proxy._loop.run_forever, name="openflow-proxy", daemon=True)
    thread.start()

    async def begin() -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _serve(proxy, controller_port, reader, writer)

        return await asyncio.start_server(accept, "127.0.0.1", 0)

    try:
        server = asyncio.run_coroutine_threadsafe(begin(), proxy._loop).result()
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_end_all(), proxy._loop).result()
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join()
        proxy._loop.close()


async def _end_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _serve(
    proxy: OpenFlowProxy, controller_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        back, forth = await asyncio.open_connection("127.0.0.1", controller_port)
    except OSError:  # the controller has ended: so does the switch's connection
        writer.close()
        return
    link = _Connection(proxy, writer, forth)
    pumps = [
        asyncio.ensure_future(pump(reader, forth, link.from_switch)),
        asyncio.ensure_future(pump(back, writer, link.from_controller)),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        link.close()
        for way in pumps:
            way.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Look) -> None:
    """Pass on message by message, as `look(type, message)` gives it back, until either end is gone."""
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        while True:
            header = await reader.readexactly(HEADER.size)
            _, kind, length, _ = HEADER.unpack(header)
            body = await reader.readexactly(max(length, HEADER.size) - HEADER.size)
            writer.write(look(kind, header + body))
            await writer.drain()
