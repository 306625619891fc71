"""Waits until the hypervisor leaves this machine's processors alone, if asked to.

What a virtual machine's neighbours take falsifies timings, and the verdict says so afterwards. They often take it for
minutes at a time, so that waiting before a point costs less than measuring it for nothing. Whether to wait rests on the
machine alone, never on a result.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from fabric.fidelity import LIMITS
from fabric.sampler import cpu_shares, machine_ticks

__all__ = ["Waited", "stolen", "wait_until_quiet"]

QUIET = next(limit.warn for limit in LIMITS if limit.evidence == "steal")
_LOOK_S = 0.5
_PAUSE_S = 2.0
_BURN = f"import time\nend = time.monotonic() + {_LOOK_S}\nwhile time.monotonic() < end: pass"


@dataclass(frozen=True, slots=True)
class Waited:
    """How long a point was held back, in seconds, and the share of the processors (0..1) that was stolen at the end."""

    seconds: float
    stolen: float


def stolen() -> float:
    """The share of all processors that the hypervisor withholds from one busy process a processor, over half a second.

    An idle machine is robbed of nothing, whatever its neighbours do: so the processors must be asked for.
    """
    before = machine_ticks()
    burning = [subprocess.Popen([sys.executable, "-S", "-c", _BURN]) for _ in os.sched_getaffinity(0)]
    for process in burning:
        process.wait()
    return cpu_shares(before, machine_ticks())[1]


def wait_until_quiet(
    patience_s: float, told: Callable[[float], None] = lambda _: None, look: Callable[[], float] = stolen,
    pause: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic,
) -> Waited:  # fmt: skip
    """Look, and wait while more than the verdict's limit for a warning is stolen, at most `patience_s` seconds.

    `told` hears of each look that found too much.
    """
    begin = clock()
    while (taken := look()) > QUIET and clock() - begin < patience_s:
        told(taken)
        pause(_PAUSE_S)
    return Waited(round(clock() - begin, 3), taken)
