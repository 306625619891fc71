"""Has every host of a running network receive late, or lose, what comes to it; by netem where the kernel has it, else by our own process.

Comes in: a point, its `Network`. Goes out: a line in force for the time of a block, and what it did.
"""

from __future__ import annotations

import contextlib
import functools
import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute

from fabric import netem
from fabric.delay import NETEM, NFQUEUE, WAYS, Delay, delay_of
from fabric.errors import MachineError
from fabric.kernel import new_network_namespace
from fabric.nfqueue import PacketQueue, queue_what_comes_in
from fabric.process import Companion, companion
from fabric.seeds import number

if TYPE_CHECKING:
    from fabric.experiment import Point
    from fabric.network import Network

__all__ = ["DelayLine", "best_way", "delay_line", "try_way"]

_LOOPBACK = 1
_ANSWER_S = 5.0
_START_S = 20.0


@dataclass
class DelayLine:
    """A delay line in force. `by` is netem or nfqueue; `tool` what made the rule of the latter."""

    by: str
    asked: Delay
    net: Network
    process: Companion | None = None
    tool: str | None = None

    def check_alive(self) -> None:
        """RunError when the process that holds packets back has ended: they would pass at once."""
        if self.process is not None:
            self.process.check_alive()

    def record(self) -> dict[str, Any]:
        """Who delays, by what, and what was asked; with netem also how many packets came, and of them were lost, or wait."""
        told = {"by": self.by, "tool": self.tool, "delay_ms": self.asked.delay_ms, "loss_percent": 100 * self.asked.loss}
        return {**told, "loss_from_seed": self.by == NFQUEUE, **(self._netem() if self.by == NETEM else {})}

    def _netem(self) -> dict[str, Any]:
        totals = {"packets": 0, "lost": 0, "waiting": 0}
        for host in self.net.fabric.hosts:
            with self.net.inside(host.name), IPRoute() as netlink:
                for key, value in netem.counters(netlink).items():
                    totals[key] += value
        return totals


@contextlib.contextmanager
def delay_line(point: Point, net: Network, folder: Path) -> Iterator[DelayLine | None]:
    """What the links of a point ask for is in force within the block; None when they ask for nothing.

    `folder` is made for the process, where there is one. MachineError when this machine can do it in no way.
    """
    asked = delay_of(point.links)
    if asked is None:
        yield None
        return
    way = best_way()
    line = DelayLine(way, asked, net)
    if way == NETEM:
        for host in net.fabric.hosts:
            with net.inside(host.name), IPRoute() as netlink:
                ports = [port.interface for port in net.fabric.ports_of[host.name]]
                netem.attach(netlink, [netlink.link_lookup(ifname=name)[0] for name in ports], asked)
        yield line
        return
    folder.mkdir()
    (folder / "delayer.json").write_text(json.dumps(_request(point, net, asked)))
    with companion("the delay line", "fabric.delayer", folder) as line.process:
        line.process.wait_for("ready", _START_S, "bind the hosts' queues")
        for host in net.fabric.hosts:
            with net.inside(host.name):
                line.tool = queue_what_comes_in()
        yield line
        line.check_alive()


def _request(point: Point, net: Network, asked: Delay) -> dict[str, Any]:
    hosts = {
        host.name: {"pid": net.host_pid(host.name), "seed": number(point.seed, f"loss/{host.name}", 64)} for host in net.fabric.hosts
    }
    return {"delay_ms": asked.delay_ms, "loss": asked.loss, "hosts": hosts}


# -- which way this machine offers


@functools.cache
def best_way() -> str:
    """The best way that works here, found by trying; MachineError when none does."""
    said = []
    for way in WAYS:
        failure = _in_a_thread(functools.partial(try_way, way))
        if failure is None:
            return way
        said.append(f"{way}: {failure}")
    raise MachineError(f"links can neither be delayed nor lose here ({'; '.join(said)}); remedy: leave links.delay_ms and links.loss_percent out")


def try_way(way: str) -> None:
    """Delay a packet in this way, in a new namespace that this thread is left in; raises what goes wrong."""
    new_network_namespace()
    with IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK, state="up")
        if way == NETEM:
            netem.load_device()
            netem.attach(netlink, [_LOOPBACK], Delay(1.0, 0.0))
        elif way == NFQUEUE:
            _try_queue()


def _try_queue() -> None:
    """A packet to ourselves is queued, waits, and goes on when told."""
    with PacketQueue() as queue, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        queue_what_comes_in("lo")
        end.bind(("127.0.0.1", 0))
        end.settimeout(_ANSWER_S)
        end.sendto(b"?", end.getsockname())
        if not select.select([queue], [], [], _ANSWER_S)[0]:
            raise MachineError("a packet that was to be queued never was")
        if select.select([end], [], [], 0)[0]:
            raise MachineError("a packet that was queued did not wait")
        for packet, _ in queue.read():
            queue.accept(packet)
        if not select.select([end], [], [], _ANSWER_S)[0]:
            raise MachineError("a packet that was queued never came out")


def _in_a_thread(action: Callable[[], None]) -> Exception | None:
    """What an action raised, in a thread of its own: the namespace that it makes goes with it."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as err:  # whatever it is, this way does not work here
            failures.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return failures[0] if failures else None
