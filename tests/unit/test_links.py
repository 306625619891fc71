"""What is asked of a link's kernel objects, and how every way of not getting it is put into words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fabric.links import Shape, class_requests, differences, read_shape, requests
from fabric.red import Red

ASKED = Shape(mbps=20, mtu=9000, queue_packets=50)
TICK_NS = 64


class Answer(dict[str, Any]):
    """A netlink answer: fields by key, attributes by `get_attr`."""

    def __init__(self, fields: dict[str, Any], attributes: dict[str, Any]) -> None:
        super().__init__(fields)
        self.attributes = attributes

    def get_attr(self, name: str) -> Any:
        """An attribute by its kernel name."""
        return self.attributes.get(name)


def fifo(kind: str = "pfifo", limit: int = 50, parent: int = 0x10001) -> Answer:
    """A queue as the kernel dumps it."""
    return Answer({"parent": parent}, {"TCA_KIND": kind, "TCA_OPTIONS": {"limit": limit}})


def red(limit: int = 0, wlog: int = 0, probability: int = 0xFFFFFFFF, flags: int | None = 9, qth_max: int = 45_421) -> Answer:
    """A RED as the kernel dumps it; flags 1 and 8 are ECN and to drop nothing, None a kernel that does not know the latter."""
    parms = {"limit": limit, "qth_min": 30_281, "qth_max": qth_max, "Wlog": wlog, "Plog": 0, "Scell_log": 0, "flags": 1}
    options = {"TCA_RED_PARMS": parms, "TCA_RED_MAX_P": probability, "TCA_RED_FLAGS": flags and {"bits": flags, "meant": 15}}
    return Answer({"parent": 0x10001}, {"TCA_KIND": "red", "TCA_OPTIONS": Answer({}, options)})


def htb_class(rate: int = 2_500_000, ceil: int = 2_500_000, burst: int = 9014, handle: int = 0x10001) -> Answer:
    """A rate class as the kernel dumps it; the burst is kept as a time, in ticks."""
    ticks = int(burst / rate * 1e9 / TICK_NS)
    parms = {"rate": rate, "ceil": ceil, "buffer": ticks, "cbuffer": ticks}
    return Answer({"handle": handle}, {"TCA_OPTIONS": Answer({}, {"TCA_HTB_PARMS": parms})})


def test_requests_are_a_rate_class_and_one_fifo_under_it() -> None:
    """20 Mb/s are 2,500,000 bytes a second; burst, quantum and MTU of the class are one frame of 9014 bytes."""
    assert requests(ASKED) == [
        ("add", "htb", {"handle": 0x10000, "default": 1}),
        ("add-class", "htb", {
            "handle": 0x10001, "parent": 0x10000, "rate": 2_500_000, "ceil": 2_500_000,
            "burst": 9014, "cburst": 9014, "mtu": 9014, "quantum": 9014,
        }),
        ("add", "pfifo", {"handle": 0x100000, "parent": 0x10001, "limit": 50}),
    ]  # fmt: skip


def test_a_queue_in_bytes_is_a_bfifo() -> None:
    """The limit is passed on in the unit it was given in."""
    queue = requests(Shape(mbps=10, mtu=1500, queue_bytes=75_700))[-1]
    assert queue == ("add", "bfifo", {"handle": 0x100000, "parent": 0x10001, "limit": 75_700})


@pytest.mark.parametrize(("mbps", "rate"), [(0.1, 12_500), (12.3456, 1_543_200), (1000, 125_000_000)])
def test_rates_are_whole_bytes_a_second(mbps: float, rate: int) -> None:
    """The kernel keeps whole bytes a second; 1 Mb/s are 125,000 of them."""
    assert Shape(mbps, 1500, 50).bytes_per_second == rate


def test_what_was_asked_shows_no_difference() -> None:
    """Equal shapes, and a burst of exactly one frame."""
    assert differences(ASKED, ASKED, 9014) == []


def test_rounding_of_a_rate_is_no_difference() -> None:
    """0.0001 of the rate is the kernel's rounding; ten times that is not."""
    assert differences(ASKED, replace(ASKED, mbps=20.001), 9014) == []
    assert differences(ASKED, replace(ASKED, mbps=20.02), 9014) == ["mbps 20.02 instead of 20"]


