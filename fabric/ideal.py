"""What the network allows at best: the same work on one ideal switch, and the bandwidths that users compare.

Comes in: a `Schedule`, the links' rate and MTU, the measured latency. Goes out: ideal times in ms, bandwidths in Mb/s.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from fabric.bound import least_ms
from fabric.collectives import bus_factor
from fabric.errors import RequestError
from fabric.schedule import Schedule

__all__ = ["CREDIT_FRAMES", "ETHERNET_HEADER", "TCP_IP_HEADERS", "Servers", "algbw_mbps", "busbw_mbps", "ideal_ms", "payload_mbps", "ring_allreduce_ms"]

ETHERNET_HEADER = 14
TCP_IP_HEADERS = 20 + 20 + 12  # IPv4, TCP, and TCP's timestamps option
# Full frames that an idle link passes at once: a bucket of one, and one more, as HTB sends while its bucket is not below zero.
CREDIT_FRAMES = 2


def payload_mbps(mbps: float, mtu: int) -> float:
    """TCP payload in Mb/s that a link of `mbps` carries in full packets: MSS / (MTU + 14) of it.

    14 bytes of Ethernet, because a shaper counts the frame without preamble and checksum.

    >>> round(payload_mbps(20, 9000), 3)
    19.854
    """
    if not mbps > 0:
        raise RequestError(f"links.mbps: got {mbps}; accepted: a number above 0")
    if mtu <= TCP_IP_HEADERS:
        raise RequestError(f"links.mtu: got {mtu}; accepted: above {TCP_IP_HEADERS}, the headers of every packet")
    return mbps * (mtu - TCP_IP_HEADERS) / (mtu + ETHERNET_HEADER)


@dataclass(frozen=True, slots=True)
class Servers:
    """Which server each rank is in, by rank, and what it can send to the others there, in Mb/s of payload."""

    of_rank: tuple[str, ...]
    mbps: float


def ideal_ms(schedule: Schedule, *, alpha_ms: float, payload_mbps: float, burst_bytes: int = 0, servers: Servers | None = None) -> float:
    """The least time that a schedule can take on one ideal switch, a rank a host, where only the hosts' own links limit; ms.

    However its connections share these (see `bound`). `burst_bytes` is the payload of the link's token bucket (see
    `fluid.play`); 0 gives the textbook's time where the textbook's algorithm wastes nothing. Ranks of one of `servers` reach each
    other inside it, without latency.
    """
    links: list[Hashable] = [(rank, way) for rank in range(schedule.ranks) for way in ("out", "in")]
    capacity: dict[Hashable, float] = dict.fromkeys(links, payload_mbps)
    if servers is None:
        return least_ms(schedule, lambda src, dst, _: ((src, "out"), (dst, "in")), capacity, alpha_ms, burst_bytes)
    of_rank = servers.of_rank
    capacity.update(((rank, "inside"), servers.mbps) for rank in range(schedule.ranks))

    def path(src: int, dst: int, _: int) -> tuple[Hashable, ...]:
        return ((src, "inside"),) if of_rank[src] == of_rank[dst] else ((src, "out"), (dst, "in"))

    return least_ms(schedule, path, capacity, lambda src, dst, _: 0.0 if of_rank[src] == of_rank[dst] else alpha_ms, burst_bytes)


def ring_allreduce_ms(ranks: int, nbytes: int, *, alpha_ms: float, payload_mbps: float) -> float:
    """The textbook's ring all-reduce, 2(p-1)α + 2(p-1)/p·n/rate, in ms: the independent check on `ideal_ms`.

    Exact where `nbytes` is a whole number of elements per rank. Source: Patarasuk, Yuan, JPDC 69(2), 2009.
    """
    steps = 2 * (ranks - 1)
    return steps * alpha_ms + steps / ranks * nbytes * 8 / 1000 / payload_mbps


def algbw_mbps(nbytes: int, time_ms: float) -> float:
    """Algorithm bandwidth as in nccl-tests: the size of one rank's buffer over the time, in Mb/s."""
    if not time_ms > 0:
        raise RequestError(f"time_ms: got {time_ms}; accepted: above 0; a bandwidth needs a time")
    return nbytes * 8 / 1000 / time_ms


def busbw_mbps(collective: str, ranks: int, nbytes: int, time_ms: float, *, groups: int = 1) -> float | None:
    """Bus bandwidth as in nccl-tests: algbw times the collective's factor, in Mb/s; comparable to a link's rate. None for a barrier.

    In `groups` it is each group's own: the factor is that of ranks / groups ranks.
    """
    factor = bus_factor(collective, ranks // groups)
    return None if factor is None else algbw_mbps(nbytes, time_ms) * factor
