"""What a load got of what was left for it, how evenly, and the fullest port: on a small record whose answers are counted by hand.

Two switches and one link between them, 10 Mb/s each. The collective sends 5 Mb in one second from h0 to h2; a flow
from h1 to h3 crosses the same link, one from h3 to h1 comes the other way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fabric.goodput import fabric_utilisation, jain, leftover_mbps, leftover_share
from fabric.graph import FabricBuilder
from fabric.predictions import capacity_of
from fabric.recorded import Recorded
from fabric.schedule import Schedule, Transfer

BEGIN = 50.0
WINDOW = (BEGIN, BEGIN + 1.0)
ITERATIONS = 5
SENT = Schedule("mine", 2, 31_250, (Transfer(0, 0, 1, 0, 31_250, "copy"),))  # 1 Mb an iteration
EDGE = ["h0-eth0", "left-eth1", "right-eth2"]
AHEAD, BACK = ["h1-eth0", "left-eth1", "right-eth3"], ["h3-eth0", "right-eth1", "left-eth3"]
ELSEWHERE = ["h1-eth0", "left-eth4", "right-eth3"]  # by another link, had it one


def ends(number: int) -> dict[str, Any]:
    return {"src_ip": "10.0.0.2", "src_port": 1000 + number, "dst_ip": "10.0.0.3", "dst_port": 5000 + number}


def key(number: int) -> str:
    return f"10.0.0.2:{1000 + number}>10.0.0.3:{5000 + number}"


@dataclass
class Record:
    """A point's folder in the making."""

    folder: Path
    paths: list[Any] = field(default_factory=lambda: [EDGE, AHEAD, BACK])
    demands: list[float | None] = field(default_factory=lambda: [None, None])

    def write(self) -> Recorded:
        """Its files, read."""
        build = FabricBuilder("line", {})
        left, right = build.switch("left"), build.switch("right")
        build.link(left, right)
        for name, switch in (("h0", left), ("h2", right), ("h1", left), ("h3", right)):
            build.link(build.host(name), switch)
        fabric = build.fabric()
        rates = {port.interface: {"mbps": 10.0} for port in fabric.peer} | {"left-eth4": {"mbps": 10.0}}
        flows = [("h1", "h3"), ("h3", "h1")]
        self._json("controller/topology.json", fabric.to_json())
        self._json("network.json", {"payload_mbps": 10.0, "shapes": rates})
        self._json("installed.json", self.installed())
        self._json("point.json", {
            "links": {"mbps": 10.0}, "placement": ["h0", "h2"], "edges": [[0, 1, 0, ends(0)]],
            "flows": [
                {"src": src, "dst": dst, "mbps": mbps, "endpoints": ends(number)}
                for number, ((src, dst), mbps) in enumerate(zip(flows, self.demands, strict=True), 1)
            ],
        })  # fmt: skip
        return Recorded(self.folder)

    def installed(self) -> dict[str, Any]:
        edge, *flows = self.paths
        return {"edges": [[0, 1, 0, edge]], "flows": flows}

    def moves(self, at: float, number: int, new: list[str]) -> None:
        """A line of the decision log."""
        line = {"event": "reroute", "t": at, "flow": key(number), "old": None, "new": new, "reason": "", "numbers": {}}
        self._json("controller/decisions.jsonl", line)

    def happens(self, at: float, do: str, **mbps: float) -> None:
        """A line of events.jsonl."""
        event = {"at_s": 0, "do": do, "names": ["left", "right"], "mbps": None, "probe": False}
        self._json("events.jsonl", {"begin": at, "end": at, **event, "in_force": mbps, "crossing": {}})

    def _json(self, name: str, data: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data) + "\n")

    def counts(self, t: Sequence[float], **sent_bytes: Sequence[int]) -> None:
        """The sampler's file, of some interfaces."""
        names = ["backlog_bytes", "backlog_packets", "drops", "sent_bytes", "sent_packets"]
        lines: list[Any] = [{"interfaces": [name.replace("_", "-") for name in sent_bytes], "fields": names, "period_ms": 50}]
        for number, at in enumerate(t):
            totals = {name: [0] * len(sent_bytes) for name in names}
            lines.append({"t": at, "late_ms": 0, "missed": 0, **totals, "sent_bytes": [one[number] for one in sent_bytes.values()]})
        path = self.folder / "telemetry" / "queues.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(name="record")
def _record(tmp_path: Path) -> Record:
    return Record(tmp_path)


def test_the_load_has_what_the_collective_left(record: Record) -> None:
    """5 Mb/s of the shared link and all of the other way: 15; 4 + 9 Mb/s are 13/15 of it."""
    seen = record.write()
    assert leftover_mbps(seen, SENT, ITERATIONS, WINDOW) == pytest.approx(15)
    assert leftover_share(seen, SENT, ITERATIONS, [4.0, 9.0], WINDOW) == pytest.approx(13 / 15)


def test_a_flow_asks_for_no_more_than_its_rate(record: Record) -> None:
    """One of 2 Mb/s gets 2 of the 5 that were left."""
    record.demands = [2.0, None]
    assert leftover_mbps(record.write(), SENT, ITERATIONS, WINDOW) == pytest.approx(12)


def test_a_longer_window_takes_less_of_each_second(record: Record) -> None:
    """The same bytes over two seconds are half the rate."""
    assert leftover_mbps(record.write(), SENT, ITERATIONS, (BEGIN, BEGIN + 2)) == pytest.approx(7.5 + 10)


def test_nothing_left_is_no_share(record: Record) -> None:
    """A collective that took more than there is leaves nothing there, never less; and a share of nothing is not told."""
    record.demands = [None, 0.0]
    seen = record.write()
    assert leftover_mbps(seen, SENT, 11, WINDOW) == 0
    assert leftover_share(seen, SENT, 11, [1.0, 0.0], WINDOW) is None


