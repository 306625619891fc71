"""Sending sockets over time: sampled at their turn, written and read, and what of it makes a row's round trips."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.background import run_flows
from fabric.collectives.incast import incast
from fabric.errors import RunError
from fabric.rank import initial, play, program
from fabric.socketlog import PERIOD_S, SocketLog, SocketSeries, read_sockets, rtt_percentiles_ms
from fabric.tcp import Endpoints, report

DEADLINE_S = 30.0
NBYTES = 100_000


@pytest.fixture(name="pair")
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection over the loopback: the sending end, and the receiving one."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sender:
        receiver, _ = listener.accept()
        with receiver:
            yield sender, receiver


def ends_of(sender: socket.socket) -> Endpoints:
    return Endpoints(*sender.getsockname(), *sender.getpeername())


def deliver(sender: socket.socket, receiver: socket.socket, nbytes: int) -> None:
    """Send, take, and wait until the sender knows that all has come."""
    sender.sendall(bytes(nbytes))
    left = nbytes
    while left:
        left -= len(receiver.recv(left))
    until = time.monotonic() + DEADLINE_S
    while report(sender).delivered < report(sender).data_segments_out:
        assert time.monotonic() < until, "the bytes were never acknowledged"


def test_what_is_written_is_what_the_kernel_says(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """Delivered bytes, the smoothed round trip, the window; the first sample is of before, the last of the end."""
    log = SocketLog({"a": pair[0]})
    log.turn()
    deliver(*pair, NBYTES)
    cost = log.write(tmp_path / "sockets.jsonl", "load", {"a": ends_of(pair[0])})
    (one,) = read_sockets(tmp_path / "sockets.jsonl")
    assert (one.kind, one.ends, len(one.t)) == ("load", ends_of(pair[0]), 2)
    assert one.acked_bytes[-1] - one.acked_bytes[0] == NBYTES
    assert one.sent_bytes[-1] - one.sent_bytes[0] >= NBYTES  # what is sent again counts again
    said = report(pair[0])
    assert one.rtt_ms[-1] == pytest.approx(said.rtt_ms) and one.retransmits[-1] == said.retransmits
    assert 0 < one.min_rtt_ms[-1] <= one.rtt_ms.max() and one.cwnd[-1] > 0
    assert cost["samples"] == 2 and cost["took_ms"] >= 0


def test_a_sample_is_taken_when_it_is_time(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """A turn too early takes none and says how long there is still; the period later it takes one."""
    log = SocketLog({"a": pair[0]})
    first = time.monotonic()
    left_s = log.turn()
    assert 0 < left_s <= PERIOD_S + 1e-9 and log.taken == 1  # sums of floats
    while log.turn() > 0 and log.taken < 3:
        assert log.taken == 1 or time.monotonic() - first >= PERIOD_S
    log.write(tmp_path / "sockets.jsonl", "load", {"a": ends_of(pair[0])})
    (one,) = read_sockets(tmp_path / "sockets.jsonl")
    assert (np.diff(one.t[:3]) >= 0.99 * PERIOD_S).all()  # times are rounded


def test_who_has_no_sender_is_never_woken(tmp_path: Path) -> None:
    """No turn is ever due, and nothing is written."""
    log = SocketLog({})
    assert log.turn() == inf
    assert log.write(tmp_path / "sockets.jsonl", "load", {}) == {"samples": 0, "took_ms": 0.0}
    assert not (tmp_path / "sockets.jsonl").exists()


def test_several_processes_append_to_one_file(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """A line a socket, each with its kind."""
    for kind in ("collective", "load"):
        SocketLog({1: pair[0]}).write(tmp_path / "sockets.jsonl", kind, {1: ends_of(pair[0])})
    assert [one.kind for one in read_sockets(tmp_path / "sockets.jsonl")] == ["collective", "load"]


def test_a_rank_takes_its_turns_while_it_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    """No wait is longer than the turn allows: a rank whose data comes late has had many by then."""
    turns = [0]

    def turn() -> float:
        turns[0] += 1
        if turns[0] == 5:
            pair[0].sendall(initial(1, 8, 0, "int32").tobytes())
        return 0.01

    pair[1].setblocking(False)
    data = initial(0, 8, 0, "int32")
    play(program(incast(2, 8), 0), data, {}, {(1, 0): pair[1]}, time.monotonic() + DEADLINE_S, turn)
    assert turns[0] >= 5
    assert data.tolist() == (initial(0, 8, 0, "int32") + initial(1, 8, 0, "int32")).tolist()  # type: ignore[operator]


def test_background_flows_have_turns_while_they_send(pair: tuple[socket.socket, socket.socket]) -> None:
    """Until the end, about as often as receivers are looked at."""
    turns: list[float] = []
    control, other = socket.socketpair()
    with control, other:
        for end in pair:
            end.setblocking(False)
        begin = time.monotonic()
        counts: dict[int, Any] = {}
        worker = threading.Thread(
            target=lambda: counts.update(run_flows(
                {0: pair[0]}, {0: pair[1]}, begin, lambda: False, control.fileno(), begin + 0.5, lambda: turns.append(time.monotonic())
            ))
        )  # fmt: skip
        worker.start()
        worker.join(DEADLINE_S)
    assert len(turns) > 5 and turns[0] >= begin and counts[0].total > 0


def series(t: list[float], rtt: list[float], acked: list[int], kind: str = "load") -> SocketSeries:
    zeros = np.zeros(len(t), np.int64)
    return SocketSeries(kind, Endpoints("a", 1, "b", 2), np.array(t), np.array(rtt), np.array(rtt), zeros, zeros, np.array(acked), np.array(acked))


def test_round_trips_of_all_senders_together() -> None:
    """The median of 1 to 4 and of 100, by percentile: collective and load alike."""
    found = [series([0, 1, 2, 3, 4], [9, 1, 2, 3, 4], [0, 1, 2, 3, 4]), series([0, 1], [9, 100], [0, 5], "collective")]
    got = rtt_percentiles_ms(found, (0.5, 9.0))
    assert got == pytest.approx([3.0, 80.8])


def test_a_sample_in_which_nothing_came_back_repeats_what_was(tmp_path: Path) -> None:
    """It does not count, nor one outside the window, nor one before there is any round trip."""
    found = [series([0, 1, 2, 3, 4], [np.nan, np.nan, 20, 20, 70], [0, 1, 2, 2, 3])]
    assert rtt_percentiles_ms(found, (0.5, 3.5)) == [20.0, 20.0]
    assert rtt_percentiles_ms(found, (2.5, 3.5)) is None
    assert rtt_percentiles_ms([], (0, 1)) is None
    assert read_sockets(tmp_path / "none.jsonl") == []


def test_a_minimum_that_is_not_there_yet_is_none(tmp_path: Path) -> None:
    """As the kernel has none before the first answer; a file of another kind is named."""
    line = {"kind": "load", "src_ip": "a", "src_port": 1, "dst_ip": "b", "dst_port": 2, "t": [1.0], "rtt_ms": [0.0],
            "min_rtt_ms": [None], "cwnd": [10], "retransmits": [0], "acked_bytes": [0], "sent_bytes": [0]}  # fmt: skip
    (tmp_path / "sockets.jsonl").write_text(json.dumps(line) + "\n")
    (one,) = read_sockets(tmp_path / "sockets.jsonl")
    assert np.isnan(one.min_rtt_ms[0]) and np.isnan(one.rtt_ms[0])
    (tmp_path / "sockets.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"sockets\.jsonl: is not what the traffic writes: KeyError"):
        read_sockets(tmp_path / "sockets.jsonl")
