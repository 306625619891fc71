"""From a point's folder to its rows: percentiles, bandwidths, what theory says, the proofs, and the verdict.

Comes in: what the processes of a point wrote, and α. Goes out: one `Row` per size, refused where its figures would say
nothing. Pure: any machine can summarise a recorded folder again.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fabric import plugins
from fabric.decisions import count, read_decisions
from fabric.events import SETTLE_S, Happened, degraded, describe_events, expand, read_happened
from fabric.experiment import Point
from fabric.fidelity import Evidence, gather, judge
from fabric.fluid import max_min, play, share_of_nonblocking
from fabric.graph import Fabric
from fabric.hindsight import better_paths
from fabric.ideal import ETHERNET_HEADER, TCP_IP_HEADERS, algbw_mbps, busbw_mbps, ideal_ms
from fabric.load import Flow
from fabric.probes import recoveries
from fabric.results import Row
from fabric.schedule import Schedule
from fabric.telemetry import Queues, read_cpu, read_queues
from fabric.workload import Edge, Workload

__all__ = ["describe_load", "summarise"]

_P99_NEEDS = 100
_ACCOUNTED = 0.98  # of the ideal: nothing real is faster
_REFERENCE = 0.97
_SHORTEST_AFTER_S = 0.5  # a shorter stretch holds too few samples of the flows' totals
_NOTHING_MBPS = 1e-6  # stands for no goodput at all, so that a slowdown stays a number
_WORTH_MOVING = 1.1  # times slower than it could be: less is within what the model misses
_TURNS_TO_ACT = 3
_ENOUGH_FLOWS = 8  # with that many multi-path flows, one path for all is no hashing


@dataclass(frozen=True)
class Recorded:
    """A point's folder, read: `records` of the traffic, `network`, `installed` paths, telemetry."""

    folder: Path

    def _json(self, name: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.folder / name).read_text())
        return data

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The traffic's record lines."""
        return [json.loads(line) for line in (self.folder / "traffic" / "records.jsonl").read_text().splitlines()]

    @cached_property
    def network(self) -> dict[str, Any]:
        """network.json."""
        return self._json("network.json")

    @cached_property
    def edge_paths(self) -> dict[Edge, list[str] | None]:
        """The installed path of each of the collective's connections."""
        return {(src, dst, channel): path for src, dst, channel, path in self._json("installed.json")["edges"]}

    @cached_property
    def flow_paths(self) -> list[list[str] | None]:
        """The installed path of each background flow."""
        paths: list[list[str] | None] = self._json("installed.json")["flows"]
        return paths

    @cached_property
    def last_paths(self) -> tuple[dict[Edge, list[str] | None], list[list[str] | None]]:
        """Both as they were when the traffic had ended, where the controller moves flows; else as they were before."""
        if not (self.folder / "installed_after.json").is_file():
            return self.edge_paths, self.flow_paths
        after = self._json("installed_after.json")
        return {(src, dst, channel): path for src, dst, channel, path in after["edges"]}, after["flows"]

    @cached_property
    def decisions(self) -> list[dict[str, Any]] | None:
        """The controller's decision log; None where it keeps none."""
        there = (self.folder / "controller" / "decisions.jsonl").is_file()
        return read_decisions(self.folder / "controller") if there else None

    @cached_property
    def queues(self) -> Queues:
        """The sampled queues."""
        return read_queues(self.folder / "telemetry" / "queues.jsonl")

    @cached_property
    def mbps(self) -> dict[str, float]:
        """The configured rate of every interface."""
        return {name: shape["mbps"] for name, shape in self.network["shapes"].items()}

    @cached_property
    def happened(self) -> list[Happened]:
        """The timed events, as they happened."""
        return read_happened(self.folder / "events.jsonl")

    def event(self, kind: str) -> list[dict[str, Any]]:
        """The record lines of one kind."""
        return [record for record in self.records if record["event"] == kind]

    @cached_property
    def sockets(self) -> list[dict[str, Any]]:
        """What every socket reported at the end."""
        return [end for record in self.event("sockets") for end in record["sockets"]]


