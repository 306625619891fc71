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
from dataclasses import dataclass, replace
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
from fabric.paced import Clock, Pacer, job_name, keep_time
from fabric.programs import Programs, serve
from fabric.rank import initial, play, program, wrong
from fabric.schedule import Schedule
from fabric.socketlog import FILE, SocketLog
from fabric.steps import append_steps
from fabric.tcp import Endpoints, accept_from, connect_from, listen_on, report

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
    schedules = [Schedule.from_json(item) for item in plan["schedules"]]
    namespaces = {host: namespace_of(pid) for host, pid in plan["host_pids"].items()}
    gc.collect()
    gc.freeze()  # so that children share the pages
    ranks = _fork_ranks(plan, schedules, namespaces, children)
    programs = _fork_programs(plan, namespaces, children) if plan["programs"] else []
    loaded = _fork_loaded_hosts(plan, namespaces, children)
    asking = _fork_asking(plan, namespaces, children)
    deadline = time.monotonic() + _SETUP_DEADLINE_S
    for step in ("listen", "connect"):
        if ranks and plan["hints"] and step == "connect":
            _announce(plan, schedules[0], records, PLAN)
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
        (_pace if plan["clock"] else _iterate)(plan, schedules, ranks, records)
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


def _announce(plan: Mapping[str, Any], schedule: Schedule, records: IO[str], phase: str) -> None:
    """Tell the controller the connections, and what each carries in an iteration, and wait until it has dealt with them."""
    edges = {tuple(edge[:3]): edge[3] for edge in plan["edges"] if edge[:3] not in plan["inside"]}
    carried = {edge: [item for item in schedule.transfers if item.connection == edge] for edge in edges}
    flows = [
        Announced(**ends, nbytes=sum(item.nbytes for item in carried[edge]), transfers=len(carried[edge]), job=_job(plan, schedule, edge[0]))
        for edge, ends in edges.items()
    ]
    started = time.monotonic()
    try:
        placed = announce(plan["hints"], flows, _SETUP_DEADLINE_S, phase)
    except (OSError, ValueError) as err:
        raise TrafficError(f"the controller did not answer the collective's hints: {err}; does it take them? remove collective.hints") from err
    _write(records, event="hints" if phase == BEGIN else "plan", flows=len(flows), placed=placed, took_ms=1e3 * (time.monotonic() - started))


def _job(plan: Mapping[str, Any], schedule: Schedule, rank: int) -> str:
    """The job that a rank belongs to: its group where each has a clock of its own."""
    return job_name(rank % schedule.groups) if plan["clock"] else "collective"


def _iterate(plan: Mapping[str, Any], schedules: Sequence[Schedule], ranks: Sequence[Child], records: IO[str]) -> None:
    count = 0
    for index, schedule in enumerate(schedules):
        if plan["hints"]:
            _announce(plan, schedule, records, BEGIN)
        for number in range(-plan["warmup"], plan["iterations"]):
            for child in ranks:
                child.tell({"do": "prepare", "schedule": index, "iteration": number})
            for child in ranks:
                child.hear(time.monotonic() + _SETUP_DEADLINE_S)
            release = _release(ranks)
            if index == 0 and number == -plan["warmup"]:
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


def _pace(plan: Mapping[str, Any], schedules: Sequence[Schedule], ranks: Sequence[Child], records: IO[str]) -> None:
    """Each group by its own clock, through all iterations of a size; then the next size."""

    def write(schedule: Schedule, group: int, number: int, reports: Mapping[int, dict[str, Any]]) -> None:
        release = max(one["due"] for one in reports.values())
        members = sorted(reports)
        _write(
            records, event="iteration", nbytes=schedule.nbytes, iteration=number - plan["warmup"], job=job_name(group), release=release,
            ranks=members, starts_ms=[1e3 * (reports[rank]["start"] - release) for rank in members],
            ends_ms=[1e3 * (reports[rank]["end"] - release) for rank in members],
            delayed_ms=1e3 * max(one["delay_s"] for one in reports.values()), wrong=sum(one["wrong"] for one in reports.values()),
            silences=[line for rank in members for line in reports[rank]["silences"]],
        )  # fmt: skip

    rounds = plan["warmup"] + plan["iterations"]
    clock = Clock(**plan["clock"], rounds=rounds, deadline_s=plan["iteration_deadline_s"])
    for index, schedule in enumerate(schedules):
        if plan["hints"]:
            _announce(plan, schedule, records, BEGIN)
        begin = _release(ranks)
        if index == 0:
            _write(records, event="release", release=begin)
        for rank, child in enumerate(ranks):
            child.tell({"do": "pace", "schedule": index, "begin": begin + rank % schedule.groups * clock.stagger_s})
        with contextlib.closing(listening(Path(plan["desk"]))) as desk:  # nobody waits at it who is not served
            own = replace(clock, first=index * rounds)
            Pacer(ranks, schedule.groups, own, partial(write, schedule), partial(_beat, plan, records), desk).run(begin)


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
    plan: Mapping[str, Any], schedules: Sequence[Schedule], namespaces: Mapping[str, int], children: list[Child]
) -> list[Child]:
    edges = [(src, dst, channel, Endpoints(**endpoints)) for src, dst, channel, endpoints in plan["edges"]]

    def body(rank: int) -> Callable[[socket.socket], None]:
        plugs = _Plugs(
            outgoing={(dst, lane): item for src, dst, lane, item in edges if src == rank},
            incoming={(src, lane): item for src, dst, lane, item in edges if dst == rank},
            options=lambda _: plan["sockets"]["collective"][plan["ranks"][rank]],
        )
        return partial(_rank_body, plan, schedules, rank, plugs)

    return [
        fork(f"rank {rank} on {host}", namespaces[host], body(rank), children) for rank, host in enumerate(plan["ranks"])
    ]


def _rank_body(
    plan: Mapping[str, Any], schedules: Sequence[Schedule], rank: int, plugs: _Plugs, channel: socket.socket
) -> None:
    outgoing, incoming = plugs.open(channel)
    parts = [program(schedule, rank) for schedule in schedules]
    log = SocketLog(outgoing)
    data = np.zeros(0, plan["dtype"])
    late_s = plan["late_ms"].get(plan["ranks"][rank], 0.0) / 1000
    index = number = 0

    def prepare(iteration: int) -> None:
        nonlocal data, number
        number = iteration
        data = initial(rank, parts[index].elements, number, plan["dtype"], parts[index].scratch)

    def perform(deadline: float) -> dict[str, Any]:
        start = time.monotonic()
        time.sleep(late_s)
        played = play(parts[index], data, outgoing, incoming, deadline, log.turn)
        end = time.monotonic()
        faults = wrong(schedules[index], rank, number, data) if plan["check"] else 0
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
            clock = Clock(**plan["clock"], rounds=plan["warmup"] + plan["iterations"], deadline_s=plan["iteration_deadline_s"])
            keep_time(channel, clock, message["begin"], prepare, perform, log.turn)
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
