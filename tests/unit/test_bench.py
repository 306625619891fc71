"""`bench`: nccl-tests' options become an experiment, and its rows a table that a parser of nccl-tests' reads."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fabric import nccl_table
from fabric.bench import OPERATIONS, Bench, sizes
from fabric.errors import RequestError
from fabric.experiment import load_experiment
from fabric.plugins import names
from fabric.results import Row

ROW = Row(
    variant="ecmp", topology="fat-tree", controller="ecmp", collective="ring-allreduce", algorithm="ring-allreduce", tcp="cubic", mtu=9000,
    mbps=20.0, repeat=1, seed=1, nbytes=1 << 20, ranks=16, iterations=20, p50_ms=850.5, p95_ms=900.25, max_ms=901.0, straggler_rank=3,
    ideal_ms=790.0, slowdown=1.0766, algbw_mbps=9.8634, busbw_mbps=18.4939, wrong=0, correct=True, fidelity="PASS",
    datapath="netdev", point="000-ecmp-r1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("64K", "16M", 2, None), tuple(1 << n for n in range(16, 25))), (("8", "100", 3, None), (8, 24, 72)), (("1M", "1M", None, None), (1 << 20,)),
        (("4K", "16K", None, "4K"), (4096, 8192, 12288, 16384)), (("64KiB", "128kb", None, None), (65536, 131072)),
    ],
)  # fmt: skip
def test_scans(asked: Any, found: tuple[int, ...]) -> None:
    """By factor, by step, of one size, with either way to write a unit."""
    assert sizes(*asked) == found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("2M", "1M", 2, None), "bench: -b 2M: got more than -e 1M; accepted: at most that"),
        (("1M", "2M", 2, "1M"), "bench: got -f and -i; accepted: one of them; leave one out"),
        (("1M", "2M", 1, None), "bench: -f: got 1; accepted: 2 or more; each size is that many times the one before"),
        (("big", "2M", 2, None), "bench: -b: got 'big'; accepted: a multiple of 4 bytes up to 1G, as 65536, 64K or 16M"),
        (("6", "2M", 2, None), "bench: -b: got '6'; accepted: a multiple of 4 bytes up to 1G, as 65536, 64K or 16M"),
        (("1M", "2G", 2, None), "bench: -e: got '2G'; accepted: a multiple of 4 bytes up to 1G, as 65536, 64K or 16M"),
        (("4", "1M", None, "4"), "bench: got more than 200 sizes; accepted: at most that; make -i larger, or use -f"),
    ],
)
def test_what_is_no_scan(asked: Any, message: str) -> None:
    """One line each."""
    with pytest.raises(RequestError) as caught:
        sizes(*asked)
    assert str(caught.value) == message


def test_it_is_an_experiment(tmp_path: Path) -> None:
    """Every option arrives; the file is one that `run` takes, too."""
    asked = Bench(
        "halving-doubling-allreduce,largest=far", (65536, 131072), 7, 3, False, "int32", "fat-tree,k=4", "adaptive,policy=exact", ("stride,step=8",),
        8, "random", 2, 20, 1500, 60, "reno", True, seed=5,
    )  # fmt: skip
    file = tmp_path / f"{asked.name}.yaml"
    file.write_text(asked.experiment())
    (point,) = load_experiment(file).points
    collective = point.collective
    assert collective is not None and collective.params == {"largest": "far"} and collective.nbytes == (65536, 131072)
    assert (collective.iterations, collective.warmup, collective.check, collective.dtype) == (7, 3, False, "int32")
    assert (collective.ranks, collective.placement, collective.channels, collective.hints) == (8, "random", 2, True)
    assert (point.topology.params, point.controller.params, point.load[0].params) == ({"k": 4}, {"policy": "exact"}, {"step": 8})
    assert (point.links.mbps, point.links.mtu, point.links.queue_packets, point.transport.tcp, point.seed) == (20, 1500, 60, "reno", 5)
    assert asked.name == "bench-halving-doubling-allreduce"


@pytest.mark.parametrize(("collective", "key"), [("all-reduce,channels=4", "channels"), ("all-reduce,use=incast", "use"), ("barrier,nbytes=64", "nbytes")])
def test_a_key_of_the_experiments_is_no_parameter(collective: str, key: str) -> None:
    """It would be overwritten by an option's value, and nobody would know."""
    with pytest.raises(RequestError, match=f"{key}: got a key of the experiment's; accepted: parameters of"):
        Bench(collective, (64,)).experiment()


