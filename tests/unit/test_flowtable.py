"""Which flows count as active, on what signal, for how long; and what they are believed to demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fabric.flowtable import FlowTable
from fabric.graph import Port
from fabric.policy import FlowKey

MBPS = 20.0
HOSTS = [f"h{index}" for index in range(8)]
IP = {name: f"10.0.0.{index + 1}" for index, name in enumerate(HOSTS)}
IDLE: Mapping[str, float] = {}


def key(src: str, dst: str, port: int = 20000) -> FlowKey:
    """A flow that `src` opens to `dst`."""
    return FlowKey(IP[src], port, IP[dst], 5001)


def back(forth: FlowKey) -> FlowKey:
    """The other direction of a connection."""
    return FlowKey(forth.dst_ip, forth.dst_port, forth.src_ip, forth.src_port)


@pytest.fixture
def table() -> FlowTable:
    """Eight hosts of 20 Mb/s, no flows."""
    return FlowTable({ip: name for name, ip in IP.items()}, dict.fromkeys(HOSTS, MBPS))


def active(table: FlowTable, t: float, out: Mapping[str, float] = IDLE, into: Mapping[str, float] = IDLE) -> dict[str, str]:
    """The active flows by "src>dst", with their signals."""
    return {f"{flow.src}>{flow.dst}": flow.signal for flow in table.active(t, out, into)}


def sends(table: FlowTable, flow: FlowKey, mbps: float, start: float, seconds: float = 1.0) -> float:
    """Two readings of a flow's counter, `seconds` apart, as of a flow that sends at a rate; when the last was."""
    record = table.records.get(flow)
    before = record.counted[1] if record is not None and record.counted else 0
    table.counted(flow, before, start)
    table.counted(flow, before + int(mbps * seconds * 125_000), start + seconds)
    return start + seconds


def test_a_syn_makes_a_flow_active_before_its_first_byte(table: FlowTable) -> None:
    """With all of a NIC as its demand, for its grace and its linger: 2 and 5 s."""
    record = table.note(key("h0", "h1"), 10.0, "syn")
    assert record is not None and (record.src, record.dst, record.first_seen, record.opened) == ("h0", "h1", 10.0, True)
    (flow,) = table.active(10.0, IDLE, IDLE)
    assert (flow.key, flow.demand_mbps, flow.mbps, flow.signal, flow.path) == (key("h0", "h1"), MBPS, None, "syn", None)
    assert active(table, 17.0) and not active(table, 17.001)


def test_a_hint_counts_like_a_syn_also_for_a_flow_that_is_known(table: FlowTable) -> None:
    """It was announced once more, so its grace begins again."""
    table.note(key("h0", "h1"), 0.0, "syn")
    assert active(table, 0.1) == {"h0>h1": "syn"}
    table.note(key("h0", "h1"), 20.0, "hint")
    assert active(table, 27.0) == {"h0>h1": "hint"} and not active(table, 27.001)


def test_the_same_syn_again_is_no_new_flow(table: FlowTable) -> None:
    """A retransmitted SYN prolongs nothing."""
    first = table.note(key("h0", "h1"), 0.0, "syn")
    assert table.note(key("h0", "h1"), 1.0, "syn") is first
    assert not active(table, 7.5)


def test_a_connection_that_takes_old_ports_is_alive(table: FlowTable) -> None:
    """Long after its grace a SYN is a new one's."""
    first = table.note(key("h0", "h1"), 0.0, "syn")
    assert not active(table, 20.0)
    assert table.note(key("h0", "h1"), 20.0, "syn") is first
    assert active(table, 20.0)


def test_a_rule_that_is_found_is_no_sign_of_life(table: FlowTable) -> None:
    """After a restart: the flow is known, but active only once something else says so."""
    assert table.note(key("h0", "h1"), 0.0, "rule") is not None
    assert not active(table, 0.0)


