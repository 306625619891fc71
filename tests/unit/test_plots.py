"""Figures from the golden run folder: the files, the numbers behind them, the captions, and the refusals."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from fabric import plugins
from fabric.collectives.ring_allreduce import ring_allreduce
from fabric.errors import RequestError
from fabric.histogram import bucket_of
from fabric.plots import FIGURES, draw, draw_topology
from fabric.plots.frame import arms_of, load_of
from fabric.plots.topology import places
from fabric.results import Row, RunFolder, read_rows
from topologies.rails import rail_optimized

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "two-arms"
STRIDE = "stride step=8"
HARDWARE = "userspace datapath (netdev) · 20 Mb/s links, MTU 9000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden run folder."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "run"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the golden run folder with all its figures, for tests that only look."""
    folder = Path(shutil.copytree(GOLDEN, tmp_path_factory.mktemp("drawn") / "run"))
    draw(folder)
    return folder


def rewritten(folder: Path, rows: list[Row]) -> Path:
    """The folder with these rows in place of its own."""
    (folder / "rows.jsonl").unlink()
    RunFolder(folder).append_rows(rows)
    return folder


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "figures" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def column(lines: list[dict[str, str]], name: str) -> list[float]:
    return [float(line[name]) for line in lines]


def texts(folder: Path, name: str) -> str:
    """The SVG, which names each of its texts in a comment, whatever the font."""
    return (folder / "figures" / f"{name}.svg").read_text()


def marking(folder: Path) -> str:
    """Make the recorded points ones whose busiest port marks above three packets: one in its fifth sample. Its name."""
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for point in (folder / "points").glob("*-r1"):  # those with telemetry
        header, *samples = [json.loads(line) for line in (point / "telemetry" / "queues.jsonl").read_text().splitlines()]
        port = header["interfaces"][0]
        header["fields"].append("marks")
        for number, sample in enumerate(samples):
            sample["marks"] = [int(number >= 5), *[0] * (len(header["interfaces"]) - 1)]
        text = "".join(json.dumps(line) + "\n" for line in (header, *samples))
        (point / "telemetry" / "queues.jsonl").write_text(text)
        (point / "point.json").write_text(json.dumps({"links": {"mtu": 1500, "ecn": {"min_bytes": 4542, "max_bytes": 10598}}}))
        lines = [{**line, "busiest_port": port} if line["point"] == point.name else line for line in lines]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(port)


def wait(folder: Path) -> None:
    """Give the recorded points delays: packets out of p0e0-eth1 wait 1 ms, out of p0e0-eth2 16 ms; a host's do not count."""
    told = {"offered": 100, "packets": 100, "missed": 0, "stale": 0, "mean_ms": 1.0, "p50_ms": 1.0, "p95_ms": 1.0, "p99_ms": 1.0, "max_ms": 1.0}
    ports = {"p0e0-eth1": told, "p0e0-eth2": {**told, "p99_ms": 16.0}, "p0e0h0-eth0": {**told, "p99_ms": 300.0}}
    counts = [(0, port, bucket_of(ns), 100) for port, ns in enumerate((1_000_000, 16_000_000, 300_000_000))]
    for point in (folder / "points").iterdir():
        (point / "queueing.json").write_text(json.dumps({"ports": ports}))
        np.savez(point / "queueing.npz", times=np.array([1.0, 2.0]), counts=np.array(counts))


