"""A private Open vSwitch: its own database, daemon, sockets and logs in a folder of ours, stopped by its own handles.

An Open vSwitch that the machine already runs is neither needed nor touched. Mininet's ovs-vsctl and ovs-ofctl follow
through the environment. `trace` asks the running switch itself where a packet would go, hash included.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from fabric.errors import MachineError, RunError
from fabric.kernel import die_with_parent, has_module
from fabric.polling import until
from fabric.release import can_release

__all__ = ["Datapath", "OvsControl", "PrivateOvs", "allocator_environment", "best_datapath", "private_ovs"]

Datapath = Literal["system", "netdev", "dummy"]
_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_ENVIRONMENT = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
_START_DEADLINE_S = 15.0


def best_datapath() -> Datapath:
    """`system` (the kernel's) where the openvswitch module is, else `netdev` (userspace, inside ovs-vswitchd).

    The kernel's would be no network without the program that takes packets off their senders' accounts (`fabric.hooks`).
    """
    return "system" if has_module("openvswitch") and can_release() else "netdev"


@dataclass
class OvsControl:
    """What can be asked of a running instance whose sockets are in `folder`, also by who did not start it."""

    folder: Path

    def appctl(self, method: str, *words: str) -> str:
        """Call a method of ovs-vswitchd's control socket (what ovs-appctl does, without a process per call)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(10)
            channel.connect(str(self.folder / "vswitchd.ctl"))
            channel.sendall(json.dumps({"id": 0, "method": method, "params": words}).encode())
            answer = _one_json(channel)
        if answer["error"] is not None:
            raise RunError(f"ovs-vswitchd refused {method} {' '.join(words)}: {str(answer['error']).strip()}")
        return str(answer["result"])

    def trace(self, bridge: str, flow: str) -> list[int]:
        """The OpenFlow ports that `bridge` would send a packet of `flow` (ovs-ofctl syntax) out of, in order."""
        text = self.appctl("ofproto/trace", bridge, flow)
        return [int(port) for port in re.findall(r"^ *output:(\d+)$", text, re.MULTILINE)]


@dataclass
class PrivateOvs(OvsControl):
    """A running instance: `folder` holds its sockets, database and logs."""

    datapath: Datapath
    database: subprocess.Popen[bytes]
    daemon: subprocess.Popen[bytes]

    def vsctl(self, *words: str, timeout_s: int = 60) -> str:
        """Run ovs-vsctl on this instance and return what it printed; RunError with its own words when it fails."""
        command = ["ovs-vsctl", f"--timeout={timeout_s}", f"--db=unix:{self.folder}/db.sock", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RunError(f"ovs-vsctl failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}; log: {self.log}")
        return done.stdout

    def ofctl(self, command: str, bridge: str, *words: str) -> str:
        """Run an ovs-ofctl command on a bridge, beside its controller; RunError with its own words when it fails."""
        full = ["ovs-ofctl", "--timeout=10", "-O", "OpenFlow13", command, f"unix:{self.folder}/{bridge}.mgmt", *words]
        done = subprocess.run(full, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RunError(f"ovs-ofctl {command} {bridge} failed: {done.stderr.strip()}; log: {self.log}")
        return done.stdout

    @property
    def log(self) -> Path:
        """The log file of ovs-vswitchd."""
        return self.folder / "ovs-vswitchd.log"

    def check_alive(self) -> None:
        """RunError when a daemon has ended."""
        for name, process in (("ovsdb-server", self.database), ("ovs-vswitchd", self.daemon)):
            if process.poll() is not None:
                raise RunError(f"{name} ended by itself (code {process.returncode}); its log ends: {_tail(self.folder / (name + '.log'))}")


@contextlib.contextmanager
def private_ovs(folder: Path, datapath: Datapath) -> Iterator[PrivateOvs]:
    """Start Open vSwitch in `folder`, export it to the tools Mininet calls, and stop it at the end.

    `dummy` (switches without packets, for tests of controllers) needs no root.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update({name: str(folder) for name in _ENVIRONMENT})
    try:
        with contextlib.ExitStack() as stack:
            database = stack.enter_context(_database(folder))
            daemon = stack.enter_context(_daemon(folder, datapath))
            yield PrivateOvs(folder, datapath, database, daemon)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    file = folder / "conf.db"
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    _run_tool(["ovsdb-tool", "create", str(file), str(_SCHEMA)])
    command = ["ovsdb-server", str(file), f"--remote=punix:{folder}/db.sock", f"--unixctl={folder}/ovsdb.ctl"]
    with _running(command, folder, "ovsdb-server") as process:
        _await(partial(_answers, folder / "db.sock"), process, folder / "ovsdb-server.log", "its database socket")
        _run_tool(["ovs-vsctl", "--timeout=10", "--no-wait", f"--db=unix:{folder}/db.sock", "init"])
        yield process


@contextlib.contextmanager
def _daemon(folder: Path, datapath: Datapath) -> Iterator[subprocess.Popen[bytes]]:
    command = ["ovs-vswitchd", f"unix:{folder}/db.sock", f"--unixctl={folder}/vswitchd.ctl"]
    if datapath == "dummy":
        command += ["--enable-dummy=override", "--disable-system", "--disable-system-route"]
    with _running(command, folder, "ovs-vswitchd", allocator_environment()) as process:
        _await(partial(_answers, folder / "vswitchd.ctl"), process, folder / "ovs-vswitchd.log", "its control socket")
        yield process


def allocator_environment() -> dict[str, str]:
    """The memory allocator ovs-vswitchd runs with: tcmalloc where it is installed, else glibc's, told not to give back.

    In every turn of its loop the userspace datapath allocates and frees 32 packet buffers for each port, traffic or
    not. glibc's default returns that memory to the kernel each time and faults it in again, which takes most of a core
    on a fabric of 20 switches and multiplies its idle latency; benchmarks/ovs_allocator.py measures it.
    """
    library = ctypes.util.find_library("tcmalloc_minimal")
    if library:
        return {"LD_PRELOAD": library}
    keep = str(1 << 30)
    return {"MALLOC_TRIM_THRESHOLD_": keep, "MALLOC_MMAP_THRESHOLD_": keep, "MALLOC_TOP_PAD_": str(64 << 20)}


def _run_tool(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MachineError(f"{command[0]} is not installed; run .ci/provision (package openvswitch-switch)") from None
    if done.returncode != 0:
        raise RunError(f"{command[0]} failed: {done.stderr.strip()}")


@contextlib.contextmanager
def _running(
    command: list[str], folder: Path, name: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with open(folder / f"{name}.log", "ab") as log:
        # A session of its own: a Ctrl-C at the terminal must reach the runner alone, which stops the daemon in order.
        process = subprocess.Popen(
            [*command, "-vconsole:info", "-vsyslog:off", "-vfile:off"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=partial(die_with_parent),
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    try:
        yield process
    finally:
        # Nothing of it is to be kept, and an orderly end takes a second with many ports.
        process.kill()
        process.wait()


def _answers(path: Path) -> bool:
    """Whether somebody listens at a Unix socket; its file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        return channel.connect_ex(str(path)) == 0


def _await(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    if not until(lambda: condition() or process.poll() is not None, _START_DEADLINE_S) or process.poll() is not None:
        raise RunError(f"{log.stem} did not open {what} within {_START_DEADLINE_S:.0f} s; its log ends: {_tail(log)}")


def _tail(log: Path, lines: int = 3) -> str:
    try:
        return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def _one_json(channel: socket.socket) -> dict[str, object]:
    text = b""
    while chunk := channel.recv(65536):
        text += chunk
        with contextlib.suppress(ValueError):
            answer: dict[str, object] = json.loads(text)
            return answer
    raise RunError("ovs-vswitchd closed its control socket in the middle of an answer")
