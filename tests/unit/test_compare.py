"""Arms are compared seed by seed, where all else was the same, and no difference is claimed that was not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fabric.cli import app
from fabric.compare import Arms, Comparison, arms_of, beside, called, compare, failing, measures
from fabric.errors import RequestError
from fabric.results import Row, RunFolder

FACTOR = {"ecmp": 2.0, "adaptive": 1.0, "two-level": 2.0}


def row(routing: str, load: str, seed: int, **more: Any) -> Row:
    """A row of a sweep of routing and load; a load adds 10 ms, and a seed as many."""
    given = {"p50_ms": FACTOR[routing] * (100 + seed + 10 * (load != "no load")), "fidelity": "PASS", "nbytes": 65536, **more}
    return Row(
        variant=f"{routing}, {load}", topology="fat-tree", controller=routing, tcp="cubic", mtu=9000, mbps=20.0, repeat=seed, seed=seed,
        datapath="netdev", point=f"{routing}-{load}-{seed}", **given,
    )  # fmt: skip


def run_of(routings: tuple[str, ...], loads: tuple[str, ...], seeds: range = range(1, 6), **more: Any) -> Arms:
    """A whole sweep."""
    rows = [row(routing, load, seed, **more) for seed in seeds for routing in routings for load in loads]
    return Arms(("controller.use", "load"), {one.variant: tuple(one.variant.split(", ")) for one in rows}, rows)


def saved(folder: Path, arms: Arms, told: dict[str, Any] | None = None) -> Path:
    """A run folder with these rows."""
    folder.mkdir()
    RunFolder(folder).append_rows(arms.rows)
    default = {"swept": arms.keys, "arms": arms.labels}
    (folder / "run.json").write_text(json.dumps(default if told is None else told))
    return folder


def test_each_surrounding_is_compared_by_itself() -> None:
    """ECMP takes twice as long as adaptive routing, without a load and with it; what is not compared is named in `where`."""
    found = compare(run_of(("adaptive", "ecmp"), ("no load", "stride")))
    assert [(one.arm, one.base, one.where, one.nbytes, one.measure) for one in found] == [
        ("ecmp", "adaptive", "no load", 65536, "p50_ms"), ("ecmp", "adaptive", "stride", 65536, "p50_ms"),
    ]  # fmt: skip
    assert all(one.passed and one.passed.n == 5 and one.passed.mean == pytest.approx(2) and one.seen == "higher" for one in found)


def test_any_key_and_any_base_can_be_asked_for() -> None:
    """The load's cost, for each routing; and adaptive routing over ECMP instead."""
    arms = run_of(("ecmp", "adaptive", "two-level"), ("no load", "stride"))
    assert {(one.arm, one.where, one.seen) for one in compare(arms, "load")} == {("stride", "ecmp", "higher"), ("stride", "adaptive", "higher"), ("stride", "two-level", "higher")}
    assert {(one.arm, one.seen) for one in compare(arms, base="adaptive")} == {("ecmp", "higher"), ("two-level", "higher")}
    assert {(one.arm, one.seen) for one in compare(arms)} == {("adaptive", "lower"), ("two-level", "no difference seen")}


def test_a_pair_needs_both_arms_and_a_verdict_needs_both_to_pass() -> None:
    """What failed counts in `all` alone; what was refused has no figure, and no pair."""
    arms = run_of(("adaptive", "ecmp"), ("no load",))
    rows = [
        row(one.controller, "no load", one.seed, fidelity="FAIL") if one.seed == 1 else row(one.controller, "no load", one.seed, p50_ms=None) if one.seed == 2 and one.controller == "ecmp" else one
        for one in arms.rows if (one.seed, one.controller) != (3, "adaptive")
    ]  # fmt: skip
    (found,) = compare(Arms(arms.keys, arms.labels, rows))
    assert found.passed is not None and found.all is not None and (found.passed.n, found.all.n) == (2, 3)


def test_a_zero_is_no_ratio_and_its_pair_is_not_left_out_in_silence() -> None:
    """Two seeds without a drop say more than the three that have some: nothing is claimed of the rest, and a check has not passed."""
    arms = run_of(("adaptive", "ecmp"), ("no load",), drops=100)
    rows = [Row(**{**one.to_json(), "drops": 0}) if one.controller == "ecmp" and one.seed < 3 else one for one in arms.rows]
    (found,) = compare(Arms(arms.keys, arms.labels, rows), wanted=["drops"])
    assert (found.zeros, found.seen, found.passed and found.passed.n) == (2, "no ratio", 3)
    assert failing("higher", 0)(found) and not failing(None, 0)(found)


def test_jobs_and_sizes_are_never_paired_with_others() -> None:
    """Two jobs of one run, each with its time."""
    rows = [row(routing, "no load", seed, job=job, p50_ms=time) for seed in (1, 2, 3) for routing, times in {"ecmp": (2.0, 30.0), "adaptive": (1.0, 30.0)}.items()
            for job, time in zip(("llm", "moe"), times, strict=True)]  # fmt: skip
    arms = run_of(("adaptive", "ecmp"), ("no load",))
    found = compare(Arms(arms.keys, arms.labels, rows))
    assert [(one.where, one.passed and one.passed.mean, one.seen) for one in found] == [("no load, llm", 2.0, "higher"), ("no load, moe", 1.0, "no difference seen")]


def test_one_pair_shows_nothing() -> None:
    """A ratio, and no interval."""
    (found,) = compare(run_of(("adaptive", "ecmp"), ("no load",), range(1, 2)))
    assert found.seen == "one pair" and found.passed is not None and found.passed.low is None
    assert found.to_json()["seen"] == "one pair"


