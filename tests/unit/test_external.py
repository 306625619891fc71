"""Controllers that are somebody else's program: how their address is written, and what the gateway reads for itself."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import pytest

from fabric import plugins
from fabric.errors import RequestError
from fabric.external import Address, address_of, unreachable
from fabric.gateway import Gateway, _Link, port_counts
from topologies.single_switch import single_switch

WRONG = ["tcp:", "tcp:6653", "tcp:host", "tcp:host:0", "tcp:host:65536", "tcp:host:x", "tcp:::1:6653", "tcp:a b:1", "tcp:h:1/x"]


@pytest.mark.parametrize(("spelling", "address"), [("tcp:127.0.0.1:6653", Address("127.0.0.1", 6653)), ("tcp:[::1]:6633", Address("::1", 6633)), ("tcp:onos.lab:1", Address("onos.lab", 1))])
def test_an_address_is_read_and_written_alike(spelling: str, address: Address) -> None:
    """IPv4, IPv6 in brackets, names."""
    assert address_of(spelling) == address and str(address) == spelling
    source = plugins.find("controller", spelling, Path("."))
    assert source.external == address
    assert plugins.controller_parameters(source) == {} and not plugins.defines(source, "on_hint")


@pytest.mark.parametrize("spelling", WRONG)
def test_a_wrong_address_is_refused(spelling: str) -> None:
    """In one line that says what is accepted."""
    with pytest.raises(RequestError, match=r"accepted: tcp:HOST:PORT with a port from 1 to 65535; write e.g. tcp:127.0.0.1:6653"):
        plugins.find("controller", spelling, Path("."))


def test_nobody_there_is_told_with_the_reason() -> None:
    """A port that nobody listens on, and one that somebody does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert unreachable(Address("127.0.0.1", port)) is None
    told = unreachable(Address("127.0.0.1", port))
    assert told is not None and f"got tcp:127.0.0.1:{port}, where no controller answers (Connection refused)" in told


class _Written:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def message(kind: int, number: int, body: bytes = b"") -> bytes:
    return struct.pack("!BBHI", 4, kind, 8 + len(body), number) + body


def test_our_own_questions_stay_between_us_and_the_switch(tmp_path: Path) -> None:
    """Their numbers are far from the controller's; their answers are written down and go no further, its own do."""
    fabric = single_switch(2)
    gateway = Gateway(tmp_path, fabric, Address("127.0.0.1", 1), -1)
    switch = _Written()
    link = _Link(gateway, switch)  # type: ignore[arg-type]
    features = message(6, 7, struct.pack("!Q", fabric.switches[0].dpid) + bytes(16))
    assert link.from_switch(6, features) == features and gateway.links == {fabric.switches[0].dpid: link}
    theirs = message(18, 0xFFFFFFF0, struct.pack("!HH4xI4x", 4, 0, 0xFFFFFFFF))
    assert link.from_controller(18, theirs) == theirs
    gateway.rounds.ask(gateway.links)
    link.ask(18, struct.pack("!HH4xI4x", 4, 0, 0xFFFFFFFF))
    number = int.from_bytes(switch.data[4:8], "big")
    assert number == 0x7FFFFFF0
    ports = b"".join(struct.pack("!I4x6Q", port, *(port * 10 + at for at in range(5)), 2**64 - 1) + bytes(56) for port in (1, 2))
    body = struct.pack("!HH4x", 4, 0) + ports
    assert link.from_switch(19, message(19, 0xFFFFFFF0, body)) == message(19, 0xFFFFFFF0, body)
    assert not (tmp_path / "ports.jsonl").read_text()
    assert link.from_switch(19, message(19, number, body)) == b""
    line = json.loads((tmp_path / "ports.jsonl").read_text())
    assert line["missing"] == 0 and line["ports"] == {"s0-eth1": [13, 11, None, 12, 10, 14], "s0-eth2": [23, 21, None, 22, 20, 24]}
    assert link.from_switch(19, message(19, number, body)) == message(19, number, body)  # answered once: the next one is not ours


def test_a_reply_in_parts_is_ours_to_its_end(tmp_path: Path) -> None:
    """More to come: the number stays ours."""
    fabric = single_switch(2)
    gateway = Gateway(tmp_path, fabric, Address("127.0.0.1", 1), -1)
    switch = _Written()
    link = _Link(gateway, switch)  # type: ignore[arg-type]
    link.from_switch(6, message(6, 7, struct.pack("!Q", fabric.switches[0].dpid) + bytes(16)))
    gateway.rounds.ask(gateway.links)
    link.ask(18, struct.pack("!HH4xI4x", 4, 0, 0xFFFFFFFF))
    number = int.from_bytes(switch.data[4:8], "big")
    for more, port in ((1, 1), (0, 2)):
        entry = struct.pack("!I4x6Q", port, 1, 2, 3, 4, 5, 6) + bytes(56)
        assert link.from_switch(19, message(19, number, struct.pack("!HH4x", 4, more) + entry)) == b""
    assert set(json.loads((tmp_path / "ports.jsonl").read_text())["ports"]) == {"s0-eth1", "s0-eth2"}


def test_port_statistics_are_read_by_their_layout() -> None:
    """Received before sent, packets before bytes before drops."""
    entry = struct.pack("!I4x6Q", 3, 1, 2, 3, 4, 5, 6) + bytes(56)
    ((number, count),) = port_counts(message(19, 1, struct.pack("!HH4x", 4, 0) + entry))
    assert number == 3
    assert (count.rx_packets, count.tx_packets, count.rx_bytes, count.tx_bytes, count.rx_dropped, count.tx_dropped) == (1, 2, 3, 4, 5, 6)
