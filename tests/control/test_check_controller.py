"""`check-controller`: sound controllers pass, and a broken one is told exactly what is wrong with it, and where."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fabric.check_controller import Finding, check, request
from fabric.errors import RequestError
from fabric.openflow_proxy import spoilt
from fabric.paths import equal_cost_paths
from fabric.plugins import load, names
from fabric.policy import FlowKey, FlowView, LinkView, Reroute, View
from topologies.fat_tree import fat_tree

TEMPLATES = Path(__file__).parents[2] / "controllers" / "templates"
TWO_PODS = "fat-tree,k=2"  # p0e0h0 - p0e0 - p0a0 - g0c0 - p1a0 - p1e0 - p1e0h0
# A sound controller, which each broken one below breaks in one way.
SOUND = """from ryu.controller import ofp_event
from ryu.controller.handler import MAIN_DISPATCHER, set_ev_cls

from fabric.app import FabricApp
from fabric.openflow import Match, Output, Rule, flow_mod
from fabric.paths import next_hops

IN_PORT = 0xFFFFFFF8


class Mine(FabricApp):
    def sound(self, switch):
        for host, ports in next_hops(self.fabric)[switch.name].items():
            yield Rule(Match(ip_dst=self.fabric.host_by_name[host].ip), (Output(ports[0].number),))

"""
RULES = "    def rules(self, switch):\n        yield from self.sound(switch)\n"
LOOP = (
    RULES
    + """        far = self.fabric.host_by_name["p1e0h0"].ip
        if switch.name == "p0a0":
            yield Rule(Match(ip_dst=far), (Output(IN_PORT),), priority=200)
        if switch.name == "p0e0":
            yield Rule(Match(ip_dst=far, in_port=2), (Output(IN_PORT),), priority=200)
"""
)
BOUNCE = RULES + """        if switch.name == "p0a0":
            yield Rule(Match(in_port=1, ip_dst=self.fabric.host_by_name["p1e0h0"].ip), (Output(1),), priority=200)
"""
UNREACHABLE = """    def rules(self, switch):
        far = self.fabric.host_by_name["p1e0h0"].ip
        return (rule for rule in self.sound(switch) if switch.name != "g0c0" or rule.match.ip_dst != far)
"""
PORT_STATUS = RULES + """
    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def on_port(self, ev):
        raise KeyError("no such port")
"""
FORGETS = """    def rules(self, switch):
        known = self.__dict__.setdefault("known", set())
        first, _ = switch.name not in known, known.add(switch.name)
        return self.sound(switch) if first else ()
