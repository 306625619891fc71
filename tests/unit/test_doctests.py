"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [file.relative_to(ROOT) for folder in ("controllers", "fabric", "topologies") for file in sorted((ROOT / folder).rglob("*.py"))]
MODULES = [".".join(file.with_suffix("").parts) for file in FILES if ">>>" in (ROOT / file).read_text() and "templates" not in file.parts]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    """Each module has examples, and each example gives what it says."""
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
