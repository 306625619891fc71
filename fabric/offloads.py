"""Segmentation and checksum offloads of an interface, switched off and read back.

With them on, one 64 KiB super-packet crosses a link as one packet of many MTUs, and a userspace switch forwards
frames whose checksum nobody has filled in.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

__all__ = ["offloads_left_on", "switch_off_offloads"]

_SIOCETHTOOL = 0x8946
# name: (get, set), from linux/ethtool.h
_COMMANDS = {
    "tx-checksum": (0x16, 0x17),
    "scatter-gather": (0x18, 0x19),
    "tso": (0x1E, 0x1F),
    "gso": (0x23, 0x24),
    "gro": (0x2B, 0x2C),
}


def _ethtool(channel: socket.socket, interface: str, command: int, value: int = 0) -> int:
    data = array.array("B", struct.pack("II", command, value))
    address, _ = data.buffer_info()
    fcntl.ioctl(channel, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), address))
    return int(struct.unpack("II", data)[1])


def switch_off_offloads(channel: socket.socket, interface: str) -> None:
    """Switch off every offload; `channel` is any datagram socket of the interface's namespace."""
    for _, command in _COMMANDS.values():
        _ethtool(channel, interface, command, 0)


def offloads_left_on(channel: socket.socket, interface: str) -> list[str]:
    """The names of offloads that the kernel says are still on."""
    return [name for name, (command, _) in _COMMANDS.items() if _ethtool(channel, interface, command)]
