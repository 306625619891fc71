"""What runs inside a host beside its rank: the ends of background flows, open until told to stop.

One process serves all flows of a host. Senders send as fast as TCP lets them, or at a flow's own rate (TCP's pacing);
receivers count. The counts are sampled, so that the goodput of any window can be told afterwards.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fabric.silences import Silences
from fabric.tcp import SO_MAX_PACING_RATE

__all__ = ["FlowCount", "run_flows"]

_CHUNK = bytes(256 * 1024)
_TURN_S = 0.010  # receivers take what has come this often: a wake-up per packet would cost more than the network
_TURNS_A_SAMPLE = 5
_RECEIVE_BUFFER = 4 << 20  # many turns' worth, so that the flow never waits for its receiver
# TCP holds its acknowledgements back until the reader makes room, unless the reader has asked for more than has come: without
# this they come in bursts of a turn, and a sender that lives on them, as DCTCP does, is led astray.
_WANTS = 1 << 20
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


@dataclass
class FlowCount:
    """Bytes that one flow's receiver has got: when the first came, the running total at each sample, its silences."""

    total: int = 0
    first: float | None = None
    t: list[float] = field(default_factory=list)
    nbytes: list[int] = field(default_factory=list)
    silences: Silences | None = None

    def heard(self, nbytes: int, now: float) -> None:
        """Add what has come."""
        if self.first is None:
            self.first = round(now, 6)
            self.silences = Silences(now)
        elif self.silences is not None:
            self.silences.heard(now)
        self.total += nbytes

    def sample(self, now: float) -> None:
        """Note the running total."""
        self.t.append(round(now, 6))
        self.nbytes.append(self.total)

    def to_json(self) -> dict[str, Any]:
        """A dictionary for a record line."""
        silences = self.silences.to_json() if self.silences else []
        return {"first": self.first, "t": self.t, "nbytes": self.nbytes, "silences": silences}


def limit(channel: socket.socket, mbps: float | None) -> None:
    """Have a flow send no faster than so many Mb/s of payload; without sch_fq TCP paces by itself."""
    if mbps is not None:
        channel.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, round(mbps * 1e6 / 8))


def run_flows(
    senders: Mapping[int, socket.socket],
    receivers: Mapping[int, socket.socket],
    begin: float,
    stopped: Callable[[], bool],
    control: int,
    end: float | None,
    watch: Callable[[], object] = lambda: None,
) -> dict[int, FlowCount]:
    """Send and count from `begin` until `end` (CLOCK_MONOTONIC); without an end, until `stopped()` says so.

    `senders` and `receivers` are by flow number; `control` is the descriptor that becomes readable when `stopped` is worth
    asking. `watch` is called as often as receivers take what has come.
    """
    counts = {number: FlowCount() for number in receivers}
    outgoing = {channel.fileno(): channel for channel in senders.values()}
    poll = select.epoll()
    if end is None:
        poll.register(control, select.EPOLLIN)
    for channel in senders.values():
        poll.register(channel, select.EPOLLOUT)
    for channel in receivers.values():
        channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _WANTS)
    time.sleep(max(0.0, begin - time.monotonic()))
    turn = 0
    while (now := time.monotonic()) < (end or float("inf")):
        due = begin + turn * _TURN_S
        if now >= due:
            _take(receivers, counts)
            if turn % _TURNS_A_SAMPLE == 0:
                _sample(counts)
            watch()
            turn = int((now - begin) / _TURN_S) + 1
            continue
        ready = poll.poll(min(due, end or due) - now)
        if any(descriptor == control for descriptor, _ in ready) and stopped():
            break
        for descriptor, _ in ready:
            if descriptor in outgoing:
                _send(outgoing[descriptor])
    _take(receivers, counts)
    _sample(counts)
    for count in counts.values():
        if count.silences is not None:
            count.silences.heard(time.monotonic())  # one that has not ended counts as far as it was seen
    poll.close()
    return counts


def _take(receivers: Mapping[int, socket.socket], counts: Mapping[int, FlowCount]) -> None:
    for number, channel in receivers.items():
        _count(channel, counts[number])


def _sample(counts: Mapping[int, FlowCount]) -> None:
    now = time.monotonic()
    for count in counts.values():
        count.sample(now)


def _send(channel: socket.socket) -> None:
    try:
        channel.send(_CHUNK)
    except BlockingIOError:
        return


def _count(channel: socket.socket, count: FlowCount) -> None:
    """Take what has arrived; MSG_TRUNC lets TCP discard it without a copy."""
    try:
        got = channel.recv_into(_SINK, len(_SINK), socket.MSG_TRUNC)
    except BlockingIOError:
        return
    if got:
        count.heard(got, time.monotonic())


_SINK = bytearray(_RECEIVE_BUFFER)
