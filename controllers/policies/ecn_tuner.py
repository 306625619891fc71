"""Thresholds from telemetry: each port marks as early as it can without losing utilisation.

A port that was busy and yet not full marks too early; one that is full marks later than it need, and its queue is wait
for nothing. So the threshold goes up by a factor when utilisation falls short, and down by a smaller one when it does not.
The idea of tuning thresholds from a port's own telemetry is ACC's (Yan et al., SIGCOMM 2021); the rule here is AIMD's cousin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controllers.policies.exact import Exact
from fabric.graph import Port
from fabric.policy import Action, LinkView, SetEcn, View, Wires

__all__ = ["EcnTuner"]

_BUSY = 0.5  # utilisation from which a port says something about its threshold
_UP, _DOWN = 1.5, 0.85


@dataclass
class _Seen:
    """What a port showed since its threshold was last judged."""

    ticks: int = 0
    busy: float = 0.0
    waited: int = 0


class EcnTuner:
    """Holds each port's utilisation at `utilisation` or above with the smallest threshold, judged every `every` ticks.

    Never below `least` frames, nor above half of what the queue holds. Flows are moved as `exact` does, if `route`: beside
    an arm that routes only the thresholds must differ.
    """

    def __init__(self, utilisation: float = 0.95, every: int = 5, least: int = 1, route: bool = True) -> None:
        if not 0 < utilisation < 1:
            raise ValueError(f"utilisation: got {utilisation}; accepted: above 0 and below 1")
        self._utilisation, self._every, self._least = utilisation, every, least
        self._seen: dict[Port, _Seen] = {}
        self._router = Exact() if route else None

    def decide(self, view: View) -> Sequence[Action]:
        """Moves, and thresholds for the ports whose time to be judged has come."""
        found: list[Action] = list(self._router.decide(view)) if self._router else []
        for port, link in view.links.items():
            if link.ecn_bytes is None or view.wires is None:
                continue
            seen = self._seen.setdefault(port, _Seen())
            if link.utilisation >= _BUSY:
                seen.ticks, seen.busy = seen.ticks + 1, seen.busy + link.utilisation
                seen.waited += bool(link.backlog_bytes)
            if seen.ticks >= self._every:
                self._seen[port] = _Seen()
                if (order := self._judge(link, link.ecn_bytes, seen, view.wires)) is not None:
                    found.append(order)
        return found

    def _judge(self, link: LinkView, ecn: tuple[int, int], seen: _Seen, wires: Wires) -> SetEcn | None:
        mean = seen.busy / seen.ticks
        short = mean < self._utilisation
        if short and not seen.waited:
            return None  # nobody wants more of it: its threshold is not what limits
        factor = _UP if short else _DOWN
        wanted = round(min(max(ecn[1] * factor, self._least * wires.frame), wires.queue_bytes / 2))
        if wanted == ecn[1]:
            return None
        why = "it marked too early: it was busy, and not full" if short else "it was full: it can mark earlier"
        return SetEcn(link.port, wanted, wanted, why, {"utilisation": round(mean, 3), "waited": seen.waited / seen.ticks})
