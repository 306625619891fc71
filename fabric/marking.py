"""ECN marks where packets leave a switch: what a marker is, and ours by a BPF program at the egress hook.

The hook comes before the shaper, for packets of Open vSwitch's userspace datapath too. The program judges every packet by the
backlog of the port's own queue, or by that of a phantom queue that drains more slowly than the link; both as they are
when the packet comes. Source: RFC 3168 for the mark, RFC 8257 for the threshold, HULL (NSDI 2012) for the phantom queue.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fabric.errors import MachineError
from fabric.hooks import hooked
from fabric.libbpf import BpfMap, BpfObject, objects

if TYPE_CHECKING:  # the sampler reads marks, and should start without these
    from typing_extensions import Self

    from fabric.graph import Port
    from fabric.links import Shape

__all__ = ["BY_PHANTOM", "BY_RED", "BY_TRUE_QUEUE", "BpfMarker", "MarkReader", "MarkSetter", "Marker", "Marks", "Threshold"]

BY_RED, BY_TRUE_QUEUE, BY_PHANTOM = "red", "bpf", "phantom"
_OBJECTS = {BY_TRUE_QUEUE: "mark.o", BY_PHANTOM: "mark_phantom.o"}
_PROGRAM = "mark"
_BY_PHANTOM, _SPARES_PRIORITY = 1, 2  # as in mark.bpf.c
_EGRESS = 0xFFFFFFF3  # TC_H_CLSACT | TC_H_MIN_EGRESS
_KEY, _ASKED = struct.Struct("=I"), struct.Struct("=QIIII")
_SEEN = struct.Struct("=II9Q")  # the lock, padding, the phantom queue's end and its rate, seven counters


@dataclass(frozen=True, slots=True)
class Threshold:
    """Between how many bytes of backlog marking begins and is certain; `headroom` is what the phantom queue drains at,
    as a share of the link's rate, None for the true queue.
    """

    min_bytes: int
    max_bytes: int
    headroom: float | None = None

    def packed(self, shape: Shape, phantom: bool) -> bytes:
        """As the program reads it, for a port of that shape."""
        rate = round(shape.bytes_per_second * (self.headroom or 1.0))
        limit = shape.queue_bytes or (shape.queue_packets or 0) * shape.frame
        flags = (phantom or self.headroom is not None) * _BY_PHANTOM | (shape.floor is not None) * _SPARES_PRIORITY
        return _ASKED.pack(rate, self.min_bytes, self.max_bytes, flags, limit)


@dataclass(frozen=True, slots=True)
class Marks:
    """What a marker saw at a port: packets, of them ECN-`capable`, `marked` here, over the threshold but
    `marked_before` or `not_capable`; bytes, and the largest backlog that a packet found. None is what it cannot tell.
    """

    packets: int
    capable: int | None
    marked: int
    marked_before: int | None
    not_capable: int
    bytes: int
    most_bytes: int | None


class Marker(ABC):
    """Who marks on ports of this thread's network namespace, until it is closed; `by` is how."""

    by: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give back what outlives the ports."""

    @abstractmethod
    def shaped(self, shape: Shape, threshold: Threshold) -> Shape:
        """What a port of that shape is with this marker on it, for whoever reads it back."""

    @abstractmethod
    def attach(self, netlink: Any, index: int, port: Port, shape: Shape, threshold: Threshold) -> None:
        """Mark what leaves a port from now on."""

    @abstractmethod
    def set(self, port: Port, threshold: Threshold) -> None:
        """Change a port's threshold while traffic runs, without touching what waits, and read it back."""

    @abstractmethod
    def rate_changed(self, port: Port, shape: Shape) -> None:
        """Follow a port's link to another rate."""

    @abstractmethod
    def marks(self) -> Mapping[Port, Marks]:
        """What was seen so far, by port."""

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """What the sampler needs in order to read marks in its own process."""

    @abstractmethod
    def settable(self) -> dict[str, Any]:
        """What another process needs in order to change thresholds: `MarkSetter`, or `markers.RedSetter`."""