def summarise(point: Point, work: Workload, folder: Path, alpha_ms: float) -> list[Row]:
    """The rows of a point that ran: one per size, or one for a load alone."""
    seen = Recorded(folder)
    base = _asked(point, seen)
    if not work.schedules:
        return [_load_row(point, work, seen, base)]
    return [_collective_row(point, work, seen, base, schedule, alpha_ms) for schedule in work.schedules]


def describe_load(point: Point) -> str | None:
    """A load in a few words, `stride step=8`; None without one."""
    words = [
        " ".join([load.use, *(f"{key}={value}" for key, value in load.params.items()), *([f"{load.mbps:g}Mb/s"] if load.mbps else [])])
        for load in point.load
    ]
    return " + ".join(words) or None


def _asked(point: Point, seen: Recorded) -> Row:
    links, collective = point.links, point.collective
    frame = links.mtu + ETHERNET_HEADER
    cpu = read_cpu(seen.folder / "telemetry" / "cpu.jsonl")
    return Row(
        variant=point.variant, topology=point.topology.use, controller=point.controller.use,
        policy=_policy(point), collective=collective.use if collective else None,
        placement=collective.placement if collective else None,
        hints=collective.hints if collective else None, load=describe_load(point), events=describe_events(point.events), tcp=point.transport.tcp,
        mtu=links.mtu, mbps=links.mbps, repeat=point.repeat, seed=point.seed, datapath=seen.network["datapath"],
        bdp_packets=round(links.mbps * 1000 * seen.network["idle_rtt_ms"] / 8 / frame, 2), point=seen.folder.name,
        telemetry_core_share=round(float(np.mean([sample.sampler for sample in cpu])), 4) if cpu else None,
    )  # fmt: skip


def _policy(point: Point) -> str | None:
    """The policy in force, also where the file leaves it to the controller; None where that has none."""
    declared = plugins.controller_parameters(plugins.find("controller", point.controller.use, point.base)) or {}
    policy: str | None = point.controller.params.get("policy", declared.get("policy"))
    return policy


def _load_row(point: Point, work: Workload, seen: Recorded, base: Row) -> Row:
    (load,) = seen.event("load")
    window = (load["begin"], load["end"])
    row = _with_window(_with_load(point, work, seen, base, window), seen, window)
    return _judged(point, work, seen, _with_recovery(work, seen, row), window, None)


def _collective_row(
    point: Point, work: Workload, seen: Recorded, base: Row, schedule: Schedule, alpha_ms: float
) -> Row:
    measured = [
        record
        for record in seen.event("iteration")
        if record["nbytes"] == schedule.nbytes and record["iteration"] >= 0
    ]
    ends = np.array([record["ends_ms"] for record in measured])
    times = ends.max(axis=1)
    window = (measured[0]["release"], measured[-1]["release"] + times[-1] / 1000)
    payload = seen.network["payload_mbps"]
    p50 = float(np.median(times))
    ideal = ideal_ms(schedule, alpha_ms=alpha_ms, payload_mbps=payload, burst_bytes=_burst_bytes(point))
    predicted = _predicted_ms(point, work, seen, schedule, alpha_ms)
    wrong = sum(record["wrong"] for record in measured)
    row = replace(
        base, algorithm=schedule.collective, nbytes=schedule.nbytes, ranks=schedule.ranks, iterations=len(measured),
        p50_ms=p50, p95_ms=float(np.percentile(times, 95)), max_ms=float(times.max()),
        p99_ms=float(np.percentile(times, 99)) if len(times) >= _P99_NEEDS else None,
        straggler_rank=int(np.bincount(ends.argmax(axis=1)).argmax()),
        alpha_ms=alpha_ms, ideal_ms=ideal, slowdown=p50 / ideal,
        algbw_mbps=algbw_mbps(schedule.nbytes, p50),
        busbw_mbps=busbw_mbps(schedule.collective, schedule.ranks, schedule.nbytes, p50, groups=schedule.groups),
        predicted_ms=predicted, prediction_error=None if predicted is None else p50 / predicted - 1,
        wrong=wrong if point.collective and point.collective.check else None,
        correct=wrong == 0 if point.collective and point.collective.check else None,
    )  # fmt: skip
    row = _with_window(_with_load(point, work, seen, row, window), seen, window)
    row = _with_recovery(work, seen, row)
    late = float(np.median([max(record["starts_ms"]) / max(record["ends_ms"]) for record in measured]))
    return _judged(point, work, seen, row, window, late)


