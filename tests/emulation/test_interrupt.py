"""However a run ends, the machine is as it was; what ended it is named; and only one run is on a machine at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

LONG = """
question: What happens when it is broken off?
topology: {use: single-switch, hosts: 3}
links: {mbps: 10}
collective: {use: ring-allreduce, nbytes: 4KiB, iterations: 100000}
controller: {use: two-level}
"""


@dataclass(frozen=True)
class Running:
    """A run in the middle of its collective: its runner, its folder, and where its processes are found."""

    process: subprocess.Popen[str]
    folder: Path
    marked: Callable[[int], dict[int, str]]

    def pids(self, word: str) -> list[int]:
        """The processes of this run whose command line holds a word, oldest first."""
        return sorted(pid for pid, command in self.marked(self.process.pid).items() if word in command)

    def rank(self) -> int:
        """The process of a rank: a child of the coordinator."""
        for pid in self.pids("fabric.coordinator"):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children:
                return int(children[0])
        raise AssertionError("the coordinator has no children")


@pytest.fixture
def running(fabriclab: Any, start_alone: Any, wait: Any, marked: Any) -> Running:
    """A run that would go on for an hour, once its ranks have done an iteration."""
    out = fabriclab.folder / "out"
    process = start_alone(fabriclab, "run", str(fabriclab.file(LONG)), "--out", str(out), "--json")

    def iterating() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return any('"event":"iteration"' in path.read_text() for path in out.glob("*/points/*/traffic/records.jsonl"))

    wait(iterating, "the first iteration")
    (folder,) = out.iterdir()
    return Running(process, folder, marked)


def messages(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that the command itself says on standard error."""
    assert "Traceback" not in done.stderr, done.stderr
    return [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("fabriclab:")]


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGINT and again"])
def test_an_interrupted_run_takes_everything_down(
    state: Any, request: pytest.FixtureRequest, fabriclab: Any, wait: Any, how: str
) -> None:
    """Ctrl-C as a terminal sends it, once or impatiently, or SIGTERM: exit code 130, one line, nothing left behind.

    What was measured stays, in a folder without the mark of a finished run.
    """
    before = state()
    running: Running = request.getfixturevalue("running")
    if how == "SIGTERM":
        running.process.terminate()
    else:
        os.killpg(running.process.pid, signal.SIGINT)
    if how == "SIGINT and again":
        wait(lambda: not running.pids("fabric.coordinator"), "the end of the traffic")
        os.killpg(running.process.pid, signal.SIGINT)
    done = fabriclab.finish(running.process)
    assert done.returncode == 130
    assert messages(done) == ["fabriclab: interrupted; the network is down, what was measured until then is kept"]
    assert done.stdout == ""
    assert running.marked(running.process.pid) == {}
    assert state() == before
    assert not (running.folder / "finished.json").exists()
    (records,) = running.folder.glob("points/*/traffic/records.jsonl")
    assert json.loads(records.read_text().splitlines()[0])["event"] == "started"


def test_a_killed_run_is_cleaned_by_hand_and_refused_until_then(
    state: Any, request: pytest.FixtureRequest, fabriclab: Any
) -> None:
    """kill -9 leaves a state folder and changed sysctls: the next run names the remedy, and the remedy works."""
    before = state()
    running: Running = request.getfixturevalue("running")
    running.process.kill()
    fabriclab.finish(running.process)
    pid = running.process.pid
    try:
        assert state() != before
        refused = fabriclab.call("run", str(fabriclab.folder / "tiny.yaml"))
        assert refused.returncode == 3
        assert messages(refused) == [
            f"fabriclab: a killed run (process {pid}) left things behind; remove them with: fabriclab clean"
        ]
    finally:
        cleaned = fabriclab.call("clean")
    assert cleaned.returncode == 0, cleaned.stderr
    assert f"cleaned after run {pid}: " in cleaned.stdout
    assert state() == before
    assert fabriclab.call("clean").stdout.strip() == "nothing to clean"


@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("fabric.manager", "the controller was killed by signal 9"),
        ("ovs-vswitchd", "ovs-vswitchd ended by itself (code -9)"),
        ("ovsdb-server", "ovsdb-server ended by itself (code -9)"),
        ("rank", "the traffic stopped: rank 0 on h0 was killed by signal 9"),
        ("fabric.coordinator", "the traffic was killed by signal 9"),
        ("fabric.sampler", "the sampler was killed by signal 9"),
    ],
)
def test_a_process_that_is_killed_is_named(
    state: Any, request: pytest.FixtureRequest, fabriclab: Any, victim: str, said: str
) -> None:
    """Whichever part of a run dies: exit code 4 and a line that names it, and everything else is taken down."""
    before = state()
    running: Running = request.getfixturevalue("running")
    pid = running.rank() if victim == "rank" else running.pids(victim)[0]
    os.kill(pid, signal.SIGKILL)
    done = fabriclab.finish(running.process)
    assert done.returncode == 4, done.stderr
    (message,) = messages(done)
    assert said in message
    assert running.marked(running.process.pid) == {}
    assert state() == before


def test_a_rank_that_stalls_is_named(running: Running, fabriclab: Any) -> None:
    """As soon as its iteration's deadline is over, 20 s after its begin."""
    before = time.monotonic()
    os.kill(running.rank(), signal.SIGSTOP)
    done = fabriclab.finish(running.process)
    assert done.returncode == 4 and time.monotonic() - before < 45
    (message,) = messages(done)
    assert "the traffic stopped: rank 0 on h0 did not answer in time: it is stalled or starved" in message
    assert running.marked(running.process.pid) == {}


def test_a_second_run_is_refused_while_one_is_there(running: Running, fabriclab: Any) -> None:
    """Exit code 3, with the process of the first one; which goes on as if nothing had been."""
    second = fabriclab.call("run", str(fabriclab.folder / "tiny.yaml"), "--out", str(fabriclab.folder / "second"))
    assert second.returncode == 3
    assert messages(second) == [
        f"fabriclab: another run is using this machine (process {running.process.pid}); "
        "two at once would falsify each other's timing: wait for it or interrupt it"
    ]
    assert not (fabriclab.folder / "second").exists()
    assert running.process.poll() is None
    cleaned = fabriclab.call("clean")
    assert cleaned.returncode == 0 and cleaned.stdout.strip() == "nothing to clean"
    assert running.process.poll() is None