def test_operations_are_collectives_of_ours() -> None:
    """What stands for nccl-tests' programs is there; the rest are names themselves."""
    assert set(OPERATIONS.values()) | {"all-to-all", "broadcast", "reduce"} <= set(names("collective"))
    assert yaml.safe_load(Bench("all-reduce", (4,)).experiment())["collective"]["use"] == "ring-allreduce"


# What people read nccl-tests with: nine columns, or all thirteen.
NINE = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\w+)\s+(\w+)\s+(-?\d+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+(\S+)")
THIRTEEN = re.compile(NINE.pattern + r"\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+(\S+)")


def test_a_parser_of_nccl_tests_reads_it() -> None:
    """By its columns, by splitting at blanks, and the footer."""
    line = nccl_table.line(ROW, "float32")
    match = NINE.match(line)
    assert match is not None and THIRTEEN.match(line)
    assert match.groups() == ("1048576", "262144", "float", "sum", "-1", "850.500", "9.86", "18.49", "0")
    assert line.split()[9:] == ["790.000", "1.077", "850.500", "900.250", "N/A", "901.000", "3", "PASS"]
    found = re.search(r"Avg bus bandwidth\s*:\s*([\d.]+)", "\n".join(nccl_table.footer([ROW])))
    assert found is not None and float(found[1]) == pytest.approx(18.4939, rel=1e-4)
    assert "# Out of bounds values : 0 OK" in nccl_table.footer([ROW])


def test_columns_stand_under_their_names() -> None:
    """Every word ends where its column's name does."""
    *_, names_line, units = nccl_table.heading("it")
    line = nccl_table.line(ROW, "float32")
    ends = [match.end() for match in re.finditer(r"\S+", names_line[1:])]
    assert [match.end() for match in re.finditer(r"\S+", line)] == [end + 1 for end in ends]
    assert units.split() == ["#", "(B)", "(elements)", "(ms)", "(Mb/s)", "(Mb/s)", "(ms)", "(ms)", "(ms)", "(ms)", "(ms)", "(rank)"]


def test_wrong_elements_and_refusals_are_said() -> None:
    """In the table, in the footer, in the report; a refused row is no line of figures."""
    wrong = replace(ROW, wrong=3, correct=False)
    assert nccl_table.line(wrong, "int32").split()[8] == "3"
    assert "# Out of bounds values : 3 FAILED" in nccl_table.footer([wrong])
    refused = Row(variant="x", topology="t", controller="c", tcp="cubic", mtu=1500, mbps=1.0, repeat=1, seed=2, nbytes=4096, refused="no bytes came", datapath="netdev", point="p")
    assert nccl_table.line(refused, "float32") == "# 4096 bytes, seed 2: refused: no bytes came"
    report = nccl_table.report([wrong, refused], "float32", ["fabriclab", "bench"], "then", "now")
    assert report["out_of_bounds"] == {"count": 3, "okay": "false"} and len(report["results"]) == 1 and len(report["fabriclab"]) == 2


def test_the_report_has_nccl_tests_units() -> None:
    """Microseconds and GB/s."""
    (result,) = nccl_table.report([ROW], "float32", [], "then", "now")["results"]
    assert result["in_place"] == result["out_of_place"]
    assert result["in_place"]["time"] == pytest.approx(850_500) and result["in_place"]["bus_bw"] == pytest.approx(18.4939 / 8000)
    assert (result["size"], result["count"], result["redop"], result["root"]) == (1 << 20, 1 << 18, "sum", "-1")


@pytest.mark.parametrize(
    ("algorithm", "redop", "root"),
    [("ring-allreduce", "sum", "-1"), ("ring-reduce-scatter", "sum", "-1"), ("ring-all-gather", "none", "-1"), ("shift-all-to-all", "none", "-1"),
     ("broadcast", "none", "0"), ("reduce", "sum", "0")],
)  # fmt: skip
def test_reductions_and_roots(algorithm: str, redop: str, root: str) -> None:
    """As nccl-tests has them for each operation."""
    assert nccl_table.line(replace(ROW, algorithm=algorithm), "float32").split()[3:5] == [redop, root]
