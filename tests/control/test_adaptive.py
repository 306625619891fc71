"""The adaptive controller on real switches without root: SYNs come in, links are cut, controllers die and come back.

Links join no switches here, so a flow is its SYN at the edge, and counts as active while the SYN's grace and linger last.
"""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from fabric.decisions import interfaces, read_decisions
from fabric.graph import Port
from fabric.installed import installed_path
from fabric.paths import Path as Route
from fabric.paths import equal_cost_paths
from fabric.tcp import Endpoints
from fabric.trails import trails
from fabric.unrooted import packet
from topologies.fat_tree import fat_tree

FABRIC = fat_tree(4)
ADAPTIVE = "controllers.adaptive"
# Flows stay active for the whole test after their SYN, so that what moves them is the test's doing alone.
LASTING = {"linger_ms": 60_000, "hold_ms": 100, "flow_poll_ms": 100}
POLL_MS = 100
QUANTILE_3 = 16.27  # 99.9 % of the chi-square distribution with 3 degrees of freedom
UPWARD, DOWNWARD = Port("p0e0", 3), Port("g0c0", 2)  # to an aggregation switch; from a core to pod 1
PAIRS = list(permutations([host.name for host in FABRIC.hosts], 2))

Flow = tuple[str, str, int, int]  # source, destination, and their ports


def cut(*ports: Port) -> list[Port]:
    """Both ends of links."""
    return [end for port in ports for end in (port, FABRIC.peer[port])]


def syn(running: Any, flow: Flow) -> None:
    """Let a flow's first segment come in at its edge switch."""
    running.receive(FABRIC.peer[FABRIC.ports_of[flow[0]][0]].interface, packet(FABRIC, *flow))


def name_of(flow: Flow) -> str:
    """A flow as the log names it."""
    src, dst = (FABRIC.host_by_name[name].ip for name in flow[:2])
    return f"{src}:{flow[2]}>{dst}:{flow[3]}"


def log_of(running: Any, event: str, *flows: Flow) -> list[dict[str, Any]]:
    """The log's lines of one kind, only those about these flows if there are any."""
    names = {name_of(flow) for flow in flows}
    return [line for line in read_decisions(running.folder) if line["event"] == event and (not names or line["flow"] in names)]


def rounds(running: Any) -> int:
    """How many rounds of counters were told so far."""
    return (running.folder / "ports.jsonl").read_text().count("\n")


def after_rounds(running: Any, wait: Any, number: int) -> None:
    """Return when this many more rounds were told, so that the controller has looked again."""
    due = rounds(running) + number
    wait(lambda: rounds(running) >= due, f"{number} rounds of counters")


def moves_of(running: Any, flow: Flow) -> list[dict[str, Any]]:
    """The moves of a flow, but for its first placement where a slow switch had not said yet where it was hashed."""
    return [line for line in log_of(running, "reroute", flow) if "it was not known where" not in line["reason"]]


def routes_of(running: Any, flows: Sequence[Flow]) -> list[Route]:
    """Their installed paths; every one is there."""
    with ThreadPoolExecutor(16) as workers:
        found = list(workers.map(lambda flow: running.route(*flow), flows))
    assert None not in found
    return found


def entered(running: Any, flow: Flow) -> tuple[tuple[str, str], ...]:
    """What decides a flow's path, as its edge switch says: the port it is sent out of, and the first byte of its label."""
    near, (src, dst) = FABRIC.peer[FABRIC.ports_of[flow[0]][0]], (FABRIC.host_by_name[name] for name in flow[:2])
    words = f"in_port={near.number},tcp,nw_src={src.ip},nw_dst={dst.ip},tp_src={flow[2]},tp_dst={flow[3]}"
    text = running.ovs.appctl("ofproto/trace", near.node, words)
    return tuple(re.findall(r"(?:^ *output:(\d+)$|^Final flow:.*dl_dst=(\w\w))", text, re.MULTILINE))


def placed_at(running: Any, switch: str) -> list[str]:
    """The rules of placed flows in a switch."""
    return [rule for rule in running.flows(switch) if rule.startswith("table_id=2, priority=200,")]


def lasting(running: Any, switch: str) -> list[str]:
    """A switch's rules without those that it learns and forgets by itself."""
    return [rule for rule in running.flows(switch) if not rule.startswith("table_id=1,")]


def colliding(running: Any, first: str, second: str, port: int) -> tuple[Flow, Flow]:
    """Two flows from two hosts of edge p0e0, which its hash sends out of the same uplink."""
    one = (first, "p1e0h0", port, 5001)
    uplink = running.route(*one)[1]
    others = ((second, "p2e0h0", number, 5001) for number in range(port + 1, port + 100))
    return one, next(flow for flow in others if running.route(*flow)[1] == uplink)