@pytest.mark.parametrize(
    ("got", "burst", "words"),
    [
        (None, 0, ["no shaper of ours"]),
        (replace(ASKED, mbps=10), 9014, ["mbps 10 instead of 20"]),
        (replace(ASKED, mbps=1000), 9014, ["mbps 1000 instead of 20"]),
        (replace(ASKED, mtu=1500), 9014, ["mtu 1500 instead of 9000"]),
        (replace(ASKED, queue_packets=1000), 9014, ["queue 1000 packets instead of 50 packets"]),
        (replace(ASKED, queue_packets=None, queue_bytes=50), 9014, ["queue 50 bytes instead of 50 packets"]),
        (ASKED, 9015, ["burst 9015 bytes, more than one frame of 9014"]),
        (
            Shape(mbps=5, mtu=1500, queue_packets=10),
            65536,
            [
                "mbps 5 instead of 20",
                "mtu 1500 instead of 9000",
                "queue 10 packets instead of 50 packets",
                "burst 65536 bytes, more than one frame of 9014",
            ],
        ),
    ],
)
def test_every_deviation_is_named(got: Shape | None, burst: int, words: list[str]) -> None:
    """What the kernel says, then what was asked; several at once are all there."""
    assert differences(ASKED, got, burst) == words


def test_read_shape_gives_back_what_requests_built() -> None:
    """Packets or bytes, by the kind of the queue; the burst in bytes, at most rounded down."""
    assert read_shape([fifo()], [htb_class()], 9000) == (ASKED, 9013)
    in_bytes = read_shape([fifo("bfifo", 75_700)], [htb_class()], 9000)[0]
    assert in_bytes == Shape(mbps=20, mtu=9000, queue_bytes=75_700)


def test_a_class_that_says_nothing_is_no_rate() -> None:
    """As RED's, on a kernel that lists it beside ours."""
    assert read_shape([fifo()], [htb_class(), Answer({"handle": 0x20001}, {"TCA_KIND": "red"})], 9000) == (ASKED, 9013)


@pytest.mark.parametrize(
    ("qdiscs", "classes"),
    [
        ([], [htb_class()]),
        ([fifo()], []),
        ([fifo("fq_codel")], [htb_class()]),
        ([fifo(parent=0x10002)], [htb_class()]),
        ([fifo()], [htb_class(handle=0x10002)]),
        ([fifo(), fifo()], [htb_class()]),
        ([fifo()], [htb_class(ceil=5_000_000)]),
    ],
    ids=["no queue", "no class", "other queue", "queue elsewhere", "class elsewhere", "two queues", "may borrow"],
)
def test_what_is_not_built_by_us_is_no_shape(qdiscs: list[Answer], classes: list[Answer]) -> None:
    """Nothing of another's making can pass for our shaper."""
    assert read_shape(qdiscs, classes, 9000)[0] is None


# -- a floor: two classes

WITH_FLOOR = replace(ASKED, floor=0.05)


def classes_of(shape: Shape, **changed: dict[str, int]) -> list[Answer]:
    """The classes as the kernel dumps them; `changed` by minor number."""
    return [
        htb_class(**{"handle": one["handle"], "rate": one["rate"], "ceil": one["ceil"], **changed.get(f"c{one['handle'] & 0xFFFF:x}", {})})
        for one in class_requests(shape)
    ]


def queues_of(*limits: int) -> list[Answer]:
    """A FIFO for others, and one for those that go first."""
    return [fifo(limit=limit, parent=parent) for limit, parent in zip(limits, (0x10020, 0x10010), strict=True)]


def test_a_floor_makes_two_classes_that_share_the_rate() -> None:
    """Others keep 5 %, those with DSCP 46 borrow before they do, either may use what the other leaves; one whole above them.

    Neither holds credit of its own: HTB would let it send while the other's packet still takes up the link.
    """
    asked = requests(WITH_FLOOR)
    assert [(command, kind) for command, kind, _ in asked] == [
        ("add", "htb"), *[("add-class", "htb")] * 3, *[("add", "pfifo")] * 2, ("add-filter", "u32"),
    ]  # fmt: skip
    whole, first, others = class_requests(WITH_FLOOR)
    assert [one["rate"] for one in (whole, first, others)] == [2_500_000, 2_500, 125_000]
    assert [one["burst"] for one in (whole, first, others)] == [WITH_FLOOR.frame, 1, 1]
    assert {one["ceil"] for one in (whole, first, others)} == {2_500_000} and first["prio"] < others["prio"]
    assert first["parent"] == others["parent"] == whole["handle"]
    assert asked[0][2]["default"] == others["handle"] & 0xFFFF  # what no filter names
    assert (asked[-1][2]["target"], asked[-1][2]["keys"]) == (first["handle"], ["0xb8/0xfc+1"])


