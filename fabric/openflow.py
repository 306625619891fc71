"""OpenFlow 1.3 rules and groups as values, and the functions that turn them into Ryu's messages for a switch.

A controller decides by returning values; nothing here sends. Open vSwitch's extensions (NX) carry the hash, the bit
operations and the learning of flows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ryu.lib.packet.ether_types import ETH_TYPE_IP
from ryu.ofproto import nicira_ext

__all__ = [
    "Action", "Bucket", "CopyToController", "FailoverGroup", "HashIntoRegister", "Learn", "Load", "Match", "Move", "Output",
    "Resubmit", "Rule", "SetEthDst", "ToGroup", "ToInPort", "basis_of", "flow_mod", "group_mods",
]  # fmt: skip

_TCP = 6
_SYN, _ACK = 0x002, 0x010
_REGISTER_BITS = nicira_ext.ofs_nbits(0, 31)
# enum nx_hash_fields of Open vSwitch: addresses, protocol and TCP, SCTP or UDP ports. Ryu does not name it.
_HASH_5_TUPLE = 3


@dataclass(frozen=True, slots=True)
class Match:
    """What a packet must look like; None matches anything. Given an address or a protocol, it must be IPv4.

    `eth_dst` is (value, mask). `syn` matches the first segment of a TCP connection: SYN without ACK.
    """

    ip_dst: str | None = None
    in_port: int | None = None
    reg0: int | None = None
    reg1: int | None = None
    ip_src: str | None = None
    protocol: int | None = None
    tcp_src: int | None = None
    tcp_dst: int | None = None
    eth_dst: tuple[str, str] | None = None
    syn: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet out of a port."""

    port: int


@dataclass(frozen=True, slots=True)
class ToInPort:
    """Send the packet back out of the port it came in by, which `Output` never does."""


@dataclass(frozen=True, slots=True)
class ToGroup:
    """Hand the packet to a group."""

    group: int


@dataclass(frozen=True, slots=True)
class CopyToController:
    """Send the packet's first `nbytes` to the controller; it also goes on."""

    nbytes: int = 128


@dataclass(frozen=True, slots=True)
class SetEthDst:
    """Replace the destination's hardware address."""

    mac: str


@dataclass(frozen=True, slots=True)
class Load:
    """Put a number into `bits` bits of a field, from its bit `first` on (0 is the lowest)."""

    field: str
    value: int
    first: int = 0
    bits: int = 32


