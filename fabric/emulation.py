"""One point on the emulated network: bring it up, drive it, record it, take it down. What happened is in its folder.

Comes in: a `Point`, its `Workload`, an open `Sandbox`. Goes out: a point folder for `summary` to read.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fabric import plugins
from fabric.clamps import bring_into_force, clamps_of, wrong_clamps
from fabric.control import Controller, controller_process
from fabric.delay import round_trip_ms
from fabric.delayline import DelayLine, delay_line
from fabric.endpoints import ALLOWED, Provided
from fabric.errors import RunError
from fabric.events import expand, read_happened
from fabric.experiment import Collective, Job, Point
from fabric.faults import Faults
from fabric.graph import INSIDE, Port
from fabric.ideal import payload_mbps
from fabric.installed import installed_path
from fabric.instruments import Instruments, instruments
from fabric.kernel import read_sysctl
from fabric.links import Shape
from fabric.live import announced
from fabric.markers import best_marker
from fabric.marking import Marker, Threshold
from fabric.network import ControllerAddress, Network, network
from fabric.ordering import OrderSockets, agent, follow_orders, wires
from fabric.ovs import PrivateOvs, allocator_environment, best_datapath, private_ovs
from fabric.paths import cut_off, ends
from fabric.pinning import Pins, pins
from fabric.polling import until
from fabric.probes import PathOf, choose, recoveries
from fabric.process import BEGIN_S, Companion, companion
from fabric.programs import Programs
from fabric.routes import Metrics
from fabric.sandbox import Sandbox
from fabric.scouting import scouting
from fabric.seeds import number
from fabric.tcp import Endpoints
from fabric.traffic import Timing, Traffic, TrafficPart, TrafficProcess, traffic_process
from fabric.transports import JobSockets, Settings, jobs, settings, transport_record
from fabric.workload import Part, Workload

__all__ = ["Progress", "emulate", "host_sysctls", "machine_sysctls", "routes_of", "shapes_of", "thresholds_of"]

CPU_SAMPLE_MS = 250
LOAD_LEAD_S = 1.0  # the load's head start before the first iteration
_SHUTDOWN_DRAIN_S = 3.0
_SLOWEST_EXPECTED = 60  # times the ideal, before an iteration is called stalled
_SHORTEST_DEADLINE_S = 20.0
_CONTROLLER_PORT = 6653
_HINTS = "hints.sock"  # in the run's state folder, whose path is short enough for a Unix socket
_AGENT, _TOKEN, _JOBS = "agent.sock", "agent.token", "jobs.sock"  # there as well
_TURN_S = 0.05
_NIC_TABLE = 2000  # of a server's first NIC
_BEGINS = {"load": "begin", "release": "release"}  # records of the traffic that events count from; the first one does
_OVS_SEND_BUFFER = 64 << 20
_OVS_RECEIVE_BUFFER = 4 << 20

Progress = Callable[[Mapping[str, Any]], None]


def machine_sysctls(tcp: Provided) -> dict[str, str]:
    """What a run needs of the machine itself; put back afterwards."""
    wanted = {}
    if best_datapath() == "netdev":
        # One AF_PACKET socket sends for all ports of a userspace switch: at the default 208 KiB it drops while shaped
        # queues hold packets. One receives for each port: 208 KiB are 13 frames of 9000 bytes, less than a burst.
        wanted = {"net.core.wmem_default": str(_OVS_SEND_BUFFER), "net.core.rmem_default": str(_OVS_RECEIVE_BUFFER)}
    # A namespace may only choose among the allowed ones; ours are by what they are registered with.
    allowed = read_sysctl(ALLOWED).split()
    if tcp.by == "kernel" and tcp.name not in allowed:
        wanted[ALLOWED] = " ".join([*allowed, tcp.name])
    elif tcp.by == "file":
        wanted[ALLOWED] = " ".join(allowed)  # noted now, for once it is offered the list names what has gone afterwards
    return wanted


def host_sysctls(tcp: str, ecn: bool | None = None) -> dict[str, str]:
    """What every host is set to; `ecn` says whether its connections ask for ECN, None leaves that to the kernel."""
    return {
        "net.ipv4.tcp_congestion_control": tcp,
        "net.ipv4.tcp_no_metrics_save": "1",  # or a connection would start with what an earlier one learnt
        **({} if ecn is None else {"net.ipv4.tcp_ecn": str(int(ecn))}),
    }


def shapes_of(point: Point) -> dict[Port, Shape]:
    """The shape of every port of a point's fabric."""
    links = point.links
    return {
        port: Shape(links.mbps * scale, links.mtu, links.queue_packets, links.queue_bytes, floor=links.priority_floor)
        for port, scale in point.fabric.scale.items()
    }


