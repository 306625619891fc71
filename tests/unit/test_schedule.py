"""Schedules: what the interpreter accepts and refuses, and the ring all-reduce."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fabric.collectives import bus_factor
from fabric.collectives.ring_allreduce import ring_allreduce
from fabric.errors import RequestError
from fabric.interpreter import check_allreduce
from fabric.schedule import Progress, Schedule, Transfer, check_structure

PAIR = (Transfer(0, 0, 1, 0, 4, "sum"), Transfer(1, 1, 0, 0, 4, "copy", (0,)))


def schedule(*transfers: Transfer, ranks: int = 2, elements: int = 4) -> Schedule:
    return Schedule("mine", ranks, elements, transfers)


@pytest.mark.parametrize("ranks", [2, 3, 4, 7, 16])
@pytest.mark.parametrize("elements", [0, 1, 3, 16, 61, 112])
def test_ring_reduces_whatever_the_sizes(ranks: int, elements: int) -> None:
    """The ring gives every rank the sum, also for elements that do not divide, or are fewer than the ranks."""
    check_allreduce(ring_allreduce(ranks, elements))


@pytest.mark.parametrize("ranks", [2, 5, 16])
def test_ring_sends_the_least_that_an_allreduce_can(ranks: int) -> None:
    """Each rank sends 2(p-1) chunks of n/p bytes to its successor, and receives as many from its predecessor."""
    ring = ring_allreduce(ranks, 8 * ranks)
    for rank in range(ranks):
        assert [(t.dst, t.nbytes) for t in ring.sent_by(rank)] == [((rank + 1) % ranks, 32)] * 2 * (ranks - 1)
        assert {t.src for t in ring.received_by(rank)} == {(rank - 1) % ranks}
        assert ring.nbytes_sent_by(rank) == ring.nbytes * 2 * (ranks - 1) // ranks


def test_ring_leaves_empty_chunks_out() -> None:
    """With fewer elements than ranks no transfer is empty, and each element still makes its 2(p-1) hops."""
    ring = ring_allreduce(5, 2)
    assert {t.stop - t.start for t in ring.transfers} == {1}
    assert len(ring.transfers) == 2 * 2 * 4


@pytest.mark.parametrize(("ranks", "groups"), [(4, 1), (4, 2), (6, 3), (12, 4), (16, 4)])
@pytest.mark.parametrize("elements", [0, 1, 3, 61])
def test_rings_in_groups_reduce_each_group(ranks: int, groups: int, elements: int) -> None:
    """Every rank gets its own group's sum, and the schedule says how many groups and how many ranks in each."""
    rings = ring_allreduce(ranks, elements, groups)
    check_allreduce(rings)
    assert (rings.ranks, rings.groups, rings.group_ranks) == (ranks, groups, ranks // groups)


def test_rings_in_groups_are_separate_rings_at_the_same_time() -> None:
    """Group g is a ring of ranks g, g + groups, ...; no transfer waits for another group, all begin at once."""
    rings, alone = ring_allreduce(12, 61, groups=3), ring_allreduce(4, 61)
    for group in range(3):
        own = [t for t in rings.transfers if t.src % 3 == group]
        place = {t.id: index for index, t in enumerate(own)}
        assert tuple(
            replace(t, id=place[t.id], src=t.src // 3, dst=t.dst // 3, after=tuple(place[n] for n in t.after)) for t in own
        ) == alone.transfers  # fmt: skip
        assert {t.dst % 3 for t in own} == {group}
    assert len(Progress(rings).ready) == 12


def test_one_group_is_the_ring_as_it_ever_was() -> None:
    """`groups: 1` changes nothing, and the first transfers are these."""
    ring = ring_allreduce(3, 6, groups=1)
    assert ring == ring_allreduce(3, 6)
    assert ring.transfers[:4] == (
        Transfer(0, 0, 1, 0, 2, "sum"), Transfer(1, 1, 2, 2, 4, "sum"), Transfer(2, 2, 0, 4, 6, "sum"),
        Transfer(3, 0, 1, 4, 6, "sum", (2,)),
    )  # fmt: skip


@pytest.mark.parametrize("groups", [1, 3, 4, 6])
def test_sums_over_other_groups_than_the_schedules_show(groups: int) -> None:
    """A schedule that reduces in two groups and says any other number of them is refused."""
    rings = ring_allreduce(12, 8, groups=2)
    with pytest.raises(RequestError, match="wrong sum"):
        check_allreduce(replace(rings, groups=groups))


@pytest.mark.parametrize(("ranks", "groups"), [(16, 4), (3, 1)])
def test_a_schedule_goes_through_json(ranks: int, groups: int) -> None:
    """What another process reads is the same schedule; a recorded one without groups has one."""
    ring = ring_allreduce(ranks, 61, groups)
    data = json.loads(json.dumps(ring.to_json()))
    assert Schedule.from_json(data) == ring and data["groups"] == groups
    del data["groups"]
    assert Schedule.from_json(data) == replace(ring, groups=1)


@pytest.mark.parametrize("groups", [-1, 0, 3, 8, 16])
def test_ring_refuses_groups_that_are_no_rings(groups: int) -> None:
    """Not of one size, of a single rank, or none at all: one line with the numbers that would do."""
    with pytest.raises(RequestError) as caught:
        ring_allreduce(8, 16, groups)
    assert str(caught.value) == f"collective.groups: got {groups}; accepted: 1, 2, 4 for 8 ranks, two or more in each"


def test_ring_refuses_what_is_no_ring() -> None:
    """One rank, or a negative size, is a request error."""
    with pytest.raises(RequestError, match=r"collective\.ranks: got 1; accepted: 2 or more"):
        ring_allreduce(1, 8)
    with pytest.raises(RequestError, match="got -1 elements"):
        ring_allreduce(4, -1)


@pytest.mark.parametrize("broken", [t.id for t in ring_allreduce(4, 8).transfers if t.after])
def test_a_missing_dependency_shows(broken: int) -> None:
    """Whichever single dependency of the ring is dropped, some order gives a wrong sum."""
    ring = ring_allreduce(4, 8)
    early = [replace(t, after=()) if t.id == broken else t for t in ring.transfers]
    with pytest.raises(RequestError, match="a transfer is missing, doubled, or begins too early"):
        check_allreduce(replace(ring, transfers=tuple(early)))


@pytest.mark.parametrize("broken", range(24))
def test_a_wrong_operation_shows(broken: int) -> None:
    """Adding where the ring overwrites, or the other way round, gives a wrong sum."""
    ring = ring_allreduce(4, 8)
    swapped = [replace(t, op="copy" if t.op == "sum" else "sum") if t.id == broken else t for t in ring.transfers]
    with pytest.raises(RequestError, match="wrong sum"):
        check_allreduce(replace(ring, transfers=tuple(swapped)))


def test_overwriting_what_is_being_sent_shows() -> None:
    """An exchange in place is a hazard: what arrives may change what has yet to leave."""
    exchange = schedule(Transfer(0, 0, 1, 0, 4, "sum"), Transfer(1, 1, 0, 0, 4, "sum"))
    with pytest.raises(RequestError, match="wrong sum"):
        check_allreduce(exchange)


def test_a_wrong_sum_names_rank_and_element() -> None:
    """Elements that no transfer carries are wrong at the first rank, from the first such element on."""
    with pytest.raises(RequestError, match="rank 0 ends with a wrong sum at element 4 "):
        check_allreduce(schedule(*PAIR, elements=6))


def test_a_channel_is_a_stream_of_its_own() -> None:
    """Transfers of one pair of ranks wait for each other on one channel, and not on two."""
    halves = [Transfer(0, 0, 1, 0, 2, "sum"), Transfer(1, 0, 1, 2, 4, "sum")]
    assert Progress(schedule(*halves)).ready == [0]
    assert Progress(schedule(halves[0], replace(halves[1], channel=1))).ready == [0, 1]


def test_arrivals_on_one_connection_keep_their_order() -> None:
    """A later copy on the same connection always wins over an earlier one; on another channel it does not."""
    last = Transfer(3, 1, 0, 0, 4, "copy", (0,))
    ordered = schedule(PAIR[0], Transfer(1, 1, 0, 0, 4, "copy"), replace(last, id=2))
    check_allreduce(ordered, orders=20)
    racing = schedule(PAIR[0], Transfer(1, 1, 0, 0, 4, "copy"), replace(last, id=2, channel=1))
    with pytest.raises(RequestError, match="rank 0 ends with a wrong sum"):
        check_allreduce(racing, orders=20)


def test_progress_reports_after_the_right_end() -> None:
    """The sender's own transfer counts when it left, the other's when it arrived."""
    ring = Progress(schedule(*PAIR, Transfer(2, 0, 1, 0, 4, "copy", (0, 1))))
    assert ring.ready == [0]
    assert ring.left(0) == []
    assert ring.arrived(0) == [1]
    assert ring.left(1) == []
    assert ring.arrived(1) == [2]


@pytest.mark.parametrize(
    ("transfers", "message"),
    [
        ([replace(PAIR[0], id=7)], "the transfer at place 0 has id 7; number them in order"),
        ([replace(PAIR[0], dst=2)], "transfer 0 names rank 2; accepted: 0 to 1"),
        ([replace(PAIR[0], src=-1)], "transfer 0 names rank -1; accepted: 0 to 1"),
        ([replace(PAIR[0], dst=0)], "transfer 0 goes from rank 0 to itself, onto its own elements; leave it out, or let it land elsewhere"),
        ([replace(PAIR[0], stop=5)], "transfer 0 covers elements [0, 5); accepted: 0 <= start <= stop <= 4"),
        ([replace(PAIR[0], start=3, stop=2)], "transfer 0 covers elements [3, 2); accepted: 0 <= start <= stop <= 4"),
        ([replace(PAIR[0], op="max")], "transfer 0 has op 'max'; accepted: 'sum', 'copy'"),
        ([replace(PAIR[0], after=(9,))], "transfer 0 waits for 9; accepted: ids from 0 to 0"),
        (
            [replace(PAIR[0], after=(1,)), PAIR[1]],
            "transfers wait for each other: 0 -> 1 -> 0; break it in `after` or by another channel",
        ),
        (
            [replace(PAIR[0], after=(0,))],
            "transfers wait for each other: 0 -> 0; break it in `after` or by another channel",
        ),
        (
            [replace(PAIR[0], after=(1,)), replace(PAIR[0], id=1)],
            "transfers wait for each other: 0 -> 1 -> 0; break it in `after` or by another channel",
        ),
    ],
)
def test_structure_errors_say_what_and_what_to_do(transfers: list[Transfer], message: str) -> None:
    """Each fault of structure gets its exact line, from the interpreter as from the check alone."""
    for check in (check_structure, check_allreduce):
        with pytest.raises(RequestError) as caught:
            check(schedule(*transfers))
        assert str(caught.value) == f"schedule mine: {message}"


@pytest.mark.parametrize("groups", [0, -1, 3])
def test_groups_divide_the_ranks(groups: int) -> None:
    """A schedule whose groups are not of one size cannot say who sums up with whom."""
    with pytest.raises(RequestError) as caught:
        check_structure(replace(schedule(*PAIR), groups=groups))
    what = f"got {groups} groups of 2 ranks; accepted: a number that divides the ranks; rank r is in r mod groups"
    assert str(caught.value) == f"schedule mine: {what}"


def test_a_rank_waits_only_for_what_it_sees() -> None:
    """A dependency on a transfer between two others could not be observed, so it is refused."""
    blind = schedule(Transfer(0, 0, 1, 0, 4, "sum"), Transfer(1, 2, 0, 0, 4, "sum", (0,)), ranks=3)
    with pytest.raises(RequestError, match="transfer 1 waits for 0, which rank 2 neither sends nor receives"):
        check_structure(blind)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("ring-allreduce", 1.5),
        ("all-reduce", 1.5),
        ("hierarchical-allreduce", 1.5),
        ("reduce-scatter", 0.75),
        ("all_gather", 0.75),
        ("alltoall", 0.75),
        ("all-to-all", 0.75),
        ("broadcast", 1.0),
        ("tree-reduce", 1.0),
    ],
)
def test_bus_factors_are_those_of_nccl_tests(name: str, factor: float) -> None:
    """For 4 ranks, whatever the hyphens and the algorithm's name in front."""
    assert bus_factor(name, 4) == factor


def test_bus_factor_refuses_the_unknown() -> None:
    """A name that tells no operation, or no ranks, is a request error and not a factor of 1."""
    with pytest.raises(RequestError, match="collective scan: no bus factor; accepted: names ending in allreduce, "):
        bus_factor("scan", 4)
    with pytest.raises(RequestError, match="got 0 ranks"):
        bus_factor("allreduce", 0)
