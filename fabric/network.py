"""From a Fabric to a running Mininet network and down again; the only room that knows Mininet.

Mininet holds the nodes: hosts are its namespaces with their shells, switches its OVSSwitch. What Mininet does by a
process per step (interfaces, addresses, shapers) is done here in bulk over netlink, then read back and compared.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mininet.cli import CLI
from mininet.link import Link as MininetLink
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.node import Host as MininetHost
from mininet.node import OVSSwitch
from pyroute2 import IPRoute

from fabric.errors import RunError
from fabric.graph import Fabric, Host, Port
from fabric.inside import shape_inside, wrong_inside
from fabric.kernel import inside_namespace, namespace_of, packets_with_ce, read_sysctl, set_sysctl, silence_ipv6
from fabric.links import Shape, class_requests, differences, read_shape, requests
from fabric.marking import Marker, Threshold
from fabric.offloads import offloads_left_on, switch_off_offloads
from fabric.ovs import PrivateOvs
from fabric.release import release_senders
from fabric.routes import ADDRESS_PREFIX, Metrics, set_routes, wrong_routes

__all__ = ["ControllerAddress", "Network", "command_line", "network"]

_SEGMENTS_A_PACKET = 1
_RECONNECT_MS = 1000  # the longest pause of a switch between two tries to reach its controller
_IFF_UP = 1  # linux/if.h
_ROOT_QDISC = 0x10000  # handle 1:, where fabric.links puts its filter
_NO_PREFIX_ROUTE = 0x200  # IFA_F_NOPREFIXROUTE, linux/if_addr.h


@dataclass(frozen=True, slots=True)
class ControllerAddress:
    """Where switches find their controller, in the shape Mininet asks a controller for."""

    port: int
    name: str = "controller"
    protocol: str = "tcp"

    def IP(self) -> str:
        """The address, always loopback of the run's own namespace."""
        return "127.0.0.1"


class _PreparedLink(MininetLink):  # type: ignore[misc]
    """A Mininet link whose interfaces were already made in bulk."""

    @classmethod
    def makeIntfPair(cls, *_: Any, **__: Any) -> None:
        return None


class _Switch(OVSSwitch):  # type: ignore[misc]
    """Mininet's OVSSwitch without a shell of its own until somebody asks for one."""

    def startShell(self, mnopts: str | None = None) -> None:
        self.shell = self.pid = None
        self.waiting = False

    def cmd(self, *args: Any, **kwargs: Any) -> Any:
        if self.shell is None:
            super().startShell()
        return super().cmd(*args, **kwargs)


