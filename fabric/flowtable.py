"""Which flows are active, as far as the fabric itself tells: SYNs, the switches' own flow entries, port counters, hints.

Comes in: what was seen, each with its time. Goes out: `FlowView`s with their estimated demand. Pure: the clock is an
argument. Never from the traffic generator: a controller's folder does not hold it.

A flow counts as active
  - for a while after its SYN (signal `syn`) or its hint (`hint`), whatever the counters say;
  - while its own counter grows at an elephant's rate (`flow-counters`; Open vSwitch brings them up to date every half
    second, so this is never the first to know);
  - while the NICs at both its ends are busy and no other flow that is known to be active explains why (`port-counters`,
    which are fresh);
and for `linger_s` after the last of these, since a collective pauses between its iterations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fabric.demand import estimate
from fabric.paths import Path
from fabric.policy import FlowKey, FlowView

__all__ = ["FlowRecord", "FlowTable"]

# A switch brings a flow's counter up to date about twice a second, all that was sent since at once: over less than this,
# a stream of acknowledgements would look like an elephant.
_LEAST_SPAN_S = 0.5
_ARRIVING_S = 0.5  # in which a collective opens its connections: those placed first must make room for the last
_SILENT_S = 2.0  # longer than the switch takes to bring a counter up to date


@dataclass
class FlowRecord:
    """What is known of one flow; times in seconds.

    `path` is where it goes, None while nobody said; `placed` when a rule of its own puts it there, else it is hashed, to
    `hashed_to`. `opened` says that this direction opened the connection, `peak_mbps` is the most that was ever measured. `job` is
    who announced it; `first` and `limit_mbps` are what its hosts were told, and confirmed.
    """

    key: FlowKey
    src: str
    dst: str
    first_seen: float
    signal: str
    seen_at: float = float("-inf")
    path: Path | None = None
    placed: bool = False
    hashed_to: int | None = None
    moved_at: float = float("-inf")
    counted: tuple[float, int] | None = None
    mbps: float | None = None
    peak_mbps: float | None = None
    opened: bool = False
    job: str | None = None
    first: bool = False
    limit_mbps: float | None = None
    evidence_at: float = float("-inf")


@dataclass
class FlowTable:
    """All flows known. `elephant` is the share of a NIC from which a flow is worth placing (Hedera: 10 %)."""

    host_of: Mapping[str, str]
    nic_mbps: Mapping[str, float]
    grace_s: float = 2.0
    linger_s: float = 5.0
    elephant: float = 0.1
    hold_s: float = 1.0
    records: dict[FlowKey, FlowRecord] = field(default_factory=dict)

    def note(self, key: FlowKey, t: float, signal: str) -> FlowRecord | None:
        """A SYN or a hint of a flow; None when its addresses are not of this fabric."""
        record = self._record(key, t, signal)
        opens = record is not None and (record.first_seen == t or t > record.evidence_at)  # else its SYN was sent again
        if record is not None and (signal == "hint" or (signal == "syn" and opens)):
            record.signal, record.evidence_at, record.opened = signal, t + self.grace_s, True
        return record

    def counted(self, key: FlowKey, nbytes: int, t: float, hashed_to: int | None = None) -> FlowRecord | None:
        """A flow's own counter, as its switch gave it; the first one of a flow says only that it exists.

        The rate is taken over half a second at least.
        """
        record = self._record(key, t, "flow-counters")
        if record is None:
            return None
        if hashed_to is not None:
            record.hashed_to = hashed_to
        if record.counted is None or nbytes < record.counted[1]:
            record.counted = (t, nbytes)
        elif nbytes > record.counted[1]:
            before, old = record.counted
            if t - before < _LEAST_SPAN_S:
                return record
            record.mbps = (nbytes - old) * 8e-6 / (t - before)
            record.peak_mbps = max(record.mbps, record.peak_mbps or 0.0)
            record.counted = (t, nbytes)
            if record.mbps >= self.elephant * self.nic_mbps[record.src]:
                record.signal, record.evidence_at = "flow-counters", max(t, record.evidence_at)
        elif t - record.counted[0] > _SILENT_S:
            record.mbps, record.counted = 0.0, (t, nbytes)
        return record

    def _record(self, key: FlowKey, t: float, signal: str) -> FlowRecord | None:
        if key not in self.records:
            if key.src_ip not in self.host_of or key.dst_ip not in self.host_of:
                return None
            self.records[key] = FlowRecord(key, self.host_of[key.src_ip], self.host_of[key.dst_ip], t, signal)
        self.records[key].seen_at = t
        return self.records[key]

    def forget(self, t: float, after_s: float) -> None:
        """Drop the flows that are inactive and that no switch has mentioned for `after_s`."""
        old = [key for key, record in self.records.items() if t - record.seen_at > after_s and not self._is_active(record, t)]
        for key in old:
            del self.records[key]

    def active(
        self, t: float, busy_out: Mapping[str, float], busy_in: Mapping[str, float], cut: Callable[[Path], bool] = lambda _: False
    ) -> tuple[FlowView, ...]:
        """The active flows with their demand; `busy_out` and `busy_in` are each host's NIC utilisation, 0..1.

        Whose path is `cut` may be moved, however short a time ago it was: when a switch dies its links are heard of one after
        another, and the first way out may lead through it again.
        """
        self._by_port_counters(t, busy_out, busy_in)
        chosen = [record for _, record in sorted(self.records.items()) if self._is_active(record, t)]
        demands = estimate([(record.src, record.dst) for record in chosen], self.nic_mbps, self.nic_mbps)
        return tuple(
            FlowView(
                record.key, record.src, record.dst, record.path, demand, record.mbps, record.signal,
                movable=t - record.moved_at >= self.hold_s or t - record.first_seen < _ARRIVING_S or (record.path is not None and cut(record.path)),
                job=record.job, first=record.first, limit_mbps=record.limit_mbps,
            )
            for record, demand in zip(chosen, demands, strict=True)
        )  # fmt: skip

    def _is_active(self, record: FlowRecord, t: float) -> bool:
        return t <= record.evidence_at + self.linger_s

    def _by_port_counters(self, t: float, busy_out: Mapping[str, float], busy_in: Mapping[str, float]) -> None:
        """Keep awake what is certainly sending, and wake, likeliest first, what would explain NICs that are busy."""
        active = [record for record in self.records.values() if self._is_active(record, t)]
        sources = Counter(record.src for record in active)
        receivers = {record.dst for record in active}

        def busy(record: FlowRecord) -> bool:
            return min(busy_out.get(record.src, 0.0), busy_in.get(record.dst, 0.0)) >= self.elephant

        for record in active:
            if sources[record.src] == 1 and busy(record):  # its NIC's counter is its own
                record.evidence_at = max(record.evidence_at, t)
        asleep = [record for record in self.records.values() if not self._is_active(record, t) and busy(record)]
        for record in sorted(asleep, key=lambda item: (-self._likely_mbps(item), item.key)):
            if not sources[record.src] or record.dst not in receivers:
                record.signal, record.evidence_at = "port-counters", t
                sources[record.src] += 1
                receivers.add(record.dst)

    def _likely_mbps(self, record: FlowRecord) -> float:
        """What a flow would send if it woke: what it once did; before that, whoever opens a connection sends."""
        if record.peak_mbps is not None:
            return record.peak_mbps
        return self.nic_mbps[record.src] if record.opened else 0.0
