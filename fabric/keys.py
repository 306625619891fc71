"""The keys of an experiment file: what each means, what it accepts, and an example of it.

Comes in: plain YAML values. Goes out: strict, frozen models, and their JSON Schema for editors. What is wrong between
keys, and with a plug-in's own parameters, is found by `fabric.experiment`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

__all__ = [
    "ETHERNET_HEADER", "NEED_ECN", "Collective", "Controller", "Ecn", "Event", "Expect", "ExperimentFile", "Links", "Load", "Probes", "Sockets",
    "Telemetry", "Transport", "Use", "schema",
]  # fmt: skip

ETHERNET_HEADER = 14
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
_SIZE = "a multiple of 4 from 4 to 1GiB, in bytes or with B, KiB, MiB, GiB, kB, MB, GB"
Size = Annotated[int, BeforeValidator(_nbytes), Field(ge=4, le=1 << 30, multiple_of=4)]
Sizes = Annotated[
    tuple[Size, ...],
    BeforeValidator(_sizes),
    WithJsonSchema({"anyOf": [*SIZE_SCHEMA["anyOf"], {"type": "array", "items": SIZE_SCHEMA}]}),
]


Pair = Annotated[tuple[str, str], BeforeValidator(_listed)]

NEED_ECN = frozenset({"dctcp"})  # congestion controls that are nothing but Reno over queues that do not mark


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


_TCP = "reno, cubic, bbr, dctcp, another kernel name, or a file of yours, ./my_cc.bpf.c or .o"
_TCP_PATTERN = r"^(?:[a-z0-9_]{1,15}|[^\x00-\x1f\x7f]{1,200}\.[co])$"


def _tcp(default: str | None, example: str) -> Any:
    return Field(default, pattern=_TCP_PATTERN, description=_TCP, examples=[example])


def _timeout(default: int | None) -> Any:
    return Field(default, ge=1, le=10_000, description="a whole number from 1 to 10000", examples=[200])


def _window(example: int) -> Any:
    return Field(None, ge=1, le=100_000, description="a whole number from 1 to 100000", examples=[example])


class Sockets(_Values):
    """What the sockets of one host, or of one job, do otherwise than the run's; what is not given stays as it is there."""

    tcp: str | None = _tcp(None, "reno")
    rto_min_ms: int | None = _timeout(None)
    initcwnd: int | None = _window(4)
    cwnd_clamp: int | None = _window(8)


def _sockets() -> Any:
    return Field(None, description="a mapping of tcp, rto_min_ms, initcwnd and cwnd_clamp", examples=[{"tcp": "reno"}])


class Controller(Use):
    """The controller, and how often it asks the switches for their counters, in milliseconds."""

    use: str = _use("ecmp")
    poll_ms: int = Field(100, ge=10, le=5000, description="a whole number from 10 to 5000", examples=[100])


Ranks = Annotated[Literal["all"] | Annotated[int, Field(ge=2)] | tuple[str, ...], BeforeValidator(_listed)]


def _ranks() -> Any:
    return Field("all", description="all, a number of 2 or more, or a list of two or more host names", examples=["all"])


Placement = Literal["ranked", "packed", "striped", "random"]


def _placement() -> Any:
    return Field("ranked", description="ranked (the same as packed), striped or random", examples=["random"])


Lateness = Annotated[float, Field(ge=0, le=600_000, description="a number from 0 to 600000", examples=[50])]


class Collective(Use):
    """What the ranks do, on which hosts, and how often; `nbytes` are the sizes, one after the other.

    With `hints` the collective tells the controller its connections, and waits until they are placed, before it begins.
    With `compute_ms` each of its groups is a job with a clock of its own, as in training: it computes that long, then
    communicates, and waits for no other group; `stagger_ms` is how much later each one begins than the one before.
    Ranks on the hosts in `late_ms` begin every iteration so much later: stragglers, to see what they cost.
    What goes from one rank to another is shared by `channels` connections, as by queue pairs. Ranks are on the first hosts
    (`ranked`, or `packed`), on one host of every switch or server in turn (`striped`), or anywhere (`random`).
    """

    use: str = _use("ring-allreduce")
    ranks: Ranks = _ranks()
    placement: Placement = _placement()
    nbytes: Sizes = Field(
        min_length=1,
        description="one or a list of multiples of 4 from 4 to 1GiB, in bytes or with B, KiB, MiB, GiB, kB, MB, GB",
        examples=[["64KiB", "1MiB"]],
    )
    channels: int = Field(1, ge=1, le=64, description="a whole number from 1 to 64", examples=[4])
    dtype: Literal["float32", "int32"] = Field("float32", description="float32 or int32", examples=["float32"])
    iterations: int = Field(20, ge=1, le=100_000, description="a whole number from 1 to 100000", examples=[20])
    warmup: int = Field(2, ge=0, le=100_000, description="a whole number from 0 to 100000", examples=[2])
    check: bool = Field(True, description="true or false", examples=[True])
    hints: bool = Field(False, description="true or false", examples=[True])
    late_ms: dict[str, Lateness] = Field({}, description="a mapping of hosts to milliseconds, 0 to 600000", examples=[{"p0e0h1": 50}])
    compute_ms: float | None = Field(None, ge=0, le=600_000, description="a number from 0 to 600000", examples=[500])
    stagger_ms: float | None = Field(None, ge=0, le=600_000, description="a number from 0 to 600000", examples=[250])
    transport: Sockets | None = _sockets()


