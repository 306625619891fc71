"""The parameters of plug-ins, checked against what each plug-in says it takes, before it is called.

Comes in: a plug-in's spelling and the keys that stand beside `use`. Goes out: the problems, in words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from fabric import plugins
from fabric.errors import RequestError
from fabric.keys import Use
from fabric.located import KeyPath, Problem, meant, show, told

__all__ = ["Wanted", "misfits", "on_request", "wanted"]

GIVEN = {"topology": (), "collective": ("ranks", "elements"), "load": ("hosts", "rng")}  # what we pass to each kind
ON_REQUEST = {"load": ("fabric",), "collective": ("fabric", "hosts", "links")}  # what we pass by name to those that have a parameter of this name
WORDS: dict[type, tuple[str, str]] = {  # a type in words, and an example
    int: ("a whole number", "1"), float: ("a number", "1.5"), str: ("a text", "name"), bool: ("true or false", "true"),
    type(None): ("null", "null"), Path: ("a file's name", "./my_fabric.yaml"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """The parameters a plug-in takes: their types (Any when it does not say), and which it needs; `open` takes any."""

    types: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needed: frozenset[str] = frozenset()
    open: bool = False


def wanted(kind: str, spelling: str, base: Path) -> Wanted:
    """What a plug-in takes, read from its signature, or from a controller's source; RequestError when it has none."""
    if kind == "controller":
        found = plugins.controller_parameters(plugins.find(kind, spelling, base))
        types = {key: Any if value is None else type(value) for key, value in (found or {}).items()}
        return Wanted(types, found or {}, open=found is None)
    plugin = plugins.load(kind, spelling, base)
    try:
        every = list(inspect.signature(plugin).parameters.values())
    except (TypeError, ValueError) as err:
        raise RequestError(
            f"{kind} {spelling!r}: got a {type(plugin).__name__}; accepted: a function; name one"
        ) from err
    named = [item for item in every if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
    given = GIVEN[kind]
    if len(named) < len(given) and not any(item.kind == item.VAR_POSITIONAL for item in every):
        text = f"it takes {inspect.signature(plugin)}; accepted: ({', '.join(given)}, ...); mend the plug-in"
        raise RequestError(f"{kind} {spelling!r}: {text}")
    own = [item for item in named[len(given) :] if item.name not in ON_REQUEST.get(kind, ())]
    return Wanted(
        {item.name: _hint(item.annotation, plugin) for item in own},
        {item.name: item.default for item in own if item.default is not item.empty},
        frozenset(item.name for item in own if item.default is item.empty),
        any(item.kind == item.VAR_KEYWORD for item in every),
    )


def on_request(kind: str, plugin: Callable[..., Any]) -> list[str]:
    """What a plug-in is passed by name because it has parameters of these names."""
    return [name for name in ON_REQUEST.get(kind, ()) if name in inspect.signature(plugin).parameters]


def _hint(annotation: Any, plugin: Callable[..., Any]) -> Any:
    """The type an annotation means; Any where it cannot be told, as names under TYPE_CHECKING cannot."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(plugin, "__globals__", {}))
        except Exception:
            return Any
    return Any if annotation is inspect.Parameter.empty else annotation


def misfits(path: KeyPath, use: Use, takes: Wanted) -> Iterator[Problem]:
    """Each parameter of `use` that is unknown, missing, or of another type than the plug-in takes."""
    fields = type(use).model_fields
    own = [name for name in takes.types if name not in fields]
    for name, value in use.params.items():
        if name not in takes.types and not takes.open:
            known = [*fields, *own]
            text = f"got an unknown key; accepted: {', '.join(known)}; {meant(name, known, 'remove it')}"
            yield Problem((*path, name), text)
        elif not _fits(value, hint := takes.types.get(name, Any)):
            remedy = f"write e.g. {name}: {_example(hint, takes.defaults.get(name))}"
            yield Problem((*path, name), told(value, _accepted(hint), remedy))
    for name in own:
        if name in takes.needed and name not in use.params:
            text = told(None, _accepted(takes.types[name]), f"add e.g. {name}: {_example(takes.types[name], None)}")
            yield Problem((*path, name), text, True)


def _fits(value: Any, hint: Any) -> bool:
    try:
        if hint is Path:
            hint = str  # as it is written
        TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        return False
    except PydanticUserError:
        return True  # a type of the plug-in's own: its own to check
    return True


def _accepted(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(show(item, quoted=False) for item in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_accepted(item) for item in get_args(hint))
    return WORDS.get(hint, (str(getattr(hint, "__name__", hint)), ""))[0] if isinstance(hint, type) else "a value"


def _example(hint: Any, default: Any) -> str:
    first = next((item for item in get_args(hint) if item is not type(None)), hint)
    if default is not None or get_origin(hint) is Literal:
        return show(first if default is None else default, quoted=False)
    return WORDS.get(first, ("", "..."))[1] if isinstance(first, type) else "..."