"""
COUNTERS = RULES + """
    @set_ev_cls(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    def on_counters(self, ev):
        self.left = [1 / (2**64 - 1 - stat.tx_bytes) for stat in ev.msg.body]
"""
TOO_MANY = RULES + """        for port in range(60):
            yield Rule(Match(in_port=1000 + port), ())
"""
RAISES = RULES + """
    def __init__(self, *args, **kwargs):
        raise ValueError("no such policy: fastest")
"""
LATER = RULES + """
    @set_ev_cls(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    def on_counters(self, ev):
        if any(5000 < stat.tx_bytes < 2**63 for stat in ev.msg.body):
            far = self.fabric.host_by_name["p1e0h0"].ip
            ev.msg.datapath.send_msg(flow_mod(Rule(Match(ip_dst=far), (), priority=300), ev.msg.datapath))
"""
ENDS = RULES + """
    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def on_port(self, ev):
        import os
        os._exit(3)
"""
REFUSED = RULES + """        yield Rule(Match(in_port=9), (), table=255)
"""


def findings(controller: str, topology: str, base: Path = Path(), max_rules: int = 50) -> dict[str, Finding]:
    """What the check finds on one topology, by check."""
    (report,) = check(request(controller, [], [topology], base, max_rules=max_rules, poll_ms=50))
    return {found.check: found for found in report.findings}


def failed(found: Mapping[str, Finding]) -> dict[str, str]:
    """The sentences of the checks that failed."""
    return {name: item.sentence for name, item in found.items() if item.verdict == "FAIL"}


@pytest.mark.parametrize("name", names("controller"))
def test_a_built_in_controller_passes(name: str) -> None:
    """On a fat-tree of 20 switches: no check fails, and the routes were really judged."""
    found = findings(name, "fat-tree,k=4", max_rules=2000)
    assert failed(found) == {}
    assert found["reachable"].sentence.startswith("all 240 pairs reach each other, over at most ")


def test_the_template_of_a_ryu_app_passes() -> None:
    """As a newcomer would run it: by its file."""
    found = findings("./my_ryu_app.py", "fat-tree,k=4", TEMPLATES)
    assert {item.verdict for item in found.values()} == {"PASS", "NOTE"} and len(found) == 10
    assert found["port down"].sentence.startswith("it does not repair: with the link ")


def test_the_template_of_a_policy_moves_a_flow_off_a_full_link() -> None:
    """From the fuller of two paths to the other, and not while none is full."""
    fabric = fat_tree(4)
    make = load("policy", "./my_policy.py:MyPolicy", TEMPLATES)
    key = FlowKey(fabric.hosts[0].ip, 20000, fabric.hosts[8].ip, 5001)
    used, *others = equal_cost_paths(fabric, fabric.hosts[0].name, fabric.hosts[8].name)
    flow = FlowView(key, fabric.hosts[0].name, fabric.hosts[8].name, used, 20.0)

    def decided(utilisation: float) -> list[Reroute]:
        links = {port: LinkView(port, 20.0, 20.0, utilisation if port == used[1] else 0.1) for port in fabric.peer}
        view = View(0.0, 0, 0.1, links, (flow,), lambda src, dst: equal_cost_paths(fabric, src, dst))
        return list(make().decide(view))

    (move,) = decided(1.0)
    assert move.flow == key and move.path in others and used[1] not in move.path
    assert decided(0.5) == []


@pytest.mark.parametrize("file", ["my_policy.py", "my_ryu_app.py"])
def test_a_template_fits_on_a_screen(file: str) -> None:
    """At most thirty lines; the Ryu app imports nothing of ours."""
    text = (TEMPLATES / file).read_text()
    assert len(text.splitlines()) <= 30
    assert file == "my_policy.py" or not re.search(r"^(from|import) (fabric|controllers|topologies)", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("broken", "failing", "said"),
    [
        pytest.param(LOOP, "reachable", "p0e0h0 to p1e0h0: it circles through p0a0 > p0e0 > p0a0", id="loop"),
        pytest.param(BOUNCE, "reachable", "p0a0 drops it: its rule names the port it came in by (1)", id="bounce"),
        pytest.param(UNREACHABLE, "reachable", "1 of 2 pairs do not: p0e0h0 to p1e0h0: g0c0 drops it", id="drop"),
        pytest.param(PORT_STATUS, "port down", "KeyError: 'no such port' (mine.py:21)", id="port status"),
        pytest.param(FORGETS, "reconnect", "p0e0 came back with empty tables: p0e0h0 to p1e0h0: p0e0 drops it", id="forgets"),
        pytest.param(COUNTERS, "counters", "ZeroDivisionError: division by zero (mine.py:21)", id="counters"),
        pytest.param(LATER, "over time", "while hosts sent: p0e0h0 to p1e0h0: ", id="breaks under load"),
        pytest.param(TOO_MANY, "tables", " holds 62 rules; accepted: 50", id="too many rules"),
        pytest.param(RAISES, "start", "it does not start: ValueError: no such policy: fastest (mine.py:20)", id="raises at start"),
        pytest.param(ENDS, "port down", "the controller ended", id="ends"),
        pytest.param(REFUSED, "messages", " a FLOW_MOD (", id="refused"),
    ],
)
def test_a_broken_controller_is_told_exactly_what_is_wrong(broken: str, failing: str, said: str, tmp_path: Path) -> None:
    """One check fails, the one that is about it, and its sentence names the place."""
    (tmp_path / "mine.py").write_text(SOUND + broken)
    wrong = failed(findings("./mine.py", TWO_PODS, tmp_path))
    assert wrong.keys() == {failing}
    assert said in wrong[failing]


def test_what_the_broken_ones_break_is_sound(tmp_path: Path) -> None:
    """Without its defect the same controller passes everything."""
    (tmp_path / "mine.py").write_text(SOUND + RULES)
    assert failed(findings("./mine.py", TWO_PODS, tmp_path)) == {}


def test_a_learning_switch_is_driven_by_packets_where_it_is_at_home() -> None:
    """It installs nothing at first; after packets all pairs have rules, also after a restart."""
    found = findings("ryu.app.simple_switch_13", "single-switch,hosts=4")
    assert failed(found) == {}
    assert "all 12 pairs reach each other" in found["reachable"].sentence and "(reactive)" in found["reachable"].sentence
    assert "each time: all 12 pairs reach each other" in found["reconnect"].sentence


def test_a_learning_switch_on_a_fabric_with_loops_is_sent_home() -> None:
    """Said in one line, and no check fails for it."""
    found = findings("ryu.app.simple_switch_13", "fat-tree,k=4")
    assert failed(found) == {} and found["reachable"].verdict == "NOTE"
    assert "it is at home on single-switch" in found["reachable"].sentence


def test_two_apps_in_a_file_fail_before_anything_starts(tmp_path: Path) -> None:
    """The only finding is about the classes."""
    (tmp_path / "twins.py").write_text(SOUND + RULES + "\n\nclass Other(FabricApp):\n    pass\n")
    found = findings("./twins.py", TWO_PODS, tmp_path)
    assert found.keys() == {"app"} and "Mine (line 11), Other (line" in found["app"].sentence


@pytest.mark.parametrize(
    ("controller", "overrides", "topology", "said"),
    [
        ("ecmpp", [], TWO_PODS, "no controller is called 'ecmpp'"),
        ("ecmp", [], "fat-tree,kk=4", "--topology fat-tree,kk=4: kk: got an unknown key"),
        ("ecmp", ["margin=1"], TWO_PODS, "--set: margin: got an unknown key"),
        ("./nowhere.py", [], TWO_PODS, "no file"),
    ],
)
def test_a_bad_request_is_refused(controller: str, overrides: list[str], topology: str, said: str) -> None:
    """With the option that is wrong, before anything starts."""
    with pytest.raises(RequestError, match=said):
        request(controller, overrides, [topology], Path())


@pytest.mark.parametrize(("broken", "code"), [(RULES, 0), (RAISES, 1)], ids=["sound", "broken"])
def test_the_verb_prints_one_object_and_exits_by_the_verdict(broken: str, code: int, tmp_path: Path) -> None:
    """Standard output holds nothing else."""
    (tmp_path / "mine.py").write_text(SOUND + broken)
    words = ["check-controller", "./mine.py", "--topology", "single-switch,hosts=2", "--poll-ms", "50", "--json"]
    command = [sys.executable, "-c", "from fabric.cli import main; main()", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    said = json.loads(done.stdout)
    assert said["passed"] is (code == 0)
    assert [report["topology"] for report in said["reports"]] == ["single-switch,hosts=2"]
    assert {"check", "verdict", "sentence"} == said["reports"][0]["findings"][0].keys()


def message(kind: int, body: bytes) -> bytes:
    """An OpenFlow 1.3 message."""
    return struct.pack("!BBHI", 4, kind, 8 + len(body), 1) + body


def reply(kind: int, *entries: bytes) -> bytes:
    """A multipart reply."""
    return message(19, struct.pack("!HH4x", kind, 0) + b"".join(entries))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            reply(4, *(struct.pack("!I4x12QII", port, *range(12), 5, 6) for port in (1, 2))),
            reply(4, *(struct.pack("!I4x12QII", port, *[2**64 - 1] * 12, 5, 6) for port in (1, 2))),
        ),
        (
            reply(1, *(struct.pack("!H30x2Q8s", 56, 7, 8, b"matching") for _ in range(2))),
            reply(1, *(struct.pack("!H30x2Q8s", 56, 2**64 - 1, 2**64 - 1, b"matching") for _ in range(2))),
        ),
        (reply(2, struct.pack("!2QI4x", 1, 2, 3)), reply(2, struct.pack("!2QI4x", 2**64 - 1, 2**64 - 1, 3))),
        (
            reply(6, struct.pack("!H14x2QII4Q", 72, 1, 2, 3, 4, 5, 6, 7, 8)),
            reply(6, struct.pack("!H14x2QII4Q", 72, 2**64 - 1, 2**64 - 1, 3, 4, *[2**64 - 1] * 4)),
        ),
        (
            message(11, struct.pack("!24x2Q8s", 1, 2, b"matching")),
            message(11, struct.pack("!24x2Q8s", 2**64 - 1, 2**64 - 1, b"matching")),
        ),
        (reply(13, b"anything"), reply(13, b"anything")),
        (message(10, b"a packet in"), message(10, b"a packet in")),
    ],
    ids=["port", "flow", "aggregate", "group", "flow removed", "no counters", "another message"],
)
def test_counters_are_spoilt_and_nothing_else(before: bytes, after: bytes) -> None:
    """Every counter reads 2^64 - 1; numbers, lengths, durations and matches stay as they were."""
    assert spoilt(before) == after
