"""A fabric under control without root: real Ryu steers real Open vSwitch, whose switches carry no packets.

Open vSwitch's dummy datapath runs its whole OpenFlow side, hash and tables included; `ofproto/trace` asks it where a
packet would go.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fabric.control import Controller, controller_process
from fabric.graph import Fabric, Switch
from fabric.installed import installed_path
from fabric.ovs import PrivateOvs, private_ovs
from fabric.paths import Path as Route
from fabric.tcp import Endpoints

DEADLINE_S = 30.0
BASIS = 20240229
Starting = Callable[..., AbstractContextManager["ControlledFabric"]]


@pytest.fixture(autouse=True, scope="session")
def _needs_switch_and_controller() -> None:
    """Open vSwitch's programs and Ryu, but no root."""
    missing = [name for name in ("ovs-vswitchd", "ovsdb-server") if shutil.which(name) is None]
    missing += [] if importlib.util.find_spec("ryu") else ["ryu"]
    if missing:
        reason = f"needs {', '.join(missing)}: run .ci/provision"
        (pytest.fail if os.environ.get("FABRIC_REQUIRE") else pytest.skip)(reason)


@dataclass(frozen=True)
class ControlledFabric:
    """Switches that are up, and their controller; `folder` is the controller's own."""

    fabric: Fabric
    ovs: PrivateOvs
    controller: Controller
    folder: Path
    port: int

    def connect(self, switches: Sequence[Switch]) -> None:
        """Make bridges for these switches and point them at the controller."""
        words: list[str] = []
        for switch in switches:
            words += self._bridge(switch)
        self.ovs.vsctl(*words[1:])

    def _bridge(self, switch: Switch) -> list[str]:
        name = switch.name
        words = ["--", "add-br", name, "--", "set", "bridge", name, "datapath_type=dummy", "fail_mode=secure"]
        words += ["protocols=OpenFlow13", f"other-config:datapath-id={switch.dpid:016x}"]
        for port in self.fabric.ports_of[name]:
            words += ["--", "add-port", name, port.interface, "--", "set", "interface", port.interface]
            words += ["type=dummy", f"ofport_request={port.number}"]
        words += ["--", "set-controller", name, f"tcp:127.0.0.1:{self.port}"]
        return [*words, "--", "set", "controller", name, "max_backoff=1000"]

    def route(self, src: str, dst: str, src_port: int = 20000, dst_port: int = 5001) -> Route | None:
        """The installed path of one TCP connection between two hosts."""
        hosts = self.fabric.host_by_name
        return installed_path(self.ovs, self.fabric, src, dst, Endpoints(hosts[src].ip, src_port, hosts[dst].ip, dst_port))

    def routes(self) -> dict[tuple[str, str], Route | None]:
        """The installed path between every two hosts."""
        names = [host.name for host in self.fabric.hosts]
        return {(src, dst): self.route(src, dst) for src in names for dst in names if src != dst}

    def flows(self, switch: str) -> list[str]:
        """A switch's rules as ovs-ofctl writes them, sorted; without counters and the switch's own hidden ones."""
        lines = self.ovs.appctl("bridge/dump-flows", switch).splitlines()
        bare = [re.sub(r"(duration|n_packets|n_bytes)=[^,]*, ?", "", line.strip()) for line in lines]
        # OpenFlow's priorities have 16 bits; the rules above them keep the switch's own connection to its controller.
        hidden = re.compile(r"table_id=254|priority=\d{6}")
        return sorted(line for line in bare if line and not hidden.search(line))

    def receive(self, interface: str, packet: str) -> None:
        """Let a packet, in the words of a datapath flow, come in by an interface."""
        self.ovs.appctl("netdev-dummy/receive", interface, packet)


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Return when the condition holds; fail, naming it, when it does not within the deadline."""
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {DEADLINE_S:.0f} s"
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _started(
    folder: Path, fabric: Fabric, app: str, *, switches: Sequence[Switch] | None = None, wait: bool = True,
    hash_basis: int = BASIS, poll_ms: int = 100,
) -> Iterator[ControlledFabric]:  # fmt: skip
    port, own = _free_port(), folder / "controller"
    with ExitStack() as stack:
        controller = stack.enter_context(controller_process(
            own, fabric, app=app, parameters={}, poll_ms=poll_ms, hash_basis=hash_basis, port=port,
        ))  # fmt: skip
        ovs = stack.enter_context(private_ovs(folder / "ovs", "dummy"))
        controller.wait_listening()
        running = ControlledFabric(fabric, ovs, controller, own, port)
        running.connect(fabric.switches if switches is None else switches)
        if wait:
            controller.wait_ready()
        yield running


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Starting:
    """`with start(fabric, app) as running:` — a controlled fabric in a folder of its own."""
    return lambda *args, **options: _started(tmp_path_factory.mktemp("run"), *args, **options)


@pytest.fixture(scope="session")
def wait() -> Callable[[Callable[[], object], str], None]:
    """`wait(condition, "what")` with a deadline."""
    return wait_for
