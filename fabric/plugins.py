"""Finds a plug-in by the way it is spelt, built-ins by the same door as anyone's own.

    adaptive            no dot, slash or colon: an entry point of the kind's group
    tcp:HOST:PORT       of a controller: somebody else's process that listens there
    pkg.module:attr     an import path
    ./file.py[:attr]    a file, relative to the experiment file
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fabric.errors import RequestError
from fabric.external import PREFIX, Address, address_of
from fabric.graph import Fabric
from fabric.policy import Policy

__all__ = ["KINDS", "Source", "controller_parameters", "defines", "find", "load", "load_policy", "load_topology", "names", "rooted"]

KINDS = {
    "topology": "fabriclab.topologies",
    "controller": "fabriclab.controllers",
    "collective": "fabriclab.collectives",
    "load": "fabriclab.loads",
    "policy": "fabriclab.policies",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plug-in's code is: a module's import path or a file's, and the attribute, '' when it is to be found.

    A controller that runs already has no code here, but an `external` address.
    """

    module: str
    attr: str = ""
    external: Address | None = None

    @property
    def is_file(self) -> bool:
        """Whether `module` is a file's path."""
        return self.module.endswith(".py")


def names(kind: str) -> list[str]:
    """The names that entry points offer for a kind, sorted."""
    return sorted(_installed(kind))


def find(kind: str, spelling: str, base: Path) -> Source:
    """Where the plug-in is, without importing it; RequestError when there is none.

    `base` is the folder that relative files start from.
    """
    if kind == "controller" and spelling.startswith(PREFIX):
        return Source("", external=address_of(spelling))
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
    fits = _decides if kind == "policy" else inspect.isfunction
    own: list[Callable[..., Any]] = [value for name, value in vars(module).items() if fits(value) and _is_public(module, name, value)]
    if len(own) != 1:
        raise RequestError(f"{kind} {spelling!r}: the module defines {_offers(module)}; say which one, as {spelling}:NAME")
    return own[0]


def load_policy(spelling: str, base: Path, options: Mapping[str, Any]) -> Policy:
    """A policy, made with its options; RequestError when it does not take them, or cannot decide."""
    make = load("policy", spelling, base)
    if not _decides(make):
        raise RequestError(f"policy {spelling!r}: got no class with decide(view); accepted: one; add the method, or name the class")
    takes = list(inspect.signature(make).parameters)
    if strange := sorted(options.keys() - set(takes)):
        raise RequestError(f"policy {spelling!r}: got the option {strange[0]!r}; accepted: {', '.join(takes) or 'none'}; remove it")
    try:
        policy: Policy = make(**options)
    except (TypeError, ValueError) as err:
        raise RequestError(f"policy {spelling!r}: got the options {dict(options)}: {err}; accepted: {inspect.signature(make)}; mend them") from err
    return policy


def load_topology(spelling: str, base: Path, parameters: Mapping[str, Any]) -> Fabric:
    """The fabric that a topology makes of its parameters, files among them from `base`; RequestError when it is none, or refuses them."""
    make = load("topology", spelling, base)
    files = {item.name for item in inspect.signature(make).parameters.values() if item.annotation in (Path, "Path")}
    found = make(**{name: (base / value).resolve() if name in files else value for name, value in parameters.items()})
    if not isinstance(found, Fabric):
        raise RequestError(f"got a {type(found).__name__} from {spelling}; accepted: a Fabric; return build.fabric()")
    for host in found.hosts:
        if (count := len(found.ports_of[host.name])) != len(host.nics):
            raise RequestError(f"topology {found.topology}: host {host.name} has {count} links; give it one, as it has one address")
    return found