def _with_load(point: Point, work: Workload, seen: Recorded, row: Row, window: tuple[float, float]) -> Row:
    """Goodput of all background flows over the window, against the same flows on one ideal switch."""
    if not work.flows:
        return row
    rates = _rates_mbps(work, seen, window)
    payload = seen.network["payload_mbps"]
    alone = row.collective is None
    after = degraded(seen.happened, window[1])
    if after and after[1] - max(after[0], window[0]) >= _SHORTEST_AFTER_S:
        later = _rates_mbps(work, seen, (max(after[0], window[0]), after[1]))
        row = replace(
            row, after_share_of_nb=share_of_nonblocking(later, work.flows, payload),
            after_slowest_flow_slowdown=_slowest(later, work, payload),
        )  # fmt: skip
    return replace(
        row, load_goodput_mbps=sum(rates),
        load_share_of_nb=share_of_nonblocking(rates, work.flows, payload),
        slowest_flow_slowdown=_slowest(rates, work, payload),
        load_share_predicted=_predicted_share(work, seen) if alone else None,
    )  # fmt: skip


def _rates_mbps(work: Workload, seen: Recorded, window: tuple[float, float]) -> list[float]:
    """The goodput of every background flow over a window."""
    (record,) = seen.event("flows")
    return [_goodput_mbps(record["flows"][str(number)], window) for number in range(len(work.flows))]


def _slowest(rates: Sequence[float], work: Workload, mbps: float) -> float:
    """The largest ratio, over flows, of the max-min rate on one ideal switch to the rate that it got."""
    paths = [((flow.src, "out"), (flow.dst, "in")) for flow in work.flows]
    capacity: dict[Hashable, float] = {link: mbps for path in paths for link in path}
    ideal = max_min(paths, capacity, [flow.mbps for flow in work.flows])
    return float((ideal / np.maximum(rates, _NOTHING_MBPS)).max())


def _with_recovery(work: Workload, seen: Recorded, row: Row) -> Row:
    """How long data was lost, and connections were silent, after links and switches went down."""
    losses = [one.loss for one in recoveries(seen.happened, seen.folder / "probes") if one.loss]
    silences = _silences_ms(work, seen)
    return replace(
        row, recovery_data_ms=max((loss.ms for loss in losses), default=None),
        recovery_complete=all(loss.complete for loss in losses) if losses else None,
        recovery_transport_ms=max(silences, default=None),
    )  # fmt: skip


def _silences_ms(work: Workload, seen: Recorded) -> list[float]:
    """For each failure and each connection whose installed path crossed it, its longest silence then; 0 for none."""
    failures = [one for one in seen.happened if one.event.do == "down" and one.event.names]
    if not failures:
        return []
    quiet: list[tuple[list[str] | None, list[Sequence[float]]]] = []
    for record in seen.event("flows"):
        quiet += [(path, record["flows"][str(number)].get("silences", [])) for number, path in enumerate(seen.flow_paths)]
    lines = [line for record in seen.event("iteration") for line in record.get("silences", ())]
    quiet += [(path, [line[3:] for line in lines if tuple(line[:3]) == edge]) for edge, path in seen.edge_paths.items()]
    return [
        max((1000 * seconds for begin, seconds in silences if _touches(begin, seconds, failure)), default=0.0)
        for failure in failures
        for path, silences in quiet
        if failure.mbps.keys() & set(path or ())
    ]


