"""YAML that remembers where each key stood, so that an error can point at it; and the arms that a sweep makes of it.

Comes in: a file's text, or the value of a `--set`. Goes out: a `Document` (plain dicts, lists and scalars, and the
place of each), an `Arm` for each combination of swept values, and `Problem`s told as one line:
`{place}: {key path}: got ...; accepted: ...; {remedy}`.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fabric.errors import RequestError

__all__ = [
    "Arm", "Axis", "Document", "KeyPath", "Place", "Problem", "arms", "axes", "key_path", "meant", "one_line", "parse",
    "parse_override", "raise_first", "read", "show", "told", "variants",
]  # fmt: skip

KeyPath = tuple[str | int, ...]

ARM_LIMIT = 10_000  # more would take weeks: a slip of the sweep, not a wish
NODE_LIMIT = 20_000  # aliases of aliases ("billion laughs") would otherwise fill the memory
OVERRIDDEN = 1 << 31  # the "line" of what --set gives: after every line of the file
SHOWN = 80  # characters of a value that an error quotes
MAPPING, SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: `text` for a person; `start` and `end`, (line, column), to tell what came first."""

    text: str
    start: tuple[int, int]
    end: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the value at `path`; `absent` when the complaint is that there is none."""

    path: KeyPath
    text: str
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a file and the place of each key path; the root's path is ()."""

    data: dict[str, Any]
    places: Mapping[KeyPath, Place]

    def has(self, path: KeyPath) -> bool:
        """Whether there is a value at the path, be it null."""
        value: Any = self.data
        for part in path:
            if (isinstance(value, dict) and part in value) or _indexes(value, part):
                value = value[part]
            else:
                return False
        return True

    def get(self, path: KeyPath) -> Any:
        """The value at the path, None when there is none."""
        value: Any = self.data
        for part in path if self.has(path) else ():
            value = value[part]
        return value if self.has(path) else None

    def place(self, path: KeyPath) -> Place:
        """Where the path was written, or the nearest thing around it that was."""
        return next(self.places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.places)

    def below(self, path: KeyPath) -> dict[KeyPath, Place]:
        """The places at and under a path, by what is left of their paths."""
        return {rest[len(path) :]: place for rest, place in self.places.items() if rest[: len(path)] == path}

    def overridden(self, key: str, value: Any, nth: int) -> Document:
        """A copy in which the dotted `key` holds the value of the nth `--set`."""
        at = (OVERRIDDEN, nth)
        place = Place(f"--set {one_line(key)}={show(value, quoted=False)}", at, at)
        return self.with_value(key_path(key, self.data), value, {(): place})

    def with_value(self, path: KeyPath, value: Any, places: Mapping[KeyPath, Place]) -> Document:
        """A copy in which `path` holds `value`, written at `places`; mappings on the way are made when absent."""
        kept = {old: place for old, place in self.places.items() if old[: len(path)] != path}
        data = _put(self.data, path, value, lambda at, text: self._refuse(places[()], path[:at], text))
        made = {path[:n]: places[()] for n in range(1, len(path)) if not self.has(path[:n])}
        return Document(data, kept | made | {path + rest: place for rest, place in places.items()})

    def _refuse(self, place: Place, parent: KeyPath, accepted: str) -> RequestError:
        text = told(self.get(parent), accepted, "write the key path as it stands in the file, e.g. load.0.step")
        return RequestError(f"{place.text}: {dotted(parent)}: {text}")


