"""What is told to the kernel's RED, byte by byte, and what is read of its answer."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from pyroute2.netlink.rtnl.tcmsg import tcmsg

from fabric.red import Red, RedCounts, counts_of, red_of
from fabric.red import _Plugin as Plugin

DUMP = Path(__file__).parents[1] / "data" / "qdisc_dump_red.bin"
TCMSG = 20  # family and padding, interface, handle, parent, info


def message(*attributes: tuple[str, Any]) -> Any:
    """A message about a RED, as pyroute2 makes and reads it."""
    made = tcmsg()
    made["attrs"] = [("TCA_KIND", "red"), *attributes]
    made.encode()
    found = tcmsg(bytes(made.data))
    found.decode()
    return bytes(made.data[16 + TCMSG :]), found


def test_a_red_as_the_kernel_reads_it() -> None:
    """Attributes (length, type, payload): the kind, and the options with struct tc_red_qopt, the pauses, the probability, the flags."""
    encoded, _ = message(("TCA_OPTIONS", Plugin.get_parameters(Red(30_280, 45_420).arguments())))
    assert encoded == b"".join((
        struct.pack("=HH4s", 8, 1, b"red\0"),
        struct.pack("=HH", 4 + 20 + 260 + 8 + 12, 2),  # TCA_OPTIONS, which holds the rest
        struct.pack("=HHIIIBBBB", 20, 1, 0, 30_281, 45_421, 0, 0, 0, 0),  # no limit; marks at; Wlog, Plog, Scell_log, flags
        struct.pack("=HH256s", 260, 2, b"\x1f" * 256),  # whatever the pause was, the average is shifted away
        struct.pack("=HHI", 8, 3, 0xFFFFFFFF),  # certain at the upper threshold
        struct.pack("=HHII", 12, 4, 0b1001, 0b1111),  # ECN, nothing dropped; all four flags are meant
    ))  # fmt: skip


def test_what_was_told_is_read_again() -> None:
    """A dump has no table of pauses; all else is as it was told."""
    options = Plugin.get_parameters(Red(30_280, 45_420).arguments())
    options["attrs"] = [item for item in options["attrs"] if item[0] != "TCA_RED_STAB"]
    _, found = message(("TCA_OPTIONS", options))
    assert red_of(found) == Red(30_280, 45_420)


def test_counts_are_read_where_red_keeps_them() -> None:
    """Over the threshold are its overlimits, marked is the last word of struct tc_red_xstats."""
    stats = {"attrs": [
        ["TCA_STATS_BASIC", {"bytes": 1514_000, "packets": 1000}],
        ["TCA_STATS_QUEUE", {"qlen": 1, "backlog": 1514, "drops": 2, "requeues": 0, "overlimits": 70}],
        ["TCA_STATS_APP", {"early": 0, "pdrop": 2, "other": 0, "marked": 64}],
    ]}  # fmt: skip
    _, found = message(("TCA_STATS2", stats))
    assert counts_of(found) == RedCounts(packets=1000, bytes=1_514_000, over=70, marked=64)


def test_a_real_answer_is_read() -> None:
    """Debian's 6.1 kernel, asked for a step at ten frames of 1514 bytes: two had left, 37 came over, all of which could be marked."""
    data, found = DUMP.read_bytes(), []
    while struct.unpack_from("=IH", data)[1] == 36:  # RTM_NEWQDISC
        length = struct.unpack_from("=I", data)[0]
        one = tcmsg(data[:length])
        one.decode()
        found, data = [*found, one], data[length:]
    [red] = [one for one in found if one.get_attr("TCA_KIND") == "red"]
    assert red_of(red) == Red(15_140, 15_140)
    assert counts_of(red) == RedCounts(packets=2, bytes=3028, over=37, marked=37)
