"""Thresholds from telemetry: each port marks as early as it can without losing utilisation.

A port that had a queue throughout and yet was not full marks too early: its threshold goes up by a factor. One that was full
while its queue never emptied marks later than it need: what always stood there was wait for nothing, and half of it is taken
off the threshold. Ports begin low: few steps lead up from there, and a collective waits at every port that comes down.
The idea of tuning thresholds from a port's own telemetry is ACC's (Yan et al., SIGCOMM 2021); the rule here is AIMD's cousin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from controllers.policies.exact import Exact
from fabric.graph import Port
from fabric.policy import Action, LinkView, SetEcn, View, Wires

__all__ = ["EcnTuner"]

_BUSY = 0.5  # utilisation from which a port says something about its threshold
_UP, _DOWN = 1.5, 0.85


@dataclass
class _Seen:
    """What a port showed since its threshold was last judged: utilisation and backlog of ticks that began and ended with a queue.

    Others count for nothing: where the senders paused it was data that a port lacked, not a later mark.
    """

    busy: list[float] = field(default_factory=list)
    stood: list[int] = field(default_factory=list)
    waited: bool = False  # whether the last tick ended with a queue

    def note(self, link: LinkView) -> None:
        waits = bool(link.backlog_bytes)
        if waits and self.waited and link.utilisation >= _BUSY:
            self.busy.append(link.utilisation)
            self.stood.append(link.backlog_bytes or 0)
        self.waited = waits


class EcnTuner:
    """Holds each port's utilisation at `utilisation` or above with the smallest threshold, judged every `every` ticks.

    Begins with `start` frames, whatever the file says; never below `least`, nor above half of what the queue holds. Flows are
    moved as `exact` does, if `route`: beside an arm that routes only the thresholds must differ.
    """

    def __init__(
        self, utilisation: float = 0.95, every: int = 5, start: int = 2, least: int = 2, route: bool = True,
    ) -> None:  # fmt: skip
        if not 0 < utilisation < 1:
            raise ValueError(f"utilisation: got {utilisation}; accepted: above 0 and below 1")
        if not 1 <= least <= start:
            raise ValueError(f"least: got {least}; accepted: 1 to start, which is {start}")
        self._utilisation, self._every, self._start, self._least = utilisation, every, start, least
        self._seen: dict[Port, _Seen] = {}
        self._router = Exact() if route else None

    def decide(self, view: View) -> Sequence[Action]:
        """Moves, and thresholds for the ports that are new, or whose time to be judged has come."""
        found: list[Action] = list(self._router.decide(view)) if self._router else []
        for port, link in view.links.items():
            if link.ecn_bytes is None or view.wires is None:
                continue
            if port not in self._seen:  # asked for until it is in force: a port that has not begun is not judged
                begin = self._order(link, link.ecn_bytes, self._start * view.wires.frame, view.wires, "a low beginning", {})
                found.extend(begin)
                if not begin:
                    self._seen[port] = _Seen()
                continue
            seen = self._seen[port]
            seen.note(link)
            if len(seen.busy) >= self._every:
                self._seen[port] = _Seen(waited=seen.waited)
                found.extend(self._judge(link, link.ecn_bytes, seen, view.wires))
        return found

    def _judge(self, link: LinkView, ecn: tuple[int, int], seen: _Seen, wires: Wires) -> Sequence[SetEcn]:
        mean, stood = sum(seen.busy) / len(seen.busy), min(seen.stood)
        numbers = {"utilisation": round(mean, 3), "stood": stood}
        if mean < self._utilisation:
            return self._order(link, ecn, ecn[1] * _UP, wires, "it marked too early: it had a queue, and was not full", numbers)
        wanted = min(ecn[1] * _DOWN, ecn[1] - stood / 2)
        return self._order(link, ecn, wanted, wires, "it was full, and this much always stood: it can mark earlier", numbers)

    def _order(
        self, link: LinkView, ecn: tuple[int, int], wanted: float, wires: Wires, why: str, numbers: dict[str, float],
    ) -> Sequence[SetEcn]:  # fmt: skip
        """The order, within the bounds; none where nothing would change."""
        bounded = round(min(max(wanted, self._least * wires.frame), wires.queue_bytes / 2))
        return [] if (bounded, bounded) == ecn else [SetEcn(link.port, bounded, bounded, why, numbers)]
