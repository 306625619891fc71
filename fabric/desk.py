"""The desk at which orders are taken: who asks must prove to be the controller, and everything is written down.

Comes in: a socket, and what does an order. Goes out: an answer to each, and a line of the log. No root is needed here:
what is done is somebody else's business.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from fabric.lines import read_line
from fabric.orders import from_json, to_json
from fabric.policy import Lever

__all__ = ["Desk", "Refused"]

_PEER = struct.Struct("=3i")  # struct ucred


class Refused(Exception):
    """Why an order was not done, in one line."""


class Desk:
    """Takes orders from whoever proves to be the controller; one at a time is done, whoever asks."""

    def __init__(self, do: Callable[[Lever], Any], token: str, log: IO[str]) -> None:
        self._do, self._token, self._log = do, token, log
        self._one_at_a_time = threading.Lock()

    def serve(self, listener: socket.socket) -> None:
        """Serve whoever comes, until the listener is closed."""
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(channel,), daemon=True).start()

    def _talk(self, channel: socket.socket) -> None:
        # Whoever sends what is no order, or hangs up in between, is hung up on: the next one is served all the same.
        with channel, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            _, user, _ = _PEER.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            token = str(json.loads(read_line(channel))["token"])
            if user != os.geteuid() or not hmac.compare_digest(token, self._token):
                _say(channel, {"error": "the token, or the user, is not the controller's of this run"})
                return
            _say(channel, {"welcome": True})
            while True:
                orders = json.loads(read_line(channel))["orders"]
                with self._one_at_a_time:
                    _say(channel, {"answers": [self._answer(order) for order in orders]})

    def _answer(self, order: Mapping[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        try:
            lever = from_json(order)
            answer: dict[str, Any] = {"got": self._do(lever)}
            order = to_json(lever)
        except (ValueError, KeyError, TypeError) as err:
            answer = {"error": f"it is no order: {err}"}
        except Refused as err:
            answer = {"error": str(err)}
        took_ms = 1e3 * (time.monotonic() - began)
        line = {"t": round(began, 6), "order": order, **answer, "took_ms": round(took_ms, 3)}
        self._log.write(json.dumps(line, separators=(",", ":")) + "\n")
        return answer


def _say(channel: socket.socket, message: Mapping[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")
