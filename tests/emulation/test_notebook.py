"""The example from Python does what it says, from its first cell to its last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "notebook.py"


def test_the_notebook_runs(state: Any, tmp_path: Path) -> None:
    """It prints rows, means, a comparison and a figure that is there; nothing is left of the network."""
    before = state()
    done = subprocess.run([sys.executable, str(NOTEBOOK)], cwd=NOTEBOOK.parents[1], capture_output=True, text=True, timeout=280, check=False, env={"TMPDIR": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert done.returncode == 0, done.stderr
    assert "['ecmp, no load', 'adaptive, no load']" in done.stdout and "adaptive over ecmp" in done.stdout
    figures = [Path(word) for word in done.stdout.split() if word.endswith("latency.png")]
    assert len(figures) == 1 and figures[0].stat().st_size > 10_000
    assert state() == before
