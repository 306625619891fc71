"""Rounds of port counters: every switch is asked at once, and what they say goes to a line of a file.

Comes in: who was asked, and the answers as they come. Goes out: `ports.jsonl` in the controller's folder, and `Counters` to
whoever runs the rounds: `fabric.monitor` inside a controller of ours, `fabric.gateway` before one of somebody else's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from fabric.graph import Fabric, Port
from fabric.portcounts import Counters, PortCount

__all__ = ["PortRounds"]


class PortRounds:
    """The rounds of one controller's life; `file` gets a line for each, when its last switch has answered or the next one begins."""

    def __init__(self, fabric: Fabric, file: Path) -> None:
        self._fabric = fabric
        self._file = open(file, "a")  # noqa: SIM115  (kept for the process's life)
        self._asked_at = 0.0
        self._waiting: set[int] = set()
        self._ports: dict[Port, tuple[float, PortCount]] = {}

    def ask(self, dpids: Iterable[int]) -> Counters | None:
        """A new round begins with these switches: the one before, where it still waits for somebody."""
        late = self._end()
        self._asked_at = time.monotonic()
        self._waiting = {dpid for dpid in dpids if dpid in self._fabric.switch_by_dpid}
        return late

    def answer(self, dpid: int, counts: Mapping[int, PortCount], more: bool) -> Counters | None:
        """What a switch says of its ports by their numbers, and whether it will say more: the round, if that was its last word."""
        if dpid not in self._waiting:
            return None
        now, name = time.monotonic(), self._fabric.switch_by_dpid[dpid].name
        self._ports |= {port: (now, count) for number, count in counts.items() if (port := Port(name, number)) in self._fabric.peer}
        if not more:
            self._waiting.discard(dpid)
        return None if self._waiting else self._end()

    def _end(self) -> Counters | None:
        """Write what the round brought; a switch that gave no answer is counted as missing."""
        if not self._ports:
            return None
        missing = len(self._fabric.switches) - len({port.node for port in self._ports})
        line = {"t": round(time.monotonic(), 6), "missing": missing, "ports": {port.interface: count for port, (_, count) in self._ports.items()}}
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()
        found, self._ports, self._waiting = Counters(self._asked_at, self._ports, missing), {}, set()
        return found
