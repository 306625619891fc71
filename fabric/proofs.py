"""Is what was asked of queues and senders really in force? Each proof that fails, in words; a row with one is a FAIL.

Comes in: a point and its record. Pure. What a shaper, a sysctl and a socket's congestion control are is a matter of
`fabric.refusals`; here is what they did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fabric.delay import NETEM
from fabric.experiment import Job, Point
from fabric.graph import Port
from fabric.ideal import TCP_IP_HEADERS
from fabric.journeys import astray
from fabric.keys import Ecn
from fabric.links import ETHERNET_HEADER, PRIORITY
from fabric.orders import done
from fabric.pacing import outran
from fabric.queueing import unseen
from fabric.recorded import Recorded
from fabric.tuning import send_buffer

__all__ = ["describe_ecn", "unproven"]

_CLOSE_MS = 1e-3
_DCTCP = {"dctcp", "bpf_dctcp"}
_SETTLED_S = 2.0
_ENOUGH_SAMPLES = 40
_SLACK_FRAMES = 2  # between a sample of the queue and the packet that finds it


def describe_ecn(ecn: Ecn | None) -> str | None:
    """The thresholds in words for a row; None where nothing marks."""
    if ecn is None:
        return None
    unit, least, most = ("bytes", ecn.min_bytes, ecn.max_bytes) if ecn.min_packets is None else ("packets", ecn.min_packets, ecn.max_packets)
    span = f"{least}" if least == most else f"{least} to {most}"
    return f"{span} {unit}" + (f" of a phantom queue at {ecn.headroom:g}" if ecn.headroom else "")


def unproven(point: Point, seen: Recorded) -> list[str]:
    """What marking and a controller's orders should have done and did not, delays that nobody saw, probes that went astray.

    Empty where none of it was asked for.
    """
    faster = outran(seen.sockets, seen.orders, seen.series, point.links.mtu - TCP_IP_HEADERS)
    orders = [*_lost(seen), *faster, *_unshifted(point, seen), *_windows(point, seen)]
    return [*_unmarked(point, seen), *_too_long(point, seen), *orders, *_delays(seen), *_journeys(seen)]


def _journeys(seen: Recorded) -> Iterator[str]:
    """Probes that went astray; where nothing happened to the network and no controller moved anything."""
    if seen.journeys and not seen.happened and not seen.decisions:
        yield from astray(seen.journeys)


def _delays(seen: Recorded) -> Iterator[str]:
    """Delays that are not those of every packet; a link that went down swallows what it had been given."""
    if seen.queueing is None:
        return
    sent = dict(zip(seen.queues.interfaces, seen.queues.sent_packets[-1].tolist(), strict=True))
    swallowed = any(one.event.do == "down" for one in seen.happened)
    yield from unseen(seen.queueing, {} if swallowed else sent)


def _unmarked(point: Point, seen: Recorded) -> list[str]:
    if not point.links.ecn or not seen.network.get("marking"):
        return []
    return [*_silent(seen)] if point.transport.ecn is False else [*_marking(point, seen)]


def _lost(seen: Recorded) -> Iterator[str]:
    """What the agent set at a socket must be what the socket's owner finds there at the end, at both ends for priority."""
    last = {(order["do"], *order["flow"].values()): (order, got) for order, got in done(seen.orders) if "flow" in order}
    ends = {_flow_of(end, reverse=end["role"] == "receiver"): end for end in seen.sockets} if last else {}
    for order, got in last.values():
        flow = order["flow"]
        for reverse in (False, True) if order["do"] == "priority" else (False,):
            end = ends.get(_flow_of(flow, reverse))
            if end is None or not _holds(order, got, end):
                name = "{}:{}>{}:{}".format(*_flow_of(flow, reverse))
                yield f"the socket that sends {name} was given {order['do']}, and did not have it at the end"


