"""The congestion controller on real switches without root, and a desk that takes its orders as the agent would."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fabric.decisions import read_decisions
from fabric.desk import Desk, Refused
from fabric.hints import PLAN, Announced, Beat, announce, tell_beat
from fabric.lines import listening
from fabric.orders import described
from fabric.policy import Lever, SetPriority, SetTransport, Shift
from topologies.dumbbell import dumbbell
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch

STAR, TREE, BELL = single_switch(6), fat_tree(4), dumbbell(2)
WIRES = {"frame": 1514, "queue_bytes": 75_700, "floor": 0.05, "ecn": None, "transport": {host.name: {"rto_min_ms": 200} for host in STAR.hosts}}
POLICY_OF_ROUTES = {"policy": "priority"}


@dataclass
class Agent:
    """Stands in for hosts and ports: writes orders down, and refuses as often as it is told."""

    place: Path
    given: list[Lever] = field(default_factory=list)
    refusals: int = 0

    def do(self, lever: Lever) -> Any:
        """What the real one gives: what is in force."""
        self.given.append(lever)
        if self.refusals:
            self.refusals -= 1
            raise Refused("not now")
        if isinstance(lever, Shift):
            return {"iteration": 9, "delay_ms": lever.delay_ms}
        return described(lever)["asked"]

    @property
    def told(self) -> dict[str, Any]:
        """What the controller is told of it, of the links, and of where to listen for hints."""
        agent = {"socket": str(self.place / "agent"), "token": str(self.place / "token")}
        return {"agent": agent, "wires": WIRES, "hints": self.place / "hints", "mbps": 10.0}

    def hint(self, flows: list[Announced], phase: str) -> int:
        """Announce flows, and wait for the answer."""
        return announce(str(self.place / "hints"), flows, 10.0, phase)


@pytest.fixture
def agent() -> Iterator[Agent]:
    """A desk of its own, in a folder whose path is short enough for sockets."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Agent]:
        stand_in = Agent(folder)
        (folder / "token").write_text("a secret")
        with listening(folder / "agent") as listener:
            Thread(target=Desk(stand_in.do, "a secret", io.StringIO()).serve, args=(listener,), daemon=True).start()
            yield stand_in

    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as found:
        yield found


def ring(hosts: list[Any], job: str = "ring") -> list[Announced]:
    """Each host to the next."""
    return [
        Announced(a.ip, 20000 + n, b.ip, 5001 + n, 4096, 4, job) for n, (a, b) in enumerate(zip(hosts, hosts[1:] + hosts[:1], strict=True))
    ]


def log_of(running: Any, event: str) -> list[dict[str, Any]]:
    """The log's lines of one kind."""
    return [line for line in read_decisions(running.folder) if line["event"] == event]


def test_a_job_goes_first_before_its_first_byte(start: Any, agent: Agent) -> None:
    """The hint is answered when every order has been, and each stands in the log with its cause and what was read back."""
    flows = ring(list(STAR.hosts))
    with start(STAR, "controllers.congestion", parameters=POLICY_OF_ROUTES, **agent.told) as running:
        assert agent.hint(flows, "begin") == 6
        assert agent.given == [SetPriority(flow.key, True, "") for flow in sorted(flows, key=lambda flow: flow.key)]
        asked, done = log_of(running, "lever"), log_of(running, "lever-in-force")
        assert [line["on"] for line in asked] == [line["on"] for line in done] == [str(lever.flow) for lever in agent.given]  # type: ignore[union-attr]
        assert {(line["lever"], line["asked"]) for line in asked} == {("priority", True)} and all("ring" in line["reason"] for line in asked)
        assert {line["got"] for line in done} == {True}
        assert running.controller.exceptions() == 0


def test_jobs_that_meet_are_shifted_once(start: Any, agent: Agent, wait: Any) -> None:
    """Two that communicate at the same time over one link: one order, and none more while the shift is still to come."""
    ends = [[Announced(f"10.0.0.{n + 2}", 20000 + n, f"10.0.1.{n + 2}", 5001 + n, 480_000, 2, f"job.{n}")] for n in range(2)]
    told = {**agent.told, "wires": {**WIRES, "transport": {}}}
    with start(BELL, "controllers.congestion", parameters={"policy": "interleave", "options": {"route": False}}, **told) as running:
        agent.hint([flow for flows in ends for flow in flows], "begin")
        now = time.monotonic()
        for number, began in enumerate((now - 2.4, now - 1.2)):
            for job in ("job.0", "job.1"):
                tell_beat(str(agent.place / "hints"), Beat(job, number, began, 0.8), 5.0)
        wait(lambda: log_of(running, "lever-in-force"), "the shift")
        seen = (running.folder / "ports.jsonl").read_text().count("\n")
        wait(lambda: (running.folder / "ports.jsonl").read_text().count("\n") >= seen + 3, "three more rounds")
        (lever,) = agent.given
        assert isinstance(lever, Shift) and 300 < lever.delay_ms < 500
        assert running.controller.exceptions() == 0