def parted(running: Any, wait: Any, first_port: int) -> tuple[tuple[Flow, Flow], dict[Flow, Route]]:
    """Two flows that collided and were parted, and where they had been hashed.

    Others are tried where the switch was too slow to say where that is, so that they were placed without their being known. Rules of
    placed flows go when they are idle for 50 s: a test that needs some makes its own.
    """
    for port in range(first_port, first_port + 500, 100):
        flows = colliding(running, "p0e0h0", "p0e0h1", port)
        hashed = dict(zip(flows, routes_of(running, flows), strict=True))
        for flow in flows:
            syn(running, flow)
        wait(lambda flows=flows: log_of(running, "reroute", *flows), "a reroute")
        after_rounds(running, wait, 3)
        if log_of(running, "reroute", *flows) == [line for flow in flows for line in moves_of(running, flow)]:
            break
    return flows, hashed


def no_errors(running: Any) -> bool:
    """Whether the controller's log holds neither a traceback nor a message that a switch refused."""
    return running.controller.exceptions() == 0 and " ERROR " not in (running.folder / "manager.log").read_text()


def reached(running: Any, down: Sequence[Port] = ()) -> dict[str, int]:
    """How the first segments between all pairs end, by kind."""
    return Counter(trail.end for trail in trails(running.ovs, FABRIC, PAIRS, down).values())


@pytest.fixture(scope="module")
def running(start: Any) -> Iterator[Any]:
    """The adaptive controller on a fat-tree with four paths between pods."""
    with start(FABRIC, ADAPTIVE, parameters=LASTING, poll_ms=POLL_MS) as running:
        yield running


@pytest.fixture
def fresh(start: Any) -> Iterator[Any]:
    """The same for one test, which finds no flows of others'."""
    with start(FABRIC, ADAPTIVE, parameters=LASTING, poll_ms=POLL_MS) as running:
        yield running


def test_every_host_reaches_every_other_over_a_shortest_path(running: Any) -> None:
    """All 240 pairs, before any flow was seen."""
    ends = trails(running.ovs, FABRIC, PAIRS)
    assert {trail.end for trail in ends.values()} == {"reached"}
    assert Counter(len(trail.path) for trail in ends.values()) == {2: 16, 4: 32, 6: 192}


def test_the_path_of_udp_can_be_asked_for(running: Any) -> None:
    """It is hashed by its ports, from edge to edge, as the probes of failures rely on."""
    src, dst = "p0e0h0", "p1e0h0"
    ends = [Endpoints(FABRIC.host_by_name[src].ip, port, FABRIC.host_by_name[dst].ip, 4000) for port in range(30000, 30024)]
    paths = [installed_path(running.ovs, FABRIC, src, dst, one, "udp") for one in ends]
    assert set(paths) <= set(equal_cost_paths(FABRIC, src, dst))
    assert len(set(paths)) == 4


def test_unplaced_flows_spread_evenly_over_the_cores(running: Any) -> None:
    """1,000 flows from pod 0 to pod 1 between random ports: chi-square of the four cores below its 99.9 % quantile."""
    draw = random.Random(1)
    pods = [[host.name for host in FABRIC.hosts if host.position[0] == pod] for pod in (0, 1)]
    flows = [(draw.choice(pods[0]), draw.choice(pods[1]), draw.randint(20000, 60000), draw.randint(5001, 9000)) for _ in range(1000)]
    with ThreadPoolExecutor(16) as workers:
        cores = Counter(workers.map(lambda flow: entered(running, flow), flows))
    assert len(cores) == 4
    assert sum((count - 250) ** 2 / 250 for count in cores.values()) < QUANTILE_3


def test_the_controllers_folder_holds_no_experiment(running: Any) -> None:
    """The topology and its own setup come in; nothing else than what it wrote itself is there to be read."""
    found = {path.name for path in running.folder.iterdir()}
    assert found == {"topology.json", "controller.json", "listening", "ready", "ports.jsonl", "decisions.jsonl", "manager.log"}
    assert json.loads((running.folder / "controller.json").read_text())["parameters"] == LASTING


