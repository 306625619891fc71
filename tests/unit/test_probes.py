"""Probes: which hosts and ports are chosen for a failing link, and how long packets were lost, by what never arrived."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabric.events import Happened, Timed
from fabric.graph import Fabric, FabricBuilder
from fabric.paths import Path as Hops
from fabric.paths import equal_cost_paths
from fabric.pinning import Pins
from fabric.probes import Floats, choose, loss, recoveries
from fabric.silences import Silences
from fabric.tcp import Endpoints
from topologies.fat_tree import fat_tree

DOWN = Timed(5, "down", ("p0a0", "g0c0"))


def hashed(fabric: Fabric, src: str, dst: str, endpoints: Endpoints) -> Hops:
    """A path that the source port decides, as by a hash."""
    paths = equal_cost_paths(fabric, src, dst)
    return paths[endpoints.src_port % len(paths)]


def test_both_directions_of_a_link_get_a_probe_whose_path_crosses_it() -> None:
    """The path is what was read back; hosts and ports are the same for the same seed and others for another."""
    fabric = fat_tree(4)
    found = {seed: choose(fabric, [DOWN, DOWN], seed, lambda *asked: hashed(fabric, *asked)) for seed in (1, 2)}
    assert [probe.out for probe in found[1]] == ["p0a0-eth3", "g0c0-eth1"]
    for probe in found[1]:
        assert probe.path is not None and probe.endpoints is not None and probe.out in probe.path
        assert probe.path == tuple(hop.interface for hop in hashed(fabric, probe.src, probe.dst, probe.endpoints))
    assert len({probe.endpoints.dst_port for probe in found[1] if probe.endpoints}) == 2
    assert choose(fabric, [DOWN], 1, lambda *asked: hashed(fabric, *asked)) == found[1]
    assert found[1] != found[2]


def test_a_switch_is_watched_on_a_link_to_another_switch() -> None:
    """A host below it could not be reached in any case."""
    fabric = fat_tree(4)
    found = choose(fabric, [Timed(5, "down", ("p0e0",))], 1, lambda *asked: hashed(fabric, *asked))
    assert len(found) == 2
    assert all("h" not in end for probe in found for end in (fabric.peer[port].node for port in fabric.peer if port.interface == probe.out))


def test_where_no_path_crosses_the_link_the_reason_is_told() -> None:
    """Rules that never use it; a link that no shortest path uses; and a link that shall not be watched has no probe."""
    fabric = fat_tree(4)
    asked: list[Endpoints] = []

    def nowhere(_src: str, _dst: str, endpoints: Endpoints) -> Hops | None:
        asked.append(endpoints)
        return None

    first, _ = choose(fabric, [DOWN], 1, nowhere)
    assert first.path is None and first.reason == "no path of 8 pairs of hosts with 64 source ports each crosses it"
    assert len(asked) == 2 * 8 * 64
    assert choose(fabric, [Timed(5, "down", DOWN.names, probe=False), Timed(5, "down"), Timed(5, "up", DOWN.names)], 1, nowhere) == []
    build = FabricBuilder("spare", {})
    one, two, three = (build.switch(name) for name in ("s1", "s2", "s3"))
    for near, far in ((one, two), (two, three), (build.host("h0"), one), (build.host("h1"), one)):
        build.link(near, far)
    assert choose(build.fabric(), [Timed(5, "down", ("s2", "s3"))], 1, nowhere)[0].reason == "it is on no shortest path between two hosts"


def test_not_more_probes_than_the_switches_can_carry() -> None:
    """Eight at once; the ninth is told why it is none."""
    fabric = fat_tree(4)
    events = [Timed(5, "down", ("p0a0", name)) for name in ("g0c0", "g0c1")] + [
        Timed(5, "down", (f"p{pod}a1", "g1c0")) for pod in range(3)
    ]
    found = choose(fabric, events, 1, lambda *asked: hashed(fabric, *asked))
    assert [probe.path is not None for probe in found] == [True] * 8 + [False] * 2
    assert found[8].reason == "there are 8 probes already"


def stream(*lost: tuple[float, float]) -> tuple[Floats, Floats]:
    """Ten seconds of probes, one a millisecond; those sent from a moment to another never arrive."""
    sent = np.arange(10_000) / 1000
    arrived = sent + 0.002
    for first, last in lost:
        arrived[(sent >= first - 1e-9) & (sent < last - 1e-9)] = np.nan
    return sent, arrived


def lost_ms(*lost: tuple[float, float], until: float = 10.0) -> tuple[float, bool]:
    """The loss of an event at 5 s, and whether it recovered."""
    found = loss(*stream(*lost), 5.0, until)
    assert found is not None
    return found.ms, found.complete


@pytest.mark.parametrize(
    ("lost", "ms"),
    [
        ((), 0),
        (((5.0, 5.04),), 40),
        (((4.98, 5.04),), 60),  # what stood in a queue when the link went
        (((5.3, 5.35),), 50),  # seen late, as a slower controller's second thoughts
        (((5.0, 5.04), (5.5, 5.51)), 40),  # the longest
        (((5.0, 5.02), (5.028, 5.05)), 50),  # eight that came between do not make a path
        (((4.0, 4.5), (5.0, 5.01)), 10),  # another event's
        (((6.5, 7.0),), 0),  # long after
    ],
)
def test_the_loss_is_the_span_of_probes_that_never_arrived(lost: tuple[tuple[float, float], ...], ms: float) -> None:
    """To the millisecond; what did not touch the second after the event is not its doing."""
    assert lost_ms(*lost) == (pytest.approx(ms, abs=0.01), True)


def test_the_dark_stretch_is_that_without_a_single_arrival() -> None:
    """Five lost, eight that come, a hundred lost, one that comes, 34 lost: one span, of which a hundred are dark."""
    sent, arrived = stream((5.0, 5.005), (5.013, 5.113), (5.114, 5.15))
    found = loss(sent, arrived, 5.0, 10.0)
    assert found is not None
    assert (found.ms, found.dark_ms) == (pytest.approx(150, abs=0.01), pytest.approx(100, abs=0.01))


def test_a_loss_that_lasts_is_a_lower_bound() -> None:
    """Until the link comes up by itself, or until the end."""
    assert lost_ms((5.0, 7.0), until=6.9) == (pytest.approx(1900, abs=0.01), False)
    assert lost_ms((5.0, 10.0)) == (pytest.approx(5000, abs=0.01), False)


def test_drops_of_a_full_queue_are_not_a_failure() -> None:
    """Every fifth probe lost all the time: a failure that loses nothing shows as single losses, before it and after."""
    sent, arrived = stream()
    arrived[::5] = np.nan
    found = loss(sent, arrived, 5.0, 10.0)
    assert found is not None and (found.ms, found.before_ms, found.complete) == (pytest.approx(1), pytest.approx(1), True)
    arrived[(sent >= 5) & (sent < 5.2)] = np.nan
    longer = loss(sent, arrived, 5.0, 10.0)
    assert longer is not None and 201 <= longer.ms < 211  # a drop just before may be counted in


def test_nothing_sent_is_nothing_known() -> None:
    """An event after the last probe has no loss, not one of zero."""
    assert loss(*stream(), 11.0, 12.0) is None


def test_recoveries_are_read_from_the_folder(tmp_path: Path) -> None:
    """A record for each event and direction; the direction without a probe says why."""
    probe = {"target": DOWN.target, "src": "h0", "dst": "h1", "reason": None, "path": ["h0-eth0", "x"]}
    ends = {"src_ip": "10.0.0.1", "src_port": 20000, "dst_ip": "10.0.0.2", "dst_port": 4000}
    none = {**probe, "out": "y", "src": "", "dst": "", "path": None, "endpoints": None, "reason": "no path"}
    (tmp_path / "probes.json").write_text(json.dumps([none, {**probe, "out": "x", "endpoints": ends}]))
    sent, arrived = stream((5.0, 5.03))
    whole = {"sent_0": np.round(sent * 1e9), "arrived_0": np.where(np.isnan(arrived), -1, np.nan_to_num(arrived) * 1e9)}
    np.savez(tmp_path / "probes.npz", **{name: times.astype(np.int64) for name, times in whole.items()})
    happened = [Happened(DOWN, 5.0, 5.001, {"x": 0.0}, {"1": True}), Happened(Timed(8, "up", DOWN.names), 8.0, 8.001, {"x": 5.0})]
    first, second = recoveries(happened, tmp_path)
    assert first.loss is None and first.to_json()["reason"] == "no path"
    assert second.loss is not None and second.loss.ms == pytest.approx(30) and second.loss.sent == 3000
    assert recoveries(happened, tmp_path / "none") == []
    _, moved = recoveries([replace(happened[0], crossing={"1": False})], tmp_path)
    assert moved.loss is None and moved.to_json()["reason"] == "its path had left the link before the event"


class Prober:
    """Takes signals in the prober's place."""

    def __init__(self) -> None:
        self.process, self.signals = self, list[int]()

    def send_signal(self, number: int) -> None:
        """Note it."""
        self.signals.append(number)


