"""Arms beside each other, seed by seed: what one takes or gets over what another does, and whether a difference was seen at all.

Comes in: run folders. Goes out: a `Comparison` for every pair of arms, in every surrounding that both were measured in.
Both rows of a pair share their seed, and so placement, load and source ports: chance is the same in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from fabric.claims import Interval, ratio
from fabric.errors import RequestError
from fabric.located import meant
from fabric.results import FIGURES, Row, read_rows

__all__ = ["MEASURES", "Arms", "Comparison", "arms_of", "beside", "called", "compare", "failing", "measures", "run_of"]

MEASURES = ("p50_ms", "iteration_ms", "program_s", "load_goodput_mbps")  # of these, those that both arms have
_TIED = ("seed", "repeat", "nbytes", "job")  # what two rows of a pair have in common beside their surroundings
Seen = Literal["lower", "higher", "no difference seen", "one pair", "no ratio"]


@dataclass(frozen=True, slots=True)
class Arms:
    """Rows with what they are told apart by: for each of `keys` a label, in the file's words."""

    keys: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]  # of every variant, one for each key
    rows: Sequence[Row]

    def along(self, key: str) -> list[str]:
        """The labels of a key, in the order in which the file has them."""
        return list(dict.fromkeys(labels[self.keys.index(key)] for labels in self.labels.values()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """`measure` of `arm` over that of `base`, where `where` was the same: geometric means of pairs that passed, and of all.

    `zeros` are the pairs with a figure of 0, which have no ratio: what the others say would be said of a part that somebody chose.
    """

    arm: str
    base: str
    where: str
    nbytes: int | None
    measure: str
    passed: Interval | None
    all: Interval | None
    zeros: int = 0

    @property
    def seen(self) -> Seen | None:
        """Whether the pairs that passed show a difference, and which way; None where none passed."""
        if self.zeros:
            return "no ratio"
        if self.passed is None:
            return None
        if self.passed.low is None or self.passed.high is None:
            return "one pair"
        return "lower" if self.passed.high < 1 else "higher" if self.passed.low > 1 else "no difference seen"

    def to_json(self) -> dict[str, Any]:
        """A dictionary with every key."""
        return {**asdict(self), "seen": self.seen}


def arms_of(folder: Path) -> Arms:
    """What a run folder has to compare; of one whose run.json does not tell its arms apart, by whole variants.

    RequestError when it is no run folder.
    """
    rows = read_rows(folder)
    told = run_of(folder)
    known = {name: tuple(labels) for name, labels in told.get("arms", {}).items()}
    if known and told.get("swept") and all(row.variant in known for row in rows):
        return Arms(tuple(told["swept"]), known, rows)
    return Arms(("variant",), {row.variant: (row.variant,) for row in rows}, rows)


def run_of(folder: Path) -> dict[str, Any]:
    """What a run folder says of its run; nothing where it says nothing."""
    file = folder / "run.json"
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def called(folders: Sequence[Path]) -> dict[str, Path]:
    """Run folders by the last part of their path, or by all of it where two share that; RequestError for one given twice."""
    names = [folder.resolve().name for folder in folders]
    found = {str(folder) if names.count(name) > 1 else name: folder for name, folder in zip(names, folders, strict=True)}
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RequestError("compare: got a run folder twice; accepted: each once; name one run alone to compare its arms")
    return found


def beside(runs: Mapping[str, Arms]) -> Arms:
    """Several runs as the labels of one more key, `run`; of runs of a single arm that arm's own name does not matter."""
    alone = all(len(arms.labels) == 1 for arms in runs.values())
    keys = () if alone else next(iter(runs.values())).keys
    if any(arms.keys != keys for arms in runs.values()) and not alone:
        keys = ("variant",)
    labels, rows = {}, []
    for name, arms in runs.items():
        for variant, own in arms.labels.items():
            labels[f"{name}: {variant}"] = (name, *(() if alone else own if keys == arms.keys else (variant,)))
        rows += [_renamed(row, f"{name}: {row.variant}") for row in arms.rows]
    return Arms(("run", *keys), labels, rows)


def _renamed(row: Row, variant: str) -> Row:
    return Row(**{**{field.name: getattr(row, field.name) for field in fields(Row)}, "variant": variant})


def compare(arms: Arms, key: str | None = None, base: str | None = None, wanted: Sequence[str] = ()) -> list[Comparison]:
    """Every other label of `key` (the first by default) over `base` (its first label), in each surrounding, size and measure.

    RequestError where there is nothing to compare, or a name is none of the run's.
    """
    key = _known(key, arms.keys, "--by", "keys that the run swept") if key else arms.keys[0]
    labels = arms.along(key)
    base = _known(base, labels, "--base", f"labels of {key}") if base else labels[0]
    if len(labels) < 2:
        raise RequestError(f"compare: got one arm, {labels[0]}; accepted: two or more; sweep something, or name a second run")
    found = [one for label in labels if label != base for one in _over(arms, arms.keys.index(key), label, base, wanted or MEASURES)]
    if not found:
        raise RequestError(f"compare: got no row of {base} that has its pair; accepted: arms of the same seeds, sizes and loads, with figures; see fabriclab show")
    return found


def _over(arms: Arms, place: int, label: str, base: str, wanted: Iterable[str]) -> Iterator[Comparison]:
    pairs: dict[tuple[str, int | None], list[tuple[Row, Row]]] = {}
    under = {_tie(arms, place, row): row for row in arms.rows if arms.labels[row.variant][place] == base}
    for row in arms.rows:
        if arms.labels[row.variant][place] == label and (other := under.get(_tie(arms, place, row))):
            pairs.setdefault((_where(arms, place, row), row.nbytes), []).append((row, other))
    for (where, nbytes), rows in pairs.items():
        for measure in wanted:
            both = [(over, other) for over, other in rows if getattr(over, measure) is not None and getattr(other, measure) is not None]
            if both:
                whole = [(over, other) for over, other in both if getattr(over, measure) > 0 and getattr(other, measure) > 0]
                ratios = [(getattr(over, measure) / getattr(other, measure), over.fidelity == other.fidelity == "PASS") for over, other in whole]
                passed = ratio([one for one, passing in ratios if passing])
                yield Comparison(label, base, where, nbytes, measure, passed, ratio([one for one, _ in ratios]), len(both) - len(whole))


def _tie(arms: Arms, place: int, row: Row) -> tuple[Any, ...]:
    labels = arms.labels[row.variant]
    return (*labels[:place], *labels[place + 1 :], *(getattr(row, name) for name in _TIED))


def _where(arms: Arms, place: int, row: Row) -> str:
    labels = arms.labels[row.variant]
    return ", ".join([*labels[:place], *labels[place + 1 :], *([row.job] if row.job else [])])


def measures(names: Sequence[str]) -> list[str]:
    """The names, if each is a figure of a row; RequestError for the first that is none."""
    return [_known(name, FIGURES, "--measure", "figures of a row, see docs/measures.md", listed=False) for name in names]


def failing(wish: str | None, tolerance: float) -> Callable[[Comparison], bool]:
    """Whether a comparison fails: its interval lies beyond 1, and `tolerance` more, on the side of the wish; or there was nothing to tell it by."""
    sides = {None: (), "lower": (-1,), "higher": (1,), "different": (-1, 1)}
    if wish not in sides:
        raise RequestError(f"compare: --fail-if: got {wish}; accepted: lower, higher, different; {meant(str(wish), ['lower', 'higher', 'different'], 'write one of those')}")

    def fails(one: Comparison) -> bool:
        if not sides[wish] or one.passed is None or one.zeros:
            return bool(sides[wish])
        low, high = one.passed.low or one.passed.mean, one.passed.high or one.passed.mean
        return (-1 in sides[wish] and high < 1 / (1 + tolerance)) or (1 in sides[wish] and low > 1 + tolerance)

    return fails


def _known(word: str, words: Sequence[str], option: str, what: str, listed: bool = True) -> str:
    if word in words:
        return word
    accepted = f"{what}: {', '.join(words)}" if listed else what
    raise RequestError(f"compare: {option}: got {word}; accepted: {accepted}; {meant(word, words, 'write one of those' if listed else 'look there')}")


