"""What a fabric is: switches, hosts and links as frozen values, with every name, port and address they carry.

Comes in: calls of `FabricBuilder` by a topology. Goes out: a checked `Fabric`, and its JSON for other processes.
Nothing here touches the machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import networkx as nx

from fabric.errors import RequestError

__all__ = ["INSIDE", "Fabric", "FabricBuilder", "Host", "Link", "Nic", "Port", "Switch", "mac_of"]

INTERFACE_NAME_LIMIT = 15  # IFNAMSIZ - 1, the kernel's
_NETWORK = ipaddress.IPv4Network("10.0.0.0/8")  # every host has a route to all of it, by its NIC
INSIDE = -1  # the number of the port by which a host's packets reach the others of its server, and no network


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One end of a link. As a direction of traffic it means: out of this node by this port."""

    node: str
    number: int

    @property
    def interface(self) -> str:
        """The kernel's name of the interface, Mininet's way: `p0e1-eth3`; inside a server there is none, and it is `n0r1-inside`."""
        return f"{self.node}-eth{self.number}" if self.number != INSIDE else f"{self.node}-inside"


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch: `position` are its coordinates in the topology, `dpid` its OpenFlow datapath id.

    One without `transit` passes on only what its own hosts send and get, as a NIC with two ports does: no path leads through it.
    """

    name: str
    tier: str
    position: tuple[int, ...]
    dpid: int
    transit: bool = True


@dataclass(frozen=True, slots=True)
class Nic:
    """An addressed interface of a host."""

    port: int
    ip: str
    mac: str


@dataclass(frozen=True, slots=True)
class Host:
    """A host: an addressed NIC and what runs beside it. Those of one `server` share its network namespace, and a link inside."""

    name: str
    position: tuple[int, ...]
    nics: tuple[Nic, ...]
    server: str = ""

    @property
    def machine(self) -> str:
        """The name of its network namespace: the server's, or its own."""
        return self.server or self.name

    @property
    def ip(self) -> str:
        """The address of the first NIC, by which collectives reach the host."""
        return self.nics[0].ip

    @property
    def mac(self) -> str:
        """The hardware address of the first NIC."""
        return self.nics[0].mac


@dataclass(frozen=True, slots=True)
class Link:
    """A full-duplex link; each direction carries `scale` times the experiment's `links.mbps`."""

    a: Port
    b: Port
    scale: float = 1.0