@dataclass
class Network:
    """A running network. `mininet` is the live Mininet object; `shapes` is what was asked of every port at the start.

    `in_force` is what is asked of it now, `down` are the switches' ports that are to be down; `routes` is by host and mark.
    """

    fabric: Fabric
    mininet: Any
    ovs: PrivateOvs
    shapes: Mapping[Port, Shape]
    _namespaces: dict[str, int] = field(default_factory=dict)
    in_force: dict[Port, Shape] = field(default_factory=dict)
    down: set[Port] = field(default_factory=set)
    routes: Mapping[str, Mapping[int, Metrics]] = field(default_factory=dict)
    _controller: ControllerAddress | None = None
    on_rate: list[Callable[[Port, float], None]] = field(default_factory=list)  # who is told of a port's new rate
    inside_mbps: float | None = None  # what a host can send to the others of its server; None is no limit
    _marker: Marker | None = None
    _marked: set[Port] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.in_force.update(self.shapes)

    def host_pid(self, name: str) -> int:
        """The process whose namespaces are those of a host, and of all in its server."""
        return int(self.mininet.nameToNode[self.fabric.host_by_name[name].machine].pid)

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Run the block with this thread in a host's network namespace."""
        with inside_namespace(self._namespaces[host]):
            yield

    def start(self) -> None:
        """Create all bridges in one transaction, without a controller; shape their ports, and read all back.

        Raises RunError when an interface is not what was asked.
        """
        commands: list[str] = []
        for switch in self.mininet.switches:
            switch.start([])
            commands += switch.commands
            switch.commands = []
        _batched_vsctl(self.ovs, commands)
        # Only now: Open vSwitch removes the qdiscs of every port it takes.
        _configure_switch_ports(self)
        if wrong := self.read_back():
            raise RunError(f"{len(wrong)} interfaces are not what was asked, the first: {wrong[0]}")

    def connect(self, controller: ControllerAddress) -> None:
        """Point all switches at the controller in one transaction; after `start`, and after whatever it may order about."""
        self._controller = controller
        _batched_vsctl(self.ovs, [_pointing(switch.name, controller) for switch in self.fabric.switches])

    def mark(self, marker: Marker, thresholds: Mapping[Port, Threshold]) -> None:
        """Have packets marked that leave these ports of switches; after `start`, which makes their queues.

        RunError when a port is not what was asked afterwards.
        """
        self._marker, self._marked = marker, set(thresholds)
        with IPRoute() as netlink, _probe_socket() as channel:
            index = _indexes(netlink)
            for port, threshold in thresholds.items():
                self.in_force[port] = marker.shaped(self.in_force[port], threshold)
                marker.attach(netlink, index[port.interface], port, self.in_force[port], threshold)
            if wrong := _differences(netlink, channel, {port: self.in_force[port] for port in thresholds}):
                raise RunError(f"{len(wrong)} interfaces do not mark as was asked, the first: {wrong[0]}")

    def set_thresholds(self, thresholds: Mapping[Port, Threshold]) -> None:
        """Have ports that mark do so at other thresholds, while traffic runs; RunError when the kernel says others."""
        if self._marker is None or not self._marked.issuperset(thresholds):
            raise RunError("thresholds can be changed only where something marks")
        for port, threshold in thresholds.items():
            self._marker.set(port, threshold)
            self.in_force[port] = self._marker.shaped(self.in_force[port], threshold)

    def hook(self, add: Callable[[Any, int, Port], None]) -> None:
        """Call `add(netlink, index, port)` for every port, in its namespace; after `start`, which makes their queues."""
        groups = {node: [port for port in self.shapes if port.node == node] for node in self._namespaces}
        groups[""] = [port for port in self.shapes if port.node not in self._namespaces]
        for ports in groups.values():
            with self._around(ports[0]), IPRoute() as netlink:
                index = _indexes(netlink)
                for port in ports:
                    add(netlink, index[port.interface], port)

    def ce_received(self) -> dict[str, int]:
        """How many packets with CE the IP layer of every host, or server of hosts, has received."""
        found = {}
        for host in self.fabric.hosts:
            if host.machine not in found:
                with self.inside(host.name):
                    found[host.machine] = packets_with_ce()
        return found

    def set_rate(self, ports: Collection[Port], mbps: float) -> tuple[float, float]:
        """Give ports another rate without touching their queues; gives when that began and ended (CLOCK_MONOTONIC).

        RunError when the kernel says another rate afterwards.
        """
        begin = time.monotonic()
        for port in ports:
            self.in_force[port] = replace(self.in_force[port], mbps=mbps)
            with self._around(port), IPRoute() as netlink:
                (index,) = netlink.link_lookup(ifname=port.interface)
                # A class is changed in place; a new one, or a new root, would drop what waits below it.
                for arguments in class_requests(self.in_force[port]):
                    netlink.tc("change-class", "htb", index, **arguments)
            for tell in self.on_rate:
                tell(port, mbps)
            if self._marker and port in self._marked:
                self._marker.rate_changed(port, self.in_force[port])
        end = time.monotonic()
        for port in ports:
            with self._around(port), IPRoute() as netlink, _probe_socket() as channel:
                if wrong := _differences(netlink, channel, {port: self.in_force[port]}):
                    raise RunError(f"a changed rate is not what was asked: {wrong[0]}")
        return begin, end

    def set_down(self, ports: Iterable[Port]) -> tuple[float, float]:
        """Have just these ports of switches down and all others up; gives when that began and ended (CLOCK_MONOTONIC).

        The peer of a port that is taken down loses its carrier, but hears of it later (the kernel collects such
        news): where both ends are switches', name both. Never a host's end: it would lose its routes.
        """
        wanted = set(ports)
        with IPRoute() as netlink:
            index = _indexes(netlink)
            begin = time.monotonic()
            for port in sorted(wanted - self.down):
                netlink.link("set", index=index[port.interface], state="down")
            for port in sorted(self.down - wanted):
                netlink.link("set", index=index[port.interface], state="up")
            end = time.monotonic()
        self.down = wanted
        return begin, end

    def forget(self, switch: str) -> None:
        """Cut a switch off its controller and empty its tables, as a loss of power does."""
        self.ovs.vsctl("del-controller", switch)
        for command in ("del-flows", "del-groups"):
            self.ovs.ofctl(command, switch)

    def reconnect(self, switch: str) -> None:
        """Point a switch at the controller again, which then has to give it its rules anew."""
        address = self._controller
        if address is None:
            raise RunError(f"{switch} has no controller to go back to: the network was never connected")
        _batched_vsctl(self.ovs, [_pointing(switch, address)])

    def _around(self, port: Port) -> contextlib.AbstractContextManager[None]:
        """The namespace that a port is in."""
        return self.inside(port.node) if port.node in self._namespaces else contextlib.nullcontext()

    def set_host_sysctls(self, values: Mapping[str, str], hosts: Collection[str] | None = None) -> None:
        """Set sysctls in the namespaces of some hosts, all by default, and read each back."""
        for host in hosts if hosts is not None else self.fabric.host_by_name:
            with self.inside(host):
                for name, value in values.items():
                    set_sysctl(name, value)

    def host_sysctl(self, host: str, name: str) -> str:
        """A sysctl as a host sees it."""
        with self.inside(host):
            return read_sysctl(name)

    def set_routes(self, routes: Mapping[str, Mapping[int, Metrics]]) -> None:
        """Give every host's route, and those of marks, what TCP shall take over from them, and read it back."""
        self.routes = routes
        for host in self.fabric.hosts:
            with self.inside(host.name), IPRoute() as netlink:
                set_routes(netlink, _indexes(netlink)[Port(host.name, 0).interface], host.ip, routes[host.name])
        if wrong := self.routes_differ():
            raise RunError(f"{len(wrong)} routes are not what was asked, the first: {wrong[0]}")

    def routes_differ(self) -> list[str]:
        """In words, every difference between the routes that were asked for and what the kernel says."""
        found = []
        for host, routes in self.routes.items():
            with self.inside(host), IPRoute() as netlink:
                found += [f"{host}: {words}" for words in wrong_routes(netlink, routes)]
        return found

    def read_back(self) -> list[str]:
        """In words, every difference between what is asked now and what the kernel says, over all interfaces."""
        found = []
        with IPRoute() as netlink, _probe_socket() as channel:
            ports = [port for port in self.shapes if port.node in self.fabric.switch_by_name]
            found += _differences(netlink, channel, {port: self.in_force[port] for port in ports}, self.down)
        for host in self.fabric.hosts:
            with self.inside(host.name), IPRoute() as netlink, _probe_socket() as channel:
                shapes = {port: self.in_force[port] for port in self.fabric.ports_of[host.name]}
                found += _differences(netlink, channel, shapes)
        for name, members in self.fabric.servers.items():
            with self.inside(members[0].name), IPRoute() as netlink:
                wrong = wrong_inside(netlink, _indexes(netlink)["lo"], [host.ip for host in members], self.inside_mbps)
                found += [f"{name}: {words}" for words in wrong]
        return found


