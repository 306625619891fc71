"""What the installed rules do to packets, walked switch by switch: every path is followed, and every dead link repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, cached_property
from itertools import combinations, islice, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder, Port, mac_of
from fabric.labels import LABEL_BYTES
from fabric.openflow import (
    Action,
    CopyToController,
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
)
from fabric.paths import Path
from fabric.policy import FlowKey
from fabric.steering import CHOICE, FLOW_COOKIE, INGRESS, SEEN, SLOT_COUNT, SLOTS, Steering, changed, slots_of
from topologies.dual_plane import dual_plane
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch

BASIS = 4711
MOST_HOPS = 3 * LABEL_BYTES


def leaf_spine(leaves: int = 3, spines: int = 3) -> Fabric:
    """Two tiers, every leaf linked to every spine."""
    build = FabricBuilder("leaf-spine")
    tops = [build.switch(f"s{index}") for index in range(spines)]
    for index in range(leaves):
        leaf = build.switch(f"l{index}")
        for top in tops:
            build.link(leaf, top)
        for number in range(2):
            build.link(build.host(f"l{index}h{number}"), leaf)
    return build.fabric()


def ring(switches: int) -> Fabric:
    """Switches in a circle, one host each."""
    build = FabricBuilder("ring")
    names = [build.switch(f"s{index}") for index in range(switches)]
    for index, name in enumerate(names):
        build.link(name, names[(index + 1) % switches])
    for name in names:
        build.link(build.host(f"h{name}"), name)
    return build.fabric()


def parallel() -> Fabric:
    """Three switches in a line, joined by two links and by three."""
    build = FabricBuilder("parallel")
    a, b, c = (build.switch(name) for name in "abc")
    for near, far in ((a, b), (a, b), (b, c), (b, c), (b, c)):
        build.link(near, far)
    for name in (a, b, c):
        build.link(build.host(f"h{name}"), name)
    return build.fabric()


REPAIRABLE = {
    "fat-tree 4": fat_tree(4),
    "leaf-spine": leaf_spine(),
    "ring 3": ring(3),
    "ring 4": ring(4),
    "ring 5": ring(5),
    "parallel": parallel(),
}
FABRICS = {**REPAIRABLE, "dual-plane": dual_plane(3, 2, 2), "ring 8": ring(8), "fat-tree 2": fat_tree(2)}


class Packet:
    """The fields that the rules look at or change; hardware address and registers as numbers."""

    def __init__(self, key: FlowKey, eth_dst: int, in_port: int) -> None:
        self.key, self.eth_dst, self.in_port = key, eth_dst, in_port
        self.registers = {"reg0": 0, "reg1": 0, "reg2": 0}

    def matches(self, match: Match) -> bool:
        """Whether a rule is for this packet, which is the first segment of a TCP connection."""
        wanted = (
            (match.in_port, self.in_port), (match.ip_src, self.key.src_ip), (match.ip_dst, self.key.dst_ip),
            (match.protocol, 6), (match.tcp_src, self.key.src_port), (match.tcp_dst, self.key.dst_port),
            (match.reg0, self.registers["reg0"]), (match.reg1, self.registers["reg1"]),
        )  # fmt: skip
        if any(value is not None and value != mine for value, mine in wanted):
            return False
        return match.eth_dst is None or number(match.eth_dst[0]) == self.eth_dst & number(match.eth_dst[1])

    def put(self, field: str, value: int, first: int, bits: int) -> None:
        """Replace some bits of a field."""
        mask = ((1 << bits) - 1) << first
        old = self.eth_dst if field == "eth_dst" else self.registers[field]
        new = old & ~mask | value << first & mask
        if field == "eth_dst":
            self.eth_dst = new
        else:
            self.registers[field] = new

    def bits(self, field: str, first: int, bits: int) -> int:
        """Some bits of a field."""
        return (self.eth_dst if field == "eth_dst" else self.registers[field]) >> first & ((1 << bits) - 1)


@cache
def number(mac: str) -> int:
    """A hardware address as a number."""
    return int(mac.replace(":", ""), 16)


class Network:
    """All switches of a fabric with their tables and groups, as OpenFlow says that they behave."""

    def __init__(self, steering: Steering) -> None:
        self.steering, self.fabric = steering, steering.fabric
        self.tables: dict[tuple[str, int], dict[tuple[Match, int], Rule]] = {}
        for switch in self.fabric.switches:
            self.install(switch.name, *steering.rules(switch))

    @cached_property
    def groups(self) -> dict[tuple[str, int], Sequence[tuple[int, Sequence[Action]]]]:
        """The buckets of every group, each with the port it watches."""
        return {
            (switch.name, group.number): [(bucket.watch, bucket.actions) for bucket in group.buckets]
            for switch in self.fabric.switches
            for group in self.steering.groups(switch)
        }

    def install(self, switch: str, *rules: Rule) -> None:
        """Add rules; one with the match and priority of another replaces it. Tables stay sorted by priority."""
        for rule in rules:
            self.tables.setdefault((switch, rule.table), {})[rule.match, rule.priority] = rule
        for place in {(switch, rule.table) for rule in rules}:
            entries = sorted(self.tables[place].items(), key=lambda item: -item[0][1])
            self.tables[place] = dict(entries)

    def send(self, key: FlowKey, hashed: int = 0, dead: Collection[Port] = ()) -> tuple[Path, str]:
        """The ports that a flow's packet leaves by, and where it ends: a host's name, "dropped", or "circles"."""
        near = self.steering.attached[key.src_ip]
        out = self.fabric.peer[near]
        packet = Packet(key, number(mac_of(key.dst_ip)), near.number)
        path = [out]
        while self.fabric.peer[out].node in self.fabric.switch_by_name:
            if len(path) > MOST_HOPS:
                return tuple(path), "circles"
            here = self.fabric.peer[out]
            packet.in_port = here.number
            numbers = list(self._switch(here.node, packet, hashed, dead))
            assert len(numbers) < 2, f"{here.node} sends it out of several ports"
            if not numbers or Port(here.node, numbers[0]) in dead:
                return tuple(path), "dropped"
            out = Port(here.node, numbers[0])
            path.append(out)
        host = self.fabric.peer[out].node
        right = packet.eth_dst == number(self.fabric.host_by_name[host].mac)
        return tuple(path), host if right else f"{host} by a wrong hardware address"

    def _switch(self, switch: str, packet: Packet, hashed: int, dead: Collection[Port]) -> Iterator[int]:
        """The ports that one switch sends a packet out of; registers begin at 0 in each."""
        packet.registers = dict.fromkeys(packet.registers, 0)
        table: int | None = 0
        while table is not None:
            entries = self.tables.get((switch, table), {})
            rule = next((rule for rule in entries.values() if packet.matches(rule.match)), None)
            if rule is None:
                return
            yield from self._apply(switch, rule.actions, packet, hashed, dead)
            table = rule.goto

    def _apply(
        self, switch: str, actions: Iterable[Action], packet: Packet, hashed: int, dead: Collection[Port]
    ) -> Iterator[int]:
        for action in actions:
            match action:
                case Output(port) if port != packet.in_port:  # OpenFlow 1.3.5, 5.12: never back by itself
                    yield port
                case ToInPort():
                    yield packet.in_port
                case ToGroup(group):
                    live = (do for watch, do in self.groups[switch, group] if Port(switch, watch) not in dead)
                    yield from self._apply(switch, next(live, ()), packet, hashed, dead)
                case SetEthDst(mac):
                    packet.eth_dst = number(mac)
                case Load(field, value, first, bits):
                    packet.put(field, value, first, bits)
                case Move(field, bits, source, target):
                    packet.put(field, packet.bits(field, source, bits), target, bits)
                case HashIntoRegister(_, choices):
                    packet.put("reg0", hashed % choices, 0, 32)
                case Output() | CopyToController() | Resubmit() | Learn():
                    pass


@pytest.fixture(scope="module")
def network_of() -> Callable[[str], Network]:
    """Networks by name, as they are at the start, each made once."""
    made: dict[str, Network] = {}
    return lambda name: made.setdefault(name, Network(Steering(FABRICS[name], BASIS)))


def key_of(fabric: Fabric, src: str, dst: str) -> FlowKey:
    """A flow between two hosts."""
    return FlowKey(fabric.host_by_name[src].ip, 20000, fabric.host_by_name[dst].ip, 5001)


def pairs(fabric: Fabric) -> Iterator[tuple[str, str]]:
    """Every two hosts, in both directions."""
    return permutations([host.name for host in fabric.hosts], 2)


def journeys(network: Network) -> Iterator[tuple[FlowKey, str, int, Path]]:
    """Every two hosts and every path of theirs: the flow, its destination, the hash that means the path, the path."""
    for src, dst in pairs(network.fabric):
        for hashed, path in enumerate(network.steering.paths(src, dst)):
            yield key_of(network.fabric, src, dst), dst, hashed, path


def inner(fabric: Fabric, path: Path) -> list[Port]:
    """The ports of a path that lead from switch to switch."""
    return [port for port in path[1:-1] if fabric.peer[port].node in fabric.switch_by_name]


def cut(fabric: Fabric, *ports: Port) -> set[Port]:
    """Both ends of links."""
    return {end for port in ports for end in (port, fabric.peer[port])}


@pytest.mark.parametrize("name", FABRICS)
def test_the_hash_leads_over_each_path(network_of: Callable[[str], Network], name: str) -> None:
    """Number i of the hash takes the i-th shortest path, and the packet arrives with its host's own hardware address."""
    network = network_of(name)
    for key, dst, hashed, path in journeys(network):
        assert network.send(key, hashed) == (path, dst)


