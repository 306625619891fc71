"""Forked children in namespaces, and the talk with each over a Unix socket pair, which never crosses the fabric.

Every wait has a deadline, and names who did not answer. One side is the coordinator's (`Child`), the other the child's
own (`heard`, `tell`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from fabric.kernel import die_with_parent, enter_namespace

__all__ = ["Child", "TrafficError", "fork", "hear", "tell"]

_MESSAGE_LIMIT = 4 * 1024 * 1024


class TrafficError(Exception):
    """One line for the runner's user."""


@dataclass
class Child:
    """A forked process, the name a person knows it by, and the coordinator's end of its socket pair."""

    name: str
    pid: int
    channel: socket.socket

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message; a child that is gone is reported when it is next heard."""
        with contextlib.suppress(BrokenPipeError, ConnectionError):
            self.channel.send(json.dumps(message).encode())

    def hear(self, deadline: float) -> dict[str, Any]:
        """The child's next message; TrafficError when it failed, ended, or stays silent until `deadline`."""
        self.channel.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self.channel.recv(_MESSAGE_LIMIT)
        except TimeoutError:
            raise TrafficError(f"{self.name} did not answer in time: it is stalled or starved") from None
        except ConnectionError:
            data = b""
        if not data:
            raise TrafficError(f"{self.name} {_how_it_ended(self.pid)}")
        message: dict[str, Any] = json.loads(data)
        if "error" in message:
            raise TrafficError(f"{self.name}: {message['error']}")
        return message


def _how_it_ended(pid: int) -> str:
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"was killed by signal {os.WTERMSIG(status)}"
    return f"ended with code {os.WEXITSTATUS(status)}"


def fork(name: str, namespace: int, body: Callable[[socket.socket], None], children: list[Child]) -> Child:
    """Fork a child into a namespace; it runs `body` with its end of a socket pair, and never returns."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_LIMIT)
    pid = os.fork()
    if pid == 0:
        _child(namespace, body, ours, theirs)
    theirs.close()
    child = Child(name, pid, ours)
    children.append(child)
    return child


def _child(namespace: int, body: Callable[[socket.socket], None], ours: socket.socket, theirs: socket.socket) -> None:
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(signal.SIGKILL)
        ours.close()
        enter_namespace(namespace)
        body(theirs)
        code = 0
    except (OSError, ValueError) as err:  # ConnectionError and TimeoutError are OSErrors
        with contextlib.suppress(OSError):
            theirs.send(json.dumps({"error": str(err) or type(err).__name__}).encode())
    finally:
        # Not sys.exit: the coordinator's own clean-up must not run twice.
        os._exit(code)


def hear(channel: socket.socket, turn: Callable[[], float] | None = None) -> dict[str, Any]:
    """The coordinator's next message; until it comes, `turn` is called as often as it says, in seconds."""
    if turn:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        while (left_s := turn()) < inf and not poll.poll(1000 * left_s):
            pass
    data = channel.recv(_MESSAGE_LIMIT)
    if not data:
        os._exit(1)
    message: dict[str, Any] = json.loads(data)
    return message


def tell(channel: socket.socket, **message: Any) -> None:
    """Send the coordinator a message."""
    channel.send(json.dumps(message).encode())