@contextlib.contextmanager
def network(fabric: Fabric, shapes: Mapping[Port, Shape], ovs: PrivateOvs, inside_mbps: float | None = None) -> Iterator[Network]:
    """Build hosts and links inside this thread's network namespace; the hosts end with the block.

    The switches' interfaces are left to the namespace, which takes them along when it goes. `shapes` has one entry for every port,
    `inside_mbps` is what hosts can send to others of their server. The switches come alive by `Network.connect`.
    """
    setLogLevel("critical")
    # Mininet's own init would change some thirty sysctls of the machine; the sandbox keeps those it needs.
    Mininet.inited = True
    net = Mininet(build=False, controller=None)
    OVSSwitch.OVSVersion = "3.0"  # its setup() asks a system-wide Open vSwitch, which is not ours
    built = Network(fabric, net, ovs, dict(shapes), inside_mbps=inside_mbps)
    try:
        _add_nodes(net, fabric, ovs)
        for host in fabric.hosts:
            built._namespaces[host.name] = namespace_of(built.host_pid(host.name))
        _make_interfaces(built)
        for host in fabric.hosts:
            _configure_host(built, host)
        for members in fabric.servers.values():
            _configure_server(built, members)
        for link in fabric.links:
            _add_link(net, fabric, link.a, link.b)
        for host in fabric.hosts:
            _tell_mininet(net, host)
        net.built = True
        yield built
    finally:
        _take_down(built)