def inside_mbps(point: Point) -> float | None:
    """What a host can send to the others of its server; None where that is not limited, or there are no servers."""
    return None if point.fabric.inside is None else point.links.mbps * point.fabric.inside


def _asks_for_ecn(point: Point) -> bool | None:
    """Whether connections ask for ECN: as the file says, else where queues mark; None where nobody cares."""
    if point.links.ecn is None:
        return None
    return point.transport.ecn is not False


def routes_of(point: Point, work: Workload) -> dict[str, dict[int, Metrics]]:
    """By host: its route, under mark 0, and one for each job with routes of its own that it takes part in."""
    asked = {host.name: {0: _metrics(settings(point.transport, host.name))} for host in point.fabric.hosts}
    for members in point.fabric.servers.values():
        for place, nic in enumerate(members):
            asked[nic.name] = {0: replace(asked[nic.name][0], table=_NIC_TABLE + place, source=nic.ip)}
    for job in jobs(point):
        for host in work.hosts_by_job.get(job.name, ()) if job.mark else ():
            asked[host][job.mark] = _metrics(settings(point.transport, host, job.transport), job)
    return asked


def _metrics(asked: Settings, job: JobSockets | None = None) -> Metrics:
    found = Metrics(asked.rto_min_ms, asked.initcwnd, asked.cwnd_clamp)
    return replace(found, table=job.table, mark=job.mark) if job else found


def thresholds_of(point: Point) -> dict[Port, Threshold]:
    """Where every port of a switch begins to mark; empty where none does."""
    ecn = point.links.ecn
    if ecn is None:
        return {}
    threshold = Threshold(*ecn.in_bytes(point.links.mtu), ecn.headroom)
    return {port: threshold for port in point.fabric.scale if port.node in point.fabric.switch_by_name}


@dataclass(frozen=True)
class _Running:
    """The parts of a point that is up."""

    point: Point
    tcps: Mapping[str, Provided]
    work: Workload
    folder: Path
    ovs: PrivateOvs
    network: Network
    controller: Controller
    state: Path
    marker: Marker | None = None
    measuring: Instruments = field(default_factory=Instruments)
    line: DelayLine | None = None


def emulate(
    point: Point, work: Workload, folder: Path, place: Sandbox, tcps: Mapping[str, Provided], ideal_ms: float, progress: Progress
) -> None:
    """Run one point; RunError when it broke, with its folder kept.

    `tcps` is who provides the point's congestion controls, by how they are asked for, `ideal_ms` is of its largest size, for deadlines.
    """
    folder.mkdir(parents=True)
    with _up(point, work, folder, place, tcps) as up:
        idle_rtt_ms = _idle_rtt_ms(up)
        installed = _installed(up)
        (folder / "installed.json").write_text(json.dumps(installed))
        with _sampler(up) as sampler, pins(_pins(up)) as pinned, _scouts(up):
            _drive(up, sampler, ideal_ms, progress, pinned)
        if (folder / "controller" / "decisions.jsonl").exists():  # a controller that moves flows: where did it leave them?
            (folder / "installed_after.json").write_text(json.dumps(_installed(up)))
        _write_recovery(up)
        follow_orders(folder, up.network)
        wrong = up.network.read_back()
        up.measuring.write(folder)
        record = _network_record(up, idle_rtt_ms, wrong)
        (folder / "network.json").write_text(json.dumps(record, indent=1))


