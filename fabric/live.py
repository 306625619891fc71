"""The network that is up on this machine now, for whoever looks in from another terminal.

Comes in: a point that is up, written into its sandbox's state folder. Goes out: a `Live`, with its namespaces, its switches' answers, and
a note in the point's folder of whoever looked while it was being measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from fabric.errors import MachineError, RequestError
from fabric.graph import Fabric, Port
from fabric.kernel import inside_namespace, namespace_of
from fabric.ovs import OvsControl
from fabric.sandbox import STATE_ROOT, leftovers
from fabric.tcp import Endpoints

__all__ = ["WATCHED", "Live", "announced", "live", "port_between", "watched_s"]

WATCHED = "watched.jsonl"  # in a point's folder: who looked in, from when to when (CLOCK_MONOTONIC)
_FILE = "live.json"


@dataclass(frozen=True)
class Live:
    """A network that is up: `pids` has for every host, and for "" (all switches), a process in its network namespace.

    `connections` are those of its traffic, by source and destination.
    """

    folder: Path
    fabric: Fabric
    ovs: OvsControl
    pids: Mapping[str, int]
    connections: Mapping[tuple[str, str], Endpoints]

    @contextlib.contextmanager
    def inside(self, node: str) -> Iterator[None]:
        """Run the block with this thread in the namespace of a host, or of the switches."""
        descriptor = namespace_of(self.pids[node if node in self.fabric.host_by_name else ""])
        try:
            with inside_namespace(descriptor):
                yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """Note in the point's folder that somebody looked in, whose looking costs the machine time; what was refused has cost none."""
        begin, refused = time.monotonic(), False
        try:
            yield
        except RequestError:
            refused = True
            raise
        finally:
            if self.folder.is_dir() and not refused:
                with open(self.folder / WATCHED, "a") as file:
                    file.write(json.dumps({"what": what, "begin": begin, "end": time.monotonic()}) + "\n")


@contextlib.contextmanager
def announced(
    state: Path, folder: Path, fabric: Fabric, ovs: Path, pids: Mapping[str, int], connections: Mapping[tuple[str, str], Endpoints]
) -> Iterator[None]:
    """Let others find the network that is up, for the time of the block."""
    told = {
        "folder": str(folder.resolve()), "fabric": fabric.to_json(), "ovs": str(ovs), "pids": dict(pids),
        "connections": [[*pair, *astuple(ends)] for pair, ends in connections.items()],
    }  # fmt: skip
    file = state / _FILE
    temporary = state / f"{_FILE}.new"
    temporary.write_text(json.dumps(told))
    temporary.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def live() -> Live:
    """The network that is up now; MachineError when there is none, or nobody may look."""
    if os.geteuid() != 0:
        raise MachineError("network namespaces need root; run the same command with sudo")
    killed = {leftover.folder for leftover in leftovers()}
    for file in sorted(STATE_ROOT.glob(f"[0-9]*/{_FILE}")):
        if file.parent not in killed:
            with contextlib.suppress(OSError):  # it may go down meanwhile
                return _read(json.loads(file.read_text()))
    raise MachineError("no network is up; begin a run, or fabriclab shell FILE, in another terminal, and look in while it lasts")


def _read(told: Mapping[str, Any]) -> Live:
    connections = {(src, dst): Endpoints(*ends) for src, dst, *ends in told["connections"]}
    return Live(Path(told["folder"]), Fabric.from_json(told["fabric"]), OvsControl(Path(told["ovs"])), told["pids"], connections)


def watched_s(folder: Path, window: tuple[float, float]) -> float | None:
    """For how long of a window somebody looked in; None where nobody did."""
    file = folder / WATCHED
    if not file.is_file():
        return None
    spans = [json.loads(line) for line in file.read_text().splitlines()]
    return sum(max(0.0, min(one["end"], window[1]) - max(one["begin"], window[0])) for one in spans) or None


def port_between(fabric: Fabric, a: str, b: str) -> Port | None:
    """A port from which the link between two nodes can be seen, a switch's where it has one; None where no link joins them."""
    for near, far in ((a, b), (b, a)):
        if near in fabric.switch_by_name:
            for port in fabric.ports_of[near]:
                if fabric.peer[port].node == far:
                    return port
    return None
