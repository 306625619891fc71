"""An experiment file, checked in full, and the points that its sweep and repeats expand to.

Comes in: a YAML file and `--set` pairs. Goes out: an `Experiment` whose every `Point` is valid and has its Fabric.
Nothing here touches the machine, and nothing of Ryu is imported: controllers are only read.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from fabric import plugins, seeds
from fabric.errors import RequestError
from fabric.graph import Fabric
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

if TYPE_CHECKING:
    from fabric.load import Flow

__all__ = [
    "Collective", "Controller", "Ecn", "Experiment", "Links", "Load", "Point", "Transport", "Use",
    "flows", "load_experiment", "parse_override", "placement", "schema",
]  # fmt: skip

GIVEN = {"topology": (), "collective": ("ranks", "elements"), "load": ("hosts", "rng")}  # what we pass to each kind
WORDS: dict[type, tuple[str, str]] = {  # a type in words, and an example
    int: ("a whole number", "1"), float: ("a number", "1.5"), str: ("a text", "name"), bool: ("true or false", "true"),
    type(None): ("null", "null"),
}  # fmt: skip
POINT_LIMIT = 10_000  # more would take weeks: a slip of the sweep, not a wish
ETHERNET_HEADER = 14
ONCE = ("question", "seed", "repeat", "sweep")  # what all points share, so that they can be compared
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
SPELLINGS = "pkg.module:attr, or ./file.py[:attr]"


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _sizes(value: Any) -> Any:
    return _listed(value if isinstance(value, list) else [value])


def _nbytes(value: Any) -> Any:
    match = re.fullmatch(r"([0-9]{1,12}) ?([A-Za-z]+)", value) if isinstance(value, str) else None
    return int(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else value


# In every field below, `description` is what an error calls accepted, and the first example is its remedy;
# an editor shows both, from the JSON Schema.
SIZE_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 4}, {"type": "string", "pattern": "^[0-9]+ ?([KMG]i|[kMG])?B$"}]
}
Size = Annotated[int, BeforeValidator(_nbytes), Field(ge=4, le=1 << 30, multiple_of=4)]
Sizes = Annotated[
    tuple[Size, ...],
    BeforeValidator(_sizes),
    WithJsonSchema({"anyOf": [*SIZE_SCHEMA["anyOf"], {"type": "array", "items": SIZE_SCHEMA}]}),
]


class _Values(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _use(example: str) -> Any:
    printable = r"^[^\x00-\x1f\x7f]+$"
    return Field(max_length=200, pattern=printable, description=f"a name, {SPELLINGS}", examples=[example])


class Use(_Values):
    """A plug-in by its spelling; in the file its own parameters stand beside `use`, here they are `params`."""

    model_config = ConfigDict(extra="allow")
    use: str = _use("fat-tree")

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that go to the plug-in."""
        return dict(self.model_extra or {})


class Controller(Use):
    """The controller, and how often it asks the switches for their counters, in milliseconds."""

    use: str = _use("ecmp")
    poll_ms: int = Field(100, ge=10, le=5000, description="a whole number from 10 to 5000", examples=[100])


class Collective(Use):
    """What the ranks do, on which hosts, and how often; `nbytes` are the sizes, one after the other."""

    use: str = _use("ring-allreduce")
    ranks: Annotated[Literal["all"] | Annotated[int, Field(ge=2)] | tuple[str, ...], BeforeValidator(_listed)] = Field(
        "all", description="all, a number of 2 or more, or a list of two or more host names", examples=["all"]
    )
    placement: Literal["ranked", "random"] = Field("ranked", description="ranked or random", examples=["random"])
    nbytes: Sizes = Field(
        min_length=1,
        description="one or a list of multiples of 4 from 4 to 1GiB, in bytes or with B, KiB, MiB, GiB, kB, MB, GB",
        examples=[["64KiB", "1MiB"]],
    )
    dtype: Literal["float32", "int32"] = Field("float32", description="float32 or int32", examples=["float32"])
    iterations: int = Field(20, ge=1, le=100_000, description="a whole number from 1 to 100000", examples=[20])
    warmup: int = Field(2, ge=0, le=100_000, description="a whole number from 0 to 100000", examples=[2])
    check: bool = Field(True, description="true or false", examples=[True])


class Load(Use):
    """Background flows beside the collective; `mbps` is the rate of each, None for as fast as TCP goes."""

    use: str = _use("stride")
    mbps: float | None = Field(None, gt=0, le=100_000, description="a number above 0 and at most 100000", examples=[5])
    hosts: Literal["all", "idle"] = Field(
        "all", description="all, or idle for the hosts without a rank", examples=["idle"]
    )


