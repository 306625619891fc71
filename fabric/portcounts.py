"""What switches say of their ports' counters, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fabric.graph import Port

__all__ = ["UNSUPPORTED", "Counters", "PortCount"]

UNSUPPORTED = 2**64 - 1  # how a switch says that it does not count something (OpenFlow 1.3.5, 7.3.5)


class PortCount(NamedTuple):
    """Totals of one port since it was made; None where the switch does not count."""

    tx_bytes: int | None
    tx_packets: int | None
    tx_dropped: int | None
    rx_bytes: int | None
    rx_packets: int | None
    rx_dropped: int | None

    @classmethod
    def of(cls, *totals: int) -> PortCount:
        """From a switch's own numbers, in the order of the fields."""
        return cls(*(None if total == UNSUPPORTED else total for total in totals))


@dataclass(frozen=True, slots=True)
class Counters:
    """One round: asked at `t`; `ports` with when each one's switch answered (CLOCK_MONOTONIC); `missing` gave no answer."""

    t: float
    ports: Mapping[Port, tuple[float, PortCount]]
    missing: int