def _too_long(point: Point, seen: Recorded) -> Iterator[str]:
    """DCTCP over a step at K keeps a queue at K + N packets of N senders (Alizadeh et al., SIGCOMM 2010, section 3.3).

    2N where windows cannot be less than two. Asked of the 95th percentile, once senders have found their rates, and of long
    flows alone: a collective's pause, and come back with all of their windows.
    """
    ecn = point.links.ecn
    if ecn is None or point.collectives or ecn.headroom is not None or point.links.priority_floor is not None or _ordered(seen):
        return
    least, most = ecn.in_bytes(point.links.mtu)
    if least != most or not {end["tcp"] for end in seen.sockets} <= _DCTCP or not seen.sockets:
        return
    frame, paths = point.links.mtu + ETHERNET_HEADER, [*seen.edge_paths.values(), *seen.flow_paths]
    settled = seen.queues.t >= next((record["t"] for record in seen.event("started")), 0.0) + _SETTLED_S
    for place, name in enumerate(seen.queues.interfaces):
        # Where a controller moves flows, any of them may have crossed it.
        senders = len(paths) if seen.decisions else sum(1 for path in paths if path is None or name in path)
        if name not in seen.network["marking"]["ports"] or not senders or settled.sum() < _ENOUGH_SAMPLES:
            continue
        held = float(np.percentile(seen.queues.backlog_bytes[settled, place], 95))
        bound = max(least + senders * frame, 2 * senders * frame) + _SLACK_FRAMES * frame
        if held > bound:
            yield f"{name} held {held:.0f} bytes one time in twenty; {senders} senders by DCTCP over a step at {least} keep it at {bound}"


def _windows(point: Point, seen: Recorded) -> Iterator[str]:
    """A window that was ordered before connections were opened is the send buffer of each that the host sends by."""
    opened = next((record["t"] for record in seen.event("started")), 0.0) if seen.orders else 0.0
    asked: dict[str, int] = {}
    for line in seen.orders:
        if "got" in line and line["order"]["do"] == "transport" and line["t"] < opened and line["got"]["window_packets"] is not None:
            asked[line["order"]["host"]] = send_buffer(line["got"]["window_packets"], point.links.mtu - TCP_IP_HEADERS)
    for host, limit in asked.items():
        ips = {nic.ip for nic in point.fabric.host_by_name[host].nics}
        for end in seen.sockets:
            if end["role"] == "sender" and end["src_ip"] in ips and (end.get("send_buffer") or 0) > limit:
                yield f"{host} was given a window of {limit} bytes, and {end['src_ip']}:{end['src_port']} had {end['send_buffer']}"


def _unshifted(point: Point, seen: Recorded) -> Iterator[str]:
    """A job that was shifted must really have begun that iteration so much later, and no other one."""
    due: dict[tuple[str, int], float] = {}
    for order, got in done(seen.orders):
        if order["do"] == "shift":
            due[order["job"], got["iteration"]] = due.get((order["job"], got["iteration"]), 0.0) + order["delay_ms"]
    rounds: dict[str, list[Mapping[str, Any]]] = {}  # the first bucket of each, which is what a delay comes before
    last: dict[str, list[Mapping[str, Any]]] = {}
    for record in seen.event("iteration"):
        if "job" in record and not record.get("bucket"):
            rounds.setdefault(record["job"], []).append(record)
            last.setdefault(record["job"], []).append(record)
        elif "job" in record:
            last[record["job"]][-1] = record
    for job, number in due:
        if number >= len(rounds.get(job, ())):
            yield f"{job} was to begin iteration {number + 1} {due[job, number]:g} ms later, and never came to it"
    for job, records in rounds.items():
        for number, one in enumerate(records):
            delay_ms = due.get((job, number), 0.0)
            if abs(one["delayed_ms"] - delay_ms) > _CLOSE_MS:
                yield f"{job} was to begin iteration {number + 1} {delay_ms:g} ms later, and waited {one['delayed_ms']:g} ms"
            elif number and delay_ms and (waited := _paused_ms(last[job][number - 1], one)) < _computed_ms(point, job) + delay_ms:
                yield f"{job} was to compute {_computed_ms(point, job) + delay_ms:g} ms before iteration {number + 1}, and did for {waited:g} ms"


def _computed_ms(point: Point, job: str) -> float:
    """What a job computes before its first byte: the groups of one collective all do as that does."""
    one = point.collective or point.collectives[job]
    return (one.compute_ms or 0.0) + (one.backward_ms / one.buckets if isinstance(one, Job) else 0.0)


