"""The kernel's own delay and loss: netem, on an intermediate device in front of a host's IP layer.

Comes in: a netlink socket in the host's namespace. Goes out: netem in force there, read back, and its counters. What arrives
at the host's interfaces is redirected to an ifb device, passes its netem, and goes on as if it had just come; all goes with the namespace.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.tcmsg.common import percent2u32, time2tick

from fabric.delay import Delay
from fabric.errors import RunError

__all__ = ["DEVICE", "attach", "counters", "load_device"]

DEVICE = "delay"
_HANDLE = 0x10000
_INGRESS = 0xFFFFFFF2  # TC_H_CLSACT | TC_H_MIN_INGRESS
_LAST = 1000  # priority: whoever looks at what comes in does so before
_ETH_P_ALL = 3
_MOST_WAITING = 1_000_000  # packets: what waits for its time must never be dropped
_ANY, _CLASS = ["0x0/0x0+0"], 0x10001  # every packet; pyroute2 wants a class, which redirecting never looks at
_EEXIST = 17


def load_device() -> None:
    """Load the ifb module, where it is one, before the kernel does: by itself it would make two devices that nobody asked for."""
    if not Path("/sys/module/ifb").exists():
        with contextlib.suppress(OSError):
            subprocess.run(["modprobe", "-q", "ifb", "numifbs=0"], capture_output=True, check=False)


def attach(netlink: Any, interfaces: Iterable[int], asked: Delay) -> None:
    """Delay, and lose, what arrives at these interfaces, by number; NetlinkError when the kernel lacks a part, RunError when it took something else."""
    netlink.link("add", ifname=DEVICE, kind="ifb")
    (device,) = netlink.link_lookup(ifname=DEVICE)
    netlink.tc("add", "netem", device, handle=_HANDLE, delay=round(asked.delay_ms * 1000), loss=100 * asked.loss, limit=_MOST_WAITING)
    netlink.link("set", index=device, state="up")
    if (got := _options(netlink, device)) != (wanted := _wanted(asked)):
        raise RunError(f"netem: asked for (delay, loss, limit) {wanted}, the kernel says {got}")
    for interface in interfaces:
        with contextlib.suppress(_Exists):
            _clsact(netlink, interface)
        netlink.tc(
            "add-filter", "u32", interface, parent=_INGRESS, prio=_LAST, protocol=_ETH_P_ALL, keys=_ANY, target=_CLASS,
            action={"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": device},
        )  # fmt: skip


class _Exists(Exception):
    """Somebody else needed the hook before."""


def _clsact(netlink: Any, interface: int) -> None:
    try:
        netlink.tc("add", "clsact", interface)
    except NetlinkError as err:
        if err.code == _EEXIST:
            raise _Exists from err
        raise


def counters(netlink: Any) -> dict[str, int]:
    """Packets that came to netem, of them those that it dropped, and those that wait in it."""
    qdisc = _netem(netlink, *netlink.link_lookup(ifname=DEVICE))
    stats = qdisc.get_attr("TCA_STATS2")
    basic, queue = stats.get_attr("TCA_STATS_BASIC"), stats.get_attr("TCA_STATS_QUEUE")
    came = basic["packets"] + queue["drops"] + queue["qlen"]  # the first counts what has left
    return {"packets": came, "lost": queue["drops"], "waiting": queue["qlen"]}


def _netem(netlink: Any, device: int) -> Any:
    return next(one for one in netlink.get_qdiscs(device) if one.get_attr("TCA_KIND") == "netem")


def _options(netlink: Any, device: int) -> tuple[int, int, int]:
    options = _netem(netlink, device).get_attr("TCA_OPTIONS")
    return options["delay"], options["loss"], options["limit"]


def _wanted(asked: Delay) -> tuple[int, int, int]:
    """As the kernel keeps it: ticks, a share of 2^32, packets."""
    return int(time2tick(round(asked.delay_ms * 1000))), percent2u32(100 * asked.loss), _MOST_WAITING
