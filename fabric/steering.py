"""The rules of a fabric whose entering edge decides every packet's path: hashed by default, placed flow by flow at will.

    table 0, from a host      SYNs are copied to the controller; then SEEN, then INGRESS
             from a switch    the first byte of the label is taken off and says the port (group, with its backups);
                              a label that has run out is delivered by address
    SEEN                      one rule per TCP flow, learnt by the switch itself: what passed here, and how it was hashed
    INGRESS                   a rule per placed flow (atomic: it alone decides the path); else the hash of the 5-tuple
    SLOTS                     only towards edges that were reweighted: which path a slot of the hash means
    CHOICE                    path number i towards edge e: set the label, send it off

Comes in: a `Fabric`, its paths, the run's hash basis. Goes out: rules and groups, as values. Pure but for caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import permutations

from fabric.graph import Fabric, Port, Switch, mac_of
from fabric.labels import DETOURED, LABEL_BYTES, Backup, Label, backups, label_of, mac_of_label, path_of_label
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
)
from fabric.paths import Path, PathSets
from fabric.policy import FlowKey

__all__ = ["CHOICE", "FLOW_COOKIE", "FLOW_IDLE_S", "INGRESS", "SEEN", "SLOTS", "SLOT_COUNT", "Steering", "changed", "slots_of"]

SEEN, INGRESS, SLOTS, CHOICE = 1, 2, 3, 4
SLOT_COUNT = 64  # of the hash, towards a reweighted edge: weights are met to 1/64
FLOW_COOKIE = 0xFAB1
# A placed flow's rule goes before what was learnt of it, so that a flow that wakes up again is learnt and hashed anew.
FLOW_IDLE_S, _SEEN_IDLE_S = 50, 60

_TCP = 6
_TOP = "ff:00:00:00:00:00"
_TOP_AND_MARK = "ff:00:00:00:00:ff"
_ALTERNATIVE = 256  # added to a port's number: its group for packets that came in by its first backup
_LABEL_BITS = 8 * LABEL_BYTES


class Steering:
    """All that is ever installed in a fabric's switches."""

    def __init__(self, fabric: Fabric, hash_basis: int, repair: bool = True) -> None:
        """`repair: False` leaves out the backups: what a dead link is sent is lost until somebody changes the rules.

        RequestError when the fabric has a shortest path that is longer than a label can be.
        """
        self.fabric = fabric
        self.hash_basis = hash_basis
        self.repair = repair
        self.paths = PathSets(fabric)
        for path in self._every_path():
            label_of(path)

    @cached_property
    def attached(self) -> dict[str, Port]:
        """By address, the switch port that its NIC hangs on."""
        return {
            nic.ip: self.fabric.peer[Port(host.name, nic.port)] for host in self.fabric.hosts for nic in host.nics
        }

    @cached_property
    def host_of(self) -> dict[str, str]:
        """The host of each address."""
        return {nic.ip: host.name for host in self.fabric.hosts for nic in host.nics}

    @cached_property
    def edges(self) -> dict[str, int]:
        """The switches that have hosts, numbered from 1."""
        names = dict.fromkeys(port.node for port in self.attached.values())
        return {name: number for number, name in enumerate(names, 1)}

    @cached_property
    def backups(self) -> dict[Port, tuple[Backup, ...]]:
        """The backups of every port between switches, for all labels of the fabric as it should be."""
        return backups(self.fabric, self._every_path()) if self.repair else {}

    def _every_path(self) -> Iterator[Path]:
        """Every path of the fabric as it should be, from edge to edge; the ports of the hosts at its ends stand for any."""
        for src, dst in permutations(self.edges, 2):
            for path in self.paths.between(src, dst):
                yield (self._host_port[src], *path, self.fabric.peer[self._host_port[dst]])

    @cached_property
    def _host_port(self) -> dict[str, Port]:
        """By edge, the port of one of its hosts."""
        return {port.node: self.fabric.peer[port] for port in self.attached.values()}

    def _between_switches(self, switch: Switch) -> list[Port]:
        """The ports that labels can name: a host is reached by its address."""
        return [port for port in self.fabric.ports_of[switch.name] if self.fabric.peer[port].node in self.fabric.switch_by_name]

    def groups(self, switch: Switch) -> Iterator[FailoverGroup]:
        """One group per port to another switch, and one more for packets that came in by its first backup."""
        for port in self._between_switches(switch):
            ways = self.backups.get(port, ())
            direct = Bucket(port.number, (Output(port.number),))
            yield FailoverGroup(port.number, (direct, *(_bucket(way) for way in ways)))
            if ways:
                second = [_bucket(way) for way in ways[1:]] or [_bucket(ways[0], back=True)]
                yield FailoverGroup(_ALTERNATIVE + port.number, (direct, *second))

    def rules(self, switch: Switch, paths: PathSets | None = None) -> Iterator[Rule]:
        """All a switch starts with; `paths` are those in use now, all of the fabric by default."""
        yield from self._transit(switch)
        if switch.name in self.edges:
            yield from self._ingress(switch)
            yield from self.choices(switch.name, paths or self.paths)

    def _transit(self, switch: Switch) -> Iterator[Rule]:
        shift = (Move("eth_dst", _LABEL_BITS - 8, 8, 16), Load("eth_dst", 0, 8, 8))
        for port in self._between_switches(switch):
            number, top = port.number, f"{port.number:02x}:00:00:00:00:00"
            yield Rule(Match(eth_dst=(top, _TOP)), (*shift, ToGroup(number)))
            for way in self.backups.get(port, ())[:1]:
                met = Match(eth_dst=(top, _TOP), in_port=way.port.number)
                yield Rule(met, (*shift, ToGroup(_ALTERNATIVE + number)), priority=110)
            marked = f"{top[:-2]}{DETOURED:02x}"
            yield Rule(Match(eth_dst=(marked, _TOP_AND_MARK)), (*shift, Output(number)), priority=150)
            # A detour may reach the far end of its link from where the path goes on to.
            back = Match(eth_dst=(marked, _TOP_AND_MARK), in_port=number)
            yield Rule(back, (*shift, ToInPort()), priority=160)

    def _ingress(self, switch: Switch) -> Iterator[Rule]:
        basis = basis_of(self.hash_basis, switch.dpid)
        for ip, port in self.attached.items():
            if port.node == switch.name:
                out = Output(port.number)
                yield Rule(Match(in_port=port.number, syn=True), (CopyToController(), Resubmit(SEEN)), goto=INGRESS, priority=300)
                yield Rule(Match(in_port=port.number), (Resubmit(SEEN),), goto=INGRESS, priority=200)
                yield Rule(Match(eth_dst=("00:00:00:00:00:00", _TOP), ip_dst=ip), (SetEthDst(mac_of(ip)), out))
                yield Rule(Match(ip_dst=ip), (out,), table=INGRESS, priority=300)
            else:
                edge, choices = self.edges[port.node], len(self.paths.between(switch.name, port.node))
                if not choices:  # on another rail
                    continue
                hashed = (Load("reg1", edge), HashIntoRegister(basis, choices))
                yield Rule(Match(ip_dst=ip), hashed, table=INGRESS, priority=90, goto=CHOICE)
                yield Rule(Match(ip_dst=ip, protocol=_TCP), (*hashed, Learn(SEEN, _SEEN_IDLE_S)), table=INGRESS, goto=CHOICE)

    def choices(self, switch: str, paths: PathSets) -> Iterator[Rule]:
        """What each path number means at an edge; where paths are missing from `paths`, the ones left serve instead."""
        for edge, number in self.edges.items():
            for index, path in enumerate(self.choice(switch, edge, paths)):
                yield Rule(Match(reg0=index, reg1=number), _off(path), table=CHOICE)

    def choice(self, switch: str, edge: str, paths: PathSets) -> list[Path]:
        """The path from edge to edge that each number of the hash means: the usual one while it is among `paths`.

        Empty when none of `paths` is left that a label can hold: then what is installed stays, and its repair with it.
        """
        if switch == edge:
            return []
        usable = [path for path in paths.between(switch, edge) if len(path) <= LABEL_BYTES + 1]
        usual = self.paths.between(switch, edge)
        return [path if path in usable else usable[index % len(usable)] for index, path in enumerate(usual)] if usable else []

    def flow_rule(self, key: FlowKey, path: Path) -> Rule:
        """The one rule that puts a flow on a path; it belongs to the switch `path[1].node`."""
        match = Match(
            ip_src=key.src_ip, ip_dst=key.dst_ip, protocol=key.protocol, tcp_src=key.src_port, tcp_dst=key.dst_port
        )
        actions = _off(path[1:-1]) if len(path) > 2 else (Output(path[-1].number),)
        return Rule(match, actions, table=INGRESS, priority=200, cookie=FLOW_COOKIE, idle_s=FLOW_IDLE_S, tell=True)

    def whole(self, key: FlowKey, between: Path) -> Path | None:
        """The path from host to host of a flow that takes `between` from edge to edge; None for unknown addresses."""
        if key.src_ip not in self.attached or key.dst_ip not in self.attached:
            return None
        return (self.fabric.peer[self.attached[key.src_ip]], *between, self.attached[key.dst_ip])

    def path_of(self, key: FlowKey, first: int, label: Label) -> Path | None:
        """The path that a flow's rule gives it: out of port `first` of its edge, with `label`."""
        return path_of_label(self.fabric, self.host_of[key.src_ip], self.host_of[key.dst_ip], first, label)

    def hashed_path(self, key: FlowKey, number: int, paths: PathSets, weights: Mapping[tuple[str, str], Sequence[int]]) -> Path | None:
        """The path of a flow that was hashed to `number`: of a path, or of a slot where `weights` says so.

        Within an edge there is one path, whatever the hash.
        """
        ends = (self.attached[key.src_ip].node, self.attached[key.dst_ip].node)
        if ends[0] == ends[1]:
            return self.whole(key, ())
        found = self.choice(*ends, paths)
        index = slots_of(weights[ends])[number % SLOT_COUNT] if ends in weights else number
        return self.whole(key, found[index]) if index < len(found) else None

    def slot_rules(self, switch: str, edge: str, weights: Sequence[int]) -> Iterator[Rule]:
        """Hash towards `edge` over `SLOT_COUNT` slots, which the paths share by their weights.

        The slots come first: once the last rules are in force, every slot has a meaning.
        """
        number = self.edges[edge]
        for slot, index in enumerate(slots_of(weights)):
            yield Rule(Match(reg0=slot, reg1=number), (Load("reg0", index),), table=SLOTS, goto=CHOICE)
        basis = basis_of(self.hash_basis, self.fabric.switch_by_name[switch].dpid)
        hashed = (Load("reg1", number), HashIntoRegister(basis, SLOT_COUNT))
        for ip, port in self.attached.items():
            if port.node == edge:
                yield Rule(Match(ip_dst=ip), hashed, table=INGRESS, priority=90, goto=SLOTS)
                yield Rule(Match(ip_dst=ip, protocol=_TCP), (*hashed, Learn(SEEN, _SEEN_IDLE_S)), table=INGRESS, goto=SLOTS)