@pytest.mark.parametrize("name", FABRICS)
def test_one_rule_puts_a_flow_on_any_of_its_paths(name: str) -> None:
    """Whatever its hash; and no other flow of the same hosts is touched."""
    network = Network(Steering(FABRICS[name], BASIS))
    fabric = network.fabric
    for key, dst, hashed, path in list(islice(journeys(network), 0, None, 7)):
        if len(path) > 2:
            network.install(path[1].node, network.steering.flow_rule(key, path))
            assert network.send(key, hashed + 1) == (path, dst)
            other = FlowKey(key.src_ip, key.src_port + 1, key.dst_ip, key.dst_port)
            assert network.send(other, 0)[0] == network.steering.paths(fabric_host(fabric, key.src_ip), dst)[0]


def fabric_host(fabric: Fabric, ip: str) -> str:
    """The host of an address."""
    return next(host.name for host in fabric.hosts if host.ip == ip)


@pytest.mark.parametrize("name", REPAIRABLE)
def test_switches_repair_any_single_dead_link(network_of: Callable[[str], Network], name: str) -> None:
    """Every two hosts, every path, every link of it dead in both directions: delivered, with nobody telling the switches."""
    network = network_of(name)
    for key, dst, hashed, path in journeys(network):
        for port in inner(network.fabric, path):
            dead = cut(network.fabric, port)
            route, end = network.send(key, hashed, dead)
            assert end == dst, f"{key} over {path} with {port} dead: {route}"
            assert dead.isdisjoint(route)