class Ecn(_Values):
    """Between which queue lengths, in packets, marking begins and is certain."""

    min_packets: int = Field(ge=1, le=100_000, description="a whole number from 1 to 100000", examples=[20])
    max_packets: int = Field(ge=1, le=100_000, description="a whole number from 1 to 100000", examples=[20])


class Links(_Values):
    """What every link is: its rate (Ethernet header counted), MTU in bytes, and queue in packets or in bytes."""

    mbps: float = Field(gt=0, le=100_000, description="a number above 0 and at most 100000", examples=[20])
    mtu: int = Field(1500, ge=576, le=9216, description="a whole number from 576 to 9216", examples=[9000])
    queue_packets: int | None = Field(
        None, ge=1, le=100_000, description="a whole number from 1 to 100000", examples=[50]
    )
    queue_bytes: int | None = Field(
        None, ge=590, le=1 << 31, description=f"a whole number, at least mtu + {ETHERNET_HEADER}", examples=[450_000]
    )
    delay_ms: float | None = Field(None, ge=0, le=10_000, description="a number from 0 to 10000", examples=[1])
    loss_percent: float | None = Field(None, ge=0, lt=100, description="a number from 0, below 100", examples=[0.1])
    ecn: Ecn | None = Field(
        None, description="a mapping of min_packets and max_packets", examples=[{"min_packets": 20, "max_packets": 20}]
    )

    @model_validator(mode="before")
    @classmethod
    def _default_queue(cls, data: Any) -> Any:
        given = isinstance(data, dict) and (data.get("queue_packets"), data.get("queue_bytes")) != (None, None)
        return data if given or not isinstance(data, dict) else {**data, "queue_packets": 50}


class Transport(_Values):
    """The congestion control of every socket, by the kernel's name, and the smallest retransmission timeout."""

    tcp: str = Field(
        "cubic",
        pattern="^[a-z0-9_]{1,15}$",
        description="reno, cubic, bbr, dctcp or another kernel name",
        examples=["cubic"],
    )
    rto_min_ms: int = Field(200, ge=1, le=10_000, description="a whole number from 1 to 10000", examples=[200])


