"""An experiment file, checked in full, and the points that its sweep and repeats expand to.

Comes in: a YAML file and `--set` pairs. Goes out: an `Experiment` whose every `Point` is valid and has its Fabric.
Nothing here touches the machine, and nothing of Ryu is imported: controllers are only read.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from fabric import plugins, seeds
from fabric.askers import MOST, askings_of
from fabric.askers import asked_wrongly as requested_wrongly
from fabric.asking import Asking
from fabric.composing import compose
from fabric.errors import RequestError
from fabric.events import asked_wrongly, strangers
from fabric.expecting import unexpected
from fabric.graph import Fabric
from fabric.interpreter import Shape, check_result
from fabric.keys import (
    ETHERNET_HEADER,
    SPELLINGS,
    Collective,
    Controller,
    Ecn,
    Event,
    Expect,
    ExperimentFile,
    Job,
    Links,
    Load,
    Program,
    Requests,
    Sockets,
    Telemetry,
    Transport,
    Use,
    called,
    named,
    schema,
)
from fabric.located import (
    Arm,
    Axis,
    Document,
    KeyPath,
    Problem,
    arms,
    axes,
    key_path,
    meant,
    one_line,
    parse,
    parse_override,
    raise_first,
    read,
    show,
    told,
    variants,
)
from fabric.misnamed import misnamed, some
from fabric.parameters import Wanted, misfits, on_request, wanted
from fabric.placing import place
from fabric.schedule import ELEMENT_BYTES, Result
from fabric.thresholds import misplaced
from fabric.transports import asked_tcps, files_missing, lives_on_marks, one_sided, too_wide, unknown

if TYPE_CHECKING:
    from fabric.load import Flow

__all__ = [
    "Collective", "Controller", "Ecn", "Event", "Experiment", "Job", "Links", "Load", "Point", "Transport", "Use",
    "flows", "flows_by_load", "load_experiment", "parse_override", "placement", "placements", "schema",
]  # fmt: skip

_MOST_INSIDE_MBPS = 30_000  # a rate of HTB is read back in 32 bits
_TRIALS = 2  # of a schedule: enough for what is plainly wrong; every run checks every element
_NOT_WAITING = ("reduce", "broadcast")  # results of which some rank may be done before others have begun
POINT_LIMIT = 10_000  # more would take weeks: a slip of the sweep, not a wish
ONCE = ("question", "seed", "repeat", "expect", "sweep")  # what all points share, so that they can be compared


@dataclass(frozen=True)
class Point:
    """One run: a variant of the sweep in one repeat. Variants of a repeat share `seed`; `base` is the file's folder."""

    index: int
    variant: str
    repeat: int
    seed: int
    topology: Use
    fabric: Fabric
    links: Links
    controller: Controller
    collective: Collective | None
    load: tuple[Load, ...]
    transport: Transport
    telemetry: Telemetry
    duration_s: float | None
    base: Path
    events: tuple[Event, ...] = ()
    workload: Program | None = None
    requests: tuple[Requests, ...] = ()
    jobs: tuple[Job, ...] = ()

    @property
    def ranked(self) -> Collective | Program | None:
        """Whose the ranks are: the collective's or the program's; None where there are jobs, or is but load."""
        return self.collective or self.workload

    @property
    def collectives(self) -> dict[str, Collective]:
        """All collectives by name: `collective`, or the jobs."""
        return {"collective": self.collective} if self.collective else dict(named(self.jobs))

    @property
    def label(self) -> str:
        """The name of its folder: `003-ecmp-r1`."""
        words = re.sub(r"[^A-Za-z0-9]+", "-", self.variant).strip("-")[:60]
        return f"{self.index:03d}-{words}-r{self.repeat}"

    @property
    def poll_ms(self) -> int:
        """Milliseconds between two questions of the controller to the switches."""
        return self.controller.poll_ms

    def to_json(self) -> dict[str, Any]:
        """Everything, resolved, as JSON can hold it; of the fabric all but its links."""
        fabric = {key: value for key, value in self.fabric.to_json().items() if key != "links"}
        plain = {key: getattr(self, key) for key in ("index", "variant", "repeat", "seed", "duration_s", "poll_ms")}
        models = {key: getattr(self, key) for key in ("topology", "links", "controller", "collective", "workload", "transport", "telemetry")}
        dumped = {key: model and model.model_dump(mode="json") for key, model in models.items()}
        return {**plain, **dumped, **self._lists(), "fabric": fabric}

    def _lists(self) -> dict[str, Any]:
        return {key: [item.model_dump(mode="json") for item in getattr(self, key)] for key in ("jobs", "load", "requests", "events")}


