"""A rank plays its part of a schedule over real sockets: whatever the sizes, the sums are right and a stall is named."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric import plugins
from fabric.collectives.ring_allreduce import ring_allreduce
from fabric.keys import Links
from fabric.outcome import duties
from fabric.parameters import on_request
from fabric.rank import Edge, expected, initial, play, program, wrong
from fabric.schedule import Op, Schedule, Transfer
from topologies.single_switch import single_switch

DEADLINE_S = 30.0


@dataclass
class Wires:
    """The two socket ends of every connection of a schedule: by rank, then by the edge as that rank sees it."""

    outgoing: dict[int, dict[Edge, socket.socket]] = field(default_factory=dict)
    incoming: dict[int, dict[Edge, socket.socket]] = field(default_factory=dict)

    def join(self, src: int, dst: int, channel: int, pair: tuple[socket.socket, socket.socket]) -> None:
        """Give a pair's ends to the sending and to the receiving rank."""
        self.outgoing.setdefault(src, {})[dst, channel] = pair[0]
        self.incoming.setdefault(dst, {})[src, channel] = pair[1]


@contextmanager
def wired(schedule: Schedule) -> Iterator[Wires]:
    """Non-blocking socket pairs for all of a schedule's connections, with buffers far smaller than what they carry."""
    wires = Wires()
    with ExitStack() as stack:
        for src, dst, channel in schedule.connections:
            pair = socket.socketpair()
            for end in pair:
                stack.enter_context(end)
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            wires.join(src, dst, channel, pair)
        yield wires


def play_one(schedule: Schedule, rank: int, wires: Wires, data: Any, deadline: float) -> None:
    """One rank's iteration."""
    play(program(schedule, rank), data, wires.outgoing.get(rank, {}), wires.incoming.get(rank, {}), deadline)


