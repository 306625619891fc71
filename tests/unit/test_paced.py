"""Jobs with clocks of their own: nobody waits for another job, shifts come once and for all ranks, and silence is found."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from fabric.children import Child, TrafficError
from fabric.hints import Beat
from fabric.lines import ask, listening
from fabric.paced import Clock, Paced, Pacer, job_name, keep_time
from fabric.polling import until

RANKS, GROUPS = 4, 2
CLOCK = Clock(compute_s=0.12, rounds=5, deadline_s=5.0)


@dataclass
class Jobs:
    """Two jobs of two ranks on threads instead of hosts; each rank's `meet` stands for the communication of its job."""

    clock: Clock = CLOCK
    iterations: list[tuple[int, int, Mapping[int, dict[str, Any]]]] = field(default_factory=list)
    beats: list[Beat] = field(default_factory=list)
    when: Callable[[Beat], None] = lambda _: None
    meet: list[Callable[[], Any]] = field(default_factory=list)
    desk: Path = Path()

    def run(self) -> None:
        """All of it; the pacer runs here."""
        barriers = [Barrier(RANKS // GROUPS) for _ in range(GROUPS)]
        self.meet = self.meet or [barriers[rank % GROUPS].wait for rank in range(RANKS)]
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(RANKS)]
        begin = time.monotonic()
        for rank, (_, theirs) in enumerate(pairs):
            Thread(target=self._rank, args=(rank, theirs, begin), daemon=True).start()
        ranks = [Child(f"rank {rank}", 0, ours) for rank, (ours, _) in enumerate(pairs)]
        with self._listener() as listener:
            every = [Paced(job_name(one), ranks[one::GROUPS], range(one, RANKS, GROUPS), self.clock, begin) for one in range(GROUPS)]
            Pacer(every, self._write, self._beat, listener).run()

    @contextmanager
    def _listener(self) -> Iterator[socket.socket]:
        with tempfile.TemporaryDirectory() as folder:
            self.desk = Path(folder) / "desk"
            with listening(self.desk) as listener:
                yield listener

    def _rank(self, rank: int, channel: socket.socket, begin: float) -> None:
        def perform(_: float) -> dict[str, Any]:
            start = time.monotonic()
            self.meet[rank]()
            return {"start": start, "end": time.monotonic()}

        with suppress(BrokenPipeError):  # whom one waits for in vain, the others have left meanwhile
            keep_time(channel, self.clock, begin, lambda _: None, perform, lambda: inf)

    def _write(self, job: Paced, number: int, reports: Mapping[int, dict[str, Any]]) -> None:
        self.iterations.append((job.numbers[0], number, dict(reports)))

    def _beat(self, _: Paced, beat: Beat) -> None:
        self.beats.append(beat)
        self.when(beat)

    def order(self, job: str, delay_ms: float) -> tuple[Thread, list[dict[str, Any]]]:
        """Shift a job from another thread, as the agent would; the answer comes into the list."""
        answers: list[dict[str, Any]] = []
        asking = Thread(target=lambda: answers.append(ask(self.desk, {"job": job, "delay_ms": delay_ms}, 5.0)))
        asking.start()
        return asking, answers


def test_every_job_goes_through_all_its_rounds() -> None:
    """In order, with the computing before each, and each one told of."""
    jobs = Jobs()
    jobs.run()
    for group in range(GROUPS):
        own = [(number, reports) for which, number, reports in jobs.iterations if which == group]
        assert [number for number, _ in own] == list(range(CLOCK.rounds))
        assert all(reports.keys() == {group, group + GROUPS} for _, reports in own)
        for (_, before), (_, after) in pairwise(own):
            for rank, report in after.items():
                assert report["pieces"][0]["start"] >= before[rank]["pieces"][-1]["end"] + CLOCK.compute_s
        assert [beat.iteration for beat in jobs.beats if beat.job == f"job.{group}"] == list(range(CLOCK.rounds))


def test_no_job_waits_for_another() -> None:
    """One goes through all its rounds while the other stands still."""
    jobs, free = Jobs(), Event()
    others = Barrier(2)
    jobs.meet = [others.wait if rank % GROUPS == 0 else lambda: free.wait(5) for rank in range(RANKS)]
    jobs.when = lambda beat: free.set() if (beat.job, beat.iteration) == ("job.0", CLOCK.rounds - 1) else None
    jobs.run()
    assert [group for group, _, _ in jobs.iterations] == [0] * CLOCK.rounds + [1] * CLOCK.rounds


def test_a_shift_comes_once_and_to_all_ranks_of_the_job() -> None:
    """In the round that the answer names; the other job's are as they were."""
    jobs = Jobs()
    asked: list[tuple[Thread, list[dict[str, Any]]]] = []
    jobs.when = lambda beat: asked.append(jobs.order("job.1", 80.0)) if (beat.job, beat.iteration) == ("job.1", 0) else None
    jobs.run()
    ((asking, answers),) = asked
    asking.join(5)
    (answer,) = answers
    assert answer["delay_ms"] == 80.0 and answer["iteration"] in (1, 2)  # 2 where this machine slept through the first computing
    delays = {(group, number): {report["delay_s"] for report in reports.values()} for group, number, reports in jobs.iterations}
    assert delays.pop((1, answer["iteration"])) == {0.08}
    assert set().union(*delays.values()) == {0.0}


@pytest.mark.parametrize(
    ("job", "on", "why"),
    [("job.7", 0, "there is no job.7; there are job.0, job.1"), ("job.0", CLOCK.rounds - 1, "has only 5 iterations")],
)
def test_what_cannot_be_shifted_is_refused(job: str, on: int, why: str) -> None:
    """With the reason, and the jobs go on."""
    jobs = Jobs()
    asked: list[tuple[Thread, list[dict[str, Any]]]] = []
    jobs.when = lambda beat: asked.append(jobs.order(job, 80.0)) if (beat.job, beat.iteration) == ("job.0", on) else None
    others = Barrier(2)
    # The second job's ranks hold on, so that somebody still answers when the first job is over.
    jobs.meet = [others.wait if rank % GROUPS == 0 else lambda: until(lambda: asked and asked[0][1], 5.0) for rank in range(RANKS)]
    jobs.run()
    ((asking, answers),) = asked
    asking.join(5)
    assert why in answers[0]["error"]
    assert len(jobs.iterations) == GROUPS * CLOCK.rounds


def test_an_order_that_was_given_up_is_not_carried_out() -> None:
    """Who asked has said that it was refused: it must not happen after all."""
    jobs = Jobs()

    def hang_up(beat: Beat) -> None:
        if (beat.job, beat.iteration) == ("job.0", 0):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.connect(str(jobs.desk))
                channel.sendall(json.dumps({"job": "job.1", "delay_ms": 80.0}).encode() + b"\n")

    jobs.when = hang_up
    jobs.run()
    assert {report["delay_s"] for _, _, reports in jobs.iterations for report in reports.values()} == {0.0}


def test_who_speaks_nonsense_gets_no_answer() -> None:
    """And the jobs go on."""
    jobs = Jobs()

    def babble(beat: Beat) -> None:
        if (beat.job, beat.iteration) == ("job.0", 0):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.connect(str(jobs.desk))
                channel.sendall(json.dumps([1]).encode() + b"\n")

    jobs.when = babble
    jobs.run()
    assert len(jobs.iterations) == GROUPS * CLOCK.rounds


def test_a_rank_that_falls_silent_is_named() -> None:
    """In bounded time, whatever the other jobs do."""
    jobs = Jobs(clock=Clock(0.02, 40, deadline_s=0.1))
    others, never = Barrier(2), Event()
    jobs.meet = [others.wait if rank % GROUPS == 0 else lambda: never.wait(8) for rank in range(RANKS)]
    began = time.monotonic()
    with pytest.raises(TrafficError, match=r"rank [13] did not answer in time"):
        jobs.run()
    assert time.monotonic() - began < 6


def test_pieces_go_as_the_backward_pass_makes_them() -> None:
    """None before it is ready, none before the one before it is through; the next round's computing begins when both are over."""
    clock = Clock(0.02, 3, deadline_s=5.0, backward_s=0.2, buckets=4)
    jobs = Jobs(clock=clock)
    jobs.run()
    assert len(jobs.iterations) == GROUPS * clock.rounds
    for _, number, reports in jobs.iterations:
        for rank, report in reports.items():
            pieces = report["pieces"]
            assert len(pieces) == clock.buckets
            assert all(one["start"] >= clock.ready(report["begun"], bucket) for bucket, one in enumerate(pieces))
            assert all(later["start"] >= earlier["end"] for earlier, later in pairwise(pieces))
            (later,) = [found[rank] for _, n, found in jobs.iterations if n == number + 1 and rank in found] or [None]
            assert later is None or later["begun"] >= report["begun"] + clock.backward_s + clock.compute_s


def test_pieces_that_take_long_wait_for_each_other() -> None:
    """What is not through in the backward pass goes on after it."""
    jobs = Jobs(clock=Clock(0.0, 1, deadline_s=5.0, backward_s=0.04, buckets=4))
    jobs.meet = [lambda: time.sleep(0.1) for _ in range(RANKS)]
    jobs.run()
    for _, _, reports in jobs.iterations:
        for report in reports.values():
            assert report["pieces"][-1]["end"] - report["begun"] >= 0.01 + 4 * 0.1
