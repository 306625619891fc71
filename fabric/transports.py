"""What the sockets of each host and job are asked to do: the run's transport, a host's own, a job's own; the nearest wins.

Comes in: an experiment file's `transport`, `collective.transport` and `load[i].transport`. Goes out: `Settings` for any
host and job, and what is wrong between them. A job is the collective, or one load. Pure, but for reading the objects of
congestion controls that are files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabric.congestion import declared, is_file, located
from fabric.errors import RequestError
from fabric.graph import Fabric
from fabric.keys import NEED_ECN, ExperimentFile, Sockets, Transport, named
from fabric.located import KeyPath, Problem, show, told
from fabric.misnamed import misnamed

if TYPE_CHECKING:
    from fabric.asking import Asking
    from fabric.endpoints import Provided
    from fabric.experiment import Point
    from fabric.load import Flow
    from fabric.workload import Workload

__all__ = [
    "FIRST_TABLE", "METRICS", "JobSockets", "Settings", "asked_tcps", "describe_transport", "files_missing", "jobs", "lives_on_marks",
    "one_sided", "refuse_unmarked", "settings", "tcps_of", "too_wide", "transport_record", "unknown",
]  # fmt: skip

METRICS = ("rto_min_ms", "initcwnd", "cwnd_clamp")  # what a route carries; a socket takes it over when it connects
FIRST_TABLE = 1000  # a job's routing table is this and its mark


@dataclass(frozen=True, slots=True)
class Settings:
    """What one host's sockets do in one job; windows in packets, None for the kernel's own."""

    tcp: str
    rto_min_ms: int
    initcwnd: int | None = None
    cwnd_clamp: int | None = None


@dataclass(frozen=True, slots=True)
class JobSockets:
    """The collective, one load or the requests of one entry, and its own transport; `mark` is 0 where its routes are the hosts' own."""

    name: str
    transport: Sockets | None
    mark: int

    @property
    def table(self) -> int:
        """Its routing table, in hosts where it has one."""
        return FIRST_TABLE + self.mark


def jobs(point: Point | ExperimentFile) -> list[JobSockets]:
    """The jobs of a point, collectives first: `collective`, `job.0`, `load.0`, `load.1`, `requests.0`; marks count from 1."""
    own: list[tuple[str, Sockets | None]] = [("collective", point.collective.transport)] if point.collective else []
    own += [(name, job.transport) for name, job in named(point.jobs).items()]
    own += [(f"load.{index}", load.transport) for index, load in enumerate(point.load)]
    own += [(f"requests.{index}", None) for index, _ in enumerate(point.requests)]
    return [
        JobSockets(name, transport, number if transport and any(getattr(transport, key) is not None for key in METRICS) else 0)
        for number, (name, transport) in enumerate(own, 1)
    ]


def settings(transport: Transport, host: str | None = None, job: Sockets | None = None) -> Settings:
    """What a host's sockets do in a job: as the job says, else as the host, else as the run.

    >>> run = Transport(tcp="cubic", hosts={"h0": Sockets(tcp="reno", initcwnd=4)})
    >>> settings(run, "h0", Sockets(tcp="bbr"))
    Settings(tcp='bbr', rto_min_ms=200, initcwnd=4, cwnd_clamp=None)
    """
    found: dict[str, Any] = {key: getattr(transport, key) for key in ("tcp", *METRICS)}
    for nearer in (transport.hosts.get(host or ""), job):
        if nearer is not None:
            found |= {key: value for key in found if (value := getattr(nearer, key)) is not None}
    return Settings(**found)


def asked_tcps(file: Point | ExperimentFile) -> list[tuple[KeyPath, str]]:
    """Every congestion control that is asked for, with the key path where it is."""
    found: list[tuple[KeyPath, str | None]] = [(("transport", "tcp"), file.transport.tcp)]
    return [(path, tcp) for path, tcp in [*found, *(((*path, "tcp"), own.tcp) for path, own in _own(file))] if tcp is not None]


def tcps_of(points: Sequence[Point]) -> list[str]:
    """The congestion controls that points ask for, each once."""
    return list(dict.fromkeys(tcp for point in points for _, tcp in asked_tcps(point)))


def _own(file: Point | ExperimentFile) -> Iterator[tuple[KeyPath, Sockets]]:
    """Every transport of a host or a job, with its key path."""
    for host, own in file.transport.hosts.items():
        yield ("transport", "hosts", host), own
    if file.collective and file.collective.transport:
        yield ("collective", "transport"), file.collective.transport
    for index, job in enumerate(file.jobs):
        if job.transport:
            yield ("jobs", index, "transport"), job.transport
    for index, load in enumerate(file.load):
        if load.transport:
            yield ("load", index, "transport"), load.transport


def lives_on_marks(tcp: str, base: Path) -> bool:
    """Whether a congestion control says that it needs ECN; a source says so only once it is compiled."""
    return tcp in NEED_ECN or (tcp.endswith(".o") and declared(located(tcp, base)).needs_ecn)


def files_missing(file: ExperimentFile, base: Path) -> Iterator[Problem]:
    """Congestion controls that are files, and cannot be found or are none."""
    for path, tcp in asked_tcps(file):
        try:
            if is_file(tcp) and (found := located(tcp, base)).suffix == ".o":
                declared(found)
        except RequestError as err:
            yield Problem(path, f"got {show(tcp)}: {err}")


