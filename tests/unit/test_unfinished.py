"""What is left of a run, which points somebody means, and how long they take at least."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fabric.cli import app
from fabric.errors import RequestError
from fabric.estimate import least_s
from fabric.experiment import Experiment, load_experiment
from fabric.results import Row, RunFolder, read_rows
from fabric.unfinished import chosen, left, reopened, set_aside

TEXT = """
question: What is left?
topology: {use: single-switch, hosts: 4}
links: {mbps: 10, mtu: 9000}
controller: {use: ecmp}
collective: {use: ring-allreduce, nbytes: 1MiB, iterations: 3, warmup: 1}
sweep: {controller.use: [ecmp, two-level]}
repeat: 2
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Two arms, two repeats."""
    file = tmp_path / "left.yaml"
    file.write_text(TEXT)
    return load_experiment(file)


@pytest.fixture
def folder(tmp_path: Path, experiment: Experiment) -> Path:
    """A run of it that was interrupted after its first point."""
    path = tmp_path / "run"
    path.mkdir()
    told = {"schema": 1, "base": str(tmp_path), "overrides": {}, "arms": experiment.arms, "swept": experiment.swept}
    (path / "run.json").write_text(json.dumps(told))
    (path / "experiment.yaml").write_text(TEXT)
    RunFolder(path).append_rows([row(experiment.points[0].label)])
    return path


def row(point: str) -> Row:
    """A row of a point."""
    return Row(variant="ecmp", topology="single-switch", controller="ecmp", tcp="cubic", mtu=9000, mbps=10, repeat=1, seed=1, datapath="netdev", point=point)


@pytest.mark.parametrize(
    ("patterns", "labels"),
    [([], ["000-ecmp-r1", "001-two-level-r1", "002-ecmp-r2", "003-two-level-r2"]), (["ecmp"], ["000-ecmp-r1", "002-ecmp-r2"]),
     (["*-r2"], ["002-ecmp-r2", "003-two-level-r2"]), (["000*", "two*"], ["000-ecmp-r1", "001-two-level-r1", "003-two-level-r2"])],
)  # fmt: skip
def test_points_are_chosen_by_variant_or_folder(experiment: Experiment, patterns: list[str], labels: list[str]) -> None:
    """In the file's order, each once."""
    assert [point.label for point in chosen(experiment.points, patterns)] == labels


def test_a_pattern_that_fits_nothing_is_refused(experiment: Experiment) -> None:
    """With what there is."""
    with pytest.raises(RequestError) as caught:
        chosen(experiment.points, ["ecmp", "ecp"])
    assert str(caught.value) == (
        "--only: got ecp, which fits no point; accepted: ecmp; two-level, or folders such as 000-ecmp-r1; write * for any letters, e.g. --only '*-r1'"
    )


def test_a_run_goes_on_where_it_stopped(folder: Path, experiment: Experiment) -> None:
    """With its own experiment, whatever became of the file; and when nothing is left that is said."""
    (folder.parent / "left.yaml").unlink()
    again, _ = reopened(folder)
    assert [point.label for point in left(folder, again)] == ["001-two-level-r1", "002-ecmp-r2", "003-two-level-r2"]
    RunFolder(folder).append_rows([row(point.label) for point in experiment.points[1:]])
    with pytest.raises(RequestError, match=r"all of its 4 points have been run; see fabriclab show"):
        left(folder, again)


def test_what_was_broken_off_is_set_aside(folder: Path) -> None:
    """Under a name of its own each time; where there is nothing, nothing is made."""
    set_aside(folder / "points" / "001-two-level-r1", RunFolder(folder))
    assert not (folder / "interrupted").exists()
    for number in (1, 2):
        broken = folder / "points" / "001-two-level-r1"
        broken.mkdir(parents=True)
        (broken / "said").write_text(str(number))
        set_aside(broken, RunFolder(folder))
        assert not broken.exists() and (folder / "interrupted" / f"001-two-level-r1-{number}" / "said").read_text() == str(number)


