"""Real networks for tests: one brought up in this process, or the command line run as a person would.

Each begins by waiting until no other run is on the machine, for two at once would falsify each other; what another run
has left behind is never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fabric.graph import Fabric
from fabric.kernel import read_sysctl

DEADLINE_S = 60.0
PATIENCE_S = "30"
TRIES = 3
RUN_DEADLINE_S = 270.0
BUSY_DEADLINE_S = 240.0
BUSY = "another run is using this machine"
OTHERS = "the end of the run that somebody else has on this machine"
COMMAND = (sys.executable, "-c", "from fabric.cli import main; main()")
SYSCTLS = (
    "net.core.wmem_default", "net.core.rmem_default", "net.ipv4.tcp_allowed_congestion_control",
    "net.ipv4.tcp_congestion_control", "net.ipv4.ip_forward", "net.ipv6.conf.all.disable_ipv6",
)  # fmt: skip


def _as_a_shell_would() -> None:
    """Before the command starts: Ctrl-C works, even if it does not here; and a test run that is killed takes it along."""
    from fabric.kernel import die_with_parent

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent()


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return when the condition holds; fail, naming it, when it does not within the deadline."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {deadline_s:.0f} s"
        time.sleep(0.02)


def marked_processes(owner: int | None = None) -> dict[int, str]:
    """Processes that carry the mark of a sandbox, of one owner or of any: their command lines by pid."""
    from fabric.sandbox import MARK

    wanted = f"{MARK}={owner or ''}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "environ").read_bytes().split(b"\0")
            if any(word == wanted if owner else word.startswith(wanted) for word in words):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


@dataclass(frozen=True)
class MachineState:
    """What a run may not change for good: interfaces of this namespace, sysctls, state folders, processes."""

    interfaces: frozenset[str]
    sysctls: tuple[str, ...]
    folders: frozenset[str]
    processes: frozenset[int]


def machine_state() -> MachineState:
    """The machine as it is now, seen from this thread's network namespace."""
    from fabric.sandbox import STATE_ROOT

    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    return MachineState(
        frozenset(link["ifname"] for link in links),
        tuple(read_sysctl(name) for name in SYSCTLS),
        frozenset(path.name for path in STATE_ROOT.glob("[0-9]*")),
        frozenset(marked_processes()),
    )