@dataclass(frozen=True)
class Experiment:
    """A valid file: `text` is its source, `base` its folder, `swept` the key paths that differ between variants.

    `overrides` are the values that replaced the file's own.
    """

    path: Path
    name: str
    question: str
    text: str
    base: Path
    points: tuple[Point, ...]
    swept: tuple[str, ...]
    overrides: Mapping[str, Any]
    arms: Mapping[str, tuple[str, ...]]  # by variant, its label for each of `swept`
    expect: tuple[Expect, ...] = ()


def placements(point: Point) -> dict[str, list[str]]:
    """By job the hosts of its ranks 0, 1, ...: of the collective, the program, or of each of the jobs. Random ones depend on the point's seed alone."""
    every: dict[str, Collective | Program] = {"collective": point.ranked} if point.ranked else dict(named(point.jobs))
    purposes = {name: "placement" if point.ranked else f"placement/{number}" for number, name in enumerate(every)}
    return place({name: (one.ranks, one.placement) for name, one in every.items()}, point.fabric, point.seed, purposes)


def placement(point: Point) -> list[str]:
    """The hosts of all ranks, one job after the other; empty without a collective, jobs or a program."""
    return [host for hosts in placements(point).values() for host in hosts]


def flows(point: Point) -> list[Flow]:
    """The background flows of all loads, in file order; each load draws from a stream of its own."""
    return [flow for found in flows_by_load(point) for flow in found]


def flows_by_load(point: Point) -> list[list[Flow]]:
    """The background flows of each load."""
    return [_flows_of(point, index) for index in range(len(point.load))]


def _flows_of(point: Point, index: int) -> list[Flow]:
    load = point.load[index]
    ranked = set(placement(point)) if load.hosts == "idle" else set()
    hosts = [host.name for host in point.fabric.hosts if host.name not in ranked]
    if len(hosts) < 2:
        text = told(load.hosts, "hosts with two or more free of ranks", "use fewer ranks, or write hosts: all")
        raise RequestError(f"load.hosts: {text}")
    plugin = plugins.load("load", load.use, point.base)
    known = {"fabric": point.fabric}
    asked = {name: known[name] for name in on_request("load", plugin)}
    seed = point.seed if load.seed is None else load.seed + point.repeat - 1
    found: list[Flow] = plugin(hosts, seeds.rng(seed, f"load{index}"), **asked, **load.params)
    return [replace(flow, mbps=load.mbps) for flow in found] if load.mbps is not None else list(found)


def askings(point: Point) -> list[list[Asking]]:
    """What each entry of `requests` has its clients ask, who take its servers in turn, or any of all."""
    found, ranked = [], set(placement(point))
    for number, one in enumerate(point.requests):
        hosts = [host.name for host in point.fabric.hosts if not (one.clients == "idle" and host.name in ranked)]
        found.append(askings_of(number, one, hosts, point.links, point.seed, point.base))
    return found


def load_experiment(path: Path, overrides: Mapping[str, Any] | None = None, base: Path | None = None) -> Experiment:
    """The experiment of a file, with every point checked; RequestError, one line, for the first thing wrong.

    `overrides` are key paths and values, as `parse_override` gives them; `base` is the folder that relative plug-in
    files start from, the file's own by default.
    """
    text, overrides = read(path), overrides or {}
    document = parse(text, str(path))
    for nth, (key, value) in enumerate(overrides.items()):
        document = document.overridden(key, value, nth)
    swept = axes(document, [key for key in ExperimentFile.model_fields if key not in ONCE])
    _refuse_lost(document, swept, overrides)
    every = arms(document, swept)
    check = _Checks(base or path.parent)
    files = [check.file(arm) for arm in every]
    raise_first(document, unexpected(files[0], _labels(every, files)))
    _refuse_twins(every, files)
    _refuse_many(document, len(files) * files[0].repeat)
    points = _points(check, every, files)
    for arm, point in zip(every, points, strict=False):  # the first repeat: the others differ in their draws alone
        check.flows(arm, point)
    for arm, point in zip(itertools.cycle(every), points, strict=False):
        for at, one, name in _collectives_at(point):
            arm.refuse(_tried(arm, at, one, partial(check.placed, point, name, one)))
        arm.refuse(_apart(point))
        arm.refuse(_nobody_asks(point))
        arm.refuse(one_sided(point, list(placements(point).values()), flows_by_load(point), askings(point)) if point.transport.hosts else ())
    return Experiment(path, path.stem, files[0].question, text, check.base, points, tuple(axis.key for axis in swept), overrides, _labels(every, files), files[0].expect)


def _refuse_lost(document: Document, swept: Sequence[Axis], overrides: Mapping[str, Any]) -> None:
    """A value that the sweep replaces in every point would be dropped without a word."""
    for key, axis in itertools.product(overrides, swept):
        if f"{key}.".startswith(f"{axis.key}."):
            text = f"got a value for a swept key; accepted: a key that is not swept; write --set sweep.{axis.key}=[...]"
            raise_first(document, [Problem(key_path(key, document.data), text)])


