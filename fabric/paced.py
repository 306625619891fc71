"""Jobs with clocks of their own: the ranks of a group compute, then communicate, and wait for no other group.

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

__all__ = ["Clock", "Pacer", "job_name", "keep_time"]

_AHEAD_S = 0.05  # a shift must be ordered so long before a round is due, or it is of the next one
_LATENESS_S = 2.0  # a rank reports its own time-out; it is allowed the moment to say what it waits for
_ORDER_S = 1.0


@dataclass(frozen=True, slots=True)
class Clock:
    """How jobs go by: `compute_s` before each communication, job number g beginning g x `stagger_s` later.

    `rounds` iterations of one size, each communication over in `deadline_s`; `first` is the number of the first of them.
    """

    compute_s: float
    stagger_s: float
    rounds: int
    deadline_s: float
    first: int = 0


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
        due = computed + delays[number]
        report = perform(due + clock.deadline_s)
        end = report["end"]
        tell(channel, round=number, due=due, delay_s=delays[number], **report)


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

    `write` takes each job's iterations, `beat` what the controller shall hear of them; orders come in at `desk`.
    """

    ranks: Sequence[Child]
    groups: int
    clock: Clock
    write: Callable[[int, int, Mapping[int, dict[str, Any]]], None]
    beat: Callable[[Beat], None]
    desk: socket.socket
    _reports: dict[tuple[int, int], dict[int, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    _heard: dict[int, float] = field(default_factory=dict)
    _latest: dict[int, int] = field(default_factory=lambda: defaultdict(lambda: -1))  # by group: the last round that a rank reported
    _due: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    _delays: dict[int, float] = field(default_factory=lambda: defaultdict(float))  # ordered, and still to come

    def run(self, begin: float) -> None:
        """Until every rank has reported every round; TrafficError when one failed or fell silent."""
        poll = select.poll()
        by_descriptor = {child.channel.fileno(): rank for rank, child in enumerate(self.ranks)}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        poll.register(self.desk, select.POLLIN)
        self._heard = dict.fromkeys(by_descriptor.values(), begin)
        left = self.clock.rounds * len(self.ranks)
        while left:
            for descriptor, _ in poll.poll(1000 * _ORDER_S):
                if descriptor in by_descriptor:
                    left -= 1
                    self._report(by_descriptor[descriptor])
                else:
                    self._take_order()
            self._ask_for_silent()

    def _report(self, rank: int) -> None:
        report = self.ranks[rank].hear(time.monotonic() + _ORDER_S)
        group, number = rank % self.groups, report["round"]
        self._heard[rank] = time.monotonic()
        if number == self.clock.rounds - 1:
            del self._heard[rank]
        self._latest[group] = max(self._latest[group], number)
        self._due[group] = max(self._due[group], report["end"] + self.clock.compute_s)  # of the next one
        reports = self._reports[group, number]
        reports[rank] = report
        if len(reports) == len(self.ranks) // self.groups:
            self.write(group, number, self._reports.pop((group, number)))
            release = max(one["due"] for one in reports.values())
            busy_s = max(one["end"] for one in reports.values()) - release
            self._delays[group] -= max(one["delay_s"] for one in reports.values())
            self.beat(Beat(job_name(group), self.clock.first + number, release, busy_s))

    def _ask_for_silent(self) -> None:
        now = time.monotonic()
        for rank, heard in self._heard.items():
            group = rank % self.groups
            allowed = self.clock.compute_s + group * self.clock.stagger_s + self._delays[group] + self.clock.deadline_s + _LATENESS_S
            if now - heard > allowed:
                raise TrafficError(f"{self.ranks[rank].name} did not answer in time: it is stalled or starved")

    def _next(self, group: int) -> int:
        """The first round of a job that is far enough ahead to be shifted."""
        number = self._latest[group] + 1
        return number if time.monotonic() + _AHEAD_S < self._due[group] else number + 1

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
            self._shift(order["job"], answer["iteration"] - self.clock.first, answer["delay_ms"] / 1000)

    def _planned(self, job: str, delay_ms: float) -> dict[str, Any]:
        """What will be done of an order, or why it will not."""
        groups = {job_name(group): group for group in range(self.groups)}
        if job not in groups:
            return {"error": f"there is no {job}; there are {', '.join(groups)}"}
        number = self._next(groups[job])
        if number >= self.clock.rounds:
            return {"error": f"{job} has only {self.clock.rounds} iterations of this size; a shift could begin with number {number + 1}"}
        return {"iteration": self.clock.first + number, "delay_ms": delay_ms}

    def _shift(self, job: str, number: int, delay_s: float) -> None:
        group = next(group for group in range(self.groups) if job_name(group) == job)
        self._delays[group] += delay_s
        for rank in range(group, len(self.ranks), self.groups):
            self.ranks[rank].tell({"do": "shift", "round": number, "delay_s": delay_s})