class Job(Collective):
    """One of several collectives at the same time, on hosts of its own and by its own clock, as training jobs are.

    It begins `start_s` after the others could, and repeats: compute `compute_ms`, then communicate. With `backward_ms` that
    is the backward pass, during which `buckets` equal pieces of `nbytes` become ready one after another; each goes once it
    is ready and the one before it is through.
    """

    name: str | None = Field(None, pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,29}$", description="up to 30 letters, digits, _ and -, a letter first", examples=["llm"])
    start_s: float = Field(0, ge=0, le=3600, description="a number from 0 to 3600", examples=[1])
    compute_ms: float | None = Field(0, ge=0, le=600_000, description="a number from 0 to 600000", examples=[200])
    backward_ms: float = Field(0, ge=0, le=600_000, description="a number from 0 to 600000", examples=[400])
    buckets: int = Field(1, ge=1, le=1000, description="a whole number from 1 to 1000", examples=[4])

    @property
    def piece(self) -> int:
        """The bytes of a bucket."""
        return self.nbytes[0] // self.buckets


def named(jobs: Sequence[Job]) -> dict[str, Job]:
    """Jobs by name; one without a name of its own is called by its place."""
    return {called(job, number): job for number, job in enumerate(jobs)}


def called(job: Job, number: int) -> str:
    """The name of the job at a place in the file."""
    return job.name or f"job.{number}"


class Program(_Values):
    """Any program as the workload, started once in the host of every rank; what it is told stands in its environment.

    `timeout_s` is how long the last of them may take.
    """

    use: Literal["command"] = Field(description="command", examples=["command"])
    command: str = Field(min_length=1, max_length=4000, pattern=r"\S", description="a command line for the shell", examples=["python3 ./bench.py"])
    ranks: Ranks = _ranks()
    placement: Placement = _placement()
    timeout_s: float = Field(600, gt=0, le=86_400, description="a number above 0 and at most 86400", examples=[60])


class Load(Use):
    """Background flows beside the collective; `mbps` is the rate of each, None for as fast as TCP goes.

    With a `seed` of its own a load draws from that, and nothing else changes with it; each repeat adds 1, as to the
    file's.
    """

    use: str = _use("stride")
    mbps: float | None = Field(None, gt=0, le=100_000, description="a number above 0 and at most 100000", examples=[5])
    hosts: Literal["all", "idle"] = Field(
        "all", description="all, or idle for the hosts without a rank", examples=["idle"]
    )
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="a whole number from 0, below 2^63", examples=[7])
    transport: Sockets | None = _sockets()


class Requests(_Values):
    """Requests and answers beside all else: inference (`arrivals: poisson`), every rank's checkpoint at a period (`periodic`), or flows of many sizes.

    Every client asks one of `servers`, in turn, `rate_hz` times a second; with `servers: all` any other host each time. `objective_ms` is the time
    within which an answer is in time. Answers are `response` bytes, or drawn from `sizes`, `scale` times as large; with `load` clients ask as often as it takes for
    their links to carry that share of their rate in answers, on average.
    """

    clients: Annotated[Literal["all", "idle"] | tuple[str, ...], BeforeValidator(_listed)] = Field(
        "all", description="all, idle for the hosts without a rank, or a list of host names", examples=["idle"]
    )
    servers: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_listed)] = Field(min_length=1, description="all, or a list of host names", examples=[["p0e0h0"]])
    rate_hz: float | None = Field(None, gt=0, le=10_000, description="a number above 0 and at most 10000", examples=[5])
    load: float | None = Field(None, gt=0, le=1, description="a number above 0 and at most 1", examples=[0.5])
    arrivals: Literal["poisson", "periodic"] = Field("poisson", description="poisson or periodic", examples=["periodic"])
    request: Size = Field(description=_SIZE, examples=["4KiB"])
    response: Size | None = Field(None, description=_SIZE, examples=["64KiB"])
    sizes: str | None = Field(None, max_length=200, description="websearch, data-mining, or a file, ./sizes.csv", examples=["websearch"])
    scale: float = Field(1, gt=0, le=1000, description="a number above 0 and at most 1000", examples=[0.1])
    objective_ms: float | None = Field(None, gt=0, le=3_600_000, description="a number above 0 and at most 3600000", examples=[100])