def _touches(begin: float, seconds: float, failure: Happened) -> bool:
    """Whether a silence contains a failure, or begins within a second after it."""
    return begin <= failure.begin + SETTLE_S and begin + seconds >= failure.begin


def _goodput_mbps(flow: Mapping[str, Any], window: tuple[float, float]) -> float:
    t, nbytes = np.array(flow["t"]), np.array(flow["nbytes"], float)
    first, last = np.interp(window, t, nbytes)
    return float((last - first) * 8e-6 / (window[1] - window[0]))


def _capacity(seen: Recorded) -> dict[Hashable, float]:
    """Payload rates of all interfaces."""
    nominal = seen.network["payload_mbps"]
    slowest = min(seen.mbps.values())
    return {name: nominal * mbps / slowest for name, mbps in seen.mbps.items()}


def _predicted_share(work: Workload, seen: Recorded) -> float | None:
    """What max-min fairness on the installed paths, where they ended, would give the load."""
    paths = [path for path in seen.last_paths[1] if path is not None]
    if len(paths) < len(work.flows):
        return None
    rates = max_min(paths, _capacity(seen), [flow.mbps for flow in work.flows])
    return share_of_nonblocking(rates, work.flows, seen.network["payload_mbps"])


def _predicted_ms(point: Point, work: Workload, seen: Recorded, schedule: Schedule, alpha_ms: float) -> float | None:
    """The schedule played on the installed paths, where they ended, at max-min rates, the load beside it."""
    edges, flows = seen.last_paths
    paths: dict[Edge, list[str]] = {edge: path for edge, path in edges.items() if path is not None}
    background = [path for path in flows if path is not None]
    if len(paths) < len(edges) or len(background) < len(flows):
        return None
    return _played_ms(point, work, seen, schedule, alpha_ms, paths, background)


def _played_ms(
    point: Point, work: Workload, seen: Recorded, schedule: Schedule, alpha_ms: float,
    paths: Mapping[Edge, list[str]], background: Sequence[list[str]],
) -> float:  # fmt: skip
    """The schedule played on some paths at max-min rates, the load beside it on some others."""
    far = _switches_between_ends(point.fabric, seen)
    # α was measured over one switch; each further one adds what the idle ping says a switch takes.
    per_switch = seen.network["idle_rtt_ms"] / 2 / far
    alpha = alpha_ms + per_switch * float(np.mean([len(path) - 2 for path in paths.values()]))
    return play(
        schedule, lambda src, dst, channel: paths[src, dst, channel], _capacity(seen), alpha,
        background, [flow.mbps for flow in work.flows], _burst_bytes(point),
    ).end_ms  # fmt: skip


def _burst_bytes(point: Point) -> int:
    """The payload of a shaper's bucket, which holds one full frame."""
    return point.links.mtu - TCP_IP_HEADERS


def _switches_between_ends(fabric: Fabric, seen: Recorded) -> int:
    """How many switches the idle ping crossed, at least: those on a shortest path between the first and last host."""
    import networkx as nx

    return int(nx.shortest_path_length(fabric.graph, fabric.hosts[0].name, fabric.hosts[-1].name)) - 1


