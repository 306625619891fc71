"""Processes that probe end once all has come: what is on its way they wait for, what is lost they give up."""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from threading import Timer
from typing import Any

import pytest

from fabric import prober, scout

LONG_AGO_NS = 10**9


class Way:
    """A sender's socket: what it was handed goes on when `deliver` is called."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self.handed = end, list[bytes]()

    def send(self, data: bytes) -> None:
        self.handed.append(data)

    def deliver(self) -> None:
        for data in self.handed:
            self.end.send(data)


@pytest.fixture
def way() -> Iterator[tuple[Way, socket.socket]]:
    """A way, and the socket at its end."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        far.setblocking(False)
        yield Way(near), far


def probing(sender: Any, receiver: socket.socket) -> tuple[Callable[[], None], Callable[[], None], Callable[[], list[int]]]:
    """A probe's line: how to send by it, how to take the last, and the numbers that came."""
    line = prober.Line(sender, receiver)
    return line.send, lambda: prober.take_the_last([line]), lambda: [number for number, at in enumerate(line.arrived) if at >= 0]


def scouting(sender: Any, receiver: socket.socket) -> tuple[Callable[[], None], Callable[[], None], Callable[[], list[int]]]:
    """The same of an in-band probe."""
    one, file = scout.Scout(0, sender, receiver), io.StringIO()
    return one.send, lambda: scout.take_the_last([one], file), lambda: [json.loads(line)["number"] for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("make", [probing, scouting])
def test_what_is_on_its_way_is_waited_for(make: Any, way: tuple[Way, socket.socket]) -> None:
    """Not only for what is there already; and with nothing sent there is nothing to wait for."""
    send, take, came = make(*way)
    take()
    send()
    send()
    Timer(0.05, way[0].deliver).start()
    take()
    assert came() == [0, 1]


@pytest.mark.parametrize("make", [probing, scouting])
def test_what_was_just_lost_is_given_up(make: Any, way: tuple[Way, socket.socket]) -> None:
    """In bounded time, and what did come is noted."""
    send, take, came = make(*way)
    send()
    send()
    way[0].handed.pop(0)
    way[0].deliver()
    take()
    assert came() == [1]


@pytest.mark.parametrize("make", [probing, scouting])
def test_what_was_lost_long_ago_is_not_waited_for(make: Any, way: tuple[Way, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """One look tells that: nobody sleeps."""
    send, take, came = make(*way)
    now = time.monotonic_ns()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic_ns", lambda: now - LONG_AGO_NS)
        send()
    way[0].handed.clear()
    send()
    way[0].deliver()
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    take()
    assert came() == [1]
