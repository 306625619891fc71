"""Plug-ins are found by their spelling, and controllers are read without being run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fabric import plugins
from fabric.errors import RequestError
from fabric.plugins import Source, controller_parameters


def source(folder: Path, text: str, attr: str = "") -> Source:
    """A controller file with this text."""
    (folder / "app.py").write_text(text)
    return Source(str(folder / "app.py"), attr)


def test_a_bare_name_is_an_entry_point(tmp_path: Path) -> None:
    """Built-ins come through the same door as anyone's own."""
    assert plugins.find("topology", "fat-tree", tmp_path) == Source("topologies.fat_tree", "fat_tree")
    assert plugins.load("topology", "fat-tree", tmp_path)(2).topology == "fat-tree"


def test_an_import_path_and_a_file_are_told_apart(tmp_path: Path) -> None:
    """A file starts from the experiment's folder; a module from Python's path."""
    (tmp_path / "mine.py").write_text("def mine(): return 5\n")
    assert plugins.find("topology", "pkg.mod:attr", tmp_path) == Source("pkg.mod", "attr")
    found = plugins.find("topology", "./mine.py:mine", tmp_path)
    assert found == Source(str((tmp_path / "mine.py").resolve()), "mine")
    assert found.is_file and plugins.load("topology", "./mine.py", tmp_path)() == 5


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("no-such", "no topology is called 'no-such'; accepted: custom, dual-plane, dumbbell, fat-tree"),
        ("./none.py", "no file .*none.py; a file is looked up from the experiment's folder"),
        ("./two.py", "the module defines one, two; say which one, as ./two.py:NAME"),
        ("./two.py:three", "has no 'three'; it has one, two"),
        ("./bad.py", "cannot be imported: SyntaxError: .*; mend .*bad.py"),
    ],
)
def test_a_plug_in_that_cannot_be_had_is_named(spelling: str, message: str, tmp_path: Path) -> None:
    """The error says which plug-in and what there is instead."""
    (tmp_path / "two.py").write_text("def one(): ...\ndef two(): ...\n")
    (tmp_path / "bad.py").write_text("def one(:\n")
    with pytest.raises(RequestError, match=message):
        plugins.load("topology", spelling, tmp_path)


@pytest.mark.parametrize("name", plugins.names("controller"))
def test_every_shipped_controller_can_be_read(name: str, tmp_path: Path) -> None:
    """It has one app class, the one its entry point names, and literal PARAMETERS."""
    assert isinstance(controller_parameters(plugins.find("controller", name, tmp_path)), dict)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("class A(FabricApp): pass", {}),
        ("class A(fabric.app.FabricApp):\n    PARAMETERS = {'margin': 0.1, 'policy': 'least-loaded'}",
         {"margin": 0.1, "policy": "least-loaded"}),
        ("class A(FabricApp):\n    PARAMETERS: ClassVar[dict[str, int]] = {'a': -1}", {"a": -1}),
        ("class A(app_manager.RyuApp): pass", None),
        ("class A(RyuApp):\n    PARAMETERS = {'a': None}", {"a": None}),
        ("try:\n    import x\nexcept ImportError:\n    pass\nelse:\n    class A(RyuApp): pass", None),
        ("class Table: pass\nclass A(RyuApp):\n    class Inner(RyuApp): pass", None),
    ],
)  # fmt: skip
def test_parameters_are_the_literal_of_the_app(
    text: str, parameters: dict[str, object] | None, tmp_path: Path
) -> None:
    """A FabricApp without PARAMETERS takes none, a plain Ryu app any; other classes and inner ones do not count."""
    assert controller_parameters(source(tmp_path, text)) == parameters


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "app.py:1: got the app classes none; accepted: one class of RyuApp or FabricApp; derive one"),
        ("class B(RyuApp): pass\nclass A(FabricApp): pass",
         "app.py:2: got the app classes B (line 1), A (line 2); accepted: one class of RyuApp or FabricApp; "
         "move the others to files of their own; Ryu runs only the first by alphabet"),
        ("class Base(RyuApp): pass\n\nclass App(Base): pass",
         "app.py:3: got the app classes Base (line 1), App (line 3); accepted: one class of RyuApp or FabricApp; "
         "move the others to files of their own; Ryu runs only the first by alphabet"),
        ("import os\nclass A(RyuApp)\n", "app.py:2: got a syntax error, expected ':'; accepted: Python; mend the file"),
        ("class A(FabricApp):\n    PARAMETERS = dict(a=1)",
         "app.py:2: got A.PARAMETERS that is not literal; accepted: a dict of names and defaults; "
         'write e.g. PARAMETERS = {"margin": 0.1}'),
        ("class A(FabricApp):\n    PARAMETERS = {1: 2}",
         "app.py:2: got A.PARAMETERS that is not literal; accepted: a dict of names and defaults; "
         'write e.g. PARAMETERS = {"margin": 0.1}'),
    ],
)  # fmt: skip
def test_a_controller_that_ryu_would_not_run_as_meant_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """File, line, what was found, what is accepted, what to do."""
    with pytest.raises(RequestError) as caught:
        controller_parameters(source(tmp_path, text))
    assert str(caught.value) == f"{tmp_path}/{message}"