def _off(between: Path) -> tuple[Action, ...]:
    """Label a packet for a path from edge to edge and send it off."""
    label = label_of((between[0], *between, between[-1]))
    return (SetEthDst(mac_of_label(label)), ToGroup(between[0].number))


def _bucket(way: Backup, back: bool = False) -> Bucket:
    """A backup's bucket; `back` sends the packet out of the port it came in by."""
    out = ToInPort() if back else Output(way.port.number)
    bits = 8 * len(way.prepend)
    if not bits:
        return Bucket(way.port.number, (out,))
    value = int.from_bytes(bytes(way.prepend), "big")
    room = Move("eth_dst", _LABEL_BITS - bits, 8 + bits, 8)
    return Bucket(way.port.number, (room, Load("eth_dst", value, 48 - bits, bits), Load("eth_dst", DETOURED, 0, 8), out))


def slots_of(weights: Sequence[int]) -> list[int]:
    """Which path each slot means: in proportion to the weights, by largest remainders, each path's slots in one piece.

    >>> [slots_of([1, 1, 2]).count(path) for path in range(3)]
    [16, 16, 32]
    """
    total = sum(weights)
    shares = [weight * SLOT_COUNT / total for weight in weights]
    counts = [int(share) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda index: counts[index] - shares[index])
    for index in by_rest[: SLOT_COUNT - sum(counts)]:
        counts[index] += 1
    return [index for index, count in enumerate(counts) for _ in range(count)]


def changed(before: Iterable[Rule], after: Iterable[Rule]) -> list[Rule]:
    """The rules of `after` that are not in `before` as they are."""
    known: Mapping[tuple[Match, int], Rule] = {(rule.match, rule.table): rule for rule in before}
    return [rule for rule in after if known.get((rule.match, rule.table)) != rule]
