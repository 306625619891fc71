"""From a point's folder to its rows: percentiles, bandwidths, what theory says, the proofs, and the verdict.

Comes in: what the processes of a point wrote, and α. Goes out: one `Row` per size, refused where its figures would say
nothing. Pure: any machine can summarise a recorded folder again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fabric import plugins
from fabric.answers import answered, describe_requests
from fabric.decisions import count
from fabric.delay import line_seen, round_trip_ms
from fabric.events import SETTLE_S, Happened, degraded, describe_events
from fabric.experiment import Job, Point
from fabric.fidelity import Evidence, gather, judge
from fabric.fluid import share_of_nonblocking
from fabric.goodput import fabric_utilisation, jain, leftover_share
from fabric.graph import Fabric
from fabric.ideal import ETHERNET_HEADER, algbw_mbps, busbw_mbps, ideal_ms
from fabric.live import watched_s
from fabric.orders import done
from fabric.predictions import (
    burst_bytes,
    predicted_ms,
    predicted_share,
    servers_of,
    slowest_slowdown,
    switches_between_ends,
)
from fabric.probes import recoveries
from fabric.proofs import describe_ecn, unproven
from fabric.recorded import Recorded, delays_of, spine_ports
from fabric.refusals import moved_nothing, refusal, reported
from fabric.results import P99_NEEDS, Row
from fabric.schedule import Schedule
from fabric.sharing import exposed_ms, shared_ms
from fabric.socketlog import rtt_percentiles_ms
from fabric.steps import lag
from fabric.telemetry import Queues, read_cpu
from fabric.tracks import Tracks
from fabric.transports import describe_transport
from fabric.workload import Edge, Part, Workload

__all__ = ["describe_load", "summarise"]

_SHORTEST_AFTER_S = 0.5  # a shorter stretch holds too few samples of the flows' totals


def summarise(point: Point, work: Workload, folder: Path, alpha_ms: float) -> list[Row]:
    """The rows of a point that ran: one per size, or per job, or one for a load alone."""
    seen = Recorded(folder)
    base = replace(_asked(point, seen), alpha_ms=alpha_ms if point.requests else None)
    if point.workload:
        return [_program_row(point, work, seen, base)]
    if not work.parts:
        return [_load_row(point, work, seen, base)]
    return [_collective_row(point, work, seen, _of_part(base, part), part, schedule, alpha_ms) for part in work.parts for schedule in part.schedules]


def describe_load(point: Point) -> str | None:
    """A load in a few words, `stride step=8`; None without one."""
    words = [
        " ".join([load.use, *(f"{key}={value}" for key, value in load.params.items()), *([f"{load.mbps:g}Mb/s"] if load.mbps else [])])
        for load in point.load
    ]
    return " + ".join(words) or None


def _asked(point: Point, seen: Recorded) -> Row:
    links = point.links
    frame = links.mtu + ETHERNET_HEADER
    cpu = read_cpu(seen.folder / "telemetry" / "cpu.jsonl")
    return Row(
        variant=point.variant, topology=point.topology.use, controller=point.controller.use,
        policy=_policy(point), placement=point.workload.placement if point.workload else None, workload=point.workload.command if point.workload else None,
        load=describe_load(point), requests=describe_requests(point), events=describe_events(point.events), tcp=point.transport.tcp,
        tcp_by=_tcp_by(seen), transport=describe_transport(point), ecn=describe_ecn(point.links.ecn), ecn_by=(seen.network.get("marking") or {}).get("by"),
        delay_ms=links.delay_ms, loss_percent=links.loss_percent, delay_by=(seen.network.get("delay") or {}).get("by"),
        mtu=links.mtu, mbps=links.mbps, nvlink_ratio=_inside(point), repeat=point.repeat, seed=point.seed, datapath=seen.network["datapath"],
        bdp_packets=round(links.mbps * 1000 * seen.network["idle_rtt_ms"] / 8 / frame, 2), point=seen.folder.name,
        telemetry_core_share=round(float(np.mean([sample.sampler for sample in cpu])), 4) if cpu else None,
    )  # fmt: skip


def _of_part(row: Row, part: Part) -> Row:
    """The row with what was asked of a collective."""
    one = part.collective
    row = replace(
        row, collective=one.use, placement=one.placement, channels=one.channels, hints=one.hints, compute_ms=one.compute_ms, stagger_ms=one.stagger_ms,
    )  # fmt: skip
    if not isinstance(one, Job):
        return row
    return replace(row, job=part.name, start_s=one.start_s, backward_ms=one.backward_ms, buckets=one.buckets)


def _inside(point: Point) -> float | str | None:
    """What a NIC can send inside its server, in rates of a link; None where there are no servers."""
    if not point.fabric.servers:
        return None
    return "free" if point.fabric.inside is None else point.fabric.inside


def _tcp_by(seen: Recorded) -> str | None:
    """Who provides the congestion control; by name where there are several."""
    found = {one["name"]: one["by"] for one in seen.network.get("transport", {}).get("provided", {}).values()}
    if len(found) < 2:
        by: str | None = seen.network.get("tcp", {}).get("by")
        return by
    return ", ".join(f"{name}: {by}" for name, by in found.items())


def _policy(point: Point) -> str | None:
    """The policy in force, also where the file leaves it to the controller; None where that has none."""
    declared = plugins.controller_parameters(plugins.find("controller", point.controller.use, point.base)) or {}
    policy: str | None = point.controller.params.get("policy", declared.get("policy"))
    return policy


def _load_row(point: Point, work: Workload, seen: Recorded, base: Row) -> Row:
    (load,) = seen.event("load")
    window = (load["begin"], load["end"])
    row = _with_window(_with_load(point, work, seen, base, window), seen, window, point.fabric)
    return _judged(point, work, seen, _with_recovery(work, seen, row), window, None)


def _program_row(point: Point, work: Workload, seen: Recorded, base: Row) -> Row:
    (record,) = seen.event("programs")
    window = (record["begin"], record["end"])
    nics = [number for number, name in enumerate(seen.queues.interfaces) if name.rpartition("-eth")[0] in work.programs]
    row = replace(
        base, ranks=len(work.programs), program_s=window[1] - window[0], reported=reported(seen),
        straggler_rank=int(np.argmax([one["ended"] for one in record["ranks"]])), nic_bytes=_sent_around(seen.queues, nics, window),
    )  # fmt: skip
    row = _with_window(_with_load(point, work, seen, row, window), seen, window, point.fabric)
    return _judged(point, work, seen, _with_recovery(work, seen, row), window, None)


def _collective_row(
    point: Point, work: Workload, seen: Recorded, base: Row, part: Part, schedule: Schedule, alpha_ms: float
) -> Row:
    measured = [
        record
        for record in seen.event("iteration")
        if record["nbytes"] == schedule.nbytes and record["iteration"] >= 0 and base.job in (None, record.get("job"))
    ]
    times = np.array([max(record["ends_ms"]) for record in measured])
    window = (min(record["release"] for record in measured), max(record["release"] + max(record["ends_ms"]) / 1000 for record in measured))
    by_job = _by_job(measured)
    iterations = min(len(records) for records in by_job.values()) // part.pieces
    payload = seen.network["payload_mbps"]
    p50 = float(np.median(times))
    ideal = ideal_ms(schedule, alpha_ms=alpha_ms, payload_mbps=payload, burst_bytes=burst_bytes(point), servers=servers_of(point.fabric, part.ranks, payload))
    # How jobs with clocks of their own meet is what such a run finds out.
    predicted = predicted_ms(point, work, seen, schedule, alpha_ms) if None in by_job else None
    wrong = sum(record["wrong"] for record in measured)
    row = replace(
        base, algorithm=schedule.collective, picked=schedule.note or None, nbytes=schedule.nbytes, ranks=schedule.ranks, iterations=iterations,
        iteration_ms=_iteration_ms(by_job),
        p50_ms=p50, p95_ms=float(np.percentile(times, 95)), max_ms=float(times.max()),
        p99_ms=float(np.percentile(times, 99)) if len(times) >= P99_NEEDS else None,
        straggler_rank=_straggler(measured),
        alpha_ms=alpha_ms, ideal_ms=ideal, slowdown=p50 / ideal,
        rto_over_ideal=point.transport.rto_min_ms / ideal,
        algbw_mbps=algbw_mbps(schedule.nbytes, p50),
        busbw_mbps=busbw_mbps(schedule.collective, schedule.ranks, schedule.nbytes, p50, groups=schedule.groups),
        predicted_ms=predicted, prediction_error=None if predicted is None else p50 / predicted - 1,
        wrong=wrong if part.collective.check else None, correct=wrong == 0 if part.collective.check else None,
    )  # fmt: skip
    if isinstance(part.collective, Job):
        row = replace(row, exposed_ms=exposed_ms(measured, part.collective.backward_ms), shared_ms=_shared_ms(seen, part))
    if found := lag(schedule, [steps for steps in seen.steps if steps.nbytes == schedule.nbytes]):
        row = replace(row, lag_rank=found[0], lag_ms=found[1])
    row = replace(row, after_slowdown=_after_slowdown(seen, measured, ideal))
    row = _with_window(_with_load(point, work, seen, row, window, schedule if row.job is None else None), seen, window, point.fabric)
    row = _with_recovery(work, seen, row)
    late = float(np.median([max(record["starts_ms"]) / max(record["ends_ms"]) for record in measured]))
    return _judged(point, work, seen, row, window, late)


def _shared_ms(seen: Recorded, part: Part) -> dict[str, float]:
    tracks = Tracks(seen)
    return shared_ms(tracks, seen.event("iteration"), tracks.members, part.name)


def _by_job(measured: Sequence[dict[str, Any]]) -> dict[str | None, list[dict[str, Any]]]:
    """The iterations of each job with a clock of its own; where all ranks begin together there is one, None."""
    found: dict[str | None, list[dict[str, Any]]] = {}
    for record in measured:
        found.setdefault(record.get("job"), []).append(record)
    return found


def _iteration_ms(by_job: Mapping[str | None, Sequence[dict[str, Any]]]) -> float | None:
    """From one iteration's first communication to the next one's, the computing between them included: the mean over jobs with clocks of their own."""
    begins = {job: [record["release"] for record in records if not record.get("bucket")] for job, records in by_job.items()}
    spans = [1000 * (own[-1] - own[0]) / (len(own) - 1) for job, own in begins.items() if job is not None and len(own) > 1]
    return float(np.mean(spans)) if spans else None


def _straggler(measured: Sequence[dict[str, Any]]) -> int:
    """The rank that was last most often."""
    last = [record.get("ranks", range(len(record["ends_ms"])))[int(np.argmax(record["ends_ms"]))] for record in measured]
    return int(np.bincount(last).argmax())


def _after_slowdown(seen: Recorded, measured: Sequence[dict[str, Any]], ideal: float) -> float | None:
    """The median of the iterations that began and ended while the network was degraded, over the ideal."""
    last = max(record["release"] + max(record["ends_ms"]) / 1000 for record in measured)
    after = degraded(seen.happened, last)
    if after is None:
        return None
    times = [max(record["ends_ms"]) for record in measured if _within(record["release"], max(record["ends_ms"]), after)]
    return float(np.median(times)) / ideal if times else None


def _within(release: float, ms: float, stretch: tuple[float, float]) -> bool:
    return stretch[0] <= release and release + ms / 1000 <= stretch[1]


def _with_load(
    point: Point, work: Workload, seen: Recorded, row: Row, window: tuple[float, float], schedule: Schedule | None = None
) -> Row:
    """What requests took; goodput of all background flows over the window, against the same flows on one ideal switch, and what `schedule` left."""
    row = replace(row, answers=answered(point, work, seen, window, row.alpha_ms or 0.0))
    if not work.flows:
        return row
    rates = _rates_mbps(work, seen, window)
    payload = seen.network["payload_mbps"]
    alone = row.collective is None and row.workload is None
    after = degraded(seen.happened, window[1])
    if after and after[1] - max(after[0], window[0]) >= _SHORTEST_AFTER_S:
        later = _rates_mbps(work, seen, (max(after[0], window[0]), after[1]))
        row = replace(
            row, after_share_of_nb=share_of_nonblocking(later, work.flows, payload),
            after_slowest_flow_slowdown=slowest_slowdown(later, work, payload),
        )  # fmt: skip
    return replace(
        row, load_goodput_mbps=sum(rates),
        load_share_of_nb=share_of_nonblocking(rates, work.flows, payload),
        slowest_flow_slowdown=slowest_slowdown(rates, work, payload),
        load_share_predicted=predicted_share(work, seen) if alone else None,
        load_leftover_share=leftover_share(seen, schedule, row.iterations or 0, rates, window) if schedule else None, load_jain=jain(rates),
    )  # fmt: skip


def _rates_mbps(work: Workload, seen: Recorded, window: tuple[float, float]) -> list[float]:
    """The goodput of every background flow over a window."""
    (record,) = seen.event("flows")
    return [_goodput_mbps(record["flows"][str(number)], window) for number in range(len(work.flows))]


def _with_recovery(work: Workload, seen: Recorded, row: Row) -> Row:
    """How long data was lost, and connections were silent, after links and switches went down."""
    losses = [one.loss for one in recoveries(seen.happened, seen.folder / "probes") if one.loss]
    silences = _silences_ms(work, seen)
    return replace(
        row, recovery_data_ms=max((loss.ms for loss in losses), default=None),
        recovery_dark_ms=max((loss.dark_ms for loss in losses), default=None),
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
    first = {part.name: part.first for part in work.parts}
    lines: dict[Edge, list[Sequence[float]]] = {}
    for record in seen.event("iteration"):
        for src, dst, channel, *silence in record.get("silences", ()):
            offset = first.get(record.get("job", ""), 0)
            lines.setdefault((src + offset, dst + offset, channel), []).append(silence)
    quiet += [(path, lines.get(edge, [])) for edge, path in seen.edge_paths.items()]
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


def _with_window(row: Row, seen: Recorded, window: tuple[float, float], fabric: Fabric) -> Row:
    """What the queues and sockets say of the window."""
    senders = [end for end in seen.sockets if end["role"] == "sender"]
    row = replace(
        row, reroutes=None if seen.decisions is None else count(seen.decisions, "reroute", window),
        levers=len(done(seen.orders)) if seen.orders else None, levers_refused=len(seen.orders) - len(done(seen.orders)) if seen.orders else None,
        retransmits=_sum(senders, "retransmits"), ce_marked=_sum(senders, "ce_marked"),
        spurious_retransmits=_sum(senders, "spurious_retransmits"), fabric_utilisation=fabric_utilisation(seen, window),
    )  # fmt: skip
    machine = {nic.ip: host.machine for host in fabric.hosts for nic in host.nics}
    across = [one for one in seen.series if machine.get(one.ends.src_ip, "") != machine.get(one.ends.dst_ip)]
    if rtt := rtt_percentiles_ms(across, window):
        row = replace(row, rtt_p50_ms=rtt[0], rtt_p95_ms=rtt[1])
    if waits := delays_of(seen, window):
        row = replace(row, queueing_p50_ms=waits[0], queueing_p95_ms=waits[1], queueing_p99_ms=waits[2])
    queues = seen.queues
    inside = np.flatnonzero((queues.t >= window[0]) & (queues.t <= window[1]))
    if len(inside) < 2:
        return row
    first, last = inside[0], inside[-1]
    sent = queues.sent_bytes[last] - queues.sent_bytes[first]
    busiest = int(np.argmax(sent))
    backlog = queues.backlog_packets[inside, busiest]
    spine = [number for number, name in enumerate(queues.interfaces) if name in spine_ports(seen)]
    return replace(
        row, busiest_port=queues.interfaces[busiest],
        queue_p50_packets=float(np.percentile(backlog, 50)), queue_p95_packets=float(np.percentile(backlog, 95)),
        drops=int((queues.drops[last] - queues.drops[first]).sum()),
        marks=None if queues.marks is None else int((queues.marks[last] - queues.marks[first]).sum()), spine_bytes=_sent_in(queues, spine, window) if spine else None,
    )  # fmt: skip


def _sum(ends: Sequence[Mapping[str, Any]], key: str) -> int | None:
    """What all sockets counted together; None where none was read, as of programs."""
    return sum(end[key] for end in ends) if ends else None


def _sent_in(queues: Queues, columns: Sequence[int], window: tuple[float, float]) -> int:
    """The bytes that some interfaces sent in a window, whose ends may lie between two samples."""
    begin, end = np.sum([np.interp(window, queues.t, queues.sent_bytes[:, column]) for column in columns], axis=0)
    return round(float(end - begin))


def _sent_around(queues: Queues, columns: Sequence[int], window: tuple[float, float]) -> int:
    """The bytes that some interfaces sent from the last sample before a window to the first one after it, where nothing else is sent beside it."""
    first = max(int(np.searchsorted(queues.t, window[0], "right")) - 1, 0)
    last = min(int(np.searchsorted(queues.t, window[1])), len(queues.t) - 1)
    return int((queues.sent_bytes[last, columns] - queues.sent_bytes[first, columns]).sum())


def _judged(
    point: Point, work: Workload, seen: Recorded, row: Row, window: tuple[float, float], release_late: float | None
) -> Row:
    """The row with its verdict, or refused."""
    if refused := refusal(point, work, seen, row) or moved_nothing(point, work, seen, row, window):
        return _refused(row, refused)
    evidence: Evidence = gather(
        seen.queues, read_cpu(seen.folder / "telemetry" / "cpu.jsonl"), point.fabric, seen.mbps, window,
        frame=point.links.mtu + ETHERNET_HEADER, idle_rtt_ms=seen.network["idle_rtt_ms"] - round_trip_ms(point.links), switches_on_path=switches_between_ends(point.fabric, seen),
        release_late=release_late, happened=seen.happened,
    )  # fmt: skip
    if line := line_seen(seen.folder / "delay", window):
        evidence = replace(evidence, line_late=line.late, line_overrun=line.overrun)
        row = replace(row, losses=line.lost, delay_line_cores=round(line.cores, 4))
    evidence = replace(evidence, watched_s=watched_s(seen.folder, window))
    faults = unproven(point, seen)
    if raised := seen.network["controller_exceptions"]:
        faults.append(f"the controller raised {raised} exceptions, see the log in {row.point}/controller")
    if seen.queues.gone:
        faults.append(f"interfaces vanished while it ran: {', '.join(seen.queues.gone[:3])}")
    verdict = judge(evidence, faults)
    return replace(row, fidelity=verdict.level, fidelity_reasons=verdict.reasons, switch_delay=evidence.switch_delay)


def _refused(row: Row, reason: str) -> Row:
    """The row with what was asked, and no figures."""
    asked = (
        "engine", "variant", "topology", "controller", "policy", "collective", "algorithm", "nbytes", "ranks", "placement", "channels", "hints", "job", "start_s", "compute_ms", "backward_ms", "buckets", "stagger_ms", "workload", "requests",
        "load", "events", "tcp", "tcp_by", "transport", "ecn", "ecn_by", "delay_ms", "loss_percent", "delay_by", "mtu", "mbps", "nvlink_ratio", "repeat", "seed",
        "iterations", "wrong", "correct", "datapath", "point",
    )  # fmt: skip
    return Row(**{name: getattr(row, name) for name in asked}, refused=reason)


