"""What theory says of a point that ran: max-min rates and played schedules on the paths that were installed.

Comes in: a point's record. Goes out: predicted times and shares. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import networkx as nx
import numpy as np

from fabric.delay import round_trip_ms
from fabric.experiment import Point
from fabric.fluid import max_min, play, share_of_nonblocking
from fabric.graph import Fabric
from fabric.ideal import CREDIT_FRAMES, TCP_IP_HEADERS, Servers
from fabric.paths import ends
from fabric.recorded import UNLIMITED_MBPS, Recorded
from fabric.schedule import Schedule
from fabric.workload import Edge, Workload

__all__ = ["burst_bytes", "capacity_of", "played_ms", "predicted_ms", "predicted_share", "servers_of", "slowest_slowdown", "switches_between_ends"]

_NOTHING_MBPS = 1e-6  # stands for no goodput at all, so that a slowdown stays a number


def capacity_of(seen: Recorded) -> dict[Hashable, float]:
    """Payload rates of all interfaces, by the last rate that an event gave each; one that went down keeps the one before."""
    nominal = seen.network["payload_mbps"]
    changed = {name: mbps for one in seen.happened for name, mbps in one.mbps.items() if mbps}
    return {name: nominal * mbps / seen.link_mbps for name, mbps in (seen.mbps | changed).items()}


def predicted_share(work: Workload, seen: Recorded) -> float | None:
    """What max-min fairness on the installed paths, where they ended, would give the load."""
    paths = [path for path in seen.last_paths[1] if path is not None]
    if len(paths) < len(work.flows):
        return None
    rates = max_min(paths, capacity_of(seen), [flow.mbps for flow in work.flows])
    return share_of_nonblocking(rates, work.flows, seen.network["payload_mbps"])


def predicted_ms(point: Point, work: Workload, seen: Recorded, schedule: Schedule, alpha_ms: float) -> float | None:
    """The schedule played on the installed paths, where they ended, at max-min rates, the load beside it."""
    edges, flows = seen.last_paths
    paths: dict[Edge, list[str]] = {edge: path for edge, path in edges.items() if path is not None}
    background = [path for path in flows if path is not None]
    if len(paths) < len(edges) or len(background) < len(flows):
        return None
    return played_ms(point, work, seen, schedule, alpha_ms, paths, background)


def played_ms(
    point: Point, work: Workload, seen: Recorded, schedule: Schedule, alpha_ms: float,
    paths: Mapping[Edge, list[str]], background: Sequence[list[str]],
) -> float:  # fmt: skip
    """The schedule played on some paths at max-min rates, the load beside it on some others."""
    far = switches_between_ends(point.fabric, seen)
    # α was measured over one switch; each further one adds what the idle ping says a switch takes.
    per_switch = max(0.0, seen.network["idle_rtt_ms"] - round_trip_ms(point.links)) / 2 / far
    crossing = [len(path) - 2 for path in paths.values() if len(path) > 1]  # inside a server there is no switch on the way
    alpha = alpha_ms + per_switch * float(np.mean(crossing)) if crossing else 0.0
    return play(
        schedule, lambda src, dst, channel: paths[src, dst, channel], capacity_of(seen),
        lambda src, dst, channel: alpha if len(paths[src, dst, channel]) > 1 else 0.0,
        background, [flow.mbps for flow in work.flows], burst_bytes(point),
    ).end_ms  # fmt: skip


def servers_of(fabric: Fabric, ranks: Sequence[str], payload_mbps: float) -> Servers | None:
    """The servers of ranks on these hosts, where links carry `payload_mbps`; None where there are none."""
    if not fabric.servers:
        return None
    inside = UNLIMITED_MBPS if fabric.inside is None else payload_mbps * fabric.inside
    return Servers(tuple(fabric.host_by_name[host].machine for host in ranks), inside)


def burst_bytes(point: Point) -> int:
    """The payload that an idle link passes at once."""
    return CREDIT_FRAMES * (point.links.mtu - TCP_IP_HEADERS)


def switches_between_ends(fabric: Fabric, seen: Recorded) -> int:
    """How many switches the idle ping crossed, at least: those on a shortest path between its two hosts."""
    first, last = ends(fabric)
    return int(nx.shortest_path_length(fabric.graph, first.name, last.name)) - 1


def slowest_slowdown(rates: Sequence[float], work: Workload, mbps: float) -> float:
    """The largest ratio, over flows, of the max-min rate on one ideal switch to the rate that it got."""
    paths = [((flow.src, "out"), (flow.dst, "in")) for flow in work.flows]
    capacity: dict[Hashable, float] = {link: mbps for path in paths for link in path}
    ideal = max_min(paths, capacity, [flow.mbps for flow in work.flows])
    return float((ideal / np.maximum(rates, _NOTHING_MBPS)).max())
