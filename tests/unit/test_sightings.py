"""What switches send about flows is read right: SYN copies byte by byte, and entries as Ryu's own parser gives them."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ryu.ofproto import ofproto_v1_3, ofproto_v1_3_parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from fabric.openflow import Action, Load, Match, Output, Rule, flow_mod
from fabric.policy import FlowKey
from fabric.sightings import FlowEntry, ask_entries, flow_entries, tcp_key
from fabric.steering import FLOW_COOKIE, INGRESS, SEEN, Steering
from topologies.fat_tree import fat_tree

KEY = FlowKey("10.0.0.2", 20000, "10.1.0.3", 5001)


def frame(options: int = 0, ether_type: int = 0x0800, protocol: int = 6) -> bytes:
    """A SYN of KEY, with words of IP options."""
    ip = struct.pack("!BBHHHBBH4B4B", 0x45 + options, 0, 40 + 4 * options, 1, 0, 64, protocol, 0, 10, 0, 0, 2, 10, 1, 0, 3)
    tcp = struct.pack("!HHIIBBHHH", 20000, 5001, 1, 0, 0x50, 2, 65535, 0, 0)
    return bytes(12) + struct.pack("!H", ether_type) + ip + bytes(4 * options) + tcp


@pytest.mark.parametrize("options", [0, 1, 10])
def test_a_syn_tells_its_flow(options: int) -> None:
    """Behind IP options too."""
    assert tcp_key(frame(options)) == KEY


@pytest.mark.parametrize(
    "other", [frame(ether_type=0x0806), frame(ether_type=0x86DD), frame(ether_type=0x8100), frame(protocol=17), b"", frame()[:53]],
    ids=["ARP", "IPv6", "VLAN", "UDP", "nothing", "cut"],
)  # fmt: skip
def test_anything_else_tells_none(other: bytes) -> None:
    """No flow, and no error."""
    assert tcp_key(other) is None


@given(st.binary(max_size=120).map(lambda tail: frame()[:14] + tail) | st.binary(max_size=120))
def test_no_bytes_are_an_error(text: bytes) -> None:
    """Whatever a packet holds, and wherever it was cut: a flow or None."""
    assert tcp_key(text) is None or len(text) >= 38


@given(st.integers(0, 100))
def test_a_cut_frame_with_options_is_no_error(length: int) -> None:
    """The header says that the ports lie behind the end."""
    assert tcp_key(frame(10)[:length]) == (KEY if length >= 14 + 60 + 4 else None)


# -- entries


@pytest.fixture(scope="module")
def datapath() -> Any:
    """What Ryu needs to know of a switch to write a message for it."""
    return ProtocolDesc(version=ofproto_v1_3.OFP_VERSION)


def entry(rule: Rule, datapath: Any, nbytes: int = 0) -> Any:
    """The statistics entry of a rule, its match and instructions as they come off the wire."""
    message = flow_mod(rule, datapath)
    message.set_xid(1)
    message.serialize()
    read = ofproto_v1_3_parser.OFPFlowMod.parser(datapath, *struct.unpack_from("!BBHI", message.buf), message.buf)
    return SimpleNamespace(match=read.match, instructions=read.instructions, table_id=rule.table, byte_count=nbytes)


def of_flow(*actions: Action, table: int = SEEN, goto: int | None = None) -> Rule:
    """A rule about KEY alone."""
    match = Match(ip_src=KEY.src_ip, ip_dst=KEY.dst_ip, protocol=6, tcp_src=KEY.src_port, tcp_dst=KEY.dst_port)
    return Rule(match, actions, table=table, goto=goto)


@pytest.mark.parametrize("hashed", [0, 3, 63])
def test_a_learnt_entry_tells_bytes_and_hash(datapath: Any, hashed: int) -> None:
    """As the switch learns it: the number is what it loads into register 2. 0 is a number."""
    (found,) = flow_entries([entry(of_flow(Load("reg2", hashed)), datapath, 12345)])
    assert found == FlowEntry(KEY, SEEN, 12345, hashed)


def test_a_placed_flows_entry_tells_its_path(datapath: Any) -> None:
    """Whatever path: read back from the switch it is the one that was written."""
    steering = Steering(fat_tree(4), 1)
    paths = (*steering.paths("p0e0h0", "p1e0h1"), *steering.paths("p0e0h0", "p0e1h0"))
    assert len(paths) == 6
    for path in paths:
        dst = steering.fabric.peer[path[-1]].node
        key = FlowKey("10.0.0.2", 20000, steering.fabric.host_by_name[dst].ip, 5001)
        (found,) = flow_entries([entry(steering.flow_rule(key, path), datapath, 7)])
        assert (found.key, found.table, found.nbytes, found.hashed_to) == (key, INGRESS, 7, None)
        assert found.label is not None and steering.path_of(key, found.first, found.label) == path


def test_rules_of_many_flows_are_no_flows(datapath: Any) -> None:
    """None of the rules that a switch starts with is taken for one."""
    steering = Steering(fat_tree(4), 1)
    rules = [rule for switch in steering.fabric.switches for rule in steering.rules(switch)]
    assert not list(flow_entries(entry(rule, datapath) for rule in rules))


def test_a_rule_of_another_kind_has_no_label(datapath: Any) -> None:
    """A user's own rule for one flow: seen, but not taken for a placement."""
    (found,) = flow_entries([entry(of_flow(Output(3), table=INGRESS), datapath)])
    assert (found.first, found.label, found.hashed_to) == (0, None, None)


def test_bytes_that_are_not_counted_are_none_seen(datapath: Any) -> None:
    """2^64 - 1 says so."""
    (found,) = flow_entries([entry(of_flow(Load("reg2", 1)), datapath, 2**64 - 1)])
    assert found.nbytes == 0


@pytest.mark.parametrize(("cookie", "mask"), [(0, 0), (FLOW_COOKIE, 2**64 - 1)])
def test_a_question_is_about_one_table_and_perhaps_one_cookie(datapath: Any, cookie: int, mask: int) -> None:
    """Of all ports and groups; without a cookie every entry is meant."""
    request = ask_entries(datapath, SEEN, cookie)
    assert (request.table_id, request.cookie, request.cookie_mask) == (SEEN, cookie, mask)
    assert (request.out_port, request.out_group) == (ofproto_v1_3.OFPP_ANY, ofproto_v1_3.OFPG_ANY)
    request.set_xid(1)
    request.serialize()
    assert len(request.buf) == 56