def test_a_syn_is_seen_by_the_controller(running: Any, wait: Any) -> None:
    """Once, with its hosts, on the signal `syn`; it needs no rule of its own while it has its links for itself.

    Unless the switch was slow to say where its hash had put it.
    """
    flow = ("p3e1h0", "p2e1h1", 30000, 5001)
    syn(running, flow)
    wait(lambda: log_of(running, "flow", flow), "the flow in the log")
    syn(running, flow)
    after_rounds(running, wait, 3)
    (line,) = log_of(running, "flow", flow)
    assert (line["src"], line["dst"], line["signal"]) == ("p3e1h0", "p2e1h1", "syn")
    assert moves_of(running, flow) == []


def test_two_flows_that_collide_are_parted(fresh: Any, wait: Any) -> None:
    """One of them is moved, once; every switch confirms; the switches hold the path that the log names."""
    flows, hashed = parted(fresh, wait, 31000)
    wait(lambda: log_of(fresh, "in-force"), "all barriers")
    after_rounds(fresh, wait, 10)
    (move,) = log_of(fresh, "reroute", *flows)
    (moved,) = (flow for flow in flows if name_of(flow) == move["flow"])
    assert move["old"] == interfaces(hashed[moved]) and move["new"] == interfaces(fresh.route(*moved))
    one, other = routes_of(fresh, flows)
    assert set(one[1:-1]).isdisjoint(other[1:-1])
    assert (move["signal"], move["src"], move["dst"]) == ("syn", moved[0], moved[1]) and move["reason"] and move["numbers"]
    (confirmed,) = (line for line in log_of(fresh, "in-force") if line["tick"] == move["tick"])
    assert confirmed["sampled"] <= confirmed["decided"] <= confirmed["t"] and confirmed["switches"] == ["p0e0"]


def test_a_placed_flow_moves_no_other(fresh: Any, wait: Any) -> None:
    """Another connection between the same hosts goes on as its hash says."""
    flows, _ = parted(fresh, wait, 36000)
    neighbours = [(src, dst, port + 1000, 5001) for src, dst, port, _ in flows]
    placed = {line["flow"] for line in log_of(fresh, "reroute")}
    assert placed.isdisjoint(map(name_of, neighbours))
    (moved,) = [flow for flow in flows if moves_of(fresh, flow)]
    assert len([rule for rule in placed_at(fresh, "p0e0") if f"tp_src={moved[2]}" in rule]) == 1
    assert not [rule for rule in placed_at(fresh, "p0e0") for flow in neighbours if f"tp_src={flow[2]}" in rule]


def test_a_switch_that_reconnects_gets_its_flows_again(fresh: Any, wait: Any) -> None:
    """Its tables were empty; afterwards they hold what they held, placed flows too."""
    parted(fresh, wait, 37000)
    rules, groups = lasting(fresh, "p0e0"), sorted(fresh.groups("p0e0"))
    assert placed_at(fresh, "p0e0")
    fresh.restart(FABRIC.switch_by_name["p0e0"])
    wait(lambda: lasting(fresh, "p0e0") == rules, "the rules of a switch that came back")
    assert sorted(fresh.groups("p0e0")) == groups
    assert no_errors(fresh)


def test_a_controller_that_comes_back_disturbs_nothing(fresh: Any, wait: Any) -> None:
    """It finds the placed flows in the switches, and no path is another than before."""
    flows, _ = parted(fresh, wait, 38000)
    placed = {line["flow"] for line in log_of(fresh, "reroute", *flows)}
    watched = [*flows, *((src, dst, 20000, 5001) for src, dst in PAIRS[::7])]
    before, moves = routes_of(fresh, watched), len(log_of(fresh, "reroute"))
    fresh.controller.kill()
    assert routes_of(fresh, watched) == before
    fresh.controller.restart()
    fresh.controller.wait_ready()
    wait(lambda: placed <= {line["flow"] for line in log_of(fresh, "flow") if line["signal"] == "rule"}, "the placed flows found")
    after_rounds(fresh, wait, 5)
    assert routes_of(fresh, watched) == before
    assert len(log_of(fresh, "reroute")) == moves
    assert no_errors(fresh)


def test_a_flapping_link_moves_a_flow_off_once(running: Any, wait: Any) -> None:
    """Six times down and up: at the first its path changes, in the hold-downs that follow it stays."""
    flow = ("p2e0h1", "p3e0h1", 32000, 5001)
    syn(running, flow)
    wait(lambda: log_of(running, "flow", flow), "the flow in the log")
    after_rounds(running, wait, 2)
    paths = [running.route(*flow)]
    ends = cut(paths[0][2])  # from the aggregation switch to the core
    for change in 6 * (running.unplug, running.plug):
        change(*ends)
        after_rounds(running, wait, 2)
        paths.append(running.route(*flow))
    assert set(paths[1:]) == {paths[1]} and len(paths[1]) == 6 and set(ends).isdisjoint(paths[1])
    assert len(moves_of(running, flow)) <= 1
    assert [line["up"] for line in log_of(running, "link") if line["port"] == ends[0].interface] == [False]
    assert no_errors(running)


