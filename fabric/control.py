"""Starts the controller process in a folder of its own, waits until its switches are ready, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric.errors import RunError
from fabric.graph import Fabric

__all__ = ["Controller", "controller_process"]

_LISTEN_DEADLINE_S = 30.0
_READY_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 5.0


@dataclass
class Controller:
    """A running controller process; `folder` is what it reads and writes."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> Path:
        """Everything the process printed."""
        return self.folder / "controller.log"

    def check_alive(self) -> None:
        """RunError with the end of its log when the process has ended."""
        if self.process.poll() is not None:
            raise RunError(f"the controller ended by itself (code {self.process.returncode}): {self._last_words()}; log: {self.log}")

    def wait_listening(self) -> None:
        """Return when switches may connect."""
        self._wait("listening", _LISTEN_DEADLINE_S, "open its port")

    def wait_ready(self) -> None:
        """Return when every switch is connected, dealt with, and has answered a barrier."""
        self._wait("ready", _READY_DEADLINE_S, "get barriers back from every switch")

    def exceptions(self) -> int:
        """How many tracebacks its log holds."""
        return self.log.read_text(errors="replace").count("Traceback (most recent call last)")

    def _wait(self, marker: str, deadline_s: float, what: str) -> None:
        until = time.monotonic() + deadline_s
        while not (self.folder / marker).exists():
            self.check_alive()
            if time.monotonic() > until:
                raise RunError(f"the controller did not {what} within {deadline_s:.0f} s: {self._last_words()}; log: {self.log}")
            time.sleep(0.01)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it printed nothing"


@contextlib.contextmanager
def controller_process(
    folder: Path, fabric: Fabric, *, app: str, parameters: Mapping[str, Any], poll_ms: int, hash_basis: int, port: int = 6653
) -> Iterator[Controller]:
    """Start `app` (a module or a file) for a fabric; it gets the topology and its own parameters, nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "topology.json").write_text(json.dumps(fabric.to_json()))
    setup = {"app": app, "port": port, "poll_ms": poll_ms, "hash_basis": hash_basis, "parameters": dict(parameters)}
    (folder / "controller.json").write_text(json.dumps(setup, indent=1))
    with open(folder / "controller.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fabric.manager"],
            env={**os.environ, "FABRIC_RUN": str(folder)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    controller = Controller(folder, process)
    try:
        yield controller
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