def _refuse_many(document: Document, count: int) -> None:
    if count > POINT_LIMIT:
        text = f"got {count} points in all; accepted: at most {POINT_LIMIT}; repeat or sweep less"
        raise_first(document, [Problem(("repeat",), text)])


def _points(check: _Checks, every: Sequence[Arm], files: Sequence[ExperimentFile]) -> tuple[Point, ...]:
    """Repeat by repeat, so that a slow drift of the machine meets all variants alike."""
    names = _labels(every, files)
    points: list[Point] = []
    for repeat, (name, file) in itertools.product(range(files[0].repeat), zip(names, files, strict=True)):
        points.append(Point(
            index=len(points), variant=name, repeat=repeat + 1, seed=file.seed + repeat,
            topology=file.topology, fabric=check.fabric(file.topology), links=file.links,
            controller=file.controller, collective=file.collective, load=file.load,
            transport=file.transport, telemetry=file.telemetry, duration_s=file.duration_s, base=check.base, events=file.events,
            workload=file.workload, requests=file.requests, jobs=file.jobs,
        ))  # fmt: skip
    return tuple(points)


def _labels(every: Sequence[Arm], files: Sequence[ExperimentFile]) -> dict[str, tuple[str, ...]]:
    """The arms by their variants' names; of a file that sweeps nothing the one arm is called by its controller."""
    return {", ".join(labels): labels for labels in variants(every)} if every[0].values else {files[0].controller.use: ()}


def _refuse_twins(every: Sequence[Arm], files: Sequence[ExperimentFile]) -> None:
    seen: set[str] = set()
    for arm, file, labels in zip(every, files, variants(every), strict=True):
        resolved = json.dumps(file.model_dump(mode="json", exclude={"sweep"}), sort_keys=True)
        if resolved in seen:
            last = max(n for n, index in enumerate(arm.indices) if index)
            key = list(arm.document.get(("sweep",)))[last]
            text = f"got the point {', '.join(labels)} twice; accepted: points that differ; remove one"
            raise_first(arm.document, [Problem(("sweep", key, arm.indices[last]), text)])
        seen.add(resolved)


def _whole(arm: Arm, file: ExperimentFile) -> Iterator[Problem]:
    """What is wrong between keys that are each fine."""
    document, collective, program = arm.document, file.collective, file.workload
    if not (collective or program or file.jobs or file.load or file.requests):
        remedy = "add e.g. collective: {use: ring-allreduce, nbytes: 1MiB}"
        yield Problem(
            ("collective",), f"got none of collective, jobs, workload, load and requests; accepted: one of the first three, the others beside it or alone; {remedy}", True
        )
    elif not (collective or program or file.jobs) and file.duration_s is None:
        accepted = "a number above 0 and at most 3600, as no collective ends the run"
        text = told(None, accepted, "add e.g. duration_s: 10")
        yield Problem(("duration_s",), text, True)
    if collective is not None and file.duration_s is not None:
        text = told(
            document.get(("duration_s",)),
            "none beside a collective, whose iterations end the run",
            "remove duration_s or collective",
        )
        yield Problem(("duration_s",), text)
    yield from _jobs(document, file)
    if file.telemetry.steps and (collective is None or collective.compute_ms is not None):
        text = told(True, "false without a collective, and with compute_ms, whose jobs have no iteration in common", "remove it")
        yield Problem(("telemetry", "steps"), text)
    if program is not None and collective is not None:
        yield Problem(("workload",), told(program.command, "none beside a collective, as both have ranks", "remove workload or collective"))
    if program is not None and file.duration_s is not None:
        text = told(document.get(("duration_s",)), "none beside a program, whose end ends the run", "write workload.timeout_s for how long it may take")
        yield Problem(("duration_s",), text)
    if collective is not None and collective.stagger_ms is not None and collective.compute_ms is None:
        text = told(document.get(("collective", "stagger_ms")), "none where all ranks begin together", "add e.g. compute_ms: 500, or remove it")
        yield Problem(("collective", "stagger_ms"), text)
    yield from asked_wrongly(document, file.events, file.duration_s)
    yield from _queue(document, file.links)
    yield from misplaced(file.links)
    yield from too_wide(file)
    if collective is not None:
        yield from [*_ranks(("collective",), collective), *_sizes(collective)]
    elif program is not None:
        yield from _ranks(("workload",), program)
    for number, job in enumerate(file.jobs):
        yield from _ranks(("jobs", number), job)