def _add_nodes(net: Any, fabric: Fabric, ovs: PrivateOvs) -> None:
    for host in fabric.hosts:
        if host.machine not in net.nameToNode:  # a server comes once, with its first NIC's address
            net.addHost(host.machine, cls=MininetHost, ip=f"{host.ip}/{ADDRESS_PREFIX}", mac=host.mac)
    for switch in fabric.switches:
        net.addSwitch(
            switch.name, cls=_Switch, dpid=f"{switch.dpid:016x}", protocols="OpenFlow13", batch=True,
            datapath="user" if ovs.datapath == "netdev" else "kernel", reconnectms=_RECONNECT_MS,
        )  # fmt: skip


def _add_link(net: Any, fabric: Fabric, a: Port, b: Port) -> None:
    """Mininet counts ports by node: in a server the NICs are its ports, each with the name that it has."""
    (one, first), (other, second) = _mininet_end(net, fabric, a), _mininet_end(net, fabric, b)
    net.addLink(one, other, first, second, cls=_PreparedLink, intfName1=a.interface, intfName2=b.interface)


def _mininet_end(net: Any, fabric: Fabric, port: Port) -> tuple[Any, int]:
    host = fabric.host_by_name.get(port.node)
    if host is None or not host.server:
        return net.nameToNode[port.node], port.number
    return net.nameToNode[host.server], len(net.nameToNode[host.server].intfs)


def _tell_mininet(net: Any, host: Host) -> None:
    """Give Mininet's own objects the addresses it did not set itself, so that its CLI and host.IP() know them."""
    for nic in host.nics:
        interface = net.nameToNode[host.machine].nameToIntf[Port(host.name, nic.port).interface]
        interface.ip, interface.prefixLen, interface.mac = nic.ip, ADDRESS_PREFIX, nic.mac


def _make_interfaces(built: Network) -> None:
    """All veth pairs; a host's end is born inside its namespace."""
    hosts = built.fabric.host_by_name
    with IPRoute() as netlink:
        for link in built.fabric.links:
            near, far = (link.b, link.a) if link.a.node in hosts else (link.a, link.b)
            peer: dict[str, Any] = {"ifname": far.interface, "mtu": built.shapes[far].mtu}
            if far.node in hosts:
                peer["net_ns_fd"] = built._namespaces[far.node]
            netlink.link("add", ifname=near.interface, kind="veth", mtu=built.shapes[near].mtu, peer=peer)


def _configure_switch_ports(built: Network) -> None:
    with IPRoute() as netlink, _probe_socket() as channel:
        index = _indexes(netlink)
        for port, shape in built.shapes.items():
            if port.node in built.fabric.switch_by_name:
                _prepare(netlink, channel, index[port.interface], port, shape)
        if built.ovs.datapath == "system":
            hosts = built.fabric.host_by_name
            release_senders(netlink, [index[built.fabric.peer[port].interface] for port in built.shapes if port.node in hosts])


def _configure_host(built: Network, host: Host) -> None:
    """Address, shaper and static neighbours of one host: nothing on the fabric ever needs a broadcast."""
    with built.inside(host.name), IPRoute() as netlink, _probe_socket() as channel:
        silence_ipv6()
        index = _indexes(netlink)
        netlink.link("set", index=index["lo"], state="up")
        for nic in host.nics:
            port = Port(host.name, nic.port)
            netlink.link("set", index=index[port.interface], address=nic.mac)
            _prepare(netlink, channel, index[port.interface], port, built.shapes[port])
            # The NICs of a server are all on the same network: which one a packet leaves by, its source says (fabric.routes).
            kept = {"flags": _NO_PREFIX_ROUTE} if host.server else {}
            netlink.addr("add", index=index[port.interface], address=nic.ip, prefixlen=ADDRESS_PREFIX, **kept)
        first = index[Port(host.name, host.nics[0].port).interface]
        for other in built.fabric.hosts:
            if other.machine != host.machine:
                for nic in other.nics:
                    netlink.neigh("add", dst=nic.ip, lladdr=nic.mac, ifindex=first, state="permanent")


def _configure_server(built: Network, members: Sequence[Host]) -> None:
    """The link inside a server, and that its NICs take what is for them whatever way back the kernel would choose."""
    with built.inside(members[0].name), IPRoute() as netlink:
        for name in ("all", "default", *(Port(host.name, nic.port).interface for host in members for nic in host.nics)):
            set_sysctl(f"net.ipv4.conf.{name}.rp_filter", "0")
        if built.inside_mbps is not None:
            mtu = built.shapes[built.fabric.ports_of[members[0].name][0]].mtu
            shape_inside(netlink, _indexes(netlink)["lo"], [host.ip for host in members], built.inside_mbps, mtu)


