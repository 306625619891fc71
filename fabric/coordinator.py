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
from math import inf
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fabric.background import run_flows
from fabric.hints import BEGIN, PLAN, Announced, announce
from fabric.kernel import die_with_parent, enter_namespace, namespace_of
from fabric.rank import expected, initial, play, program
from fabric.schedule import Schedule
from fabric.socketlog import FILE, SocketLog
from fabric.tcp import Endpoints, accept_from, connect_from, listen_on, report

_MESSAGE_LIMIT = 4 * 1024 * 1024
_SETUP_DEADLINE_S = 30.0
_RELEASE_LEAD_S = 0.004  # and a little for every child that has to be told
_RELEASE_LEAD_PER_CHILD_S = 0.0002


class TrafficError(Exception):
    """One line for the runner's user."""


@dataclass
class Child:
    """A forked process, the name a person knows it by, and the coordinator's end of its socket pair."""

    name: str
    pid: int
    channel: socket.socket

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message; a child that is gone is reported when it is next heard."""
        with contextlib.suppress(BrokenPipeError, ConnectionError):
            self.channel.send(json.dumps(message).encode())

    def hear(self, deadline: float) -> dict[str, Any]:
        """The child's next message; TrafficError when it failed, ended, or stays silent until `deadline`."""
        self.channel.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self.channel.recv(_MESSAGE_LIMIT)
        except TimeoutError:
            raise TrafficError(f"{self.name} did not answer in time: it is stalled or starved") from None
        except ConnectionError:
            data = b""
        if not data:
            raise TrafficError(f"{self.name} {_how_it_ended(self.pid)}")
        message: dict[str, Any] = json.loads(data)
        if "error" in message:
            raise TrafficError(f"{self.name}: {message['error']}")
        return message


def _how_it_ended(pid: int) -> str:
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"was killed by signal {os.WTERMSIG(status)}"
    return f"ended with code {os.WEXITSTATUS(status)}"


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
    loaded = _fork_loaded_hosts(plan, namespaces, children)
    deadline = time.monotonic() + _SETUP_DEADLINE_S
    for step in ("listen", "connect"):
        if ranks and plan["hints"] and step == "connect":
            _announce(plan, schedules, records, PLAN)
        for child in children:
            child.tell({"do": step})
        for child in children:
            child.hear(deadline)
    _write(records, event="started", children=len(children), took_s=time.monotonic() - started)
    begin = _release(children)
    if loaded:
        end = begin + plan["duration_s"] if plan["duration_s"] else None
        for child in loaded:
            child.tell({"do": "flow", "begin": begin, "end": end})
        _write(records, event="load", begin=begin, end=end)
        time.sleep(max(0.0, begin + plan["load_lead_s"] - time.monotonic()) if ranks else 0.0)
    if ranks:
        if plan["hints"]:
            _announce(plan, schedules, records, BEGIN)
        _iterate(plan, schedules, ranks, records)
    _finish(plan, ranks, loaded, records)


def _announce(plan: Mapping[str, Any], schedules: Sequence[Schedule], records: IO[str], phase: str) -> None:
    """Tell the controller the collective's connections and wait until it has dealt with them."""
    edges = {tuple(edge[:3]): edge[3] for edge in plan["edges"]}
    carried = {edge: [item for schedule in schedules[:1] for item in schedule.transfers if item.connection == edge] for edge in edges}
    flows = [
        Announced(**ends, nbytes=sum(item.nbytes for item in carried[edge]), transfers=len(carried[edge]))
        for edge, ends in edges.items()
    ]
    started = time.monotonic()
    try:
        placed = announce(plan["hints"], flows, _SETUP_DEADLINE_S, phase)
    except (OSError, ValueError) as err:
        raise TrafficError(f"the controller did not answer the collective's hints: {err}; does it take them? remove collective.hints") from err
    _write(records, event="hints" if phase == BEGIN else "plan", flows=len(flows), placed=placed, took_ms=1e3 * (time.monotonic() - started))