def _with_window(row: Row, seen: Recorded, window: tuple[float, float]) -> Row:
    """What the queues and sockets say of the window."""
    senders = [end for end in seen.sockets if end["role"] == "sender"]
    row = replace(
        row, reroutes=None if seen.decisions is None else count(seen.decisions, "reroute", window), retransmits=sum(end["retransmits"] for end in senders), ce_marked=sum(end["ce_marked"] for end in senders),
        spurious_retransmits=sum(end["spurious_retransmits"] for end in senders),
    )  # fmt: skip
    queues = seen.queues
    inside = np.flatnonzero((queues.t >= window[0]) & (queues.t <= window[1]))
    if len(inside) < 2:
        return row
    first, last = inside[0], inside[-1]
    sent = queues.sent_bytes[last] - queues.sent_bytes[first]
    busiest = int(np.argmax(sent))
    backlog = queues.backlog_packets[inside, busiest]
    spine = [number for number, name in enumerate(queues.interfaces) if name in _spine_ports(seen)]
    return replace(
        row, busiest_port=queues.interfaces[busiest],
        queue_p50_packets=float(np.percentile(backlog, 50)), queue_p95_packets=float(np.percentile(backlog, 95)),
        drops=int((queues.drops[last] - queues.drops[first]).sum()), spine_bytes=int(sent[spine].sum()),
    )  # fmt: skip


def _spine_ports(seen: Recorded) -> frozenset[str]:
    """The interfaces of the switches farthest from the hosts."""
    fabric = _fabric(seen)
    top = max(fabric.level[switch.name] for switch in fabric.switches)
    return frozenset(
        port.interface for switch in fabric.switches if fabric.level[switch.name] == top for port in fabric.ports_of[switch.name]
    )


def _fabric(seen: Recorded) -> Fabric:
    return Fabric.from_json(json.loads((seen.folder / "controller" / "topology.json").read_text()))


def _judged(
    point: Point, work: Workload, seen: Recorded, row: Row, window: tuple[float, float], release_late: float | None
) -> Row:
    """The row with its verdict, or refused."""
    if refused := _refusal(point, work, seen, row) or _moved_nothing(point, work, seen, row, window):
        return _refused(row, refused)
    evidence: Evidence = gather(
        seen.queues, read_cpu(seen.folder / "telemetry" / "cpu.jsonl"), point.fabric, seen.mbps, window,
        frame=point.links.mtu + ETHERNET_HEADER, idle_rtt_ms=seen.network["idle_rtt_ms"], switches_on_path=_switches_between_ends(point.fabric, seen),
        release_late=release_late, happened=seen.happened,
    )  # fmt: skip
    faults = []
    if raised := seen.network["controller_exceptions"]:
        faults.append(f"the controller raised {raised} exceptions, see {row.point}/controller/manager.log")
    if seen.queues.gone:
        faults.append(f"interfaces vanished while it ran: {', '.join(seen.queues.gone[:3])}")
    verdict = judge(evidence, faults)
    return replace(row, fidelity=verdict.level, fidelity_reasons=verdict.reasons, switch_delay=evidence.switch_delay)


def _refused(row: Row, reason: str) -> Row:
    """The row with what was asked, and no figures."""
    asked = (
        "engine", "variant", "topology", "controller", "policy", "collective", "algorithm", "nbytes", "ranks", "placement",
        "load", "events", "tcp", "ecn", "mtu", "mbps", "repeat", "seed", "iterations", "wrong", "correct", "datapath", "point",
    )  # fmt: skip
    return Row(**{name: getattr(row, name) for name in asked}, refused=reason)


def _refusal(point: Point, work: Workload, seen: Recorded, row: Row) -> str | None:
    """Why the row would say nothing; None when it may be reported."""
    checks: Sequence[str | None] = (
        _shapers_differ(seen), _sysctls_differ(point, seen), _sockets_differ(point, seen), _telemetry_is_empty(seen),
        _events_are_missing(point, seen), _sum_is_wrong(row), _bytes_are_missing(point, work, seen), _one_path(row, seen), _faster_than_ideal(row),
        _blocking_reference(row),
    )  # fmt: skip
    return next((reason for reason in checks if reason), None)


def _shapers_differ(seen: Recorded) -> str | None:
    found = seen.network["differences"]
    return f"{len(found)} shapers are not what was asked, the first: {found[0]}" if found else None


def _sysctls_differ(point: Point, seen: Recorded) -> str | None:
    name = "net.ipv4.tcp_congestion_control"
    for host, values in seen.network["host_sysctls"].items():
        if values[name] != point.transport.tcp:
            return f"{host} has {name}={values[name]}, asked for {point.transport.tcp}"
    return None


