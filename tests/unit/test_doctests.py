"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "fabric.collectives.ring_allreduce",
    "fabric.graph",
    "fabric.ideal",
    "fabric.load",
    "fabric.misnamed",
    "fabric.sampler",
    "fabric.transports",
    "topologies.fat_tree",
    "topologies.single_switch",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    """Each module has examples, and each example gives what it says."""
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
