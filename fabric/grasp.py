"""Other processes' TCP sockets, found by their flow and taken hold of, as a debugger does.

Comes in: a host's process and a flow. Goes out: a duplicate of the socket, on which options can be set and read: the
owner's connection is the same one. Needs root, and Linux 5.6 for pidfd_getfd(2).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from fabric.errors import MachineError
from fabric.policy import FlowKey

__all__ = ["Grasp", "reversed_flow"]

_PIDFD_GETFD = 438  # the same number on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


def reversed_flow(flow: FlowKey) -> FlowKey:
    """The other direction of a connection: its acknowledgements.

    >>> str(reversed_flow(FlowKey("10.0.0.1", 20000, "10.0.0.9", 5001)))
    '10.0.0.9:5001>10.0.0.1:20000'
    """
    return FlowKey(flow.dst_ip, flow.dst_port, flow.src_ip, flow.src_port, flow.protocol)


class Grasp:
    """The sockets of the hosts whose processes are `pids`. What is known of who owns what is looked up again when it fails."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._namespaces = {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in pids.values()}
        self._inodes: dict[str, dict[FlowKey, int]] = {host: {} for host in pids}
        self._owners: dict[int, tuple[int, int]] = {}

    def hold(self, host: str, flow: FlowKey) -> socket.socket | None:
        """A duplicate of the host's socket that sends `flow`, for the caller to close; None when it has no such socket."""
        inode = self._inodes[host].get(flow)
        if inode is None:
            self._inodes[host] = dict(_sockets(self._pids[host]))
            inode = self._inodes[host].get(flow)
        if not inode:
            return None
        for fresh in (False, True):
            if fresh or inode not in self._owners:
                self._owners = dict(self._all_owners())
            if inode in self._owners and (held := _duplicate(*self._owners[inode])) is not None:
                if _flow_of(held) == flow:
                    return held
                held.close()
        del self._inodes[host][flow]
        return None

    def _all_owners(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """The process and descriptor of every socket in the hosts' namespaces, by its inode."""
        for place in Path("/proc").iterdir():
            if not place.name.isdigit():
                continue
            try:
                if os.stat(place / "ns" / "net").st_ino not in self._namespaces:
                    continue
                descriptors = os.listdir(place / "fd")
            except OSError:
                continue  # it ended meanwhile
            for number in descriptors:
                try:
                    target = os.readlink(place / "fd" / number)
                except OSError:
                    continue
                if target.startswith("socket:["):
                    yield int(target[8:-1]), (int(place.name), int(number))


def _sockets(pid: int) -> Iterator[tuple[FlowKey, int]]:
    """The flow and inode of every IPv4 TCP socket in a process's namespace (/proc/PID/net/tcp)."""
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        (src_ip, src_port), (dst_ip, dst_port) = _address(words[1]), _address(words[2])
        yield FlowKey(src_ip, src_port, dst_ip, dst_port), int(words[9])


def _address(text: str) -> tuple[str, int]:
    """An address as the kernel prints it: the word as it lies in memory, and the port.

    >>> _address("0100000A:1389") if __import__("sys").byteorder == "little" else ("10.0.0.1", 5001)
    ('10.0.0.1', 5001)
    """
    word, port = text.split(":")
    return socket.inet_ntoa(struct.pack("=I", int(word, 16))), int(port, 16)


def _duplicate(pid: int, number: int) -> socket.socket | None:
    """A process's descriptor as one of our own; None when it is gone."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        ours = _libc.syscall(_PIDFD_GETFD, process, number, 0)
    finally:
        os.close(process)
    if ours >= 0:
        return socket.socket(fileno=ours)
    error = ctypes.get_errno()
    if error in (1, 38):  # EPERM, ENOSYS
        raise MachineError(f"another process's socket cannot be taken hold of: {os.strerror(error)}; it needs root and Linux 5.6")
    return None


def _flow_of(held: socket.socket) -> FlowKey | None:
    try:
        return FlowKey(*held.getsockname(), *held.getpeername())
    except (OSError, TypeError):
        return None
