"""Finds a plug-in by the way it is spelt, built-ins by the same door as anyone's own.

    adaptive            no dot, slash or colon: an entry point of the kind's group
    pkg.module:attr     an import path
    ./file.py[:attr]    a file, relative to the experiment file
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fabric.errors import RequestError

__all__ = ["KINDS", "Source", "find", "load", "names"]

KINDS = {
    "topology": "fabriclab.topologies",
    "controller": "fabriclab.controllers",
    "collective": "fabriclab.collectives",
    "load": "fabriclab.loads",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plug-in's code is: a module's import path or a file's, and the attribute, '' when it is to be found."""

    module: str
    attr: str = ""

    @property
    def is_file(self) -> bool:
        """Whether `module` is a file's path."""
        return self.module.endswith(".py")


def names(kind: str) -> list[str]:
    """The names that entry points offer for a kind, sorted."""
    return sorted({point.name for point in entry_points(group=KINDS[kind])})


def find(kind: str, spelling: str, base: Path) -> Source:
    """Where the plug-in is, without importing it; RequestError when there is none.

    `base` is the folder that relative files start from.
    """
    if not any(mark in spelling for mark in "./:"):
        return _entry_point(kind, spelling)
    if "/" in spelling or spelling.endswith(".py") or ".py:" in spelling:
        path, _, attr = spelling.partition(":")
        file = (base / path).resolve()
        if not file.is_file():
            raise RequestError(f"{kind} {spelling!r}: no file {file}; a file is looked up from the experiment's folder")
        return Source(str(file), attr)
    module, _, attr = spelling.partition(":")
    return Source(module, attr)


def load(kind: str, spelling: str, base: Path) -> Callable[..., Any]:
    """The plug-in's callable, imported; RequestError names the plug-in and what is wrong with it."""
    source = find(kind, spelling, base)
    module = _import(kind, spelling, source)
    if source.attr:
        if not hasattr(module, source.attr):
            raise RequestError(f"{kind} {spelling!r}: {source.module} has no {source.attr!r}; it has {_offers(module)}")
        plugin: Callable[..., Any] = getattr(module, source.attr)
        return plugin
    own = [value for name, value in vars(module).items() if inspect.isfunction(value) and _is_public(module, name, value)]
    if len(own) != 1:
        raise RequestError(f"{kind} {spelling!r}: the module defines {_offers(module)}; say which one, as {spelling}:NAME")
    return own[0]


def _entry_point(kind: str, name: str) -> Source:
    points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=KINDS[kind])}
    if name not in points:
        raise RequestError(
            f"no {kind} is called {name!r}; accepted: {', '.join(sorted(points))}, pkg.module:attr, or ./file.py[:attr]"
        )
    return Source(points[name].module, points[name].attr)


def _import(kind: str, spelling: str, source: Source) -> ModuleType:
    try:
        if not source.is_file:
            return importlib.import_module(source.module)
        name = f"fabriclab_plugin_{Path(source.module).stem}"
        spec = importlib.util.spec_from_file_location(name, source.module)
        assert spec is not None and spec.loader is not None  # a .py path always has both
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except Exception as err:
        raise RequestError(f"{kind} {spelling!r}: cannot be imported: {type(err).__name__}: {err}; mend {source.module}") from err
    return module


def _is_public(module: ModuleType, name: str, value: Any) -> bool:
    return not name.startswith("_") and value.__module__ == module.__name__


def _offers(module: ModuleType) -> str:
    found = [name for name, value in vars(module).items() if callable(value) and _is_public(module, name, value)]
    return ", ".join(found) or "nothing public that can be called"
