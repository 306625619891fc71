"""What a controller knows of its links from telemetry alone: how full each is, what waits, what is down or degraded.

Comes in: rounds of port counters, queue readings, port states, each with its time. Goes out: a `LinkView` per
direction. Pure: the clock is an argument.

Utilisation is against the configured rate, because a virtual port reports a speed of its own. A link is degraded when
it sent less than was waiting all along, and less than it should have: it was never idle, so what it sent is its rate.
After it was down it is kept out of use for a while, longer each time (hold-down), so that a flapping link moves a flow
off once, and not at every flap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fabric.graph import Fabric, Port
from fabric.policy import LinkView
from fabric.portcounts import Counters, PortCount

__all__ = ["LinkWatch", "QueueCount"]

_DEGRADED = 0.85  # of the configured rate: what HTB lets through on a busy machine is above
_EVIDENCE_S = 0.5  # how long, in all, a link must have shown itself slower
_FORGIVE_S = 10.0  # then a degraded link is tried again; twice as long after each relapse
_LONGEST_HOLD_S = 60.0
_CALM_S = 30.0  # of being up, and the hold-down begins small again
_MOST_DOUBLINGS = 10  # enough for any hold-down to grow to the longest


@dataclass(frozen=True, slots=True)
class QueueCount:
    """One queue at one moment: bytes and packets waiting, and totals of packets dropped and bytes sent."""

    t: float
    backlog_bytes: int
    backlog_packets: int
    drops: int
    sent_bytes: int


@dataclass
class _Failing:
    """A link's record: how often it went down lately, when it was last seen down, until when it is kept out of use."""

    down: bool = False
    times: int = 0
    last_down: float = float("-inf")
    held_until: float = float("-inf")


@dataclass
class _Slow:
    """A link that sends less than it should: evidence so far, up to when, and what is believed until when.

    `packets` are the bytes that may be under way unseen: one packet for each piece of the evidence.
    """

    seconds: float = 0.0
    nbytes: float = 0.0
    packets: float = 0.0
    at: float = float("-inf")
    mbps: float | None = None
    until: float = float("-inf")
    patience_s: float = _FORGIVE_S


