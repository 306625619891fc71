"""Does timed events to a running network, and writes down when each really happened.

Comes in: `Timed` events, a live `Network`, its `Controller`. Goes out: events.jsonl, a line for each `Happened`, and one
when a restarted controller has all its switches again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fabric.control import Controller
from fabric.events import Happened, Timed, ports_of
from fabric.graph import Port
from fabric.network import Network
from fabric.pinning import Pins

__all__ = ["Faults"]

_RENEW_S = 1.2


class Faults:
    """The events of one run; nothing happens before `begin`."""

    def __init__(
        self, network: Network, controller: Controller, events: Sequence[Timed], file: Path, pins: Pins
    ) -> None:
        self._network, self._controller, self._file, self._pins = network, controller, file, pins
        self._waiting = list(events)
        watched = [event for event in events if event.do == "down" and event.names and event.probe]
        # A controller may have moved the probes since: late enough to hold, early enough to know the queues before.
        self._renewals = [(max(0.0, event.at_s - _RENEW_S), event) for event in watched]
        self._begun: float | None = None
        self._failed: dict[frozenset[str], Timed] = {}
        self._restarted = False

    def begin(self, moment: float) -> None:
        """Count from this moment (CLOCK_MONOTONIC); only the first call counts."""
        if self._begun is None:
            self._begun = moment

    def due_in_s(self) -> float:
        """Seconds until there is something to do, 0 when it is late; infinity when there is nothing."""
        due = [at_s for at_s, _ in self._renewals[:1]] + [event.at_s for event in self._waiting[:1]]
        return self._left_s(min(due)) if due else float("inf")

    def _left_s(self, at_s: float) -> float:
        return float("inf") if self._begun is None else max(0.0, self._begun + at_s - time.monotonic())

    def act(self) -> None:
        """Do every event that is due."""
        while self._renewals and self._left_s(self._renewals[0][0]) <= 0:
            _, event = self._renewals.pop(0)
            # Over what is down there is no path to be found; the search would last until the next event.
            if not self._network.down & set(ports_of(self._network.fabric, event)):
                self._pins.renew(event)
        while self._waiting and self._left_s(self._waiting[0].at_s) <= 0:
            self._write(self._do(self._waiting.pop(0)).to_json())
        if self._restarted and (self._controller.companion.folder / "ready").exists():
            self._restarted = False
            self._write({"t": round(time.monotonic(), 6), "controller": "ready"})

    def _write(self, line: dict[str, Any]) -> None:
        with open(self._file, "a") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def _do(self, event: Timed) -> Happened:
        crossing = self._pins.crossing(event) if event.do == "down" else {}
        begin, end = self._change(event)
        network, touched = self._network, ports_of(self._network.fabric, event)
        mbps = {
            port.interface: 0.0 if {port, network.fabric.peer[port]} & network.down else network.in_force[port].mbps
            for port in touched
        }
        return Happened(event, round(begin, 6), round(end, 6), mbps, crossing)

    def _change(self, event: Timed) -> tuple[float, float]:
        if event.do == "rate" and event.mbps is not None:
            return self._network.set_rate(ports_of(self._network.fabric, event), event.mbps)
        if event.names:
            return self._up_or_down(event)
        begin = time.monotonic()
        self._controller_event(event.do)
        return begin, time.monotonic()

    def _controller_event(self, do: str) -> None:
        if do == "down":
            self._controller.kill()
        else:
            self._controller.restart()
            self._restarted = True

    def _up_or_down(self, event: Timed) -> tuple[float, float]:
        """A link stays down as long as anything keeps it so: itself, or the switch at either end."""
        key = frozenset(event.names)
        if event.do == "down":
            self._failed[key] = event
        else:
            self._failed.pop(key, None)
        begin, end = self._network.set_down(port for failed in self._failed.values() for port in self._ends(failed))
        if len(event.names) == 1:
            (self._network.forget if event.do == "down" else self._network.reconnect)(event.names[0])
            end = time.monotonic()
        return begin, end

    def _ends(self, event: Timed) -> Iterator[Port]:
        """The ports to take down: both ends, as both lose the light of a pulled cable; of a host's link the switch's end."""
        fabric = self._network.fabric
        yield from (port for port in ports_of(fabric, event) if port.node in fabric.switch_by_name)
