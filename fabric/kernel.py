"""The few things asked of Linux that Python does not offer: network namespaces, sysctls, modules, end-with-parent.

Nothing here knows about fabrics. Every change made to a sysctl can be undone from what `set_sysctl` returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fabric.errors import MachineError

__all__ = [
    "die_with_parent",
    "enter_namespace",
    "has_module",
    "inside_namespace",
    "mount_kind",
    "mount_over",
    "namespace_of",
    "new_network_namespace",
    "new_process_namespace",
    "own_mounts",
    "own_names",
    "packets_with_ce",
    "process_started_at",
    "read_sysctl",
    "set_sysctl",
    "silence_ipv6",
]

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x04000000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18  # linux/mount.h
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise MachineError(f"{what}: {os.strerror(number)}; network namespaces need root (sudo) and a kernel with CONFIG_NET_NS")


def namespace_of(pid: int | None = None) -> int:
    """An open descriptor of a process's network namespace, this thread's by default; the caller closes it."""
    return os.open("/proc/thread-self/ns/net" if pid is None else f"/proc/{pid}/ns/net", os.O_RDONLY)


def new_network_namespace() -> None:
    """Move this thread into a new, empty network namespace."""
    _checked(_libc.unshare(_CLONE_NEWNET), "a new network namespace")


def enter_namespace(descriptor: int) -> None:
    """Move this thread into the namespace of an open descriptor."""
    _checked(_libc.setns(descriptor, _CLONE_NEWNET), "entering a network namespace")


@contextlib.contextmanager
def inside_namespace(descriptor: int) -> Iterator[None]:
    """Run the block with this thread in the namespace of an open descriptor, and come back."""
    home = namespace_of()
    try:
        enter_namespace(descriptor)
        try:
            yield
        finally:
            enter_namespace(home)
    finally:
        os.close(home)


def new_process_namespace() -> None:
    """Have the processes that this one forks from now on see none but each other; with the first of them all others end."""
    _checked(_libc.unshare(_CLONE_NEWPID), "a new process namespace")


def own_names(host: str) -> None:
    """Give this process a host name of its own."""
    _checked(_libc.unshare(_CLONE_NEWUTS), "a new namespace of names")
    socket.sethostname(host)


def own_mounts() -> None:
    """Have whatever this process mounts from now on be seen by itself and its children alone."""
    _checked(_libc.unshare(_CLONE_NEWNS), "a new namespace of mounts")
    _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mounts of its own")


def mount_over(file: Path, place: str) -> None:
    """Let a file be seen in another one's place."""
    _checked(_libc.mount(os.fsencode(file), os.fsencode(place), None, _MS_BIND, None), f"{file} in place of {place}")


def mount_kind(kind: str, place: str) -> None:
    """Mount a file system of the kernel's own, say proc, of this process's namespaces."""
    _checked(_libc.mount(kind.encode(), os.fsencode(place), kind.encode(), 0, None), f"{kind} on {place}")


def die_with_parent(ending: int = signal.SIGTERM) -> None:
    """Have the kernel end this process when the thread that started it ends; for `preexec_fn`."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(ending), 0, 0, 0)


def _sysctl_path(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def read_sysctl(name: str) -> str:
    """The value of a sysctl, as seen from this thread's network namespace."""
    return _sysctl_path(name).read_text().strip()


def set_sysctl(name: str, value: str) -> str:
    """Set a sysctl, read it back, and return what it was before; MachineError when it did not take."""
    before = read_sysctl(name)
    if before != value:
        try:
            _sysctl_path(name).write_text(value)
        except OSError as err:
            raise MachineError(f"sysctl {name}={value}: {err.strerror}; it needs root in the initial network namespace") from err
        if read_sysctl(name).split() != value.split():
            raise MachineError(f"sysctl {name}: asked for {value}, the kernel kept {read_sysctl(name)}")
    return before


def packets_with_ce() -> int:
    """How many packets with CE this thread's network namespace has received (IpExt InCEPkts of /proc/net/netstat)."""
    lines = [line.split() for line in Path("/proc/thread-self/net/netstat").read_text().splitlines() if line.startswith("IpExt:")]
    names, values = lines
    return int(values[names.index("InCEPkts")])


def silence_ipv6() -> None:
    """Keep this namespace's interfaces from sending IPv6 discovery, which would stand in every byte count."""
    for scope in ("all", "default"):
        name = f"net.ipv6.conf.{scope}.disable_ipv6"
        if _sysctl_path(name).exists():
            set_sysctl(name, "1")


def has_module(name: str) -> bool:
    """Whether a kernel module is loaded, built in, or can be loaded now (it is, then)."""
    if Path("/sys/module", name).exists():
        return True
    with contextlib.suppress(OSError):
        return subprocess.run(["modprobe", "-q", name], capture_output=True, check=False).returncode == 0
    return False


def process_started_at(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (with its pid this names it for ever); None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
