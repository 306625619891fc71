"""Starts the controller process in a folder of its own, and waits until its switches are ready; kills and restarts it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fabric.external import Address
from fabric.graph import Fabric
from fabric.process import Companion, companion

__all__ = ["Controller", "controller_process"]

_LISTEN_DEADLINE_S = 30.0
_READY_DEADLINE_S = 60.0
_MARKERS = ("listening", "ready")


@dataclass
class Controller:
    """A controller process: `companion` is its present life, or its last one."""

    companion: Companion
    _lives: contextlib.ExitStack
    _life: Callable[[], contextlib.AbstractContextManager[Companion]]
    _killed: bool = False

    def kill(self) -> None:
        """End it at once, as a crash would; its switches notice when they ask for it."""
        self.companion.process.kill()
        self.companion.process.wait()
        self._killed = True

    def restart(self) -> None:
        """Start it again in the same folder, on the same port; its markers there are new ones."""
        if not self._killed:
            self.kill()
        for marker in _MARKERS:
            (self.companion.folder / marker).unlink(missing_ok=True)
        self.companion = self._lives.enter_context(self._life())
        self._killed = False

    def check_alive(self) -> None:
        """RunError when it has ended without being told to."""
        if not self._killed:
            self.companion.check_alive()

    def wait_listening(self) -> None:
        """Return when switches may connect."""
        self.companion.wait_for("listening", _LISTEN_DEADLINE_S, "open its port")

    def wait_ready(self) -> None:
        """Return when every switch is connected, dealt with, and has answered a barrier."""
        self.companion.wait_for("ready", _READY_DEADLINE_S, "get barriers back from every switch")

    def exceptions(self) -> int:
        """How many tracebacks its log holds, over all its lives."""
        return self.companion.log.read_text(errors="replace").count("Traceback (most recent call last)")


@contextlib.contextmanager
def controller_process(
    folder: Path, fabric: Fabric, *, app: str, parameters: Mapping[str, Any], poll_ms: int, hash_basis: int, port: int = 6653,
    mbps: float | None = None, hints: Path | None = None, wires: Mapping[str, Any] | None = None, agent: Mapping[str, str] | None = None,
    external: Address | None = None, outside: str = "",
) -> Iterator[Controller]:  # fmt: skip
    """Start `app` (a module or a file) for a fabric; it gets the topology and its own parameters, nothing else.

    `mbps` is the rate that links were built for, which operators know and virtual ports do not tell; `hints` is where it
    shall listen for announcements of a collective, when there will be any. `wires` is what else operators know of their
    links (`fabric.policy.Wires`); `agent` says where hosts and ports take orders: the `socket`, and the file of the `token`.
    With an `external` address there is no app: what is started is the way there, from the network namespace named `outside`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "topology.json").write_text(json.dumps(fabric.to_json()))
    setup = {"app": app, "port": port, "poll_ms": poll_ms, "hash_basis": hash_basis, "parameters": dict(parameters)}
    setup |= {"mbps": mbps, "hints": str(hints) if hints else None, "wires": wires, "agent": agent}
    setup |= {"target": [external.host, external.port], "outside": outside} if external else {}
    (folder / "controller.json").write_text(json.dumps(setup, indent=1))
    life = partial(companion, *((f"the way to the controller at {external}", "fabric.gateway") if external else ("the controller", "fabric.manager")), folder)
    with contextlib.ExitStack() as lives:
        yield Controller(lives.enter_context(life()), lives, life)