def _iterate(plan: Mapping[str, Any], schedules: Sequence[Schedule], ranks: Sequence[Child], records: IO[str]) -> None:
    for index, schedule in enumerate(schedules):
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
            _write(
                records, event="iteration", nbytes=schedule.nbytes, iteration=number, release=release,
                starts_ms=[1e3 * (item["start"] - release) for item in done],
                ends_ms=[1e3 * (item["end"] - release) for item in done],
                wrong=sum(item["wrong"] for item in done),
                silences=[line for item in done for line in item["silences"]],
            )  # fmt: skip


def _finish(plan: Mapping[str, Any], ranks: Sequence[Child], loaded: Sequence[Child], records: IO[str]) -> None:
    for child in loaded:
        child.tell({"do": "stop"})
    until = time.monotonic() + (plan["duration_s"] or 0) + _SETUP_DEADLINE_S
    flows: dict[str, Any] = {}
    for child in loaded:
        flows.update(child.hear(until)["flows"])
    if loaded:
        _write(records, event="flows", flows=flows)
    for child in (*ranks, *loaded):  # one after another, as they append to one file
        child.tell({"do": "report"})
        said = child.hear(until)
        _write(records, event="sockets", who=child.name, sockets=said["sockets"], watched=said["watched"])
    for child in (*ranks, *loaded):
        child.tell({"do": "end"})
    _write(records, event="end")


def _release(children: Sequence[Child]) -> float:
    return time.monotonic() + _RELEASE_LEAD_S + _RELEASE_LEAD_PER_CHILD_S * len(children)


def _write(records: IO[str], **line: Any) -> None:
    records.write(json.dumps({"t": round(time.monotonic(), 6), **line}, separators=(",", ":")) + "\n")


def _fork(name: str, namespace: int, body: Callable[[socket.socket], None], children: list[Child]) -> Child:
    """Fork a child into a namespace; it runs `body` with its end of a socket pair, and never returns."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_LIMIT)
    pid = os.fork()
    if pid == 0:
        _child(namespace, body, ours, theirs)
    theirs.close()
    child = Child(name, pid, ours)
    children.append(child)
    return child


def _child(namespace: int, body: Callable[[socket.socket], None], ours: socket.socket, theirs: socket.socket) -> None:
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(signal.SIGKILL)
        ours.close()
        enter_namespace(namespace)
        body(theirs)
        code = 0
    except (OSError, ValueError) as err:  # ConnectionError and TimeoutError are OSErrors
        with contextlib.suppress(OSError):
            theirs.send(json.dumps({"error": str(err) or type(err).__name__}).encode())
    finally:
        # Not sys.exit: the coordinator's own clean-up must not run twice.
        os._exit(code)


def _hear(channel: socket.socket, log: SocketLog | None = None) -> dict[str, Any]:
    """The coordinator's next message; while there is none, `log` has its turns."""
    if log:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        while (left_s := log.turn()) < inf and not poll.poll(1000 * left_s):
            pass
    data = channel.recv(_MESSAGE_LIMIT)
    if not data:
        os._exit(1)
    message: dict[str, Any] = json.loads(data)
    return message


def _tell(channel: socket.socket, **message: Any) -> None:
    channel.send(json.dumps(message).encode())


@dataclass
class _Plugs:
    """The connections that one child takes part in, by whatever key its owner uses; `options` are each one's congestion control and mark."""

    outgoing: dict[Any, Endpoints]
    incoming: dict[Any, Endpoints]
    options: Callable[[Any], tuple[str, int]]

    def open(self, channel: socket.socket) -> tuple[dict[Any, socket.socket], dict[Any, socket.socket]]:
        """Listen, then, when every child listens, connect and accept."""
        _hear(channel)
        listeners = {key: listen_on(item.dst_ip, item.dst_port, *self.options(key)) for key, item in self.incoming.items()}
        _tell(channel, did="listen")
        _hear(channel)
        outgoing = {key: connect_from(item, *self.options(key)) for key, item in self.outgoing.items()}
        incoming = {key: accept_from(listeners[key], item) for key, item in self.incoming.items()}
        for listener in listeners.values():
            listener.close()
        _tell(channel, did="connect")
        return outgoing, incoming


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
        _fork(f"rank {rank} on {host}", namespaces[host], body(rank), children) for rank, host in enumerate(plan["ranks"])
    ]


