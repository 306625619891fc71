"""Whether a controller that moved nothing could have helped: what was installed, against a better placement.

Comes in: flows and the paths that were installed for them. Goes out: the paths that the exact policy would have chosen.
Pure: the policy is tried against the fluid model (`fabric.rehearsal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath

import numpy as np

from fabric.graph import Fabric, Port
from fabric.load import Flow
from fabric.paths import Path
from fabric.plugins import load_policy
from fabric.rehearsal import Rehearsal

__all__ = ["better_paths"]

_TICKS = 3  # the exact policy is done in one; a second and third show that it is


def better_paths(fabric: Fabric, flows: Sequence[Flow], installed: Sequence[Sequence[str]], mbps: float) -> list[list[str]]:
    """The paths, as names of interfaces, that the exact policy gives flows which were installed on others.

    `mbps` is the payload rate of a link of scale 1. Flows whose installed path is none of their shortest stay there.
    """
    rehearsal = Rehearsal(fabric, flows, np.random.default_rng(0), mbps=mbps)
    rehearsal.paths = [_ports(path) for path in installed]
    rehearsal.run(load_policy("exact", FilePath(), {}), _TICKS)
    return [[port.interface for port in path or ()] for path in rehearsal.paths]


def _ports(path: Sequence[str]) -> Path:
    split = (name.rpartition("-eth") for name in path)
    return tuple(Port(node, int(number)) for node, _, number in split)
