"""The prepared process: forks one child per rank and per loaded host into their namespaces, and keeps them in step.

Its folder is in FABRIC_RUN: `traffic.json` comes in, `records.jsonl` goes out. It talks with its children over Unix
socket pairs, so coordination never crosses the fabric. Every wait has a deadline, and names who did not answer.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from fabric.asking import Asking, ask_and_answer
from fabric.background import limit, run_flows
from fabric.children import Child, TrafficError, fork, hear, tell
from fabric.hints import BEGIN, PLAN, Announced, Beat, announce, tell_beat
from fabric.kernel import die_with_parent, namespace_of
from fabric.lines import listening
from fabric.paced import Clock, Paced, Pacer, job_name, keep_time
from fabric.programs import Programs, serve
from fabric.rank import initial, play, program, wrong
from fabric.schedule import Schedule
from fabric.socketlog import FILE, SocketLog
from fabric.steps import append_steps
from fabric.tcp import Endpoints, accept_from, connect_from, listen_on, report
from fabric.traffic import Timing, TrafficPart

_SETUP_DEADLINE_S = 30.0
_BEAT_DEADLINE_S = 1.0
_GRACE_S = 5.0  # of programs, when one of them has failed
_RELEASE_LEAD_S = 0.004  # and a little for every child that has to be told
_RELEASE_LEAD_PER_CHILD_S = 0.0002


def main() -> int:
    """Run the traffic of traffic.json; 0 when all of it happened."""
    die_with_parent()
    folder = Path(os.environ["FABRIC_RUN"])
    plan = json.loads((folder / "traffic.json").read_text())
    children: list[Child] = []
    # The runner's stop must pass through the clean-up below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with open(folder / "records.jsonl", "a", buffering=1) as records:
            _run(plan, children, records)
        return 0
    except TrafficError as err:
        print(err, file=sys.stderr)
        return 1
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)


def _run(plan: Mapping[str, Any], children: list[Child], records: IO[str]) -> None:
    started = time.monotonic()
    parts = [TrafficPart.from_json(item) for item in plan["parts"]]
    namespaces = {host: namespace_of(pid) for host, pid in plan["host_pids"].items()}
    gc.collect()
    gc.freeze()  # so that children share the pages
    ranks = _fork_ranks(plan, parts, namespaces, children)
    programs = _fork_programs(plan, namespaces, children) if plan["programs"] else []
    loaded = _fork_loaded_hosts(plan, namespaces, children)
    asking = _fork_asking(plan, namespaces, children)
    deadline = time.monotonic() + _SETUP_DEADLINE_S
    for step in ("listen", "connect"):
        if ranks and plan["hints"] and step == "connect":
            _announce(plan, parts, 0, records, PLAN)
        for child in children:
            child.tell({"do": step})
        for child in children:
            child.hear(deadline)
    _write(records, event="started", children=len(children), took_s=time.monotonic() - started)
    begin = _release(children)
    end = None
    if loaded or asking:
        end = begin + plan["duration_s"] if plan["duration_s"] else None
        for child in (*loaded, *asking):
            child.tell({"do": "flow", "begin": begin, "end": end})
        _write(records, event="load", begin=begin, end=end)
        if ranks or programs:
            _let_run((*loaded, *asking), begin + plan["load_lead_s"])
    if ranks:
        if parts[0].timing:
            _pace(plan, parts, ranks, records)
        else:
            _iterate(plan, parts[0], ranks, records)
    if programs:
        _run_programs(plan, programs, records)
    if asking and not loaded and end is not None:
        _let_run(asking, end)
    _finish(plan, [*ranks, *programs], loaded, asking, records)


def _let_run(children: Sequence[Child], moment: float) -> None:
    """Until a moment (CLOCK_MONOTONIC) before which none of these has anything to say: TrafficError as soon as one does, or ends."""
    by_channel = {child.channel: child for child in children}
    ready, _, _ = select.select(list(by_channel), [], [], max(0.0, moment - time.monotonic()))
    for channel in ready:
        by_channel[channel].hear(time.monotonic() + _BEAT_DEADLINE_S)


def _announce(plan: Mapping[str, Any], parts: Sequence[TrafficPart], size: int, records: IO[str], phase: str) -> None:
    """Tell the controller the connections of those that are announced, and what each carries in an iteration, and wait until it has dealt with them."""
    flows = [flow for part in parts if part.announced for flow in _announced(plan, part, size)]
    started = time.monotonic()
    try:
        placed = announce(plan["hints"], flows, _SETUP_DEADLINE_S, phase)
    except (OSError, ValueError) as err:
        raise TrafficError(f"the controller did not answer the collective's hints: {err}; does it take them? remove collective.hints") from err
    _write(records, event="hints" if phase == BEGIN else "plan", flows=len(flows), placed=placed, took_ms=1e3 * (time.monotonic() - started))


def _announced(plan: Mapping[str, Any], part: TrafficPart, size: int) -> list[Announced]:
    schedule, pieces = part.schedules[size], part.timing.buckets if part.timing else 1
    ends = {tuple(edge[:3]): edge[3] for edge in plan["edges"] if edge[:3] not in plan["inside"]}
    found = []
    for (src, dst, channel), ids in schedule.connections.items():
        if endpoints := ends.get((src + part.first, dst + part.first, channel)):
            nbytes = sum(schedule.transfers[number].nbytes for number in ids)
            found.append(Announced(**endpoints, nbytes=nbytes * pieces, transfers=len(ids) * pieces, job=_job(part, schedule, src)))
    return found


def _job(part: TrafficPart, schedule: Schedule, rank: int) -> str:
    """The job that a rank belongs to: its group where each of a collective has a clock of its own."""
    return job_name(rank % schedule.groups) if part.timing and part.timing.stagger_s is not None else part.name


def _iterate(plan: Mapping[str, Any], part: TrafficPart, ranks: Sequence[Child], records: IO[str]) -> None:
    count = 0
    for index, schedule in enumerate(part.schedules):
        if plan["hints"]:
            _announce(plan, [part], index, records, BEGIN)
        for number in range(-part.warmup, part.iterations):
            for child in ranks:
                child.tell({"do": "prepare", "schedule": index, "iteration": number})
            for child in ranks:
                child.hear(time.monotonic() + _SETUP_DEADLINE_S)
            release = _release(ranks)
            if index == 0 and number == -part.warmup:
                _write(records, event="release", release=release)
            deadline = release + plan["iteration_deadline_s"]
            for child in ranks:
                child.tell({"do": "play", "release": release, "deadline": deadline})
            # A rank reports its own time-out; allow it the moment to say what it waits for.
            done = [child.hear(deadline + 2.0) for child in ranks]
            if plan["steps"]:
                append_steps(_series_path().parent, schedule, number, release, done)
            _write(
                records, event="iteration", nbytes=schedule.nbytes, iteration=number, release=release,
                starts_ms=[1e3 * (item["start"] - release) for item in done],
                ends_ms=[1e3 * (item["end"] - release) for item in done],
                wrong=sum(item["wrong"] for item in done),
                silences=[line for item in done for line in item["silences"]],
            )  # fmt: skip
            _beat(plan, records, Beat("collective", count, release, max(item["end"] for item in done) - release))
            count += 1


def _beat(plan: Mapping[str, Any], records: IO[str], beat: Beat) -> None:
    """Tell the controller of an iteration, if it takes hints; a job does not depend on its taking notice."""
    if plan["hints"]:
        try:
            tell_beat(plan["hints"], beat, _BEAT_DEADLINE_S)
        except (OSError, ValueError) as err:
            _write(records, event="unheard", job=beat.job, iteration=beat.iteration, why=str(err))


def _pace(plan: Mapping[str, Any], parts: Sequence[TrafficPart], ranks: Sequence[Child], records: IO[str]) -> None:
    """Each job by its own clock, through all iterations of a size; then the next size, which only a single collective has."""

    def beat(job: Paced, one: Beat) -> None:
        if job.announced:
            _beat(plan, records, one)

    for size in range(len(parts[0].schedules)):
        if plan["hints"]:
            _announce(plan, parts, size, records, BEGIN)
        begin = _release(ranks)
        if size == 0:
            _write(records, event="release", release=begin)
        jobs = [job for part in parts for job in _jobs_of(plan, part, size, ranks, begin)]
        for job in jobs:
            for child in job.ranks:
                child.tell({"do": "pace", "schedule": size, "begin": job.begin})
        with contextlib.closing(listening(Path(plan["desk"]))) as desk:  # nobody waits at it who is not served
            Pacer(jobs, partial(_write_round, records), beat, desk).run()


def _jobs_of(plan: Mapping[str, Any], part: TrafficPart, size: int, ranks: Sequence[Child], begin: float) -> list[Paced]:
    """The jobs of a collective: one, or each of its groups."""
    timing, schedule = _timing(part), part.schedules[size]
    clock = _clock(plan, part, size)
    every = ranks[part.first : part.first + part.ranks]

    def job(name: str, group: int, step: int, start_s: float) -> Paced:
        numbers = range(group, part.ranks, step)
        return Paced(name, every[group::step], numbers, clock, begin + start_s, schedule.nbytes, part.warmup, part.announced)

    if timing.stagger_s is None:
        return [job(part.name, 0, 1, timing.start_s)]
    return [job(job_name(group), group, schedule.groups, group * timing.stagger_s) for group in range(schedule.groups)]


def _timing(part: TrafficPart) -> Timing:
    assert part.timing is not None  # who calls has looked
    return part.timing


def _clock(plan: Mapping[str, Any], part: TrafficPart, size: int) -> Clock:
    timing, rounds = _timing(part), part.warmup + part.iterations
    return Clock(timing.compute_s, rounds, plan["iteration_deadline_s"], first=size * rounds, backward_s=timing.backward_s, buckets=timing.buckets)


def _write_round(records: IO[str], job: Paced, number: int, reports: Mapping[int, dict[str, Any]]) -> None:
    """A line for each time that the job communicated in a round: once, or once a bucket."""
    members = sorted(reports)
    begun = max(one["begun"] for one in reports.values())
    for bucket in range(job.clock.buckets):
        pieces = [reports[rank]["pieces"][bucket] for rank in members]
        release = max(one["due"] for one in pieces)
        _write(
            records, event="iteration", nbytes=job.nbytes, iteration=number - job.warmup, job=job.name, bucket=bucket, begun=begun, release=release, ranks=members,
            starts_ms=[1e3 * (one["start"] - release) for one in pieces], ends_ms=[1e3 * (one["end"] - release) for one in pieces],
            delayed_ms=1e3 * max(one["delay_s"] for one in reports.values()), wrong=sum(one["wrong"] for one in pieces),
            silences=[line for one in pieces for line in one["silences"]],
        )  # fmt: skip


def _run_programs(plan: Mapping[str, Any], programs: Sequence[Child], records: IO[str]) -> None:
    """One program a rank, to the end of all; where one fails the others have a moment left, as they may wait for it for ever."""
    release = _release(programs)
    _write(records, event="release", release=release)
    for child in programs:
        child.tell({"do": "run", "release": release})
    until, ended = release + plan["programs"]["timeout_s"], dict[int, dict[str, Any]]()
    while len(ended) < len(programs) and (left := until - time.monotonic()) > 0:
        running = {child.channel: rank for rank, child in enumerate(programs) if rank not in ended}
        for channel in select.select(list(running), [], [], left)[0]:
            rank = running[channel]
            ended[rank] = programs[rank].hear(time.monotonic() + _BEAT_DEADLINE_S)
            if ended[rank]["code"]:
                until = min(until, time.monotonic() + _GRACE_S)
    late = [rank for rank in range(len(programs)) if rank not in ended]
    for rank in late:
        programs[rank].tell({"do": "stop"})
    for rank in late:
        ended[rank] = programs[rank].hear(time.monotonic() + _SETUP_DEADLINE_S)
    _write(records, event="programs", begin=release, end=max(one["ended"] for one in ended.values()), ranks=[ended[rank] for rank in range(len(programs))])


def _finish(
    plan: Mapping[str, Any], ranks: Sequence[Child], loaded: Sequence[Child], asking: Sequence[Child], records: IO[str]
) -> None:
    for child in loaded:
        child.tell({"do": "stop"})
    until = time.monotonic() + (plan["duration_s"] or 0) + _SETUP_DEADLINE_S
    flows: dict[str, Any] = {}
    for child in loaded:
        flows.update(child.hear(until)["flows"])
    if loaded:
        _write(records, event="flows", flows=flows)
    if asking:
        _write(records, event="answers", answers=_answers(asking, until))
    for child in (*ranks, *loaded, *asking):  # one after another, as they append to one file
        child.tell({"do": "report"})
        said = child.hear(until)
        _write(records, event="sockets", who=child.name, sockets=said["sockets"], watched=said["watched"])
    for child in (*ranks, *loaded, *asking):
        child.tell({"do": "end"})
    _write(records, event="end")


def _answers(asking: Sequence[Child], until: float) -> dict[str, Any]:
    """What came of all requests, once everybody has stopped; connections stay open, so that nobody finds the other end gone."""
    for child in asking:
        child.tell({"do": "stop"})
    found: dict[str, Any] = {}
    for child in asking:
        found.update(child.hear(until)["answers"])
    return found


def _release(children: Sequence[Child]) -> float:
    return time.monotonic() + _RELEASE_LEAD_S + _RELEASE_LEAD_PER_CHILD_S * len(children)


def _write(records: IO[str], **line: Any) -> None:
    records.write(json.dumps({"t": round(time.monotonic(), 6), **line}, separators=(",", ":")) + "\n")


@dataclass
class _Plugs:
    """The connections that one child takes part in, by whatever key its owner uses.

    `options` are each one's congestion control and mark, `mbps` the rate that its sender keeps to, None for all it can get.
    """

    outgoing: dict[Any, Endpoints]
    incoming: dict[Any, Endpoints]
    options: Callable[[Any], tuple[str, int]]
    mbps: Callable[[Any], float | None] = lambda _: None

    def open(self, channel: socket.socket) -> tuple[dict[Any, socket.socket], dict[Any, socket.socket]]:
        """Listen, then, when every child listens, connect and accept."""
        hear(channel)
        listeners = {key: listen_on(item.dst_ip, item.dst_port, *self.options(key)) for key, item in self.incoming.items()}
        tell(channel, did="listen")
        hear(channel)
        outgoing = {key: self._connected(key, item) for key, item in self.outgoing.items()}
        incoming = {key: accept_from(listeners[key], item) for key, item in self.incoming.items()}
        for listener in listeners.values():
            listener.close()
        tell(channel, did="connect")
        return outgoing, incoming

    def _connected(self, key: Any, item: Endpoints) -> socket.socket:
        """With its own rate from the first moment on: a controller may order another one as soon as it sees the connection."""
        channel = connect_from(item, *self.options(key))
        limit(channel, self.mbps(key))
        return channel


def _reports(ends: Mapping[Any, socket.socket], plugs: Mapping[Any, Endpoints], kind: str, role: str) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "role": role, "src_port": plugs[key].src_port, "dst_port": plugs[key].dst_port,
         "src_ip": plugs[key].src_ip, "dst_ip": plugs[key].dst_ip, **report(end).to_json()}
        for key, end in ends.items()
    ]  # fmt: skip


def _fork_ranks(
    plan: Mapping[str, Any], parts: Sequence[TrafficPart], namespaces: Mapping[str, int], children: list[Child]
) -> list[Child]:
    ends = {tuple(edge[:3]): Endpoints(**edge[3]) for edge in plan["edges"]}

    def body(part: TrafficPart, rank: int) -> Callable[[socket.socket], None]:
        own = {(src - part.first, dst - part.first, lane): item for (src, dst, lane), item in ends.items()}
        plugs = _Plugs(
            outgoing={(dst, lane): item for (src, dst, lane), item in own.items() if src == rank},
            incoming={(src, lane): item for (src, dst, lane), item in own.items() if dst == rank},
            options=lambda _: plan["sockets"][part.name][plan["ranks"][part.first + rank]],
        )
        return partial(_rank_body, plan, part, rank, plugs)

    def fork_one(part: TrafficPart, rank: int) -> Child:
        host = plan["ranks"][part.first + rank]
        whose = f" of {part.name}" if len(parts) > 1 else ""
        return fork(f"rank {rank}{whose} on {host}", namespaces[host], body(part, rank), children)

    return [fork_one(part, rank) for part in parts for rank in range(part.ranks)]


def _rank_body(plan: Mapping[str, Any], part: TrafficPart, rank: int, plugs: _Plugs, channel: socket.socket) -> None:
    outgoing, incoming = plugs.open(channel)
    schedules = part.schedules
    programs = [program(schedule, rank) for schedule in schedules]
    log = SocketLog(outgoing)
    data = np.zeros(0, part.dtype)
    late_s = part.late_ms.get(plan["ranks"][part.first + rank], 0.0) / 1000
    index = number = 0

    def prepare(iteration: int) -> None:
        nonlocal data, number
        number = iteration
        data = initial(rank, programs[index].elements, number, part.dtype, programs[index].scratch)

    def perform(deadline: float) -> dict[str, Any]:
        start = time.monotonic()
        time.sleep(late_s)
        played = play(programs[index], data, outgoing, incoming, deadline, log.turn)
        end = time.monotonic()
        faults = wrong(schedules[index], rank, number, data) if part.check else 0
        # [source rank, destination rank, channel, begin, seconds]
        silences = [[src, rank, lane, *one] for (src, lane), found in played.silences.items() for one in found]
        steps = {"begun": list(played.begun.items()), "done": list(played.done.items())} if plan["steps"] else {}
        return {"start": start, "end": end, "wrong": faults, "silences": silences, **steps}

    while (message := hear(channel, log.turn))["do"] != "end":
        if message["do"] == "prepare":
            index = message["schedule"]
            prepare(message["iteration"])
            tell(channel, did="prepare")
        elif message["do"] == "play":
            time.sleep(max(0.0, message["release"] - time.monotonic()))
            tell(channel, **perform(message["deadline"]))
        elif message["do"] == "pace":
            index = message["schedule"]
            keep_time(channel, _clock(plan, part, index), message["begin"], prepare, perform, log.turn)
        elif message["do"] == "report":
            sockets = _reports(outgoing, plugs.outgoing, "collective", "sender")
            sockets += _reports(incoming, plugs.incoming, "collective", "receiver")
            tell(channel, sockets=sockets, watched=log.write(_series_path(), "collective", plugs.outgoing))


def _fork_programs(plan: Mapping[str, Any], namespaces: Mapping[str, int], children: list[Child]) -> list[Child]:
    asked = Programs(**plan["programs"])
    Path(asked.output).mkdir(parents=True)
    return [fork(f"rank {rank} on {host}", namespaces[host], partial(serve, asked, rank), children) for rank, host in enumerate(asked.hosts)]


def _series_path() -> Path:
    return Path(os.environ["FABRIC_RUN"]) / FILE


def _fork_loaded_hosts(plan: Mapping[str, Any], namespaces: Mapping[str, int], children: list[Child]) -> list[Child]:
    hosts = dict.fromkeys(host for flow in plan["flows"] for host in (flow["src"], flow["dst"]))
    return [fork(f"the load on {host}", namespaces[host], partial(_load_body, plan, host), children) for host in hosts]


def _load_body(plan: Mapping[str, Any], host: str, channel: socket.socket) -> None:
    flows = dict(enumerate(plan["flows"]))
    plugs = _Plugs(
        outgoing={number: Endpoints(**flow["endpoints"]) for number, flow in flows.items() if flow["src"] == host},
        incoming={number: Endpoints(**flow["endpoints"]) for number, flow in flows.items() if flow["dst"] == host},
        options=lambda number: plan["sockets"][flows[number]["job"]][host],
        mbps=lambda number: flows[number]["mbps"],
    )
    outgoing, incoming = plugs.open(channel)
    log = SocketLog(outgoing)
    begin = hear(channel)
    counts = run_flows(
        outgoing, incoming, begin["begin"], lambda: hear(channel)["do"] == "stop", channel.fileno(), begin["end"], log.turn
    )
    if begin["end"] is not None:
        hear(channel)  # the stop that the coordinator sends in any case
    tell(channel, flows={number: count.to_json() for number, count in counts.items()})
    hear(channel)
    sockets = _reports(outgoing, plugs.outgoing, "load", "sender") + _reports(incoming, plugs.incoming, "load", "receiver")
    tell(channel, sockets=sockets, watched=log.write(_series_path(), "load", plugs.outgoing))
    hear(channel)


def _fork_asking(plan: Mapping[str, Any], namespaces: Mapping[str, int], children: list[Child]) -> list[Child]:
    hosts = dict.fromkeys(host for one in plan["askings"] for host in (one["asking"]["client"], one["asking"]["server"]))
    return [fork(f"the requests on {host}", namespaces[host], partial(_asking_body, plan, host), children) for host in hosts]


def _asking_body(plan: Mapping[str, Any], host: str, channel: socket.socket) -> None:
    every = {number: Asking(**one["asking"]) for number, one in enumerate(plan["askings"])}
    ends = {number: Endpoints(**one["endpoints"]) for number, one in enumerate(plan["askings"])}
    plugs = _Plugs(
        outgoing={number: ends[number] for number, one in every.items() if one.client == host},
        incoming={number: ends[number] for number, one in every.items() if one.server == host},
        options=lambda number: plan["sockets"][plan["askings"][number]["job"]][host],
    )
    outgoing, incoming = plugs.open(channel)
    log = SocketLog(outgoing)
    begin = hear(channel)
    clients, servers = ({number: (end, every[number]) for number, end in sockets.items()} for sockets in (outgoing, incoming))
    answers = ask_and_answer(
        clients, servers, begin["begin"], begin["end"], lambda: hear(channel)["do"] == "stop", channel.fileno(), log.turn
    )
    tell(channel, answers={number: asked.to_json() for number, asked in answers.items()})
    hear(channel)
    sockets = _reports(outgoing, plugs.outgoing, "requests", "sender") + _reports(incoming, plugs.incoming, "requests", "receiver")
    tell(channel, sockets=sockets, watched=log.write(_series_path(), "requests", plugs.outgoing))
    hear(channel)


if __name__ == "__main__":
    sys.exit(main())