def _rank_body(
    plan: Mapping[str, Any], schedules: Sequence[Schedule], rank: int, plugs: _Plugs, channel: socket.socket
) -> None:
    outgoing, incoming = plugs.open(channel)
    parts = [program(schedule, rank) for schedule in schedules]
    log = SocketLog(outgoing)
    data = np.zeros(0, plan["dtype"])
    index = number = 0
    while (message := _hear(channel, log))["do"] != "end":
        if message["do"] == "prepare":
            index, number = message["schedule"], message["iteration"]
            data = initial(rank, parts[index].elements, number, plan["dtype"])
            _tell(channel, did="prepare")
        elif message["do"] == "play":
            time.sleep(max(0.0, message["release"] - time.monotonic()))
            start = time.monotonic()
            quiet = play(parts[index], data, outgoing, incoming, message["deadline"], log.turn)
            end = time.monotonic()
            wrong = _wrong(schedules[index], rank, number, data) if plan["check"] else 0
            # [source rank, destination rank, channel, begin, seconds]
            silences = [[src, rank, lane, *one] for (src, lane), found in quiet.items() for one in found]
            _tell(channel, start=start, end=end, wrong=wrong, silences=silences)
        elif message["do"] == "report":
            sockets = _reports(outgoing, plugs.outgoing, "collective", "sender")
            sockets += _reports(incoming, plugs.incoming, "collective", "receiver")
            _tell(channel, sockets=sockets, watched=log.write(_series_path(), "collective", plugs.outgoing))


def _series_path() -> Path:
    return Path(os.environ["FABRIC_RUN"]) / FILE


def _wrong(schedule: Schedule, rank: int, iteration: int, data: npt.NDArray[np.generic]) -> int:
    """How many elements of a rank's data are not its group's sum; none where the rank need not hold it."""
    if not schedule.holds_sum(rank):
        return 0
    dtype = str(data.dtype)
    right = expected(schedule.ranks, schedule.elements, iteration, dtype, groups=schedule.groups, rank=rank)
    return int(np.count_nonzero(data != right))


def _fork_loaded_hosts(plan: Mapping[str, Any], namespaces: Mapping[str, int], children: list[Child]) -> list[Child]:
    hosts = dict.fromkeys(host for flow in plan["flows"] for host in (flow["src"], flow["dst"]))
    return [_fork(f"the load on {host}", namespaces[host], partial(_load_body, plan, host), children) for host in hosts]


def _load_body(plan: Mapping[str, Any], host: str, channel: socket.socket) -> None:
    flows = dict(enumerate(plan["flows"]))
    plugs = _Plugs(
        outgoing={number: Endpoints(**flow["endpoints"]) for number, flow in flows.items() if flow["src"] == host},
        incoming={number: Endpoints(**flow["endpoints"]) for number, flow in flows.items() if flow["dst"] == host},
        options=lambda number: plan["sockets"][flows[number]["job"]][host],
    )
    outgoing, incoming = plugs.open(channel)
    senders = {number: (end, flows[number]["mbps"]) for number, end in outgoing.items()}
    log = SocketLog(outgoing)
    begin = _hear(channel)
    counts = run_flows(
        senders, incoming, begin["begin"], lambda: _hear(channel)["do"] == "stop", channel.fileno(), begin["end"], log.turn
    )
    if begin["end"] is not None:
        _hear(channel)  # the stop that the coordinator sends in any case
    _tell(channel, flows={number: count.to_json() for number, count in counts.items()})
    _hear(channel)
    sockets = _reports(outgoing, plugs.outgoing, "load", "sender") + _reports(incoming, plugs.incoming, "load", "receiver")
    _tell(channel, sockets=sockets, watched=log.write(_series_path(), "load", plugs.outgoing))
    _hear(channel)


if __name__ == "__main__":
    sys.exit(main())