def _prepare(netlink: Any, channel: socket.socket, index: int, port: Port, shape: Shape) -> None:
    switch_off_offloads(channel, port.interface)
    for command, kind, arguments in requests(shape):
        netlink.tc(command, kind, index, **arguments)
    # Since Linux 4.17 TCP builds super-packets whatever the offloads say, and HTB passes one whole: up to 64 KiB ahead
    # of the rate. One segment a packet forbids that. Up comes last: an earlier packet would pass the shaper by.
    netlink.link("set", index=index, state="up", gso_max_segs=_SEGMENTS_A_PACKET)


def _indexes(netlink: Any) -> dict[str, int]:
    return {link.get_attr("IFLA_IFNAME"): link["index"] for link in netlink.get_links()}


def _probe_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _differences(
    netlink: Any, channel: socket.socket, shapes: Mapping[Port, Shape], down: Collection[Port] | None = None
) -> list[str]:
    """Compare every port of one namespace with what was asked, by two dumps for all of them.

    Ports in `down` are to be down and all others up, where it is given.
    """
    links = {link.get_attr("IFLA_IFNAME"): link for link in netlink.get_links()}
    qdiscs: dict[int, list[Any]] = {}
    for qdisc in netlink.get_qdiscs():
        qdiscs.setdefault(qdisc["index"], []).append(qdisc)
    found = []
    for port, asked in shapes.items():
        if port.interface not in links:
            found.append(f"{port.interface}: no such interface")
            continue
        link = links[port.interface]
        index = link["index"]
        got, burst = read_shape(qdiscs.get(index, []), netlink.get_classes(index), link.get_attr("IFLA_MTU"))
        wrong = differences(asked, got, burst)
        if asked.floor is not None and not netlink.get_filters(index=index, parent=_ROOT_QDISC):
            wrong.append("no filter leads packets with priority to their class")
        if (segments := link.get_attr("IFLA_GSO_MAX_SEGS")) != _SEGMENTS_A_PACKET:
            wrong.append(f"{segments} segments a packet instead of {_SEGMENTS_A_PACKET}")
        if down is not None and bool(link["flags"] & _IFF_UP) == (port in down):
            wrong.append("up instead of down" if port in down else "down instead of up")
        wrong += [f"offload {name} is on" for name in offloads_left_on(channel, port.interface)]
        if wrong:
            found.append(f"{port.interface}: {', '.join(wrong)}")
    return found


def _pointing(switch: str, controller: ControllerAddress) -> str:
    """The command by which Open vSwitch has a switch look for its controller."""
    target = f'target="{controller.protocol}:{controller.IP()}:{controller.port}"'
    made = f"-- --id=@{switch} create Controller {target} max_backoff={_RECONNECT_MS}"
    return f"{made} -- set bridge {switch} controller=[@{switch}]"


def _batched_vsctl(ovs: PrivateOvs, commands: Sequence[str]) -> None:
    """Commands as Mininet's switches write them, in transactions short enough for a command line."""
    batch: list[str] = []
    for command in commands:
        # Mininet quotes for a shell; there is none here.
        tokens = [token.replace('\\"', '"') for token in command.split()]
        if sum(map(len, batch)) + sum(map(len, tokens)) > OVSSwitch.argmax:
            ovs.vsctl(*batch)
            batch = []
        batch += tokens
    if batch:
        ovs.vsctl(*batch)


def _take_down(built: Network) -> None:
    for descriptor in built._namespaces.values():
        os.close(descriptor)
    built._namespaces.clear()
    for node in (*built.mininet.hosts, *built.mininet.switches):
        with contextlib.suppress(OSError):
            node.terminate()


def command_line(net: Any, more: Mapping[str, Callable[[str], None]]) -> None:
    """Mininet's own command line on a network that is up, with more commands by name, until its end of input or `exit`."""

    class Line(CLI):  # type: ignore[misc]
        """What Mininet's has, and what it is given."""

        def emptyline(self) -> None:
            """An empty line does nothing; Mininet's would repeat the last command."""

    for name, act in more.items():
        setattr(Line, f"do_{name}", lambda _, words, act=act: act(words))
    setLogLevel("info")  # its commands answer by logging
    try:
        Line(net)
    finally:
        setLogLevel("critical")
