"""What an experiment's author expects of it, and whether the rows show it.

Comes in: `expect` of the file, and rows. Goes out: an `Outcome` for every arm and size that an expectation speaks of. Only rows that
passed are asked, and only a whole interval within the limits meets them: what a few seeds leave open is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fabric.claims import Interval, interval
from fabric.compare import Arms, arms_of, compare, run_of
from fabric.errors import RequestError
from fabric.keys import Expect
from fabric.located import Problem, meant, told
from fabric.results import FIGURES, Row

if TYPE_CHECKING:
    from fabric.keys import ExperimentFile

__all__ = ["Outcome", "expectations", "judged", "unexpected"]

Verdict = Literal["met", "not met", "not shown", "not judged"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An expectation in words, what was found over the seeds that passed, and whether that meets it."""

    words: str
    found: Interval | None
    verdict: Verdict


def unexpected(file: ExperimentFile, arms: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """What is wrong with `expect`: a figure or an arm that there is none of, or no limit."""
    words = list(dict.fromkeys([*arms, *(label for labels in arms.values() for label in labels)]))
    for number, wish in enumerate(file.expect):
        path = ("expect", number)
        if wish.measure not in FIGURES:
            accepted = "a figure of a row, see docs/measures.md"
            yield Problem((*path, "measure"), told(wish.measure, accepted, meant(wish.measure, FIGURES, "write e.g. measure: p50_ms")))
        for key, word in (("arm", wish.arm), ("over", wish.over)):
            if word is not None and word not in words:
                yield Problem((*path, key), told(word, f"an arm: {', '.join(words)}", meant(word, words, "write one of those")))
        if wish.below is None and wish.above is None:
            yield Problem(path, "got neither below nor above; accepted: one of them, or both; add e.g. below: 0.7", True)
        if wish.over is not None and (wish.arm is None or wish.arm == wish.over):
            yield Problem((*path, "over"), told(wish.over, "an arm beside another arm", f"add e.g. arm: {next((word for word in words if word != wish.over), 'adaptive')}"))


def expectations(folder: Path) -> tuple[Arms, list[Expect]]:
    """What a run folder has to judge, and by what."""
    arms = arms_of(folder)
    return arms, [Expect(**wish) for wish in run_of(folder).get("expect", [])]


def judged(arms: Arms, wishes: Sequence[Expect]) -> list[Outcome]:
    """Every expectation, for each arm and size that it speaks of."""
    return [outcome for wish in wishes for outcome in (_ratios(arms, wish) if wish.over else _means(arms, wish))]


def _ratios(arms: Arms, wish: Expect) -> Iterator[Outcome]:
    # Along the key that both are values of; of whole variants, along none.
    keys = [key for key in arms.keys if {wish.arm, wish.over} <= set(arms.along(key))]
    whole = Arms(("variant",), {variant: (variant,) for variant in arms.labels}, arms.rows)
    try:
        found = compare(arms if keys else whole, keys[0] if keys else "variant", wish.over, [wish.measure])
    except RequestError:
        found = []
    those = [one for one in found if one.arm == wish.arm and wish.nbytes in (None, one.nbytes)]
    for one in those:
        yield _outcome(wish, f"{one.arm} over {one.base}", one.where, one.nbytes, None if one.zeros else one.passed)
    if not those:
        yield _outcome(wish, f"{wish.arm} over {wish.over}", "", wish.nbytes, None)


def _means(arms: Arms, wish: Expect) -> Iterator[Outcome]:
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in arms.rows:
        if wish.arm in (None, row.variant, *arms.labels[row.variant]) and wish.nbytes in (None, row.nbytes):
            groups.setdefault((row.arm, row.nbytes), []).append(row)
    for (arm, nbytes), rows in groups.items():
        values = [getattr(row, wish.measure) for row in rows if row.fidelity == "PASS"]
        yield _outcome(wish, arm, "", nbytes, interval([value for value in values if value is not None]))
    if not groups:
        yield _outcome(wish, wish.arm or "any arm", "", wish.nbytes, None)


def _outcome(wish: Expect, arm: str, where: str, nbytes: int | None, found: Interval | None) -> Outcome:
    limits = " and ".join([*([f"below {wish.below:g}"] if wish.below is not None else []), *([f"above {wish.above:g}"] if wish.above is not None else [])])
    place = ", ".join([arm, *([where] if where else []), *([f"{nbytes} B"] if nbytes else [])])
    return Outcome(f"{wish.measure} of {place}: {limits}", found, _verdict(wish, found))


def _verdict(wish: Expect, found: Interval | None) -> Verdict:
    if found is None:
        return "not judged"
    low, high = (found.mean, found.mean) if found.low is None or found.high is None else (found.low, found.high)
    below, above = float("inf") if wish.below is None else wish.below, float("-inf") if wish.above is None else wish.above
    if above < low and high < below:
        return "met"
    return "not shown" if low < below and high > above else "not met"