def test_the_class_that_was_asked_for_must_be_the_app(tmp_path: Path) -> None:
    """Ryu takes no class name: `./app.py:Other` would silently run another class."""
    with pytest.raises(RequestError, match="got the app class A; accepted: Other, as asked; write :A"):
        controller_parameters(source(tmp_path, "class A(RyuApp): pass\nclass Other: pass", "Other"))


def test_reading_a_controller_runs_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the module nor the packages it lies in: each would write a file."""
    trace = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    for file in ("outer/__init__.py", "outer/inner/__init__.py", "outer/inner/app.py"):
        (tmp_path / file).write_text(trace)
    (tmp_path / "outer/inner/app.py").write_text(f"{trace}class A(RyuApp):\n    PARAMETERS = {{'a': 1}}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert controller_parameters(Source("outer.inner.app")) == {"a": 1}
    assert not (tmp_path / "ran").exists()
    assert "outer" not in sys.modules


@pytest.mark.parametrize("module", ["no_such_package.app", "controllers.no_such", "sys", "json.decoder.deeper", "a..b"])
def test_a_module_without_a_python_file_is_refused(module: str) -> None:
    """Unknown, built into Python, or below something that is no package."""
    with pytest.raises(RequestError, match="got no Python module of this name; accepted: one that is installed"):
        controller_parameters(Source(module))


def test_a_controller_may_derive_from_a_built_in_one(tmp_path: Path) -> None:
    """It is an app, may be given any parameter, and has the methods that it inherits."""
    mine = source(tmp_path, "from controllers.adaptive import Adaptive\n\nclass Mine(Adaptive):\n    pass\n")
    assert controller_parameters(mine) is None
    assert plugins.defines(mine, "on_hint")


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("class App(FabricApp):\n    def on_hint(self, flows, placed): pass\n", True),
        ("class App(FabricApp):\n    def on_sample(self, view): pass\n", False),
        ("def on_hint(): pass\n\nclass App(FabricApp):\n    pass\n", False),
    ],
)
def test_whether_a_controller_takes_hints_is_read_from_its_class(text: str, has: bool, tmp_path: Path) -> None:
    """By the method that takes them."""
    assert plugins.defines(source(tmp_path, text), "on_hint") is has


POLICY = """
from fabric.policy import Reroute

class Mine:
    def __init__(self, limit: float = 0.5):
        if not limit > 0:
            raise ValueError(f"limit: got {limit}; accepted: above 0")
        self.limit = limit

    def decide(self, view):
        return []
"""


def test_a_policy_is_the_one_class_that_decides(tmp_path: Path) -> None:
    """A file needs no name after it; what it imports does not count; its options reach it."""
    (tmp_path / "mine.py").write_text(POLICY)
    assert plugins.load_policy("./mine.py", tmp_path, {}).limit == 0.5  # type: ignore[attr-defined]
    assert plugins.load_policy("./mine.py:Mine", tmp_path, {"limit": 2}).limit == 2  # type: ignore[attr-defined]
    assert plugins.load_policy("exact", tmp_path, {"margin": 0.2}).margin == 0.2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (POLICY, {"limt": 1}, "got the option 'limt'; accepted: limit; remove it"),
        (POLICY, {"limit": 0}, "got the options {'limit': 0}: limit: got 0; accepted: above 0"),
        (POLICY, {"limit": "a"}, "got the options {'limit': 'a'}: '>' not supported"),
        ("def decide(view): return []\n", {}, "say which one"),
        ("class A:\n    pass\n", {}, "say which one"),
        (POLICY + POLICY.replace("Mine", "Other"), {}, "the module defines Mine, Other; say which one"),
        ("1 / 0\n", {}, "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_policy_that_cannot_be_made_is_named(text: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    """With what is wrong."""
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(RequestError) as caught:
        plugins.load_policy("./mine.py", tmp_path, options)
    assert message in str(caught.value)


def test_a_class_that_does_not_decide_is_no_policy(tmp_path: Path) -> None:
    """Even when it is named."""
    (tmp_path / "mine.py").write_text("class A:\n    pass\n")
    with pytest.raises(RequestError, match=r"no class with decide\(view\)"):
        plugins.load_policy("./mine.py:A", tmp_path, {})


def test_a_policys_file_is_found_from_the_experiments_folder(tmp_path: Path) -> None:
    """Its controller runs elsewhere; names and import paths stay as they are."""
    assert plugins.rooted({"policy": "./mine.py", "hold_ms": 3}, tmp_path) == {"policy": str(tmp_path / "mine.py"), "hold_ms": 3}
    assert plugins.rooted({"policy": "./mine.py:Mine"}, tmp_path) == {"policy": f"{tmp_path / 'mine.py'}:Mine"}
    for spelling in ("exact", "pkg.mod:Mine"):
        assert plugins.rooted({"policy": spelling}, tmp_path) == {"policy": spelling}
    assert plugins.rooted({}, tmp_path) == {}
