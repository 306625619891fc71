"""Our programs at the two hooks of an interface: where packets leave towards its queue, and where they come in from the wire.

Several programs may share a hook: each lets the next one see the packet, in the order of their priorities. The `number` that
a program is attached with is told to it with every packet, as the packet's class, which nothing else here uses.
"""

from __future__ import annotations

import errno
from typing import Any

__all__ = ["EGRESS", "INGRESS", "MOST_PORTS", "attach", "hooked"]

EGRESS, INGRESS = 0xFFFFFFF3, 0xFFFFFFF2  # TC_H_CLSACT | TC_H_MIN_EGRESS, TC_H_MIN_INGRESS
MOST_PORTS = 0xFFFF  # a class has 16 bits for the number


def hooked(netlink: Any, index: int) -> None:
    """Give an interface its hooks, where no other program of ours has done so already."""
    from pyroute2.netlink.exceptions import NetlinkError  # the sampler should start without it

    try:
        netlink.tc("add", "clsact", index)
    except NetlinkError as err:
        if err.code != errno.EEXIST:
            raise


def attach(netlink: Any, index: int, program: int, *, name: str, hook: int, number: int, priority: int) -> None:
    """Run a program, by its file descriptor, for every packet at one hook; the lowest priority comes first."""
    hooked(netlink, index)
    netlink.tc(
        "add-filter", "bpf", index, fd=program, name=name, parent=hook, classid=number, direct_action=True, prio=priority,
    )  # fmt: skip
