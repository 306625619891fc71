"""Lines of JSON over Unix sockets in a run's state folder: a socket that only this user may open, and the next line of one.

Standard library only: it runs in Ryu's green threads as well, where `socket` is eventlet's.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

__all__ = ["ask", "listening", "read_line"]

_LONGEST_LINE = 16 << 20
_WAITING = 8  # who may stand in line to be accepted


def listening(path: Path) -> socket.socket:
    """A socket to serve at; only the user that runs the fabric may speak to it."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(_WAITING)
    return listener


def ask(path: Path, message: object, deadline_s: float) -> dict[str, Any]:
    """Say one thing at a socket, and the answer; OSError (TimeoutError included) when nobody listens or answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(deadline_s)
        channel.connect(str(path))
        channel.sendall(json.dumps(message).encode() + b"\n")
        answer: dict[str, Any] = json.loads(read_line(channel))
    return answer


def read_line(channel: socket.socket) -> bytes:
    """The next line; ConnectionError when the other side hangs up before its end."""
    text = b""
    while not text.endswith(b"\n"):
        chunk = channel.recv(65536)
        if not chunk or len(text) > _LONGEST_LINE:
            raise ConnectionError("the other side closed the connection in mid-line")
        text += chunk
    return text