class BpfMarker(Marker):
    """The marking program, by the true queue or by a phantom one.

    MachineError when the kernel refuses the program.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self._object = BpfObject(objects() / _OBJECTS[by])
        self._asked, self._seen = self._object.map("asked"), self._object.map("seen")
        self._ports: dict[Port, tuple[int, Shape, Threshold]] = {}

    def close(self) -> None:
        """Take the program out of the kernel, as far as no port holds it."""
        self._object.close()

    def shaped(self, shape: Shape, threshold: Threshold) -> Shape:
        """As it was: the program is no part of the queue."""
        return shape

    def attach(self, netlink: Any, index: int, port: Port, shape: Shape, threshold: Threshold) -> None:
        """Mark what leaves a port from now on."""
        self._seen[_KEY.pack(index)] = _SEEN.pack(*[0] * 11)
        self._ask(port, index, shape, threshold)
        hooked(netlink, index)
        netlink.tc(
            "add-filter", "bpf", index, ":1", fd=self._object.program(_PROGRAM), name=_PROGRAM, parent=_EGRESS,
            classid=1, direct_action=True,
        )  # fmt: skip

    def set(self, port: Port, threshold: Threshold) -> None:
        """Change a port's threshold while traffic runs, and read it back."""
        index, shape, _ = self._ports[port]
        self._ask(port, index, shape, threshold)

    def rate_changed(self, port: Port, shape: Shape) -> None:
        """Have a phantom queue drain at another rate; the bytes in it stay."""
        index, _, threshold = self._ports[port]
        self._ask(port, index, shape, threshold)

    def _ask(self, port: Port, index: int, shape: Shape, threshold: Threshold) -> None:
        self._ports[port] = (index, shape, threshold)
        wanted = threshold.packed(shape, self.by == BY_PHANTOM)
        self._asked[_KEY.pack(index)] = wanted
        if self._asked[_KEY.pack(index)] != wanted:
            raise MachineError(f"{port.interface}: the marking program's threshold is not what was asked")

    def marks(self) -> Mapping[Port, Marks]:
        """What was seen so far, by port."""
        return {port: _marks(self._seen[_KEY.pack(index)]) for port, (index, *_) in self._ports.items()}

    def ran(self) -> tuple[int, int]:
        """How often the program ran, for how many ns in all, while the kernel counted that (kernel.bpf_stats_enabled)."""
        return self._object.ran(_PROGRAM)

    def told(self) -> dict[str, Any]:
        """What a `MarkReader` in another process needs: the map, and the interfaces' numbers."""
        return {"map": self._seen.identity, "ports": {port.interface: index for port, (index, *_) in self._ports.items()}}

    def settable(self) -> dict[str, Any]:
        """What a `MarkSetter` in another process needs."""
        return {**self.told(), "map": self._asked.identity}


class MarkSetter:
    """Changes thresholds in another process than the marker's, from what that gave as `settable`."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._asked, self._ports = BpfMap.of_other(told["map"]), told["ports"]

    def set(self, interface: str, shape: Shape, min_bytes: int, max_bytes: int) -> tuple[int, int]:
        """Have a port mark between these; what the program reads from now on. KeyError for a port that does not mark.

        A phantom queue goes on draining as it did.
        """
        key = _KEY.pack(self._ports[interface])
        rate, _, _, flags, limit = _ASKED.unpack(self._asked[key])
        self._asked[key] = _ASKED.pack(rate, min_bytes, max_bytes, flags, limit)
        _, *got, _, _ = _ASKED.unpack(self._asked[key])
        return got[0], got[1]


class MarkReader:
    """Reads how many packets were marked, in another process than the marker's, from what that `told`."""

    def __init__(self, told: Mapping[str, Any], interfaces: Sequence[str]) -> None:
        self._seen = BpfMap.of_other(told["map"])
        self._keys = [_KEY.pack(told["ports"][name]) if name in told["ports"] else None for name in interfaces]

    def read(self) -> list[int]:
        """Packets marked so far, by interface in the order given; 0 where nothing marks."""
        return [_SEEN.unpack(self._seen[key])[6] if key else 0 for key in self._keys]


def _marks(value: bytes) -> Marks:
    return Marks(*_SEEN.unpack(value)[4:])