def probed(folder: Path) -> None:
    """Give the recorded points probes over two hops: the queue at the second grows by one packet a probe, up to 19."""
    pairs = {"hz": 100, "pairs": [{"src": "a", "dst": "b", "path": None}], "ports": {"1": "a-eth0", "2": "s-eth2"}}
    lines = [
        {"pair": 0, "number": n, "sent": n / 100, "arrived": n / 100 + 0.01, "without": 0,
         "hops": [[1, 0, 0, 10_000, n / 100 + 0.001, n * 1000], [2, n, n * 1500, 10_000, n / 100 + 0.002, n * 1000]]}
        for n in range(20)
    ]  # fmt: skip
    for point in (folder / "points").iterdir():
        (point / "inband").mkdir()
        (point / "inband" / "pairs.json").write_text(json.dumps(pairs))
        (point / "inband" / "inband.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def stepped(folder: Path) -> None:
    """Give the collectives a bus bandwidth, 8 to 9 Mb/s, and their points the steps of a ring of four, whose third rank begins 50 ms late."""
    rows = [dataclasses.replace(row, busbw_mbps=8.0 + row.repeat / 10) if row.collective else row for row in read_rows(folder)]
    rewritten(folder, rows)
    for point in {row.point for row in rows if row.collective}:
        schedules = [ring_allreduce(4, nbytes // 4) for nbytes in sorted({row.nbytes or 0 for row in rows if row.point == point})]
        traffic = folder / "points" / point / "traffic"
        traffic.mkdir(parents=True, exist_ok=True)
        (traffic / "traffic.json").write_text(json.dumps({"schedules": [schedule.to_json() for schedule in schedules]}))
        lines = []
        for schedule in schedules:
            arrived: list[float] = []
            times = []
            for item in schedule.transfers:
                begun = max((arrived[other] for other in item.after), default=50.0 if item.src == 2 else 0.0)
                arrived.append(begun + 10.0)
                times.append([begun, begun, begun + 10.0])
            lines.append(json.dumps({"nbytes": schedule.nbytes, "iteration": 0, "times": times}))
        (traffic / "steps.jsonl").write_text("\n".join(lines) + "\n")


def beside(folder: Path) -> None:
    """One more point, of two jobs of two ranks that share a link: b communicates 0.2 s later than a, and a has a backward pass of 0.1 s."""
    row = next(row for row in read_rows(folder) if row.collective)
    rewritten(folder, [*read_rows(folder), *(dataclasses.replace(row, point="jobs-r1", variant="jobs", job=job) for job in "ab")])
    point = folder / "points" / "jobs-r1"
    (point / "traffic").mkdir(parents=True)
    ends = [{"src_ip": f"10.0.0.{rank}", "src_port": 20000 + rank, "dst_ip": f"10.0.0.{rank ^ 1}", "dst_port": 5001 + rank} for rank in range(4)]
    asked = {
        "placement": ["h0", "h1", "h2", "h3"], "flows": [], "jobs": [{"backward_ms": 100.0}, {"backward_ms": 0.0}],
        "parts": [{"name": name, "first": 2 * place, "ranks": 2} for place, name in enumerate("ab")],
        "edges": [[rank, rank ^ 1, 0, ends[rank]] for rank in range(4)],
    }  # fmt: skip
    (point / "point.json").write_text(json.dumps(asked))
    (point / "installed.json").write_text(json.dumps({"edges": [[rank, rank ^ 1, 0, [f"h{rank}-eth0", "s0-eth1"]] for rank in range(4)], "flows": []}))
    lines = [
        {"event": "iteration", "job": job, "nbytes": row.nbytes, "iteration": number, "bucket": 0, "begun": number + late, "release": number + late, "ends_ms": [500.0, 400.0]}
        for job, late in (("a", 0.0), ("b", 0.2)) for number in range(3)
    ]  # fmt: skip
    (point / "traffic" / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_jobs_are_arms_and_have_a_lane_each(folder: Path) -> None:
    """Each its own dots in the figures of collectives; over time what it computed, communicated, and shared."""
    with pytest.raises(RequestError, match="no rows with jobs: figure timeline needs some"):
        draw(folder, "timeline")
    beside(folder)
    draw(folder, "timeline")
    lines = [(line["job"], line["what"], float(line["begin_s"]), float(line["end_s"])) for line in table(folder, "timeline")]
    assert [line[2:] for line in lines if line[:2] == ("a", "computing")] == [(0.0, 0.1), (1.0, 1.1), (2.0, 2.1)]
    assert [line[2:] for line in lines if line[:2] == ("b", "communicating")] == [(0.2, 0.7), (1.2, 1.7), (2.2, 2.7)]
    assert [line[2:] for line in lines if line[:2] == ("a", "sharing")] == [line[2:] for line in lines if line[:2] == ("b", "sharing")] == [(0.2, 0.5), (1.2, 1.5), (2.2, 2.5)]
    draw(folder, "latency")
    assert {line["variant"] for line in table(folder, "latency")} >= {"jobs: a", "jobs: b"}


def railed(folder: Path) -> None:
    """One more point, on two servers of two rails: in its only iteration, of a second, rail 1's NICs send half of their rate, and its leaf a tenth up."""
    row = next(row for row in read_rows(folder) if row.collective)
    rewritten(folder, [*read_rows(folder), dataclasses.replace(row, point="rails-r1", variant="rails")])
    fabric, point = rail_optimized(2, 2), folder / "points" / "rails-r1"
    names = [port.interface for port in fabric.peer]
    for name in ("controller", "telemetry", "traffic"):
        (point / name).mkdir(parents=True)
    (point / "controller" / "topology.json").write_text(json.dumps(fabric.to_json()))
    (point / "network.json").write_text(json.dumps({"shapes": {name: {"mbps": 8.0} for name in names}}))
    a_second = {name: 500_000 if name.startswith(("n0r1", "n1r1")) else 100_000 if name in ("u0l1-eth3", "u0l1-eth4") else 0 for name in names}
    zeros = [0] * len(names)
    header = {"interfaces": names, "fields": ["backlog_bytes", "backlog_packets", "drops", "sent_bytes", "sent_packets"], "period_ms": 50}
    samples = [
        {"t": 10 + n / 4, "late_ms": 0.0, "missed": 0, "backlog_bytes": zeros, "backlog_packets": zeros, "drops": zeros,
         "sent_bytes": [int(a_second[name] * n / 4) for name in names], "sent_packets": zeros}
        for n in range(9)
    ]  # fmt: skip
    (point / "telemetry" / "queues.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (header, *samples)))
    record = {"event": "iteration", "nbytes": row.nbytes, "iteration": 0, "release": 10.5, "ends_ms": [900.0, 1000.0]}
    (point / "traffic" / "records.jsonl").write_text(json.dumps(record) + "\n")


def test_rails_are_as_busy_as_their_nics_and_leaves(folder: Path) -> None:
    """Shares of the configured rates over the measured iteration; without servers there is no such figure."""
    with pytest.raises(RequestError, match="whose hosts are the NICs of servers: figure rails needs some"):
        draw(folder, "rails")
    railed(folder)
    draw(folder, "rails")
    found = {(line["rail"], line["ports"]): float(line["share"]) for line in table(folder, "rails")}
    assert found.pop(("1", "NICs send")) == 0.5 and found.pop(("1", "leaves send up")) == 0.1
    assert len(found) == 4 and set(found.values()) == {0.0}


def test_bandwidth_has_its_ceilings(folder: Path) -> None:
    """A line for every row, with the bus bandwidth of its ideal time beside its own; of one size there is no such figure."""
    stepped(folder)
    draw(folder, "bandwidth")
    rows = [row for row in read_rows(folder) if row.busbw_mbps is not None and row.p50_ms is not None]
    lines = table(folder, "bandwidth")
    assert len(lines) == len(rows)
    found = {(line["load"], line["variant"], line["nbytes"], line["repeat"]): line for line in lines}
    for row in rows:
        line = found[load_of(row), row.variant, str(row.nbytes), str(row.repeat)]
        assert float(line["busbw_mbps"]) == row.busbw_mbps
        assert float(line["ceiling_mbps"]) == pytest.approx((row.busbw_mbps or 0) * (row.p50_ms or 0) / (row.ideal_ms or 1))
    rewritten(folder, [row for row in read_rows(folder) if row.nbytes in (None, rows[0].nbytes)])
    with pytest.raises(RequestError, match="no rows of a collective at several sizes: figure bandwidth needs some"):
        draw(folder, "bandwidth")


def test_the_chain_is_drawn_and_told(folder: Path) -> None:
    """A line of the table for each transfer; those that decided the end are marked, the late rank's first among them."""
    with pytest.raises(RequestError, match=r"no rows of points with telemetry.steps: figure gantt needs some"):
        draw(folder, "gantt")
    stepped(folder)
    draw(folder, "gantt")
    lines = table(folder, "gantt")
    decisive = [line for line in lines if line["decisive"] == "True" and line["variant"] == lines[0]["variant"]]
    assert len(lines) % len(ring_allreduce(4, 1024).transfers) == 0
    assert decisive[0]["src"] == "2" and float(decisive[0]["begun_ms"]) == 50.0
    assert "the chain that decided the end" in texts(folder, "gantt")


def test_a_long_name_is_what_arms_differ_by(folder: Path) -> None:
    """As where a topology is swept with all its parameters."""
    rows = [dataclasses.replace(row, variant=f"{row.variant}, {'with all that it was asked for, ' * 3}") for row in read_rows(folder) if row.load is None]
    assert rows and set(arms_of(rows).values()) == {row.controller for row in rows}
    assert set(arms_of([row for row in read_rows(folder) if row.load is None]).values()) == {row.variant for row in read_rows(folder) if row.load is None}


def test_what_probes_found_is_drawn_by_hop(folder: Path) -> None:
    """A row a hop, with the same figures in the table as the command line gives. Without probes there is none."""
    with pytest.raises(RequestError, match=r"no points with telemetry.probes that arrived: figure inband needs some"):
        draw(folder, "inband")
    probed(folder)
    draw(folder, "inband")
    lines = [line for line in table(folder, "inband") if line["point"] == "stride-ecmp-r1"]
    assert [(line["hop"], line["port"], line["queue_max_packets"]) for line in lines] == [("1", "a-eth0", "0"), ("2", "s-eth2", "19")]
    assert float(lines[1]["queue_p50_packets"]) == 9.5
    drawn = texts(folder, "inband")
    assert "a → b: a-eth0" in drawn and "s-eth2" in drawn and "packets waiting, mean" in drawn


def test_delays_are_drawn_as_shares_of_packets(folder: Path) -> None:
    """The table has every port, hosts' too; the drawing says which packets its lines are of. Without delays there is none."""
    with pytest.raises(RequestError, match=r"no points with telemetry.queueing_delay: figure queueing needs some"):
        draw(folder, "queueing")
    wait(folder)
    draw(folder, "queueing")
    lines = [line for line in table(folder, "queueing") if line["point"] == "stride-ecmp-r1"]
    assert [(line["port"], float(line["p99_ms"])) for line in lines] == [("p0e0-eth1", 1), ("p0e0-eth2", 16), ("p0e0h0-eth0", 300)]
    drawn = texts(folder, "queueing")
    assert "queueing delay, ms" in drawn and "thick: every packet that left a switch" in drawn


def test_a_queue_is_drawn_with_its_thresholds_and_marks(folder: Path) -> None:
    """The busiest port's, sample by sample; a mark stands at the sample in which it was made."""
    port = marking(folder)
    _, _, data = draw(folder, "queues")
    lines = [line for line in csv.DictReader(data.open()) if line["point"] == "stride-ecmp-r1"]
    assert {line["port"] for line in lines} == {port}
    assert [number for number, line in enumerate(lines) if line["marked"] == "1"] == [5]
    drawn = texts(folder, "queues")
    assert f"packets in {port}" in drawn and "ticks below: samples in which it marked" in drawn
    assert "dashed: where marking begins, and where it is certain" in drawn


def answering(folder: Path) -> None:
    """Give the loads' rows flows of two sizes."""
    figures = {"due": 7, "mean": 2.0, "p99_slowdown": None}
    slowdowns = [{**figures, "up_to": 1000, "p50_slowdown": 1.5, "p95_slowdown": 3.0}, {**figures, "up_to": None, "p50_slowdown": 3.0, "p95_slowdown": 6.0}]
    answers = {"requests.0": {"slowdowns": slowdowns}}
    rewritten(folder, [row if row.collective else dataclasses.replace(row, answers=answers, requests="poisson load 0.5") for row in read_rows(folder)])


def test_every_figure_is_an_image_a_drawing_and_a_table(folder: Path) -> None:
    """Without a name all figures that apply are drawn, each as PNG, 8 inches at 150 dots wide, as SVG and as CSV."""
    decide(folder, move(1.0, "g0c0", "g0c1"))
    marking(folder)
    wait(folder)
    probed(folder)
    stepped(folder)
    beside(folder)
    railed(folder)
    answering(folder)
    files = draw(folder)
    assert [file.name for file in files] == [f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg", "csv")]
    for png, svg, data in zip(files[::3], files[1::3], files[2::3], strict=True):
        image = png.read_bytes()
        assert image.startswith(b"\x89PNG\r\n\x1a\n")
        assert int.from_bytes(image[16:20], "big") == 1200
        assert "</svg>" in svg.read_text()
        assert len(data.read_text().splitlines()) > 1


def test_latency_is_the_median_over_repeats_with_its_range(drawn: Path) -> None:
    """The table holds each repeat, and the median, mean, minimum and maximum that are drawn."""
    lines = [line for line in table(drawn, "latency") if (line["load"], line["nbytes"]) == (STRIDE, "1048576")]
    ecmp = [line for line in lines if line["variant"] == "ecmp"]
    assert column(ecmp, "p50_ms") == [4000, 6400, 4800]
    assert column(ecmp, "ideal_ms") == [800, 800, 800]
    figures = [float(ecmp[0][key]) for key in ("median_ms", "mean_ms", "min_ms", "max_ms")]
    assert figures == pytest.approx([4800, 15200 / 3, 4000, 6400])


def test_a_refused_row_is_counted_and_not_drawn(drawn: Path) -> None:
    """Two of three repeats make the figure; the caption says that one was refused."""
    lines = table(drawn, "latency")
    assert len(lines) == 35
    asked = ("two-level", STRIDE, "65536")
    small = [line for line in lines if (line["variant"], line["load"], line["nbytes"]) == asked]
    assert column(small, "p50_ms") == [100, 112.5]
    assert column(small, "median_ms") == [106.25, 106.25]
    assert f"fidelity: 33 PASS, 1 WARN, 1 FAIL, 1 refused · {HARDWARE} · 3 seeds" in texts(drawn, "latency")


def test_a_panel_for_every_load(drawn: Path) -> None:
    """Runs without a load and with one stand beside each other, titled by the load; sizes are in powers of two."""
    for text in ("no load", STRIDE, "64 KiB", "1 MiB", "16 MiB", "ideal", "WARN", "FAIL"):
        assert f"<!-- {text} -->" in texts(drawn, "latency"), text


def test_verdicts_that_nobody_has_are_not_in_the_legend(folder: Path) -> None:
    """Where all rows are PASS the legend explains no hollow dots."""
    draw(rewritten(folder, [row for row in read_rows(folder) if row.fidelity == "PASS"]), "latency")
    assert "<!-- WARN -->" not in texts(folder, "latency")
    assert "fidelity: 33 PASS, 0 WARN, 0 FAIL, 0 refused" in texts(folder, "latency")


def test_a_row_that_nobody_judged_is_said_to_be_so(folder: Path) -> None:
    """No verdict is not PASS."""
    draw(rewritten(folder, [dataclasses.replace(row, fidelity=None) for row in read_rows(folder)]), "latency")
    assert "fidelity: 0 PASS, 0 WARN, 0 FAIL, 35 not judged, 1 refused" in texts(folder, "latency")
    assert "<!-- not judged -->" in texts(folder, "latency")


def test_an_arm_keeps_its_name_when_the_load_is_swept_too(folder: Path) -> None:
    """A load in the variant's name goes to the panel's title, so that an arm is one colour in all panels."""
    rows = [dataclasses.replace(row, variant=f"{row.variant}, {row.load or 'none'}") for row in read_rows(folder)]
    draw(rewritten(folder, rows), "latency")
    assert "<!-- ecmp -->" in texts(folder, "latency")
    assert f"<!-- ecmp, {STRIDE} -->" not in texts(folder, "latency")


def test_variants_that_only_a_parameter_tells_apart_keep_their_names(folder: Path) -> None:
    """What no key of a row shows, such as a controller's margin, is not merged into one arm."""
    rows = [dataclasses.replace(row, controller="adaptive") for row in read_rows(folder)]
    draw(rewritten(folder, rows), "latency")
    assert "<!-- two-level -->" in texts(folder, "latency")
    assert "<!-- ecmp -->" in texts(folder, "latency")


def test_load_share_has_mean_interval_and_prediction(drawn: Path) -> None:
    """With three seeds the smallest mean is drawn 1 in 27 times, above 2.5 %: the interval reaches to both extremes."""
    ecmp = [line for line in table(drawn, "load-share") if line["variant"] == "ecmp"]
    assert column(ecmp, "load_share_of_nb") == [0.61, 0.58, 0.64]
    assert column(ecmp, "load_share_predicted") == [0.625, 0.5625, 0.625]
    figures = [float(ecmp[0][key]) for key in ("mean", "low_95", "high_95", "mean_predicted")]
    assert figures == pytest.approx([0.61, 0.58, 0.64, 1.8125 / 3])
    assert f"fidelity: 5 PASS, 1 WARN, 0 FAIL, 0 refused · {HARDWARE} · 3 seeds" in texts(drawn, "load-share")


def test_one_seed_has_no_interval(folder: Path) -> None:
    """An interval of a single value would promise what nobody measured."""
    draw(rewritten(folder, [row for row in read_rows(folder) if row.repeat == 1]), "load-share")
    assert {(line["low_95"], line["high_95"]) for line in table(folder, "load-share")} == {("", "")}
    assert "· 1 seed" in texts(folder, "load-share")


def test_utilisation_is_sent_bytes_over_the_configured_rate(drawn: Path) -> None:
    """Nothing in the first second, then the share that each port sent at, for the first repeat of each variant."""
    lines = table(drawn, "utilisation")
    assert len(lines) == 2 * 96 * 8
    assert {line["point"] for line in lines} == {"stride-ecmp-r1", "stride-two-level-r1"}
    one = [line for line in lines if (line["variant"], line["port"]) == ("two-level", "p0e1-eth3")]
    assert [(line["tier"], line["to"]) for line in one] == [("edge up", "p0a0")] * 8
    assert column(one, "from_s") == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert column(one, "share") == [0, 0, *[0.98] * 6]


def test_ports_are_in_the_order_a_packet_passes_them(drawn: Path) -> None:
    """Up from the hosts to the cores, then down again; within a tier as the topology counts."""
    tiers = dict.fromkeys(line["tier"] for line in table(drawn, "utilisation"))
    up, down = ["host up", "edge up", "aggregation up"], ["core down", "aggregation down", "edge down"]
    assert list(tiers) == up + down
    edges = dict.fromkeys(line["port"] for line in table(drawn, "utilisation") if line["tier"] == "edge up")
    assert list(edges)[:5] == ["p0e0-eth3", "p0e0-eth4", "p0e1-eth3", "p0e1-eth4", "p1e0-eth3"]


def test_a_long_record_is_thinned_without_losing_bytes(folder: Path) -> None:
    """At most 240 columns; the mean of the shares is that of the whole record."""
    queues = folder / "points" / "stride-ecmp-r1" / "telemetry" / "queues.jsonl"
    header, *_ = queues.read_text().splitlines()
    samples = 1001
    width = len(json.loads(header)["interfaces"])
    fields = json.loads(header)["fields"]
    rate = 2_500_000 // 20
    lines = [
        {"t": n / 20, "late_ms": 0, "missed": 0, **{name: [rate // 2 * n] * width for name in fields}}
        for n in range(samples)
    ]
    queues.write_text("\n".join([header, *map(json.dumps, lines)]) + "\n")
    draw(folder, "utilisation", point="stride-ecmp-r1")
    port = [line for line in table(folder, "utilisation") if line["port"] == "p0e1-eth3"]
    assert len(port) == 200
    assert column(port, "share") == [0.5] * 200
    assert float(port[-1]["until_s"]) == 50


def test_point_keeps_the_rows_of_one_point(folder: Path) -> None:
    """Every figure can be asked of a single point."""
    draw(folder, "latency", point="stride-ecmp-r2")
    assert column(table(folder, "latency"), "p50_ms") == [400, 6400, 102400]
    assert "fidelity: 2 PASS, 0 WARN, 1 FAIL, 0 refused" in texts(folder, "latency")


def test_the_same_folder_gives_the_same_bytes(drawn: Path, folder: Path) -> None:
    """No date, no random name, and nothing of the user's settings is in a file; those are as they were afterwards."""
    first = {file.name: file.read_bytes() for file in (drawn / "figures").iterdir()}
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        again = {file.name: file.read_bytes() for file in draw(folder)}
        assert dict(matplotlib.rcParams) == before
    assert first == again


def test_the_title_is_the_question(folder: Path) -> None:
    """A reader sees what was asked; a folder without run.json goes by its name."""
    draw(folder, "load-share")
    question = json.loads((folder / "run.json").read_text())["question"]
    assert f"<!-- {question} -->" in texts(folder, "load-share")
    (folder / "run.json").unlink()
    draw(folder, "load-share")
    assert "<!-- run -->" in texts(folder, "load-share")


TWO_LEVEL = "stride-two-level-r1"


def decide(folder: Path, *lines: dict[str, Any]) -> None:
    """Give the two-level arm's first repeat a decision log."""
    (folder / "points" / TWO_LEVEL / "controller" / "decisions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def move(at_s: float, old: str, new: str, flow: str = "10.0.0.2:1>10.1.0.2:2") -> dict[str, Any]:
    """A reroute from p0e0h0 to p1e0h0, from one core switch to another; seconds from the first sample."""
    (begin,) = (json.loads(line)["t"] for line in [queue_lines(GOLDEN)[1]])
    paths = [
        ["p0e0h0-eth0", f"p0e0-eth{3 + int(core[1])}", f"p0a{core[1]}-eth{3 + int(core[3])}", f"{core}-eth2", f"p1a{core[1]}-eth1", "p1e0-eth1"]
        for core in (old, new)
    ]
    return {
        "event": "reroute", "t": begin + at_s, "tick": 1, "flow": flow, "src": "p0e0h0", "dst": "p1e0h0", "old": paths[0],
        "new": paths[1], "signal": "syn", "mbps": None, "reason": "its fullest link was full", "numbers": {},
    }  # fmt: skip


def queue_lines(folder: Path) -> list[str]:
    return (folder / "points" / TWO_LEVEL / "telemetry" / "queues.jsonl").read_text().splitlines()


def test_decisions_are_drawn_where_the_two_paths_part(folder: Path) -> None:
    """At the edge switch where they use another aggregation switch, above it where only the core differs."""
    decide(folder, move(1.0, "g0c0", "g1c1"), move(2.0, "g0c0", "g0c1"))
    draw(folder, "decisions")
    lines = table(folder, "decisions")
    assert [(line["what"], float(line["at_s"]), line["left"], line["taken"]) for line in lines] == [
        ("move", 1.0, "p0e0-eth3", "p0e0-eth4"), ("move", 2.0, "p0a0-eth3", "p0a0-eth4"),
    ]  # fmt: skip
    assert {(line["variant"], line["point"], line["reason"]) for line in lines} == {("two-level", TWO_LEVEL, "its fullest link was full")}


def test_a_move_off_a_path_that_was_not_known_has_only_its_new_link(folder: Path) -> None:
    """A log says null where only a switch's hash knew the path."""
    decide(folder, {**move(1.0, "g0c0", "g1c1"), "old": None})
    draw(folder, "decisions")
    assert [(line["left"], line["taken"]) for line in table(folder, "decisions")] == [("", "p0e0-eth4")]


def test_what_befell_links_is_on_the_map(folder: Path) -> None:
    """Events of the experiment and what the controller saw, of links between switches; a host's link has no row."""
    lines = [{"event": "link", "t": move(3.0, "g0c0", "g0c1")["t"], "port": port, "up": False} for port in ("p0a0-eth3", "p0e0-eth1")]
    decide(folder, *lines)
    draw(folder, "decisions")
    assert [(line["what"], line["left"], line["reason"]) for line in table(folder, "decisions")] == [("down", "p0a0-eth3", "controller down")]
    assert "<!-- link down -->" in texts(folder, "decisions")


def test_only_links_between_switches_that_were_used_have_a_row(folder: Path) -> None:
    """A link that carried nothing, and no mark, is left out; its name stands at its row."""
    queues = folder / "points" / TWO_LEVEL / "telemetry" / "queues.jsonl"
    header, *samples = [json.loads(line) for line in queues.read_text().splitlines()]
    for line in samples:
        line["sent_bytes"][header["interfaces"].index("p3a1-eth4")] = 0
    queues.write_text("".join(json.dumps(line) + "\n" for line in (header, *samples)))
    decide(folder, move(1.0, "g0c0", "g1c1"))
    draw(folder, "decisions")
    drawn = texts(folder, "decisions")
    assert "<!-- p3a1 &gt; g1c0 -->" in drawn and "<!-- p3a1 &gt; g1c1 -->" not in drawn


def test_a_run_without_a_decision_log_has_no_such_figure(folder: Path) -> None:
    """ECMP decides nothing; the error says what is needed."""
    with pytest.raises(RequestError, match=r"decision log .controller/decisions.jsonl.: figure decisions needs some"):
        draw(folder, "decisions")


def test_rates_are_differences_of_running_totals_with_jains_index(drawn: Path) -> None:
    """One flow at 10 Mb/s from the start, one a second late and then at half: 1/2, 225/250, and both alike."""
    lines = [line for line in table(drawn, "rates") if line["variant"] == "ecmp"]
    flows = [[line for line in lines if line["flow"] == number] for number in ("0", "1")]
    assert column(flows[0], "mbps") == [10.0] * 16
    assert column(flows[1], "mbps") == [0.0] * 4 + [5.0] * 4 + [10.0] * 8
    for mine in flows:
        assert column(mine, "jain") == [0.5] * 4 + [0.9] * 4 + [1.0] * 8
    assert (flows[1][4]["from_s"], flows[1][4]["until_s"]) == ("1.0", "1.25")
    for text in ("flow 0", "flow 1", "collective measured"):
        assert f"<!-- {text} -->" in texts(drawn, "rates")


def test_flows_have_the_names_of_their_hosts_where_the_point_says_them(folder: Path) -> None:
    """In the table and in the legend."""
    for point in (folder / "points").glob("*-r1"):
        (point / "point.json").write_text(json.dumps({"flows": [{"src": "a", "dst": "b"}, {"src": "c", "dst": "d"}]}))
    draw(folder, "rates")
    assert {(line["flow"], line["src"], line["dst"]) for line in table(folder, "rates")} == {("0", "a", "b"), ("1", "c", "d")}
    assert "<!-- c &gt; d -->" in texts(folder, "rates")


def test_a_flow_that_got_nothing_has_no_fairness(folder: Path) -> None:
    """Where no flow got a byte, Jain's index is left out, not drawn as anything."""
    for point in (folder / "points").glob("*-r1"):
        flows = {number: {"t": [1000, 1001, 1002], "nbytes": [0, 0, 125000]} for number in ("0", "1")}
        (point / "traffic" / "records.jsonl").write_text(json.dumps({"event": "flows", "flows": flows}) + "\n")
    draw(folder, "rates")
    jains = [line["jain"] for line in table(folder, "rates") if line["variant"] == "ecmp" and line["flow"] == "0"]
    assert jains == [""] * 4 + ["1.0"] * 4


def test_the_distribution_holds_every_iteration_of_all_repeats(drawn: Path) -> None:
    """27 a size under ECMP; the share of the longest is 1, that of the shortest 1 of 27; a refused row's are left out."""
    lines = [line for line in table(drawn, "latency-cdf") if line["nbytes"] == "65536"]
    ecmp = [line for line in lines if line["variant"] == "ecmp"]
    times, shares = column(ecmp, "ms"), column(ecmp, "share")
    assert len(times) == 27 and {line["repeat"] for line in ecmp} == {"1", "2", "3"}
    assert (min(times), max(times)) == pytest.approx((5 * 50 * 0.8, 8 * 50 * 1.2))
    assert shares[times.index(min(times))] == pytest.approx(1 / 27, abs=1e-6) and shares[times.index(max(times))] == 1.0
    assert {line["repeat"] for line in lines if line["variant"] == "two-level"} == {"1", "2"}
    assert "thin and dashed: with those of rows that are FAIL" in texts(drawn, "latency-cdf")


def test_a_panel_for_every_size_with_the_ideal_and_the_timeout(drawn: Path) -> None:
    """Three sizes under one load: the load is not in the titles."""
    for text in ("64 KiB", "1 MiB", "16 MiB", "ideal", "ideal + smallest RTO"):
        assert f"<!-- {text} -->" in texts(drawn, "latency-cdf"), text


def test_both_sides_of_a_scheme_are_means_over_repeats_with_intervals(drawn: Path) -> None:
    """Goodput 60, 70, 80 against 250, 400, 300 ms; with three seeds the intervals reach to the extremes."""
    lines = [line for line in table(drawn, "latency-goodput") if (line["variant"], line["nbytes"]) == ("ecmp", "65536")]
    assert column(lines, "load_goodput_mbps") == [60, 70, 80] and column(lines, "p50_ms") == [250, 400, 300]
    names = ("mean_goodput_mbps", "goodput_low_95", "goodput_high_95", "mean_p50_ms", "p50_low_95", "p50_high_95", "mean_p95_ms")
    assert [float(lines[0][name]) for name in names] == pytest.approx([70, 60, 80, 950 / 3, 250, 400, 380])
    assert "p95, as p99 needs 100 iterations" in texts(drawn, "latency-goodput").replace("\n", " ")


def test_the_99th_percentile_is_drawn_where_all_rows_have_it(folder: Path) -> None:
    """In place of the 95th, in the table as in the legend."""
    draw(rewritten(folder, [dataclasses.replace(row, p99_ms=2 * (row.p50_ms or 0)) for row in read_rows(folder)]), "latency-goodput")
    lines = [line for line in table(folder, "latency-goodput") if (line["variant"], line["nbytes"]) == ("ecmp", "65536")]
    assert column(lines, "p99_ms") == [500, 800, 600] and float(lines[0]["mean_p99_ms"]) == pytest.approx(1900 / 3)
    assert "<!-- p99, above its p50 -->" in texts(folder, "latency-goodput")


def test_without_a_load_there_is_nothing_to_set_against(folder: Path) -> None:
    """The error says what is needed."""
    rewritten(folder, [row for row in read_rows(folder) if row.load is None])
    with pytest.raises(RequestError, match="no rows of a collective beside a load"):
        draw(folder, "latency-goodput")


def load_alone(row: Row) -> bool:
    return row.collective is None


def all_refused(row: Row) -> bool:
    return row.refused is not None


@pytest.mark.parametrize(
    ("keep", "asked", "message"),
    [
        (
            load_alone, {"figure": "latency"},
            f"no {FIGURES['latency'].needs}: figure latency needs some; this folder offers load-share, utilisation, rates, topology",
        ),
        (
            all_refused, {"figure": "latency"},
            "no rows with a collective and its time: figure latency needs some; this folder offers no figure",
        ),
        (all_refused, {}, "nothing to draw in 1 rows; accepted: a folder with results"),
        (load_alone, {"figure": "pie"}, "figure 'pie': no such figure; accepted: latency, bandwidth, load-share, utilisation, decisions"),
        (load_alone, {"point": "r9"}, "no rows of point 'r9'; accepted: stride-ecmp-r1, stride-ecmp-r2, "),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said(folder: Path, keep: Any, asked: dict[str, str], message: str) -> None:
    """The error says what a figure needs, and what the folder offers instead; nothing is written."""
    rewritten(folder, [row for row in read_rows(folder) if keep(row)])
    with pytest.raises(RequestError) as caught:
        draw(folder, **asked)
    assert message in str(caught.value)
    assert not (folder / "figures").exists()


def test_slowdowns_are_means_with_intervals_beside_predictions(drawn: Path) -> None:
    """A bar an arm in each panel of load and size, from the rows that were not refused."""
    lines = [line for line in table(drawn, "slowdown") if (line["load"], line["nbytes"]) == ("stride step=8", "65536")]
    assert [(line["variant"], float(line["slowdown"]), float(line["mean"])) for line in lines] == [
        *(("ecmp", value, pytest.approx(19 / 3)) for value in (5, 8, 6)), *(("two-level", value, 2.125) for value in (2, 2.25)),
    ]  # fmt: skip
    assert "predicted from paths" in texts(drawn, "slowdown")


def test_completions_have_a_line_an_arm_and_percentile(folder: Path) -> None:
    """By size, the largest last; a percentile that too few have is empty, and a row that was refused is left out."""
    answering(folder)
    rows = [row for row in read_rows(folder) if row.answers]
    draw(rewritten(folder, [*rows[:2], dataclasses.replace(rows[2], refused="no")]), "completions")
    lines = table(folder, "completions")
    assert [(line["up_to"], line["p50_slowdown"], line["p99_slowdown"]) for line in lines] == [("1000", "1.5", ""), ("", "3.0", "")] * 2
    assert "more" in texts(folder, "completions") and "1 kB" in texts(folder, "completions")


def test_the_map_has_the_mean_of_every_port(drawn: Path) -> None:
    """Nothing in the first of four seconds, .98 in the others; both directions of a link are told apart."""
    one = [line for line in table(drawn, "topology") if (line["variant"], line["port"]) == ("two-level", "p0e1-eth3")]
    assert [(line["to"], float(line["share"])) for line in one] == [("p0a0", pytest.approx(0.735))]
    assert len(table(drawn, "topology")) == 2 * 96


@pytest.mark.parametrize("name", ["fat-tree", "leaf-spine", "dual-plane", "rail-optimized", "rail-only", "single-switch", "dumbbell"])
def test_every_node_has_a_place_of_its_own(name: str) -> None:
    """Hosts at the bottom in the topology's order, and each tier above what it joins."""
    params = {"fat-tree": {"k": 4}, "leaf-spine": {"leaves": 2, "spines": 2, "hosts": 3}, "single-switch": {"hosts": 4}, "dumbbell": {"pairs": 2},
              "rail-optimized": {"servers": 4, "rails": 2}, "rail-only": {"servers": 4, "rails": 2}, "dual-plane": {"racks": 2, "hosts": 2, "spines": 2}}  # fmt: skip
    fabric = plugins.load("topology", name, Path())(**params[name])
    at = places(fabric)
    assert len(set(at.values())) == len(at) == len(fabric.graph) and all(0 < x < 1 for x, _ in at.values())
    assert {at[host.name][1] for host in fabric.hosts} == {0.0} and all(at[switch.name][1] > 0 for switch in fabric.switches)
    assert sorted((host.name for host in fabric.hosts), key=lambda host: at[host][0]) == [host.name for host in sorted(fabric.hosts, key=lambda host: host.position)]


def test_a_fabric_is_drawn_without_a_run(tmp_path: Path) -> None:
    """As a picture of the kind that the file's ending says; what cannot be written is told."""
    fabric = plugins.load("topology", "fat-tree", Path())(k=4)
    assert draw_topology(fabric, "?", tmp_path / "a.svg").read_text().count("p0e0h0") >= 1
    with pytest.raises(RequestError, match=r"none/a.png: cannot be written: No such file or directory; name another one, e.g. topology.png"):
        draw_topology(fabric, "?", tmp_path / "none" / "a.png")


def test_a_record_of_one_sample_is_no_heat_map(folder: Path) -> None:
    """Too little telemetry is named with its file, not drawn as an empty map."""
    queues = folder / "points" / "stride-ecmp-r1" / "telemetry" / "queues.jsonl"
    queues.write_text("\n".join(queues.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(RequestError, match=r"queues.jsonl: got 96 ports of the topology and 1 samples; accepted"):
        draw(folder, "utilisation", point="stride-ecmp-r1")
