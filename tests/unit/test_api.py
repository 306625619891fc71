"""From Python as from the command line: the same checks, the same rows."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from fabric import api
from fabric.errors import RequestError
from fabric.results import read_rows

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "two-arms"


def test_rows_are_a_frame() -> None:
    """A column for every key of a row, in docs/measures.md's names."""
    run = api.opened(GOLDEN)
    frame = run.frame()
    assert len(frame) == len(run.rows()) == len(read_rows(GOLDEN))
    assert list(frame.columns) == list(run.rows()[0].to_json())
    assert frame.slowdown.max() == max(row.slowdown for row in run.rows() if row.slowdown)


def test_without_pandas_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else works without it."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RequestError, match=r'pandas is not installed, and a frame is its: pip install "fabriclab\[pandas\]"'):
        api.opened(GOLDEN).frame()
    assert api.opened(GOLDEN).rows()


def test_runs_are_compared_and_judged_as_by_the_commands() -> None:
    """The golden run's two arms."""
    run = api.opened(GOLDEN)
    assert {(one.arm, one.base) for one in run.compare()} == {("two-level", "ecmp")}
    assert run.expected() == []
    with pytest.raises(RequestError, match="--by: got lod; accepted"):
        run.compare(by="lod")
    with pytest.raises(RequestError, match="got a run folder twice"):
        run.compare(run)


def test_a_file_is_checked_when_it_is_loaded(tmp_path: Path) -> None:
    """With the command line's words."""
    with pytest.raises(RequestError, match=r"cannot be read: No such file or directory"):
        api.load(tmp_path / "none.yaml")
    with pytest.raises(RequestError, match=r"not a run folder"):
        api.opened(tmp_path)
    experiment = api.load(Path(__file__).parents[2] / "experiments" / "quickstart.yaml", {"repeat": 1})
    assert {point.repeat for point in experiment.points} == {1}
