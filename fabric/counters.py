"""What the switches said of their ports in one round of questions, and the event by which controllers get it.

`fabric.monitor` asks, once for all; a `FabricApp` observes `EventCounters`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ryu.controller import event

from fabric.graph import Port
from fabric.hints import Announced, Beat

__all__ = ["UNSUPPORTED", "Counters", "EventBeat", "EventCounters", "EventHint", "EventReady", "PortCount"]

UNSUPPORTED = 2**64 - 1  # how a switch says that it does not count something


class PortCount(NamedTuple):
    """Totals of one port since it was made; None where the switch does not count."""

    tx_bytes: int | None
    tx_packets: int | None
    tx_dropped: int | None
    rx_bytes: int | None
    rx_packets: int | None
    rx_dropped: int | None


@dataclass(frozen=True, slots=True)
class Counters:
    """One round: asked at `t`; `ports` with when each one's switch answered (CLOCK_MONOTONIC); `missing` gave no answer."""

    t: float
    ports: Mapping[Port, tuple[float, PortCount]]
    missing: int


class EventCounters(event.EventBase):  # type: ignore[misc]
    """A round is complete, or its time is over."""

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self.counters = counters


class EventHint(event.EventBase):  # type: ignore[misc]
    """A collective announced its flows; `placed` is to be called with how many have their paths.

    `phase` says whether its connections are there already.
    """

    def __init__(self, phase: str, flows: list[Announced], placed: Callable[[int], None]) -> None:
        super().__init__()
        self.phase, self.flows, self.placed = phase, flows, placed


class EventBeat(event.EventBase):  # type: ignore[misc]
    """A job has made an iteration."""

    def __init__(self, beat: Beat) -> None:
        super().__init__()
        self.beat = beat


class EventLinksDown(event.EventBase):  # type: ignore[misc]
    """One link or several went down."""


class EventReady(event.EventBase):  # type: ignore[misc]
    """Every switch is connected and has its rules."""
