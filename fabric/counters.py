"""The events by which controllers get what the switches said of their ports, and what jobs announce.

`fabric.monitor` asks the switches, once for all; a `FabricApp` observes `EventCounters`.
"""

from __future__ import annotations

from collections.abc import Callable

from ryu.controller import event

from fabric.hints import Announced, Beat
from fabric.portcounts import Counters

__all__ = ["EventBeat", "EventCounters", "EventHint", "EventLinksDown", "EventReady"]


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
