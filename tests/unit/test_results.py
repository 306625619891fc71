"""The run folder's rows survive being written and read, and a folder that is none says so."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path

import pytest

from fabric.errors import RequestError
from fabric.results import Row, RunFolder, read_rows
from fabric.screen import size_label, table, verdicts


def row(**changes: object) -> Row:
    """A row with its required keys."""
    base = {
        "variant": "ecmp", "topology": "fat-tree", "controller": "ecmp", "tcp": "cubic", "mtu": 9000, "mbps": 20.0,
        "repeat": 1, "seed": 1, "datapath": "netdev", "point": "000-ecmp-r1",
    }  # fmt: skip
    return Row(**{**base, **changes})  # type: ignore[arg-type]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    """Also after several appends, with reasons and nulls."""
    folder = RunFolder(tmp_path)
    first = row(nbytes=65536, p50_ms=1.5, fidelity="WARN", fidelity_reasons=("late", "slow"))
    second = row(refused="a sum is wrong")
    folder.append_rows([first])
    folder.append_rows([second])
    assert read_rows(tmp_path) == [first, second]


def test_csv_has_a_column_per_key(tmp_path: Path) -> None:
    """And a line per row, reasons joined."""
    RunFolder(tmp_path).append_rows([row(fidelity_reasons=("late", "slow"))])
    (line,) = csv.DictReader((tmp_path / "rows.csv").open())
    assert list(line) == [field.name for field in fields(Row)]
    assert line["fidelity_reasons"] == "late; slow"


def test_what_is_no_plain_value_is_json_in_csv(tmp_path: Path) -> None:
    """As a program reports it, null and true too, so that any reader can take it apart."""
    answers = {"requests.0": {"due": 7, "p99_ms": None}}
    told = {"loss": 0.5, "steps": [1, 2], "done": True}
    RunFolder(tmp_path).append_rows([row(reported=told, answers=answers)])
    (line,) = csv.DictReader((tmp_path / "rows.csv").open())
    assert (json.loads(line["reported"]), json.loads(line["answers"])) == (told, answers)


def test_json_has_every_key() -> None:
    """What does not apply is null, not absent."""
    data = json.loads(json.dumps(row().to_json()))
    assert set(data) == {field.name for field in fields(Row)}
    assert data["p50_ms"] is None


def test_a_folder_without_rows_is_no_run_folder(tmp_path: Path) -> None:
    """The error names the folder and what is accepted."""
    with pytest.raises(RequestError, match=r"not a run folder \(it has no rows.jsonl\); accepted: a folder that"):
        read_rows(tmp_path)


def test_a_run_is_finished_by_its_marker_alone(tmp_path: Path) -> None:
    """An interrupted run has rows and no marker."""
    folder = RunFolder(tmp_path)
    folder.append_rows([row()])
    assert not folder.finished
    folder.write_json("finished.json", {"points": 1})
    assert folder.finished


@pytest.mark.parametrize(
    ("nbytes", "label"), [(4, "4 B"), (1024, "1 KiB"), (65536, "64 KiB"), (1 << 20, "1 MiB"), (1500, "1500 B")]
)
def test_sizes_are_written_as_people_do(nbytes: int, label: str) -> None:
    """In the largest unit that divides them."""
    assert size_label(nbytes) == label


def test_the_table_leaves_out_columns_that_no_row_fills() -> None:
    """A load alone has no sizes; a collective alone no share."""
    load = [str(column.header) for column in table([row(load="stride step=8", load_share_of_nb=0.61)]).columns]
    assert "size" not in load and "share\nof NB" in load
    ring = [str(column.header) for column in table([row(collective="ring-allreduce", nbytes=4)]).columns]
    assert "size" in ring and "share\nof NB" not in ring


def test_verdicts_count_every_row_once() -> None:
    """A refused row is refused, whatever else it has."""
    rows = [row(fidelity="PASS"), row(fidelity="PASS"), row(fidelity="FAIL"), row(refused="no bytes")]
    assert verdicts(rows) == "fidelity: 2 PASS, 0 WARN, 1 FAIL, 1 refused"
