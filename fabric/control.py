"""Starts the controller process in a folder of its own, and waits until its switches are ready."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric.graph import Fabric
from fabric.process import Companion, companion

__all__ = ["Controller", "controller_process"]

_LISTEN_DEADLINE_S = 30.0
_READY_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Controller:
    """A running controller process."""

    companion: Companion

    def wait_listening(self) -> None:
        """Return when switches may connect."""
        self.companion.wait_for("listening", _LISTEN_DEADLINE_S, "open its port")

    def wait_ready(self) -> None:
        """Return when every switch is connected, dealt with, and has answered a barrier."""
        self.companion.wait_for("ready", _READY_DEADLINE_S, "get barriers back from every switch")

    def exceptions(self) -> int:
        """How many tracebacks its log holds."""
        return self.companion.log.read_text(errors="replace").count("Traceback (most recent call last)")


@contextlib.contextmanager
def controller_process(
    folder: Path, fabric: Fabric, *, app: str, parameters: Mapping[str, Any], poll_ms: int, hash_basis: int, port: int = 6653
) -> Iterator[Controller]:
    """Start `app` (a module or a file) for a fabric; it gets the topology and its own parameters, nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "topology.json").write_text(json.dumps(fabric.to_json()))
    setup = {"app": app, "port": port, "poll_ms": poll_ms, "hash_basis": hash_basis, "parameters": dict(parameters)}
    (folder / "controller.json").write_text(json.dumps(setup, indent=1))
    with companion("the controller", "fabric.manager", folder) as running:
        yield Controller(running)