def _jobs(document: Document, file: ExperimentFile) -> Iterator[Problem]:
    """What is wrong with jobs, or beside them."""
    for key, beside in (("collective", file.collective), ("workload", file.workload)):
        if file.jobs and beside is not None:
            yield Problem((key,), told(document.get((key, "use")), "none beside jobs, which have all ranks", f"write the {key} as one of the jobs, or remove jobs"))
    if file.jobs and file.duration_s is not None:
        yield Problem(("duration_s",), told(document.get(("duration_s",)), "none beside jobs, whose iterations end the run", "remove duration_s or jobs"))
    names: set[str] = set()
    for number, job in enumerate(file.jobs):
        path, name = ("jobs", number), called(job, number)
        if name in names:
            yield Problem((*path, "name"), told(name, "each name once", "give it another one"))
        names.add(name)
        if len(job.nbytes) > 1:
            yield Problem((*path, "nbytes"), told(list(job.nbytes), "one size, as jobs go by their own clocks", f"sweep it: jobs.{number}.nbytes"))
        elif job.nbytes[0] % (ELEMENT_BYTES * job.buckets):
            step = ELEMENT_BYTES * job.buckets
            text = told(job.nbytes[0], f"a multiple of {step} bytes, {job.buckets} buckets of whole numbers", f"write e.g. nbytes: {-(-job.nbytes[0] // step) * step}")
            yield Problem((*path, "nbytes"), text)
        if job.stagger_ms is not None:
            yield Problem((*path, "stagger_ms"), told(document.get((*path, "stagger_ms")), "none in a job", "write start_s for when it begins"))
        if job.buckets > 1 and not job.backward_ms:
            yield Problem((*path, "buckets"), told(job.buckets, "1 without backward_ms, as all are ready at once", "add e.g. backward_ms: 400"))


def _marks(file: ExperimentFile, base: Path) -> Iterator[Problem]:
    """Senders that live on marks, and queues that give none; or the other way round."""
    marking, remedy = file.links.ecn is not None, "add e.g. links.ecn: {min_packets: 20, max_packets: 20}"
    living = [(path, tcp) for path, tcp in asked_tcps(file) if lives_on_marks(tcp, base)]
    for path, tcp in living:
        if not marking:
            yield Problem(path, told(tcp, "another one, or queues that mark: without marks it is but reno", remedy))
    if living and marking and file.transport.ecn is False:
        yield Problem(("transport", "ecn"), told(False, f"true beside {living[0][1]}, which lives on marks", "remove it"))
    elif file.transport.ecn and not marking:
        yield Problem(("transport", "ecn"), told(True, "false where no queue marks", f"remove it, or {remedy}"))


def _queue(document: Document, links: Links) -> Iterator[Problem]:
    if links.queue_bytes is not None and links.queue_packets is not None:
        yield Problem(
            ("links", "queue_bytes"), told(links.queue_bytes, "queue_packets or queue_bytes", "remove one of them")
        )
    elif links.queue_bytes is not None and links.queue_bytes < (least := links.mtu + ETHERNET_HEADER):
        accepted = f"at least mtu + {ETHERNET_HEADER} = {least}, one frame"
        yield Problem(
            ("links", "queue_bytes"), told(links.queue_bytes, accepted, f"write e.g. queue_bytes: {50 * least}")
        )


def _ranks(path: KeyPath, ranked: Collective | Program) -> Iterator[Problem]:
    ranks = ranked.ranks
    if isinstance(ranks, tuple) and (len(ranks) < 2 or len(set(ranks)) < len(ranks)):
        yield Problem((*path, "ranks"), told(list(ranks), "two or more host names, each once", "write e.g. ranks: all"))
    if isinstance(ranks, tuple) and ranked.placement in ("random", "striped"):
        text = told(ranked.placement, "ranked beside a list of hosts, whose order is the ranks'", "remove placement")
        yield Problem((*path, "placement"), text)


def _sizes(collective: Collective) -> Iterator[Problem]:
    sizes = collective.nbytes
    if len(set(sizes)) < len(sizes):
        twice = next(size for n, size in enumerate(sizes) if size in sizes[:n])
        yield Problem(("collective", "nbytes"), f"got {twice} bytes twice; accepted: each size once; remove one")


