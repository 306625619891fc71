"""Keeps probes on the links that will fail: pinned before the traffic, pinned again where a controller moved them away.

Comes in: a function that reads back installed paths, the hosts' process ids. Goes out: probes.json, and the prober's
process, which takes up new probes while it runs.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fabric.events import Timed
from fabric.graph import Fabric
from fabric.probes import AGAIN, PERIOD_MS, PathOf, Probe, choose
from fabric.process import BEGIN_S, Companion, companion

__all__ = ["Pins", "pins"]

_LONGEST_RUN_S = 24 * 3600.0


@dataclass
class Pins:
    """The probes of a running network, in the order they were pinned; the prober knows those with a path by number."""

    fabric: Fabric
    seed: int
    path_of: PathOf
    host_pid: Callable[[str], int]
    folder: Path
    probes: list[Probe]
    prober: Companion | None = None

    def crossing(self, event: Timed) -> dict[str, bool]:
        """Whether the path of each probe of the event's target, read back now, still crosses what it watches; by number."""
        return {str(number): self._crosses(probe) for number, probe in self._of(event)}

    def renew(self, event: Timed) -> None:
        """Pin the probes of a target again whose paths have left it, over hosts and ports whose path crosses it now."""
        gone = [(number, probe) for number, probe in self._of(event) if not self._crosses(probe)]
        if not gone or self.prober is None:
            return
        again = {probe.out: probe for probe in choose(self.fabric, [event], self.seed, self.path_of, AGAIN, len(self.probes))}
        for number, probe in gone:
            if (new := again.get(probe.out)) and new.path is not None:
                self.probes[number] = replace(probe, stopped=True)
                self.probes.append(new)
        self.write()
        self.prober.process.send_signal(signal.SIGHUP)

    def write(self) -> None:
        """Write down the probes, for the reader and for the prober."""
        (self.folder / "probes.json").write_text(json.dumps([probe.to_json() for probe in self.probes], indent=1))
        plan = {
            "period_ms": PERIOD_MS, "until": time.monotonic() + _LONGEST_RUN_S,
            "probes": [
                {**probe.to_json(), "src_pid": self.host_pid(probe.src), "dst_pid": self.host_pid(probe.dst)}
                for probe in self.probes if probe.path is not None
            ],
        }  # fmt: skip
        new = self.folder / "prober.json.new"
        new.write_text(json.dumps(plan))
        new.replace(self.folder / "prober.json")

    def check_alive(self) -> None:
        """RunError when the prober has ended."""
        if self.prober is not None:
            self.prober.check_alive()

    def _of(self, event: Timed) -> list[tuple[int, Probe]]:
        found = enumerate(self.probes)
        return [(n, probe) for n, probe in found if probe.target == event.target and probe.path is not None and not probe.stopped]

    def _crosses(self, probe: Probe) -> bool:
        if probe.endpoints is None:
            return False
        path = self.path_of(probe.src, probe.dst, probe.endpoints)
        return path is not None and probe.out in [port.interface for port in path]


@contextlib.contextmanager
def pins(made: Pins) -> Iterator[Pins]:
    """Probes flow within the block, which begins with the first of them and ends with the last that arrived."""
    if not made.probes:
        yield made
        return
    made.folder.mkdir()
    made.write()
    if not any(probe.path is not None for probe in made.probes):
        yield made
        return
    with companion("the prober", "fabric.prober", made.folder) as made.prober:
        made.prober.wait_for("ready", BEGIN_S, "send its first packets")
        yield made
        made.check_alive()