def read(path: Path) -> str:
    """The text of a file; RequestError when it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as err:
        what = f"{path}: cannot be read: {err.strerror}"
        raise RequestError(f"{what}; accepted: an experiment file; check the path") from err
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        raise RequestError(
            f"{path}:{line}: got the byte 0x{err.object[err.start]:02x}; accepted: UTF-8 text; save the file as UTF-8"
        ) from err


def parse(text: str, name: str) -> Document:
    """The document of a YAML text whose top is a mapping; errors call the file `name`."""
    reader = _Reader(lambda line: f"{name}:{line}")
    node = reader.compose(text)
    remedy = "start with e.g. question: Is ECMP enough?"
    if node is None:
        raise RequestError(f"{name}:1: got an empty file; accepted: key: value lines; {remedy}")
    data = reader.value(node, (), ())
    if not isinstance(data, dict):
        raise RequestError(f"{name}:{node.start_mark.line + 1}: {told(data, 'key: value lines', remedy)}")
    return Document(data, reader.places)


def parse_override(text: str) -> tuple[str, Any]:
    """The key path and the value of a `--set key=value`; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        remedy = "write e.g. --set links.mbps=20"
        raise RequestError(f"--set {one_line(text)}: got no key and value; accepted: key=value; {remedy}")
    reader = _Reader(lambda line: f"--set {one_line(text)}")
    node = reader.compose(value)
    return key.strip(), None if node is None else reader.value(node, (), ())


def raise_first(
    document: Document, problems: Iterable[Problem], suffix: Callable[[KeyPath], str] = lambda path: ""
) -> None:
    """Raise RequestError for the problem that stands first in the file, if there is any."""

    def order(problem: Problem) -> tuple[int, int]:
        # What is absent is missed where its mapping ends: a misspelt key before that is the better news.
        parent = document.place(problem.path[:-1])
        return parent.end if problem.absent else document.place(problem.path).start

    for problem in sorted(problems, key=order)[:1]:
        where = f"{document.place(problem.path).text}: {dotted(problem.path)}"
        raise RequestError(f"{where}: {problem.text}{suffix(problem.path)}")


@dataclass(frozen=True, slots=True)
class Axis:
    """One line of the sweep: a key path as written, and the values it takes."""

    key: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class Arm:
    """The document at one combination of swept values; `chosen` are the paths they went to, and each in words."""

    document: Document
    values: tuple[tuple[str, Any], ...]  # key path as written, value
    indices: tuple[int, ...]
    chosen: tuple[tuple[KeyPath, str], ...]

    def refuse(self, problems: Iterable[Problem]) -> None:
        """Like `raise_first`, naming the swept values that the blamed key path does not show by itself."""
        raise_first(self.document, problems, self._others)

    def _others(self, path: KeyPath) -> str:
        others = ", ".join(text for swept, text in self.chosen if path[: len(swept)] != swept)
        return f" [in the sweep, at {others}]" if others else ""


def axes(document: Document, allowed: Sequence[str]) -> list[Axis]:
    """The axes of the document's `sweep`; a key path must begin with one of `allowed`."""
    sweep = {} if document.get(("sweep",)) is None else document.get(("sweep",))
    if not isinstance(sweep, dict):
        text = told(sweep, "a mapping of key paths to lists of values", "write e.g. sweep: {controller.use: [ecmp]}")
        raise_first(document, [Problem(("sweep",), text)])
    problems = []
    for key, values in sweep.items():
        first = key.split(".")[0]
        if first not in allowed:
            remedy = meant(first, allowed, "write e.g. controller.use")
            text = f"got a key path that cannot be swept; accepted: one that begins with {', '.join(allowed)}; {remedy}"
            problems.append(Problem(("sweep", key), text))
        elif not isinstance(values, list) or not values:
            remedy = f"write e.g. {one_line(key)}: [1, 2]"
            problems.append(Problem(("sweep", key), told(values, "a list of one or more values", remedy)))
    raise_first(document, problems)
    if (count := math.prod(len(values) for values in sweep.values())) > ARM_LIMIT:
        text = f"got {count} variants; accepted: at most {ARM_LIMIT}; sweep less"
        raise_first(document, [Problem(("sweep",), text)])
    return [Axis(key, values) for key, values in sweep.items()]


def arms(document: Document, swept: Sequence[Axis]) -> list[Arm]:
    """The product of the axes in file order, the last key fastest; one arm when there is none."""
    every = itertools.product(*(range(len(axis.values)) for axis in swept))
    return [_arm(document, swept, indices) for indices in every]