def test_a_flow_that_moved_counts_on_each_path_while_it_was_there(record: Record) -> None:
    """On the shared link for half of the window, elsewhere for the rest: (5 + 10) / 2, and the other way as before."""
    seen = record.write()
    record.moves(BEGIN + 0.5, 1, ELSEWHERE)
    assert leftover_mbps(seen, SENT, ITERATIONS, WINDOW) == pytest.approx(7.5 + 10)


def test_a_collective_that_moved_gives_back_what_it_took(record: Record) -> None:
    """Its bytes count where it was: for the last quarter not on the shared link."""
    seen = record.write()
    record.moves(BEGIN + 0.75, 0, ["h0-eth0", "left-eth4", "right-eth2"])
    assert leftover_mbps(seen, SENT, ITERATIONS, WINDOW) == pytest.approx(0.75 * 5 + 0.25 * 10 + 10)


def test_a_move_before_the_window_counts_for_all_of_it_and_one_after_it_not_at_all(record: Record) -> None:
    """Only what was in force."""
    seen = record.write()
    record.moves(BEGIN - 1, 1, ELSEWHERE)
    assert leftover_mbps(seen, SENT, ITERATIONS, WINDOW) == pytest.approx(20)
    record.moves(BEGIN + 2, 1, ELSEWHERE)
    assert leftover_mbps(Recorded(record.folder), SENT, ITERATIONS, WINDOW) == pytest.approx(15)


def test_what_no_line_moved_is_where_it_ended(record: Record) -> None:
    """Weights of a group move flows without a line for each: the paths asked for afterwards tell."""
    seen = record.write()
    record.paths = [EDGE, ELSEWHERE, BACK]
    (record.folder / "installed_after.json").write_text(json.dumps(record.installed()))
    assert leftover_mbps(seen, SENT, ITERATIONS, WINDOW) == pytest.approx(20)


def test_a_link_that_lost_its_rate_leaves_less(record: Record) -> None:
    """10 Mb/s, then 6: of the shared link 5, then 1."""
    seen = record.write()
    record.happens(BEGIN + 0.5, "rate", **{"left-eth1": 6.0})
    assert leftover_mbps(seen, SENT, ITERATIONS, WINDOW) == pytest.approx(3 + 10)


def test_a_path_that_is_not_known_gives_no_share(record: Record) -> None:
    """Of a flow or of the collective."""
    for number in (0, 1):
        record.paths = [None if place == number else path for place, path in enumerate((EDGE, AHEAD, BACK))]
        assert leftover_share(record.write(), SENT, ITERATIONS, [4.0, 9.0], WINDOW) is None


def test_jains_index_by_hand() -> None:
    """(1+2+3)² / (3 x 14); one who has all of n gets 1/n; of flows that got nothing nothing is said."""
    assert jain([1.0, 2.0, 3.0]) == pytest.approx(36 / 42)
    assert jain([0.0, 7.0]) == 0.5 and jain([7.0]) == 1.0
    assert jain([]) is None and jain([0.0, 0.0]) is None


def test_the_fullest_port_is_a_switchs(record: Record) -> None:
    """Sent bytes over rate and time between the first and the last sample of the window; hosts' own ports do not count."""
    seen = record.write()
    second = 1_250_000  # bytes at 10 Mb/s
    record.counts(
        [BEGIN - 1, BEGIN, BEGIN + 0.5, BEGIN + 1.0, BEGIN + 2],
        h0_eth0=[0, 0, second // 2, second, 2 * second],
        left_eth1=[0, 0, second // 2, 3 * second // 4, 2 * second],
        right_eth1=[0, second, second, second, second],
    )
    assert fabric_utilisation(seen, WINDOW) == pytest.approx(0.75)


def test_a_port_whose_rate_fell_is_judged_by_what_it_could_send(record: Record) -> None:
    """From 10 to 5 Mb/s at the middle sample: 0.9 of the 7.5 Mb that fitted; a dead one is no bottleneck."""
    seen = record.write()
    record.happens(BEGIN + 0.5, "rate", **{"left-eth1": 5.0})
    sent = round(0.9 * 7.5e6 / 8)
    # The samples stand beside the moment, as the higher rate is allowed while either may be in force.
    t = [BEGIN, BEGIN + 0.499999, BEGIN + 0.500001, BEGIN + 1.0]
    record.counts(t, left_eth1=[0, sent // 2, sent // 2, sent], right_eth1=[0, 0, 0, 0])
    assert fabric_utilisation(seen, WINDOW) == pytest.approx(0.9, abs=1e-4)


def test_one_sample_says_nothing_of_utilisation(record: Record) -> None:
    """Two are needed."""
    seen = record.write()
    record.counts([BEGIN - 1, BEGIN + 0.5, BEGIN + 2], left_eth1=[0, 1, 2])
    assert fabric_utilisation(seen, WINDOW) is None


def test_capacities_are_shares_of_a_whole_link(tmp_path: Path) -> None:
    """Where the ports above hosts have half of a link's rate, hosts still have all that `payload_mbps` says, and these half of it."""
    (tmp_path / "network.json").write_text(json.dumps({"payload_mbps": 9.0, "shapes": {"h0-eth0": {"mbps": 10.0}, "s0-eth2": {"mbps": 5.0}}}))
    (tmp_path / "point.json").write_text(json.dumps({"links": {"mbps": 10.0}}))
    assert capacity_of(Recorded(tmp_path)) == {"h0-eth0": 9.0, "s0-eth2": 4.5}
