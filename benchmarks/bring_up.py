"""How long a shaped fat-tree takes to come up and to go down again: stock Mininet with TCLink against fabriclab. Root.

    python benchmarks/bring_up.py [K ...] [--rounds N]      by default 4 and 8, 3 rounds, taking turns

Both build the same switches, hosts and links with the same rates, on a private Open vSwitch in a network namespace of their own; neither has a
controller, so that rules take no part. Stock Mininet asks Open vSwitch in batches as well (its `batchStartup`), and shapes with HTB by one `tc` a command; fabriclab also
sets queues' lengths, switches offloads off and reads all back. The time to come up ends when every shaper is in place.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fabric.emulation import machine_sysctls
from fabric.endpoints import Provided
from fabric.graph import Fabric
from fabric.links import Shape
from fabric.network import ControllerAddress, network
from fabric.ovs import PrivateOvs, best_datapath, private_ovs
from fabric.sandbox import Sandbox, sandbox
from topologies.fat_tree import fat_tree

MBPS = 10
MTU = 1500


def stock(fabric: Fabric, _: PrivateOvs) -> Callable[[], None]:
    """Bring a fabric up as Mininet does, and give what takes it down."""
    from mininet.link import TCLink  # a benchmark of it: nothing else here knows Mininet
    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.node import OVSSwitch
    from mininet.topo import Topo

    setLogLevel("critical")
    Mininet.inited = True
    topo = Topo()
    for switch in fabric.switches:
        topo.addSwitch(switch.name, dpid=f"{switch.dpid:016x}")
    for host in fabric.hosts:
        topo.addHost(host.name, ip=f"{host.ip}/8", mac=host.mac)
    for link in fabric.links:
        topo.addLink(link.a.node, link.b.node, port1=link.a.number, port2=link.b.number)
    kind = "user" if best_datapath() == "netdev" else "kernel"
    net: Any = Mininet(topo=topo, controller=None, link=partial(TCLink, bw=MBPS), switch=partial(OVSSwitch, datapath=kind), build=False)
    net.build()
    net.start()

    def take_down() -> None:
        net.stop()

    return take_down


def ours(fabric: Fabric, ovs: PrivateOvs) -> Callable[[], None]:
    """The same by fabriclab's own means."""
    up = ExitStack()
    net = up.enter_context(network(fabric, dict.fromkeys(fabric.scale, Shape(MBPS, MTU, 50)), ovs))
    net.start()
    net.connect(ControllerAddress(6653))
    return up.close


@contextmanager
def place(home: Sandbox) -> Iterator[PrivateOvs]:
    """A namespace with an Open vSwitch in it."""
    folder = Path(tempfile.mkdtemp(dir=home.folder, prefix="ovs-"))
    with home.namespace(), private_ovs(folder, best_datapath()) as ovs:
        yield ovs


def timed(home: Sandbox, bring_up: Callable[[Fabric, PrivateOvs], Callable[[], None]], fabric: Fabric) -> tuple[float, float]:
    """Seconds to come up and to go down."""
    with place(home) as ovs:
        begin = time.monotonic()
        take_down = bring_up(fabric, ovs)
        up = time.monotonic()
        take_down()
        return up - begin, time.monotonic() - up


def main() -> int:
    """Take turns, and print medians."""
    parser = argparse.ArgumentParser(description="How long a shaped fat-tree takes to come up and to go down.")
    parser.add_argument("k", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with sandbox() as home:
        home.set_machine_sysctls(machine_sysctls(Provided("cubic", "cubic", "kernel")))
        for k in asked.k:
            fabric = fat_tree(k)
            took: dict[str, list[tuple[float, float]]] = {"stock Mininet": [], "fabriclab": []}
            for _ in range(asked.rounds):
                for name, bring_up in (("stock Mininet", stock), ("fabriclab", ours)):
                    took[name].append(timed(home, bring_up, fabric))
            print(f"k={k}: {len(fabric.switches)} switches, {len(fabric.hosts)} hosts, {len(fabric.links)} links")
            for way, number in (("up", 0), ("down", 1)):
                words = [f"{name} {statistics.median(t[number] for t in those):.2f} s ({', '.join(f'{t[number]:.2f}' for t in those)})" for name, those in took.items()]
                share = statistics.median(b[number] / a[number] for a, b in zip(*took.values(), strict=True))
                print(f"  {way}: {'; '.join(words)}; fabriclab takes {share:.2f} of it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
