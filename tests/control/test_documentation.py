"""The controllers that the documentation shows really run, as they are printed there."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from fabric.errors import RequestError
from fabric.plugins import controller_parameters, find
from topologies.fat_tree import fat_tree

ROOT = Path(__file__).parents[2]


def first_python(document: str) -> str:
    """The first Python block of a Markdown file."""
    block = re.search(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert block is not None, f"{document} has no Python block"
    return block[1]


@pytest.mark.parametrize("document", ["README.md", "controllers/README.md"])
def test_the_controller_of_ten_lines_reaches_every_pair(document: str, tmp_path: Path, start: Any) -> None:
    """On a fat-tree, by shortest paths, without a loop."""
    file = tmp_path / "lowest_port.py"
    file.write_text(first_python(document))
    fabric = fat_tree(2)
    with start(fabric, str(file)) as running:
        for a, b in permutations([host.name for host in fabric.hosts], 2):
            assert running.route(a, b) is not None, (a, b)


def test_it_takes_no_parameters_that_it_did_not_declare(tmp_path: Path) -> None:
    """A FabricApp without PARAMETERS has none, so a key beside `use` is refused before anything starts."""
    (tmp_path / "lowest_port.py").write_text(first_python("README.md"))
    assert controller_parameters(find("controller", "./lowest_port.py", tmp_path)) == {}
    with pytest.raises(RequestError):
        find("controller", "./another.py", tmp_path)