def test_a_probe_that_was_moved_off_its_link_is_replaced(tmp_path: Path) -> None:
    """By one whose path crosses it now, before the event; one that stayed goes on; the prober is told."""
    fabric = fat_tree(4)
    moved: set[Endpoints] = set()

    def path_of(src: str, dst: str, endpoints: Endpoints) -> Hops | None:
        paths = equal_cost_paths(fabric, src, dst)
        return paths[(endpoints.src_port + (endpoints in moved)) % len(paths)]

    prober = Prober()
    pins = Pins(fabric, 1, path_of, lambda _: 7, tmp_path, choose(fabric, [DOWN], 1, path_of), prober)  # type: ignore[arg-type]
    pins.renew(DOWN)
    assert (len(pins.probes), prober.signals) == (2, [])
    assert pins.crossing(DOWN) == {"0": True, "1": True}
    moved.add(pins.probes[0].endpoints)  # type: ignore[arg-type]
    assert pins.crossing(DOWN) == {"0": False, "1": True}
    pins.renew(DOWN)
    assert pins.crossing(DOWN) == {"1": True, "2": True}
    assert [probe.stopped for probe in pins.probes] == [True, False, False]
    assert pins.probes[2].out == pins.probes[0].out and pins.probes[2].endpoints != pins.probes[0].endpoints
    assert prober.signals == [signal.SIGHUP]
    assert len(json.loads((tmp_path / "prober.json").read_text())["probes"]) == 3


def test_silences_are_the_longest_ones_in_order_of_time() -> None:
    """From the begin on; what is shorter than a receiver's turns is none."""
    silences = Silences(1.0)
    for moment in (1.01, 1.11, 1.13, 3.13):
        silences.heard(moment)
    assert silences.to_json() == [(1.01, 0.1), (1.13, 2.0)]
    for turn in range(200):
        silences.heard(3.13 + 0.05 * (turn + 1))
    assert len(silences.to_json()) == 64 and (1.13, 2.0) in silences.to_json()
