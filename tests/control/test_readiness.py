"""When a controller may be believed to be ready, what its folder holds, and what it records of the ports."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fabric.graph import Fabric
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch

PACKET = "eth(src={src.mac},dst={dst.mac}),eth_type(0x800),ipv4(src={src.ip},dst={dst.ip},proto=6,tos=0,ttl=64,frag=no),tcp(src=1,dst=2)"
SLOW = '''"""An app that takes its time over a switch."""
from ryu.lib import hub

from controllers.two_level import TwoLevel


class Slow(TwoLevel):
    def rules(self, switch):
        for rule in super().rules(switch):
            hub.sleep(0.05)
            yield rule
'''


@pytest.fixture(scope="module")
def running(start: Any) -> Iterator[Any]:
    """The static controller on eight switches of a fabric with two pods."""
    with start(fat_tree(2), "controllers.two_level", poll_ms=50) as running:
        yield running


def lines(running: Any) -> list[dict[str, Any]]:
    """The complete lines of ports.jsonl."""
    text = (running.folder / "ports.jsonl").read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def test_ready_does_not_come_while_a_switch_is_absent(start: Any, wait: Any) -> None:
    """All switches but one connect and answer: no `ready`; it comes with the last one, and then the rules are there."""
    fabric: Fabric = fat_tree(2)
    *most, last = fabric.switches
    with start(fabric, "controllers.two_level", switches=most, wait=False, poll_ms=20) as running:

        def full_rounds() -> int:
            return sum(line["missing"] == 1 for line in lines(running))

        wait(lambda: full_rounds() >= 10, "ten rounds with answers of all switches but one")
        assert not (running.folder / "ready").exists()
        running.connect([last])
        running.controller.wait_ready()
        assert len(running.flows(last.name)) == len(fabric.hosts)


def test_ready_waits_for_an_app_that_is_slow(start: Any, tmp_path: Path) -> None:
    """Handling a connection takes a while: at `ready` every rule of every switch is installed nevertheless."""
    (tmp_path / "slow.py").write_text(SLOW)
    fabric = fat_tree(2)
    with start(fabric, str(tmp_path / "slow.py")) as running:
        assert {switch.name: len(running.flows(switch.name)) for switch in fabric.switches} == {
            switch.name: len(fabric.hosts) for switch in fabric.switches
        }


def test_a_switch_that_comes_back_gets_its_rules_again(running: Any, wait: Any) -> None:
    """Its connection and its table are lost; it reconnects, and the table is what it was."""
    name = "p0e0"
    before = running.flows(name)
    running.ovs.vsctl("del-controller", name, "--", "del-br", name)
    running.connect([running.fabric.switch_by_name[name]])
    assert before
    wait(lambda: running.flows(name) == before, "the rules of a switch that came back")


def test_a_switch_that_is_not_of_the_topology_gets_no_rules(running: Any, wait: Any) -> None:
    """It is named in the log, and left alone."""
    words = ["add-br", "stranger", "--", "set", "bridge", "stranger", "datapath_type=dummy", "fail_mode=secure"]
    words += ["protocols=OpenFlow13", "other-config:datapath-id=00000000000abcde"]
    running.ovs.vsctl(*words, "--", "set-controller", "stranger", f"tcp:127.0.0.1:{running.port}")
    log = running.folder / "manager.log"
    wait(lambda: "switch abcde is not in the topology; it gets no rules" in log.read_text(), "the warning in the log")
    assert running.flows("stranger") == []
    running.ovs.vsctl("del-br", "stranger")


def test_the_controllers_folder_holds_what_it_may_know_and_what_it_wrote(running: Any) -> None:
    """The topology and its own setup come in; markers, port counters and its log go out; nothing else is there."""
    found = {path.name for path in running.folder.iterdir()}
    assert found == {"topology.json", "controller.json", "listening", "ready", "ports.jsonl", "manager.log"}
    assert Fabric.from_json(json.loads((running.folder / "topology.json").read_text())) == running.fabric


def test_a_controller_is_told_neither_load_nor_placement_nor_seed(running: Any) -> None:
    """Its setup has exactly these keys: a controller that is compared with others cannot know what is coming."""
    setup = json.loads((running.folder / "controller.json").read_text())
    assert setup.keys() == {"app", "port", "poll_ms", "hash_basis", "parameters", "mbps", "hints", "wires", "agent"}
    assert setup["app"] == "controllers.two_level" and setup["parameters"] == {}
    environment = Path(f"/proc/{running.controller.companion.process.pid}/environ").read_bytes().split(b"\0")
    assert [item for item in environment if item.startswith(b"FABRIC_RUN=")] == [f"FABRIC_RUN={running.folder}".encode()]


def test_port_counters_are_recorded_for_every_port_of_a_switch(running: Any, wait: Any) -> None:
    """A line names all switch ports of the fabric and no other, with six counters each."""
    wait(lambda: lines(running) and not lines(running)[-1]["missing"], "a round with all answers")
    line = lines(running)[-1]
    switches = running.fabric.switch_by_name
    assert line.keys() == {"t", "missing", "ports"}
    assert line["ports"].keys() == {port.interface for port in running.fabric.peer if port.node in switches}
    assert all(len(counters) == 6 for counters in line["ports"].values())


def test_lines_come_once_a_period(running: Any, wait: Any) -> None:
    """Between two lines lies one polling period, in the median: never less, and not two."""
    wait(lambda: len(lines(running)) > 40, "forty lines")
    gaps = [later["t"] - earlier["t"] for earlier, later in pairwise(lines(running))]
    assert 0.9 < statistics.median(gaps) / 0.050 < 2


def test_packets_that_cross_a_switch_are_counted(start: Any, wait: Any) -> None:
    """Seven packets in by one port and out by another are seven more in both ports' counters."""
    fabric = single_switch(2)
    src, dst = fabric.hosts
    with start(fabric, "controllers.two_level", poll_ms=20) as running:
        for _ in range(7):
            running.receive("s0-eth1", PACKET.format(src=src, dst=dst))

        def counted() -> bool:
            ports = lines(running)[-1]["ports"] if lines(running) else {"s0-eth1": [0] * 6, "s0-eth2": [0] * 6}
            return bool(ports["s0-eth1"][4] == 7 and ports["s0-eth2"][1] == 7)

        wait(counted, "seven packets received and sent")
