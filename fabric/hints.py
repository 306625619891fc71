"""Hints: a collective tells the controller, before its first byte, which flows it is about to make.

One Unix socket in the run's state folder, one line of JSON each way: {"phase": ..., "flows": [{"src_ip", "src_port",
"dst_ip", "dst_port", "nbytes", "transfers", "job"}]} goes in; {"placed": n} comes back when what the controller decided is
in force. It comes twice: as a `plan`, before the connections are opened, and at the `begin`, before the first byte.

Comes in: flows, or a socket to listen at. Goes out: an answer. The announcing side is the traffic's; the listening one
runs in the controller process, in Ryu's green threads, where `socket` is eventlet's.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from fabric.lines import read_line
from fabric.policy import FlowKey

__all__ = ["BEGIN", "PLAN", "Announced", "announce", "serve"]

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


def announce(path: str, flows: Iterable[Announced], deadline_s: float, phase: str = BEGIN) -> int:
    """Tell the controller, and wait until it has placed the flows; how many it placed.

    OSError (TimeoutError included) when nobody listens or answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(deadline_s)
        channel.connect(path)
        channel.sendall(json.dumps({"phase": phase, "flows": [asdict(flow) for flow in flows]}).encode() + b"\n")
        answer = read_line(channel)
    return int(json.loads(answer)["placed"])


def serve(listener: socket.socket, place: Callable[[str, list[Announced]], int]) -> None:
    """Answer announcements one after another with `place(phase, flows)` until the listener is closed; what is none is ignored."""
    while True:
        try:
            channel, _ = listener.accept()
        except OSError:
            return
        with channel, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            message = json.loads(read_line(channel))
            flows = [Announced(**item) for item in message["flows"]]
            placed = place(str(message.get("phase", BEGIN)), flows)
            channel.sendall(json.dumps({"placed": placed}).encode() + b"\n")
