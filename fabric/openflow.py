"""OpenFlow 1.3 rules as values, and the one function that turns a rule into Ryu's message for a switch.

A controller decides by returning rules; nothing here sends. Open vSwitch's extensions (NX) carry the hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ryu.lib.packet.ether_types import ETH_TYPE_IP
from ryu.ofproto import nicira_ext

__all__ = ["Action", "HashIntoRegister", "Match", "Output", "Rule", "flow_mod"]

_REGISTER_BITS = nicira_ext.ofs_nbits(0, 31)
# enum nx_hash_fields of Open vSwitch: addresses, protocol and TCP, SCTP or UDP ports. Ryu does not name it.
_HASH_5_TUPLE = 3


@dataclass(frozen=True, slots=True)
class Match:
    """What a packet must look like; None matches anything. Given an address, it must be IPv4."""

    ip_dst: str | None = None
    in_port: int | None = None
    reg0: int | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet out of a port."""

    port: int


@dataclass(frozen=True, slots=True)
class HashIntoRegister:
    """Put hash(5-tuple, `basis`) mod `choices` into register 0, for a later table to match.

    The hash is Open vSwitch's symmetric_l3l4+udp: both directions of a flow hash alike in one switch, and it is
    the `basis` (16 bits) that makes two switches choose independently.
    """

    basis: int
    choices: int


Action = Output | HashIntoRegister


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a flow table; after its actions the packet may go on to a later table."""

    match: Match
    actions: tuple[Action, ...]
    table: int = 0
    priority: int = 100
    goto: int | None = None


def flow_mod(rule: Rule, datapath: Any) -> Any:
    """The OFPFlowMod that adds the rule to a switch (or replaces the same one)."""
    proto, parser = datapath.ofproto, datapath.ofproto_parser
    actions = [_action(action, parser) for action in rule.actions]
    instructions = [parser.OFPInstructionActions(proto.OFPIT_APPLY_ACTIONS, actions)]
    if rule.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(rule.goto))
    return parser.OFPFlowMod(
        datapath=datapath, table_id=rule.table, priority=rule.priority,
        match=parser.OFPMatch(**_fields(rule.match)), instructions=instructions,
    )  # fmt: skip


def _fields(match: Match) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if match.in_port is not None:
        fields["in_port"] = match.in_port
    if match.ip_dst is not None:
        fields.update(eth_type=ETH_TYPE_IP, ipv4_dst=match.ip_dst)
    if match.reg0 is not None:
        fields["reg0"] = match.reg0
    return fields


def _action(action: Action, parser: Any) -> Any:
    if isinstance(action, Output):
        return parser.OFPActionOutput(action.port)
    # Ryu writes max_link to the wire as it is; Open vSwitch reads it as the last link's number.
    return parser.NXActionMultipath(
        fields=_HASH_5_TUPLE, basis=action.basis, algorithm=nicira_ext.NX_MP_ALG_MODULO_N,
        max_link=action.choices - 1, arg=0, ofs_nbits=_REGISTER_BITS, dst="reg0",
    )  # fmt: skip