def test_a_flow_that_is_cut_off_again_is_moved_again(start: Any, wait: Any) -> None:
    """When a switch dies its links are heard of one after another: the first way out may die too, and nobody rests on a dead path."""
    with start(FABRIC, ADAPTIVE, parameters={**LASTING, "hold_ms": 600_000, "repair": False}) as running:
        flows = colliding(running, "p0e0h0", "p0e0h1", 34000)
        for flow in flows:
            syn(running, flow)
        wait(lambda: any(moves_of(running, flow) for flow in flows), "one of them moved")
        moved = next(flow for flow in flows if moves_of(running, flow))
        time.sleep(0.6)  # in its first half second a flow may be moved in any case
        dead: set[Port] = set()
        for _ in range(3):
            ends = cut(running.route(*moved)[2])  # from the aggregation switch to the core
            dead.update(ends)
            running.unplug(*ends)
            wait(lambda: (route := running.route(*moved)) is not None and len(route) == 6 and dead.isdisjoint(route), "the flow past all dead links")
        reasons = [line["reason"] for line in moves_of(running, moved)]
        assert reasons[1:] == 3 * ["a link of its path is down"]


def test_new_flows_are_hashed_past_a_dead_link(running: Any, wait: Any) -> None:
    """The controller takes the link out of the hash: no detour of the switches' is left in any path."""
    ends = cut(Port("p1a1", 4))
    flows = [(src, "p1e1h0", 33000 + index, 5001) for index in range(20) for src in ("p0e0h0", "p3e0h0")]
    running.unplug(*ends)

    def shortest() -> bool:
        return all(len(route) == 6 for route in routes_of(running, flows))

    try:
        wait(shortest, "shortest paths past the dead link")
        assert set(ends).isdisjoint(port for route in routes_of(running, flows) for port in route)
    finally:
        running.plug(*ends)


# -- without the controller


@pytest.fixture(scope="module")
def orphaned(start: Any) -> Iterator[Any]:
    """Switches whose controller was killed: what they do from now on they do themselves."""
    with start(FABRIC, ADAPTIVE, parameters=LASTING) as running:
        running.controller.kill()
        yield running


@pytest.mark.parametrize("port", [UPWARD, Port("p0a0", 3), DOWNWARD, Port("p1a0", 1)], ids=str)
def test_switches_repair_a_dead_link_without_a_controller(orphaned: Any, port: Port) -> None:
    """All pairs are reachable with both ends gone, upward and downward, without anybody's rule."""
    orphaned.unplug(*cut(port))
    try:
        assert reached(orphaned, cut(port)) == {"reached": 240}
    finally:
        orphaned.plug(*cut(port))
    assert reached(orphaned) == {"reached": 240}


def test_traffic_downward_through_a_core_goes_round(orphaned: Any) -> None:
    """A core has one link per pod: connections that used it take a detour over another, and arrive."""
    draw = random.Random(3)
    flows = [("p0e0h0", "p1e0h0", draw.randint(20000, 60000), 5001) for _ in range(40)]
    before = dict(zip(flows, routes_of(orphaned, flows), strict=True))
    hit = [flow for flow, route in before.items() if DOWNWARD in route]
    assert len(hit) > 3
    orphaned.unplug(*cut(DOWNWARD))
    try:
        after = dict(zip(flows, routes_of(orphaned, flows), strict=True))
    finally:
        orphaned.plug(*cut(DOWNWARD))
    assert all(after[flow] == before[flow] for flow in flows if flow not in hit)
    assert all(len(after[flow]) > 6 and set(cut(DOWNWARD)).isdisjoint(after[flow]) for flow in hit)


def test_without_repair_a_dead_link_is_a_hole(start: Any) -> None:
    """What the last tests saw was the switches' repair: `repair: false` and no controller lose what the link is sent."""
    with start(FABRIC, ADAPTIVE, parameters={"repair": False}) as running:
        running.controller.kill()
        assert reached(running) == {"reached": 240}
        running.unplug(*cut(DOWNWARD))
        ends = reached(running, cut(DOWNWARD))
        assert ends["reached"] < 240 and ends.keys() <= {"reached", "dropped", "down"}


# -- what decisions depend on


