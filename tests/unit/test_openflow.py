"""Rules become the OpenFlow 1.3 messages that were meant, down to the bytes, by Ryu's own parser."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from ryu.ofproto import nicira_ext, ofproto_v1_3, ofproto_v1_3_parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from fabric.openflow import (
    Action,
    Bucket,
    CopyToController,
    FailoverGroup,
    HashIntoRegister,
    Learn,
    Load,
    Match,
    Move,
    Output,
    Resubmit,
    Rule,
    SetEthDst,
    ToGroup,
    ToInPort,
    basis_of,
    flow_mod,
    group_mods,
)

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


@pytest.mark.parametrize(
    ("match", "fields"),
    [
        (Match(reg1=7, reg0=2), {"reg0": 2, "reg1": 7}),
        (Match(protocol=6), {"eth_type": 0x0800, "ip_proto": 6}),
        (Match(eth_dst=("03:00:00:00:00:01", "ff:00:00:00:00:ff")), {"eth_dst": ("03:00:00:00:00:01", "ff:00:00:00:00:ff")}),
        (Match(in_port=1, syn=True), {"in_port": 1, "eth_type": 0x0800, "ip_proto": 6, "tcp_flags": (0x002, 0x012)}),
        (
            Match(ip_src="10.0.0.1", ip_dst="10.0.0.2", tcp_src=0, tcp_dst=80),
            {"eth_type": 0x0800, "ip_proto": 6, "ipv4_src": "10.0.0.1", "ipv4_dst": "10.0.0.2", "tcp_src": 0, "tcp_dst": 80},
        ),
    ],
    ids=["registers", "protocol", "hardware address", "SYN", "flow"],
)
def test_fields_come_with_what_they_need(datapath: Any, match: Match, fields: dict[str, Any]) -> None:
    """A port means TCP, TCP means IPv4; a SYN is SYN without ACK; masks stay."""
    assert dict(over_the_wire(Rule(match, (Output(1),)), datapath).match.items()) == fields


def test_a_rule_carries_its_cookie_and_its_idle_time(datapath: Any) -> None:
    """By the one it is found again, after the other it goes."""
    message = over_the_wire(Rule(Match(), (), cookie=0xFAB1, idle_s=50), datapath)
    assert (message.cookie, message.idle_timeout, message.hard_timeout) == (0xFAB1, 50, 0)


@pytest.mark.parametrize(
    ("action", "seen"),
    [
        (ToInPort(), {"port": ofproto_v1_3.OFPP_IN_PORT}),
        (CopyToController(128), {"port": ofproto_v1_3.OFPP_CONTROLLER, "max_len": 128}),
        (ToGroup(259), {"group_id": 259}),
        (SetEthDst("03:01:02:00:00:00"), {"key": "eth_dst", "value": "03:01:02:00:00:00"}),
        (Load("reg1", 7), {"dst": "reg1", "value": 7, "ofs_nbits": 31}),
        (Load("eth_dst", 1, 40, 8), {"dst": "eth_dst", "value": 1, "ofs_nbits": 40 << 6 | 7}),
        (Move("eth_dst", 32, 8, 16), {"src_field": "eth_dst", "dst_field": "eth_dst", "n_bits": 32, "src_ofs": 8, "dst_ofs": 16}),
        (Resubmit(1), {"table_id": 1, "in_port": 0xFFF8}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_an_action_is_what_was_meant(datapath: Any, action: Action, seen: dict[str, Any]) -> None:
    """Written and read again by Ryu: ports, groups, and which bits of which field."""
    (found,) = actions_of(over_the_wire(Rule(Match(), (action,)), datapath))
    assert {name: getattr(found, name) for name in seen} == seen


def test_a_flow_is_learnt_by_its_whole_5_tuple(datapath: Any) -> None:
    """The rule that a switch makes matches IPv4, TCP, both addresses and both ports, and keeps where it was hashed."""
    (learn,) = actions_of(over_the_wire(Rule(Match(), (Learn(1, 60, cookie=5),)), datapath))
    assert (learn.table_id, learn.idle_timeout, learn.hard_timeout, learn.priority, learn.cookie) == (1, 60, 0, 100, 5)
    specs = [(type(spec).__name__, spec.src, spec.dst, spec.n_bits) for spec in learn.specs]
    flow = [("ipv4_src_nxm", 32), ("ipv4_dst_nxm", 32), ("tcp_src_nxm", 16), ("tcp_dst_nxm", 16)]
    assert specs == [
        ("NXFlowSpecMatch", 0x0800, ("eth_type_nxm", 0), 16),
        ("NXFlowSpecMatch", 6, ("ip_proto_nxm", 0), 8),
        *(("NXFlowSpecMatch", (name, 0), (name, 0), bits) for name, bits in flow),
        ("NXFlowSpecLoad", ("reg0", 0), ("reg2", 0), 32),
    ]


def test_a_group_is_added_and_modified_to_the_same(datapath: Any) -> None:
    """One of the two is refused, whichever: afterwards the switch has the group, its buckets in order."""
    first, second = Bucket(3, (Output(3),)), Bucket(4, (Load("eth_dst", 1, 0, 8), Output(4)))
    add, modify = group_mods(FailoverGroup(259, (first, second)), datapath)
    assert (add.command, modify.command) == (ofproto_v1_3.OFPGC_ADD, ofproto_v1_3.OFPGC_MODIFY)
    for message in (add, modify):
        assert (message.type, message.group_id) == (ofproto_v1_3.OFPGT_FF, 259)
        assert [bucket.watch_port for bucket in message.buckets] == [3, 4]
        assert {bucket.watch_group for bucket in message.buckets} == {ofproto_v1_3.OFPG_ANY}
        assert [len(bucket.actions) for bucket in message.buckets] == [1, 2]
        message.set_xid(1)
        message.serialize()
        assert int.from_bytes(message.buf[2:4], "big") == len(message.buf)


def test_a_basis_is_its_switchs_and_its_runs_own() -> None:
    """16 bits, the same again, another for another switch or run."""
    found = [basis_of(run, dpid) for run in range(20) for dpid in range(20)]
    assert found == [basis_of(run, dpid) for run in range(20) for dpid in range(20)]
    assert all(0 <= basis < 2**16 for basis in found) and len(set(found)) > 390
