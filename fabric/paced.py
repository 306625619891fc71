"""Jobs with clocks of their own: the ranks of one compute, then communicate, and wait for no other job.

`keep_time` is a rank's side, `Pacer` the coordinator's: it writes down each job's iterations, tells the controller of
them, and takes the orders to shift a job. Nothing of it crosses the fabric.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fabric.children import Child, TrafficError, hear, tell
from fabric.hints import Beat
from fabric.lines import read_line

__all__ = ["Clock", "Paced", "Pacer", "job_name", "keep_time"]

_AHEAD_S = 0.05  # a shift must be ordered so long before a round is due, or it is of the next one
_LATENESS_S = 2.0  # a rank reports its own time-out; it is allowed the moment to say what it waits for
_ORDER_S = 1.0


@dataclass(frozen=True, slots=True)
class Clock:
    """How a job goes by: `compute_s`, then a backward pass of `backward_s` in which `buckets` pieces become ready one after another.

    `rounds` iterations, the communication of each piece over in `deadline_s`; `first` is the number of the first of them.
    """

    compute_s: float
    rounds: int
    deadline_s: float
    first: int = 0
    backward_s: float = 0.0
    buckets: int = 1

    def ready(self, begin: float, bucket: int) -> float:
        """When a piece is there to be sent, in a backward pass that began at a moment."""
        return begin + self.backward_s * (bucket + 1) / self.buckets


@dataclass(frozen=True)
class Paced:
    """A job with a clock of its own: its ranks, by which numbers these go, and when it begins (CLOCK_MONOTONIC).

    It communicates `nbytes`, its first `warmup` rounds do not count, and with `announced` the controller hears of it.
    """

    name: str
    ranks: Sequence[Child]
    numbers: Sequence[int]
    clock: Clock
    begin: float
    nbytes: int = 0
    warmup: int = 0
    announced: bool = False


def job_name(group: int) -> str:
    """What a group of ranks with a clock of its own is called."""
    return f"job.{group}"


def keep_time(
    channel: socket.socket, clock: Clock, begin: float, prepare: Callable[[int], None], perform: Callable[[float], dict[str, Any]],
    turn: Callable[[], float],
) -> None:  # fmt: skip
    """One rank's rounds: compute from the end of the last one on, communicate, and report; `perform(deadline)` gives its `end`."""
    delays: dict[int, float] = defaultdict(float)
    end = begin
    for number in range(clock.rounds):
        prepare(number)
        computed = max(end + clock.compute_s, time.monotonic())
        _wait(channel, computed, delays, number, turn)
        begun = computed + delays[number]
        pieces: list[dict[str, Any]] = []
        for bucket in range(clock.buckets):
            if bucket:
                prepare(number)
            ready = clock.ready(begun, bucket)
            _compute_until(ready, turn)
            due = max(ready, time.monotonic()) if bucket else ready
            pieces.append({"due": due, **perform(due + clock.deadline_s)})
        end = max(pieces[-1]["end"], begun + clock.backward_s)
        tell(channel, round=number, begun=begun, delay_s=delays[number], pieces=pieces)


def _compute_until(moment: float, turn: Callable[[], float]) -> None:
    """Let time pass, but for what has to be done in turn."""
    while (left := moment - time.monotonic()) > 0:
        time.sleep(max(0.0, min(left, turn())))


def _wait(channel: socket.socket, computed: float, delays: dict[int, float], number: int, turn: Callable[[], float]) -> None:
    """Until a round may begin, whose own delay may still come; a delay of a round that has begun comes to nothing.

    That is fine while another rank of the job hears in time, as all wait for it.
    """
    while True:
        left = computed + delays[number] - time.monotonic()
        ready, _, _ = select.select([channel], [], [], max(0.0, min(left, turn())))
        if ready:
            shift = hear(channel)
            delays[shift["round"]] += shift["delay_s"]
        elif left <= 0:
            return