@contextlib.contextmanager
def stand(point: Point, work: Workload, folder: Path, place: Sandbox, tcps: Mapping[str, Provided]) -> Iterator[Network]:
    """The network of a point, up and controlled, for the time of the block; its traffic is not begun, and nothing is measured."""
    folder.mkdir(parents=True)
    with _up(point, work, folder, place, tcps) as up:
        yield up.network


@contextlib.contextmanager
def _up(point: Point, work: Workload, folder: Path, place: Sandbox, tcps: Mapping[str, Provided]) -> Iterator[_Running]:
    source = plugins.find("controller", point.controller.use, point.base)
    orders = plugins.defines(source, "on_answer")
    sockets = OrderSockets(place.folder / _AGENT, place.folder / _TOKEN, place.folder / _JOBS if _paced(point) else None) if orders else None
    control = controller_process(
        folder / "controller", point.fabric, app=source.module, parameters=plugins.rooted(point.controller.params, point.base),
        poll_ms=point.poll_ms, hash_basis=number(point.seed, "hash", 32), port=_CONTROLLER_PORT, mbps=point.links.mbps,
        wires=wires(point), agent=sockets.for_controller() if sockets else None,
        hints=place.folder / _HINTS if _announces(point) else None, external=source.external, outside=place.outside,
    )  # fmt: skip
    ovs_folder = Path(tempfile.mkdtemp(dir=place.folder, prefix="ovs-"))
    with (
        place.namespace(),
        control as controller,
        private_ovs(ovs_folder, best_datapath()) as ovs,
        network(point.fabric, shapes_of(point), ovs, inside_mbps(point)) as net,
        contextlib.ExitStack() as more,
    ):
        net.set_host_sysctls(host_sysctls(tcps[point.transport.tcp].name, _asks_for_ecn(point)))
        for host in point.transport.hosts:
            net.set_host_sysctls(host_sysctls(tcps[settings(point.transport, host).tcp].name), [host])
        net.set_routes(routes_of(point, work))
        net.start()
        marker = more.enter_context(best_marker(point.links.ecn.headroom is not None)) if point.links.ecn else None
        if marker:
            net.mark(marker, thresholds_of(point))
        if sockets:
            more.enter_context(agent(point, folder / "agent", net, sockets, marker))
        # Not before the agent listens: a controller may give orders as soon as it has its switches.
        controller.wait_listening()
        net.connect(ControllerAddress(_CONTROLLER_PORT))
        measuring = more.enter_context(instruments(point, net))
        line = more.enter_context(delay_line(point, net, folder / "delay"))
        controller.wait_ready()
        bring_into_force(clamps_of(point, work), _ips(point), net.inside)
        pids = {"": ovs.daemon.pid, **{host.name: net.host_pid(host.name) for host in point.fabric.hosts}}
        more.enter_context(announced(place.folder, folder, point.fabric, ovs_folder, pids, _connections(work)))
        yield _Running(point, tcps, work, folder, ovs, net, controller, place.folder, marker, measuring, line)


def _connections(work: Workload) -> dict[tuple[str, str], Endpoints]:
    """The first connection between each two hosts that have any."""
    hosts = work.hosts_by_edge
    flows = [((flow.src, flow.dst), ends) for flow, ends in zip(work.flows, work.flow_endpoints, strict=True)]
    return dict(reversed([*((hosts[edge], ends) for edge, ends in work.edges.items()), *flows]))