def test_runs_are_compared_arm_by_arm_or_as_arms_themselves(tmp_path: Path) -> None:
    """Of runs of one arm each the arms' names do not matter; else equal variants are compared."""
    old, new = run_of(("ecmp",), ("no load",)), run_of(("adaptive",), ("no load",))
    (found,) = compare(beside({"old": old, "new": new}))
    assert (found.arm, found.base, found.where, found.seen) == ("new", "old", "", "lower")
    wide = run_of(("ecmp", "adaptive"), ("no load",))
    assert {(one.where, one.seen) for one in compare(beside({"old": wide, "new": wide}))} == {("ecmp, no load", "no difference seen"), ("adaptive, no load", "no difference seen")}
    with pytest.raises(RequestError, match=r"no row of old that has its pair; accepted: arms of the same seeds"):
        compare(beside({"old": wide, "new": run_of(("two-level", "ecmp"), ("stride",))}))


def test_runs_that_swept_otherwise_are_compared_by_whole_variants() -> None:
    """What was called the same in both."""
    one = run_of(("ecmp", "adaptive"), ("no load",))
    other = Arms(("controller",), {"ecmp, no load": ("ecmp, no load",)}, [found for found in one.rows if found.controller == "ecmp"])
    (found,) = compare(beside({"old": one, "new": other}))
    assert (found.where, found.seen) == ("ecmp, no load", "no difference seen")


def test_a_folder_that_does_not_tell_its_arms_is_compared_by_variants(tmp_path: Path) -> None:
    """As folders of older versions."""
    arms = run_of(("ecmp", "adaptive"), ("no load",))
    assert arms_of(saved(tmp_path / "told", arms)).keys == ("controller.use", "load")
    old = arms_of(saved(tmp_path / "old", arms, {"question": "?"}))
    assert old.keys == ("variant",) and [one.arm for one in compare(old)] == ["adaptive, no load"]


BAD = {
    "--by": (lambda: compare(run_of(("ecmp", "adaptive"), ("no load",)), key="lod"), "--by: got lod; accepted: keys that the run swept: controller.use, load; did you mean load?"),
    "--base": (lambda: compare(run_of(("ecmp", "adaptive"), ("no load",)), base="x"), "--base: got x; accepted: labels of controller.use: ecmp, adaptive; write one of those"),
    "one arm": (lambda: compare(run_of(("ecmp",), ("no load",))), "got one arm, ecmp; accepted: two or more; sweep something, or name a second run"),
    "--measure": (lambda: measures(["p50ms"]), "--measure: got p50ms; accepted: figures of a row, see docs/measures.md; did you mean p50_ms?"),
    "no figure": (lambda: measures(["variant"]), "--measure: got variant; accepted: figures of a row, see docs/measures.md; look there"),
    "--fail-if": (lambda: failing("up", 0), "--fail-if: got up; accepted: lower, higher, different; write one of those"),
    "twice": (lambda: called([Path("a"), Path("a")]), "got a run folder twice; accepted: each once; name one run alone to compare its arms"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_requests_get_one_line(what: str) -> None:
    """Where, what was got, what is accepted, what to do."""
    call, words = BAD[what]
    with pytest.raises(RequestError) as caught:
        call()
    assert str(caught.value) == f"compare: {words}"


@pytest.mark.parametrize(
    ("wish", "tolerance", "fails"),
    [(None, 0, (False, False, False)), ("lower", 0, (True, False, False)), ("higher", 0, (False, False, True)), ("different", 0, (True, False, True)),
     ("higher", 1.5, (False, False, False)), ("lower", 0.5, (True, False, False)), ("lower", 1.5, (False, False, False))],
)  # fmt: skip
def test_only_a_difference_that_was_seen_fails(wish: str | None, tolerance: float, fails: tuple[bool, ...]) -> None:
    """And only one beyond the tolerance: a half, one, and twice."""
    arms = {name: Arms(("variant",), {"a": ("a",), "b": ("b",)}, [
        Row(**{**row("ecmp", "x", seed).to_json(), "variant": variant, "p50_ms": time * (100 + seed)}) for seed in range(1, 6) for variant, time in (("a", 1.0), ("b", factor))
    ]) for name, factor in {"half": 0.5, "one": 1.0, "twice": 2.0}.items()}  # fmt: skip
    check = failing(wish, tolerance)
    assert tuple(check(one) for name in arms for one in compare(arms[name])) == fails


def test_what_nothing_passed_of_fails_where_something_was_asked() -> None:
    """A check that could not be made has not passed."""
    nothing = Comparison("a", "b", "", None, "p50_ms", None, None)
    assert nothing.seen is None and failing("higher", 0)(nothing) and not failing(None, 0)(nothing)


def test_the_command_prints_and_fails(tmp_path: Path) -> None:
    """A table, or JSON; exit code 1 for a difference that was not to be."""
    folder = str(saved(tmp_path / "run", run_of(("adaptive", "ecmp"), ("no load",))))
    done = CliRunner().invoke(app, ["compare", folder, "--fail-if", "higher", "--tolerance", "0.05"])
    assert done.exit_code == 1 and "ecmp, over adaptive" in done.output and "2.000 [2.000, 2.000] n=5" in done.output
    done = CliRunner().invoke(app, ["compare", folder, "--json", "--measure", "p50_ms"])
    assert done.exit_code == 0
    (found,) = [json.loads(line) for line in done.output.splitlines()]
    assert found["arm"] == "ecmp" and found["passed"]["n"] == 5 and found["seen"] == "higher"
