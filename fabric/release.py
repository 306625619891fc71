"""What the kernel's switch needs of us: packets come off their senders' accounts where they leave the host.

Why, says bpf/release.bpf.c. Userspace copies packets, and so needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from fabric.errors import MachineError
from fabric.hooks import INGRESS, attach
from fabric.libbpf import BpfObject, objects

__all__ = ["can_release", "release_senders"]

_RELEASE = "release"
_PRIORITY = 9  # after whatever looks at packets there


@cache
def can_release() -> bool:
    """Whether this kernel takes the program that `release_senders` attaches."""
    try:
        BpfObject(objects() / f"{_RELEASE}.o").close()
    except MachineError:
        return False
    return True


def release_senders(netlink: Any, indexes: Iterable[int]) -> None:
    """Take packets that enter these interfaces off their senders' accounts; MachineError when the kernel refuses."""
    with BpfObject(objects() / f"{_RELEASE}.o") as program:
        for index in indexes:
            attach(netlink, index, program.program(_RELEASE), name=_RELEASE, hook=INGRESS, number=1, priority=_PRIORITY)
