"""What was sent to switches and is not known to be in force yet: rules in batches, and questions one at a time.

Comes in: a `FabricApp`'s two ways to speak, `send` and `ask`, and what its switches answer. Goes out: which batch is in
force, which question may be asked next. A switch that is lost answers nothing more, and holds nothing up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fabric.openflow import Rule

__all__ = ["Batch", "Batches", "Questions"]

Ask = Callable[[str, Callable[[Any], Any]], int | None]  # FabricApp.ask


@dataclass
class Batch:
    """A tick's rules on their way: when the counters were read and the policy had decided, and who has not answered."""

    tick: int
    sampled: float
    decided: float
    in_force: Callable[[], None] | None = None
    left: set[str] = field(default_factory=set)
    switches: tuple[str, ...] = ()


@dataclass
class Batches:
    """Rules go out to each switch followed by a barrier; when all barriers are answered the batch is in force."""

    send: Callable[..., None]
    ask: Ask
    _waiting: dict[tuple[str, int], Batch] = field(default_factory=dict)

    def go(self, batch: Batch, rules: Mapping[str, Sequence[Rule]]) -> int:
        """Send a batch's rules, by switch; to how many switches it went."""
        for switch, those in rules.items():
            self.send(switch, *those)
            number = self.ask(switch, lambda datapath: datapath.ofproto_parser.OFPBarrierRequest(datapath))
            if number is not None:
                self._waiting[switch, number] = batch
                batch.left.add(switch)
        batch.switches = tuple(sorted(batch.left))
        return len(batch.left)

    def answered(self, switch: str, number: int) -> Batch | None:
        """A barrier's answer came; the batch if it was the last."""
        batch = self._waiting.pop((switch, number), None)
        if batch is not None:
            batch.left.discard(switch)
        return batch if batch is not None and not batch.left else None

    def lost(self, switch: str) -> list[Batch]:
        """A switch is gone: it gets its rules when it is back; the batches that waited for it alone."""
        mine = [(key, batch) for key, batch in self._waiting.items() if key[0] == switch]
        for key, batch in mine:
            del self._waiting[key]
            batch.left.discard(switch)
        return [batch for _, batch in mine if not batch.left]


@dataclass
class Questions:
    """One question to a switch at a time; who asks meanwhile is asked for when the answer has come."""

    ask: Ask
    make: Callable[[Any], Any]
    _open: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def put(self, switch: str) -> None:
        """Ask now, or as soon as the answer that is under way has come."""
        if switch in self._open:
            self._open[switch] = (self._open[switch][0], True)
        elif (number := self.ask(switch, self.make)) is not None:
            self._open[switch] = (number, False)

    def answered(self, switch: str, number: int, more: bool) -> None:
        """Part of an answer came; `more` follows or not."""
        asked, again = self._open.get(switch, (None, False))
        if number == asked and not more:
            del self._open[switch]
            if again:
                self.put(switch)

    def lost(self, switch: str) -> None:
        """A switch is gone, and with it the answer."""
        self._open.pop(switch, None)