@dataclass
class LinkWatch:
    """The state of all links of a fabric whose links carry `mbps` (times their scale)."""

    fabric: Fabric
    mbps: float
    hold_down_s: float = 3.0
    _before: dict[Port, tuple[float, PortCount]] = field(default_factory=dict)
    _queues: Mapping[Port, QueueCount] = field(default_factory=dict)
    _drops: dict[Port, int] = field(default_factory=dict)
    _utilisation: dict[Port, float] = field(default_factory=dict)
    _failing: dict[Port, _Failing] = field(default_factory=dict)
    _slow: dict[Port, _Slow] = field(default_factory=dict)

    def configured(self, port: Port) -> float:
        """The rate out of a port as it was built, in Mb/s."""
        return self.mbps * self.fabric.scale[port]

    def counted(self, now: Counters) -> None:
        """Take a round of port counters; what a switch does not count leaves its links' utilisation as it was.

        A switch that missed rounds is measured from its last answer on.
        """
        for port, (t, count) in now.ports.items():
            if port in self._before:
                t0, old = self._before[port]
                self._note(port, t - t0, old.tx_bytes, count.tx_bytes)
                far = self.fabric.peer[port]
                if far.node in self.fabric.host_by_name:  # a host's own counters are not asked; its switch hears it all
                    self._note(far, t - t0, old.rx_bytes, count.rx_bytes)
            self._before[port] = (t, count)

    def _note(self, port: Port, seconds: float, before: int | None, now: int | None) -> None:
        if before is not None and now is not None and seconds > 0 and now >= before:
            self._utilisation[port] = (now - before) * 8e-6 / seconds / self.configured(port)

    def queued(self, now: Mapping[Port, QueueCount]) -> list[Port]:
        """Take a reading of the queues; the ports that have just been found degraded."""
        before, self._queues = self._queues, now
        found = []
        for port, count in now.items():
            old = before.get(port)
            if old is not None and count.t > old.t:
                self._drops[port] = max(0, count.drops - old.drops)
                if self._shows_slow(port, old, count):
                    found.append(port)
        return found

    def _shows_slow(self, port: Port, old: QueueCount, now: QueueCount) -> bool:
        seconds, sent = now.t - old.t, now.sent_bytes - old.sent_bytes
        due = self.configured(port) * 1e6 / 8 * seconds
        slow = self._slow.get(port)
        if sent >= _DEGRADED * due:
            if slow is not None and slow.mbps is not None and sent * 8e-6 / seconds > 1.1 * slow.mbps:
                slow.mbps = None  # it carries more than was believed
            if slow is not None:
                slow.seconds = slow.nbytes = slow.packets = 0.0
            return False
        if sent >= old.backlog_bytes or not sent >= 0 or self._is_down(port):
            return False
        slow = self._slow.setdefault(port, _Slow())
        slow.seconds, slow.nbytes = slow.seconds + seconds, slow.nbytes + sent
        if slow.at != old.t:  # a healthy link's last packet may leave just after the reading, and be the first to be missed
            slow.packets += old.backlog_bytes / max(old.backlog_packets, 1)
        slow.at = now.t
        due = self.configured(port) * 1e6 / 8 * slow.seconds
        if slow.seconds < _EVIDENCE_S or slow.nbytes + slow.packets >= _DEGRADED * due:
            return False
        fresh = slow.mbps is None
        if fresh and slow.until > float("-inf"):
            slow.patience_s *= 2
        slow.mbps, slow.until = slow.nbytes * 8e-6 / slow.seconds, now.t + slow.patience_s
        slow.seconds = slow.nbytes = slow.packets = 0.0
        return fresh

    def port_changed(self, port: Port, up: bool, t: float) -> bool:
        """Take a port's state; whether this changes which links may be used."""
        if up and port not in self._failing:
            return False
        state = self._failing.setdefault(port, _Failing())
        if state.down == (not up):
            return False
        was_usable = self._usable(port, t)
        state.down = not up
        if state.down:
            state.times = 1 if t - state.last_down > _CALM_S else state.times + 1
        else:
            doublings = min(state.times - 1, _MOST_DOUBLINGS)
            state.held_until = t + min(_LONGEST_HOLD_S, self.hold_down_s * 2**doublings)
        state.last_down = t
        return was_usable != self._usable(port, t)

    def _is_down(self, port: Port) -> bool:
        state = self._failing.get(port)
        return state is not None and state.down

    def _usable(self, port: Port, t: float) -> bool:
        state = self._failing.get(port)
        return state is None or (not state.down and t >= state.held_until)

    def down(self, t: float) -> frozenset[Port]:
        """The ports whose links may not be used now: down, or in hold-down; either end is enough."""
        ports = (port for port in self._failing if not self._usable(port, t))
        return frozenset(end for port in ports for end in (port, self.fabric.peer[port]))

    def _mbps(self, port: Port, t: float) -> float:
        slow = self._slow.get(port)
        if slow is None or slow.mbps is None:
            return self.configured(port)
        if t >= slow.until:
            slow.mbps = None
            return self.configured(port)
        return min(slow.mbps, self.configured(port))

    def links(self, t: float, ports: Iterable[Port] | None = None) -> dict[Port, LinkView]:
        """Every direction of every link, as known at `t`."""
        down = self.down(t)
        return {port: self._link(port, 0.0 if port in down else self._mbps(port, t)) for port in ports or self.fabric.peer}

    def _link(self, port: Port, mbps: float) -> LinkView:
        queue = self._queues.get(port)
        return LinkView(
            port, mbps, self.configured(port), self._utilisation.get(port, 0.0),
            queue.backlog_bytes if queue else None, self._drops.get(port),
        )  # fmt: skip
