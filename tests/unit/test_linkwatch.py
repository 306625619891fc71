"""What telemetry says of links: utilisation, queues, links that are down, flap, or carry less than they should."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.graph import Fabric, FabricBuilder, Port
from fabric.linkwatch import LinkWatch, QueueCount
from fabric.portcounts import Counters, PortCount
from topologies.fat_tree import fat_tree

MBPS = 20.0
PACKET = 9000
UP = Port("p0e0", 3)  # from an edge switch to its first aggregation switch
DOWN = Port("p0a0", 1)  # the same link's other end
NIC = Port("p0e0h0", 0)
AT_SWITCH = Port("p0e0", 1)  # where that host hangs on


@pytest.fixture
def watch() -> LinkWatch:
    """A fat-tree of 20 Mb/s links, of which nothing is known yet."""
    return LinkWatch(fat_tree(4), MBPS)


def counters(t: float, tx: int | None = None, rx: int | None = None, port: Port = UP) -> Counters:
    """A round in which one port was heard of."""
    return Counters(t, {port: (t, PortCount(tx, 0, 0, rx, 0, 0))}, 0)


def utilisation(watch: LinkWatch, port: Port = UP) -> float:
    """Of one direction."""
    return watch.links(0.0, [port])[port].utilisation


def mbps(watch: LinkWatch, t: float, port: Port = UP) -> float:
    """What a direction is believed to carry."""
    return watch.links(t, [port])[port].mbps


def test_nothing_heard_is_an_idle_whole_link(watch: LinkWatch) -> None:
    """Every direction of every link, hosts' ones too; what the switch has not told is None."""
    links = watch.links(0.0)
    assert links.keys() == watch.fabric.peer.keys()
    assert {(link.mbps, link.configured_mbps, link.utilisation, link.backlog_bytes, link.drops) for link in links.values()} == {
        (MBPS, MBPS, 0.0, None, None)
    }


def test_utilisation_is_of_the_configured_rate_and_of_the_answers_own_times(watch: LinkWatch) -> None:
    """Half of 20 Mb/s for 200 ms are 250,000 bytes; the time between a switch's answers counts, not the period."""
    watch.counted(Counters(0.0, {UP: (0.05, PortCount(1000, 0, 0, 0, 0, 0))}, 0))
    watch.counted(Counters(0.1, {UP: (0.25, PortCount(251_000, 0, 0, 0, 0, 0))}, 0))
    assert utilisation(watch) == pytest.approx(0.5)
    assert utilisation(watch, DOWN) == 0.0


def test_a_scaled_link_is_measured_against_its_own_rate() -> None:
    """Half of a link of four times the rate."""
    build = FabricBuilder("scaled")
    a, b = build.switch("a"), build.switch("b")
    build.link(a, b, scale=4.0)
    build.link(build.host("h"), a)
    watch = LinkWatch(build.fabric(), MBPS)
    port = Port("a", 1)
    watch.counted(counters(0.0, 0, port=port))
    watch.counted(counters(1.0, 5_000_000, port=port))
    assert utilisation(watch, port) == pytest.approx(0.5) and watch.configured(port) == 80.0


def test_what_a_host_sends_is_what_its_switch_hears(watch: LinkWatch) -> None:
    """A host is not asked: its direction comes from the far end's received bytes, between switches it does not."""
    watch.counted(counters(0.0, 0, 0, port=AT_SWITCH))
    watch.counted(counters(1.0, 500_000, 2_000_000, port=AT_SWITCH))
    assert utilisation(watch, NIC) == pytest.approx(0.8)
    assert utilisation(watch, AT_SWITCH) == pytest.approx(0.2)
    watch.counted(counters(1.0, 0, 0))
    watch.counted(counters(2.0, 0, 2_000_000))
    assert utilisation(watch, DOWN) == 0.0


