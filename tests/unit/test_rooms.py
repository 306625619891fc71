"""Who may import what: the rooms of the house, kept apart."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("fabric", "topologies", "controllers")
FILES = sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py"))

# A package, and the only files that may import it.
ONLY_IN = {
    "mininet": ["fabric/network.py"],
    "ryu": ["fabric/manager.py", "fabric/monitor.py", "fabric/app.py", "fabric/openflow.py", "fabric/counters.py", "controllers/*"],
    "matplotlib": ["fabric/plots/*"],
}

# Files, and what they may not import, not even through a room of ours that does.
PURE = ["fabric/fluid.py", "fabric/schedule.py", "fabric/interpreter.py", "fabric/outcome.py", "fabric/cutting.py", "fabric/relaying.py", "fabric/load.py", "fabric/ideal.py", "fabric/collectives/*"]
DECIDING = ["controllers/policies/*", "fabric/policy.py", "fabric/bookings.py", "fabric/demand.py", "fabric/flowtable.py", "fabric/labels.py"]
# What describes rules and reads answers knows Ryu's values, but acts on nothing and has no clock.
STEERING = ["fabric/steering.py", "fabric/linkwatch.py", "fabric/sightings.py", "fabric/openflow.py"]
MAY_NOT = {
    "topologies/*": {"mininet", "ryu"},
    "fabric/graph.py": {"mininet", "ryu"},
    "fabric/paths.py": {"mininet", "ryu"},
    "fabric/network.py": {"ryu"},
    **{room: {"socket", "subprocess", "pyroute2", "mininet", "ryu"} for room in PURE},
    **{room: {"socket", "subprocess", "pyroute2", "mininet", "ryu", "time", "os"} for room in DECIDING},
    **{room: {"subprocess", "pyroute2", "mininet", "time", "os"} for room in STEERING},
}


@cache
def imported_by(file: str) -> frozenset[str]:
    """What a file of ours imports; most are asked for again by each that imports them."""
    return frozenset(imports((ROOT / file).read_text()))


def imports(source: str) -> Iterator[str]:
    """Every module that a source text imports, wherever it does, also by `import_module` of a literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from (str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def file_of(module: str) -> str | None:
    """The file of ours that an import path names, None for anyone else's."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in FILES), None)


def packages_behind(file: str) -> set[str]:
    """The top packages that importing a file brings in, through all files of ours."""
    seen, unread, found = {file}, [file], set()
    while unread:
        for module in imported_by(unread.pop()):
            ours = file_of(module)
            if ours is None:
                found.add(module.split(".")[0])
            elif ours not in seen:
                seen.add(ours)
                unread.append(ours)
    return found


def test_the_reader_sees_every_kind_of_import() -> None:
    """Plain, from, dotted, inside a function, under a condition, by name: none goes unseen; a string is no import."""
    source = (
        "import a.b, c as d\nfrom e.f import g\nfrom . import h\n"
        "def f():\n    import i\nif True:\n    import importlib; importlib.import_module('j.k')\n'import l'\n"
    )
    assert {name.split(".")[0] for name in imports(source)} == {"a", "c", "e", "i", "importlib", "j"}


def test_rules_are_about_files_that_are_there() -> None:
    """The pure rooms exist, so that their rules are not empty."""
    for pattern in (*PURE, *DECIDING, *STEERING, "topologies/*", "fabric/graph.py", "fabric/paths.py"):
        assert any(fnmatch(file, pattern) for file in FILES), pattern


@pytest.mark.parametrize("file", FILES)
def test_a_package_is_imported_only_in_its_room(file: str) -> None:
    """mininet, ryu and matplotlib each have their files; no other imports them."""
    direct = {module.split(".")[0] for module in imported_by(file)}
    for package, rooms in ONLY_IN.items():
        assert package not in direct or any(fnmatch(file, room) for room in rooms), f"{file} may not import {package}"


@pytest.mark.parametrize("file", FILES)
def test_a_room_stays_pure(file: str) -> None:
    """What topologies and theory import, directly or through another room, touches neither machine nor controller."""
    forbidden = set[str]().union(*(packages for pattern, packages in MAY_NOT.items() if fnmatch(file, pattern)))
    assert not forbidden & packages_behind(file)
