"""The way from a run's switches to a controller outside: it passes OpenFlow on, says when all are ready, records port counters.

It takes the place of the controller process, and of `fabric.monitor` in it: the same folder, the same files. Switches connect
to it inside the run's namespace; each connection is led on from the namespace that the run was started in. Its own questions
for counters travel beside the controller's, with numbers from the far end of the number space; their answers go no further.

Ready means: every switch of the topology is connected, the controller has changed no table for a second, and every switch
has answered a barrier sent after that.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fabric.external import Address
from fabric.graph import Fabric
from fabric.kernel import die_with_parent, inside_namespace
from fabric.openflow_proxy import CHANGES, HEADER, pump
from fabric.portcounts import PortCount
from fabric.portrounds import PortRounds

__all__ = ["Gateway", "port_counts"]

LOOPBACK = "127.0.0.1"
QUIET_S = 1.0
_TURN_S = 0.1
_DIAL_S = 5.0
# Message types and layouts by the OpenFlow 1.3.5 specification, appendix A.
_VERSION, _HELLO, _ERROR, _FEATURES_REPLY = 4, 0, 1, 6
_MULTIPART_REQUEST, _MULTIPART_REPLY, _BARRIER_REQUEST, _BARRIER_REPLY = 18, 19, 20, 21
_PORT_STATS, _ANY_PORT, _MORE = 4, 0xFFFFFFFF, 1
_PORT_ENTRY = struct.Struct("!I4x6Q")  # number; then received and sent: packets, bytes, drops in pairs
_PORT_ENTRY_SIZE, _MULTIPART_BODY = 112, 16
_FAR = 1 << 31  # half of the number space away from what the controller uses now

log = logging.getLogger("fabric.gateway")


class Gateway:
    """All switches' connections; `folder` is that of the controller, `outside` the namespace's descriptor that it is reached from."""

    def __init__(self, folder: Path, fabric: Fabric, target: Address, outside: int) -> None:
        self.folder, self.fabric, self.target, self._outside = folder, fabric, target, outside
        self.rounds = PortRounds(fabric, folder / "ports.jsonl")
        self.links: dict[int, _Link] = {}
        self.last_change = time.monotonic()
        self._barriers: set[int] | None = None  # who has still to answer one, None before they are sent
        self._asked_at = 0.0
        self._said = ""

    async def serve(self, port: int, period_s: float) -> None:
        """Take switches, until this task is cancelled."""
        async with await asyncio.start_server(self._lead_on, LOOPBACK, port):
            (self.folder / "listening").touch()
            await asyncio.gather(self._poll(period_s), self._become_ready())

    async def _lead_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await self._dial()
        except (OSError, TimeoutError) as err:  # the switch tries again by itself
            self.say(f"{self.target} cannot be reached: {getattr(err, 'strerror', None) or err or type(err).__name__}")
            writer.close()
            return
        link = _Link(self, writer)
        pumps = [asyncio.ensure_future(pump(reader, forth, link.from_switch)), asyncio.ensure_future(pump(back, writer, link.from_controller))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for way in pumps:
            way.cancel()
        for end in (writer, forth):
            end.close()
        if self.links.get(link.dpid) is link:
            del self.links[link.dpid]
            log.warning("the connection of switch %#x ended", link.dpid)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the controller: a socket stays in the namespace that it was made in."""
        with inside_namespace(self._outside):
            (family, kind, proto, _, place), *_ = socket.getaddrinfo(self.target.host, self.target.port, type=socket.SOCK_STREAM)
            channel = socket.socket(family, kind, proto)
        try:
            channel.setblocking(False)
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(channel, place), _DIAL_S)
            return await asyncio.open_connection(sock=channel)
        except BaseException:
            channel.close()
            raise

    def say(self, text: str) -> None:
        """Log what keeps switches from their controller."""
        if text != self._said:  # once, not for every switch that tries
            self._said = text
            log.error("%s", text)

    async def _poll(self, period_s: float) -> None:
        due = time.monotonic()
        while True:
            due = max(due + period_s, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.rounds.ask(tuple(self.links))
            for link in tuple(self.links.values()):
                link.ask(_MULTIPART_REQUEST, struct.pack("!HH4xI4x", _PORT_STATS, 0, _ANY_PORT))

    async def _become_ready(self) -> None:
        while self._barriers is None or self._barriers or self.last_change > self._asked_at:
            await asyncio.sleep(_TURN_S)
            missing = self.fabric.switch_by_dpid.keys() - self.links.keys()
            if missing or time.monotonic() - self.last_change < QUIET_S:
                self._barriers = None
            elif self._barriers is None:
                self._barriers, self._asked_at = set(self.fabric.switch_by_dpid), time.monotonic()
                for dpid in self.fabric.switch_by_dpid:
                    self.links[dpid].ask(_BARRIER_REQUEST, b"")
        (self.folder / "ready").touch()

    def answered(self, dpid: int, message: bytes) -> None:
        """A switch's answer to one of our own questions."""
        if message[1] == _BARRIER_REPLY and self._barriers:
            self._barriers.discard(dpid)
        elif message[1] == _MULTIPART_REPLY:
            more = bool(int.from_bytes(message[10:12], "big") & _MORE)
            self.rounds.answer(dpid, dict(port_counts(message)), more)
        elif message[1] == _ERROR:
            log.error("switch %#x refused a question of ours: error type %d, code %d", dpid, *struct.unpack_from("!HH", message, 8))


class _Link:
    """One switch's connection, and which questions on it are ours."""

    def __init__(self, gateway: Gateway, switch: asyncio.StreamWriter) -> None:
        self.gateway, self.switch = gateway, switch
        self.dpid = 0
        self._newest = 0  # the last number that the controller used
        self._ours: set[int] = set()

    def ask(self, kind: int, body: bytes) -> None:
        number = (self._newest + _FAR) % (1 << 32)
        while number in self._ours:
            number = (number + 1) % (1 << 32)
        self._ours.add(number)
        self.switch.write(HEADER.pack(_VERSION, kind, HEADER.size + len(body), number) + body)

    def from_controller(self, kind: int, message: bytes) -> bytes:
        self._newest = int.from_bytes(message[4:8], "big")
        if kind in CHANGES:
            self.gateway.last_change = time.monotonic()
        elif kind == _HELLO and message[0] < _VERSION:
            self.gateway.say(f"the controller speaks OpenFlow up to version {message[0]}; accepted: {_VERSION}, which is 1.3; set it to that")
        return message

    def from_switch(self, kind: int, message: bytes) -> bytes:
        number = int.from_bytes(message[4:8], "big")
        if kind == _FEATURES_REPLY:
            self.dpid = int.from_bytes(message[8:16], "big")
            self.gateway.links[self.dpid] = self
            self.gateway.last_change = time.monotonic()  # the controller needs a moment to deal with it
        elif kind in (_ERROR, _BARRIER_REPLY, _MULTIPART_REPLY) and number in self._ours:
            if kind != _MULTIPART_REPLY or not message[11] & _MORE:
                self._ours.discard(number)
            self.gateway.answered(self.dpid, message)
            return b""
        return message


def port_counts(message: bytes) -> Iterator[tuple[int, PortCount]]:
    """By number, every port in a whole multipart reply with port statistics of OpenFlow 1.3."""
    for at in range(_MULTIPART_BODY, len(message) - _PORT_ENTRY_SIZE + 1, _PORT_ENTRY_SIZE):
        number, rx_packets, tx_packets, rx_bytes, tx_bytes, rx_dropped, tx_dropped = _PORT_ENTRY.unpack_from(message, at)
        yield number, PortCount.of(tx_bytes, tx_packets, tx_dropped, rx_bytes, rx_packets, rx_dropped)


def main() -> int:
    """Stand in for the controller named in controller.json until the runner ends this process."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    folder = Path(os.environ["FABRIC_RUN"])
    setup: dict[str, Any] = json.loads((folder / "controller.json").read_text())
    fabric = Fabric.from_json(json.loads((folder / "topology.json").read_text()))
    outside = os.open(setup["outside"], os.O_RDONLY)
    gateway = Gateway(folder, fabric, Address(*setup["target"]), outside)
    asyncio.run(gateway.serve(setup["port"], setup["poll_ms"] / 1000))
    return 0


if __name__ == "__main__":
    sys.exit(main())