def told(running: Any) -> tuple[set[str], list[dict[str, Any]]]:
    """Which flows were seen, in whatever order, and what was decided, without times."""
    keys = ("flow", "old", "new", "signal", "reason", "numbers")
    moves = [{key: line[key] for key in keys} for line in log_of(running, "reroute")]
    return {line["flow"] for line in log_of(running, "flow")}, moves


def test_equal_folders_and_equal_syns_give_equal_decisions(start: Any, wait: Any) -> None:
    """Nothing but the folder and the fabric decides: two starts that share no file move the same flows the same way."""
    draw, hosts = random.Random(5), [host.name for host in FABRIC.hosts]
    flows = [(src, dst, draw.randint(20000, 60000), 5001) for src, dst in zip(hosts, hosts[5:] + hosts[:5], strict=True)]
    found = []
    for _ in range(2):
        with start(FABRIC, ADAPTIVE, parameters=LASTING, poll_ms=3000) as running:
            after_rounds(running, wait, 1)  # then there are 3 s until the next one: a slow machine sees all SYNs in one as well
            for flow in flows:
                syn(running, flow)
            after_rounds(running, wait, 1)
            wait(lambda running=running: log_of(running, "in-force"), "all barriers")
            found.append(told(running))
    assert found[0] == found[1]
    seen, moves = found[0]
    assert seen == {name_of(flow) for flow in flows}
    assert moves and len({line["flow"] for line in moves}) == len(moves)


# -- rounds of counters

LISTENS = '''"""Writes down when each round was asked, when it was told, and how many switches are missing from it."""
import json
import time

from controllers.two_level import TwoLevel
from fabric.counters import EventCounters
from ryu.controller.handler import set_ev_cls


class Listens(TwoLevel):
    @set_ev_cls(EventCounters)
    def on_round(self, ev):
        with open(self.folder / "rounds", "a") as file:
            file.write(json.dumps([ev.counters.t, time.monotonic(), ev.counters.missing]) + "\\n")
'''
HELLO, FEATURES, MULTIPART = 0, 5, 18
_MESSAGE = struct.Struct("!BBHI")


def mute(port: int, dpid: int) -> Callable[[], None]:
    """A switch that connects and says who it is, and never answers a question for counters; how to end it."""
    line = socket.create_connection(("127.0.0.1", port))

    def answer() -> None:
        with closing(line), line.makefile("rb") as messages:
            line.sendall(_MESSAGE.pack(4, HELLO, 8, 1))
            while len(header := messages.read(8)) == 8:
                _, kind, length, number = _MESSAGE.unpack(header)
                body = messages.read(length - 8)
                if kind == FEATURES:
                    line.sendall(_MESSAGE.pack(4, 6, 32, number) + struct.pack("!QIBBHII", dpid, 0, 4, 0, 0, 0, 0))
                elif kind == MULTIPART and body[:2] == b"\0\x0d":  # descriptions of its ports: it has none
                    line.sendall(_MESSAGE.pack(4, 19, 16, number) + struct.pack("!HHI", 13, 0, 0))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()

    def end() -> None:
        line.shutdown(socket.SHUT_RDWR)
        thread.join()

    return end


def test_a_round_ends_with_its_last_answer_or_with_the_next_question(start: Any, wait: Any, tmp_path: Path) -> None:
    """It is told as soon as all that were asked have answered; a switch that is silent costs it a period, and is missing."""
    (tmp_path / "listens.py").write_text(LISTENS)
    fabric, period_s = fat_tree(2), 0.4
    *most, last = fabric.switches

    def seen(missing: int) -> list[tuple[float, float, int]]:
        file = running.folder / "rounds"
        *whole, _ = file.read_text().split("\n") if file.exists() else [""]
        return [(asked, at, number) for asked, at, number in map(json.loads, whole) if number == missing]

    with start(fabric, str(tmp_path / "listens.py"), switches=most, wait=False, poll_ms=int(1000 * period_s)) as running:
        wait(lambda: len(seen(1)) >= 4, "rounds without a switch that was never there")
        prompt = [at - asked for asked, at, _ in seen(1)[1:4]]
        end = mute(running.port, last.dpid)
        before = len(seen(1))
        wait(lambda: len(seen(1)) >= before + 4, "rounds without an answer of the silent switch")
        late = [at - asked for asked, at, _ in seen(1)[before + 1 : before + 4]]
        end()
        # A round that was asked late on a busy machine is shorter than its period, and one that was told late is longer.
        assert min(prompt) < period_s / 2 and max(late) > 0.9 * period_s
        running.connect([last])
        wait(lambda: len(seen(0)) >= 4, "rounds with all")
        assert min(at - asked for asked, at, _ in seen(0)[1:]) < period_s / 2