@dataclass
class Pacer:
    """Follows the ranks of all jobs through the rounds of one size.

    `write` takes each job's iterations, its ranks' reports by their numbers; `beat` what the controller shall hear of them;
    orders come in at `desk`.
    """

    jobs: Sequence[Paced]
    write: Callable[[Paced, int, Mapping[int, dict[str, Any]]], None]
    beat: Callable[[Paced, Beat], None]
    desk: socket.socket
    _reports: dict[tuple[str, int], dict[int, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    _heard: dict[str, float] = field(default_factory=dict)
    _latest: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))  # by job: the last round that a rank reported
    _due: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _delays: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # ordered, and still to come

    def run(self) -> None:
        """Until every rank has reported every round; TrafficError when one failed or fell silent."""
        poll = select.poll()
        by_descriptor = {child.channel.fileno(): (job, place) for job in self.jobs for place, child in enumerate(job.ranks)}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        poll.register(self.desk, select.POLLIN)
        self._heard = {child.name: job.begin for job in self.jobs for child in job.ranks}
        left = sum(job.clock.rounds * len(job.ranks) for job in self.jobs)
        while left:
            for descriptor, _ in poll.poll(1000 * _ORDER_S):
                if descriptor in by_descriptor:
                    left -= 1
                    self._report(*by_descriptor[descriptor])
                else:
                    self._take_order()
            self._ask_for_silent()

    def _report(self, job: Paced, place: int) -> None:
        child = job.ranks[place]
        report = child.hear(time.monotonic() + _ORDER_S)
        name, number = job.name, report["round"]
        self._heard[child.name] = time.monotonic()
        if number == job.clock.rounds - 1:
            del self._heard[child.name]
        end = max(report["pieces"][-1]["end"], report["begun"] + job.clock.backward_s)
        self._latest[name] = max(self._latest[name], number)
        self._due[name] = max(self._due[name], end + job.clock.compute_s)  # of the next one
        reports = self._reports[name, number]
        reports[job.numbers[place]] = report
        if len(reports) == len(job.ranks):
            self.write(job, number, self._reports.pop((name, number)))
            release = max(one["pieces"][0]["due"] for one in reports.values())
            busy_s = max(one["pieces"][-1]["end"] for one in reports.values()) - release
            self._delays[name] -= max(one["delay_s"] for one in reports.values())
            self.beat(job, Beat(name, job.clock.first + number, release, busy_s))

    def _ask_for_silent(self) -> None:
        now = time.monotonic()
        for job in self.jobs:
            clock = job.clock
            allowed = clock.compute_s + clock.backward_s + self._delays[job.name] + clock.buckets * clock.deadline_s + _LATENESS_S
            for child in job.ranks:
                if now - self._heard.get(child.name, now) > allowed:
                    raise TrafficError(f"{child.name} did not answer in time: it is stalled or starved")

    def _next(self, name: str) -> int:
        """The first round of a job that is far enough ahead to be shifted."""
        number = self._latest[name] + 1
        return number if time.monotonic() + _AHEAD_S < self._due[name] else number + 1

    def _take_order(self) -> None:
        channel, _ = self.desk.accept()
        with channel:
            channel.settimeout(_ORDER_S)
            try:
                order = json.loads(read_line(channel))
                answer = self._planned(order["job"], float(order["delay_ms"]))
                channel.sendall(json.dumps(answer).encode() + b"\n")
            except (OSError, ValueError, KeyError, TypeError):
                return  # who speaks nonsense, or has given up, gets nothing done; the jobs go on
        if "error" not in answer:
            job = next(job for job in self.jobs if job.name == order["job"])
            self._shift(job, answer["iteration"] - job.clock.first, answer["delay_ms"] / 1000)

    def _planned(self, name: str, delay_ms: float) -> dict[str, Any]:
        """What will be done of an order, or why it will not."""
        jobs = {job.name: job for job in self.jobs}
        if name not in jobs:
            return {"error": f"there is no {name}; there are {', '.join(jobs)}"}
        number, clock = self._next(name), jobs[name].clock
        if number >= clock.rounds:
            return {"error": f"{name} has only {clock.rounds} iterations of this size; a shift could begin with number {number + 1}"}
        return {"iteration": clock.first + number, "delay_ms": delay_ms}

    def _shift(self, job: Paced, number: int, delay_s: float) -> None:
        self._delays[job.name] += delay_s
        for child in job.ranks:
            child.tell({"do": "shift", "round": number, "delay_s": delay_s})