def mac_of(ip: str) -> str:
    """The hardware address that belongs to an IPv4 address: 02:00 (locally administered), then its four bytes."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x00" + ipaddress.IPv4Address(ip).packed)


@dataclass(frozen=True)
class Fabric:
    """A whole network, as described and not yet built; look-ups are cached.

    `inside` is what a host can send to the others of its server, as a multiple of the experiment's `links.mbps`; None is no limit.
    """

    topology: str
    params: Mapping[str, Any]
    switches: tuple[Switch, ...]
    hosts: tuple[Host, ...]
    links: tuple[Link, ...]
    inside: float | None = None

    @cached_property
    def servers(self) -> dict[str, tuple[Host, ...]]:
        """By name, the hosts of each server that has any of its own; empty where every host is by itself."""
        found: dict[str, list[Host]] = {}
        for host in self.hosts:
            if host.server:
                found.setdefault(host.server, []).append(host)
        return {name: tuple(members) for name, members in found.items()}

    def together(self, a: str, b: str) -> bool:
        """Whether two different hosts are in one server, and reach each other without the network."""
        hosts = self.host_by_name
        return a != b and hosts[a].server != "" and hosts[a].server == hosts[b].server

    @cached_property
    def switch_by_name(self) -> dict[str, Switch]:
        """Switches by name."""
        return {switch.name: switch for switch in self.switches}

    @cached_property
    def switch_by_dpid(self) -> dict[int, Switch]:
        """Switches by datapath id."""
        return {switch.dpid: switch for switch in self.switches}

    @cached_property
    def host_by_name(self) -> dict[str, Host]:
        """Hosts by name."""
        return {host.name: host for host in self.hosts}

    @cached_property
    def peer(self) -> dict[Port, Port]:
        """The far end of every port."""
        return {near: far for link in self.links for near, far in ((link.a, link.b), (link.b, link.a))}

    @cached_property
    def scale(self) -> dict[Port, float]:
        """The capacity out of every port, as a multiple of the experiment's `links.mbps`."""
        return {port: link.scale for link in self.links for port in (link.a, link.b)}

    @cached_property
    def ports_of(self) -> dict[str, tuple[Port, ...]]:
        """The ports of every node, in port order."""
        ports: dict[str, list[Port]] = {name: [] for name in (*self.switch_by_name, *self.host_by_name)}
        for port in self.peer:
            ports[port.node].append(port)
        return {node: tuple(sorted(found)) for node, found in ports.items()}

    @cached_property
    def attached_to(self) -> dict[str, tuple[str, ...]]:
        """By host, the switches that join it to others: those it hangs on, or those beyond a NIC that is a switch itself."""
        return {host.name: tuple(dict.fromkeys(self._joined_by(host.name))) for host in self.hosts}

    def _joined_by(self, host: str) -> Iterator[str]:
        for near in (self.peer[port].node for port in self.ports_of[host]):
            own = not self.switch_by_name[near].transit
            beyond = [far for port in self.ports_of[near] if (far := self.peer[port].node) in self.switch_by_name] if own else []
            yield from beyond or [near]

    @cached_property
    def graph(self) -> nx.Graph:
        """The fabric as a networkx graph: node attributes `kind` and `tier`; parallel links are one edge."""
        graph = nx.Graph()
        graph.add_nodes_from((switch.name, {"kind": "switch", "tier": switch.tier}) for switch in self.switches)
        graph.add_nodes_from((host.name, {"kind": "host", "tier": "host"}) for host in self.hosts)
        graph.add_edges_from((link.a.node, link.b.node) for link in self.links)
        return graph

    @cached_property
    def part(self) -> dict[str, int]:
        """Which part of the network each node is in, by number: there is one only, but where rails meet nowhere but inside servers."""
        return {name: number for number, nodes in enumerate(nx.connected_components(self.graph)) for name in nodes}

    def uplinks(self) -> Iterator[Port]:
        """Every switch port whose far end is a switch farther from the hosts."""
        for near, far in self.peer.items():
            if self.level.get(near.node, 0) < self.level.get(far.node, -1) and near.node in self.switch_by_name:
                yield near

    @cached_property
    def level(self) -> dict[str, int]:
        """How many links above the nearest host each node is; hosts are at 0."""
        return dict(nx.multi_source_dijkstra_path_length(self.graph, {host.name for host in self.hosts}))

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON can hold and `from_json` reads."""
        return {
            "topology": self.topology,
            "params": dict(self.params),
            "switches": [asdict(switch) for switch in self.switches],
            "hosts": [asdict(host) for host in self.hosts],
            "links": [asdict(link) for link in self.links],
            "inside": self.inside,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Fabric:
        """The fabric that `to_json` wrote."""
        return Fabric(
            topology=data["topology"],
            params=data["params"],
            switches=tuple(Switch(**{**item, "position": tuple(item["position"])}) for item in data["switches"]),
            hosts=tuple(
                Host(item["name"], tuple(item["position"]), tuple(Nic(**nic) for nic in item["nics"]), item.get("server", ""))
                for item in data["hosts"]
            ),
            inside=data.get("inside"),
            links=tuple(Link(Port(**item["a"]), Port(**item["b"]), item["scale"]) for item in data["links"]),
        )


@dataclass
class FabricBuilder:
    """Collects switches, hosts and links, fills in what is left out, and checks the whole.

    >>> build = FabricBuilder("pair")
    >>> switch = build.switch("s1")
    >>> for name in ("a", "b"):
    ...     _ = build.link(build.host(name), switch)
    >>> [host.ip for host in build.fabric().hosts]
    ['10.0.0.1', '10.0.0.2']
    """

    topology: str
    params: Mapping[str, Any] = field(default_factory=dict)
    inside: float | None = None
    _switches: list[Switch] = field(default_factory=list)
    _hosts: list[Host] = field(default_factory=list)
    _links: list[Link] = field(default_factory=list)
    _ports: dict[str, set[int]] = field(default_factory=dict)  # the numbers in use, by node
    _host_names: set[str] = field(default_factory=set)
    _dpids: set[int] = field(default_factory=set)

    def switch(
        self, name: str, *, tier: str = "switch", position: tuple[int, ...] = (), dpid: int | None = None, transit: bool = True
    ) -> str:
        """Add a switch and return its name; without `dpid` it gets the next free number."""
        number = dpid if dpid is not None else next(n for n in range(1, len(self._dpids) + 2) if n not in self._dpids)
        self._dpids.add(number)
        self._switches.append(Switch(name, tier, position, number, transit))
        return name

    def host(self, name: str, *, position: tuple[int, ...] = (), ip: str | None = None, server: str = "") -> str:
        """Add a host with one NIC and return its name; without `ip` it gets the next address of 10.0.0.0/8.

        Hosts with the same `server` are its NICs: one namespace, in which they reach each other without the network.
        """
        address = ip or str(ipaddress.IPv4Address("10.0.0.1") + len(self._hosts))
        try:
            inside = ipaddress.IPv4Address(address) in _NETWORK
        except ValueError:
            inside = False
        if not inside:
            raise RequestError(f"topology {self.topology}: host {name} has address {ip}; give it an IPv4 one of {_NETWORK}")
        self._host_names.add(name)
        self._hosts.append(Host(name, position, (Nic(0, address, mac_of(address)),), server))
        return name

    def link(
        self, a: str, b: str, *, a_port: int | None = None, b_port: int | None = None, scale: float = 1.0
    ) -> Link:
        """Join two nodes; without a number each end gets its node's next free port (hosts count from 0)."""
        link = Link(self._claim(a, a_port), self._claim(b, b_port), scale)
        self._links.append(link)
        return link

    def fabric(self) -> Fabric:
        """The checked fabric; raises RequestError naming the first thing wrong."""
        switches, hosts, links = tuple(self._switches), tuple(self._hosts), tuple(self._links)
        fabric = Fabric(self.topology, dict(self.params), switches, hosts, links, self.inside)
        _check(fabric)
        return fabric

    def _claim(self, node: str, number: int | None) -> Port:
        first, used = 0 if node in self._host_names else 1, self._ports.setdefault(node, set())
        if number is None:
            number = next(n for n in range(first, len(used) + first + 1) if n not in used)
        if number in used:
            raise RequestError(f"topology {self.topology}: port {number} of {node} is used twice; give each link its own")
        used.add(number)
        return Port(node, number)