def _arm(document: Document, swept: Sequence[Axis], indices: tuple[int, ...]) -> Arm:
    chosen: list[tuple[KeyPath, str]] = []
    pairs = list(zip(swept, indices, strict=True))
    # A parent before its child, whatever their order in the file: so neither undoes the other.
    for axis, index in sorted(pairs, key=lambda pair: pair[0].key.count(".")):
        source: KeyPath = ("sweep", axis.key, index)
        places = {(): document.place(source), **document.below(source)}
        path = key_path(axis.key, document.data)
        document = document.with_value(path, axis.values[index], places)
        value = show(axis.values[index], quoted=False)
        chosen.append((path, f"{one_line(axis.key)}: {value} ({_short(places[()])})"))
    return Arm(document, tuple((axis.key, axis.values[index]) for axis, index in pairs), indices, tuple(chosen))


def _short(place: Place) -> str:
    return f"line {place.start[0]}" if place.start[0] < OVERRIDDEN else place.text


def variants(swept: Sequence[Arm]) -> list[tuple[str, ...]]:
    """A short label for each swept value of each arm, numbers with the last word of their key: `ecmp` and `step=8`.

    What has a name of its own is called by it, where that tells the arms apart.
    """
    by_name, whole = ([tuple(_named(key, value, short) for key, value in arm.values) for arm in swept] for short in (True, False))
    return by_name if len({", ".join(labels) for labels in by_name}) == len(by_name) else whole


def _named(key: str, value: Any, short: bool) -> str:
    """A text or a mapping speaks for itself; `5` or `true` does not."""
    word = one_line(key.rpartition(".")[2])
    if isinstance(value, str | dict | list):
        return _label(value, short) if value else f"no {word}"
    return f"{word}={_label(value, short)}"


def told(got: Any, accepted: str, remedy: str) -> str:
    """`got ...; accepted: ...; remedy`, the three parts every error has."""
    return f"got {show(got)}; accepted: {accepted}; {remedy}"


def meant(word: str, words: Iterable[str], otherwise: str) -> str:
    """The remedy for an unknown word: the nearest known one, if any is near."""
    near = difflib.get_close_matches(word, list(words), 1, 0.7)
    return f"did you mean {near[0]}?" if near else otherwise


