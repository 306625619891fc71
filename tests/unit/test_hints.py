"""A collective's announcement: said once, answered when placed, and refused clearly when nobody listens."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from threading import Thread

import pytest

from fabric.hints import BEGIN, PLAN, Announced, Beat, announce, serve, tell_beat
from fabric.lines import listening

FLOWS = [Announced("10.0.0.2", 20000, "10.1.0.2", 5001, 1 << 20, 30), Announced("10.1.0.2", 20001, "10.0.0.2", 5002, 1 << 20, 30)]


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a socket may lie; Unix limits such a path to 107 bytes."""
    return tmp_path_factory.mktemp("h") / "s"


def test_the_answer_comes_when_the_flows_are_placed(path: Path) -> None:
    """The controller's side gets what was announced, and its number goes back."""
    heard: list[tuple[str, list[Announced]]] = []

    def place(phase: str, flows: list[Announced]) -> int:
        heard.append((phase, flows))
        return len(flows)

    with listening(path) as listener:
        Thread(target=serve, args=(listener, place), daemon=True).start()
        assert announce(str(path), FLOWS, 5.0, PLAN) == 2
        assert announce(str(path), FLOWS[:1], 5.0) == 1
    assert heard == [(PLAN, FLOWS), (BEGIN, FLOWS[:1])]
    assert str(FLOWS[0].key) == "10.0.0.2:20000>10.1.0.2:5001"


def test_iterations_are_told_of(path: Path) -> None:
    """In order, and each is answered for."""
    heard: list[Beat] = []
    beats = [Beat("job.1", number, 100.0 + number, 0.4) for number in range(3)]
    with listening(path) as listener:
        Thread(target=serve, args=(listener, lambda _, flows: len(flows), heard.append), daemon=True).start()
        for beat in beats:
            tell_beat(str(path), beat, 5.0)
    assert heard == beats


def test_only_the_same_user_may_speak(path: Path) -> None:
    """The socket is nobody else's to write to."""
    with listening(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("nonsense", [b"\n", b"{}\n", b'{"flows": [{"src_ip": 1}]}\n', b'{"flows": 3}\n', b"\xff\xfe\n", b"no end"])
def test_nonsense_is_ignored_and_the_next_one_heard(nonsense: bytes, path: Path) -> None:
    """Whoever says it gets no answer; the server lives on."""
    with listening(path) as listener:
        Thread(target=serve, args=(listener, lambda _, flows: len(flows)), daemon=True).start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(5)
            channel.connect(str(path))
            channel.sendall(nonsense)
            channel.shutdown(socket.SHUT_WR)
            assert channel.recv(100) == b""
        assert announce(str(path), FLOWS, 5.0) == 2


def test_nobody_listening_is_an_error(path: Path) -> None:
    """Not a silence."""
    with pytest.raises(OSError, match="No such file"):
        announce(str(path), FLOWS, 1.0)


def test_no_answer_is_a_time_out(path: Path) -> None:
    """A controller that takes the hint and places nothing does not hold the collective up for ever."""
    with listening(path), pytest.raises(TimeoutError):
        announce(str(path), FLOWS, 0.1)


def test_an_announcement_is_one_line_of_json(path: Path) -> None:
    """So that anyone's controller can read it."""
    with listening(path) as listener:
        Thread(target=lambda: announce_quietly(path), daemon=True).start()
        channel, _ = listener.accept()
        with channel, channel.makefile("rb") as file:
            line = json.loads(file.readline())
    assert line["phase"] == BEGIN
    assert line["flows"][0] == {
        "src_ip": "10.0.0.2", "src_port": 20000, "dst_ip": "10.1.0.2", "dst_port": 5001, "nbytes": 1 << 20, "transfers": 30,
        "job": "collective",
    }  # fmt: skip


def announce_quietly(path: Path) -> None:
    """Announce to a listener that will not answer."""
    with pytest.raises(OSError, match="closed"):
        announce(str(path), FLOWS, 5.0)
