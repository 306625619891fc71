"""The place a run happens in: network namespaces of its own, a state folder, and sysctls that are put back.

Everything that a run makes lives inside such a namespace: switches' interfaces, Open vSwitch, the controller's port. When the run's
processes end the kernel removes the namespace with all that is in it, so the user's own interfaces, Open vSwitch and
Mininet are never met. What outlives a killed run is one folder under STATE_ROOT, which says how to undo the rest;
`fabriclab clean` reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from fabric.errors import MachineError
from fabric.kernel import (
    enter_namespace,
    namespace_of,
    new_network_namespace,
    process_started_at,
    read_sysctl,
    set_sysctl,
    silence_ipv6,
)
from fabric.polling import until

__all__ = ["MARK", "STATE_ROOT", "Leftover", "Sandbox", "clean", "leftovers", "sandbox"]

STATE_ROOT = Path("/run/fabriclab")
MARK = "FABRICLAB_SANDBOX"  # in the environment of every process of a run: how `clean` knows them


@dataclass
class Sandbox:
    """A run's place: `folder` is its state folder, short enough for Unix sockets."""

    folder: Path
    _home: int = field(default_factory=namespace_of)  # the network namespace that the run was started in
    _sysctls: dict[str, str] = field(default_factory=dict)

    def set_machine_sysctls(self, values: Mapping[str, str]) -> None:
        """Set sysctls of the machine for the time of this run; the old values are on disk first."""
        for name, value in values.items():
            self._sysctls.setdefault(name, read_sysctl(name))
            self._record()
            set_sysctl(name, value)

    @contextlib.contextmanager
    def namespace(self) -> Iterator[None]:
        """Run the block in a new network namespace with its loopback up; all that is made in it goes with it."""
        try:
            new_network_namespace()
            silence_ipv6()
            with IPRoute() as netlink:
                netlink.link("set", index=1, state="up")
            yield
        finally:
            enter_namespace(self._home)

    @property
    def outside(self) -> str:
        """A name by which a process of this run can open the network namespace that the run was started in."""
        return f"/proc/{os.getpid()}/fd/{self._home}"

    def close(self) -> None:
        """Put the sysctls back and remove the state folder."""
        os.close(self._home)
        _restore(self._sysctls)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self) -> None:
        state = {"pid": os.getpid(), "started": process_started_at(os.getpid()), "sysctls": self._sysctls}
        temporary = self.folder / "state.json.new"
        temporary.write_text(json.dumps(state))
        temporary.replace(self.folder / "state.json")


@contextlib.contextmanager
def sandbox() -> Iterator[Sandbox]:
    """Open a new sandbox; one at a time on a machine, since two would falsify each other's timing."""
    if os.geteuid() != 0:
        raise MachineError("network namespaces need root; run the same command with sudo")
    with _only_one():
        folder = STATE_ROOT / str(os.getpid())
        folder.mkdir(parents=True, exist_ok=True)
        place = Sandbox(folder)
        place._record()
        os.environ[MARK] = str(os.getpid())
        try:
            yield place
        finally:
            place.close()
            os.environ.pop(MARK, None)


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    STATE_ROOT.mkdir(parents=True, exist_ok=True)
    with open(STATE_ROOT / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise MachineError(
                f"another run is using this machine (process {lock.read().strip() or 'unknown'}); "
                "two at once would falsify each other's timing: wait for it or interrupt it"
            ) from None
        _refuse_leftovers()
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
        lock.truncate(0)


def _refuse_leftovers() -> None:
    found = leftovers()
    if found:
        raise MachineError(f"a killed run (process {found[0].pid}) left things behind; remove them with: fabriclab clean")


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a run that was killed left: its state folder, the sysctls to put back, its processes still alive."""

    folder: Path
    pid: int
    sysctls: Mapping[str, str]
    processes: tuple[int, ...]


def leftovers() -> list[Leftover]:
    """Every killed run whose traces are still here; a run that is alive is not among them."""
    found = []
    for folder in sorted(STATE_ROOT.glob("[0-9]*")):
        state = _state(folder)
        if process_started_at(state["pid"]) == state["started"] and state["started"] is not None:
            continue
        found.append(Leftover(folder, state["pid"], state["sysctls"], _marked(state["pid"])))
    return found


def _state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {"pid": int(folder.name), "started": None, "sysctls": {}}
    return state


def _marked(owner: int) -> tuple[int, ...]:
    """Processes that carry the mark of a run in their environment."""
    mark = f"{MARK}={owner}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return tuple(found)


def clean(leftover: Leftover, *, deadline_s: float = 5.0) -> None:
    """Remove exactly what one killed run left: its processes, its sysctls, its folder."""
    for ending, wait_s in ((signal.SIGTERM, deadline_s), (signal.SIGKILL, deadline_s)):
        for pid in _marked(leftover.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, ending)
        until(lambda: not _marked(leftover.pid), wait_s, every_s=0.05)
    if still := _marked(leftover.pid):
        raise MachineError(f"processes {still} of the killed run {leftover.pid} would not end; end them by hand, then clean again")
    _restore(leftover.sysctls)
    shutil.rmtree(leftover.folder)


def _restore(sysctls: Mapping[str, str]) -> None:
    for name, value in sysctls.items():
        set_sysctl(name, value)
