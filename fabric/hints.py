"""Hints: a collective tells the controller, before its first byte, which flows it is about to make.

One Unix socket in the run's state folder, one line of JSON each way: {"phase": ..., "flows": [{"src_ip", "src_port",
"dst_ip", "dst_port", "nbytes", "transfers", "job"}]} goes in; {"placed": n} comes back when what the controller decided is
in force. It comes as a `plan`, before the connections are opened, and at the `begin` of each size, before its first byte.
Every iteration is told of besides: {"beat": {"job", "iteration", "began", "busy_s"}}.

Comes in: flows, a beat, or a socket to listen at. Goes out: an answer. The announcing side is the traffic's; the listening one
runs in the controller process, in Ryu's green threads, where `socket` is eventlet's.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from fabric.lines import ask, read_line
from fabric.policy import FlowKey

__all__ = ["BEGIN", "PLAN", "Announced", "Beat", "announce", "serve", "tell_beat"]

PLAN, BEGIN = "plan", "begin"


@dataclass(frozen=True, slots=True)
class Announced:
    """One flow of a collective: its 5-tuple, and how many bytes in how many transfers it will carry in an iteration."""

    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int
    nbytes: int
    transfers: int
    job: str = "collective"

    @property
    def key(self) -> FlowKey:
        """The flow as policies name it."""
        return FlowKey(self.src_ip, self.src_port, self.dst_ip, self.dst_port)


@dataclass(frozen=True, slots=True)
class Beat:
    """An iteration that a job has made, numbered from 0: when its communication began (CLOCK_MONOTONIC), and for how long it went on."""

    job: str
    iteration: int
    began: float
    busy_s: float


def announce(path: str, flows: Iterable[Announced], deadline_s: float, phase: str = BEGIN) -> int:
    """Tell the controller, and wait until it has placed the flows; how many it placed.

    OSError (TimeoutError included) when nobody listens or answers.
    """
    return int(ask(Path(path), {"phase": phase, "flows": [asdict(flow) for flow in flows]}, deadline_s)["placed"])


def tell_beat(path: str, beat: Beat, deadline_s: float) -> None:
    """Tell the controller of an iteration; OSError when nobody takes notice."""
    ask(Path(path), {"beat": asdict(beat)}, deadline_s)


def serve(listener: socket.socket, place: Callable[[str, list[Announced]], int], note: Callable[[Beat], None] = lambda _: None) -> None:
    """Answer announcements one after another with `place(phase, flows)` until the listener is closed; what is none is ignored.

    Beats go to `note`.
    """
    while True:
        try:
            channel, _ = listener.accept()
        except OSError:
            return
        with channel, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            message = json.loads(read_line(channel))
            if "beat" in message:
                note(Beat(**message["beat"]))
                channel.sendall(b'{"noted": true}\n')
                continue
            flows = [Announced(**item) for item in message["flows"]]
            placed = place(str(message.get("phase", BEGIN)), flows)
            channel.sendall(json.dumps({"placed": placed}).encode() + b"\n")
