"""What the doctor finds by trying, against direct trials by `tc`, on a machine with root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fabric.doctor import EXTRAS, examine

pytestmark = pytest.mark.emulation


def tc_can(*words: str) -> bool:
    """Whether `tc qdisc add` succeeds on the loopback of a namespace that ends with the command."""
    command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", *words]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_findings_agree_with_tc(tmp_path: Path) -> None:
    """Each queueing discipline is found exactly where `tc` can add it."""
    found = {finding.name: finding.ok for finding in examine(tmp_path)}
    assert found["network namespaces"]
    assert found["qdisc htb+pfifo"] == (tc_can("htb", "default", "1") and tc_can("pfifo", "limit", "50"))
    assert found["qdisc htb+bfifo"] == (tc_can("htb", "default", "1") and tc_can("bfifo", "limit", "75700"))
    for name, (options, _) in EXTRAS.items():
        assert found[f"qdisc {name}"] == tc_can(name, *options.split()), name


def test_examining_leaves_nothing_behind(tmp_path: Path) -> None:
    """Interfaces, queueing disciplines and sysctls of TCP are afterwards what they were, and no child is left."""
    state = "ip -o link | grep -v @; tc qdisc show dev lo; cat /proc/sys/net/ipv4/tcp_congestion_control"
    before = subprocess.run(["sh", "-c", state], capture_output=True, check=False).stdout
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    running = children.read_text()
    examine(tmp_path)
    assert subprocess.run(["sh", "-c", state], capture_output=True, check=False).stdout == before
    assert children.read_text() == running
    assert list(tmp_path.iterdir()) == []