class _Checks:
    """All checks of one file; what plug-ins answer is kept, as many points ask the same."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.wanted: dict[tuple[str, str], Wanted] = {}
        self.fabrics: dict[str, Fabric] = {}
        self.tried: dict[str, tuple[Result, int]] = {}  # what it gives, in how many groups
        self.right: set[Shape] = set()

    def file(self, arm: Arm) -> ExperimentFile:
        """The arm's values, with nothing wrong in them but what only the flows can show."""
        try:
            file = ExperimentFile.model_validate(arm.document.data)
        except ValidationError as err:
            # Not arm.refuse(): what is wrong with one value by itself is so at any value of the others.
            raise_first(arm.document, _misfits(err, arm.document))
            raise  # never reached: a ValidationError has at least one error
        arm.refuse([*_whole(arm, file), *self.plugins(file)])
        arm.refuse(_tried(arm, ("topology",), file.topology, lambda: self.fabric(file.topology)))
        fabric = self.fabric(file.topology)
        arm.refuse(_unknown_ends(file, fabric))
        arm.refuse([*_of_one_nic(file, fabric), *self.sets_hosts(file, fabric)])
        arm.refuse([problem for number, one in enumerate(file.requests) for problem in requested_wrongly(number, one, self.base)])
        arm.refuse(_unknown_askers(file, fabric))
        arm.refuse([*strangers(file.events, fabric), *unknown(file.transport, fabric)])
        if file.collective is not None:
            arm.refuse([*_unknown_hosts(("collective",), file.collective, fabric), *_unknown_late(("collective",), file.collective, fabric)])
            arm.refuse(_tried(arm, ("collective",), file.collective, partial(self.schedule, file.collective, fabric, file.links)))
        elif file.workload is not None:
            arm.refuse(_unknown_hosts(("workload",), file.workload, fabric))
        for number, job in enumerate(file.jobs):
            arm.refuse([*_unknown_hosts(("jobs", number), job, fabric), *_unknown_late(("jobs", number), job, fabric)])
        arm.refuse(_placed_twice(file, fabric))
        return file

    def plugins(self, file: ExperimentFile) -> Iterator[Problem]:
        """What is wrong with the plug-ins' names and parameters."""
        yield from self.plugin("topology", ("topology",), file.topology)
        yield from self.plugin("controller", ("controller",), file.controller)
        yield from self.controller(file)
        for path, collective in _collectives_of(file):
            yield from self.plugin("collective", path, collective)
        for n, load in enumerate(file.load):
            yield from self.plugin("load", ("load", n), load)
        lost = [*files_missing(file, self.base)]
        yield from lost or _marks(file, self.base)

    def controller(self, file: ExperimentFile) -> Iterator[Problem]:
        """What is wrong between a controller and its policy, or the hints that it would be sent."""
        takes = self.wanted.get(("controller", file.controller.use))
        if takes is None:
            return
        policy = self.policy_of(file)
        if isinstance(policy, str):
            yield from self.policy(policy, file.controller.params.get("options", {}))
            yield from self.needs(policy, file)
        source = plugins.find("controller", file.controller.use, self.base)
        for path, collective in _collectives_of(file):
            if collective.hints and not plugins.defines(source, "on_hint"):
                text = told(True, f"false, as {file.controller.use} takes no hints", "remove hints, or write e.g. controller: {use: adaptive}")
                yield Problem((*path, "hints"), text)

    def policy_of(self, file: ExperimentFile) -> Any:
        """The policy of the file's controller, its own where the file names none; None where it has none."""
        takes = self.wanted.get(("controller", file.controller.use))
        return {**(takes.defaults if takes else {}), **file.controller.params}.get("policy")

    def sets_hosts(self, file: ExperimentFile, fabric: Fabric) -> Iterator[Problem]:
        """A policy that would set hosts which share with others what it sets: its orders would all be refused."""
        policy = self.policy_of(file)
        if fabric.servers and isinstance(policy, str) and getattr(plugins.load("policy", policy, self.base), "SETS_HOSTS", False):
            text = told(policy, "a policy that sets nothing of single hosts where the NICs of a server share a namespace", "write e.g. policy: combined")
            yield Problem(("controller", "policy"), text)

    def needs(self, policy: str, file: ExperimentFile) -> Iterator[Problem]:
        """What a policy must be told of a collective, and would not be: without it, it would do nothing, and nobody would know."""
        try:
            asked = getattr(plugins.load("policy", policy, self.base), "NEEDS", {})
        except RequestError:
            return  # said already
        for (path, collective), (key, example) in itertools.product(_collectives_of(file), asked.items()):
            given = getattr(collective, key)
            if given is None or given is False:
                text = told(given, f"one that {policy} can go by", f"write e.g. {key}: {example}, or choose another policy")
                yield Problem((*path, key), text)

    def policy(self, spelling: str, options: Any) -> Iterator[Problem]:
        """What is wrong with a policy, or with the options that it would be made with."""
        try:
            plugins.load("policy", spelling, self.base)
        except RequestError as err:
            yield Problem(("controller", "policy"), _not_found("policy", spelling, err))
            return
        try:
            plugins.load_policy(spelling, self.base, options if isinstance(options, dict) else {})
        except RequestError as err:
            message = one_line(str(err)).removeprefix(f"policy {spelling!r}: ")
            yield Problem(("controller", "options"), message)

    def plugin(self, kind: str, path: KeyPath, use: Use) -> list[Problem]:
        """What is wrong with one plug-in's name and parameters."""
        try:
            key = (kind, use.use)
            if key not in self.wanted:
                self.wanted[key] = wanted(kind, use.use, self.base)
            return list(misfits(path, use, self.wanted[key]))
        except RequestError as err:
            return [Problem((*path, "use"), _not_found(kind, use.use, err))]
        except (OSError, ValueError):  # no file can be called that, say for its length in bytes
            return [Problem((*path, "use"), told(use.use, f"a name, {SPELLINGS}", "shorten it"))]

    def fabric(self, topology: Use) -> Fabric:
        """The topology's Fabric, built once for all points that ask for it."""
        key = topology.model_dump_json()
        if key not in self.fabrics:
            self.fabrics[key] = plugins.load_topology(topology.use, self.base, topology.params)
        return self.fabrics[key]

    def schedule(self, collective: Collective, fabric: Fabric, links: Links) -> None:
        """Try the collective at each size, so that what it refuses is refused now."""
        ranks, names = collective.ranks, [host.name for host in fabric.hosts]
        hosts = names if ranks == "all" else names[:ranks] if isinstance(ranks, int) else list(ranks)
        for nbytes in collective.nbytes:
            self.composed(collective, fabric, hosts, nbytes, links)

    def placed(self, point: Point, name: str, collective: Collective) -> None:
        """Try the collective where its ranks are in this point, if that makes a difference: where rails meet inside servers only, and beside other jobs."""
        job = isinstance(collective, Job)
        for nbytes in collective.nbytes if job or any(point.fabric.part.values()) else ():
            piece = nbytes // collective.buckets if isinstance(collective, Job) else nbytes
            self.composed(collective, point.fabric, placements(point)[name], piece, point.links)

    def composed(self, collective: Collective, fabric: Fabric, hosts: Sequence[str], nbytes: int, links: Links) -> None:
        """Find a collective's schedule on these hosts to be right."""
        where: Any = hosts if any(fabric.part.values()) else len(hosts)
        if on_request("collective", plugins.load("collective", collective.use, self.base)):
            where = f"{hosts} of {fabric.topology} {fabric.params}, {links}"
        key = f"{collective.use} {collective.params} {collective.channels} {nbytes} {where}"
        if key not in self.tried:
            schedule = compose(collective, fabric, hosts, nbytes, self.base, links)
            check_result(schedule, orders=_TRIALS, right=self.right)
            self.tried[key] = schedule.result, schedule.groups
        _refuse_unpaced(collective, *self.tried[key])

    def flows(self, arm: Arm, point: Point) -> None:
        """Refuse the arm when a load refuses its hosts, or names others."""
        names = point.fabric.host_by_name

        def draw(index: int) -> None:
            for flow in _flows_of(point, index):
                if flow.src == flow.dst or not {flow.src, flow.dst} <= names.keys():
                    text = (
                        f"got a flow from {flow.src} to {flow.dst}; accepted: flows between two hosts; mend the plug-in"
                    )
                    raise RequestError(text)

        for index, load in enumerate(point.load):
            arm.refuse(_tried(arm, ("load", index), load, partial(draw, index)))