def _idle_rtt_ms(up: _Running) -> float:
    """The median of ten pings across the fabric, between its first host and the last that it reaches, before there is any load."""
    first, last = ends(up.point.fabric)
    shell = up.network.mininet.nameToNode[first.machine]
    # The kernel stamps what arrives before a delay line holds it back: with one, ping must look at the clock itself.
    clock = "-U " if up.line else ""
    answer = shell.cmd(f"ping -n {clock}-c 11 -i 0.02 -W {_longest_answer_s(up.point)} -I {first.ip} {last.ip}")
    times = [float(found) for found in re.findall(r"time=([0-9.]+)", answer)]
    if len(times) < 2:
        raise RunError(
            f"{first.name} cannot ping {last.name}: no answer in {_longest_answer_s(up.point)} s; "
            f"does the controller lead both ways? its log: {up.controller.companion.log}"
        )
    return statistics.median(times[1:])  # the first one also pays for the switches' caches


def _longest_answer_s(point: Point) -> int:
    """How long a ping may take on an idle network."""
    return 2 + math.ceil(round_trip_ms(point.links) / 1000)


def _installed(up: _Running) -> dict[str, Any]:
    """The path of every connection, as names of interfaces, or None where the rules do not say."""

    def named(src: str, dst: str, endpoints: Any) -> list[str] | None:
        path = installed_path(up.ovs, up.point.fabric, src, dst, endpoints)
        return None if path is None else [port.interface for port in path]

    hosts = up.work.hosts_by_edge
    return {
        "edges": [[*edge, named(*hosts[edge], endpoints)] for edge, endpoints in up.work.edges.items()],
        "flows": [
            named(flow.src, flow.dst, endpoints)
            for flow, endpoints in zip(up.work.flows, up.work.flow_endpoints, strict=True)
        ],
    }


@contextlib.contextmanager
def _sampler(up: _Running) -> Iterator[Companion]:
    folder = up.folder / "telemetry"
    folder.mkdir()
    hosts = up.point.fabric.host_by_name
    request = {
        "period_ms": up.point.telemetry.period_ms,
        "cpu_period_ms": CPU_SAMPLE_MS,
        "interfaces": [
            {"interface": port.interface, "pid": up.network.host_pid(port.node) if port.node in hosts else 0}
            for port in up.network.shapes
        ],
        "processes": {"switch": up.ovs.daemon.pid, **_controller_process(up)},
        "parent": os.getpid(),
        **({"marks": up.marker.told()} if up.marker else {}),
    }
    (folder / "sampler.json").write_text(json.dumps(request))
    with companion("the sampler", "fabric.sampler", folder) as running:
        running.wait_for("ready", BEGIN_S, "take its first sample")
        yield running
        running.check_alive()


def _controller_process(up: _Running) -> dict[str, int]:
    """The controller's process by its name; none where it is somebody else's, on whatever machine."""
    source = plugins.find("controller", up.point.controller.use, up.point.base)
    return {} if source.external else {"controller": up.controller.companion.process.pid}


def _udp_path(up: _Running) -> PathOf:
    """The installed path of a UDP packet."""
    return lambda src, dst, endpoints: installed_path(up.ovs, up.point.fabric, src, dst, endpoints, "udp")


def _pins(up: _Running) -> Pins:
    """Probes for all that will go down, pinned on the paths installed now."""
    point, path_of = up.point, _udp_path(up)
    probes = choose(point.fabric, expand(point.events), point.seed, path_of)
    return Pins(point.fabric, point.seed, path_of, up.network.host_pid, up.folder / "probes", probes)


def _scouts(up: _Running) -> contextlib.AbstractContextManager[Companion | None]:
    """In-band probes, where the file asks for them."""
    numbers = up.measuring.stamper.numbers if up.measuring.stamper else {}
    return scouting(
        up.point, up.work, up.folder / "inband", path_of=_udp_path(up), host_pid=up.network.host_pid, numbers=numbers
    )


def _write_recovery(up: _Running) -> None:
    """What the probes say of each event, for a person; the row is computed from the same record."""
    found = recoveries(read_happened(up.folder / "events.jsonl"), up.folder / "probes")
    if found:
        lines = "".join(json.dumps(one.to_json()) + "\n" for one in found)
        (up.folder / "recovery.jsonl").write_text(lines)


