"""Which marker this machine has: the kernel's RED, else our BPF program by the true queue, else by a phantom one.

RED first, since it is the queue that marks there, on every kernel of a distribution. It cannot have a headroom, which is of a phantom queue.
FABRICLAB_MARKING=red, bpf or phantom chooses one, for tests; every row says which it was (`ecn_by`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fabric.errors import MachineError, RunError
from fabric.graph import Port
from fabric.kernel import new_network_namespace
from fabric.links import RED_HANDLE, Shape, differences, read_shape, red_requests, requests
from fabric.located import told
from fabric.marking import BY_PHANTOM, BY_RED, BY_TRUE_QUEUE, BpfMarker, Marker, Marks, Threshold
from fabric.red import Red, counts_of, red_of

__all__ = ["CHOICE", "RED_TRIAL", "RedMarker", "RedSetter", "best_marker", "build_and_read_back"]

CHOICE = "FABRICLAB_MARKING"
RED_TRIAL = Shape(20.0, 1500, queue_packets=50, red=Red(30_280, 30_280))
_LOOPBACK_INDEX = 1


class RedMarker(Marker):
    """RED between the rate and the queue of ports; it goes with them."""

    by = BY_RED

    def __init__(self) -> None:
        self._ports: dict[Port, tuple[int, Shape]] = {}

    def close(self) -> None:
        """Nothing: the ports take it along."""

    def shaped(self, shape: Shape, threshold: Threshold) -> Shape:
        """The same with RED in it."""
        return replace(shape, red=Red(threshold.min_bytes, threshold.max_bytes))

    def attach(self, netlink: Any, index: int, port: Port, shape: Shape, threshold: Threshold) -> None:
        """Put RED above the queue, which is made anew: before there is traffic."""
        shape = self.shaped(shape, threshold)
        for command, kind, arguments in red_requests(shape):
            netlink.tc(command, kind, index, **arguments)
        self._ports[port] = (index, shape)

    def set(self, port: Port, threshold: Threshold) -> None:
        """Change the thresholds in place; RunError when the kernel says others afterwards."""
        index, shape = self._ports[port]
        shape = self.shaped(shape, threshold)
        _, kind, arguments = red_requests(shape)[0]
        with IPRoute() as netlink:
            netlink.tc("change", kind, index, **arguments)
            found = [red_of(qdisc) for qdisc in netlink.get_qdiscs(index) if qdisc["handle"] == RED_HANDLE]
        if found != [shape.red]:
            raise RunError(f"{port.interface}: RED's thresholds are {found}, and {shape.red} were asked")
        self._ports[port] = (index, shape)

    def rate_changed(self, port: Port, shape: Shape) -> None:
        """Nothing: thresholds are bytes of the queue itself."""

    def marks(self) -> Mapping[Port, Marks]:
        """What RED counted. A packet that came marked counts as marked again: RED does not tell them apart."""
        with IPRoute() as netlink:
            found = {qdisc["index"]: counts_of(qdisc) for qdisc in netlink.get_qdiscs() if qdisc["handle"] == RED_HANDLE}
        answer = {}
        for port, (index, _) in self._ports.items():
            counts = found[index]
            answer[port] = Marks(counts.packets, None, counts.marked, None, counts.over - counts.marked, counts.bytes, None)
        return answer

    def told(self) -> dict[str, Any]:
        """That marks are among the queues' own counters."""
        return {"qdisc": "red"}

    def settable(self) -> dict[str, Any]:
        """That thresholds are the queues' own."""
        return self.told()


class RedSetter:
    """Changes RED's thresholds on ports of this thread's network namespace, whoever built them."""

    def set(self, interface: str, shape: Shape, min_bytes: int, max_bytes: int) -> tuple[int, int]:
        """Have a port mark between these, in place; what the kernel says then."""
        _, kind, arguments = red_requests(replace(shape, red=Red(min_bytes, max_bytes)))[0]
        with IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname=interface)
            netlink.tc("change", kind, index, **arguments)
            (got,) = (red_of(qdisc) for qdisc in netlink.get_qdiscs(index) if qdisc["handle"] == RED_HANDLE)
        if got is None:
            raise RunError(f"{interface}: RED is not ours any more")
        return got.min_bytes, got.max_bytes


def best_marker(phantom: bool, choice: str | None = None) -> Marker:
    """The marker that this machine marks with; `phantom` when a headroom is asked for, which takes a phantom queue.

    `choice` is the one to take, FABRICLAB_MARKING by default, else the best one. MachineError when there is none.
    """
    choice = choice or os.environ.get(CHOICE)
    makers: dict[str, Callable[[], Marker]] = {
        BY_RED: _red_marker, BY_TRUE_QUEUE: lambda: BpfMarker(BY_TRUE_QUEUE), BY_PHANTOM: lambda: BpfMarker(BY_PHANTOM),
    }  # fmt: skip
    if phantom:
        del makers[BY_RED]
    if choice and choice not in makers:
        because = ", as a headroom takes a phantom queue" if phantom else ""
        raise MachineError(f"{CHOICE}: {told(choice, ', '.join(makers) + because, 'unset it')}")
    said = []
    for maker in [makers[choice]] if choice else makers.values():
        try:
            return maker()
        except MachineError as err:
            said.append(str(err))
    raise MachineError(f"nothing marks here: {'; '.join(said)}; remedy: leave links.ecn out")


def _red_marker() -> RedMarker:
    """RED, where the kernel has one that marks as we ask."""
    said: list[str] = []

    def trial() -> None:
        try:
            new_network_namespace()
            build_and_read_back(RED_TRIAL)
        except (NetlinkError, ValueError, MachineError) as err:
            said.append(os.strerror(err.code) if isinstance(err, NetlinkError) else str(err))

    # A namespace belongs to a thread: this one's goes with it.
    thread = threading.Thread(target=trial)
    thread.start()
    thread.join()
    if said:
        raise MachineError(f"this kernel ({os.uname().release}) has no RED that marks as we ask: {said[0]}")
    return RedMarker()


def build_and_read_back(shape: Shape) -> None:
    """Build a shape on the loopback of this thread's network namespace; ValueError, with the differences, when it is another."""
    with IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK_INDEX, mtu=shape.mtu)
        for command, kind, arguments in requests(shape):
            netlink.tc(command, kind, _LOOPBACK_INDEX, **arguments)
        got, burst = read_shape(netlink.get_qdiscs(_LOOPBACK_INDEX), netlink.get_classes(_LOOPBACK_INDEX), shape.mtu)
    if wrong := differences(shape, got, burst):
        raise ValueError(", ".join(wrong))
