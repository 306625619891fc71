"""The kernel's RED as a marker by the queue as it is now: what is asked of it, in bytes on the wire, and what it says it does.

Marks all that can be marked above a threshold, drops nothing, and sits above the FIFO that is the queue, whose limit stays what it was.
RED's average is given no memory at all: the queue that a packet finds decides. pyroute2 does not know RED; it learns it here.
Sources: linux/pkt_sched.h (struct tc_red_qopt, TCA_RED_*), include/net/red.h and net/sched/sch_red.c for what becomes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.tcmsg import plugins
from pyroute2.netlink.rtnl.tcmsg.common import stats2 as common_stats2

__all__ = ["Red", "RedCounts", "counts_of", "red_of"]

_ECN, _NODROP = 1, 8  # TC_RED_ECN, TC_RED_NODROP (Linux 5.7)
_EVERY_FLAG = 15
_CERTAIN = 0xFFFFFFFF  # TCA_RED_MAX_P: the probability at the upper threshold, in units of 2^-32
# What is left of the average after a pause, as a shift by length of the pause: nothing, since nothing waits then.
_FORGET = bytes([31]) * 256


@dataclass(frozen=True, slots=True)
class Red:
    """Between how many bytes of backlog RED begins to mark and is certain to; equal ones are a step."""

    min_bytes: int
    max_bytes: int

    def arguments(self) -> dict[str, Any]:
        """For pyroute2's `tc`. RED marks *at* its thresholds, and we above ours: hence one byte more.

        A limit of 0 makes no FIFO: ours is put below. Were it given, every change would make a new one, and drop what waits.
        """
        return {"limit": 0, "qth_min": self.min_bytes + 1, "qth_max": self.max_bytes + 1, "Wlog": 0, "Plog": 0, "Scell_log": 0, "flags": 0}


@dataclass(frozen=True, slots=True)
class RedCounts:
    """What RED counted: packets and bytes that left, those that came over the threshold (`over`), and of them the `marked`."""

    packets: int
    bytes: int
    over: int
    marked: int


def red_of(qdisc: Any) -> Red | None:
    """The thresholds of a RED, from the kernel's answer; None when it is not one of ours: it averages, drops, or marks too few."""
    options = qdisc.get_attr("TCA_OPTIONS")
    parms: Mapping[str, Any] = options.get_attr("TCA_RED_PARMS")
    flags = options.get_attr("TCA_RED_FLAGS")
    ours = parms["limit"] == parms["Wlog"] == 0 and options.get_attr("TCA_RED_MAX_P") == _CERTAIN
    if not ours or flags is None or flags["bits"] != _ECN | _NODROP:
        return None
    return Red(parms["qth_min"] - 1, parms["qth_max"] - 1)


def counts_of(qdisc: Any) -> RedCounts:
    """What a RED counted so far, from the kernel's answer."""
    stats = qdisc.get_attr("TCA_STATS2")
    basic, queue, own = (stats.get_attr(f"TCA_STATS_{name}") for name in ("BASIC", "QUEUE", "APP"))
    return RedCounts(basic["packets"], basic["bytes"], queue["overlimits"], own["marked"])


class _Plugin:
    """What pyroute2 asks of a queueing discipline; it finds the classes by these very names."""

    @staticmethod
    def get_parameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
        parms = {key: arguments[key] for key in ("limit", "qth_min", "qth_max", "Wlog", "Plog", "Scell_log", "flags")}
        return {
            "attrs": [
                ["TCA_RED_PARMS", parms],
                ["TCA_RED_STAB", _FORGET],
                ["TCA_RED_MAX_P", _CERTAIN],
                ["TCA_RED_FLAGS", {"bits": _ECN | _NODROP, "meant": _EVERY_FLAG}],
            ]
        }

    class options(nla):  # type: ignore[misc]
        nla_map = (
            ("TCA_RED_UNSPEC", "none"),
            ("TCA_RED_PARMS", "parms"),
            ("TCA_RED_STAB", "cdata"),
            ("TCA_RED_MAX_P", "uint32"),
            ("TCA_RED_FLAGS", "bits"),
            ("TCA_RED_EARLY_DROP_BLOCK", "uint32"),
            ("TCA_RED_MARK_BLOCK", "uint32"),
        )

        class parms(nla):  # type: ignore[misc]
            fields = (
                ("limit", "I"), ("qth_min", "I"), ("qth_max", "I"),
                ("Wlog", "B"), ("Plog", "B"), ("Scell_log", "B"), ("flags", "B"),
            )  # fmt: skip

        class bits(nla):  # type: ignore[misc]
            fields = (("bits", "I"), ("meant", "I"))  # struct nla_bitfield32; pyroute2 has its own idea of a field `value`

    class stats(nla):  # type: ignore[misc]
        fields = (("early", "I"), ("pdrop", "I"), ("other", "I"), ("marked", "I"))

    class stats2(common_stats2):  # type: ignore[misc]
        class stats_app(nla):  # type: ignore[misc]
            fields = (("early", "I"), ("pdrop", "I"), ("other", "I"), ("marked", "I"))


plugins.setdefault("red", _Plugin)