class ExperimentFile(_Values):
    """The keys of an experiment file."""

    question: str = Field(min_length=1, pattern=r"\S", description="a sentence", examples=["Is ECMP enough?"])
    seed: int = Field(1, ge=0, lt=1 << 63, description="a whole number from 0, below 2^63", examples=[7])
    repeat: int = Field(1, ge=1, le=1000, description="a whole number from 1 to 1000", examples=[5])
    topology: Use = Field(description="a mapping with use", examples=[{"use": "fat-tree", "k": 4}])
    links: Links = Field(description="a mapping with mbps", examples=[{"mbps": 20}])
    controller: Controller = Field(description="a mapping with use", examples=[{"use": "ecmp"}])
    collective: Collective | None = Field(
        None, description="a mapping with use and nbytes", examples=[{"use": "ring-allreduce", "nbytes": "1MiB"}]
    )
    load: Annotated[tuple[Load, ...], BeforeValidator(_listed)] = Field(
        (), description="a list of mappings with use", examples=[[{"use": "stride", "step": 8}]]
    )
    duration_s: float | None = Field(
        None, gt=0, le=3600, description="a number above 0 and at most 3600", examples=[10]
    )
    transport: Transport = Field(
        Transport(), description="a mapping of tcp and rto_min_ms", examples=[{"tcp": "cubic"}]
    )
    sweep: dict[str, list[Any]] = Field(
        {},
        description="a mapping of key paths to lists of values",
        examples=[{"controller.use": ["ecmp", "two-level"]}],
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file, for editors."""
    return ExperimentFile.model_json_schema()


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
    duration_s: float | None
    base: Path

    @property
    def poll_ms(self) -> int:
        """Milliseconds between two questions of the controller to the switches."""
        return self.controller.poll_ms

    def to_json(self) -> dict[str, Any]:
        """Everything, resolved, as JSON can hold it; of the fabric all but its links."""
        fabric = {key: value for key, value in self.fabric.to_json().items() if key != "links"}
        plain = {key: getattr(self, key) for key in ("index", "variant", "repeat", "seed", "duration_s", "poll_ms")}
        models = {key: getattr(self, key) for key in ("topology", "links", "controller", "collective", "transport")}
        dumped = {key: model and model.model_dump(mode="json") for key, model in models.items()}
        return {**plain, **dumped, "load": [load.model_dump(mode="json") for load in self.load], "fabric": fabric}


@dataclass(frozen=True)
class Experiment:
    """A valid file: `text` is its source, `base` its folder, `swept` the key paths that differ between variants."""

    path: Path
    name: str
    question: str
    text: str
    base: Path
    points: tuple[Point, ...]
    swept: tuple[str, ...]


def placement(point: Point) -> list[str]:
    """The hosts of the ranks 0, 1, ...; empty without a collective. A random one depends on the point's seed alone."""
    if point.collective is None:
        return []
    ranks, hosts = point.collective.ranks, [host.name for host in point.fabric.hosts]
    if isinstance(ranks, tuple):
        return list(ranks)
    n = len(hosts) if ranks == "all" else ranks
    if point.collective.placement == "ranked":
        return hosts[:n]
    return [hosts[int(index)] for index in seeds.rng(point.seed, "placement").permutation(len(hosts))[:n]]


def flows(point: Point) -> list[Flow]:
    """The background flows of all loads, in file order; each load draws from a stream of its own."""
    return [flow for index in range(len(point.load)) for flow in _flows_of(point, index)]


def _flows_of(point: Point, index: int) -> list[Flow]:
    load = point.load[index]
    ranked = set(placement(point)) if load.hosts == "idle" else set()
    hosts = [host.name for host in point.fabric.hosts if host.name not in ranked]
    if len(hosts) < 2:
        text = told(load.hosts, "hosts with two or more free of ranks", "use fewer ranks, or write hosts: all")
        raise RequestError(f"load.hosts: {text}")
    plugin = plugins.load("load", load.use, point.base)
    found: list[Flow] = plugin(hosts, seeds.rng(point.seed, f"load{index}"), **load.params)
    return [replace(flow, mbps=load.mbps) for flow in found] if load.mbps is not None else list(found)


def load_experiment(path: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment of a file, with every point checked; RequestError, one line, for the first thing wrong.

    `overrides` are key paths and values, as `parse_override` gives them.
    """
    text, overrides = read(path), overrides or {}
    document = parse(text, str(path))
    for nth, (key, value) in enumerate(overrides.items()):
        document = document.overridden(key, value, nth)
    swept = axes(document, [key for key in ExperimentFile.model_fields if key not in ONCE])
    _refuse_lost(document, swept, overrides)
    every = arms(document, swept)
    check = _Checks(path.parent)
    files = [check.file(arm) for arm in every]
    _refuse_twins(every, files)
    _refuse_many(document, len(files) * files[0].repeat)
    points = _points(check, every, files)
    for arm, point in zip(every, points, strict=False):  # the first repeat: the others differ in their draws alone
        check.flows(arm, point)
    return Experiment(path, path.stem, files[0].question, text, path.parent, points, tuple(axis.key for axis in swept))


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
    names = variants(every) if every[0].values else [files[0].controller.use]
    points: list[Point] = []
    for repeat, (name, file) in itertools.product(range(files[0].repeat), zip(names, files, strict=True)):
        points.append(Point(
            index=len(points), variant=name, repeat=repeat + 1, seed=file.seed + repeat,
            topology=file.topology, fabric=check.fabric(file.topology), links=file.links,
            controller=file.controller, collective=file.collective, load=file.load,
            transport=file.transport, duration_s=file.duration_s, base=check.base,
        ))  # fmt: skip
    return tuple(points)


def _refuse_twins(every: Sequence[Arm], files: Sequence[ExperimentFile]) -> None:
    seen: set[str] = set()
    for arm, file, name in zip(every, files, variants(every), strict=True):
        resolved = json.dumps(file.model_dump(mode="json", exclude={"sweep"}), sort_keys=True)
        if resolved in seen:
            last = max(n for n, index in enumerate(arm.indices) if index)
            key = list(arm.document.get(("sweep",)))[last]
            text = f"got the point {name} twice; accepted: points that differ; remove one"
            raise_first(arm.document, [Problem(("sweep", key, arm.indices[last]), text)])
        seen.add(resolved)


def _whole(arm: Arm, file: ExperimentFile) -> Iterator[Problem]:
    """What is wrong between keys that are each fine."""
    document, collective = arm.document, file.collective
    if collective is None and not file.load:
        remedy = "add e.g. collective: {use: ring-allreduce, nbytes: 1MiB}"
        yield Problem(
            ("collective",), f"got neither collective nor load; accepted: one of them or both; {remedy}", True
        )
    elif collective is None and file.duration_s is None:
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
    yield from _queue(document, file.links)
    if collective is not None:
        yield from _ranks(collective)


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
    ecn = links.ecn
    if ecn is not None and ecn.max_packets < ecn.min_packets:
        accepted = f"at least min_packets, which is {ecn.min_packets}"
        yield Problem(
            ("links", "ecn", "max_packets"),
            told(ecn.max_packets, accepted, f"write e.g. max_packets: {ecn.min_packets}"),
        )
    elif ecn is not None and links.queue_packets is not None and ecn.min_packets > links.queue_packets:
        accepted = f"at most queue_packets, which is {links.queue_packets}, or nothing is ever marked"
        yield Problem(("links", "ecn", "min_packets"), told(ecn.min_packets, accepted, "lower it"))


def _ranks(collective: Collective) -> Iterator[Problem]:
    path, ranks, sizes = ("collective", "ranks"), collective.ranks, collective.nbytes
    if isinstance(ranks, tuple) and (len(ranks) < 2 or len(set(ranks)) < len(ranks)):
        yield Problem(path, told(list(ranks), "two or more host names, each once", "write e.g. ranks: all"))
    if isinstance(ranks, tuple) and collective.placement == "random":
        text = told("random", "ranked beside a list of hosts, whose order is the ranks'", "remove placement")
        yield Problem(("collective", "placement"), text)
    if len(set(sizes)) < len(sizes):
        twice = next(size for n, size in enumerate(sizes) if size in sizes[:n])
        yield Problem(("collective", "nbytes"), f"got {twice} bytes twice; accepted: each size once; remove one")


class _Checks:
    """All checks of one file; what plug-ins answer is kept, as many points ask the same."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.wanted: dict[tuple[str, str], _Wanted] = {}
        self.fabrics: dict[str, Fabric] = {}
        self.schedules: set[str] = set()

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
        if file.collective is not None:
            arm.refuse(_unknown_hosts(file.collective, fabric))
            arm.refuse(_tried(arm, ("collective",), file.collective, partial(self.schedule, file.collective, fabric)))
        return file

    def plugins(self, file: ExperimentFile) -> Iterator[Problem]:
        """What is wrong with the plug-ins' names and parameters."""
        yield from self.plugin("topology", ("topology",), file.topology)
        yield from self.plugin("controller", ("controller",), file.controller)
        if file.collective is not None:
            yield from self.plugin("collective", ("collective",), file.collective)
        for n, load in enumerate(file.load):
            yield from self.plugin("load", ("load", n), load)

    def plugin(self, kind: str, path: KeyPath, use: Use) -> list[Problem]:
        """What is wrong with one plug-in's name and parameters."""
        try:
            key = (kind, use.use)
            if key not in self.wanted:
                self.wanted[key] = _wanted(kind, use.use, self.base)
            return list(_parameters(path, use, self.wanted[key]))
        except RequestError as err:
            return [Problem((*path, "use"), _not_found(kind, use.use, err))]
        except (OSError, ValueError):  # no file can be called that, say for its length in bytes
            return [Problem((*path, "use"), told(use.use, f"a name, {SPELLINGS}", "shorten it"))]

    def fabric(self, topology: Use) -> Fabric:
        """The topology's Fabric, built once for all points that ask for it."""
        key = topology.model_dump_json()
        if key not in self.fabrics:
            found = plugins.load("topology", topology.use, self.base)(**topology.params)
            if not isinstance(found, Fabric):
                raise RequestError(
                    f"got a {type(found).__name__} from {topology.use}; accepted: a Fabric; return build.fabric()"
                )
            self.fabrics[key] = found
        return self.fabrics[key]

    def schedule(self, collective: Collective, fabric: Fabric) -> None:
        """Try the collective at each size, so that what it refuses is refused now."""
        n = len(fabric.hosts) if collective.ranks == "all" else collective.ranks
        ranks = n if isinstance(n, int) else len(n)
        for nbytes in collective.nbytes:
            key = f"{collective.use} {collective.params} {ranks} {nbytes}"
            if key not in self.schedules:
                plugins.load("collective", collective.use, self.base)(ranks, nbytes // 4, **collective.params)
                self.schedules.add(key)

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


def _unknown_hosts(collective: Collective, fabric: Fabric) -> list[Problem]:
    ranks, path = collective.ranks, ("collective", "ranks")
    if isinstance(ranks, int) and ranks > len(fabric.hosts):
        text = told(
            ranks, f"at most {len(fabric.hosts)}, the hosts of this topology", "use fewer, or a larger topology"
        )
        return [Problem(path, text)]
    strange = [name for name in ranks if name not in fabric.host_by_name] if isinstance(ranks, tuple) else []
    if not strange:
        return []
    some = ", ".join(list(fabric.host_by_name)[:4])
    remedy = meant(strange[0], fabric.host_by_name, "take the names from the topology")
    return [Problem(path, told(strange[0], f"hosts of this topology: {some}, ...", remedy))]


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
        if isinstance(part, str):
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


# -- the parameters of plug-ins


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The parameters a plug-in takes: their types (Any when it does not say), and which it needs; `open` takes any."""

    types: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needed: frozenset[str] = frozenset()
    open: bool = False


def _wanted(kind: str, spelling: str, base: Path) -> _Wanted:
    if kind == "controller":
        found = plugins.controller_parameters(plugins.find(kind, spelling, base))
        types = {key: Any if value is None else type(value) for key, value in (found or {}).items()}
        return _Wanted(types, found or {}, open=found is None)
    plugin = plugins.load(kind, spelling, base)
    try:
        every = list(inspect.signature(plugin).parameters.values())
    except (TypeError, ValueError) as err:
        raise RequestError(
            f"{kind} {spelling!r}: got a {type(plugin).__name__}; accepted: a function; name one"
        ) from err
    named = [item for item in every if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
    given = GIVEN[kind]
    if len(named) < len(given) and not any(item.kind == item.VAR_POSITIONAL for item in every):
        text = f"it takes {inspect.signature(plugin)}; accepted: ({', '.join(given)}, ...); mend the plug-in"
        raise RequestError(f"{kind} {spelling!r}: {text}")
    own = named[len(given) :]
    return _Wanted(
        {item.name: _hint(item.annotation, plugin) for item in own},
        {item.name: item.default for item in own if item.default is not item.empty},
        frozenset(item.name for item in own if item.default is item.empty),
        any(item.kind == item.VAR_KEYWORD for item in every),
    )


def _hint(annotation: Any, plugin: Callable[..., Any]) -> Any:
    """The type an annotation means; Any where it cannot be told, as names under TYPE_CHECKING cannot."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(plugin, "__globals__", {}))
        except Exception:
            return Any
    return Any if annotation is inspect.Parameter.empty else annotation


def _parameters(path: KeyPath, use: Use, wanted: _Wanted) -> Iterator[Problem]:
    fields = type(use).model_fields
    own = [name for name in wanted.types if name not in fields]
    for name, value in use.params.items():
        if name not in wanted.types and not wanted.open:
            known = [*fields, *own]
            text = f"got an unknown key; accepted: {', '.join(known)}; {meant(name, known, 'remove it')}"
            yield Problem((*path, name), text)
        elif not _fits(value, hint := wanted.types.get(name, Any)):
            remedy = f"write e.g. {name}: {_example(hint, wanted.defaults.get(name))}"
            yield Problem((*path, name), told(value, _accepted(hint), remedy))
    for name in own:
        if name in wanted.needed and name not in use.params:
            text = told(None, _accepted(wanted.types[name]), f"add e.g. {name}: {_example(wanted.types[name], None)}")
            yield Problem((*path, name), text, True)


def _fits(value: Any, hint: Any) -> bool:
    try:
        TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        return False
    except PydanticUserError:
        return True  # a type of the plug-in's own: its own to check
    return True


def _accepted(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(show(item, quoted=False) for item in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_accepted(item) for item in get_args(hint))
    return WORDS.get(hint, (str(getattr(hint, "__name__", hint)), ""))[0] if isinstance(hint, type) else "a value"


def _example(hint: Any, default: Any) -> str:
    first = next((item for item in get_args(hint) if item is not type(None)), hint)
    if default is not None or get_origin(hint) is Literal:
        return show(first if default is None else default, quoted=False)
    return WORDS.get(first, ("", "..."))[1] if isinstance(first, type) else "..."


def _not_found(kind: str, spelling: str, err: RequestError) -> str:
    known = plugins.names(kind)
    if any(mark in spelling for mark in "./:") or spelling in known:
        return f"got {show(spelling)}: {one_line(str(err)).removeprefix(f'{kind} {spelling!r}: ')}"
    return told(spelling, f"{', '.join(known)}, {SPELLINGS}", meant(spelling, known, f"write e.g. {known[0]}"))
