"""What a machine may have in store: a full or read-only disk, names and ports that are taken, an Open vSwitch that does not start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

pytestmark = pytest.mark.emulation

FILE = """
question: What if the machine is against it?
topology: {use: single-switch, hosts: 2}
links: {mbps: 10}
controller: {use: two-level}
collective: {use: ring-allreduce, nbytes: 4KiB, iterations: 1000, warmup: 0}
telemetry: {period_ms: 5, steps: true}
"""
SHORT = FILE.replace("iterations: 1000", "iterations: 20")
COMMAND = (sys.executable, "-c", "from fabric.cli import main; main()")


def run_on(mount: str, fabriclab: Any, text: str) -> subprocess.CompletedProcess[str]:
    """Run an experiment into a file system that only this command sees."""
    out = fabriclab.folder / "out"
    out.mkdir(exist_ok=True)
    script = f'mount -t tmpfs {mount} tmpfs "$0" && exec "$@"'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(out), *COMMAND, "run", str(fabriclab.file(text)), "--out", str(out)]
    until = time.monotonic() + 200
    while True:
        done = subprocess.run(words, cwd=fabriclab.folder, capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "COLUMNS": "200"})
        if "another run is using this machine" not in done.stderr or time.monotonic() > until:
            return done
        time.sleep(1)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that the command says of what went wrong."""
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fabriclab:")]
    return line


@pytest.mark.parametrize("kib", [8, 120, 400])
def test_a_full_disk_is_named(state: Any, fabriclab: Any, kib: int) -> None:
    """Whether it is full at the begin, during the first point, or later; whoever notices first. Nothing is left behind."""
    before = state()
    done = run_on(f"-o size={kib}k", fabriclab, FILE)
    assert done.returncode in (3, 4), done.stderr
    assert "No space left on device" in said(done) and "make room, or name another place by --out" in said(done)
    assert state() == before


def test_a_read_only_folder_is_refused_before_anything_starts(state: Any, fabriclab: Any) -> None:
    """With the remedy."""
    before = state()
    done = run_on("-o ro", fabriclab, FILE)
    assert done.returncode == 3 and "cannot be made: Read-only file system; give a writable folder by --out" in said(done)
    assert state() == before


def test_names_and_ports_that_are_taken_are_no_matter(state: Any, fabriclab: Any) -> None:
    """A run has namespaces of its own: an interface called like one of its, and a listener on its controller's port, stay as they are."""
    with IPRoute() as netlink, socket.create_server(("127.0.0.1", 6653)) as listener:
        netlink.link("add", ifname="s0-eth1", kind="bridge")
        try:
            before = state()
            done, _ = fabriclab.run(SHORT)
            assert done.returncode == 0 and netlink.link_lookup(ifname="s0-eth1") and listener.getsockname()[1] == 6653
            assert state() == before
        finally:
            netlink.link("del", ifname="s0-eth1")


def test_an_open_vswitch_that_does_not_start_is_named(state: Any, fabriclab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own last words."""
    fake = tmp_path / "ovs-vswitchd"
    fake.write_text("#!/bin/sh\necho 'no hugepages today' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = state()
    done = fabriclab.alone("run", str(fabriclab.file(SHORT)), "--out", str(fabriclab.folder / "out"))
    assert done.returncode == 4 and "ovs-vswitchd did not open its control socket" in said(done) and "no hugepages today" in said(done)
    assert state() == before