class Ecn(_Values):
    """Between which queue lengths, in full frames or in bytes, marking begins and is certain.

    With `headroom` it is not the queue that is judged, but what would be waiting if the link had only that share of its
    rate: queues stay empty at that price (HULL, NSDI 2012).
    """

    min_packets: int | None = Field(None, ge=1, le=100_000, description="a whole number from 1 to 100000", examples=[20])
    max_packets: int | None = Field(None, ge=1, le=100_000, description="a whole number from 1 to 100000", examples=[20])
    min_bytes: int | None = Field(None, ge=1, le=1 << 30, description="a whole number from 1 to 2^30", examples=[30_000])
    max_bytes: int | None = Field(None, ge=1, le=1 << 30, description="a whole number from 1 to 2^30", examples=[30_000])
    headroom: float | None = Field(None, gt=0, le=1, description="a number above 0 and at most 1", examples=[0.95])

    def in_bytes(self, mtu: int) -> tuple[int, int]:
        """Both thresholds in bytes of backlog, on links of that MTU; whoever needs them asks here.

        >>> Ecn(min_packets=20, max_packets=30).in_bytes(1500), Ecn(min_bytes=1, max_bytes=2).in_bytes(1500)
        ((30280, 45420), (1, 2))
        """
        if self.min_packets is not None and self.max_packets is not None:
            return self.min_packets * (mtu + ETHERNET_HEADER), self.max_packets * (mtu + ETHERNET_HEADER)
        if self.min_bytes is not None and self.max_bytes is not None:
            return self.min_bytes, self.max_bytes
        raise ValueError("links.ecn has neither pair of thresholds: fabric.thresholds refuses such a file")


