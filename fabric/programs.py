"""A program of anybody's in the host of a rank: what it is told, what it lives in, and that nothing of it outlives its rank.

Comes in: the plan's `program` part, in a child that is in its host's network namespace already. Goes out: the program's output in
files, and how it ended. It lives in namespaces of its own: its host's name, names for all others, and processes that end
with it, whatever it started.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyroute2 import DiagSocket

from fabric.children import hear, tell
from fabric.errors import MachineError
from fabric.kernel import die_with_parent, mount_kind, mount_over, new_process_namespace, own_mounts, own_names

__all__ = ["MASTER_PORT", "Ended", "Programs", "environment", "output", "serve"]

MASTER_PORT = 29500  # PyTorch's own default
_CONG = 4  # INET_DIAG_CONG, linux/inet_diag.h
_ESTABLISHED = 1 << 1  # TCP_ESTABLISHED, include/net/tcp_states.h
_LOOK_S = 0.5
_WORDS = 300  # characters of a program's last words


@dataclass(frozen=True)
class Programs:
    """A command to run once in the host of each rank: `hosts`, `ips` and `interfaces` are by rank, `names` the address of every host.

    `folder` is where relative paths begin, `output` where each rank's output goes, `busy` the ports of others' sockets there.
    """

    command: str
    hosts: Sequence[str]
    ips: Sequence[str]
    interfaces: Sequence[str]
    names: Mapping[str, str]
    folder: str
    output: str
    timeout_s: float
    busy: Sequence[int] = ()

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON can hold, and `Programs(**...)` reads."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a rank's program ended: `code` is its exit code, 128 + n after signal n, None when it was stopped by us; times in s.

    `words` is the last line of what it printed as errors, `tcps` the congestion controls of its connections over the network.
    """

    started: float
    ended: float
    code: int | None
    words: str
    tcps: Sequence[str]


def environment(plan: Programs, rank: int) -> dict[str, str]:
    """What a rank's program is told, beside the environment that fabriclab was started in; python3 is fabriclab's own."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "RANK": str(rank), "WORLD_SIZE": str(len(plan.hosts)), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": plan.ips[0], "MASTER_PORT": str(MASTER_PORT),
        "GLOO_SOCKET_IFNAME": plan.interfaces[rank], "NCCL_SOCKET_IFNAME": plan.interfaces[rank],
        "FABRICLAB_HOST": plan.hosts[rank], "FABRICLAB_INTERFACE": plan.interfaces[rank], "FABRICLAB_ADDRESS": plan.ips[rank],
        "FABRICLAB_ADDRESSES": ",".join(plan.ips), "FABRICLAB_REPORT": str(output(Path(plan.output), rank, "json")),
    }  # fmt: skip


def output(folder: Path, rank: int, what: str) -> Path:
    """The file of what a rank's program printed (`out`), printed as errors (`err`), or reported (`json`)."""
    return folder / f"rank-{rank:03d}.{what}"


def serve(plan: Programs, rank: int, channel: socket.socket) -> None:
    """A child's whole life: wait for the word, run the program once, and say how it ended."""
    while (message := hear(channel))["do"] != "end":
        if message["do"] == "run":
            time.sleep(max(0.0, message["release"] - time.monotonic()))
            try:
                tell(channel, **asdict(_run(plan, rank, channel)))
            except MachineError as err:
                tell(channel, error=str(err))
        elif message["do"] == "report":
            tell(channel, sockets=[], watched=0)
        elif message["do"] != "stop":  # a stop that crossed the program's own end
            tell(channel, did=message["do"])


def _run(plan: Programs, rank: int, channel: socket.socket) -> Ended:
    """Start the program, and wait for its end, or for the word to stop it."""
    _move_in(plan, rank)
    started, tcps = time.monotonic(), set[str]()
    first = os.fork()  # the first process of its namespace: with it all others end
    if first == 0:
        _first_process(plan, rank)
    stopped = False
    with _pidfd(first) as ended, DiagSocket() as sockets:
        while True:
            ready, _, _ = select.select([ended, channel.fileno()], [], [], _LOOK_S)
            if ended in ready:
                break
            if ready:
                hear(channel)
                os.kill(first, signal.SIGKILL)
                stopped = True
                break
            tcps |= _tcps(sockets, plan)
    _, status = os.waitpid(first, 0)
    code = None if stopped else os.waitstatus_to_exitcode(status)
    return Ended(started, time.monotonic(), code, _last_words(output(Path(plan.output), rank, "err")), sorted(tcps))


def _move_in(plan: Programs, rank: int) -> None:
    """Names and mounts of this child's own; processes that it starts from now on see each other only."""
    own_names(plan.hosts[rank])
    own_mounts()
    names = output(Path(plan.output), rank, "hosts")
    names.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {host}\n" for host, ip in plan.names.items()))
    mount_over(names, "/etc/hosts")
    new_process_namespace()


def _first_process(plan: Programs, rank: int) -> None:
    """Start the command, adopt whoever is left behind, and end as the command did."""
    code = 127
    try:
        die_with_parent(signal.SIGKILL)
        own_mounts()
        mount_kind("proc", "/proc")  # of these processes
        mount_kind("sysfs", "/sys")  # with this host's interfaces
        with open(output(Path(plan.output), rank, "out"), "wb") as out, open(output(Path(plan.output), rank, "err"), "wb") as err:
            program = subprocess.Popen(
                ["/bin/sh", "-c", plan.command], cwd=plan.folder, env={**os.environ, **environment(plan, rank)},
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
        while True:
            pid, status = os.wait()
            if pid == program.pid:
                ended = os.waitstatus_to_exitcode(status)
                code = ended if ended >= 0 else 128 - ended
                break
    except Exception as err:  # nobody but its file would hear of it
        with contextlib.suppress(OSError):
            output(Path(plan.output), rank, "err").write_text(f"cannot be started: {err}\n")
    finally:
        os._exit(code)


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    """A descriptor that becomes readable when the process has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _tcps(sockets: DiagSocket, plan: Programs) -> set[str]:
    """The congestion controls of all connections over the network in this namespace that are not others'."""
    found = set()
    for one in sockets.get_sock_stats(family=socket.AF_INET, states=_ESTABLISHED, extensions=1 << _CONG - 1):
        ports = {one["idiag_sport"], one["idiag_dport"]}
        if ports.isdisjoint(plan.busy) and not one["idiag_src"].startswith("127.") and one["idiag_src"] != one["idiag_dst"]:
            found.add(one.get_attr("INET_DIAG_CONG") or "")
    return found


def _last_words(file: Path) -> str:
    """The last line that is not empty; nothing where there is none."""
    try:
        lines = file.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:_WORDS] for line in reversed(lines) if line.strip()), "")