def test_a_floor_is_read_back() -> None:
    """As it was asked, to the kernel's rounding."""
    got, burst = read_shape(queues_of(50, 50), classes_of(WITH_FLOOR), 9000)
    assert got == WITH_FLOOR and differences(WITH_FLOOR, got, burst) == []


@pytest.mark.parametrize(
    ("queues", "changed", "words"),
    [
        (queues_of(50, 50), {"c20": {"rate": 250_000}}, ["a floor of 0.1 instead of 0.05"]),
        (queues_of(50, 50), {"c10": {"ceil": 2_000_000}}, ["no shaper of ours"]),
        (queues_of(50, 60), {}, ["no shaper of ours"]),
        (queues_of(50, 50)[:1], {}, ["no shaper of ours"]),
        (queues_of(60, 60), {}, ["queue 60 packets instead of 50 packets"]),
    ],
)
def test_a_floor_that_is_not_as_asked_is_named(queues: list[Answer], changed: dict[str, dict[str, int]], words: list[str]) -> None:
    """Other shares, other limits, a class that may not use what is left, a queue that is missing."""
    assert differences(WITH_FLOOR, *read_shape(queues, classes_of(WITH_FLOOR, **changed), 9000)) == words


def test_one_queue_for_all_is_not_two() -> None:
    """Nor two one."""
    assert differences(WITH_FLOOR, ASKED, 9014) == ["a floor of None instead of 0.05"]
    assert differences(ASKED, WITH_FLOOR, 9014) == ["a floor of 0.05 instead of None"]
MARKING = replace(ASKED, red=Red(30_280, 45_420))


def test_red_sits_between_the_rate_and_its_queue() -> None:
    """It has no queue of its own (limit 0), no memory (Wlog 0), and marks *at* one byte more than we mark above."""
    assert requests(MARKING)[2:] == [
        ("replace", "red", {
            "handle": 0x200000, "parent": 0x10001, "limit": 0, "qth_min": 30_281, "qth_max": 45_421,
            "Wlog": 0, "Plog": 0, "Scell_log": 0, "flags": 0,
        }),
        ("add", "pfifo", {"handle": 0x100000, "parent": 0x200001, "limit": 50}),
    ]  # fmt: skip


def test_red_is_read_back_with_the_queue_below_it() -> None:
    """As it was asked, and told apart from a queue that does not mark."""
    below = fifo(parent=0x200001)
    assert read_shape([red(), below], [htb_class()], 9000) == (MARKING, 9013)
    assert differences(ASKED, MARKING, 9014) == ["marking by RED from 30280 to 45420 bytes instead of no RED"]
    other = read_shape([red(qth_max=60_001), below], [htb_class()], 9000)[0]
    assert differences(MARKING, other, 9014) == ["marking by RED from 30280 to 60000 bytes instead of RED from 30280 to 45420 bytes"]
    assert differences(MARKING, ASKED, 9014) == ["marking by no RED instead of RED from 30280 to 45420 bytes"]


@pytest.mark.parametrize(
    "found",
    [[red(limit=9), fifo(parent=0x200001)], [red(wlog=9), fifo(parent=0x200001)], [red(probability=1 << 31), fifo(parent=0x200001)],
     [red(flags=1), fifo(parent=0x200001)], [red(flags=None), fifo(parent=0x200001)], [red()], [red(), fifo()]],
    ids=["a queue of its own", "averages", "marks too few", "drops", "an older kernel", "nothing below", "beside it"],
)  # fmt: skip
def test_another_red_is_no_shape(found: list[Answer]) -> None:
    """One that would drop, or judge by an average, must not pass for ours."""
    assert read_shape(found, [htb_class()], 9000)[0] is None