def too_wide(file: ExperimentFile) -> Iterator[Problem]:
    """A first window over the largest, in whatever combination of run, host and job."""
    hosts: list[tuple[KeyPath, str | None]] = [(("transport",), None), *((("transport", "hosts", host), host) for host in file.transport.hosts)]
    own: list[tuple[KeyPath, Sockets | None]] = [((), None), *((path, one) for path, one in _own(file) if path[0] != "transport")]
    for at, job in own:
        for where, host in hosts:
            found = settings(file.transport, host, job)
            if found.initcwnd is not None and found.cwnd_clamp is not None and found.initcwnd > found.cwnd_clamp:
                near = at if job and (job.initcwnd or job.cwnd_clamp) else where
                key = "initcwnd" if _gives(file, near, "initcwnd") else "cwnd_clamp"
                text = told(found.initcwnd, f"at most cwnd_clamp, which is {found.cwnd_clamp} there", f"write e.g. initcwnd: {found.cwnd_clamp}")
                if key == "cwnd_clamp":
                    text = told(found.cwnd_clamp, f"at least initcwnd, which is {found.initcwnd} there", f"write e.g. cwnd_clamp: {found.initcwnd}")
                yield Problem((*near, key), text)
                return


def _gives(file: ExperimentFile, path: KeyPath, key: str) -> bool:
    own = dict(_own(file)).get(path)
    return getattr(own or file.transport, key) is not None


def unknown(transport: Transport, fabric: Fabric) -> Iterator[Problem]:
    """Hosts that the topology does not have."""
    names = fabric.host_by_name
    for host in transport.hosts:
        if host not in names:
            yield Problem(("transport", "hosts", host), misnamed(host, "hosts", names))


def one_sided(
    point: Point, ranks: Sequence[Sequence[str]], loads: Sequence[Sequence[Flow]], askings: Sequence[Sequence[Asking]] = (),
    needs: Callable[[str], bool] | None = None,
) -> Iterator[Problem]:  # fmt: skip
    """Connections of which one end lives on marks and the other has another congestion control: that would refuse ECN.

    A sender that needs ECN sends its SYN so that it may be marked, and only a listener that needs ECN too agrees to that.
    """
    needs = needs or (lambda tcp: lives_on_marks(tcp, point.base))
    pairs = [list(pairwise(own)) for own in ranks] if point.collectives else []
    pairs += [[(flow.src, flow.dst) for flow in flows] for flows in loads]
    pairs += [[(one.client, one.server) for one in entry] for entry in askings]
    for job, ends in zip(jobs(point), pairs, strict=True):
        for src, dst in ends:
            tcps = {host: settings(point.transport, host, job.transport).tcp for host in (src, dst)}
            if len(set(tcps.values())) > 1 and any(map(needs, tcps.values())):
                one, other = sorted((src, dst), key=lambda host: not needs(tcps[host]))
                what = f"{one} exchanges data with {other}, which has {tcps[other]}, in {job.name}"
                host = one if one in point.transport.hosts else other
                own_words = job.name == "collective" or job.name.startswith("load.")
                remedy = f"write e.g. {job.name}.transport: {{tcp: {tcps[one]}}}" if own_words else f"write {tcps[one]} for both"
                text = told(tcps[host], f"one and the same at both ends where marks are needed: {what}", remedy)
                yield Problem(("transport", "hosts", host), text)
                return


def refuse_unmarked(points: Sequence[Point], works: Sequence[Workload], tcps: Mapping[str, Provided]) -> None:
    """RequestError when a file that turned out to need ECN is to run without marks, or at one end of a connection only."""
    for point, work in zip(points, works, strict=True):
        for path, tcp in asked_tcps(point):
            if tcps[tcp].needs_ecn and (point.links.ecn is None or point.transport.ecn is False):
                remedy = "add e.g. links.ecn: {min_packets: 20, max_packets: 20}, and no transport.ecn: false"
                text = told(tcp, "queues that mark, as it needs ECN (TCP_CONG_NEEDS_ECN)", remedy)
                raise RequestError(f"{'.'.join(map(str, path))}: {text}")
        loads = [[flow for flow, load in zip(work.flows, work.flow_loads, strict=True) if load == index] for index in range(len(point.load))]
        entries = [[one for one, entry in zip(work.askings, work.asking_entries, strict=True) if entry == index] for index in range(len(point.requests))]
        for problem in one_sided(point, [part.ranks for part in work.parts], loads, entries, lambda tcp: tcps[tcp].needs_ecn):
            raise RequestError(f"{'.'.join(map(str, problem.path))}: {problem.text}")


def transport_record(point: Point, work: Workload, tcps: Mapping[str, Provided], differ: Sequence[str]) -> dict[str, Any]:
    """What network.json says: who provides what, and by job and host what was asked; `differ` are routes that are not so."""
    return {
        "provided": {tcp: asdict(tcps[tcp]) for _, tcp in asked_tcps(point)},
        "hosts": {host: asdict(settings(point.transport, host)) for host in point.transport.hosts},
        "jobs": {
            job.name: {"mark": job.mark, "hosts": {host: asdict(settings(point.transport, host, job.transport)) for host in work.hosts_by_job.get(job.name, ())}}
            for job in jobs(point)
        },
        "routes_differ": list(differ),
    }  # fmt: skip


def describe_transport(point: Point) -> str | None:
    """What differs from the kernel's and the run's own, in words for a row; `tcp` and `ecn` of the run have their own keys."""
    run = {key: getattr(point.transport, key) for key in METRICS}
    words = [f"{key}={value}" for key, value in run.items() if value is not None and (key, value) != ("rto_min_ms", 200)]
    for path, own in _own(point):
        name = ".".join(map(str, path[2:] if path[0] == "transport" else path[:-1]))
        given = own.model_dump(exclude_none=True)
        words += [f"{name}: {' '.join(f'{key}={value}' for key, value in given.items())}"] if given else []
    return "; ".join(words) or None
