"""In-band telemetry where packets leave every port: our BPF program stamps the probes that pass, and nothing else.

Comes in: ports of hosts and of switches, and their rates. Goes out: stamps in probes, by the port numbers that this room
gives; `fabric.stamps` is their format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from fabric.errors import MachineError
from fabric.graph import Fabric, Port
from fabric.hooks import EGRESS, MOST_PORTS, attach
from fabric.libbpf import BpfObject, objects

__all__ = ["OBJECT", "Stamper"]

OBJECT = "stamp.o"
_PROGRAM = "stamp"
_PRIORITY = 1  # before what measures packets and what marks them
_WORD = struct.Struct("=I")


class Stamper:
    """The stamping program on ports of any namespace, until it is closed; MachineError when the kernel refuses it."""

    def __init__(self, fabric: Fabric, mbps: Mapping[Port, float]) -> None:
        self.numbers = {port: number for number, port in enumerate(fabric.peer, 1)}
        if len(self.numbers) > MOST_PORTS - 1:
            raise MachineError(f"in-band telemetry of {len(self.numbers)} ports: at most {MOST_PORTS - 1} can be told apart; leave telemetry.probes out")
        self._object = BpfObject(objects() / OBJECT, {"kbps": len(self.numbers) + 1})
        self._kbps = self._object.map("kbps")
        for port, rate in mbps.items():
            self.set_rate(port, rate)

    def __enter__(self) -> Stamper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._object.close()

    def set_rate(self, port: Port, mbps: float) -> None:
        """Have a port's stamps say this rate from now on."""
        self._kbps[_WORD.pack(self.numbers[port])] = _WORD.pack(round(1000 * mbps))

    def attach(self, netlink: Any, index: int, port: Port) -> None:
        """Stamp the probes that leave a port from now on."""
        attach(
            netlink, index, self._object.program(_PROGRAM), name=_PROGRAM, hook=EGRESS, number=self.numbers[port], priority=_PRIORITY,
        )  # fmt: skip

    def ran(self) -> tuple[int, int]:
        """How often the program ran, for how many ns in all, while the kernel counted that (kernel.bpf_stats_enabled)."""
        return self._object.ran(_PROGRAM)
