"""What switches send about flows, read: copies of SYNs, and the entries of their flow tables.

Comes in: a packet's first bytes, or the entries of a flow statistics reply. Goes out: `FlowKey`s and `FlowEntry`s.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fabric.labels import LABEL_BYTES, Label
from fabric.policy import FlowKey

__all__ = ["FlowEntry", "ask_entries", "flow_entries", "key_of", "tcp_key"]

_ETHERNET, _IPV4, _TCP = 14, 0x0800, 6


@dataclass(frozen=True, slots=True)
class FlowEntry:
    """One flow's entry in a table: its bytes so far; how it was hashed, or where its rule sends it, when it says so."""

    key: FlowKey
    table: int
    nbytes: int
    hashed_to: int | None = None
    first: int = 0
    label: Label | None = None


def tcp_key(frame: bytes) -> FlowKey | None:
    """The flow of an untagged Ethernet frame that holds TCP over IPv4; None for anything else."""
    if len(frame) < _ETHERNET + 40 or frame[12:14] != _IPV4.to_bytes(2, "big") or frame[_ETHERNET + 9] != _TCP:
        return None
    ports = _ETHERNET + 4 * (frame[_ETHERNET] & 0xF)
    if len(frame) < ports + 4:
        return None
    src_port, dst_port = struct.unpack_from("!HH", frame, ports)
    src, dst = frame[_ETHERNET + 12 : _ETHERNET + 16], frame[_ETHERNET + 16 : _ETHERNET + 20]
    return FlowKey(socket.inet_ntoa(src), src_port, socket.inet_ntoa(dst), dst_port)


def ask_entries(datapath: Any, table: int, cookie: int) -> Any:
    """The request for a table's entries; only those with this cookie, unless it is 0."""
    proto, parser = datapath.ofproto, datapath.ofproto_parser
    mask = 2**64 - 1 if cookie else 0
    return parser.OFPFlowStatsRequest(datapath, 0, table, proto.OFPP_ANY, proto.OFPG_ANY, cookie, mask)


def key_of(match: Any) -> FlowKey | None:
    """The TCP flow that a match (Ryu's own object) is about; None when it is about others, or more than one."""
    if match.get("ip_proto") != _TCP or match.get("tcp_src") is None:
        return None
    return FlowKey(match["ipv4_src"], match["tcp_src"], match["ipv4_dst"], match["tcp_dst"])


def flow_entries(stats: Iterable[Any]) -> Iterator[FlowEntry]:
    """The entries of a reply that are about one TCP flow each."""
    for stat in stats:
        key = key_of(stat.match)
        if key is None:
            continue
        actions = [action for step in stat.instructions for action in getattr(step, "actions", ())]
        nbytes = 0 if stat.byte_count == 2**64 - 1 else stat.byte_count
        yield FlowEntry(key, stat.table_id, nbytes, _hashed_to(actions), *_way(actions))


def _hashed_to(actions: Iterable[Any]) -> int | None:
    return next((action.value for action in actions if getattr(action, "dst", None) == "reg2"), None)


def _way(actions: Iterable[Any]) -> tuple[int, Label | None]:
    """The first port and the label that a placed flow's rule gives; (0, None) for a rule of another kind."""
    first, mac = 0, None
    for action in actions:
        first = getattr(action, "group_id", first)
        if getattr(action, "key", None) == "eth_dst":
            mac = action.value
    if mac is None or not first:
        return 0, None
    numbers = [int(byte, 16) for byte in mac.split(":")][:LABEL_BYTES]
    return first, tuple(number for number in numbers if number)
