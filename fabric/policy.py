"""What a policy sees and what it may answer: the whole contract of the deciders under controllers/policies.

Comes in: nothing. Goes out: `View`, `Action` and `Policy`. A policy is pure: no Ryu, no clock, no randomness of its own,
so that the same object decides on live switches, on recorded samples and in the fluid model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fabric.graph import Port
from fabric.ideal import ETHERNET_HEADER, TCP_IP_HEADERS
from fabric.paths import Path

__all__ = [
    "Action", "FlowKey", "FlowView", "JobView", "Lever", "LinkView", "Policy", "Reroute", "Reweight", "SetEcn", "SetPriority", "SetRate",
    "SetTransport", "Shift", "Transport", "View", "Wires",
]  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class FlowKey:
    """One direction of a connection by its 5-tuple; `protocol` is IP's number, 6 for TCP.

    >>> str(FlowKey("10.0.0.1", 20000, "10.0.0.9", 5001))
    '10.0.0.1:20000>10.0.0.9:5001'
    """

    src_ip: str
    src_port: int
    dst_ip: str
    dst_port: int
    protocol: int = 6

    def __str__(self) -> str:
        return f"{self.src_ip}:{self.src_port}>{self.dst_ip}:{self.dst_port}"


@dataclass(frozen=True, slots=True)
class FlowView:
    """An active flow between the hosts `src` and `dst`.

    `path` is where it goes now, None when only a switch's hash knows. `demand_mbps` is what it would take were only the
    hosts' own links in its way; `mbps` what it was last measured to get, None before that. `signal` names what the
    belief that it is active rests on: syn, port-counters, flow-counters or hint. A flow that is not `movable` was moved
    a moment ago and stays where it is for this tick. `job` is the job that announced it, None for the background; `first`
    says that its packets have priority, and `limit_mbps` what rate it was limited to, both as the hosts confirmed them.
    """

    key: FlowKey
    src: str
    dst: str
    path: Path | None
    demand_mbps: float
    mbps: float | None = None
    signal: str = "syn"
    movable: bool = True
    job: str | None = None
    first: bool = False
    limit_mbps: float | None = None


@dataclass(frozen=True, slots=True)
class LinkView:
    """One direction of a link, out of `port`.

    `mbps` is what it can carry now, in frames with their header as demands are: 0 when it is down, less than `configured_mbps` when
    telemetry found it degraded. `utilisation` is of the configured rate over the last period, 0..1. `backlog_bytes` and
    `drops` (over the last period) are of its queue, None where the switch does not tell. `ecn_bytes` is where it begins
    to mark and where it marks every packet, as was confirmed last; None where it does not mark.
    """

    port: Port
    mbps: float
    configured_mbps: float
    utilisation: float = 0.0
    backlog_bytes: int | None = None
    drops: int | None = None
    ecn_bytes: tuple[int, int] | None = None

    @property
    def up(self) -> bool:
        """Whether it carries anything."""
        return self.mbps > 0


@dataclass(frozen=True, slots=True)
class JobView:
    """A job that announced itself: the flows that it will use (source, destination) and bytes of each in an iteration.

    Of its last iterations, oldest first: `last` is the number of the newest, `began` and `busy_s` when each one's communication
    began, and how long it went on, in seconds. `shifted` is the first iteration after its last shift.
    """

    name: str
    flows: tuple[tuple[str, str], ...]
    nbytes: tuple[int, ...]
    last: int | None = None
    began: tuple[float, ...] = ()
    busy_s: tuple[float, ...] = ()
    shifted: int | None = None


@dataclass(frozen=True, slots=True)
class Transport:
    """What hosts' connections are set to by their routes; None is the kernel's own choice.

    `initcwnd` and `window_packets`, the most that a connection may have under way, are for connections to come,
    `rto_min_ms` for those that are there as well.
    """

    rto_min_ms: int | None = None
    initcwnd: int | None = None
    window_packets: int | None = None


@dataclass(frozen=True)
class Wires:
    """What operators know of their links beside their rates: the largest frame, and the queue's limit, in bytes.

    `floor` is the share of a link that packets without priority keep, None where queues know no priority; `transport`
    what each host is set to.
    """

    frame: int
    queue_bytes: int
    floor: float | None = None
    transport: Mapping[str, Transport] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """The fabric at one moment: `t` in seconds, `tick` counts the calls, `period_s` lies between two of them.

    `links` has every direction of every link. `flows` are the active ones, in a fixed order. `paths(src, dst)` are the
    shortest paths between two hosts whose links are all up, in a fixed order; empty when there is none.
    `groups` are what new and unplaced flows are hashed over: by (edge switch, edge switch of the destination), the
    weights of the paths between the two, in the order of `switch_paths(edge, edge)`. `jobs` are those that announced
    themselves; `wires` is None where nobody told.
    """

    t: float
    tick: int
    period_s: float
    links: Mapping[Port, LinkView]
    flows: tuple[FlowView, ...]
    paths: Callable[[str, str], Sequence[Path]]
    groups: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    switch_paths: Callable[[str, str], Sequence[Path]] = lambda _src, _dst: ()
    jobs: tuple[JobView, ...] = ()
    wires: Wires | None = None

    @property
    def payload(self) -> float:
        """The share of a link's rate that is payload; 1 where nobody told how large frames are."""
        return 1.0 if self.wires is None else 1 - (ETHERNET_HEADER + TCP_IP_HEADERS) / self.wires.frame


@dataclass(frozen=True, slots=True)
class Reroute:
    """Put a flow on a path of `View.paths`; `reason` and `numbers` go to the decision log."""

    flow: FlowKey
    path: Path
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reweight:
    """Hash new and unplaced flows at edge `switch`, towards edge `group`, over its paths by these `weights`.

    Whole numbers from 0, not all 0, in the order of `View.switch_paths(switch, group)`.
    """

    switch: str
    group: str
    weights: tuple[int, ...]
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetPriority:
    """Have a flow's packets, its acknowledgements included, go `first` in every queue on their way, or not any more."""

    flow: FlowKey
    first: bool
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetRate:
    """Limit a flow, or all that a host sends, to so many Mb/s (Ethernet header counted); None lifts the limit."""

    target: FlowKey | str
    mbps: float | None
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetEcn:
    """Have a switch's port mark from `min_bytes` of backlog on, and every packet from `max_bytes` on."""

    port: Port
    min_bytes: int
    max_bytes: int
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetTransport:
    """Set what a host's connections go by."""

    host: str
    transport: Transport
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shift:
    """Have a job compute so much longer, once: all its communication comes that much later from then on."""

    job: str
    delay_ms: float
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


Lever = SetPriority | SetRate | SetEcn | SetTransport | Shift
Action = Reroute | Reweight | Lever


class Policy(Protocol):
    """Anything with this one method."""

    def decide(self, view: View) -> Sequence[Action]:
        """What to change now; empty to leave all as it is. No flow and no group twice."""
        ...