def show(value: Any, *, quoted: bool = True) -> str:
    """A value as YAML would write it, on one line and not too long; texts in quotes, or not."""
    text = _written(value, repr if quoted else one_line)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def one_line(text: str) -> str:
    """The words of a text with single blanks between, whatever was between them."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def key_path(dots: str, data: Any) -> KeyPath:
    """`load.0.step` as a path; a number is an index where `data` has a list, and what follows `sweep.` is one key."""
    if dots.startswith("sweep."):
        return ("sweep", dots.removeprefix("sweep."))
    path: list[str | int] = []
    for part in dots.split("."):
        index = int(part) if isinstance(data, list) and part.isascii() and part.isdigit() and len(part) < 9 else None
        path.append(part if index is None else index)
        data = data.get(part) if isinstance(data, dict) else data[index] if _indexes(data, index) else None
    return tuple(path)


def dotted(path: KeyPath) -> str:
    """A path as people write it: `load.0.step`."""
    return ".".join(str(part) if isinstance(part, int) else one_line(part)[:SHOWN] or "''" for part in path)


class _Reader:
    """Turns YAML nodes into plain values, noting the place of each; `at` writes a line number as a place."""

    def __init__(self, at: Callable[[int], str]) -> None:
        self.at = at
        self.places: dict[KeyPath, Place] = {}
        self.scalars = yaml.SafeLoader("")
        self.nodes = 0

    def compose(self, text: str) -> yaml.Node | None:
        """The node tree, None for an empty text; what is not YAML becomes one line."""
        try:
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as err:
            line, found = text[: err.position].count("\n") + 1, f"a character that YAML forbids ({err.reason})"
        except yaml.MarkedYAMLError as err:
            mark = err.problem_mark or err.context_mark
            line, found = (mark.line + 1 if mark else 1), ", ".join(filter(None, (err.context, err.problem)))
        except RecursionError:
            line, found = 1, "brackets nested too deeply"
        remedy = "check quotes and indentation"
        raise RequestError(f"{self.at(line)}: not YAML: {one_line(found)}; accepted: YAML 1.1; {remedy}")

    def value(
        self, node: yaml.Node, path: KeyPath, parents: tuple[yaml.Node, ...], key: yaml.Node | None = None
    ) -> Any:
        """The plain value of a node; `key` is the node of its key, which its place begins with."""
        self.nodes += 1
        if node in parents or self.nodes > NODE_LIMIT:
            got = "an alias of what it stands in" if node in parents else f"more than {NODE_LIMIT} values"
            raise self._refuse(node, path, got, "a tree of values of a person's size", "write the values out")
        start, end = (key or node).start_mark, node.end_mark
        line = start.line + 1
        self.places[path] = Place(self.at(line), (line, start.column), (end.line + 1, end.column))
        if isinstance(node, yaml.MappingNode) and node.tag == MAPPING:
            return self._mapping(node, path, (*parents, node))
        if isinstance(node, yaml.SequenceNode) and node.tag == SEQUENCE:
            return [self.value(item, (*path, n), (*parents, node)) for n, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, parents: tuple[yaml.Node, ...]) -> dict[str, Any]:
        lines: dict[str, int] = {}
        found: dict[str, Any] = {}
        for key_node, node_of_value in node.value:
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                got = f"the key {_raw(key_node)}"
                raise self._refuse(key_node, path, got, "a word as key", "quote it if it is one")
            if key in lines:
                got = f"the key twice, first at line {lines[key]}"
                raise self._refuse(key_node, (*path, key), got, "each key once", "remove one")
            lines[key] = key_node.start_mark.line + 1
            found[key] = self.value(node_of_value, (*path, key), parents, key_node)
        return found

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        try:
            value = self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError):
            value = NotImplemented
        finite = math.isfinite(value) if isinstance(value, float) else True
        if not finite or not isinstance(value, (str, int, float, type(None))):
            accepted = "text, finite numbers, true, false, null"
            raise self._refuse(node, path, _raw(node), accepted, "quote it if it is text")
        return value

    def _refuse(self, node: yaml.Node, path: KeyPath, got: str, accepted: str, remedy: str) -> RequestError:
        where = f"{self.at(node.start_mark.line + 1)}: {dotted(path)}".removesuffix(": ")
        return RequestError(f"{where}: got {got}; accepted: {accepted}; {remedy}")


def _raw(node: yaml.Node) -> str:
    text = f"{node.tag} {node.value}" if isinstance(node, yaml.ScalarNode) else node.tag
    return one_line(text).replace("tag:yaml.org,2002:", "!!")[:SHOWN]


def _written(value: Any, text: Callable[[str], str]) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{one_line(key)}: {_written(item, text)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_written(item, text) for item in value) + "]"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"  # Python refuses to write the longest ones
    if isinstance(value, bool):
        return str(value).lower()
    return "nothing" if value is None else text(value) if isinstance(value, str) else str(value)


def _label(value: Any, short: bool) -> str:
    if isinstance(value, dict):
        if short and isinstance(value.get("name"), str):
            return one_line(value["name"])
        return " ".join(_label(item, short) if key == "use" else f"{one_line(key)}={_label(item, short)}" for key, item in value.items())
    if isinstance(value, list):
        return " + ".join(_label(item, short) for item in value)
    return "none" if value is None else _written(value, one_line)


def _indexes(value: Any, part: Any) -> bool:
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _put(old: Any, path: KeyPath, value: Any, refuse: Callable[[int, str], RequestError], depth: int = 0) -> Any:
    """`old` with `value` at `path`; only the containers on the way are copied."""
    if depth == len(path):
        return value
    part = path[depth]
    if isinstance(old, list):
        if not _indexes(old, part):
            raise refuse(depth, f"an index from 0 to {len(old) - 1}" if old else "a list that is not empty")
        return [_put(item, path, value, refuse, depth + 1) if n == part else item for n, item in enumerate(old)]
    if old is not None and not isinstance(old, dict):
        raise refuse(depth, f"a mapping, which {dotted(path)} can go into")
    table = old or {}
    return {**table, part: _put(table.get(part), path, value, refuse, depth + 1)}
