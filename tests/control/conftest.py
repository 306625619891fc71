"""A fabric under control without root, as `fabric.unrooted` makes it: real Ryu, real Open vSwitch, no packets."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from fabric.unrooted import ControlledFabric, controlled_fabric, wait_for

Starting = Callable[..., AbstractContextManager[ControlledFabric]]


@pytest.fixture(autouse=True, scope="session")
def _needs_switch_and_controller() -> None:
    """Open vSwitch's programs and Ryu, but no root."""
    missing = [name for name in ("ovs-vswitchd", "ovsdb-server") if shutil.which(name) is None]
    missing += [] if importlib.util.find_spec("ryu") else ["ryu"]
    if missing:
        reason = f"needs {', '.join(missing)}: run .ci/provision"
        (pytest.fail if os.environ.get("FABRIC_REQUIRE") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Starting:
    """`with start(fabric, app) as running:` — a controlled fabric in a folder of its own."""
    return lambda *args, **options: controlled_fabric(tmp_path_factory.mktemp("run"), *args, **options)


@pytest.fixture(scope="session")
def wait() -> Callable[[Callable[[], object], str], None]:
    """`wait(condition, "what")` with a deadline."""
    return wait_for