@pytest.mark.parametrize("name", ["fat-tree 4", "leaf-spine", "ring 4", "parallel"])
def test_two_dead_links_never_make_a_loop(network_of: Callable[[str], Network], name: str) -> None:
    """Whichever two that packets meet: they arrive, or they are dropped within a bounded number of hops."""
    network = network_of(name)
    ends = Counter[str]()
    for key, dst, hashed, path in islice(journeys(network), 0, None, 1 + len(network.fabric.hosts) // 2):
        for first in inner(network.fabric, path):
            detour, _ = network.send(key, hashed, cut(network.fabric, first))
            for second in inner(network.fabric, detour):  # a second one off its way changes nothing
                route, end = network.send(key, hashed, cut(network.fabric, first, second))
                assert end in (dst, "dropped"), f"{key} over {path} with {first} and {second} dead: {route}"
                ends[end == dst] += 1
    assert ends[True] > 0 or name == "ring 4"  # two cuts part a ring


def test_a_fat_tree_survives_most_pairs_of_dead_links(network_of: Callable[[str], Network]) -> None:
    """What the second backups are for: of the cases where packets meet two dead links, few are left to the controller."""
    network = network_of("fat-tree 4")
    arrived = [
        network.send(key, hashed, cut(network.fabric, first, second))[1] == dst
        for key, dst, hashed, path in islice(journeys(network), 0, None, 11)
        for first, second in combinations(inner(network.fabric, path), 2)
    ]
    assert sum(arrived) / len(arrived) > 0.5


@pytest.mark.parametrize("name", REPAIRABLE)
def test_without_repair_a_dead_link_loses_what_it_is_sent(name: str) -> None:
    """`repair=False` delivers over whole links, and drops at the dead one: recovery can be measured against it."""
    network = Network(Steering(FABRICS[name], BASIS, repair=False))
    for key, dst, hashed, path in islice(journeys(network), 0, None, 5):
        assert network.send(key, hashed) == (path, dst)
        for port in inner(network.fabric, path):
            assert network.send(key, hashed, cut(network.fabric, port))[1] == "dropped"


@st.composite
def graphs(draw: st.DrawFn) -> Fabric:
    """Connected fabrics of up to seven switches with any links, parallel ones too, and ports in any order."""
    count = draw(st.integers(2, 7))
    tree = [(draw(st.integers(0, index - 1)), index) for index in range(1, count)]
    more = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=8))
    links = draw(st.permutations([*tree, *((a, b) for a, b in more if a != b)]))
    build = FabricBuilder("any")
    names = [build.switch(f"s{index}") for index in range(count)]
    for a, b in links:
        build.link(names[a], names[b])
    for index in draw(st.sets(st.integers(0, count - 1), min_size=2)):
        build.link(build.host(f"h{index}"), names[index])
    return build.fabric()


