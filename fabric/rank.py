"""What runs inside a host: one rank of a collective, playing its part of a Schedule over real TCP sockets.

A rank knows nothing of algorithms: it sends each transfer when those it waits for are complete, adds or copies what it
receives, and afterwards checks every element that the schedule's result makes its duty.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf

import numpy as np
import numpy.typing as npt

from fabric.outcome import Duty, duties
from fabric.schedule import Schedule, Transfer
from fabric.silences import Silences

__all__ = ["Edge", "Played", "Program", "expected", "initial", "play", "program", "wrong"]

Edge = tuple[int, int]  # (peer rank, channel)
_PATTERN = 251  # a prime, so that a chunk put in the wrong place shows
_STALLED_POLL_MS = 1000


@dataclass(frozen=True)
class Program:
    """One rank's part of a schedule: what it sends and receives on each edge, in order, what it moves within its buffer, and what waits for what."""

    rank: int
    elements: int
    scratch: int
    sends: Mapping[Edge, tuple[Transfer, ...]]
    receives: Mapping[Edge, tuple[Transfer, ...]]
    within: Mapping[int, Transfer]
    waits: Mapping[int, int]  # transfer to send, or to move -> how many completions it waits for
    wakes: Mapping[int, tuple[int, ...]]  # completed transfer -> transfers it counts for


@dataclass(frozen=True, slots=True)
class Played:
    """How an iteration went for one rank: each receiving edge's longest silences between the begin and its last byte, as (begin,
    seconds); when the first byte of each transfer that it sends was handed over; and when each transfer was done: handed
    over whole where it is sent, taken in where it is received, both where it stays within. Times are CLOCK_MONOTONIC.
    """

    silences: dict[Edge, list[tuple[float, float]]]
    begun: dict[int, float]
    done: dict[int, float]


def program(schedule: Schedule, rank: int) -> Program:
    """The part of `rank` in a schedule."""
    sends: dict[Edge, list[Transfer]] = {}
    receives: dict[Edge, list[Transfer]] = {}
    within: dict[int, Transfer] = {}
    waits: dict[int, int] = {}
    wakes: dict[int, list[int]] = {}
    for transfer in sorted(schedule.transfers, key=lambda item: item.id):
        if transfer.local and transfer.src == rank:
            within[transfer.id] = transfer
        elif transfer.dst == rank:
            receives.setdefault((transfer.src, transfer.channel), []).append(transfer)
        elif transfer.src == rank:
            sends.setdefault((transfer.dst, transfer.channel), []).append(transfer)
        if transfer.src == rank:
            waits[transfer.id] = len(transfer.after)
            for earlier in transfer.after:
                wakes.setdefault(earlier, []).append(transfer.id)
    return Program(
        rank, schedule.elements, schedule.scratch,
        {edge: tuple(items) for edge, items in sends.items()}, {edge: tuple(items) for edge, items in receives.items()},
        within, waits, {key: tuple(value) for key, value in wakes.items()},
    )  # fmt: skip


def initial(rank: int, elements: int, iteration: int, dtype: str, scratch: int = 0) -> npt.NDArray[np.generic]:
    """A rank's data before an iteration: small whole numbers, exact in float32 however they are added; then -1 in the scratch area."""
    data: npt.NDArray[np.generic] = np.full(elements + scratch, -1, dtype)
    np.add(_pattern(elements, dtype), np.dtype(dtype).type(rank + iteration % 7), out=data[:elements])
    return data


def expected(duty: Duty, elements: int, iteration: int, dtype: str) -> npt.NDArray[np.generic]:
    """What a duty says of buffers of `elements` that began as `initial` has them."""
    number, sources = np.dtype(dtype).type, duty.sources
    part = _pattern(elements, dtype)[duty.at : duty.at + duty.stop - duty.start]
    total: npt.NDArray[np.generic] = part * number(len(sources)) + number(len(sources) * (iteration % 7) + sum(sources))
    return total


def wrong(schedule: Schedule, rank: int, iteration: int, data: npt.NDArray[np.generic]) -> int:
    """How many elements of a rank's data are not what they must be after an iteration."""
    dtype = str(data.dtype)
    return sum(
        int(np.count_nonzero(data[duty.start : duty.stop] != expected(duty, schedule.elements, iteration, dtype)))
        for duty in duties(schedule, rank)
    )


@lru_cache(maxsize=2)
def _pattern(elements: int, dtype: str) -> npt.NDArray[np.generic]:
    """What a buffer has over its rank and iteration; kept, as making it takes longer than the pause between iterations should."""
    return (np.arange(elements) % _PATTERN).astype(dtype)


def play(
    part: Program,
    data: npt.NDArray[np.generic],
    outgoing: Mapping[Edge, socket.socket],
    incoming: Mapping[Edge, socket.socket],
    deadline: float,
    turn: Callable[[], float] = lambda: inf,
) -> Played:
    """Play one iteration in place on `data`; TimeoutError when it is not over at `deadline` (CLOCK_MONOTONIC).

    `turn` is called after every wait, and no wait is longer than the seconds that it gave.
    """
    player = _Player(part, data, outgoing, incoming)
    player.run(deadline, turn)
    return Played({edge: receiver.silences.to_json() for edge, receiver in player.receivers.items()}, player.begun, player.done)