@pytest.mark.parametrize("ends", [("10.9.9.9", IP["h1"]), (IP["h1"], "10.9.9.9")])
def test_addresses_that_are_no_hosts_are_left_alone(table: FlowTable, ends: tuple[str, str]) -> None:
    """Neither end may be a stranger."""
    stranger = FlowKey(ends[0], 1, ends[1], 2)
    assert table.note(stranger, 0.0, "syn") is None and table.counted(stranger, 10**9, 0.0) is None
    assert not table.records


def test_an_elephants_counter_keeps_it_active(table: FlowTable) -> None:
    """From a tenth of its NIC; measured from the second reading on, and remembered at its fastest."""
    flow = key("h0", "h1")
    table.counted(flow, 10**9, 0.0)
    assert not active(table, 0.0) and table.records[flow].mbps is None
    assert sends(table, flow, 2.0, 0.0) == 1.0
    assert active(table, 6.0) == {"h0>h1": "flow-counters"} and not active(table, 6.001)
    sends(table, flow, 12.0, 1.0)
    sends(table, flow, 4.0, 2.0)
    record = table.records[flow]
    assert record.mbps == pytest.approx(4.0) and record.peak_mbps == pytest.approx(12.0)


@pytest.mark.parametrize("mbps", [0.2, 0.4, 1.9])
def test_a_stream_of_acknowledgements_is_never_an_elephant(table: FlowTable, mbps: float) -> None:
    """Below a tenth of a NIC a flow's own counter wakes nothing, however long it grows."""
    for second in range(20):
        sends(table, back(key("h0", "h1")), mbps, float(second))
    assert not active(table, 20.0)


