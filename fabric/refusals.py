"""Results that would say nothing: each reason for which a row is refused instead of reported.

Comes in: a point, its record and a row. Goes out: the reason, in words, or None. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fabric.decisions import count
from fabric.events import expand
from fabric.experiment import Point
from fabric.fluid import max_min
from fabric.graph import Fabric, Port
from fabric.hindsight import better_paths
from fabric.load import Flow
from fabric.orders import done
from fabric.paths import PathSets
from fabric.predictions import capacity_of, played_ms, slowest_slowdown
from fabric.programs import output
from fabric.recorded import Recorded, fabric_of, spine_ports
from fabric.results import Row
from fabric.transports import JobSockets, jobs, settings
from fabric.workload import Part, Workload

__all__ = ["moved_nothing", "program_failed", "refusal", "reported", "sockets_differ"]

_ACCOUNTED = 0.98  # of the ideal: nothing real is faster
_REFERENCE = 0.97
_WORTH_MOVING = 1.1  # times slower than it could be: less is within what the model misses
_TURNS_TO_ACT = 3
_ENOUGH_FLOWS = 8  # with that many multi-path flows, one path for all is no hashing


def refusal(point: Point, work: Workload, seen: Recorded, row: Row) -> str | None:
    """Why the row would say nothing; None when it may be reported."""
    checks: Sequence[str | None] = (
        _shapers_differ(seen), _sysctls_differ(point, seen), _routes_differ(seen), program_failed(point, work, seen, row), sockets_differ(point, work, seen),
        _telemetry_is_empty(seen),
        _events_are_missing(point, seen), _sum_is_wrong(row), _bytes_are_missing(point, work, seen), _one_path(row, seen), _faster_than_ideal(row),
        _blocking_reference(point, row, seen),
    )  # fmt: skip
    return next((reason for reason in checks if reason), None)


def _shapers_differ(seen: Recorded) -> str | None:
    found = seen.network["differences"]
    return f"{len(found)} shapers are not what was asked, the first: {found[0]}" if found else None


def _sysctls_differ(point: Point, seen: Recorded) -> str | None:
    name = "net.ipv4.tcp_congestion_control"
    for host, values in seen.network["host_sysctls"].items():
        wanted = _name_of(settings(point.transport, host).tcp, seen)
        if values[name] != wanted:
            return f"{host} has {name}={values[name]}, asked for {wanted}"
    return None


def reported(seen: Recorded) -> dict[str, Any] | None:
    """What rank 0 of a program wrote as its report, a JSON object; None where there is none, or it is no object."""
    try:
        found = json.loads(output(seen.folder / "programs", 0, "json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def program_failed(point: Point, work: Workload, seen: Recorded, row: Row) -> str | None:
    """A program must have ended well on every rank, and have used the network."""
    if point.workload is None:
        return None
    (record,) = seen.event("programs")
    ranks = record["ranks"]
    failed = [rank for rank, one in enumerate(ranks) if one["code"]]
    for rank in sorted(failed, key=lambda rank: float(ranks[rank]["ended"])):  # the first to fail: others may have failed for want of it
        signalled = f" (signal {ranks[rank]['code'] - 128})" if ranks[rank]["code"] > 128 else ""
        return f"rank {rank} on {work.programs[rank]} ended with code {ranks[rank]['code']}{signalled}: {_said(seen, rank, ranks[rank])}"
    if stalled := [rank for rank, one in enumerate(ranks) if one["code"] is None]:
        names = ", ".join(f"{rank} on {work.programs[rank]}" for rank in stalled[:4])
        more = f" and {len(stalled) - 4} more" if len(stalled) > 4 else ""
        return f"rank {names}{more} still ran after {point.workload.timeout_s:g} s: {_said(seen, stalled[0], ranks[stalled[0]])}"
    if (file := output(seen.folder / "programs", 0, "json")).is_file() and row.reported is None:
        return f"what rank 0 reported is no JSON object; see {file.relative_to(seen.folder)}"
    hosts = {host: _name_of(settings(point.transport, host).tcp, seen) for host in work.programs}
    for rank, one in enumerate(ranks):
        if other := set(one["tcps"]) - {hosts[work.programs[rank]]}:
            return f"rank {rank} on {work.programs[rank]} used {', '.join(sorted(other))}, asked for {hosts[work.programs[rank]]}"
    others = bool(work.flows or work.askings or point.telemetry.probes)  # then bytes on the NICs say nothing of the program
    if not row.nic_bytes or (others and not any(one["tcps"] for one in ranks)):
        remedy = "have it use the interface in FABRICLAB_INTERFACE, and neither loopback nor shared memory"
        return f"the program put no bytes on the NICs of its hosts: {remedy}"
    return None


def _said(seen: Recorded, rank: int, one: Mapping[str, Any]) -> str:
    """A rank's last words, and where there are more."""
    file = output(seen.folder / "programs", rank, "err").relative_to(seen.folder)
    return f"{one['words'] or 'it printed no error'}; see {file}"


def _routes_differ(seen: Recorded) -> str | None:
    found = seen.network.get("transport", {}).get("routes_differ")
    return f"{len(found)} routes are not what was asked, the first: {found[0]}" if found else None