def _drive(up: _Running, sampler: Companion, ideal_ms: float, progress: Progress, pinned: Pins) -> None:
    """Start the traffic, follow it to its end, and let the queues drain."""
    faults = Faults(up.network, up.controller, expand(up.point.events), up.folder / "events.jsonl", pinned)
    try:
        with traffic_process(up.folder / "traffic", _traffic(up, ideal_ms)) as traffic:
            while traffic.companion.running():
                _watch(up, sampler, traffic, progress, faults)
            _watch(up, sampler, traffic, progress, None)
    except RunError as err:
        if lost := _cut_off(up):
            raise RunError(f"{err}; cut off by what is down: {lost}") from err
        raise
    until(lambda: _drained(up), _SHUTDOWN_DRAIN_S, every_s=_TURN_S)
    # A last sample of the quiet network: it goes by its own clock, and what it took stands in its file only half a second later.
    time.sleep(2 * up.point.telemetry.period_ms / 1000)


def _cut_off(up: _Running) -> str:
    """The ranks that the network no longer joins to the others, in words; empty where there are none."""
    lost = set(cut_off(up.point.fabric, frozenset(up.network.down))) if up.network.down else set()
    return ", ".join(f"rank {rank} on {host}" for rank, host in enumerate(up.work.ranks or up.work.programs) if host in lost)


def _watch(
    up: _Running, sampler: Companion, traffic: TrafficProcess, progress: Progress, faults: Faults | None
) -> None:
    """One turn; without `faults` the last one, in which nothing may happen to the network any more."""
    up.ovs.check_alive()
    up.controller.check_alive()
    sampler.check_alive()
    up.measuring.look()
    if up.line:
        up.line.check_alive()
    for record in traffic.records():
        progress(record)
        if faults and record["event"] in _BEGINS:
            faults.begin(record[_BEGINS[record["event"]]])
    if faults:
        time.sleep(min(_TURN_S, faults.due_in_s()))
        faults.act()


def _drained(up: _Running) -> bool:
    """Whether the last telemetry line shows every queue empty."""
    lines = (up.folder / "telemetry" / "queues.jsonl").read_bytes().splitlines()
    with contextlib.suppress(ValueError, KeyError, IndexError):
        return not any(json.loads(lines[-1])["backlog_packets"])
    return False


def _traffic(up: _Running, ideal_ms: float) -> Traffic:
    point, work = up.point, up.work
    loaded = {host for flow in work.flows for host in (flow.src, flow.dst)} | {host for one in work.askings for host in (one.client, one.server)}
    late_ms = [ms for part in work.parts for ms in part.collective.late_ms.values()]
    deadline_s = max(_SHORTEST_DEADLINE_S, _SLOWEST_EXPECTED * ideal_ms / 1000) + max(late_ms, default=0.0) / 1000
    return Traffic(
        host_pids={host: up.network.host_pid(host) for host in sorted({*work.ranks, *work.programs, *loaded})},
        sockets=_sockets(up), flow_jobs=[f"load.{load}" for load in work.flow_loads], ranks=work.ranks, edges=work.edges,
        parts=[_part(part) for part in work.parts],
        flows=work.flows, flow_endpoints=work.flow_endpoints, duration_s=point.duration_s, load_lead_s=LOAD_LEAD_S,
        inside=[edge for edge, (src, dst) in work.hosts_by_edge.items() if point.fabric.together(src, dst)],
        hints=str(up.state / _HINTS) if _announces(point) else None, desk=str(up.state / _JOBS),
        programs=_programs(up) if point.workload else None,
        steps=point.telemetry.steps,
        askings=[(one, ends, f"requests.{entry}") for one, ends, entry in zip(work.askings, work.asking_endpoints, work.asking_entries, strict=True)],
        iteration_deadline_s=deadline_s,
    )  # fmt: skip


