"""Programs of ours at the hooks where packets enter and leave an interface (clsact).

The kernel's switch needs one: what it says of itself in bpf/release.bpf.c. Userspace copies packets, and so needs none.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import cache
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from fabric.errors import MachineError
from fabric.libbpf import BpfObject, objects

__all__ = ["EGRESS", "INGRESS", "attach", "can_release", "release_senders"]

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_CLSACT | TC_H_MIN_INGRESS, TC_H_MIN_EGRESS
_RELEASE = "release"


def attach(netlink: Any, index: int, program: int, name: str, hook: int) -> None:
    """Run a program, by its descriptor, on every packet at a hook of an interface, from now on; it stays as long as that."""
    try:
        netlink.tc("add", "clsact", index)
    except NetlinkError as err:  # another program of ours came first
        if err.code != errno.EEXIST:
            raise
    netlink.tc("add-filter", "bpf", index, ":1", fd=program, name=name, parent=hook, classid=1, direct_action=True)


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
            attach(netlink, index, program.program(_RELEASE), _RELEASE, INGRESS)