class Links(_Values):
    """What every link is: its rate (Ethernet header counted), MTU in bytes, and queue in packets or in bytes.

    With `priority_floor` every port has two such queues: one for packets that were given priority, which goes first, and
    one for all others, which keep this share of the rate at least.

    `delay_ms` is added to every packet that a host receives, one way: a round trip grows by twice that. `loss_percent` of
    them never arrive. Both come behind every queue.
    """

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
    priority_floor: float | None = Field(
        None, gt=0, lt=1, description="a number above 0 and below 1", examples=[0.05]
    )
    ecn: Ecn | None = Field(
        None, description="a mapping of min_packets and max_packets, or of min_bytes and max_bytes; and headroom",
        examples=[{"min_packets": 20, "max_packets": 20}],
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _default_queue(cls, data: Any) -> Any:
        given = isinstance(data, dict) and (data.get("queue_packets"), data.get("queue_bytes")) != (None, None)
        return data if given or not isinstance(data, dict) else {**data, "queue_packets": 50}


class Event(_Values):
    """What happens to one link, switch or the controller, `at_s` seconds after the traffic began; `times` in all.

    `mbps` is the link's new rate, both ways, with `do: rate`. With `probe` a link or a switch that goes down is watched
    by probes, and the row says how long data was lost.
    """

    at_s: float = Field(ge=0, le=3600, description="a number from 0 to 3600", examples=[5])
    link: Annotated[tuple[str, ...] | None, BeforeValidator(_listed)] = Field(
        None, min_length=2, max_length=2, description="a list of two nodes", examples=[["p0a0", "g0c0"]]
    )
    switch: str | None = Field(None, description="a switch", examples=["g0c0"])
    controller: Literal[True] | None = Field(None, description="true", examples=[True])
    do: Literal["down", "up", "rate"] = Field(description="down, up or rate", examples=["down"])
    mbps: float | None = Field(None, gt=0, le=100_000, description="a number above 0 and at most 100000", examples=[5])
    times: int = Field(1, ge=1, le=1000, description="a whole number from 1 to 1000", examples=[10])
    every_s: float | None = Field(None, gt=0, le=3600, description="a number above 0 and at most 3600", examples=[2])
    probe: bool = Field(True, description="true or false", examples=[True])


class Transport(_Values):
    """The congestion control of every socket, the smallest retransmission timeout, the first and the largest window.

    `ecn` says whether connections agree on ECN: by default they do where queues mark (`links.ecn`). `hosts` says what
    single hosts do otherwise; a job may have a `transport` of its own, which goes before that.
    """

    tcp: str = _tcp("cubic", "cubic")
    rto_min_ms: int = _timeout(200)
    initcwnd: int | None = _window(4)
    cwnd_clamp: int | None = _window(8)
    ecn: bool | None = Field(None, description="true or false", examples=[True])
    hosts: dict[str, Sockets] = Field(
        {}, description="a mapping of hosts to what they do otherwise", examples=[{"p0e0h0": {"tcp": "reno"}}]
    )


class Probes(_Values):
    """In-band telemetry: probes `hz` times a second between pairs of hosts, stamped at every port that they leave by.

    By default between at most eight pairs of the collective's ranks, or without one of the load's hosts.
    """

    hz: int = Field(100, ge=1, le=1000, description="a whole number from 1 to 1000", examples=[100])
    pairs: Literal["auto"] | Annotated[tuple[Pair, ...], BeforeValidator(_listed), Field(min_length=1, max_length=64)] = Field(
        "auto", description="auto, or a list of 1 to 64 lists of two hosts", examples=[[["p0e0h0", "p1e0h0"]]]
    )


class Telemetry(_Values):
    """How often every queue is read, in milliseconds; with `queueing_delay` the wait of every packet is counted too.

    With `steps` ranks note when each transfer began and arrived.
    """

    period_ms: int = Field(50, ge=5, le=1000, description="a whole number from 5 to 1000", examples=[10])
    queueing_delay: bool = Field(False, description="true or false", examples=[True])
    steps: bool = Field(False, description="true or false", examples=[True])
    probes: Probes | None = Field(None, description="a mapping of hz and pairs", examples=[{"hz": 100}])


class Expect(_Values):
    """What a figure is expected to be, on the rows that passed: the mean over seeds of `arm` (of all arms by default), or its ratio `over` another arm's.

    An arm is called as the table calls it, or by one of its swept values. `run --check` and `show --check` ask whether the whole interval is
    within the limits.
    """

    measure: str = Field(max_length=40, description="a figure of a row, see docs/measures.md", examples=["p50_ms"])
    arm: str | None = Field(None, description="a variant, or a value that is swept", examples=["adaptive"])
    over: str | None = Field(None, description="a variant, or a value that is swept", examples=["ecmp"])
    nbytes: Size | None = Field(None, description=_SIZE, examples=["1MiB"])
    below: float | None = Field(None, description="a number", examples=[0.7])
    above: float | None = Field(None, description="a number", examples=[1.5])


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
    jobs: Annotated[tuple[Job, ...], BeforeValidator(_listed)] = Field(
        (), description="a list of mappings with use and nbytes", examples=[[{"use": "ring-allreduce", "ranks": 8, "nbytes": "1MiB"}]]
    )
    workload: Program | None = Field(
        None, description="a mapping with use: command and command", examples=[{"use": "command", "command": "python3 ./bench.py"}]
    )
    load: Annotated[tuple[Load, ...], BeforeValidator(_listed)] = Field(
        (), description="a list of mappings with use", examples=[[{"use": "stride", "step": 8}]]
    )
    requests: Annotated[tuple[Requests, ...], BeforeValidator(_listed)] = Field(
        (),
        description="a list of mappings with servers, rate_hz, request and response",
        examples=[[{"servers": ["p0e0h0"], "rate_hz": 5, "request": "4KiB", "response": "64KiB"}]],
    )
    events: Annotated[tuple[Event, ...], BeforeValidator(_listed)] = Field(
        (),
        description="a list of mappings with at_s, do, and one of link, switch and controller",
        examples=[[{"at_s": 5, "link": ["p0a0", "g0c0"], "do": "down"}]],
    )
    duration_s: float | None = Field(
        None, gt=0, le=3600, description="a number above 0 and at most 3600", examples=[10]
    )
    transport: Transport = Field(
        Transport(), description="a mapping of tcp, rto_min_ms, initcwnd, cwnd_clamp, ecn and hosts", examples=[{"tcp": "cubic"}]
    )
    telemetry: Telemetry = Field(Telemetry(), description="a mapping of period_ms", examples=[{"period_ms": 10}])
    expect: Annotated[tuple[Expect, ...], BeforeValidator(_listed)] = Field(
        (), description="a list of mappings with measure, and below or above", examples=[[{"measure": "p50_ms", "arm": "adaptive", "over": "ecmp", "below": 0.7}]]
    )
    sweep: dict[str, list[Any]] = Field(
        {},
        description="a mapping of key paths to lists of values",
        examples=[{"controller.use": ["ecmp", "two-level"]}],
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file, for editors."""
    return ExperimentFile.model_json_schema()
