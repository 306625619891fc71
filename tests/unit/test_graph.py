"""Fabrics as values: look-ups, JSON, and what the builder refuses."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder, Port, mac_of
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch


def built(*steps: Callable[[FabricBuilder], object]) -> Fabric:
    """A fabric of switch s1 with hosts a and b, after some steps more."""
    build = FabricBuilder("mine")
    build.switch("s1")
    for name in ("a", "b"):
        build.link(build.host(name), "s1")
    for step in steps:
        step(build)
    return build.fabric()


@pytest.mark.parametrize("fabric", [fat_tree(4), single_switch(3), built(lambda b: b.link("a", "b", scale=2.5))])
def test_json_round_trip(fabric: Fabric) -> None:
    """What `to_json` writes, as text, `from_json` reads back equal, with equal look-ups."""
    again = Fabric.from_json(json.loads(json.dumps(fabric.to_json())))
    assert again == fabric
    assert again.peer == fabric.peer
    assert again.scale == fabric.scale


def test_the_builder_fills_in_what_is_left_out() -> None:
    """Ports from 1 on switches and 0 on hosts, dpids from 1, addresses from 10.0.0.1, hardware addresses from those."""
    fabric = built()
    assert fabric.switches[0].dpid == 1
    assert fabric.ports_of == {"s1": (Port("s1", 1), Port("s1", 2)), "a": (Port("a", 0),), "b": (Port("b", 0),)}
    assert [(host.ip, host.mac) for host in fabric.hosts] == [
        ("10.0.0.1", "02:00:0a:00:00:01"),
        ("10.0.0.2", "02:00:0a:00:00:02"),
    ]


def test_free_numbers_avoid_given_ones() -> None:
    """A dpid or port that was given is not given again, and a gap is used first."""
    build = FabricBuilder("mine")
    build.switch("s1", dpid=1)
    build.switch("s3", dpid=3)
    build.switch("s2")
    build.link(build.host("a"), "s2", b_port=1)
    link = build.link("s2", "s1")
    build.link("s1", "s3")
    assert build.fabric().switch_by_name["s2"].dpid == 2
    assert (link.a, link.b) == (Port("s2", 2), Port("s1", 1))


def test_peers_are_mutual_and_links_scale_both_ways() -> None:
    """The far end's far end is the near end; a link's scale holds in both directions."""
    fabric = built(lambda b: b.switch("s2"), lambda b: b.link("s1", "s2", scale=0.5))
    assert all(fabric.peer[far] == near for near, far in fabric.peer.items())
    assert fabric.scale[Port("s1", 3)] == fabric.scale[Port("s2", 1)] == 0.5
    assert fabric.scale[Port("a", 0)] == 1.0


def test_levels_and_uplinks_follow_distance_from_hosts() -> None:
    """In a fat-tree edge, aggregation and core are 1, 2, 3 links above the hosts; k/2 ports of the lower two go up."""
    fabric = fat_tree(4)
    heights = {"edge": 1, "aggregation": 2, "core": 3}
    assert {switch.name: fabric.level[switch.name] for switch in fabric.switches} == {
        switch.name: heights[switch.tier] for switch in fabric.switches
    }
    up = set(fabric.uplinks())
    assert len(up) == 16 * 2
    assert {port.number for port in up} == {3, 4}
    assert not any(port.node.startswith("g") or "h" in port.node for port in up)


def test_a_hardware_address_holds_the_ip() -> None:
    """02:00, which nobody sells, and the four bytes of the address."""
    assert mac_of("10.1.2.255") == "02:00:0a:01:02:ff"


def test_an_interface_is_named_as_mininet_would() -> None:
    """Node, -eth, number."""
    assert Port("p0e1", 3).interface == "p0e1-eth3"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda b: b.switch("a"), "name a is used twice; each name must be its own"),
        (lambda b: b.link(b.switch("s2", dpid=1), "s1"), "dpid 1 is used twice; each dpid must be its own"),
        (
            lambda b: b.link(b.host("c", ip="10.0.0.2"), "s1"),
            "address 10.0.0.2 is used twice; each address must be its own",
        ),
        (lambda b: b.host("c", ip="10.0.0.256"), "host c has address 10.0.0.256; give it an IPv4 one of 10.0.0.0/8"),
        (lambda b: b.link("s1", "s9"), "a link ends at s9, which is no node; add it by switch() or host() first"),
        (
            lambda b: b.link(b.switch("aggregation1"), "s1"),
            "interface name aggregation1-eth1 has 17 characters, the kernel takes 15; shorten the node's name",
        ),
        (lambda b: b.link("s1", b.switch("s2"), scale=0), "link s1 - s2 has scale 0; it must be above 0"),
        (
            lambda b: b.link("s1", b.switch("s2"), scale=float("nan")),
            "link s1 - s2 has scale nan; it must be above 0",
        ),
        (lambda b: b.switch("s2"), "s2 cannot be reached from a; link every node"),
        (lambda b: b.link("s1", b.switch("s2"), a_port=1), "port 1 of s1 is used twice; give each link its own"),
    ],
)
def test_builder_errors_say_what_and_what_to_do(step: Callable[[FabricBuilder], object], message: str) -> None:
    """Each fault of a topology gets its exact line."""
    with pytest.raises(RequestError) as caught:
        built(step)
    assert str(caught.value) == f"topology mine: {message}"


def test_an_empty_fabric_is_refused() -> None:
    """A fabric has at least a host and a switch."""
    build = FabricBuilder("mine")
    build.switch("s1")
    with pytest.raises(RequestError) as caught:
        build.fabric()
    assert str(caught.value) == "topology mine: got 0 hosts and 1 switches; add at least one of each"