@settings(max_examples=40, derandomize=True)
@given(graphs())
def test_any_graph_is_repaired_wherever_there_is_a_backup(fabric: Fabric) -> None:
    """Not only regular ones: a packet that meets a single dead link with a backup arrives; without one it is dropped."""
    steering = Steering(fabric, BASIS)
    network = Network(steering)
    for key, dst, hashed, path in journeys(network):
        assert network.send(key, hashed) == (path, dst)
        for port in inner(fabric, path):
            route, end = network.send(key, hashed, cut(fabric, port))
            assert end == (dst if steering.backups[port] else "dropped"), f"{key} over {path} with {port} dead: {route}"


def test_paths_that_are_gone_are_replaced_by_those_left(network_of: Callable[[str], Network]) -> None:
    """A dead link's paths are the ones that change their meaning; every number of the hash still means a live path."""
    fabric = FABRICS["fat-tree 4"]
    network = Network(Steering(fabric, BASIS))
    port = Port("p0a0", 3)
    dead = cut(fabric, port)
    left = network.steering.paths.without(frozenset(dead))
    rules = {edge: changed(network.steering.choices(edge, network.steering.paths), network.steering.choices(edge, left)) for edge in network.steering.edges}
    assert len(rules["p0e0"]) == 6 and not rules["p1e0"][6:]  # one path in four towards each edge of three other pods
    for edge, found in rules.items():
        network.install(edge, *found)
    for key, dst, hashed, path in journeys(network):
        route, end = network.send(key, hashed)
        assert end == dst and dead.isdisjoint(route)
        assert dead.isdisjoint(path) <= (route == path)


def test_a_path_too_long_for_a_label_is_never_chosen() -> None:
    """Round a dead link a long ring has only paths that no label holds: the usual meaning stays, and nothing fails."""
    fabric = ring(9)
    steering = Steering(fabric, BASIS)
    left = steering.paths.without(frozenset(cut(fabric, Port("s0", 1))))
    assert len(left.between("s0", "s1")[0]) == 8
    assert steering.choice("s0", "s1", left) == []
    assert list(steering.choices("s0", left))
    key = key_of(fabric, "hs0", "hs1")
    assert steering.hashed_path(key, 0, left, {}) is None