@dataclass(frozen=True, slots=True)
class Move:
    """Copy `bits` bits of a field to another place in the same field; the two may overlap."""

    field: str
    bits: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class HashIntoRegister:
    """Put hash(5-tuple, `basis`) mod `choices` into register 0, for a later table to match.

    The hash is Open vSwitch's symmetric_l3l4+udp: both directions of a flow hash alike in one switch, and it is
    the `basis` (16 bits) that makes two switches choose independently.
    """

    basis: int
    choices: int


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look the packet up in another table as well, and come back."""

    table: int


@dataclass(frozen=True, slots=True)
class Learn:
    """Let the switch itself add a rule for this TCP flow's 5-tuple to `table`, which loads reg0 into reg2.

    The rule goes after `idle_s` seconds without a packet.
    """

    table: int
    idle_s: int
    cookie: int = 0


Action = (
    Output | ToInPort | ToGroup | CopyToController | SetEthDst | Load | Move | HashIntoRegister | Resubmit | Learn
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a flow table; after its actions the packet may go on to a later table.

    It goes after `idle_s` seconds without a packet, 0 for never; with `tell` the switch says so.
    """

    match: Match
    actions: tuple[Action, ...]
    table: int = 0
    priority: int = 100
    goto: int | None = None
    cookie: int = 0
    idle_s: int = 0
    tell: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a group does while port `watch` is up."""

    watch: int
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class FailoverGroup:
    """A fast-failover group: the first bucket whose watched port is up; none of them drops the packet."""

    number: int
    buckets: tuple[Bucket, ...]


def basis_of(hash_basis: int, dpid: int) -> int:
    """A switch's own 16-bit basis of the hash, from the run's and its datapath id."""
    return int.from_bytes(hashlib.sha256(f"{hash_basis}/{dpid}".encode()).digest()[:2], "big")


def flow_mod(rule: Rule, datapath: Any) -> Any:
    """The OFPFlowMod that adds the rule to a switch (or replaces the same one)."""
    proto, parser = datapath.ofproto, datapath.ofproto_parser
    instructions = [parser.OFPInstructionActions(proto.OFPIT_APPLY_ACTIONS, _actions(rule.actions, datapath))]
    if rule.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(rule.goto))
    return parser.OFPFlowMod(
        datapath=datapath, table_id=rule.table, priority=rule.priority, cookie=rule.cookie, idle_timeout=rule.idle_s,
        flags=proto.OFPFF_SEND_FLOW_REM if rule.tell else 0,
        match=parser.OFPMatch(**_fields(rule.match)), instructions=instructions,
    )  # fmt: skip


def group_mods(group: FailoverGroup, datapath: Any) -> list[Any]:
    """The OFPGroupMods that make a group what it should be, whether the switch has it already or not.

    OpenFlow 1.3 can only add a group that is not there, or modify one that is; the switch refuses one of the two.
    """
    proto, parser = datapath.ofproto, datapath.ofproto_parser
    buckets = [
        parser.OFPBucket(watch_port=bucket.watch, watch_group=proto.OFPG_ANY, actions=_actions(bucket.actions, datapath))
        for bucket in group.buckets
    ]
    return [
        parser.OFPGroupMod(datapath, command, proto.OFPGT_FF, group.number, buckets)
        for command in (proto.OFPGC_ADD, proto.OFPGC_MODIFY)
    ]


def _fields(match: Match) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "in_port": match.in_port, "reg0": match.reg0, "reg1": match.reg1, "eth_dst": match.eth_dst,
        "ipv4_src": match.ip_src, "ipv4_dst": match.ip_dst, "ip_proto": match.protocol,
        "tcp_src": match.tcp_src, "tcp_dst": match.tcp_dst,
    }  # fmt: skip
    if match.syn or match.tcp_src is not None:
        fields["ip_proto"] = _TCP
    if match.syn:
        # The standard field: Ryu would put Open vSwitch's own one before the protocol that it needs.
        fields["tcp_flags"] = (_SYN, _SYN | _ACK)
    found = {name: value for name, value in fields.items() if value is not None}
    if found.keys() & {"ipv4_src", "ipv4_dst", "ip_proto"}:
        found = {"eth_type": ETH_TYPE_IP, **found}
    return found


def _actions(actions: Iterable[Action], datapath: Any) -> list[Any]:
    return [_action(action, datapath.ofproto, datapath.ofproto_parser) for action in actions]


def _action(action: Action, proto: Any, parser: Any) -> Any:
    match action:
        case Output(port):
            return parser.OFPActionOutput(port)
        case ToInPort():
            return parser.OFPActionOutput(proto.OFPP_IN_PORT)
        case ToGroup(group):
            return parser.OFPActionGroup(group)
        case CopyToController(nbytes):
            return parser.OFPActionOutput(proto.OFPP_CONTROLLER, nbytes)
        case SetEthDst(mac):
            return parser.OFPActionSetField(eth_dst=mac)
        case Load(field, value, first, bits):
            return parser.NXActionRegLoad(nicira_ext.ofs_nbits(first, first + bits - 1), field, value)
        case Move(field, bits, source, target):
            return parser.NXActionRegMove(field, field, bits, source, target)
        case Resubmit(table):
            return parser.NXActionResubmitTable(in_port=proto.OFPP_IN_PORT & 0xFFFF, table_id=table)
        case Learn():
            return _learn(action, parser)
        case HashIntoRegister(basis, choices):
            # Ryu writes max_link to the wire as it is; Open vSwitch reads it as the last link's number.
            return parser.NXActionMultipath(
                fields=_HASH_5_TUPLE, basis=basis, algorithm=nicira_ext.NX_MP_ALG_MODULO_N,
                max_link=choices - 1, arg=0, ofs_nbits=_REGISTER_BITS, dst="reg0",
            )  # fmt: skip


def _learn(action: Learn, parser: Any) -> Any:
    def same(field: str, bits: int) -> Any:
        return parser.NXFlowSpecMatch(src=(field, 0), dst=(field, 0), n_bits=bits)

    return parser.NXActionLearn(
        table_id=action.table, idle_timeout=action.idle_s, priority=100, cookie=action.cookie,
        specs=[
            parser.NXFlowSpecMatch(src=ETH_TYPE_IP, dst=("eth_type_nxm", 0), n_bits=16),
            parser.NXFlowSpecMatch(src=_TCP, dst=("ip_proto_nxm", 0), n_bits=8),
            same("ipv4_src_nxm", 32), same("ipv4_dst_nxm", 32), same("tcp_src_nxm", 16), same("tcp_dst_nxm", 16),
            parser.NXFlowSpecLoad(src=("reg0", 0), dst=("reg2", 0), n_bits=32),
        ],
    )  # fmt: skip