@contextlib.contextmanager
def lock_held() -> Iterator[bool]:
    """Whether no run holds the lock of this machine; none begins within the block then."""
    from fabric.sandbox import STATE_ROOT

    STATE_ROOT.mkdir(parents=True, exist_ok=True)
    with open(STATE_ROOT / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def nobody_runs() -> bool:
    """Whether no run is on this machine now."""
    with lock_held() as held:
        return held


def quiet_state() -> MachineState:
    """The machine's state between two runs."""
    found: list[MachineState] = []

    def look() -> bool:
        with lock_held() as held:
            if held:
                found.append(machine_state())
        return held

    wait_for(look, OTHERS, BUSY_DEADLINE_S)
    return found[0]


@pytest.fixture(scope="session")
def wait() -> Callable[..., None]:
    """`wait(condition, "what")` with a deadline."""
    return wait_for


@pytest.fixture
def marked() -> Callable[..., dict[int, str]]:
    """`marked(pid)`: the processes of that run, with their command lines."""
    return marked_processes


@pytest.fixture(scope="session")
def start_alone() -> Callable[..., subprocess.Popen[str]]:
    """`start_alone(fabriclab, *words)` starts a run, and again if somebody else's was a moment faster."""

    def begun(process: subprocess.Popen[str]) -> bool:
        return process.poll() is not None or bool(marked_processes(process.pid))

    def start(command: Fabriclab, *words: str) -> subprocess.Popen[str]:
        until = time.monotonic() + BUSY_DEADLINE_S
        while True:
            wait_for(nobody_runs, OTHERS, until - time.monotonic())
            process = command.start(*words)
            wait_for(partial(begun, process), "the begin of a run")
            if process.poll() != 3:
                return process
            assert BUSY in command.finish(process).stderr

    return start


@pytest.fixture
def state() -> Callable[[], MachineState]:
    """`state()` is what a run may not change for good, looked at while there is none."""
    return quiet_state


@pytest.fixture
def state_now() -> Callable[[], MachineState]:
    """`state_now()` is the same in the middle of a run."""
    return machine_state


@contextlib.contextmanager
def own_sandbox() -> Iterator[Any]:
    """A sandbox, as soon as nobody else has one."""
    from fabric.errors import MachineError
    from fabric.sandbox import sandbox

    until = time.monotonic() + BUSY_DEADLINE_S
    with contextlib.ExitStack() as stack:
        while True:
            wait_for(nobody_runs, OTHERS, until - time.monotonic())
            try:
                place = stack.enter_context(sandbox())
                break
            except MachineError as err:  # somebody was faster
                if BUSY not in str(err):
                    raise
        yield place


@pytest.fixture(scope="session")
def alone() -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """`with alone() as place:` — a sandbox in this process."""
    return own_sandbox


@pytest.fixture(scope="session")
def bring_up() -> Callable[..., contextlib.AbstractContextManager[Any]]:
    """`with bring_up(fabric, shape) as net:` — a network in this process, its switches alive but without rules."""

    @contextlib.contextmanager
    def up(fabric: Fabric, shape: Any, inside_mbps: float | None = None) -> Iterator[Any]:
        from fabric.emulation import machine_sysctls
        from fabric.endpoints import Provided
        from fabric.network import ControllerAddress, network
        from fabric.ovs import best_datapath, private_ovs

        with own_sandbox() as place:
            place.set_machine_sysctls(machine_sysctls(Provided("cubic", "cubic", "kernel")))
            folder = Path(tempfile.mkdtemp(dir=place.folder, prefix="ovs-"))
            shapes = dict.fromkeys(fabric.scale, shape)
            with (
                place.namespace(),
                private_ovs(folder, best_datapath()) as ovs,
                network(fabric, shapes, ovs, inside_mbps) as net,
            ):
                net.start()
                net.connect(ControllerAddress(6653))
                yield net

    return up


@dataclass
class Fabriclab:
    """The command line, in a folder of its own; `started` are the runs that are still to be ended."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def file(self, text: str, name: str = "tiny.yaml") -> Path:
        """Write an experiment file."""
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command in a process group of its own, with SIGINT as a shell would leave it; `shell` can be typed to."""
        process = subprocess.Popen(
            [*COMMAND, *words], cwd=self.folder, text=True, stdin=subprocess.PIPE if words[0] == "shell" else subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True, env={**os.environ, "COLUMNS": "200"},
            preexec_fn=_as_a_shell_would,
        )  # fmt: skip
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait for its end and take what it printed."""
        out, err = process.communicate(timeout=RUN_DEADLINE_S)
        self.started.remove(process)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return self.finish(self.start(*words))

    def run(self, text: str, *words: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        """Run an experiment, which succeeds, and return what it printed and its run folder.

        Where the hypervisor took so much of the machine that the verdict is FAIL for it, nothing can be said of the
        network: it is run again, whatever came out, at most twice.
        """
        for _ in range(TRIES):
            out = Path(tempfile.mkdtemp(dir=self.folder, prefix="out-"))
            command = ("run", str(self.file(text)), "--json", "--out", str(out), "--patience", PATIENCE_S, *words)
            done = self.alone(*command)
            if not re.search(r"the hypervisor took [^\n]*\(FAIL above", done.stdout + done.stderr):
                break
        assert done.returncode == 0, done.stderr
        (folder,) = out.iterdir()
        return done, folder

    def alone(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that needs the machine to itself, as soon as nobody else has it."""
        until = time.monotonic() + BUSY_DEADLINE_S
        done = self.call(*words)
        while done.returncode == 3 and BUSY in done.stderr:
            wait_for(nobody_runs, OTHERS, until - time.monotonic())
            done = self.call(*words)
        return done

    def end(self) -> None:
        """Stop what a test left running, and clean after it."""
        for process in self.started:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.communicate()


@pytest.fixture(scope="module")
def module_fabriclab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabriclab]:
    """The command line, for runs that several tests look at."""
    made = Fabriclab(tmp_path_factory.mktemp("cli"))
    yield made
    made.end()


@pytest.fixture
def fabriclab(tmp_path: Path) -> Iterator[Fabriclab]:
    """The command line."""
    made = Fabriclab(tmp_path)
    yield made
    made.end()
