"""A recorded run gives the same row again, and whatever is falsified in its folder refuses the row with its reason.

`tests/data/recorded/point` is a point folder of a real run of `experiment.yaml` beside it; its `expected.json` is the row
that the run printed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric.experiment import Point, load_experiment
from fabric.results import Row
from fabric.summary import describe_load, summarise
from fabric.workload import Workload, workload

RECORDED = Path(__file__).parents[1] / "data" / "recorded"
Edit = Callable[[Any], Any]


@pytest.fixture(name="point", scope="module")
def _point() -> Point:
    (point,) = load_experiment(RECORDED / "experiment.yaml").points
    return point


@pytest.fixture(name="work", scope="module")
def _work(point: Point) -> Workload:
    return workload(point)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A copy that a test may falsify."""
    return Path(shutil.copytree(RECORDED / "point", tmp_path / "000-ecmp-r1"))


def the_row(point: Point, work: Workload, folder: Path) -> Row:
    """The one row of a point folder."""
    alpha_ms = json.loads((folder / "point.json").read_text())["alpha_ms"]
    (row,) = summarise(point, work, folder, alpha_ms)
    return row


def edit_json(path: Path, edit: Edit) -> None:
    """Change a JSON file in place."""
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def edit_records(folder: Path, edit: Edit) -> None:
    """Change every record line of the traffic."""
    path = folder / "traffic" / "records.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        edit(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_recorded_run_gives_its_row_again(point: Point, work: Workload, folder: Path) -> None:
    """Every key, on any machine."""
    expected = json.loads((RECORDED / "expected.json").read_text())
    got = json.loads(json.dumps(the_row(point, work, folder).to_json()))
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), key


def test_the_workload_is_what_was_recorded(work: Workload) -> None:
    """The same file and seed give the same placement, flows and ports as when it was recorded."""
    recorded = json.loads((RECORDED / "point" / "point.json").read_text())
    assert json.loads(json.dumps(work.to_json())) == {**{key: recorded[key] for key in ("placement", "edges", "flows")}, "requests": [], "parts": [{"name": "collective", "first": 0, "ranks": 4}]}


def test_a_load_is_described_in_a_few_words(point: Point) -> None:
    """By its name and its parameters."""
    assert describe_load(point) == "stride step=8 pairs=4"


def _another_queue(record: Any) -> None:
    record["differences"] = ["p0e0-eth1: queue 40 packets instead of 50 packets"]


def _another_default(record: Any) -> None:
    record["host_sysctls"]["p0e0h0"]["net.ipv4.tcp_congestion_control"] = "bbr"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_another_queue, "1 shapers are not what was asked, the first: p0e0-eth1: queue 40 packets instead of 50 packets"),
        (_another_default, "p0e0h0 has net.ipv4.tcp_congestion_control=bbr, asked for cubic"),
    ],
)
def test_a_network_that_is_not_what_was_asked_is_refused(
    point: Point, work: Workload, folder: Path, edit: Edit, reason: str
) -> None:
    """The reason names where."""
    edit_json(folder / "network.json", edit)
    assert the_row(point, work, folder).refused == reason


def _bbr_socket(record: Any) -> None:
    for end in record.get("sockets", [])[:1]:
        end["tcp"] = "bbr"


def _no_sockets(record: Any) -> None:
    if "sockets" in record:
        record["sockets"] = []


def _wrong_sum(record: Any) -> None:
    if record["event"] == "iteration" and record["iteration"] == 1:
        record["wrong"] = 7


def _lost_bytes(record: Any) -> None:
    for end in record.get("sockets", []):
        end["bytes_received"] = max(0, end["bytes_received"] - 4)


def _too_fast(record: Any) -> None:
    if record["event"] == "iteration":
        record["ends_ms"] = [end / 100 for end in record["ends_ms"]]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_bbr_socket, "sockets used bbr, asked for cubic"),
        (_no_sockets, "no socket reported its congestion control"),
        (_wrong_sum, "7 elements of the result are wrong"),
        (_lost_bytes, "bytes arrived, expected"),
        (_too_fast, "is below 0.98: something is not what it says"),
    ],
)
def test_traffic_that_is_not_what_was_asked_is_refused(
    point: Point, work: Workload, folder: Path, edit: Edit, reason: str
) -> None:
    """A refused row keeps what was asked and has no figures."""
    edit_records(folder, edit)
    row = the_row(point, work, folder)
    assert row.refused is not None and reason in row.refused
    assert (row.p50_ms, row.busbw_mbps, row.load_share_of_nb, row.fidelity) == (None, None, None, None)
    assert (row.variant, row.nbytes) == ("ecmp", 65536)


def test_empty_telemetry_is_refused(point: Point, work: Workload, folder: Path) -> None:
    """A header alone is no record."""
    path = folder / "telemetry" / "queues.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    row = the_row(point, work, folder)
    assert row.refused == "telemetry is empty: the sampler recorded no two samples"


