"""Orders to hosts and ports: what goes over the line, who may send it, and that each one gets its answer."""

from __future__ import annotations

import io
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fabric.desk import Desk, Refused
from fabric.errors import RunError
from fabric.graph import Port
from fabric.lines import listening
from fabric.orders import Agency, Answer, described, from_json, to_json
from fabric.policy import FlowKey, Lever, SetEcn, SetPriority, SetRate, SetTransport, Shift, Transport
from fabric.routes import Metrics
from fabric.tuning import send_buffer, with_transport

FLOW = FlowKey("10.0.0.2", 20000, "10.1.0.2", 5001)
EVERY: list[Lever] = [
    SetPriority(FLOW, True, ""),
    SetRate(FLOW, 4.5, ""),
    SetRate("h0", None, ""),
    SetEcn(Port("s0", 3), 1514, 3028, ""),
    SetTransport("h0", Transport(rto_min_ms=20, window_packets=3), ""),
    Shift("job.1", 120.0, ""),
]
TOKEN = "a secret"


@pytest.mark.parametrize("lever", EVERY, ids=lambda lever: type(lever).__name__)
def test_an_order_comes_over_the_line_as_it_was(lever: Lever) -> None:
    """Through JSON and back; without its reason, which is the log's."""
    assert from_json(json.loads(json.dumps(to_json(lever)))) == lever


def test_every_kind_of_order_is_told_apart() -> None:
    """By what it is, on what, and what was asked."""
    told = [described(lever) for lever in EVERY]
    assert [line["lever"] for line in told] == ["priority", "rate", "rate", "ecn", "transport", "shift"]
    assert [line["on"] for line in told] == [str(FLOW), str(FLOW), "h0", "s0-eth3", "h0", "job.1"]
    json.dumps(told)


@pytest.mark.parametrize("order", [{"do": "dance"}, {"do": "priority"}, {"do": "rate", "flow": {"src_ip": "10.0.0.2"}, "mbps": 1}, {}])
def test_what_is_no_order_is_refused(order: dict[str, Any]) -> None:
    """By an error that the desk turns into an answer."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_json(order)


class Counter:
    """A desk at work: what it was given, and its log."""

    def __init__(self, path: Path) -> None:
        self.path, self.given, self.log = path, list[Lever](), io.StringIO()
        self.listener = listening(path)
        Thread(target=Desk(self.do, TOKEN, self.log).serve, args=(self.listener,), daemon=True).start()

    def do(self, lever: Lever) -> Any:
        if lever == EVERY[-1]:
            raise Refused("no such job")
        self.given.append(lever)
        return described(lever)["asked"]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@pytest.fixture
def desk() -> Iterator[Counter]:
    """A desk on a socket of its own, whose path is short enough for one."""
    with tempfile.TemporaryDirectory() as folder:
        counter = Counter(Path(folder) / "desk")
        yield counter
        counter.listener.close()


def test_every_order_gets_its_answer_in_turn(desk: Counter) -> None:
    """Those that are refused among those that are done; and each stands in the log with what came of it."""
    agency = Agency(desk.path, TOKEN)
    answers = agency.give(EVERY)
    assert answers == [*(Answer(json.loads(json.dumps(described(lever)["asked"]))) for lever in EVERY[:-1]), Answer(error="no such job")]
    assert desk.given == EVERY[:-1]
    assert agency.give([EVERY[0]]) == [Answer(True)]
    assert [("got" in line, line["order"]["do"]) for line in desk.lines[:6]] == [(one != EVERY[-1], to_json(one)["do"]) for one in EVERY]
    assert all(line["took_ms"] >= 0 for line in desk.lines)


def test_who_does_not_know_the_token_gets_nothing_done(desk: Counter) -> None:
    """And is told so; the next who does is served."""
    with pytest.raises(RunError, match="refused us: the token"):
        Agency(desk.path, "a guess")
    assert desk.given == [] and desk.lines == []
    assert Agency(desk.path, TOKEN).give([EVERY[0]]) == [Answer(True)]


def test_the_socket_is_its_users_alone(desk: Counter) -> None:
    """Nobody else can even knock."""
    assert desk.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words", [b"\n", b"[]\n", b'{"token": 1', b"\xff\xfe\n"])
def test_who_talks_nonsense_is_hung_up_on_and_the_next_is_served(desk: Counter, words: bytes) -> None:
    """Also one who goes in mid-word."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(desk.path))
        channel.sendall(words)
        channel.shutdown(socket.SHUT_WR)
        assert channel.recv(1000) in (b"", b'{"error": "the token, or the user, is not the controller\'s of this run"}\n')
    assert Agency(desk.path, TOKEN).give([EVERY[0]]) == [Answer(True)]


def test_a_broken_order_is_answered_with_why(desk: Counter) -> None:
    """It is no reason to hang up."""
    agency = Agency(desk.path, TOKEN)
    assert "no order is called 'dance'" in agency._ask({"orders": [{"do": "dance"}]})["answers"][0]["error"]
    assert agency.give([EVERY[0]]) == [Answer(True)]


def test_an_agent_that_is_not_there_is_named(tmp_path: Path) -> None:
    """In one line."""
    with pytest.raises(RunError, match="the agent of hosts and ports does not answer"):
        Agency(tmp_path / "nobody", TOKEN)


def test_a_route_keeps_what_was_not_ordered() -> None:
    """Only what is given is changed."""
    route = Metrics(200, 10, 40)
    assert with_transport(route, Transport(rto_min_ms=20)) == Metrics(20, 10, 40)
    assert with_transport(route, Transport(initcwnd=4, window_packets=3)) == Metrics(200, 4, 40)


@pytest.mark.parametrize("mss", [1448, 8948])
@pytest.mark.parametrize("packets", [2, 3, 10])
@pytest.mark.parametrize("overhead", [768, 1280])
def test_a_send_buffer_takes_so_many_packets(packets: int, mss: int, overhead: int) -> None:
    """Whatever the kernel counts beside the payload, within reason: it takes another one while the buffer is not full."""
    limit, under_way, held = send_buffer(packets, mss), 0, 0
    while held < limit:
        under_way, held = under_way + 1, held + mss + overhead
    assert abs(under_way - packets) <= (packets == 10)
