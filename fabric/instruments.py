"""What a point measures besides the sampler's queues, where its file asks: put on the network, looked at, written down.

Comes in: a `Point` and its network. Goes out: files in the point's folder, which `fabric.queueing` and `fabric.journeys` read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fabric.delaymeter import DelayMeter
from fabric.experiment import Point
from fabric.stamping import Stamper

if TYPE_CHECKING:
    from fabric.network import Network

__all__ = ["PERIODS_A_LOOK", "Instruments", "instruments"]

PERIODS_A_LOOK = 10  # telemetry periods between two looks at the delays' histograms


@dataclass
class Instruments:
    """The instruments of a running point; one that was not asked for is None, and then nothing of it happens."""

    meter: DelayMeter | None = None
    stamper: Stamper | None = None

    def look(self) -> None:
        """What is due now."""
        if self.meter:
            self.meter.look(time.monotonic())

    def write(self, folder: Path) -> None:
        """Write down what was measured; when the traffic has ended and queues are empty."""
        if self.meter:
            self.meter.write(folder)


@contextlib.contextmanager
def instruments(point: Point, net: Network) -> Iterator[Instruments]:
    """Have the point's instruments on its connected network within the block; MachineError when the kernel refuses one."""
    asked = point.telemetry
    with contextlib.ExitStack() as held:
        made = Instruments()
        if asked.queueing_delay:
            made.meter = held.enter_context(DelayMeter(point.fabric, PERIODS_A_LOOK * asked.period_ms / 1000, nics=net.ovs.datapath == "netdev"))
            net.hook(made.meter.attach)
        if asked.probes:
            made.stamper = held.enter_context(Stamper(point.fabric, {port: shape.mbps for port, shape in net.in_force.items()}))
            net.on_rate.append(made.stamper.set_rate)
            net.hook(made.stamper.attach)
        yield made