@pytest.mark.parametrize(
    ("tx", "rounds"), [((0, 1_250_000, None), 2), ((0, 1_250_000, 700), 2), ((None, None, None), 0), ((None, 5, 2_500_005), 3)],
    ids=["uncounted in between", "counter was reset", "never counted", "counted later"],
)  # fmt: skip
def test_counters_that_say_nothing_leave_what_was_known(watch: LinkWatch, tx: Sequence[int | None], rounds: int) -> None:
    """Unsupported ones and ones that went back: no utilisation is made up, none is lost."""
    for t, count in enumerate(tx):
        watch.counted(counters(float(t), count))
    assert utilisation(watch) == pytest.approx({0: 0.0, 2: 0.5, 3: 1.0}[rounds])


def test_after_a_reset_counting_goes_on(watch: LinkWatch) -> None:
    """From the smaller number on."""
    for t, count in enumerate((5_000_000, 0, 1_250_000)):
        watch.counted(counters(float(t), count))
    assert utilisation(watch) == pytest.approx(0.5)


def test_a_missed_round_makes_the_next_answer_count_for_both(watch: LinkWatch) -> None:
    """A switch that answers every other round is measured all the same, over the time since its last answer."""
    watch.counted(counters(0.0, 0))
    watch.counted(Counters(1.0, {}, 1))
    watch.counted(counters(2.0, 2_500_000))
    assert utilisation(watch) == pytest.approx(0.5)


def test_two_answers_at_one_time_divide_nothing(watch: LinkWatch) -> None:
    """No time went by: what was known stays."""
    watch.counted(counters(1.0, 0))
    watch.counted(counters(1.0, 10**9))
    assert utilisation(watch) == 0.0


def test_queues_tell_backlog_and_the_drops_since_the_last_reading(watch: LinkWatch) -> None:
    """Drops of the period, not of all time; none when the counter began again."""
    watch.queued({UP: QueueCount(0.0, 0, 0, 70, 0)})
    assert watch.links(0.0, [UP])[UP].drops is None
    for t, (drops, seen) in enumerate([(75, 5), (75, 0), (3, 0)], 1):
        watch.queued({UP: QueueCount(float(t), 4 * PACKET, 4, drops, t * 10**7)})
        link = watch.links(0.0, [UP])[UP]
        assert (link.backlog_bytes, link.drops) == (4 * PACKET, seen)


# -- links that carry less than they should


@dataclass
class Line:
    """A link that serves a queue of whole packets at `mbps`, and is read as `LinkWatch` reads it."""

    mbps: float
    t: float = 0.0
    sent: int = 0
    waiting: int = 0
    _credit: float = field(default=0.0)

    def advance(self, seconds: float, arriving: int = 0, before: float = 0.0) -> QueueCount:
        """Let time go by, with packets arriving after a share `before` of it; the reading then. An idle link saves nothing up."""
        if before:
            self.advance(seconds * before)
            seconds *= 1 - before
        self.waiting += arriving
        self.t += seconds
        self._credit += self.mbps * 1e6 / 8 * seconds
        out = min(self.waiting, int(self._credit // PACKET))
        self.waiting -= out
        self.sent += out * PACKET
        self._credit = self._credit - out * PACKET if self.waiting else 0.0
        return QueueCount(self.t, self.waiting * PACKET, self.waiting, 0, self.sent)


def saturated(line: Line, seconds: float, poll_s: float = 0.1) -> Iterator[QueueCount]:
    """Readings of a line whose queue never empties."""
    for _ in range(round(seconds / poll_s)):
        yield line.advance(poll_s, max(0, 1000 - line.waiting))


def found(watch: LinkWatch, readings: Iterator[QueueCount], port: Port = UP) -> list[float]:
    """When the link was found degraded."""
    return [reading.t for reading in readings if watch.queued({port: reading})]


@pytest.mark.parametrize("poll_s", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_slow_link_is_found_and_measured(watch: LinkWatch, share: float, poll_s: float) -> None:
    """Half and quarter rate under load: said once, within a second or three readings, and measured."""
    (at,) = found(watch, saturated(Line(share * MBPS), 8.0, poll_s))
    assert at <= max(0.8, 3 * poll_s)
    assert mbps(watch, 8.0) == pytest.approx(share * MBPS, rel=0.2)
    assert mbps(watch, 8.0, DOWN) == MBPS


@pytest.mark.parametrize("poll_s", [0.01, 0.03, 0.1, 1.0])
def test_a_saturated_healthy_link_is_not_slow(watch: LinkWatch, poll_s: float) -> None:
    """Whatever the polling: a packet more or less in a short period is no evidence."""
    assert not found(watch, saturated(Line(MBPS), 20.0, poll_s))


@settings(max_examples=100, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5), st.sampled_from([0.0, 0.5, 0.99])), min_size=1, max_size=6),
    st.sampled_from([0.01, 0.02, 0.1]),
)
def test_bursts_on_a_healthy_link_are_no_evidence(pattern: list[tuple[int, int, float]], poll_s: float) -> None:
    """Any on and off pattern, over and over, in step with the polling: never degraded."""
    watch, line = LinkWatch(fat_tree(4), MBPS), Line(MBPS)
    for _ in range(100):
        for packets, periods, before in pattern:
            assert watch.queued({UP: line.advance(poll_s, packets, before)}) == []
            for _ in range(periods - 1):
                assert watch.queued({UP: line.advance(poll_s)}) == []