def _refuse_unpaced(collective: Collective, result: Result, groups: int) -> None:
    """A clock of its own is nothing for ranks that do not wait for each other, or for several groups in one job."""
    if collective.compute_ms is not None and result in _NOT_WAITING:
        text = f"accepted: none with {collective.use}, whose ranks do not wait for each other; remove it"
        if isinstance(collective, Job):
            raise RequestError(f"got {collective.use}, whose ranks do not wait for each other; accepted: in a job one where they do; write e.g. ring-allreduce")
        raise RequestError(f"collective.compute_ms: got {collective.compute_ms:g}; {text}")
    if isinstance(collective, Job) and groups > 1:
        raise RequestError(f"collective.groups: got {groups}; accepted: 1 in a job; write a job for each")


def _collectives_of(file: ExperimentFile) -> list[tuple[KeyPath, Collective]]:
    """The file's collectives with their key paths: one, or one a job."""
    return [(("collective",), file.collective)] if file.collective else [(("jobs", number), job) for number, job in enumerate(file.jobs)]


def _collectives_at(point: Point) -> list[tuple[KeyPath, Collective, str]]:
    """A point's collectives with their key paths and names."""
    return [
        (("collective",) if point.collective else ("jobs", number), one, name) for number, (name, one) in enumerate(point.collectives.items())
    ]


