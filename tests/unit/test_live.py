"""Looking in from outside: what is up, where a link is seen from, and that rows measured meanwhile say so."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fabric import live as room
from fabric.errors import MachineError, RequestError
from fabric.fidelity import Evidence, judge
from fabric.graph import Port
from fabric.live import Live, announced, live, port_between, watched_s
from fabric.ovs import OvsControl
from fabric.tcp import Endpoints
from fabric.tracing import Traced, chain, trace
from fabric.trails import Trail
from topologies.fat_tree import fat_tree
from topologies.rails import rail_only

ENDS = Endpoints("10.0.0.2", 4000, "10.3.1.3", 5001)
FABRIC = fat_tree(4)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of a run that is alive, on a machine where we may look."""
    monkeypatch.setattr(room, "STATE_ROOT", tmp_path)
    monkeypatch.setattr(room, "leftovers", lambda: [])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    folder = tmp_path / "4711"
    folder.mkdir()
    return folder


def test_what_is_up_is_found_while_it_is(state: Path, tmp_path: Path) -> None:
    """With its fabric, processes and connections; before and afterwards there is none, and the remedy is told."""
    with announced(state, tmp_path / "point", FABRIC, state / "ovs", {"": 1, "p0e0h0": 2}, {("p0e0h0", "p3e1h1"): ENDS}):
        up = live()
    assert (up.folder, up.ovs.folder, up.pids, up.connections) == (tmp_path / "point", state / "ovs", {"": 1, "p0e0h0": 2}, {("p0e0h0", "p3e1h1"): ENDS})
    assert up.fabric == FABRIC
    with pytest.raises(MachineError) as caught:
        live()
    assert str(caught.value) == "no network is up; begin a run, or fabriclab shell FILE, in another terminal, and look in while it lasts"


def test_who_may_not_look_is_told(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError, match="network namespaces need root; run the same command with sudo"):
        live()


def test_a_link_is_seen_from_its_switch() -> None:
    """Whichever way its ends are named; of two switches from the first."""
    assert port_between(FABRIC, "p0e0h0", "p0e0") == port_between(FABRIC, "p0e0", "p0e0h0") == FABRIC.peer[Port("p0e0h0", 0)]
    assert port_between(FABRIC, "p0a0", "p0e0") in FABRIC.ports_of["p0a0"]
    assert port_between(FABRIC, "p0e0", "p1e0") is None


def test_rows_that_somebody_looked_into_are_doubted(tmp_path: Path) -> None:
    """For as long as it fell into their window; nobody's looking is nothing."""
    up = Live(tmp_path, FABRIC, OvsControl(tmp_path), {}, {})
    assert watched_s(tmp_path, (0, 1e12)) is None
    with up.noted("trace"):
        pass
    with pytest.raises(RequestError), up.noted("a slip"):
        raise RequestError("no such host")
    (line,) = (tmp_path / "watched.jsonl").read_text().splitlines()
    assert json.loads(line)["what"] == "trace"
    (tmp_path / "watched.jsonl").write_text('{"what": "a", "begin": 1, "end": 4}\n{"what": "b", "begin": 8, "end": 20}\n')
    assert watched_s(tmp_path, (2, 10)) == 4 and watched_s(tmp_path, (30, 40)) is None
    verdict = judge(Evidence(watched_s=4.0))
    assert verdict.level == "WARN" and verdict.reasons == ("packets were captured or traced meanwhile, for 4.0 s, which takes time of the machine (WARN above 0)",)


@pytest.mark.parametrize(
    ("src", "dst", "words"),
    [("p0e0h9", "p1e0h0", "trace: got p0e0h9; accepted: a host that is up: p0e0h0, p0e0h1, p0e1h0, p0e1h1, ...; did you mean p0e0h1?"),
     ("p0e0h0", "p0e0h0", "trace: got p0e0h0 and p0e0h0; accepted: hosts that reach each other over the network; name another one")],
)  # fmt: skip
def test_hosts_that_cannot_be_traced_are_refused(tmp_path: Path, src: str, dst: str, words: str) -> None:
    """Before a packet is sent."""
    with pytest.raises(RequestError) as caught:
        trace(Live(tmp_path, FABRIC, OvsControl(tmp_path), {}, {}), src, dst)
    assert str(caught.value) == words


def test_hosts_of_one_server_have_no_path(tmp_path: Path) -> None:
    """What they send each other is in no network."""
    with pytest.raises(RequestError, match="accepted: hosts that reach each other over the network"):
        trace(Live(tmp_path, rail_only(4, 2), OvsControl(tmp_path), {}, {}), "n0r0", "n0r1")


WAY = (Port("a", 0), Port("s", 2))
OTHER = (Port("a", 0), Port("s", 3))


@pytest.mark.parametrize(
    ("arrived", "paths", "rules", "agrees"),
    [(20, ((WAY, 20),), Trail(WAY, "reached", Port("b", 0)), True), (19, ((WAY, 19),), Trail(WAY, "reached", Port("b", 0)), False),
     (20, ((OTHER, 20),), Trail(WAY, "reached", Port("b", 0)), False), (20, ((WAY, 12), (OTHER, 8)), Trail(WAY, "reached", Port("b", 0)), False),
     (0, (), Trail(WAY[:1], "dropped", Port("s", 1)), False)],
)  # fmt: skip
def test_only_one_way_that_all_went_agrees_with_the_rules(arrived: int, paths: tuple[tuple[tuple[Port, ...], int], ...], rules: Trail, agrees: bool) -> None:
    """What is lost, split, or elsewhere does not."""
    found = Traced("a", "b", "tcp", (1, 2), 20, arrived, paths, {}, 1.0, rules, 2)
    assert found.agrees is agrees and found.to_json()["agrees"] is agrees


def test_ports_that_saw_a_packet_are_put_in_order() -> None:
    """From link to link; a copy that went elsewhere is not lost."""
    way = [Port("p0e0h0", 0), Port("p0e0", 3), Port("p0a0", 1)]
    assert [FABRIC.peer[port].node for port in way] == ["p0e0", "p0a0", "p0e0"]  # and the last one is not its host's
    there = [Port("p0e0h0", 0), FABRIC.peer[Port("p0e1h0", 0)], *[port for port in FABRIC.ports_of["p0e0"] if FABRIC.peer[port].node == "p0a0"],
             *[port for port in FABRIC.ports_of["p0a0"] if FABRIC.peer[port].node == "p0e1"]]  # fmt: skip
    assert chain(FABRIC, there[0], there) == (there[0], there[2], there[3], there[1])
    astray = FABRIC.peer[Port("p3e1h1", 0)]
    assert chain(FABRIC, there[0], [*there, astray])[-1] == astray