def _programs(up: _Running) -> Programs:
    """The file's program, in the hosts of its ranks."""
    point, hosts = up.point, [up.point.fabric.host_by_name[name] for name in up.work.programs]
    assert point.workload is not None  # who calls has looked
    return Programs(
        point.workload.command, [host.name for host in hosts], [host.ip for host in hosts], [Port(host.name, host.nics[0].port).interface for host in hosts],
        _ips(point), str(point.base.resolve()), str(up.folder / "programs"), point.workload.timeout_s,
        [port for ends in (*up.work.flow_endpoints, *up.work.asking_endpoints) for port in (ends.src_port, ends.dst_port)],
    )  # fmt: skip


def _part(part: Part) -> TrafficPart:
    one = part.collective
    return TrafficPart(
        part.name, part.first, len(part.ranks), part.schedules, one.dtype, one.iterations, one.warmup, one.check,
        announced=one.hints, timing=_timing(one), late_ms=one.late_ms,
    )  # fmt: skip


def _timing(one: Collective) -> Timing | None:
    """By what a job's own clock goes; None where all ranks begin together."""
    if one.compute_ms is None:
        return None
    compute_s = one.compute_ms / 1000
    if isinstance(one, Job):
        return Timing(compute_s, start_s=one.start_s, backward_s=one.backward_ms / 1000, buckets=one.buckets)
    return Timing(compute_s, stagger_s=(one.stagger_ms or 0.0) / 1000)


def _announces(point: Point) -> bool:
    """Whether anybody tells the controller of its connections."""
    return any(one.hints for one in point.collectives.values())


def _paced(point: Point) -> bool:
    """Whether there are jobs that can be shifted."""
    return any(one.compute_ms is not None for one in point.collectives.values())


def _ips(point: Point) -> dict[str, str]:
    return {host.name: host.ip for host in point.fabric.hosts}


def _wrong_routes(up: _Running) -> list[str]:
    return [*up.network.routes_differ(), *wrong_clamps(clamps_of(up.point, up.work), _ips(up.point), up.network.inside)]


def _sockets(up: _Running) -> dict[str, dict[str, tuple[str, int]]]:
    """By job and host: the congestion control of its sockets, and their mark."""
    every = {job.name: job for job in jobs(up.point)}
    return {
        name: {host: (up.tcps[settings(up.point.transport, host, every[name].transport).tcp].name, every[name].mark) for host in hosts}
        for name, hosts in up.work.hosts_by_job.items()
    }


def _network_record(up: _Running, idle_rtt_ms: float, wrong: list[str]) -> dict[str, Any]:
    point = up.point
    sysctls = host_sysctls(up.tcps[point.transport.tcp].name, _asks_for_ecn(point))
    return {
        "datapath": up.ovs.datapath,
        "switch": up.ovs.vsctl("--version").splitlines()[0],
        "allocator": allocator_environment(),
        "idle_rtt_ms": idle_rtt_ms,
        "payload_mbps": payload_mbps(point.links.mbps, point.links.mtu),
        "shapes": {port.interface: asdict(shape) for port, shape in up.network.shapes.items()},
        "inside": {Port(host.name, INSIDE).interface: up.network.inside_mbps for host in point.fabric.hosts if host.server},
        "differences": wrong,
        "interfaces_read_back": len(up.network.shapes),
        "host_sysctls": {
            host.name: {name: up.network.host_sysctl(host.name, name) for name in sysctls} for host in point.fabric.hosts
        },
        "rto_min_ms": point.transport.rto_min_ms,
        "tcp": asdict(up.tcps[point.transport.tcp]),
        "transport": transport_record(point, up.work, up.tcps, _wrong_routes(up)),
        "marking": _marking_record(up),
        "delay": up.line.record() if up.line else None,
        "controller_exceptions": up.controller.exceptions(),
    }


def _marking_record(up: _Running) -> dict[str, Any] | None:
    """Who marked, what each port saw, and the marks that came to hosts; None where nothing marks."""
    if up.marker is None:
        return None
    ports = {port.interface: asdict(marks) for port, marks in up.marker.marks().items()}
    return {"by": up.marker.by, "ports": ports, "ce_received": up.network.ce_received()}