def _paused_ms(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """From the first rank's end of one iteration to the last rank's start of the next, in ms."""
    ended = before["release"] + min(before["ends_ms"]) / 1000
    started = after["release"] + max(after["starts_ms"]) / 1000
    return float(1000 * (started - ended)) + _CLOSE_MS


def _flow_of(ends: Mapping[str, Any], reverse: bool) -> tuple[str, int, str, int]:
    """What a socket sends, by its two addresses; the receiver of a connection sends the way back."""
    src, dst = (ends["src_ip"], ends["src_port"]), (ends["dst_ip"], ends["dst_port"])
    return (*dst, *src) if reverse else (*src, *dst)


def _holds(order: Mapping[str, Any], got: Any, end: Mapping[str, Any]) -> bool:
    if order["do"] == "priority":
        return bool(end["dscp"] == (PRIORITY if order["first"] else 0))
    if got == order["mbps"] and got is not None:  # recorded before answers were in bytes
        return end["pacing_limit"] is not None
    return bool(end["pacing_limit"] == got)


def _silent(seen: Recorded) -> Iterator[str]:
    """An arm that was not to hear marks must not hear any, or it does not differ from one that was."""
    with_ecn = [end for end in seen.sockets if end.get("ecn")]
    if with_ecn:
        yield f"{len(with_ecn)} of {len(seen.sockets)} sockets negotiated ECN, which was to be left alone"


def _marking(point: Point, seen: Recorded) -> Iterator[str]:
    yield from _negotiated(seen)
    yield from _marked_when_due(point, seen)
    yield from _marks_arrived(point, seen)


def _negotiated(seen: Recorded) -> Iterator[str]:
    without = [end for end in seen.sockets if not end.get("ecn")]
    if without:
        yield f"{len(without)} of {len(seen.sockets)} sockets did not negotiate ECN"


def _marked_when_due(point: Point, seen: Recorded) -> Iterator[str]:
    """A queue that was seen over the threshold must have marked, and one that never was over it must not have."""
    assert point.links.ecn is not None
    queues, thresholds = seen.queues, [point.links.ecn.in_bytes(point.links.mtu), *_ordered(seen)]
    least, most = min(low for low, _ in thresholds), max(high for _, high in thresholds)
    over = most + _SLACK_FRAMES * (point.links.mtu + ETHERNET_HEADER)
    for place, name in enumerate(queues.interfaces):
        port = seen.network["marking"]["ports"].get(name)
        if port is None:
            continue
        longest = int(queues.backlog_bytes[:, place].max(initial=0))
        # With a floor RED judges the others' queue alone, which is not sampled apart.
        blind = point.links.ecn.headroom is not None or (point.links.priority_floor is not None and port["capable"] is None)
        if not blind and longest > over and _marked_none_of(port):
            yield f"{name} held {longest} bytes, over its threshold, and marked none of {_marked_none_of(port)} packets"
        if port["marked"] and port["most_bytes"] is not None and port["most_bytes"] <= least:
            yield f"{name} marked {port['marked']} packets and never held more than {port['most_bytes']} bytes"


def _ordered(seen: Recorded) -> list[tuple[int, int]]:
    """The thresholds that a controller ordered."""
    return [(order["min_bytes"], order["max_bytes"]) for order, _ in done(seen.orders) if order["do"] == "ecn"]


def _marked_none_of(port: Mapping[str, Any]) -> int:
    """Of how many packets that it could have marked a port marked none; 0 when it marked some, could not, or found them marked before.

    RED does not count those; but each that came over its threshold, and when none did it has not judged at all.
    """
    if port["marked"] or port["marked_before"]:
        return 0
    if port["capable"] is None:
        return 0 if port["not_capable"] else int(port["packets"])
    return int(port["capable"])


def _marks_arrived(point: Point, seen: Recorded) -> Iterator[str]:
    """Hosts must have received every mark, but for those that a queue dropped, or a switch lost, after it was marked.

    What stood in the queue of a link that an event took down is gone uncounted: then there is no least.
    """
    ports, received = seen.network["marking"]["ports"], sum(seen.network["marking"]["ce_received"].values())
    marked, lost = sum(port["marked"] for port in ports.values()), int(seen.queues.drops[-1].sum())
    inside = seen.lost_inside(point.fabric)
    if (delay := seen.network.get("delay")) and delay["by"] == NETEM:  # it loses, and holds back, before the host counts
        lost += delay["lost"] + delay["waiting"]
    least = 0 if any(one.event.do == "down" for one in seen.happened) else _distinct(point, ports) - lost - inside
    if not least <= received <= marked:
        yield f"queues marked {marked} packets, hosts received {received} with CE, queues dropped {lost}, and switches lost {inside}"


def _distinct(point: Point, ports: Mapping[str, Mapping[str, Any]]) -> int:
    """How many packets were marked at least. RED counts one that came marked again, but none passes two ports to hosts, or one port twice."""
    if all(port["marked_before"] is not None for port in ports.values()):
        return sum(port["marked"] for port in ports.values())
    fabric = point.fabric
    last = {nearest.interface for host in fabric.hosts for nearest in (fabric.peer[Port(host.name, nic.port)] for nic in host.nics)}
    marked = {name: int(port["marked"]) for name, port in ports.items()}
    return max(sum(count for name, count in marked.items() if name in last), max(marked.values(), default=0))