def test_a_fabric_whose_paths_no_label_holds_is_refused_at_once() -> None:
    """Before anything starts, not when a switch connects."""
    with pytest.raises(RequestError) as error:
        Steering(ring(14), BASIS)
    assert "accepted: at most 7 switches" in str(error.value)


def test_ports_beyond_a_byte_may_have_hosts() -> None:
    """Labels name ports between switches; those of hosts are reached by address, whatever their number."""
    network = Network(Steering(single_switch(300), BASIS))
    key = key_of(network.fabric, "h0", "h299")
    assert network.send(key)[1] == "h299"
    assert all(number(rule.match.eth_dst[0]) < 1 << 48 for rule in network.steering.rules(network.fabric.switches[0]) if rule.match.eth_dst)


def test_a_flow_within_an_edge_needs_no_rule() -> None:
    """It has one path, which is known without a hash, and no label; a rule for it is refused as our own mistake."""
    steering = Steering(fat_tree(4), BASIS)
    key = key_of(steering.fabric, "p0e0h0", "p0e0h1")
    (path,) = steering.paths("p0e0h0", "p0e0h1")
    assert steering.whole(key, ()) == path
    assert steering.hashed_path(key, 3, steering.paths, {}) == path


@pytest.mark.parametrize("name", FABRICS)
def test_a_placed_flows_rule_says_its_path(name: str) -> None:
    """Read back from the rule alone: out of which port, with which label."""
    steering = Steering(FABRICS[name], BASIS)
    for src, dst in pairs(steering.fabric):
        for path in steering.paths(src, dst):
            if len(path) > 2:
                rule = steering.flow_rule(key_of(steering.fabric, src, dst), path)
                label, first = rule.actions
                assert isinstance(label, SetEthDst) and isinstance(first, ToGroup)
                numbers = tuple(int(byte, 16) for byte in label.mac.split(":")[:LABEL_BYTES] if byte != "00")
                assert steering.path_of(key_of(steering.fabric, src, dst), first.group, numbers) == path
                assert (rule.table, rule.cookie) == (INGRESS, FLOW_COOKIE)


def test_an_unknown_address_has_no_path() -> None:
    """Of a host that is not of the fabric."""
    steering = Steering(fat_tree(2), BASIS)
    assert steering.whole(FlowKey("10.0.0.2", 1, "192.0.2.1", 2), ()) is None


def test_each_edge_hashes_with_a_basis_of_its_own() -> None:
    """Derived from the run's and its datapath id, so that no two edges choose alike."""
    steering = Steering(fat_tree(4), BASIS)
    found = {
        switch.name: {action.basis for rule in steering.rules(switch) for action in rule.actions if isinstance(action, HashIntoRegister)}
        for switch in steering.fabric.switches
    }
    assert {name for name, bases in found.items() if bases} == set(steering.edges)
    assert all(found[name] == {basis_of(BASIS, steering.fabric.switch_by_name[name].dpid)} for name in steering.edges)
    assert len(set().union(*found.values())) == len(steering.edges)


def test_syns_alone_are_copied_to_the_controller(network_of: Callable[[str], Network]) -> None:
    """From hosts only, once each; what comes from a switch is never copied."""
    copying = [
        (switch, rule)
        for (switch, _), rules in network_of("fat-tree 4").tables.items()
        for rule in rules.values()
        if any(isinstance(action, CopyToController) for action in rule.actions)
    ]
    assert {(switch, rule.match.in_port) for switch, rule in copying} == {
        (port.node, port.number) for port in network_of("fat-tree 4").steering.attached.values()
    }
    assert all(rule.match == Match(in_port=rule.match.in_port, syn=True) and rule.table == 0 for _, rule in copying)


