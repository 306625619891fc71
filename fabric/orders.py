"""What a controller asks of hosts and ports, as lines of JSON between it and the agent; and the controller's end of the line.

One Unix socket in the run's state folder. The first line each way is {"token": ...} and {"welcome": true}; then
{"orders": [...]} goes in, and {"answers": [...]} comes back, one for each order, in their order: {"got": ...} is what was
read back from where it is now in force, {"error": ...} why it is not.

Comes in: `Lever`s. Goes out: `Answer`s. Standard library only: it runs in Ryu's green threads, where `socket` is eventlet's.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fabric.errors import RunError
from fabric.graph import Port
from fabric.lines import read_line
from fabric.policy import FlowKey, Lever, SetEcn, SetPriority, SetRate, SetTransport, Shift, Transport

__all__ = ["Agency", "Answer", "described", "done", "from_json", "read_orders", "to_json"]

_KINDS = {SetPriority: "priority", SetRate: "rate", SetEcn: "ecn", SetTransport: "transport", Shift: "shift"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an order: what was read back, or why it was not done."""

    got: Any = None
    error: str | None = None


def to_json(lever: Lever) -> dict[str, Any]:
    """An order as a dictionary that JSON can hold; its reason stays with the controller."""
    kind: dict[str, Any] = {"do": _KINDS[type(lever)]}
    if isinstance(lever, SetPriority):
        return {**kind, "flow": asdict(lever.flow), "first": lever.first}
    if isinstance(lever, SetRate):
        target = {"host": lever.target} if isinstance(lever.target, str) else {"flow": asdict(lever.target)}
        return {**kind, **target, "mbps": lever.mbps}
    if isinstance(lever, SetEcn):
        return {**kind, "port": [lever.port.node, lever.port.number], "min_bytes": lever.min_bytes, "max_bytes": lever.max_bytes}
    if isinstance(lever, SetTransport):
        return {**kind, "host": lever.host, **asdict(lever.transport)}
    return {**kind, "job": lever.job, "delay_ms": lever.delay_ms}


def from_json(order: Mapping[str, Any]) -> Lever:
    """The order that `to_json` wrote; ValueError, KeyError or TypeError when it is none."""
    asked = dict(order)
    kind = asked.pop("do")
    if kind == "priority":
        return SetPriority(FlowKey(**asked["flow"]), bool(asked["first"]), "")
    if kind == "rate":
        return SetRate(FlowKey(**asked["flow"]) if "flow" in asked else str(asked["host"]), asked["mbps"], "")
    if kind == "ecn":
        return SetEcn(Port(*asked["port"]), int(asked["min_bytes"]), int(asked["max_bytes"]), "")
    if kind == "transport":
        return SetTransport(str(asked.pop("host")), Transport(**asked), "")
    if kind == "shift":
        return Shift(str(asked["job"]), float(asked["delay_ms"]), "")
    raise ValueError(f"no order is called {kind!r}; there are {', '.join(_KINDS.values())}")


def described(lever: Lever) -> dict[str, Any]:
    """What the decision log says of an order: its kind, on what, and the value asked for.

    >>> described(SetRate("h0", 5.0, "because"))
    {'lever': 'rate', 'on': 'h0', 'asked': 5.0}
    """
    on, asked = _on(lever)
    return {"lever": _KINDS[type(lever)], "on": on, "asked": asked}


def _on(lever: Lever) -> tuple[str, Any]:
    if isinstance(lever, SetPriority):
        return str(lever.flow), lever.first
    if isinstance(lever, SetRate):
        return str(lever.target), lever.mbps
    if isinstance(lever, SetEcn):
        return lever.port.interface, [lever.min_bytes, lever.max_bytes]
    if isinstance(lever, SetTransport):
        return lever.host, asdict(lever.transport)
    return lever.job, lever.delay_ms


def read_orders(folder: Path) -> list[dict[str, Any]]:
    """What the agent was ordered in a point and what came of it, in order; empty where there was no agent."""
    path = folder / "agent" / "agent.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def done(orders: Iterable[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Any]]:
    """Those that were done, in order, each with what was read back."""
    return [(line["order"], line["got"]) for line in orders if "got" in line]


class Agency:
    """The controller's line to the agent; RunError when nobody is there, or the token is not his."""

    def __init__(self, path: Path, token: str, deadline_s: float = 10.0) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.settimeout(deadline_s)
        try:
            self._channel.connect(str(path))
            welcome = self._ask({"token": token})
        except (OSError, ValueError) as err:
            raise RunError(f"the agent of hosts and ports does not answer: {err}") from err
        if welcome != {"welcome": True}:
            raise RunError(f"the agent of hosts and ports refused us: {welcome.get('error')}")

    def give(self, levers: Iterable[Lever]) -> list[Answer]:
        """Have these done, and what came of each; OSError when the agent is gone."""
        answers = self._ask({"orders": [to_json(lever) for lever in levers]})
        return [Answer(**answer) for answer in answers["answers"]]

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self._channel.sendall(json.dumps(message).encode() + b"\n")
        answer: dict[str, Any] = json.loads(read_line(self._channel))
        return answer