def _sockets_differ(point: Point, seen: Recorded) -> str | None:
    other = {end["tcp"] for end in seen.sockets} - {point.transport.tcp}
    if not seen.sockets:
        return "no socket reported its congestion control"
    return f"sockets used {', '.join(sorted(other))}, asked for {point.transport.tcp}" if other else None


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
    """Every connection of the collective must have carried what the schedules say, in every iteration."""
    if point.collective is None:
        flows = seen.event("flows")[0]["flows"]
        silent = sum(1 for flow in flows.values() if not flow["nbytes"][-1])
        return f"{silent} of {len(flows)} flows delivered nothing" if silent else None
    rounds = point.collective.iterations + point.collective.warmup
    due = sum(transfer.nbytes for schedule in work.schedules for transfer in schedule.transfers) * rounds
    got = sum(end["bytes_received"] for end in seen.sockets if end["kind"] == "collective" and end["role"] == "receiver")
    return f"{got} bytes arrived, expected {due}" if got != due else None


def _one_path(row: Row, seen: Recorded) -> str | None:
    """An ECMP arm that sends every multi-path flow the same way does not hash."""
    if row.controller != "ecmp":
        return None
    paths = [path for path in (*seen.edge_paths.values(), *seen.flow_paths) if path is not None and len(path) > 4]
    spines = {name for path in paths for name in path if name in _spine_ports(seen)}
    used = {name.rpartition("-")[0] for name in spines}
    if len(paths) >= _ENOUGH_FLOWS and len(used) == 1:
        return f"ecmp put all {len(paths)} multi-path flows through {used.pop()}: it does not hash"
    return None


def _moved_nothing(
    point: Point, work: Workload, seen: Recorded, row: Row, window: tuple[float, float]
) -> str | None:
    """A controller that keeps a decision log, changed nothing until the window's end, and could have helped."""
    log = seen.decisions
    if log is None or any(count(log, kind, (-np.inf, window[1])) for kind in ("reroute", "reweight")):
        return None
    if window[1] - window[0] < _TURNS_TO_ACT * point.poll_ms / 1000:
        return None  # its loop is slower than what was measured: that is a result
    held = [line for line in log if line["event"] == "held" and window[0] <= line["t"] <= window[1]]
    if held:
        first = held[0]
        wanted = f"its policy wanted {len(held)} moves; the first, of {first['flow']}, was held: {first['reason']}"
        return f"the controller moved nothing, though {wanted}"
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
    better = better_paths(_fabric(seen), streams, installed, payload)

    def slowdown(paths: list[list[str]]) -> float:
        if not work.schedules:
            rates = max_min(paths, _capacity(seen), [flow.mbps for flow in work.flows])
            return _slowest(rates.tolist(), work, payload)
        schedule = next(one for one in work.schedules if one.nbytes == row.nbytes)
        alpha_ms = row.alpha_ms or 0.0
        ms = _played_ms(point, work, seen, schedule, alpha_ms, dict(zip(edges, paths, strict=False)), paths[len(edges) :])
        return ms / (row.ideal_ms or ms)

    return slowdown(installed), slowdown(better)


def _faster_than_ideal(row: Row) -> str | None:
    if row.slowdown is not None and row.slowdown < _ACCOUNTED:
        return f"slowdown {row.slowdown:.3f} is below {_ACCOUNTED}: something is not what it says"
    return None


def _blocking_reference(row: Row) -> str | None:
    """On one switch nothing but the hosts' own links may limit a load; else it is no reference."""
    if row.topology != "single-switch" or row.load_share_of_nb is None or row.collective is not None:
        return None
    if row.load_share_of_nb < _REFERENCE:
        return f"the non-blocking reference reached only {row.load_share_of_nb:.3f} of its own model, {_REFERENCE} is due"
    return None