def _placed_twice(file: ExperimentFile, fabric: Fabric) -> Iterator[Problem]:
    """Hosts that two jobs name, and jobs for which the others leave no hosts."""
    owner: dict[str, int] = {}
    for number, job in enumerate(file.jobs):
        for host in job.ranks if isinstance(job.ranks, tuple) else ():
            if owner.setdefault(host, number) != number:
                yield Problem(("jobs", number, "ranks"), told(host, f"hosts of no other job, and jobs.{owner[host]} has it", "name another one"))
                return
    try:
        place({f"jobs.{number}": (job.ranks, "ranked") for number, job in enumerate(file.jobs)}, fabric, 0, {})
    except RequestError as err:
        where, _, text = str(err).partition(": ")
        yield Problem(("jobs", int(where.split(".")[1]), "ranks"), text)


def _of_one_nic(file: ExperimentFile, fabric: Fabric) -> Iterator[Problem]:
    """What a host can have for itself alone, and not where it shares a server's namespace with others."""
    if not fabric.servers:
        return
    if fabric.inside is not None and file.links.mbps * fabric.inside > _MOST_INSIDE_MBPS:
        text = told(fabric.inside, f"at most {_MOST_INSIDE_MBPS / file.links.mbps:g} beside links of {file.links.mbps:g} Mb/s", "write e.g. nvlink_ratio: free")
        yield Problem(("topology", "nvlink_ratio"), text)
    if file.workload is not None:
        text = told(file.workload.command, "none where the NICs of a server share a namespace", "use a topology without servers")
        yield Problem(("workload", "command"), text)
    own: list[tuple[KeyPath, Sockets | None]] = [(("load", number, "transport"), load.transport) for number, load in enumerate(file.load)]
    own += [((*path, "transport"), one.transport) for path, one in _collectives_of(file)]
    asked: list[tuple[KeyPath, Any]] = [
        (("links", "delay_ms"), file.links.delay_ms), (("links", "loss_percent"), file.links.loss_percent), (("transport", "hosts"), file.transport.hosts or None),
        (("transport", "cwnd_clamp"), file.transport.cwnd_clamp), (("transport", "initcwnd"), file.transport.initcwnd),
        *((path, given and given.model_dump(exclude_none=True)) for path, given in own),
    ]  # fmt: skip
    for path, value in asked:
        if value is not None:
            yield Problem(path, told(value, "none where the NICs of a server share a namespace", "remove it, or use a topology without servers"))


def _apart(point: Point) -> Iterator[Problem]:
    """Loads that do not cross the network: inside servers, or, where rails meet there only, from rail to rail."""
    parts = point.fabric.part
    for number, flows in enumerate(flows_by_load(point) if point.fabric.servers else ()):
        for flow in flows:
            together = point.fabric.together(flow.src, flow.dst)
            if together or parts[flow.src] != parts[flow.dst]:
                text = f"got a flow from {flow.src} to {flow.dst}, {'which share a server' if together else 'where no path leads'}"
                remedy = f"write e.g. {{use: stride, step: {_rails(point)}}}"
                yield Problem(("load", number, "use"), f"{text}; accepted: flows across the network, along rails where these meet nowhere; {remedy}")
                return


def _rails(point: Point) -> int:
    return max(map(len, point.fabric.servers.values()), default=1)


def _nobody_asks(point: Point) -> Iterator[Problem]:
    """Requests that have no client, or one that would ask itself."""
    for number, found in enumerate(askings(point)):
        if len(found) > MOST:
            text = f"got {len(found)} connections, one from each client to each server; accepted: at most {MOST}; name fewer clients"
            yield Problem(("requests", number, "clients"), text)
        if not found or any(one.client == one.server for one in found):
            text = told(point.requests[number].clients, "hosts beside the servers", "name clients that are no servers, or other servers")
            yield Problem(("requests", number, "clients"), text)


def _unknown_askers(file: ExperimentFile, fabric: Fabric) -> Iterator[Problem]:
    """Hosts of requests that are none, and requests where hosts share a server's namespace."""
    for number, one in enumerate(file.requests):
        for key, names in (("servers", one.servers), ("clients", one.clients)):
            if isinstance(names, str):
                continue
            for name in names:
                if name not in fabric.host_by_name:
                    yield Problem(("requests", number, key), misnamed(name, "hosts", fabric.host_by_name))
        if fabric.servers:
            text = told(one.servers if isinstance(one.servers, str) else list(one.servers), "none where the NICs of a server share a namespace", "use a topology without servers")
            yield Problem(("requests", number, "servers"), text)


def _unknown_late(path: KeyPath, collective: Collective, fabric: Fabric) -> Iterator[Problem]:
    ranks = collective.ranks
    hosts = list(ranks) if isinstance(ranks, tuple) else [host.name for host in fabric.hosts]
    for name in collective.late_ms:
        if name not in hosts:
            remedy = meant(name, hosts, "take the name from the topology")
            yield Problem((*path, "late_ms", name), f"got a host without a rank; accepted: {some(hosts)}; {remedy}")