def test_switches_that_never_answered_are_refused(point: Point, work: Workload, folder: Path) -> None:
    """Port counters by OpenFlow belong to every run."""
    (folder / "controller" / "ports.jsonl").write_text("")
    assert the_row(point, work, folder).refused == "telemetry is empty: no switch answered for its port counters"


def test_hashing_that_uses_one_core_is_refused(point: Point, work: Workload, folder: Path) -> None:
    """Eight multi-path flows through one core switch are no ECMP."""
    def all_alike(data: Any) -> None:
        path = ["p0e0h0-eth0", "p0e0-eth3", "p0a0-eth3", "g0c0-eth2", "p1a0-eth1", "p1e0-eth1"]
        data["edges"] = [[*edge[:3], path] for edge in data["edges"]]
        data["flows"] = [path for _ in data["flows"]]

    edit_json(folder / "installed.json", all_alike)
    reason = the_row(point, work, folder).refused
    assert reason == "ecmp put all 8 multi-path flows through g0c0: it does not hash"


def test_exceptions_of_the_controller_fail_the_row(point: Point, work: Workload, folder: Path) -> None:
    """It may still be reported, with the reason."""
    edit_json(folder / "network.json", lambda data: data.update(controller_exceptions=2))
    row = the_row(point, work, folder)
    assert row.fidelity == "FAIL"
    assert row.fidelity_reasons[0].startswith("the controller raised 2 exceptions")


def _slow_sockets(folder: Path) -> None:
    """Two samples a second of one sender over the whole run, 40 ms and 60 ms in turn, whatever the window."""
    times = [record["release"] for record in map(json.loads, (folder / "traffic" / "records.jsonl").read_text().splitlines()) if record["event"] == "iteration"]
    t = [min(times) + number / 2 for number in range(2 * int(max(times) - min(times) + 2))]
    line = {"kind": "load", "src_ip": "a", "src_port": 1, "dst_ip": "b", "dst_port": 2, "t": t, "rtt_ms": [40.0 + 20 * (number % 2) for number in range(len(t))],
            "min_rtt_ms": [1.0] * len(t), "cwnd": [10] * len(t), "retransmits": [0] * len(t), "acked_bytes": list(range(len(t))), "sent_bytes": list(range(len(t)))}  # fmt: skip
    (folder / "traffic" / "sockets.jsonl").write_text(json.dumps(line) + "\n")


def test_round_trips_of_the_window_are_in_the_row(point: Point, work: Workload, folder: Path) -> None:
    """A record that has none says nothing of them; one that has gives the median and the 95th percentile."""
    assert the_row(point, work, folder).rtt_p50_ms is None
    _slow_sockets(folder)
    row = the_row(point, work, folder)
    assert row.rtt_p50_ms is not None and 40 <= row.rtt_p50_ms <= 60 and row.rtt_p95_ms == pytest.approx(60, abs=5)


def test_a_retransmission_timeout_is_told_in_times_of_the_ideal(point: Point, work: Workload, folder: Path) -> None:
    """200 ms, over the ideal of this size."""
    row = the_row(point, work, folder)
    assert row.rto_over_ideal is not None and row.ideal_ms is not None
    assert row.rto_over_ideal * row.ideal_ms == pytest.approx(200)


@pytest.mark.parametrize(
    ("late", "overrun", "said"),
    [
        (15, 0, "the delay line released 1.5% of the packets more than 1 ms late"),
        (50, 0, "the delay line released 5.0% of the packets more than 1 ms late (WARN above 0.02)"),
        (200, 0, "the delay line released 20.0% of the packets more than 1 ms late (FAIL above 0.1)"),
        (0, 9, "the delay line was overrun and lost 0.892% of the packets (FAIL above 0.001)"),
    ],
)
def test_a_delay_line_that_was_late_or_overrun_is_a_reason(
    point: Point, work: Workload, folder: Path, late: int, overrun: int, said: str
) -> None:
    """From its own record of the window, with the numbers; and what it cost and lost on purpose is in the row."""
    begin: dict[str, float] = {"t": 0.0, "packets": 0, "released": 0, "lost": 0, "late": 0, "waiting": 0, "overrun": 0, "cpu_s": 0.0}
    end = {**begin, "t": 1e9, "packets": 1000, "released": 1000, "lost": 3, "late": late, "overrun": overrun, "cpu_s": 2.5e8}
    (folder / "delay").mkdir()
    (folder / "delay" / "delay.jsonl").write_text(json.dumps(begin) + "\n" + json.dumps(end) + "\n")
    row = the_row(point, work, folder)
    assert (said in row.fidelity_reasons) == ("above" in said)
    assert any("delay line" in reason for reason in row.fidelity_reasons) == ("above" in said)
    assert (row.losses, row.delay_line_cores) == (3, 0.25)