def test_bursts_on_a_slow_link_are_found_in_time(watch: LinkWatch) -> None:
    """What waits through whole readings is evidence, also when the link is idle in between."""
    line = Line(MBPS / 2)

    def bursts() -> Iterator[QueueCount]:
        for _ in range(10):
            yield line.advance(0.1, 50)
            yield from (line.advance(0.1) for _ in range(6))

    assert len(found(watch, bursts())) == 1
    assert mbps(watch, line.t) == pytest.approx(MBPS / 2, rel=0.2)


def test_an_idle_or_empty_link_shows_nothing(watch: LinkWatch) -> None:
    """It sends little because it has little to send."""
    line = Line(MBPS / 2)
    assert not found(watch, (line.advance(0.1, 1) for _ in range(100)))


def test_a_link_that_is_down_is_not_called_slow(watch: LinkWatch) -> None:
    """Its queue stands still for another reason."""
    watch.port_changed(UP, False, 0.0)
    assert not found(watch, saturated(Line(0.0), 5.0))


def test_a_recovered_link_is_believed_at_once(watch: LinkWatch) -> None:
    """The first reading that shows more than was believed."""
    slow, line = Line(MBPS / 2), Line(MBPS)
    assert found(watch, saturated(slow, 1.0))
    line.t, line.sent = slow.t, slow.sent
    watch.queued({UP: line.advance(0.1, 100)})
    assert mbps(watch, line.t) == MBPS


def test_patience_doubles_with_each_relapse(watch: LinkWatch) -> None:
    """A link that nobody uses is tried again after 10 s; if it is still slow, after 20, then 40."""
    line, waits = Line(MBPS / 2), []
    for _ in range(3):
        (said,) = found(watch, saturated(line, 1.21, 0.11))
        end = line.t
        assert mbps(watch, end + 5.0) < MBPS
        wait = next(seconds for seconds in range(100) if mbps(watch, end + seconds) == MBPS)
        assert said <= end
        waits.append(wait)
        line.waiting = 0
        for pause in (0.001, wait):
            watch.queued({UP: line.advance(pause)})
    assert [round(wait, -1) for wait in waits] == [10, 20, 40]


def test_believing_more_than_was_built_is_impossible(watch: LinkWatch) -> None:
    """A belief never exceeds the configured rate."""
    found(watch, saturated(Line(0.8 * MBPS), 3.0))
    assert mbps(watch, 3.0) == pytest.approx(0.8 * MBPS, rel=0.1)
    watch.mbps = MBPS / 2
    assert mbps(watch, 3.0) == MBPS / 2


# -- links that go down, come back, and flap


def test_either_end_takes_the_whole_link_down(watch: LinkWatch) -> None:
    """Both directions carry nothing, and say so."""
    assert watch.port_changed(DOWN, False, 1.0)
    assert watch.down(1.0) == {UP, DOWN}
    links = watch.links(1.0, [UP, DOWN])
    assert not links[UP].up and not links[DOWN].up and links[UP].configured_mbps == MBPS