def rooted(parameters: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A controller's parameters with a policy's file by its whole path, as the controller's folder is elsewhere."""
    policy = parameters.get("policy")
    if not isinstance(policy, str) or not ("/" in policy or ".py" in policy):
        return dict(parameters)
    return {**parameters, "policy": str((base / policy).resolve())}


def controller_parameters(source: Source) -> dict[str, Any] | None:
    """The parameters of a controller and their defaults, read without running any of it; None when any may be given.

    They are the literal class attribute PARAMETERS. A FabricApp without one takes none; a plain Ryu app, whose
    parameters are its own affair, any. RequestError when the module has no app, or more than the one Ryu would run.
    """
    if source.external:
        return {}  # its own affair, and told to nobody here
    file = Path(source.module) if source.is_file else _file_of(source.module)
    tree = _parsed(file)
    apps = _apps(tree)
    if len(apps) != 1:
        places = ", ".join(f"{node.name} (line {node.lineno})" for node in apps) or "none"
        remedy = "move the others to files of their own; Ryu runs only the first by alphabet" if apps else "derive one"
        line = apps[1].lineno if apps else 1
        text = f"got the app classes {places}; accepted: one class of RyuApp or FabricApp; {remedy}"
        raise RequestError(f"{file}:{line}: {text}")
    app = apps[0]
    if source.attr not in ("", app.name):
        raise RequestError(
            f"{file}:{app.lineno}: got the app class {app.name}; accepted: {source.attr}, as asked; write :{app.name}"
        )
    declared = _declared(file, app)
    return {} if declared is None and any(base.endswith("FabricApp") for base in _bases(app)) else declared


def defines(source: Source, method: str) -> bool:
    """Whether a controller's app class has a method by this name, its own or a built-in's, read without running any of it."""
    if source.external:
        return False
    file = Path(source.module) if source.is_file else _file_of(source.module)
    tree = _parsed(file)
    bodies = [node for app in _apps(tree) for node in app.body]
    own = any(isinstance(node, ast.FunctionDef) and node.name == method for node in bodies)
    return own or any(base in _built_in(tree) for app in _apps(tree) for base in _bases(app))


def _file_of(module: str) -> Path:
    """A module's file by its import path; not even its packages are imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
        for depth, _ in enumerate(rest, 2):
            search = spec.submodule_search_locations if spec else None
            spec = PathFinder.find_spec(".".join([top, *rest][:depth]), search) if search else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not (spec.origin or "").endswith(".py"):
        text = "got no Python module of this name; accepted: one that is installed, or ./file.py; check the name"
        raise RequestError(f"controller {module!r}: {text}")
    return Path(str(spec.origin))


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except OSError as err:
        raise RequestError(f"{file}: cannot be read: {err.strerror}; accepted: a Python file; check the path") from err
    except (SyntaxError, ValueError) as err:  # ValueError: null bytes, up to Python 3.11
        what, line = getattr(err, "msg", str(err)), getattr(err, "lineno", None) or 1
        raise RequestError(f"{file}:{line}: got a syntax error, {what}; accepted: Python; mend the file") from err


def _apps(tree: ast.Module) -> list[ast.ClassDef]:
    """The classes Ryu would take for apps, in file order: of RyuApp, FabricApp or a built-in one, and what derives from them."""
    apps: dict[str, ast.ClassDef] = {}
    ours = _built_in(tree)
    for node in _classes(tree.body):
        if any(base.endswith(("RyuApp", "FabricApp")) or base in apps or base in ours for base in _bases(node)):
            apps[node.name] = node
    return list(apps.values())


def _built_in(tree: ast.Module) -> set[str]:
    """The names that a file imports from the built-in controllers."""
    imports = (node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("controllers."))
    return {name.asname or name.name for node in imports for name in node.names}


def _classes(body: list[ast.stmt]) -> Iterator[ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node
        elif isinstance(node, (ast.If, ast.Try)):  # at the module's level still
            inner = [*node.body, *node.orelse, *getattr(node, "finalbody", ())]
            yield from _classes([*inner, *(line for handler in getattr(node, "handlers", ()) for line in handler.body)])


def _bases(node: ast.ClassDef) -> list[str]:
    dotted = [base.attr if isinstance(base, ast.Attribute) else base for base in node.bases]
    return [base.id if isinstance(base, ast.Name) else base for base in dotted if isinstance(base, (str, ast.Name))]


def _declared(file: Path, app: ast.ClassDef) -> dict[str, Any] | None:
    for node in app.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if not any(isinstance(target, ast.Name) and target.id == "PARAMETERS" for target in targets):
            continue
        try:
            found = ast.literal_eval(node.value)
        except (ValueError, TypeError):
            found = None
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            text = f"got {app.name}.PARAMETERS that is not literal; accepted: a dict of names and defaults"
            raise RequestError(f'{file}:{node.lineno}: {text}; write e.g. PARAMETERS = {{"margin": 0.1}}')
        return found
    return None


def _entry_point(kind: str, name: str) -> Source:
    points = _installed(kind)
    if name not in points:
        raise RequestError(
            f"no {kind} is called {name!r}; accepted: {', '.join(sorted(points))}, pkg.module:attr, or ./file.py[:attr]"
        )
    return Source(points[name].module, points[name].attr)


@cache
def _installed(kind: str) -> Mapping[str, EntryPoint]:
    """By name; read once, as every point of an experiment asks for each of its plug-ins, and the answer is a search of all packages."""
    return {point.name: point for point in entry_points(group=KINDS[kind])}


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


def _decides(value: Any) -> bool:
    return inspect.isclass(value) and callable(getattr(value, "decide", None))


def _is_public(module: ModuleType, name: str, value: Any) -> bool:
    return not name.startswith("_") and value.__module__ == module.__name__


def _offers(module: ModuleType) -> str:
    found = [name for name, value in vars(module).items() if callable(value) and _is_public(module, name, value)]
    return ", ".join(found) or "nothing public that can be called"
