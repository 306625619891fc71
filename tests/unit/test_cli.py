"""The command line as a user meets it: exit codes, one-line errors, clean standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def fabriclab(*words: str, code: int) -> subprocess.CompletedProcess[str]:
    """Run the command and expect an exit code."""
    command = [sys.executable, "-c", "from fabric.cli import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_list_names_the_built_ins() -> None:
    """By the same entry points that a third party would use."""
    lines = [json.loads(line) for line in fabriclab("list", "--json", code=0).stdout.splitlines()]
    found = {line["kind"]: line["names"] for line in lines}
    assert found["controller"] == ["adaptive", "congestion", "ecmp", "single-path", "two-level"]
    assert found["policy"] == ["annealing", "combined", "ecn-tuner", "exact", "first-fit", "incast-guard", "interleave", "least-loaded", "max-min", "priority", "weighted"]
    assert found["topology"] == ["custom", "dual-plane", "dumbbell", "fat-tree", "leaf-spine", "rail-only", "rail-optimized", "single-switch"]


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_experiment_validates(file: Path) -> None:
    """In all its points, each with its topology, its flows and its schedules; and says how many there are."""
    assert "fine, " in fabriclab("validate", str(file), code=0).stdout


def test_validate_prints_points_as_json() -> None:
    """One object a line, nothing else on standard output."""
    done = fabriclab("validate", str(EXPERIMENTS / "quickstart.yaml"), "--json", code=0)
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert [point["seed"] for point in points] == [seed for seed in range(1, 6) for _ in range(4)]


def test_the_schema_is_json() -> None:
    """It names the keys of a file."""
    schema = json.loads(fabriclab("validate", "--schema", code=0).stdout)
    assert {"question", "topology", "links", "controller"} <= set(schema["properties"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("validate", "nowhere.yaml"), 2, "nowhere.yaml"),
        (("validate",), 2, "validate: got no file"),
        (("validate", str(EXPERIMENTS / "quickstart.yaml"), "--set", "links.mbps=-1"), 2, "links.mbps: got -1"),
        (("plot", "nowhere"), 2, "not a run folder"),
        (("fly",), 2, "fly"),
        (("run",), 2, "Missing argument 'file'; see fabriclab --help"),
    ],
)
def test_a_wrong_request_is_one_line_and_code_2(words: tuple[str, ...], code: int, message: str) -> None:
    """It names what was wrong, on standard error, and shows no traceback."""
    done = fabriclab(*words, code=code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_what_the_machine_cannot_do_is_code_3(tmp_path: Path) -> None:
    """Before anything starts: no run folder is made."""
    file = EXPERIMENTS / "quickstart.yaml"
    out = tmp_path / "runs"
    done = fabriclab("run", str(file), "--set", "transport.tcp=no_such_tcp", "--out", str(out), code=3)
    assert "no_such_tcp" in done.stderr
    assert not out.exists()