def test_only_hashed_flows_are_learnt(network_of: Callable[[str], Network]) -> None:
    """The rule that learns is the one that hashes TCP; a placed flow's rule goes before what was learnt of it."""
    network = network_of("fat-tree 4")
    learning = [rule for rules in network.tables.values() for rule in rules.values() for action in rule.actions if isinstance(action, Learn)]
    assert learning and all(rule.table == INGRESS and rule.match.protocol == 6 and rule.goto == CHOICE for rule in learning)
    (idle,) = {action.idle_s for rule in learning for action in rule.actions if isinstance(action, Learn)}
    (table,) = {action.table for rule in learning for action in rule.actions if isinstance(action, Learn)}
    placed = network.steering.flow_rule(*next((key, path) for key, _, _, path in journeys(network) if len(path) > 2))
    assert table == SEEN and 0 < placed.idle_s < idle
    assert placed.priority > max(rule.priority for rule in learning)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=16).filter(any))
def test_slots_are_shared_by_weight(weights: list[int]) -> None:
    """All slots are given, each path within one of its share, none to a weight of 0."""
    found = Counter(slots_of(weights))
    assert sum(found.values()) == SLOT_COUNT and found.keys() <= set(range(len(weights)))
    for index, weight in enumerate(weights):
        share = weight * SLOT_COUNT / sum(weights)
        assert abs(found[index] - share) < 1
        assert weight or not found[index]


def test_a_reweighted_edge_hashes_by_its_slots() -> None:
    """Every slot takes the path that it means, as `hashed_path` says; other edges are as before."""
    network = Network(Steering(fat_tree(4), BASIS))
    steering, weights = network.steering, (0, 1, 2, 1)
    network.install("p0e0", *steering.slot_rules("p0e0", "p1e0", weights))
    paths = steering.paths("p0e0h0", "p1e0h0")
    key = key_of(steering.fabric, "p0e0h0", "p1e0h0")
    seen = Counter[Path]()
    for slot in range(SLOT_COUNT):
        route, end = network.send(key, slot)
        assert end == "p1e0h0" and route == steering.hashed_path(key, slot, steering.paths, {("p0e0", "p1e0"): weights})
        seen[route] += 1
    assert [seen[path] for path in paths] == [0, 16, 32, 16]
    assert network.send(key_of(steering.fabric, "p0e1h0", "p1e0h0"), 3)[0] == steering.paths("p0e1h0", "p1e0h0")[3]


def test_slots_have_a_meaning_before_they_are_used() -> None:
    """In the order in which the rules are sent: nothing is hashed into a slot before the last slot's rule is there."""
    steering = Steering(fat_tree(4), BASIS)
    tables = [rule.table for rule in steering.slot_rules("p0e0", "p1e0", (1, 1, 1, 1))]
    assert tables == [SLOTS] * SLOT_COUNT + [INGRESS] * (len(tables) - SLOT_COUNT)


def test_changed_gives_what_is_new_or_different() -> None:
    """By match and table; the same rule is not sent again, and what is gone is left."""
    one, two = Rule(Match(reg0=1), (Output(1),)), Rule(Match(reg0=2), (Output(2),))
    other = Rule(Match(reg0=1), (Output(9),))
    assert changed([one, two], [one]) == []
    assert changed([one], [other, two]) == [other, two]


@pytest.mark.parametrize("k", [4, 6])
def test_every_group_that_a_rule_names_is_there(k: int) -> None:
    """On each switch, with buckets that watch the port they use."""
    steering = Steering(fat_tree(k), BASIS)
    for switch in steering.fabric.switches:
        there = {group.number for group in steering.groups(switch)}
        named = {action.group for rule in steering.rules(switch) for action in rule.actions if isinstance(action, ToGroup)}
        assert named <= there
        ports = {port.number for port in steering.fabric.ports_of[switch.name]}
        for number_of, bucket in ((group.number, bucket) for group in steering.groups(switch) for bucket in group.buckets):
            outs = [action.port for action in bucket.actions if isinstance(action, Output)]
            assert bucket.watch in ports and outs in ([bucket.watch], []), number_of


def test_rules_overlap_only_by_priority() -> None:
    """No two rules of a table have one priority and one match: which of them holds would be a matter of luck."""
    steering = Steering(fat_tree(4), BASIS)
    for switch, table in product(steering.fabric.switches, range(CHOICE + 1)):
        places = [(rule.match, rule.priority) for rule in steering.rules(switch) if rule.table == table]
        assert len(set(places)) == len(places)