def _name_of(tcp: str, seen: Recorded) -> str:
    """What sockets call the congestion control that was asked for: its own name, or that of a program for it."""
    known = {asked: one["name"] for asked, one in seen.network.get("transport", {}).get("provided", {}).items()}
    if "tcp" in seen.network:
        known.setdefault(seen.network["tcp"]["asked"], seen.network["tcp"]["name"])
    return str(known.get(tcp, tcp))


def _ordered_timeouts(seen: Recorded, host: str) -> list[int]:
    """The smallest retransmission timeouts that a controller ordered of a host, in ms."""
    orders = [order for order, _ in done(seen.orders) if order["do"] == "transport" and order["host"] == host]
    return [order["rto_min_ms"] for order in orders if order["rto_min_ms"]]


def sockets_differ(point: Point, work: Workload, seen: Recorded) -> str | None:
    """Each end is judged by what its job on its host was asked for: congestion control, smallest timeout, largest window."""
    if not seen.sockets and (work.edges or work.flows or work.askings):
        return "no socket reported its congestion control"
    alike = not point.transport.hosts and not any(job.transport for job in jobs(point))
    other: dict[str, set[str]] = {}
    machine = {nic.ip: host.machine for host in point.fabric.hosts for nic in host.nics}

    def inside(end: Mapping[str, Any]) -> bool:
        return bool(point.fabric.servers) and bool(machine[end["src_ip"]] == machine[end["dst_ip"]])

    for end, job, host in _ends(point, work, seen):
        asked = settings(point.transport, host, job.transport)
        whose = "sockets" if alike else f"sockets of {job.name} on {host}"
        if end["tcp"] != (wanted := _name_of(asked.tcp, seen)):
            other.setdefault(f"{whose} used {{}}, asked for {wanted}", set()).add(end["tcp"])
        elif inside(end):
            continue  # the kernel's own way between its addresses has no metrics
        elif end["rto_ms"] < min([asked.rto_min_ms, *_ordered_timeouts(seen, host)]):
            return f"{whose} had a timeout of {end['rto_ms']:g} ms, asked for at least {asked.rto_min_ms}"
        elif asked.cwnd_clamp is not None and end["role"] == "sender" and end.get("cwnd", 0) > asked.cwnd_clamp:
            return f"{whose} had a window of {end['cwnd']} packets, asked for at most {asked.cwnd_clamp}"
    return next((words.format(", ".join(sorted(names))) for words, names in other.items()), None)


def _ends(point: Point, work: Workload, seen: Recorded) -> Iterator[tuple[dict[str, Any], JobSockets, str]]:
    """Every socket, its job and its host, by its service port, which no other connection has."""
    every = {job.name: job for job in jobs(point)}
    owner = {work.edges[edge].dst_port: (work.part_of(edge).name, *hosts) for edge, hosts in work.hosts_by_edge.items()}
    for flow, ends, load in zip(work.flows, work.flow_endpoints, work.flow_loads, strict=True):
        owner[ends.dst_port] = (f"load.{load}", flow.src, flow.dst)
    for asking, ends, entry in zip(work.askings, work.asking_endpoints, work.asking_entries, strict=True):
        owner[ends.dst_port] = (f"requests.{entry}", asking.client, asking.server)
    for end in seen.sockets:
        job, src, dst = owner[end["dst_port"]]
        yield end, every[job], src if end["role"] == "sender" else dst


def _telemetry_is_empty(seen: Recorded) -> str | None:
    if len(seen.queues.t) < 2:
        return "telemetry is empty: the sampler recorded no two samples"
    if not seen.queues.sent_bytes[-1].any():
        return "telemetry is empty: no interface carried a byte"
    counters = seen.folder / "controller" / "ports.jsonl"
    if not counters.is_file() or not counters.stat().st_size:
        return "telemetry is empty: no switch answered for its port counters"
    return None


def _events_are_missing(point: Point, seen: Recorded) -> str | None:
    """A failure that never came proves nothing."""
    asked = expand(point.events)
    if len(seen.happened) >= len(asked):
        return None
    missing = asked[len(seen.happened)]
    return f"{len(asked) - len(seen.happened)} events never happened, the first: {missing.words()}; the traffic had ended before"


def _sum_is_wrong(row: Row) -> str | None:
    return f"{row.wrong} elements of the result are wrong" if row.wrong else None


def _bytes_are_missing(point: Point, work: Workload, seen: Recorded) -> str | None:
    """The connections of collectives must have carried what the schedules say, in every iteration."""
    if not work.parts and not work.flows:
        return None
    if not work.parts:
        flows = seen.event("flows")[0]["flows"]
        silent = sum(1 for flow in flows.values() if not flow["nbytes"][-1])
        return f"{silent} of {len(flows)} flows delivered nothing" if silent else None
    due = sum(_due_bytes(part) for part in work.parts)
    got = sum(end["bytes_received"] for end in seen.sockets if end["kind"] == "collective" and end["role"] == "receiver")
    return f"{got} bytes arrived, expected {due}" if got != due else None


