"""An expectation is met by a whole interval within its limits, and by rows that passed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fabric.cli import app
from fabric.compare import Arms
from fabric.expecting import judged
from fabric.experiment import load_experiment
from fabric.keys import Expect
from fabric.results import Row, RunFolder

NOISE = (1.0, 1.1, 0.9, 1.05, 0.95)


def rows(fidelity: str = "PASS") -> list[Row]:
    """ECMP takes 300 ms or so and adaptive routing 100, with a load 200; each pair shares its luck."""
    times = {"ecmp, no load": 300.0, "adaptive, no load": 100.0, "ecmp, stride": 300.0, "adaptive, stride": 200.0}
    return [
        Row(variant=variant, topology="fat-tree", controller=variant.partition(",")[0], tcp="cubic", mtu=9000, mbps=20.0, repeat=seed, seed=seed, datapath="netdev",
            point="", nbytes=65536, p50_ms=time * noise, slowdown=time / 100 * noise, fidelity=fidelity)
        for seed, noise in enumerate(NOISE) for variant, time in times.items()
    ]  # fmt: skip


def arms(fidelity: str = "PASS") -> Arms:
    """All of them, by routing and load."""
    found = rows(fidelity)
    return Arms(("controller.use", "load"), {row.variant: tuple(row.variant.split(", ")) for row in found}, found)


CASES = {
    "a ratio, wherever both were": (Expect(measure="p50_ms", arm="adaptive", over="ecmp", below=0.7), ["met", "met"]),
    "a ratio that holds in one place": (Expect(measure="p50_ms", arm="adaptive", over="ecmp", below=0.5), ["met", "not met"]),
    "a ratio of variants": (Expect(measure="p50_ms", arm="adaptive, no load", over="ecmp, stride", above=0.3, below=0.35), ["met"]),
    "a mean": (Expect(measure="slowdown", arm="ecmp", above=2), ["met", "met"]),
    "all arms": (Expect(measure="slowdown", below=2.5), ["not met", "met", "not met", "met"]),
    "what few seeds leave open": (Expect(measure="slowdown", arm="adaptive, no load", below=1.01), ["not shown"]),
    "another size": (Expect(measure="slowdown", nbytes=4, below=9), ["not judged"]),
    "a figure that no row has": (Expect(measure="drops", arm="ecmp", below=9), ["not judged", "not judged"]),
    "a ratio of a figure that no row has": (Expect(measure="drops", arm="adaptive", over="ecmp", below=9), ["not judged"]),
}


@pytest.mark.parametrize("what", CASES)
def test_expectations_are_judged_where_they_speak(what: str) -> None:
    """One outcome for every arm and surrounding."""
    wish, verdicts = CASES[what]
    assert [outcome.verdict for outcome in judged(arms(), [wish])] == verdicts


def test_what_did_not_pass_is_not_judged() -> None:
    """A row that may be the machine's shows nothing."""
    assert {outcome.verdict for outcome in judged(arms("FAIL"), [Expect(measure="slowdown", below=100), Expect(measure="p50_ms", arm="adaptive", over="ecmp", below=9)])} == {"not judged"}


@pytest.mark.parametrize(("below", "code", "word"), [(0.9, 0, "met"), (0.1, 1, "not met"), (None, 2, "expects nothing")])
def test_show_checks(tmp_path: Path, below: float | None, code: int, word: str) -> None:
    """Its exit code is the outcome; without --check it only says it."""
    found = arms()
    RunFolder(tmp_path).append_rows(found.rows)
    expect: list[dict[str, Any]] = [{"measure": "p50_ms", "arm": "adaptive", "over": "ecmp", "below": below}] if below else []
    (tmp_path / "run.json").write_text(json.dumps({"swept": found.keys, "arms": found.labels, "expect": expect}))
    done = CliRunner().invoke(app, ["show", str(tmp_path), "--check"])
    assert (done.exit_code or 0) == code if code < 2 else type(done.exception).__name__ == "RequestError"
    assert word in done.output or word in str(done.exception)
    assert CliRunner().invoke(app, ["show", str(tmp_path)]).exit_code == 0


def test_a_file_may_expect_of_its_arms(tmp_path: Path) -> None:
    """By the values that it sweeps."""
    file = tmp_path / "file.yaml"
    file.write_text(
        "question: Why?\ntopology: {use: single-switch, hosts: 4}\nlinks: {mbps: 10}\ncontroller: {use: ecmp}\ncollective: {use: ring-allreduce, nbytes: 64KiB}\n"
        "sweep: {controller.use: [ecmp, adaptive]}\nexpect: [{measure: p50_ms, arm: adaptive, over: ecmp, nbytes: 64KiB, below: 0.7}]\n"
    )
    (wish,) = load_experiment(file).expect
    assert (wish.arm, wish.nbytes, wish.below) == ("adaptive", 65536, 0.7)
