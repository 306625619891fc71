"""The prebuilt BPF objects are those of their sources, and whose congestion control is used."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from fabric.endpoints import Provided, provided
from fabric.libbpf import objects
from fabric.links import Shape
from fabric.marking import Threshold

OBJECTS = ("mark.o", "mark_phantom.o", "dctcp.o", "queueing.o", "stamp.o", "release.o")
CLANG = shutil.which("clang") or shutil.which("clang-14")


def test_the_objects_are_in_the_package() -> None:
    """Beside their sources, with the compiler's version."""
    assert {path.name for path in objects().glob("*.o")} == set(OBJECTS)
    assert "clang" in (objects() / "BUILT_WITH").read_text()


@pytest.mark.skipif(CLANG is None, reason="no clang here; running fabriclab needs none")
def test_the_objects_are_those_of_their_sources(tmp_path: Path) -> None:
    """Built anew: the same bytes with the same compiler; with another one it builds at least."""
    done = subprocess.run([objects() / "build", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if (tmp_path / "BUILT_WITH").read_text() == (objects() / "BUILT_WITH").read_text():
        for name in OBJECTS:
            assert (tmp_path / name).read_bytes() == (objects() / name).read_bytes(), f"{name}: run fabric/bpf/build"


def test_the_kernels_own_goes_first() -> None:
    """Ours has another name, so that no socket can be mistaken."""
    assert provided("dctcp", ["reno", "dctcp"]) == Provided("dctcp", "dctcp", "kernel", needs_ecn=True)
    assert provided("dctcp", ["reno", "cubic"]) == Provided("dctcp", "bpf_dctcp", "bpf", needs_ecn=True)
    assert provided("vegas", ["reno", "cubic"]) == Provided("vegas", "vegas", "kernel")


def test_a_threshold_as_the_program_reads_it() -> None:
    """Rate in bytes a second, both thresholds, whether by the phantom queue, and where the true one drops."""
    shape = Shape(20, 1500, queue_packets=100)
    unpack = struct.Struct("=QIIII").unpack
    assert unpack(Threshold(10, 20).packed(shape, False)) == (2_500_000, 10, 20, 0, 151_400)
    assert unpack(Threshold(10, 20).packed(shape, True)) == (2_500_000, 10, 20, 1, 151_400)
    assert unpack(Threshold(10, 20, 0.95).packed(Shape(20, 1500, queue_bytes=9000), False)) == (2_375_000, 10, 20, 1, 9000)