def _check(fabric: Fabric) -> None:
    where = f"topology {fabric.topology}"
    if not fabric.hosts or not fabric.switches:
        raise RequestError(f"{where}: got {len(fabric.hosts)} hosts and {len(fabric.switches)} switches; add at least one of each")
    _unique(where, "name", [switch.name for switch in fabric.switches] + [host.name for host in fabric.hosts])
    _unique(where, "dpid", [switch.dpid for switch in fabric.switches])
    _unique(where, "address", [nic.ip for host in fabric.hosts for nic in host.nics])
    names = fabric.switch_by_name.keys() | fabric.host_by_name.keys()
    for port in fabric.peer:
        if port.node not in names:
            raise RequestError(f"{where}: a link ends at {port.node}, which is no node; add it by switch() or host() first")
        if len(port.interface) > INTERFACE_NAME_LIMIT:
            raise RequestError(
                f"{where}: interface name {port.interface} has {len(port.interface)} characters, "
                f"the kernel takes {INTERFACE_NAME_LIMIT}; shorten the node's name"
            )
    for link in fabric.links:
        if not link.scale > 0:
            raise RequestError(f"{where}: link {link.a.node} - {link.b.node} has scale {link.scale}; it must be above 0")
    if fabric.inside is not None and not fabric.inside > 0:
        raise RequestError(f"{where}: hosts of a server have {fabric.inside} of a link's rate between them; it must be above 0, or None")
    if alike := fabric.servers.keys() & names:
        raise RequestError(f"{where}: {sorted(alike)[0]} is a server's name and a node's; give each its own")
    whole = fabric.graph.copy()  # with servers, over which a fabric of separate rails is one
    whole.add_edges_from((members[0].name, other.name) for members in fabric.servers.values() for other in members[1:])
    if not nx.is_connected(whole):
        apart = sorted(names - nx.node_connected_component(whole, fabric.hosts[0].name))
        raise RequestError(f"{where}: {', '.join(apart[:5])} cannot be reached from {fabric.hosts[0].name}; link every node")


def _unique(where: str, what: str, values: list[Any]) -> None:
    twice = {value for value in values if values.count(value) > 1} if len(set(values)) < len(values) else set()
    if twice:
        raise RequestError(f"{where}: {what} {sorted(twice)[0]} is used twice; each {what} must be its own")