def test_what_is_in_force_is_not_ordered_again(start: Any, agent: Agent, wait: Any) -> None:
    """Many turns later there are no more orders than flows."""
    with start(STAR, "controllers.congestion", parameters=POLICY_OF_ROUTES, **agent.told) as running:
        agent.hint(ring(list(STAR.hosts)), "begin")
        seen = (running.folder / "ports.jsonl").read_text().count("\n")
        wait(lambda: (running.folder / "ports.jsonl").read_text().count("\n") >= seen + 5, "five more rounds")
        assert len(agent.given) == 6


def test_what_was_refused_is_tried_again_and_believed_only_then(start: Any, agent: Agent, wait: Any) -> None:
    """The refusal is in the log, with the agent's reason; the hint does not wait for ever."""
    agent.refusals = 1
    with start(STAR, "controllers.congestion", parameters=POLICY_OF_ROUTES, **agent.told) as running:
        agent.hint(ring(list(STAR.hosts)), "begin")
        (refused,) = log_of(running, "lever-refused")
        assert refused["reason"] == "not now" and len(log_of(running, "lever-in-force")) == 5
        wait(lambda: len(log_of(running, "lever-in-force")) == 6, "the second try")
        assert len(agent.given) == 7 and str(agent.given[-1].flow) == refused["on"]  # type: ignore[union-attr]


def test_an_agent_that_is_gone_stops_nothing(start: Any, agent: Agent) -> None:
    """Flows are placed all the same, and the log says why they have no priority."""
    told = {**agent.told, "agent": {"socket": str(agent.place / "nobody"), "token": str(agent.place / "token")}}
    with start(STAR, "controllers.congestion", parameters=POLICY_OF_ROUTES, **told) as running:
        assert agent.hint(ring(list(STAR.hosts)), "begin") == 6
        assert {line["reason"][:22] for line in log_of(running, "lever-refused")} == {"the agent is not there"}
        assert running.controller.exceptions() == 0


def test_without_an_agent_nobody_waits_for_one(start: Any, agent: Agent) -> None:
    """As on fake switches, where a controller is only checked."""
    with start(STAR, "controllers.congestion", parameters=POLICY_OF_ROUTES, **{**agent.told, "agent": None}) as running:
        assert agent.hint(ring(list(STAR.hosts)), "begin") == 6
        assert {line["reason"][:24] for line in log_of(running, "lever-refused")} == {"nobody takes orders here"}
        assert running.controller.exceptions() == 0


def test_windows_are_set_before_connections_are_opened(start: Any, agent: Agent) -> None:
    """The plan of an incast is enough; there is no flow yet."""
    first, *others = STAR.hosts
    flows = [Announced(host.ip, 20000 + n, first.ip, 5001 + n, 8192, 1, "gather") for n, host in enumerate(others)]
    with start(STAR, "controllers.congestion", parameters={"policy": "incast-guard"}, **agent.told) as running:
        assert agent.given == []
        assert agent.hint(flows, PLAN) == 5
        assert [lever.host for lever in agent.given if isinstance(lever, SetTransport)] == [host.name for host in others]
        assert log_of(running, "flow") == []


def test_a_job_is_spread_and_goes_first(start: Any, agent: Agent) -> None:
    """The default does both: two flows of a job from one edge leave it by two uplinks, whatever the hash said."""
    hosts = TREE.host_by_name
    near, far = ("p0e0h0", "p0e0h1"), ("p1e0h0", "p1e1h0")
    with start(TREE, "controllers.congestion", **agent.told) as running:
        for number in range(8):
            flows = [
                Announced(hosts[a].ip, 20000 + 10 * number + n, hosts[b].ip, 5001, 4096, 4, "pair")
                for n, (a, b) in enumerate(zip(near, far, strict=True))
            ]
            agent.hint(flows, "begin")
        uplinks = [running.route(a, b, 20070 + n)[1] for n, (a, b) in enumerate(zip(near, far, strict=True))]
        assert len(agent.given) == 16 and all(isinstance(lever, SetPriority) for lever in agent.given)
        assert len(set(uplinks)) == 2
