"""The queueing delay of every packet, by a pair of our BPF programs at both ends of every link, counted in the kernel.

Comes in: ports of hosts and of switches. Goes out: how many packets waited how long, by port, over the whole time and since
the look before; `fabric.queueing` reads what is written. Nothing crosses to user space for a packet: the histograms are memory
that the kernel and this process share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.errors import MachineError
from fabric.graph import Fabric, Port
from fabric.histogram import BUCKETS, RELATIVE_ERROR, UNIT_NS, percentiles_ms
from fabric.hooks import EGRESS, INGRESS, MOST_PORTS, attach
from fabric.libbpf import BpfObject, objects

__all__ = ["OBJECT", "DelayMeter", "percents_of"]

OBJECT = "queueing.o"
_NOTE, _TAKE = "note", "take"
_PRIORITY = 2  # after what changes packets (fabric.stamping), before what marks them
_PORT = np.dtype([
    *((name, np.uint64) for name in ("offered", "packets", "missed", "stale", "sum_ns", "most_ns")), ("buckets", np.uint64, (BUCKETS,)),
])  # fmt: skip

Ints = npt.NDArray[np.int64]


class DelayMeter:
    """The pair of programs on ports of any namespace, until it is closed; MachineError when the kernel refuses them.

    `period_s` is how often `look` takes down what has come since, for a record over time. `nics: false` leaves out the queues
    of hosts' own NICs: where packets are taken off their senders' accounts behind these (`fabric.release`), a packet is
    another one when it comes in than when it left.
    """

    def __init__(self, fabric: Fabric, period_s: float, nics: bool = True) -> None:
        self._ports: Sequence[Port] = tuple(port for port in fabric.peer if nics or port.node in fabric.switch_by_name)
        if len(self._ports) > MOST_PORTS - 1:
            raise MachineError(f"queueing delays of {len(self._ports)} ports: at most {MOST_PORTS - 1} can be told apart; leave telemetry.queueing_delay out")
        self._peer, self._number = fabric.peer, {port: number for number, port in enumerate(self._ports, 1)}
        self._object = BpfObject(objects() / OBJECT, {"ports": len(self._ports) + 1})
        memory = self._object.map("ports").mapped(len(self._ports) + 1)
        self._seen = np.frombuffer(memory, _PORT, len(self._ports) + 1)
        self._period_s, self._times, self._last = period_s, [time.monotonic()], self._counts()
        self._deltas: list[Ints] = []

    def __enter__(self) -> DelayMeter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._object.close()

    def attach(self, netlink: Any, index: int, port: Port) -> None:
        """Note what leaves a port, and take up what comes in from its peer; both ends of a link have to be attached."""
        for name, hook, number in ((_NOTE, EGRESS, self._number.get(port)), (_TAKE, INGRESS, self._number.get(self._peer[port]))):
            program = self._object.program(name)
            if number is None:
                continue
            attach(netlink, index, program, name=name, hook=hook, number=number, priority=_PRIORITY)

    def look(self, now: float) -> None:
        """Take down what was counted since the last time, when a period is over; `now` is CLOCK_MONOTONIC in seconds."""
        if now >= self._times[-1] + self._period_s:
            self._take_down()

    def ran(self) -> list[tuple[int, int]]:
        """How often each of the two programs ran, for how many ns in all, while the kernel counted that (kernel.bpf_stats_enabled)."""
        return [self._object.ran(name) for name in (_NOTE, _TAKE)]

    def totals(self) -> dict[str, dict[str, Any]]:
        """What every port has counted so far, by interface: packets, and percentiles of their delays in ms."""
        return {port.interface: _told(self._seen[number]) for port, number in self._number.items()}

    def write(self, folder: Path) -> None:
        """Write queueing.json, the totals, and queueing.npz, what came in each period."""
        self._take_down()
        told = {"by": "bpf", "unit_ns": UNIT_NS, "relative_error": RELATIVE_ERROR, "begin": self._times[0], "end": self._times[-1], "ports": self.totals()}
        (folder / "queueing.json").write_text(json.dumps(told, indent=1) + "\n")
        rows = np.concatenate(self._deltas) if self._deltas else np.empty((0, 4), np.int64)
        np.savez_compressed(folder / "queueing.npz", times=np.array(self._times), counts=rows)

    def _take_down(self) -> None:
        now, counts = time.monotonic(), self._counts()
        port, bucket = np.nonzero(counts - self._last)
        came = (counts - self._last)[port, bucket]
        self._deltas.append(np.stack([np.full_like(port, len(self._times) - 1), port, bucket, came], axis=1))
        self._times.append(now)
        self._last = counts

    def _counts(self) -> Ints:
        """The histograms [N, BUCKETS] of all ports as they are now."""
        return self._seen["buckets"][1:].astype(np.int64)


def _told(seen: Any) -> dict[str, Any]:
    packets = int(seen["packets"])
    found = {name: int(seen[name]) for name in ("offered", "packets", "missed", "stale")}
    if not packets:
        return found
    most = float(seen["most_ns"]) / 1e6
    return {**found, "mean_ms": float(seen["sum_ns"]) / packets / 1e6, **percents_of(seen["buckets"].astype(np.int64), most), "max_ms": most}


def percents_of(counts: Ints, most_ms: float = np.inf) -> dict[str, float | None]:
    """The percentiles that are reported of a histogram, in ms, never above the largest delay itself; None of nothing."""
    found = percentiles_ms(counts, (50, 95, 99))
    return dict(zip(("p50_ms", "p95_ms", "p99_ms"), [min(one, most_ms) for one in found] if found else [None] * 3, strict=True))