def test_a_port_that_tells_what_is_known_changes_nothing(watch: LinkWatch) -> None:
    """As on connecting: up when it was up, down twice."""
    assert not watch.port_changed(UP, True, 0.0)
    assert watch.port_changed(UP, False, 1.0)
    assert not watch.port_changed(UP, False, 2.0)


def test_a_link_that_is_back_is_held_down_for_a_while(watch: LinkWatch) -> None:
    """Coming up changes nothing yet; after 3 s it may be used."""
    watch.port_changed(UP, False, 1.0)
    assert not watch.port_changed(UP, True, 2.0)
    assert watch.down(4.9) == {UP, DOWN} and not watch.down(5.0)


def test_both_ends_must_be_back(watch: LinkWatch) -> None:
    """The later one decides."""
    for port, t in ((UP, 1.0), (DOWN, 1.0)):
        watch.port_changed(port, False, t)
    watch.port_changed(UP, True, 2.0)
    watch.port_changed(DOWN, True, 20.0)
    assert watch.down(22.0) == {UP, DOWN} and not watch.down(23.0)


def flap(watch: LinkWatch, times: int, t: float = 0.0, down_s: float = 1.0, up_s: float = 1.0) -> tuple[float, int]:
    """Down and up again some times; when it last came up, and how often the link's use changed."""
    changes, usable = 0, not watch.down(t)
    for index in range(times):
        start = t + index * (down_s + up_s)
        watch.port_changed(UP, False, start)
        watch.port_changed(UP, True, start + down_s)
        for tenth in range(10 * round(down_s + up_s)):
            now = not watch.down(start + tenth / 10 + 1e-6)
            changes, usable = changes + (now != usable), now
    return t + times * (down_s + up_s) - up_s, changes


def test_ten_flaps_change_a_links_use_once(watch: LinkWatch) -> None:
    """Down at the first; the hold-down outlasts every pause after it, and is over at last."""
    last_up, changes = flap(watch, 10)
    assert changes == 1
    assert watch.down(last_up + 59.9) and not watch.down(last_up + 60.0)


@pytest.mark.parametrize(("times", "seconds"), [(1, 3.0), (2, 6.0), (3, 12.0), (5, 48.0), (6, 60.0), (2000, 60.0)])
def test_each_flap_doubles_the_hold_down(watch: LinkWatch, times: int, seconds: float) -> None:
    """Up to a minute, however often it flaps."""
    for index in range(times):
        watch.port_changed(UP, False, index * 2.0)
        watch.port_changed(UP, True, index * 2.0 + 1.0)
    end = times * 2.0 - 1.0 + seconds
    assert watch.down(end - 0.01) and not watch.down(end + 0.01)


def test_a_calm_half_minute_is_forgiven(watch: LinkWatch) -> None:
    """Of being up: a failure after that is the first again."""
    last_up, _ = flap(watch, 4)
    assert watch.port_changed(UP, False, last_up + 40.0)
    watch.port_changed(UP, True, last_up + 41.0)
    assert watch.down(last_up + 43.9) and not watch.down(last_up + 44.0)


def test_a_long_failure_is_no_calm(watch: LinkWatch) -> None:
    """A link that was down for a minute and fails again at once is flapping."""
    watch.port_changed(UP, False, 0.0)
    watch.port_changed(UP, True, 60.0)
    watch.port_changed(UP, False, 61.0)
    watch.port_changed(UP, True, 62.0)
    assert watch.down(67.9) and not watch.down(68.0)


def test_without_hold_down_a_link_is_back_when_it_is_up() -> None:
    """`hold_down_s` 0, as for measurements without it."""
    fabric: Fabric = fat_tree(4)
    watch = LinkWatch(fabric, MBPS, hold_down_s=0.0)
    watch.port_changed(UP, False, 1.0)
    assert watch.port_changed(UP, True, 2.0) and not watch.down(2.0)