def told(folder: Path, **other: Any) -> None:
    """Change what a folder says of its run."""
    data = {**json.loads((folder / "run.json").read_text()), **other}
    (folder / "run.json").write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


BAD = {
    "no folder": (lambda folder: (folder / "run.json").unlink(), "not a run folder (it has no run.json and experiment.yaml); accepted: a folder that `fabriclab run` made"),
    "an old one": (lambda folder: told(folder, arms=None), "was begun by another version of fabriclab; accepted: runs of this one; run its experiment.yaml anew"),
    "another schema": (lambda folder: told(folder, schema=0), "was begun by another version of fabriclab; accepted: runs of this one; run its experiment.yaml anew"),
    "a lost base": (lambda folder: told(folder, base="/nowhere"), "its experiment's folder /nowhere is gone, from which it takes files; put it back"),
    "other arms": (lambda folder: (folder / "experiment.yaml").write_text(TEXT.replace("two-level]", "single-path]")),
                   "its experiment.yaml no longer has the arms that were run; put back what was changed, or run it anew"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_go_on_is_refused(folder: Path, what: str) -> None:
    """With the reason and the remedy."""
    spoil, words = BAD[what]
    spoil(folder)
    with pytest.raises(RequestError) as caught:
        reopened(folder)
    assert str(caught.value) == f"{folder}: {words}"


def test_rows_are_written_all_or_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a point's rows leaves those of the points before."""
    before = (folder / "rows.jsonl").read_bytes()
    real = open

    class Full:
        """A file whose disk takes but a few bytes more."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            self.file.write(data[:50])
            self.file.flush()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.open", lambda path, mode="r", **more: Full(real(path, mode, **more)) if mode == "ab" else real(path, mode, **more))
    with pytest.raises(OSError, match="No space"):
        RunFolder(folder).append_rows([row("001-two-level-r1")])
    monkeypatch.undo()
    assert (folder / "rows.jsonl").read_bytes() == before and len(read_rows(folder)) == 1


def test_a_dry_run_says_what_and_how_long_at_least(experiment: Experiment, tmp_path: Path) -> None:
    """Four rounds of 1.3 s on 4 ranks, and what is around them; and nothing is made."""
    ring = 4 * 2 * 3 / 4 * (1 << 20) * 8 / 10e6  # the textbook's, on a link without headers
    assert ring < least_s(experiment.points[0]) < ring * 1.05 + 5
    done = CliRunner().invoke(app, ["run", str(experiment.path), "--dry-run", "--json", "--only", "ecmp"])
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    assert done.exit_code == 0 and [line["point"] for line in lines] == ["000-ecmp-r1", "002-ecmp-r2"]
    assert "2 points, 0." in done.output and not list(tmp_path.glob("runs*"))


TIMED = {
    "a load": ("load: [{use: stride, step: 2}]\nduration_s: 30\n", 30, 36),
    "computing": ("collective: {use: ring-allreduce, nbytes: 4KiB, iterations: 9, warmup: 1, compute_ms: 1000}\n", 10, 16),
    "jobs": ("jobs: [{use: ring-allreduce, ranks: 2, nbytes: 4KiB, iterations: 9, warmup: 1, start_s: 5, compute_ms: 500, backward_ms: 500}]\n", 15, 21),
    "late events": ("collective: {use: ring-allreduce, nbytes: 4KiB}\nevents: [{at_s: 5, controller: true, do: down, times: 3, every_s: 20}]\n", 45, 51),
    "a program": ("workload: {use: command, command: sleep 1}\n", 0, 6),
}


@pytest.mark.parametrize("what", TIMED)
def test_what_a_file_waits_for_is_counted(tmp_path: Path, what: str) -> None:
    """Whatever takes the longest."""
    more, low, high = TIMED[what]
    file = tmp_path / "timed.yaml"
    file.write_text(f"question: How long?\ntopology: {{use: single-switch, hosts: 4}}\nlinks: {{mbps: 10}}\ncontroller: {{use: ecmp}}\n{more}")
    assert low < least_s(load_experiment(file).points[0]) < high
