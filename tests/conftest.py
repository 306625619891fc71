"""What all floors share: emulation tests run last, sanity first among them, and only where the machine can.

Where it cannot they are skipped with the reason; FABRIC_REQUIRE=emulation turns such a skip into a failure. When the
sanity test fails, every other emulation test fails at once and points at it: there is one cause, and one place to look.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

# A machine that stands still for a moment is no defect of what is tested.
settings.register_profile("fabriclab", deadline=None)
settings.load_profile("fabriclab")

SANITY = "test_sanity.py"
FAILED = pytest.StashKey[str]()


def cannot() -> str | None:
    """Why this machine cannot emulate; None when it can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces and interfaces are made"
    if shutil.which("ovs-vswitchd") is None:
        return "needs ovs-vswitchd: run .ci/provision (package openvswitch-switch)"
    if importlib.util.find_spec("mininet") is None:
        return "needs mininet: run .ci/provision, and make the venv with --system-site-packages"
    return None


def is_emulation(item: pytest.Item) -> bool:
    """Whether a test carries the marker."""
    return item.get_closest_marker("emulation") is not None


def is_sanity(item: pytest.Item) -> bool:
    """Whether all other emulation tests depend on this one."""
    return is_emulation(item) and item.path.name == SANITY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The floors that need no root first, then sanity, then the rest; the order within each stays."""
    items.sort(key=lambda item: (is_emulation(item), is_emulation(item) and not is_sanity(item)))


@pytest.hookimpl(tryfirst=True)  # before any fixture touches the machine
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail an emulation test that cannot say anything."""
    if not is_emulation(item):
        return
    if reason := cannot():
        (pytest.fail if os.environ.get("FABRIC_REQUIRE") == "emulation" else pytest.skip)(reason)
    if FAILED in item.config.stash and not is_sanity(item):
        pytest.fail(f"sanity failed, see {item.config.stash[FAILED]}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Remember a sanity test that failed, in whichever of its phases."""
    report = yield
    if report.failed and is_sanity(item):
        item.config.stash.setdefault(FAILED, item.nodeid)
    return report