def play_all(schedule: Schedule, buffers: Sequence[Any], wires: Wires) -> None:
    """Every rank's iteration in a thread of its own; the first error of any is raised here."""
    errors: list[BaseException] = []

    def body(rank: int) -> None:
        try:
            play_one(schedule, rank, wires, buffers[rank], time.monotonic() + DEADLINE_S)
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=body, args=(rank,)) for rank in range(schedule.ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def summed(ranks: int, elements: int, iteration: int, dtype: str, *, groups: int = 1, rank: int = 0) -> Any:
    """What `expected` says that a rank of an all-reduce must end with."""
    (duty,) = duties(Schedule("mine", ranks, elements, (), groups), rank)
    return expected(duty, elements, iteration, dtype)


def allreduced(schedule: Schedule, dtype: str, iteration: int = 0) -> list[Any]:
    """Every rank's data after an iteration."""
    buffers = [initial(rank, schedule.elements, iteration, dtype) for rank in range(schedule.ranks)]
    with wired(schedule) as wires:
        play_all(schedule, buffers, wires)
    return buffers


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("elements", [0, 1, 3, 8, 1000, 40_000])
@pytest.mark.parametrize("ranks", range(2, 10))
def test_ring_allreduce_leaves_the_sum_with_every_rank(ranks: int, elements: int, dtype: str) -> None:
    """Fewer elements than ranks, none at all, and far more than a socket's buffer: every element is the sum."""
    right = sum(initial(rank, elements, 3, "int64") for rank in range(ranks))
    for data in allreduced(ring_allreduce(ranks, elements), dtype, iteration=3):
        assert data.dtype == dtype and np.array_equal(data, right)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_expected_is_the_sum_of_every_ranks_initial(dtype: str) -> None:
    """The closed form that runs are checked by, against adding up what the ranks begin with."""
    for ranks, elements, iteration in [(2, 5, 0), (7, 1000, 4), (16, 300, 13)]:
        total = sum(initial(rank, elements, iteration, "int64") for rank in range(ranks))
        assert np.array_equal(summed(ranks, elements, iteration, dtype), total)


def test_expected_in_groups_is_the_sum_of_the_own_group() -> None:
    """Ranks equal to r mod `groups`, and no others."""
    for ranks, groups, iteration in [(4, 2, 0), (12, 3, 5), (8, 4, 9)]:
        for rank in range(ranks):
            own = sum(initial(other, 300, iteration, "int64") for other in range(ranks) if other % groups == rank % groups)
            assert np.array_equal(summed(ranks, 300, iteration, "int32", groups=groups, rank=rank), own)


def test_every_group_ends_with_its_own_sum() -> None:
    """Over real sockets: six ranks in two rings beside each other."""
    ring = ring_allreduce(6, 1000, groups=2)
    for rank, data in enumerate(allreduced(ring, "float32", iteration=3)):
        assert np.array_equal(data, summed(6, 1000, 3, "float32", groups=2, rank=rank))


def test_a_sum_over_the_wrong_ranks_would_be_noticed() -> None:
    """Another group's sum, everyone's, or a neighbour's in other groups differs in every element."""
    right = summed(12, 1024, 0, "int32", groups=3, rank=1)
    wrong = [summed(12, 1024, 0, "int32", groups=groups, rank=rank) for groups, rank in [(3, 0), (3, 2), (1, 1), (2, 1)]]
    assert all(np.count_nonzero(other != right) == 1024 for other in wrong)


def test_a_chunk_in_the_wrong_place_would_be_noticed() -> None:
    """The pattern differs between neighbours, chunks, ranks and iterations: no shift or stale buffer can pass."""
    right = summed(4, 1024, 0, "int32")
    assert not any(np.array_equal(np.roll(right, 256 * step), right) for step in (1, 2, 3))
    assert np.count_nonzero(summed(4, 1024, 1, "int32") != right) == 1024
    assert np.count_nonzero(summed(5, 1024, 0, "int32") != right) == 1024


def transfers(*items: tuple[int, int, int, int, Op, tuple[int, ...]]) -> tuple[Transfer, ...]:
    """Transfers from (src, dst, start, stop, op, after), numbered in order."""
    return tuple(Transfer(number, *item) for number, item in enumerate(items))


def test_transfers_of_no_elements_wake_what_waits_for_them() -> None:
    """A schedule that does carry empty transfers comes to its end, and the rest of it is right."""
    schedule = Schedule("empty-first", 2, 4, transfers(
        (0, 1, 2, 2, "sum", ()), (1, 0, 0, 0, "copy", (0,)), (0, 1, 0, 4, "sum", (1,)), (1, 0, 0, 4, "copy", (2,)),
    ))  # fmt: skip
    for data in allreduced(schedule, "int32"):
        assert np.array_equal(data, summed(2, 4, 0, "int32"))


def test_program_keeps_a_ranks_transfers_in_order_by_edge() -> None:
    """Sends and receives by (peer, channel), how many completions each send waits for, and what wakes it."""
    part = program(ring_allreduce(3, 6), 1)
    assert part.rank == 1 and part.elements == 6
    assert [item.id for item in part.sends[2, 0]] == [1, 4, 7, 10]
    assert [item.id for item in part.receives[0, 0]] == [0, 3, 6, 9]
    assert part.waits == {1: 0, 4: 1, 7: 1, 10: 1}
    assert part.wakes == {0: (4,), 3: (7,), 6: (10,)}


def test_a_rank_without_work_returns_at_once() -> None:
    """No sends and no receives: nothing to wait for, and its data stay."""
    schedule = Schedule("two-of-three", 3, 2, transfers((0, 1, 0, 2, "copy", ())))
    data = initial(2, 2, 0, "int32")
    play_one(schedule, 2, Wires(), data, time.monotonic() + DEADLINE_S)
    assert np.array_equal(data, initial(2, 2, 0, "int32"))



def test_a_deadline_names_whom_a_rank_waits_for() -> None:
    """Its neighbour is silent: the error says from whom nothing came, and to whom there is data left."""
    schedule = ring_allreduce(3, 300_000)  # 400 kB a chunk: more than the socket takes in
    data = initial(0, schedule.elements, 0, "float32")
    with wired(schedule) as wires, pytest.raises(TimeoutError) as error:
        play_one(schedule, 0, wires, data, time.monotonic() + 0.05)
    assert str(error.value) == "rank 0 still waits for data from ranks [2] and has data left for ranks [1]"


def test_a_deadline_in_the_past_is_said_at_once() -> None:
    """A receiver that was given no time does not wait for any."""
    schedule = Schedule("one-way", 2, 4, transfers((0, 1, 0, 4, "copy", ())))
    with wired(schedule) as wires, pytest.raises(TimeoutError) as error:
        play_one(schedule, 1, wires, initial(1, 4, 0, "int32"), time.monotonic() - 1)
    assert str(error.value) == "rank 1 still waits for data from ranks [0] and has data left for ranks []"


@pytest.mark.parametrize("sent", [0, 7])
def test_a_peer_that_closes_is_named(sent: int) -> None:
    """Before its first byte or in the middle of an element: the message says who closed on whom."""
    schedule = Schedule("one-way", 2, 1000, transfers((0, 1, 0, 1000, "sum", ())))
    with wired(schedule) as wires:
        wires.outgoing[0][1, 0].send(bytes(sent))
        wires.outgoing[0][1, 0].close()
        with pytest.raises(ConnectionError) as error:
            play_one(schedule, 1, wires, initial(1, 1000, 0, "int32"), time.monotonic() + DEADLINE_S)
    assert str(error.value) == "rank 1: rank 0 closed its connection in mid-collective"


def test_sockets_are_whole_for_the_next_iteration() -> None:
    """Iterations reuse their connections: nothing of one is left in them for the next."""
    schedule = ring_allreduce(4, 1001)
    with wired(schedule) as wires:
        for iteration in range(3):
            buffers = [initial(rank, 1001, iteration, "float32") for rank in range(4)]
            play_all(schedule, buffers, wires)
            for data in buffers:
                assert np.array_equal(data, summed(4, 1001, iteration, "float32"))


NEED = {"hierarchical-allreduce": {"per_server": 2}, "two-phase-all-to-all": {"per_server": 2}}  # parameters without a default


def made(name: str, ranks: int, elements: int) -> Schedule:
    """A shipped collective, given what it asks for."""
    make, fabric = plugins.load("collective", name, Path()), single_switch(ranks)
    known = {"fabric": fabric, "hosts": [host.name for host in fabric.hosts], "links": Links(mbps=10)}
    asked = {key: known[key] for key in on_request("collective", make)}
    schedule: Schedule = make(ranks, elements, **asked, **NEED.get(name, {}))
    return schedule


@pytest.mark.parametrize("name", sorted(plugins.names("collective")))
@pytest.mark.parametrize("ranks", [2, 5, 6, 8])
def test_every_collective_on_real_sockets(name: str, ranks: int) -> None:
    """Each that is shipped: no element of any rank is wrong, and one flipped bit of one rank is noticed."""
    if name in NEED and (ranks % 2 or ranks < 4):
        pytest.skip("no two servers of two ranks")
    elements = ranks if name == "barrier" else 1003
    schedule = made(name, ranks, elements)
    buffers = [initial(rank, schedule.elements, 4, "int32", schedule.scratch) for rank in range(ranks)]
    with wired(schedule) as wires:
        play_all(schedule, buffers, wires)
    for rank, data in enumerate(buffers):
        assert wrong(schedule, rank, 4, data) == 0
        for duty in duties(schedule, rank):
            data[(duty.start + duty.stop) // 2] ^= 1 << 9
        assert wrong(schedule, rank, 4, data) == len([*duties(schedule, rank)])
