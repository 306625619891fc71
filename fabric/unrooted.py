"""A fabric under control without root: a real Ryu app steers a real Open vSwitch, whose switches carry no packets.

Comes in: a Fabric, an app, an empty folder. Goes out: a `ControlledFabric` to ask and to disturb. Open vSwitch's dummy
datapath runs its whole OpenFlow side, tables and hash included; a packet goes in at one port and is seen to leave by
others, but links join no switches: `ofproto/trace` says switch by switch where it would go.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric.control import Controller, controller_process
from fabric.errors import RunError
from fabric.graph import Fabric, Port, Switch
from fabric.installed import installed_path
from fabric.openflow_proxy import OpenFlowProxy, openflow_proxy
from fabric.ovs import PrivateOvs, private_ovs
from fabric.paths import Path as Route
from fabric.polling import until
from fabric.tcp import Endpoints

__all__ = ["DEADLINE_S", "ControlledFabric", "controlled_fabric", "packet", "wait_for"]

DEADLINE_S = 30.0
_HASH_BASIS = 20240229
_COUNTERS = re.compile(r"(duration|n_packets|n_bytes)=[^,]*, ?")
# OpenFlow's priorities have 16 bits; the rules above them keep the switch's own connection to its controller.
_HIDDEN = re.compile(r"table_id=254|priority=\d{6}")


@dataclass(frozen=True)
class ControlledFabric:
    """Switches that are up, and their controller; `folder` is the controller's own, `port` where switches connect.

    `proxy` stands between the two when it was asked for.
    """

    fabric: Fabric
    ovs: PrivateOvs
    controller: Controller
    folder: Path
    port: int
    proxy: OpenFlowProxy | None = None

    def connect(self, switches: Sequence[Switch]) -> None:
        """Make bridges for these switches and point them at the controller."""
        words: list[str] = []
        for switch in switches:
            words += self._bridge(switch)
        self.ovs.vsctl(*words[1:])

    def restart(self, switch: Switch) -> None:
        """Let a switch vanish and come back as from a power cut: its tables are empty, its connection is new."""
        self.ovs.vsctl("del-controller", switch.name, "--", "del-br", switch.name)
        self.connect([switch])

    def unplug(self, *ports: Port) -> None:
        """Take ports away from their switches, which is how a dummy port goes down for real."""
        words = [word for port in ports for word in ("--", "del-port", port.node, port.interface)]
        self.ovs.vsctl(*words[1:])

    def plug(self, *ports: Port) -> None:
        """Put ports back that `unplug` took, under their old numbers."""
        words = [word for port in ports for word in _port(port)]
        self.ovs.vsctl(*words[1:])

    def _bridge(self, switch: Switch) -> list[str]:
        name = switch.name
        words = ["--", "add-br", name, "--", "set", "bridge", name, "datapath_type=dummy", "fail_mode=secure"]
        words += ["protocols=OpenFlow13", f"other-config:datapath-id={switch.dpid:016x}"]
        for port in self.fabric.ports_of[name]:
            words += _port(port)
        words += ["--", "set-controller", name, f"tcp:127.0.0.1:{self.port}"]
        return [*words, "--", "set", "controller", name, "max_backoff=1000"]

    def route(self, src: str, dst: str, src_port: int = 20000, dst_port: int = 5001) -> Route | None:
        """The installed path of one TCP connection between two hosts."""
        hosts = self.fabric.host_by_name
        ends = Endpoints(hosts[src].ip, src_port, hosts[dst].ip, dst_port)
        return installed_path(self.ovs, self.fabric, src, dst, ends)

    def routes(self) -> dict[tuple[str, str], Route | None]:
        """The installed path between every two hosts."""
        names = [host.name for host in self.fabric.hosts]
        return {(src, dst): self.route(src, dst) for src in names for dst in names if src != dst and not self.fabric.together(src, dst)}

    def flows(self, switch: str) -> list[str]:
        """A switch's rules as ovs-ofctl writes them, sorted; without counters and the switch's own hidden ones."""
        lines = self.ovs.appctl("bridge/dump-flows", switch).splitlines()
        bare = [_COUNTERS.sub("", line.strip()) for line in lines]
        return sorted(line for line in bare if line and not _HIDDEN.search(line))

    def groups(self, switch: str) -> list[str]:
        """A switch's groups as ovs-ofctl writes them."""
        command = ["ovs-ofctl", "-O", "OpenFlow13", "dump-groups", f"unix:{self.ovs.folder}/{switch}.mgmt"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RunError(f"ovs-ofctl failed: {done.stderr.strip()}")
        return [line.strip() for line in done.stdout.splitlines() if "group_id=" in line]

    def receive(self, interface: str, words: str, nbytes: int | None = None) -> None:
        """Let a packet, in the words of a datapath flow, come in by an interface; `nbytes` pads it."""
        self.ovs.appctl("netdev-dummy/receive", interface, words, *(["--len", str(nbytes)] if nbytes else []))


def packet(fabric: Fabric, src: str, dst: str, src_port: int = 20000, dst_port: int = 5001) -> str:
    """The first segment of a TCP connection between two hosts, in the words of a datapath flow."""
    a, b = fabric.host_by_name[src], fabric.host_by_name[dst]
    return (
        f"eth(src={a.mac},dst={b.mac}),eth_type(0x800),ipv4(src={a.ip},dst={b.ip},proto=6,tos=0,ttl=64,frag=no),"
        f"tcp(src={src_port},dst={dst_port}),tcp_flags(0x2)"
    )


def _port(port: Port) -> list[str]:
    words = ["--", "add-port", port.node, port.interface, "--", "set", "interface", port.interface]
    return [*words, "type=dummy", f"ofport_request={port.number}"]


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return when the condition holds; RunError, naming it, when it does not within the deadline."""
    if not until(condition, deadline_s):
        raise RunError(f"{what}: not within {deadline_s:.0f} s")


@contextmanager
def controlled_fabric(
    folder: Path, fabric: Fabric, app: str, *, parameters: Mapping[str, Any] | None = None,
    switches: Sequence[Switch] | None = None, wait: bool = True, hash_basis: int = _HASH_BASIS, poll_ms: int = 100,
    proxied: bool = False, **told: Any,
) -> Iterator[ControlledFabric]:  # fmt: skip
    """A fabric under control in `folder`, ready unless told not to `wait`; RunError when the app does not get there.

    `app` is a module or a file; `switches` are those to connect at first, all by default; `told` is what else
    `controller_process` takes. `folder` must be short: Unix
    sockets lie in it.
    """
    port, own = _free_port(), folder / "controller"
    with ExitStack() as stack:
        controller = stack.enter_context(controller_process(
            own, fabric, app=app, parameters=parameters or {}, poll_ms=poll_ms, hash_basis=hash_basis, port=port,
            **told,
        ))  # fmt: skip
        ovs = stack.enter_context(private_ovs(folder / "ovs", "dummy"))
        proxy = stack.enter_context(openflow_proxy(port)) if proxied else None
        controller.wait_listening()
        running = ControlledFabric(fabric, ovs, controller, own, proxy.port if proxy else port, proxy)
        running.connect(fabric.switches if switches is None else switches)
        if wait:
            controller.wait_ready()
        yield running


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