def test_counters_that_come_in_steps_are_not_taken_for_bursts(table: FlowTable) -> None:
    """A switch books half a second at once: asked just before and just after, 0.4 Mb/s are still 0.4 Mb/s."""
    flow, rate = back(key("h0", "h1")), 0.4

    def booked(t: float) -> int:
        return int(rate * 125_000 * 0.5 * (t // 0.5))

    for step in range(40):
        for t in (0.5 * step - 0.01, 0.5 * step + 0.01):
            table.counted(flow, booked(t), t)
    record = table.records[flow]
    assert record.peak_mbps is not None and record.peak_mbps <= 2 * rate
    assert not active(table, 20.0)


def test_a_counter_that_begins_again_is_a_new_beginning(table: FlowTable) -> None:
    """Its entry went and came: no rate is made of the difference."""
    flow = key("h0", "h1")
    sends(table, flow, 10.0, 0.0)
    table.counted(flow, 500, 2.0)
    assert table.records[flow].mbps == pytest.approx(10.0) and table.records[flow].counted == (2.0, 500)
    table.counted(flow, 500 + 1_250_000, 3.0)
    assert table.records[flow].mbps == pytest.approx(10.0)


def test_a_counter_that_stands_still_is_silence_after_two_seconds(table: FlowTable) -> None:
    """Not before: the switch may only be late with it. The peak stays."""
    flow = key("h0", "h1")
    end = sends(table, flow, 10.0, 0.0)
    nbytes = table.records[flow].counted
    assert nbytes is not None
    table.counted(flow, nbytes[1], end + 2.0)
    assert table.records[flow].mbps == pytest.approx(10.0)
    table.counted(flow, nbytes[1], end + 2.1)
    assert (table.records[flow].mbps, table.records[flow].peak_mbps) == (0.0, pytest.approx(10.0))


def test_where_a_flow_was_hashed_is_kept(table: FlowTable) -> None:
    """The latest that was said; a reading without it takes nothing away."""
    flow = key("h0", "h1")
    for hashed, kept in ((3, 3), (None, 3), (0, 0)):
        record = table.counted(flow, 0, 0.0, hashed)
        assert record is not None and record.hashed_to == kept


# -- port counters


def ring(table: FlowTable, size: int, mbps: float = 10.0) -> list[FlowKey]:
    """The flows of a ring of hosts, and their acknowledgements, all measured once and long silent."""
    flows = [key(HOSTS[index], HOSTS[(index + 1) % size]) for index in range(size)]
    for flow in flows:
        table.note(flow, 0.0, "syn")
        sends(table, flow, mbps, 0.0)
        sends(table, back(flow), mbps / 60, 0.0)
    assert not active(table, 99.0)
    return flows


@pytest.mark.parametrize("size", [2, 3, 8])
def test_busy_nics_wake_a_whole_collective_at_once(table: FlowTable, size: int) -> None:
    """The data flows, none of the acknowledgements, though their ends are as busy."""
    flows = ring(table, size)
    busy = dict.fromkeys(HOSTS[:size], 0.5)
    assert active(table, 100.0, busy, busy) == {f"{HOSTS[i]}>{HOSTS[(i + 1) % size]}": "port-counters" for i in range(size)}
    assert {flow.key for flow in table.active(100.0, busy, busy)} == set(flows)


def test_who_opened_is_woken_first_while_nothing_was_measured(table: FlowTable) -> None:
    """Before any counter came, the direction of the SYN is the likelier one."""
    forth, answers = key("h0", "h1"), back(key("h1", "h0"))
    assert answers < forth  # the order by key alone would wake the wrong one
    table.counted(answers, 0, 0.0)
    table.note(forth, 0.0, "syn")
    assert [flow.key for flow in table.active(100.0, {"h0": 0.5}, {"h1": 0.5})] == [forth]


def test_of_two_that_would_explain_it_the_stronger_one_is_woken(table: FlowTable) -> None:
    """What once sent the most from here to there; the other sleeps on."""
    weak, strong = key("h0", "h1", 20000), key("h0", "h1", 30000)
    sends(table, weak, 3.0, 0.0)
    sends(table, strong, 9.0, 0.0)
    woken = table.active(100.0, {"h0": 0.4}, {"h1": 0.4})
    assert [flow.key for flow in woken] == [strong]


@pytest.mark.parametrize(("out", "into"), [(0.5, 0.05), (0.05, 0.5), (0.099, 0.099)])
def test_both_ends_must_be_busy(table: FlowTable, out: float, into: float) -> None:
    """A tenth of the NIC at each; one alone is another flow's."""
    sends(table, key("h0", "h1"), 10.0, 0.0)
    assert not active(table, 100.0, {"h0": out}, {"h1": into})


def test_nics_that_active_flows_explain_wake_nothing(table: FlowTable) -> None:
    """The sender is known to send, the receiver to receive: a third flow between the two is not needed."""
    sends(table, key("h0", "h2"), 10.0, 0.0)
    busy = dict.fromkeys(("h0", "h1", "h2", "h3"), 0.5)
    table.note(key("h0", "h1"), 100.0, "syn")
    table.note(key("h3", "h2"), 100.0, "syn")
    assert active(table, 100.0, busy, busy) == {"h0>h1": "syn", "h3>h2": "syn"}


def test_the_only_flow_of_a_busy_nic_stays_awake(table: FlowTable) -> None:
    """Its NIC's counters are its own, and fresher than the switch's entry; with two flows they would prove nothing."""
    table.note(key("h0", "h1"), 0.0, "syn")
    for t in range(0, 60, 4):
        assert active(table, float(t), {"h0": 0.5}, {"h1": 0.5}) == {"h0>h1": "syn"}
    table.note(key("h2", "h3"), 60.0, "syn")
    table.note(key("h2", "h4"), 60.0, "syn")
    for t in range(60, 69, 4):
        found = active(table, float(t), {"h2": 0.5}, {"h3": 0.5, "h4": 0.0})
    assert "h2>h4" not in found


# -- what is shown of them


def test_demands_are_what_the_nics_would_allow(table: FlowTable) -> None:
    """Two flows out of a host share it; the third has what is left at the receiver."""
    for src, dst in (("h0", "h1"), ("h0", "h2"), ("h3", "h2")):
        table.note(key(src, dst), 0.0, "syn")
    demand = {f"{flow.src}>{flow.dst}": flow.demand_mbps for flow in table.active(0.0, IDLE, IDLE)}
    assert demand == pytest.approx({"h0>h1": 10.0, "h0>h2": 10.0, "h3>h2": 10.0})


def test_sleeping_flows_demand_nothing(table: FlowTable) -> None:
    """A flow has its NIC for itself beside a hundred that are silent."""
    for port in range(100):
        table.counted(key("h0", "h1", port + 1), 0, 0.0)
    table.note(key("h0", "h1", 20000), 50.0, "syn")
    (flow,) = table.active(50.0, IDLE, IDLE)
    assert flow.demand_mbps == MBPS


def test_a_flow_that_was_moved_rests(table: FlowTable) -> None:
    """For `hold_s` it is shown as not movable."""
    record = table.note(key("h0", "h1"), 0.0, "syn")
    assert record is not None
    record.moved_at = 1.0
    assert [table.active(t, IDLE, IDLE)[0].movable for t in (1.0, 1.999, 2.0)] == [False, False, True]


def test_a_flow_whose_path_is_cut_does_not_rest(table: FlowTable) -> None:
    """It was moved a moment ago, onto a link that has died since; one whose path is not known rests as others do."""
    record = table.note(key("h0", "h1"), 0.0, "syn")
    assert record is not None
    record.moved_at = 1.0
    path = (Port("h0", 0), Port("s0", 2))
    for known, cut, movable in ((path, True, True), (path, False, False), (None, True, False)):
        record.path = known
        assert table.active(1.1, IDLE, IDLE, lambda _, cut=cut: cut)[0].movable is movable  # type: ignore[misc]


def test_a_flow_that_has_just_begun_may_be_moved_again(table: FlowTable) -> None:
    """The first connections of a collective are placed before its last one is known, and have to make room for it."""
    record = table.note(key("h0", "h1"), 0.0, "syn")
    assert record is not None
    record.moved_at = 0.0
    assert [table.active(t, IDLE, IDLE)[0].movable for t in (0.1, 0.49, 0.5, 0.99, 1.0)] == [True, True, False, False, True]


def test_the_order_does_not_depend_on_who_was_seen_first(table: FlowTable) -> None:
    """By key: equal knowledge gives equal views, so equal decisions."""
    other = FlowTable(table.host_of, table.nic_mbps)
    flows = [key("h2", "h3"), key("h0", "h1"), key("h1", "h2")]
    for flow in flows:
        table.note(flow, 0.0, "syn")
    for flow in reversed(flows):
        other.note(flow, 0.0, "syn")
    assert table.active(1.0, IDLE, IDLE) == other.active(1.0, IDLE, IDLE)
    assert [flow.key for flow in table.active(1.0, IDLE, IDLE)] == sorted(flows)


def test_flows_that_are_gone_are_forgotten_once_they_sleep(table: FlowTable) -> None:
    """Those that a switch has mentioned lately stay, and so do active ones."""
    for port, t in ((1, 0.0), (2, 0.0), (3, 100.0)):
        table.note(key("h0", "h1", port), t, "syn")
    table.counted(key("h0", "h1", 1), 0, 80.0)
    table.forget(100.0, 50.0)
    assert sorted(flow.src_port for flow in table.records) == [1, 3]


class Asked(dict[str, float]):
    """Busy NICs that count how often they are looked at."""

    looks = 0

    def get(self, *args: Any) -> Any:
        self.looks += 1
        return super().get(*args)


@pytest.mark.parametrize("flows", [100, 1000])
def test_the_work_grows_with_the_flows_and_not_with_their_square(table: FlowTable, flows: int) -> None:
    """Each known flow's NICs are looked at no more than twice a turn."""
    for port in range(flows):
        table.counted(key(HOSTS[port % 7], "h7", port + 1), 0, 0.0)
    busy = Asked(dict.fromkeys(HOSTS, 0.5))
    table.active(100.0, busy, busy)
    assert flows <= busy.looks <= 4 * flows
