"""Rules become the OpenFlow 1.3 messages that were meant, down to the bytes, by Ryu's own parser."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from ryu.ofproto import nicira_ext, ofproto_v1_3, ofproto_v1_3_parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from fabric.openflow import HashIntoRegister, Match, Output, Rule, flow_mod

NXAST_MULTIPATH = 10
WIRE_MULTIPATH = "!HHIHHHHHHIHHI"  # struct nx_action_multipath of Open vSwitch, from type to dst


@pytest.fixture(scope="module")
def datapath() -> Any:
    """What Ryu needs to know of a switch to write a message for it."""
    return ProtocolDesc(version=ofproto_v1_3.OFP_VERSION)


def over_the_wire(rule: Rule, datapath: Any) -> Any:
    """The message, written and read again."""
    message = flow_mod(rule, datapath)
    message.set_xid(1)
    message.serialize()
    version, kind, length, xid = struct.unpack_from("!BBHI", message.buf)
    return ofproto_v1_3_parser.OFPFlowMod.parser(datapath, version, kind, length, xid, message.buf)


def actions_of(message: Any) -> list[Any]:
    """The actions to apply now."""
    return [action for instruction in message.instructions for action in getattr(instruction, "actions", ())]


def test_a_rule_is_an_add_with_its_table_and_priority(datapath: Any) -> None:
    """Nothing times out, nothing is buffered, no flag is set."""
    message = over_the_wire(Rule(Match(), (Output(3),), table=2, priority=7), datapath)
    assert message.command == ofproto_v1_3.OFPFC_ADD
    assert (message.table_id, message.priority) == (2, 7)
    assert (message.idle_timeout, message.hard_timeout, message.flags) == (0, 0, 0)
    assert message.buffer_id == ofproto_v1_3.OFP_NO_BUFFER


@pytest.mark.parametrize(
    ("match", "fields"),
    [
        (Match(), {}),
        (Match(in_port=4), {"in_port": 4}),
        (Match(ip_dst="10.1.2.3"), {"eth_type": 0x0800, "ipv4_dst": "10.1.2.3"}),
        (Match(reg0=0), {"reg0": 0}),
        (Match("10.0.0.2", 1, 5), {"in_port": 1, "eth_type": 0x0800, "ipv4_dst": "10.0.0.2", "reg0": 5}),
    ],
)
def test_a_match_has_exactly_the_fields_given(datapath: Any, match: Match, fields: dict[str, Any]) -> None:
    """None matches anything; 0 is a value; an address means IPv4."""
    message = over_the_wire(Rule(match, (Output(1),)), datapath)
    assert dict(message.match.items()) == fields


def test_outputs_keep_their_order(datapath: Any) -> None:
    """Two outputs are two actions, applied at once."""
    message = over_the_wire(Rule(Match(), (Output(3), Output(1))), datapath)
    assert [action.port for action in actions_of(message)] == [3, 1]
    assert [item.type for item in message.instructions] == [ofproto_v1_3.OFPIT_APPLY_ACTIONS]


def test_a_goto_follows_the_actions(datapath: Any) -> None:
    """The packet goes on to the table after the actions were applied; without one there is no such instruction."""
    message = over_the_wire(Rule(Match(), (HashIntoRegister(9, 2),), goto=4), datapath)
    apply, goto = message.instructions
    assert apply.type == ofproto_v1_3.OFPIT_APPLY_ACTIONS
    assert goto.type == ofproto_v1_3.OFPIT_GOTO_TABLE and goto.table_id == 4


@pytest.mark.parametrize("choices", [2, 3, 64])
def test_the_hash_chooses_among_as_many_links_as_asked(datapath: Any, choices: int) -> None:
    """Open vSwitch reads max_link as the last link's number: on the wire it is one less than the choices."""
    message = flow_mod(Rule(Match(), (HashIntoRegister(0xBEEF, choices),), goto=1), datapath)
    message.set_xid(1)
    message.serialize()
    vendor = struct.pack("!I", 0x00002320)
    at = bytes(message.buf).index(vendor) - 4
    kind, _, _, subtype, fields, basis, _, algorithm, max_link, arg, _, offset, dst = struct.unpack_from(
        WIRE_MULTIPATH, message.buf, at
    )
    assert (kind, subtype) == (0xFFFF, NXAST_MULTIPATH)
    assert max_link == choices - 1
    assert (fields, basis, algorithm, arg) == (3, 0xBEEF, nicira_ext.NX_MP_ALG_MODULO_N, 0)
    assert offset == 31 and dst == 0x00010004  # all 32 bits of NXM_NX_REG0