def _unknown_hosts(at: KeyPath, ranked: Collective | Program, fabric: Fabric) -> list[Problem]:
    ranks, path = ranked.ranks, (*at, "ranks")
    if isinstance(ranks, int) and ranks > len(fabric.hosts):
        text = told(
            ranks, f"at most {len(fabric.hosts)}, the hosts of this topology", "use fewer, or a larger topology"
        )
        return [Problem(path, text)]
    strange = [name for name in ranks if name not in fabric.host_by_name] if isinstance(ranks, tuple) else []
    return [Problem(path, misnamed(name, "hosts", fabric.host_by_name)) for name in strange[:1]]


def _unknown_ends(file: ExperimentFile, fabric: Fabric) -> Iterator[Problem]:
    """Pairs of probes that are not two hosts of the topology."""
    pairs = file.telemetry.probes.pairs if file.telemetry.probes else "auto"
    for number, pair in enumerate(() if pairs == "auto" else pairs):
        strange = [name for name in pair if name not in fabric.host_by_name]
        if not strange and (fabric.together(*pair) or fabric.part[pair[0]] != fabric.part[pair[1]]):
            text = told(list(pair), "two hosts that reach each other over the network", "name another one")
            yield Problem(("telemetry", "probes", "pairs", number), text)
        elif strange or pair[0] == pair[1]:
            remedy = meant(strange[0], fabric.host_by_name, "take the names from the topology") if strange else "name another one"
            text = told(list(pair), f"two different hosts of this topology: {some(fabric.host_by_name)}", remedy)
            yield Problem(("telemetry", "probes", "pairs", number), text)


def _tried(arm: Arm, path: KeyPath, use: Use, action: Callable[[], object]) -> list[Problem]:
    """What a plug-in says against being called; a defect of it is told by name, as it may be anyone's."""
    try:
        action()
    except RequestError as err:
        message = one_line(str(err))
        match = re.match(r"(?:topology|collective|load)\.(\w+): (.+)", message)
        return [Problem((*path, match[1]), match[2]) if match else Problem((*path, "use"), message)]
    except Exception as err:
        failed = f"got {show(use.use)}, which failed with {type(err).__name__}: {one_line(str(err))}"
        return [Problem((*path, "use"), f"{failed}; accepted: a plug-in that can be called; mend it or its parameters")]
    return []


# -- pydantic's findings in our words


def _misfits(err: ValidationError, document: Document) -> Iterator[Problem]:
    for item in err.errors(include_url=False, include_context=False, include_input=False):
        yield _misfit(item["type"], item["loc"], document)


def _misfit(kind: str, loc: KeyPath, document: Document) -> Problem:
    if kind == "extra_forbidden":
        known = _model_at(loc[:-1]).model_fields
        remedy = meant(str(loc[-1]), known, "remove it")
        return Problem(loc, f"got an unknown key; accepted: {', '.join(known)}; {remedy}")
    path, info = _field_at(loc)
    missing = kind == "missing"
    while not missing and not document.has(path):  # a single size was checked as a list of one
        path = path[:-1]
    name = next(str(part) for part in reversed(path) if isinstance(part, str))
    remedy = f"{'add' if missing else 'write'} e.g. {name}: {show((info.examples or [''])[0], quoted=False)}"
    return Problem(path, told(document.get(path), str(info.description), remedy), missing)


def _field_at(loc: KeyPath) -> tuple[KeyPath, FieldInfo]:
    """The last field on the way, and its path; what pydantic adds for the members of a union is cut off."""
    model: type[BaseModel] | None = ExperimentFile
    path: list[str | int] = []
    info = FieldInfo(annotation=ExperimentFile)
    for part in loc:
        if get_origin(info.annotation) is dict and model is not None:  # the file's own word, as a host's name
            accepted, example = f"a mapping of {', '.join(model.model_fields)}", next(iter((info.examples or [{"": ""}])[0].values()))
            info = FieldInfo(annotation=model, description=accepted, examples=[example])
        elif isinstance(part, str):
            if model is None or part not in model.model_fields:
                break
            info = model.model_fields[part]
            model = _model_in(info.annotation)
        path.append(part)
    return tuple(path), info


def _model_at(loc: KeyPath) -> type[BaseModel]:
    return (_model_in(_field_at(loc)[1].annotation) if loc else None) or ExperimentFile


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _not_found(kind: str, spelling: str, err: RequestError) -> str:
    known = plugins.names(kind)
    if any(mark in spelling for mark in "./:") or spelling in known:
        return f"got {show(spelling)}: {one_line(str(err)).removeprefix(f'{kind} {spelling!r}: ')}"
    return told(spelling, f"{', '.join(known)}, {SPELLINGS}", meant(spelling, known, f"write e.g. {known[0]}"))
