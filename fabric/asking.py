"""Requests and their answers, open loop: clients ask at their own times, whatever the answers take, as users and schedules do.

Comes in: the connections of one host, and what each carries. Goes out: by connection, when each request was due and how long its
answer took. A request that is due while another is under way goes after it on the same connection, and its time counts from when it
was due: a client that waited with asking would hide what waiting costs. Source: Tene, "How NOT to Measure Latency", 2013.
"""

from __future__ import annotations

import heapq
import select
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice, repeat
from math import inf
from typing import Any

from fabric.seeds import rng
from fabric.sizes import Sizes

__all__ = ["Asked", "Asking", "ask_and_answer", "moments", "responses"]

_CHUNK = bytes(1 << 16)
_LATEST_TURN_S = 0.05


@dataclass(frozen=True, slots=True)
class Asking:
    """What one client asks of one server over a connection: sizes in bytes, `rate_hz` requests a second, Poisson or at a fixed period.

    With `sizes`, points of a cumulative distribution (bytes, share), each answer's size is drawn instead of being `response`.
    """

    client: str
    server: str
    request: int
    response: int
    rate_hz: float
    poisson: bool
    draw: str  # what its draws are for
    seed: int
    sizes: tuple[tuple[float, float], ...] = ()


@dataclass(slots=True)
class Asked:
    """What came of a client's requests: when each was due, in s from the begin, and in how many ms it was answered; when those were due that were not.

    `nbytes` and `unanswered_nbytes` are the answers' sizes, where these are drawn.
    """

    due_s: list[float] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    unanswered_s: list[float] = field(default_factory=list)
    nbytes: list[int] = field(default_factory=list)
    unanswered_nbytes: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A dictionary for a record line."""
        return asdict(self)


def moments(asking: Asking) -> Iterator[float]:
    """When its requests are due, in s from the begin: with exponential pauses, or once a period, the first after one of it.

    >>> from itertools import islice
    >>> list(islice(moments(Asking("a", "b", 1, 1, 4.0, False, "it", 1)), 3))
    [0.25, 0.5, 0.75]
    """
    generator, number, now = rng(asking.seed, asking.draw), 0, 0.0
    while True:
        number += 1
        now = now + float(generator.exponential(1 / asking.rate_hz)) if asking.poisson else number / asking.rate_hz
        yield now


def responses(asking: Asking) -> Iterator[int]:
    """The size of each answer, one after another: the same at both ends, which draw alike, so that no request need tell it.

    >>> from itertools import islice
    >>> list(islice(responses(Asking("a", "b", 1, 700, 4.0, False, "it", 1)), 2))
    [700, 700]
    """
    if not asking.sizes:
        yield from repeat(asking.response)
    sizes, generator = Sizes(tuple((nbytes, share) for nbytes, share in asking.sizes)), rng(asking.seed, f"{asking.draw}/sizes")
    while True:
        yield sizes.at(float(generator.random()))


class _End(ABC):
    """One end of a connection: what is left to send, and what has come of the message that is coming."""

    def __init__(self, channel: socket.socket, asking: Asking) -> None:
        self.socket, self.asking = channel, asking
        self.to_send = self.got = 0
        self.responses = responses(asking)

    def send(self) -> None:
        """Hand over what the socket takes."""
        self.to_send = _sent(self.socket, self.to_send)

    def receive(self) -> None:
        """Take what has come."""
        self.got += _received(self.socket)
        self.heard()

    @abstractmethod
    def heard(self) -> None:
        """Deal with the messages that are whole."""


class _Client(_End):
    """Requests: those that are under way, by when they were due, and what came of the others."""

    def __init__(self, channel: socket.socket, asking: Asking, begin: float) -> None:
        super().__init__(channel, asking)
        self.begin, self.asked = begin, Asked()
        self.under_way: deque[tuple[float, int]] = deque()

    def ask(self, due: float) -> None:
        """Send one more."""
        self.under_way.append((due, next(self.responses)))
        self.to_send += self.asking.request
        self.send()

    def heard(self) -> None:
        """Note what each answer took."""
        while self.under_way and self.got >= self.under_way[0][1]:
            due, nbytes = self.under_way.popleft()
            self.got -= nbytes
            self.asked.nbytes += [nbytes] if self.asking.sizes else []
            self.asked.due_s.append(round(due - self.begin, 6))
            self.asked.took_ms.append(round(1000 * (time.monotonic() - due), 3))


class _Server(_End):
    """Answers."""

    def heard(self) -> None:
        """Owe an answer for each request."""
        whole, self.got = divmod(self.got, self.asking.request)
        self.to_send += sum(islice(self.responses, whole))


def _sent(channel: socket.socket, left: int) -> int:
    """What is left of so many bytes when the socket takes no more."""
    while left:
        try:
            left -= channel.send(_CHUNK[:left] if left < len(_CHUNK) else _CHUNK)
        except BlockingIOError:
            break
    return left


def _received(channel: socket.socket) -> int:
    """How many bytes had come; ConnectionError when the other end is gone."""
    total = 0
    while True:
        try:
            got = len(channel.recv(1 << 18))
        except BlockingIOError:
            return total
        if not got:
            raise ConnectionError("the other end of a request's connection is gone")
        total += got


def ask_and_answer(
    clients: Mapping[int, tuple[socket.socket, Asking]], servers: Mapping[int, tuple[socket.socket, Asking]], begin: float, end: float | None,
    stopped: Callable[[], bool], control: int, turn: Callable[[], float] = lambda: inf,
) -> dict[int, Asked]:  # fmt: skip
    """Ask and answer from `begin` until `end` (CLOCK_MONOTONIC); without an end, and as a server in any case, until `stopped()` says so.

    `control` is the descriptor that becomes readable when `stopped` is worth asking; `turn` is called as often as it says, in s.
    """
    asking = {number: _Client(channel, what, begin) for number, (channel, what) in clients.items()}
    answering = {number: _Server(channel, what) for number, (channel, what) in servers.items()}
    every: list[_End] = [*asking.values(), *answering.values()]
    ends = {one.socket.fileno(): one for one in every}
    sources = {number: moments(one.asking) for number, one in asking.items()}
    due = [(begin + next(source), number) for number, source in sources.items()]
    heapq.heapify(due)
    poll = select.epoll()
    poll.register(control, select.EPOLLIN)
    for descriptor in ends:
        poll.register(descriptor, select.EPOLLIN)
    last = inf if end is None else end
    time.sleep(max(0.0, begin - time.monotonic()))
    while True:
        while due and due[0][0] <= min(time.monotonic(), last):
            moment, number = heapq.heappop(due)
            asking[number].ask(moment)
            heapq.heappush(due, (begin + next(sources[number]), number))
        _watch(poll, ends)
        wait_s = min(_LATEST_TURN_S, turn(), max(0.0, due[0][0] - time.monotonic()) if due and due[0][0] <= last else inf)
        for descriptor, _ in poll.poll(wait_s):
            if descriptor in ends:
                ends[descriptor].receive()
                ends[descriptor].send()
            elif stopped():
                poll.close()
                return {number: _told(one) for number, one in asking.items()}


def _watch(poll: select.epoll, ends: Mapping[int, _End]) -> None:
    for descriptor, one in ends.items():
        poll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if one.to_send else 0))


def _told(client: _Client) -> Asked:
    client.asked.unanswered_s = [round(due - client.begin, 6) for due, _ in client.under_way]
    client.asked.unanswered_nbytes = [nbytes for _, nbytes in client.under_way] if client.asking.sizes else []
    return client.asked