class _Player:
    """The state of one iteration: how far each edge is, and what still waits."""

    def __init__(
        self,
        part: Program,
        data: npt.NDArray[np.generic],
        outgoing: Mapping[Edge, socket.socket],
        incoming: Mapping[Edge, socket.socket],
    ) -> None:
        self.part, self.data = part, data
        self.bytes = data.view(np.uint8).data
        self.waits = dict(part.waits)
        self.begun: dict[int, float] = {}
        self.done: dict[int, float] = {}
        self.senders = {edge: _Sender(outgoing[edge], deque(items)) for edge, items in part.sends.items()}
        self.receivers = {edge: _Receiver(incoming[edge], deque(items)) for edge, items in part.receives.items()}
        self.poll = select.epoll()
        self.by_descriptor: dict[int, _Sender | _Receiver] = {}
        self.by_descriptor.update({item.socket.fileno(): item for item in self.senders.values()})
        self.by_descriptor.update({item.socket.fileno(): item for item in self.receivers.values()})
        for receiver in self.receivers.values():
            self.poll.register(receiver.socket, select.EPOLLIN)

    def run(self, deadline: float, turn: Callable[[], float]) -> None:
        try:
            for transfer in [item for item in self.part.within.values() if not self.waits[item.id]]:
                self._move(transfer)
            for receiver in self.receivers.values():
                self._receive(receiver)  # transfers of no bytes would wait for ever for an event
            self._send_ready()
            while any(item.queue for item in self.by_descriptor.values()):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(self._waiting_for())
                for descriptor, _ in self.poll.poll(min(left_s, turn(), _STALLED_POLL_MS / 1000)):
                    item = self.by_descriptor[descriptor]
                    if isinstance(item, _Receiver):
                        self._receive(item)
                self._send_ready()
        finally:
            self.poll.close()

    def _waiting_for(self) -> str:
        peers = sorted({edge[0] for edge, item in self.receivers.items() if item.queue})
        stuck = sorted({edge[0] for edge, item in self.senders.items() if item.queue})
        return f"rank {self.part.rank} still waits for data from ranks {peers} and has data left for ranks {stuck}"

    def _complete(self, transfer: Transfer) -> None:
        self.done[transfer.id] = time.monotonic()
        for waiting in self.part.wakes.get(transfer.id, ()):
            self.waits[waiting] -= 1
            if not self.waits[waiting] and waiting in self.part.within:
                self._move(self.part.within[waiting])

    def _move(self, transfer: Transfer) -> None:
        """What stays within the buffer, at once."""
        self.begun[transfer.id] = time.monotonic()
        part = self.data[transfer.start : transfer.stop]
        target = self.data[transfer.lands : transfer.lands + len(part)]
        if transfer.op == "sum":
            target += part  # type: ignore[misc]
        else:
            target[:] = part
        self._complete(transfer)

    def _send_ready(self) -> None:
        progress = True
        while progress:
            progress = any([self._send(sender) for sender in self.senders.values()])

    def _send(self, sender: _Sender) -> bool:
        """Hand over what may go now; whether a transfer was completed by it."""
        completed = False
        while sender.queue and self.waits[sender.queue[0].id] == 0:
            transfer = sender.queue[0]
            size = self.data.itemsize
            if transfer.id not in self.begun:
                self.begun[transfer.id] = time.monotonic()
            left = self.bytes[transfer.start * size + sender.done : transfer.stop * size]
            try:
                sender.done += sender.socket.send(left) if left else 0
            except BlockingIOError:
                self._watch(sender, True)
                return completed
            if sender.done == (transfer.stop - transfer.start) * size:
                sender.queue.popleft()
                sender.done = 0
                self._complete(transfer)
                completed = True
        self._watch(sender, False)
        return completed

    def _watch(self, sender: _Sender, wanted: bool) -> None:
        if wanted and not sender.watched:
            self.poll.register(sender.socket, select.EPOLLOUT)
        elif sender.watched and not wanted:
            self.poll.unregister(sender.socket)
        sender.watched = wanted

    def _receive(self, receiver: _Receiver) -> None:
        size = self.data.itemsize
        while receiver.queue:
            transfer = receiver.queue[0]
            length = (transfer.stop - transfer.start) * size
            if receiver.done < length:
                try:
                    got = receiver.socket.recv_into(self._target(receiver, transfer, length)[receiver.done :])
                except BlockingIOError:
                    return
                if got == 0:
                    raise ConnectionError(f"rank {self.part.rank}: rank {transfer.src} closed its connection in mid-collective")
                receiver.silences.heard(time.monotonic())
                receiver.done += got
            if receiver.done == length:
                self._apply(receiver, transfer)
        self.poll.unregister(receiver.socket)

    def _target(self, receiver: _Receiver, transfer: Transfer, length: int) -> memoryview:
        size = self.data.itemsize
        if transfer.op == "copy":
            return self.bytes[transfer.lands * size : transfer.lands * size + length]
        if len(receiver.scratch) < length:
            receiver.scratch = bytearray(length)
        return memoryview(receiver.scratch)[:length]

    def _apply(self, receiver: _Receiver, transfer: Transfer) -> None:
        count = transfer.stop - transfer.start
        if transfer.op == "sum" and count:
            self.data[transfer.lands : transfer.lands + count] += np.frombuffer(receiver.scratch, self.data.dtype, count)  # type: ignore[misc]
        receiver.queue.popleft()
        receiver.done = 0
        self._complete(transfer)


class _Sender:
    def __init__(self, channel: socket.socket, queue: deque[Transfer]) -> None:
        self.socket, self.queue = channel, queue
        self.done, self.watched = 0, False


class _Receiver:
    def __init__(self, channel: socket.socket, queue: deque[Transfer]) -> None:
        self.socket, self.queue = channel, queue
        self.done = 0
        self.scratch = bytearray()
        self.silences = Silences(time.monotonic())
