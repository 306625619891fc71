"""TCP sockets of a run: made with fixed ports and a named congestion control, and asked what they really did."""

from __future__ import annotations

import socket
import struct
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SO_MAX_PACING_RATE", "UNLIMITED", "Endpoints", "TcpReport", "accept_from", "connect_from", "listen_on", "report"]

_TCP_INFO_SIZE = 256
SO_MAX_PACING_RATE = 47  # asm-generic/socket.h
UNLIMITED = 0xFFFFFFFF
_OPTION_ECN = 8  # TCPI_OPT_ECN
_CONNECT_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """One TCP connection of the run by its whole 5-tuple, which is what hashing sees."""

    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int


@dataclass(frozen=True, slots=True)
class TcpReport:
    """What the kernel says of one end of a connection (struct tcp_info, linux/tcp.h); `ecn` when both ends agreed on it; `cwnd` in packets.

    `dscp` is what its packets carry, `pacing_limit` in bytes of payload a second what it may send, None without a limit;
    `send_buffer` in bytes what it may have under way and not yet sent, the kernel's own overhead included.
    """

    tcp: str
    rto_ms: float
    rtt_ms: float
    mss: int
    retransmits: int
    spurious_retransmits: int
    delivered: int
    ce_marked: int
    bytes_sent: int
    bytes_received: int
    data_segments_out: int
    segments_out: int
    ecn: bool = False
    dscp: int = 0
    pacing_limit: int | None = None
    cwnd: int = 0
    send_buffer: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A dictionary for a record line."""
        return asdict(self)


def listen_on(ip: str, port: int, tcp: str, mark: int = 0) -> socket.socket:
    """A listening socket whose connections will use the congestion control `tcp`, and the routes of `mark`."""
    listener = _socket(tcp, mark)
    listener.bind((ip, port))
    listener.listen(64)
    return listener


def connect_from(connection: Endpoints, tcp: str, mark: int = 0) -> socket.socket:
    """A connected, non-blocking socket from the connection's source address and port."""
    sender = _socket(tcp, mark)
    sender.bind((connection.src_ip, connection.src_port))
    sender.settimeout(_CONNECT_DEADLINE_S)
    try:
        sender.connect((connection.dst_ip, connection.dst_port))
    except OSError as err:
        raise ConnectionError(
            f"{connection.src_ip}:{connection.src_port} cannot reach {connection.dst_ip}:{connection.dst_port}: {err}; "
            "do the controller's rules lead there, and back?"
        ) from err
    sender.setblocking(False)
    return sender


def accept_from(listener: socket.socket, connection: Endpoints) -> socket.socket:
    """The non-blocking socket of an expected connection, on a listener of its own."""
    listener.settimeout(_CONNECT_DEADLINE_S)
    receiver, peer = listener.accept()
    if peer != (connection.src_ip, connection.src_port):
        raise ConnectionError(f"expected {connection.src_ip}:{connection.src_port} on port {connection.dst_port}, got {peer}")
    receiver.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    receiver.setblocking(False)
    return receiver


def report(end: socket.socket) -> TcpReport:
    """What the kernel says of this end now."""
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    info = info.ljust(_TCP_INFO_SIZE, b"\0")

    def word(offset: int) -> int:
        return int(struct.unpack_from("=I", info, offset)[0])

    def long(offset: int) -> int:
        return int(struct.unpack_from("=Q", info, offset)[0])

    name = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).split(b"\0")[0].decode()
    pacing = end.getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE) & UNLIMITED
    return TcpReport(
        tcp=name, rto_ms=word(8) / 1000, mss=word(16), rtt_ms=word(68) / 1000, retransmits=word(100),
        bytes_received=long(128), segments_out=word(136), data_segments_out=word(156), delivered=word(192),
        ce_marked=word(196), bytes_sent=long(200), spurious_retransmits=word(216), ecn=bool(info[5] & _OPTION_ECN),
        dscp=end.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> 2, pacing_limit=None if pacing == UNLIMITED else pacing,
        cwnd=word(80), send_buffer=end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
    )  # fmt: skip


def _socket(tcp: str, mark: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if mark:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, tcp.encode())
    return made