def _due_bytes(part: Part) -> int:
    """What all connections of a collective carry, in all iterations and pieces."""
    every = sum(transfer.nbytes for schedule in part.schedules for transfer in schedule.transfers)
    return every * part.pieces * (part.collective.iterations + part.collective.warmup)


def _one_path(row: Row, seen: Recorded) -> str | None:
    """An ECMP arm that sends every multi-path flow the same way does not hash."""
    if row.controller != "ecmp":
        return None
    sets, top = PathSets(fabric := fabric_of(seen)), spine_ports(seen)
    every = [path for path in (*seen.edge_paths.values(), *seen.flow_paths) if path is not None and not top.isdisjoint(path)]
    paths = [path for path in every if len(sets(*_ends_of(fabric, path))) > 1]
    spines = {name for path in paths for name in path if name in spine_ports(seen)}
    used = {name.rpartition("-")[0] for name in spines}
    if len(paths) >= _ENOUGH_FLOWS and len(used) == 1:
        return f"ecmp put all {len(paths)} multi-path flows through {used.pop()}: it does not hash"
    return None


def _ends_of(fabric: Fabric, path: Sequence[str]) -> tuple[str, str]:
    """The two hosts of a path of interfaces."""
    first, last = (Port(node, int(number)) for node, _, number in (name.rpartition("-eth") for name in (path[0], path[-1])))
    return first.node, fabric.peer[last].node


def moved_nothing(
    point: Point, work: Workload, seen: Recorded, row: Row, window: tuple[float, float]
) -> str | None:
    """A controller that keeps a decision log, changed nothing until the window's end, and could have helped."""
    log = seen.decisions
    if log is None or any(count(log, kind, (-np.inf, window[1])) for kind in ("reroute", "reweight", "lever-in-force")):
        return None
    held = [line for line in log if line["event"] == "held" and window[0] <= line["t"] <= window[1]]
    if held:
        first = held[0]
        wanted = f"its policy wanted {len(held)} moves; the first, of {first.get('flow') or first.get('on')}, was held: {first['reason']}"
        return f"the controller moved nothing, though {wanted}"
    if window[1] - window[0] < _TURNS_TO_ACT * point.poll_ms / 1000:
        return None  # its loop is slower than what was measured: that is a result
    if point.workload or point.jobs or not (work.schedules or work.flows):
        return None  # nobody knows what it would have gained
    slow, least = _slowdowns(point, work, seen, row)
    if slow > _WORTH_MOVING and slow > least * _WORTH_MOVING:
        what = "the collective" if work.schedules else "the slowest flow"
        where = f"on the installed paths {what} is {slow:.2f} times slower than ideal, on other shortest ones {least:.2f}"
        return f"the controller moved nothing, though {where}"
    return None


def _slowdowns(point: Point, work: Workload, seen: Recorded, row: Row) -> tuple[float, float]:
    """By the fluid model: how slow the collective, or the slowest flow alone, is as installed, and on better paths; 1 where not known."""
    edges, flows = seen.edge_paths, seen.flow_paths
    installed = [path for path in (*edges.values(), *flows) if path is not None]
    if len(installed) < len(edges) + len(flows):
        return 1.0, 1.0
    payload = seen.network["payload_mbps"]
    streams = [*(Flow(*work.hosts_by_edge[edge]) for edge in edges), *work.flows]
    crossing = [number for number, path in enumerate(installed) if len(path) > 1]  # within a server no controller has a say
    better = list(installed)
    found = better_paths(fabric_of(seen), [streams[number] for number in crossing], [installed[number] for number in crossing], payload)
    for number, path in zip(crossing, found, strict=True):
        better[number] = path

    def slowdown(paths: list[list[str]]) -> float:
        if not work.schedules:
            rates = max_min(paths, capacity_of(seen), [flow.mbps for flow in work.flows])
            return slowest_slowdown(rates.tolist(), work, payload)
        schedule = next(one for one in work.schedules if one.nbytes == row.nbytes)
        alpha_ms = row.alpha_ms or 0.0
        ms = played_ms(point, work, seen, schedule, alpha_ms, dict(zip(edges, paths, strict=False)), paths[len(edges) :])
        return ms / (row.ideal_ms or ms)

    return slowdown(installed), slowdown(better)


def _faster_than_ideal(row: Row) -> str | None:
    if row.slowdown is not None and row.slowdown < _ACCOUNTED:
        return f"slowdown {row.slowdown:.3f} is below {_ACCOUNTED}: something is not what it says"
    return None


def _blocking_reference(point: Point, row: Row, seen: Recorded) -> str | None:
    """On one switch nothing but the hosts' own links may limit a load; else it is no reference. What links lose, and rates that were ordered, are asked for."""
    if point.links.loss_percent or row.topology != "single-switch" or row.load_share_of_nb is None or row.collective is not None:
        return None
    limited = any(order.get("mbps") is not None for order, _ in done(seen.orders))
    if row.load_share_of_nb < _REFERENCE and not limited:
        return f"the non-blocking reference reached only {row.load_share_of_nb:.3f} of its own model, {_REFERENCE} is due"
    return None
