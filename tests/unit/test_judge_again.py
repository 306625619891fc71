"""What was recorded can be judged again: on any machine, by today's rules, in place of the old rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fabric.errors import RequestError
from fabric.results import read_rows
from fabric.run import judge_again

RECORDED = Path(__file__).parents[1] / "data" / "recorded"


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Path:
    """A run folder with the recorded point, and rows that say something else."""
    shutil.copytree(RECORDED / "point", tmp_path / "points" / "000-ecmp-r1")
    shutil.copy(RECORDED / "experiment.yaml", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"question": "?", "overrides": {}}))
    stale = {**json.loads((RECORDED / "expected.json").read_text()), "fidelity": "FAIL", "p50_ms": 1.0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(stale) + "\n")
    return tmp_path


def test_the_rows_are_those_of_today(run: Path) -> None:
    """The stale verdict and figure are replaced, on disk too, as JSON and as CSV."""
    expected = json.loads((RECORDED / "expected.json").read_text())
    (row,) = judge_again(run)
    assert (row.fidelity, row.p50_ms) == (expected["fidelity"], pytest.approx(expected["p50_ms"]))
    assert read_rows(run) == [row]
    assert expected["fidelity"] in (run / "rows.csv").read_text()


def test_overrides_of_the_run_are_heeded(run: Path) -> None:
    """With another variant's name the point's folder is not found, and nothing is lost."""
    before = (run / "rows.jsonl").read_text()
    (run / "run.json").write_text(json.dumps({"overrides": {"controller.use": "two-level"}}))
    with pytest.raises(RequestError, match="none of its points"):
        judge_again(run)
    assert (run / "rows.jsonl").read_text() == before


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    """As by every reader of run folders."""
    with pytest.raises(RequestError, match="not a run folder"):
        judge_again(tmp_path)
