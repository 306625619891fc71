"""The sampler without root: a recorded netlink dump, the rhythm, the files, and the process on the loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric import sampler
from fabric.errors import RequestError, RunError
from fabric.polling import until
from fabric.qdiscs import FIELDS, Layout, QueueReader, Segment, Watched, learn
from fabric.sampler import CpuReader, cpu_shares, next_due, read_request, thread_shares
from fabric.telemetry import CpuSample, ProcessSample, Queues, read_cpu, read_queues, utilisation

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
DEADLINE_S = 20
NO_QUEUE = "q1-eth2"  # of the recorded interfaces, the one without a shaper that is watched


@pytest.fixture
def dump() -> bytes:
    """A dump as the kernel sent it: q0-eth1 has HTB over one pfifo, q1-eth1 over a pfifo and a bfifo."""
    return (DATA / "qdisc_dump.bin").read_bytes()


@pytest.fixture
def shown() -> dict[str, Any]:
    """What `tc -s -j qdisc show` printed around the recording, and the ifindexes."""
    found: dict[str, Any] = json.loads((DATA / "qdisc_dump.json").read_text())
    return found


def learnt(dump: bytes, shown: dict[str, Any], *names: str) -> Layout:
    column = {shown["ifindex"][name]: index for index, name in enumerate(names)}
    return learn(dump, [Segment(0, len(dump), column)])


def gathered(dump: bytes, layout: Layout) -> dict[str, list[int]] | None:
    rows = layout.gather(np.frombuffer(dump, np.uint32), len(dump))
    return None if rows is None else dict(zip(FIELDS, rows, strict=True))


def expected(shown: dict[str, Any], name: str) -> dict[str, int]:
    """The five figures of an interface from tc's own table: queue from the leaves, sent from the root."""
    mine = [qdisc for qdisc in shown["qdiscs"] if qdisc["dev"] == name]
    [root] = [qdisc for qdisc in mine if qdisc.get("root")]
    leaves = [qdisc for qdisc in mine if qdisc.get("parent", "").startswith("1:")] or [root]
    backlog_bytes, backlog_packets, drops = (sum(leaf[key] for leaf in leaves) for key in ("backlog", "qlen", "drops"))
    return dict(zip(FIELDS, (backlog_bytes, backlog_packets, drops, root["bytes"], root["packets"]), strict=True))


@pytest.mark.parametrize("names", [("q0-eth1",), ("q1-eth1", NO_QUEUE, "q0-eth1"), ("q0-eth1", NO_QUEUE)])
def test_a_recorded_dump_gives_what_tc_printed(dump: bytes, shown: dict[str, Any], names: tuple[str, ...]) -> None:
    """Every figure equals tc's, in the order asked for, summed over priority classes."""
    rows = gathered(dump, learnt(dump, shown, *names))
    assert rows == {field: [expected(shown, name)[field] for name in names] for field in FIELDS}


def test_marks_are_read_from_among_the_counters_of_red() -> None:
    """A dump of Debian's 6.1 kernel: a burst into HTB over RED over a pfifo, which dropped eight, and one more until `tc` looked."""
    dump, shown = (DATA / "qdisc_dump_red.bin").read_bytes(), json.loads((DATA / "qdisc_dump_red.json").read_text())
    layout = learnt(dump, shown, "r0-eth2", "r0-eth1")
    [red] = [qdisc for qdisc in shown["qdiscs"] if qdisc["kind"] == "red"]
    assert {column: int(np.frombuffer(dump, np.uint32)[word]) for column, word in layout.marking.items()} == {1: red["marked"]} == {1: 37}
    rows = gathered(dump, layout)
    assert rows is not None and {key: row[1] for key, row in rows.items()} == {**expected(shown, "r0-eth1"), "drops": 8}


def test_the_recording_holds_backlog_and_drops(shown: dict[str, Any]) -> None:
    """The recorded moment is one where a wrong position would show: all figures differ from 0 and from each other."""
    figures = expected(shown, "q1-eth1").values()
    assert 0 not in figures and len(set(figures)) == len(FIELDS)


def test_the_root_counts_each_drop_of_its_leaves_once_more(shown: dict[str, Any]) -> None:
    """The reason why drops are taken from the leaves alone."""
    for name in ("q0-eth1", "q1-eth1"):
        [root] = [qdisc for qdisc in shown["qdiscs"] if qdisc["dev"] == name and qdisc.get("root")]
        assert root["drops"] == expected(shown, name)["drops"] > 0


def test_a_later_dump_is_read_at_the_learnt_positions(dump: bytes, shown: dict[str, Any]) -> None:
    """A counter that moved is seen without learning again, also beyond 32 bits."""
    layout = learnt(dump, shown, "q0-eth1")
    at = 4 * layout.at[0]  # of the first interface's sent bytes
    rows = gathered(dump[:at] + np.uint64(2**40 + 3).tobytes() + dump[at + 8 :], layout)
    assert rows is not None and rows["sent_bytes"] == [2**40 + 3] and rows["drops"] == [38]


@pytest.mark.parametrize("what", ["shorter", "other interface", "other handle"])
def test_a_dump_with_other_headers_is_not_read_by_the_old_layout(dump: bytes, shown: dict[str, Any], what: str) -> None:
    """No figure is taken from a place whose header says something else."""
    layout = learnt(dump, shown, "q0-eth1")
    if what == "shorter":
        changed = dump[:-20]
    else:
        words = np.frombuffer(dump, np.uint32).copy()
        words[5 if what == "other interface" else 6] += 1
        changed = words.tobytes()
    assert gathered(changed, layout) is None


def test_an_interface_that_is_not_in_the_dump_is_not_found(dump: bytes, shown: dict[str, Any]) -> None:
    """The columns that were found say which are missing."""
    layout = learn(dump, [Segment(0, len(dump), {shown["ifindex"]["q1-eth1"]: 2, 4711: 0})])
    assert layout.found == (2,)


def test_an_error_message_in_a_dump_is_not_taken_for_a_qdisc(dump: bytes, shown: dict[str, Any]) -> None:
    """A refusal of the kernel ends as RunError."""
    words = np.frombuffer(dump, np.uint16).copy()
    words[2] = 2  # NLMSG_ERROR
    with pytest.raises(RunError, match="type 2"):
        learnt(words.tobytes(), shown, "q0-eth1")


def test_the_loopback_interface_can_be_read_without_root() -> None:
    """A real dump of this machine is read twice alike: learnt, and at the learnt positions."""
    with QueueReader([Watched("lo")]) as reader:
        first, second = reader.read(), reader.read()
        assert [len(row) for row in first] == [len(row) for row in second] == [1] * len(FIELDS)
        assert reader.gone == ()


def test_a_missing_interface_is_named() -> None:
    """The error of a wrong name is one line with the name in it."""
    with pytest.raises(RequestError, match="no interface nowhere0 in the namespace of the sampler"):
        QueueReader([Watched("nowhere0")])


def test_due_times_stay_on_the_grid_and_skips_are_counted() -> None:
    """With a clock moved by hand: no drift, lateness up to a period is caught up, more is skipped and counted."""
    period, now, due, missed = 50, 0, 0, 0
    seen = []
    for cost in (10, 49, 70, 10, 260, 10):
        now = max(now, due)
        seen.append((due, now - due, missed))
        now += cost
        due, missed = next_due(due, now, period)
    assert seen == [(0, 0, 0), (50, 0, 0), (100, 0, 0), (150, 20, 0), (200, 0, 0), (450, 10, 4)]
    assert all(at % period == 0 for at, _, _ in seen)
    assert due == 500


def test_cpu_shares_are_of_all_cores() -> None:
    """Idle counts waiting for disks, steal is its own, guest time is not counted twice."""
    before = (10, 0, 10, 100, 0, 0, 0, 0, 5, 0)
    after = (30, 0, 20, 150, 10, 0, 0, 10, 25, 0)
    assert cpu_shares(before, after) == (0.6, 0.1)


def test_the_busiest_thread_is_found_and_new_threads_count_from_zero() -> None:
    """Shares are of one core over the interval; the sum is over all threads."""
    shares = thread_shares({1: 500, 2: 100}, {1: 600, 2: 400, 3: 200}, 1000, os.getpid())
    assert shares == {"busiest": 0.3, "name": "?", "sum": 0.6}


def test_a_process_that_ended_is_null_whether_reaped_or_not() -> None:
    """A vanished process and one that waits to be reaped read as None, a living one does not."""
    with subprocess.Popen(["true"]) as reaped:
        pass
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    try:
        cpu = CpuReader({"reaped": reaped.pid, "zombie": zombie.pid, "me": os.getpid()}, time.monotonic_ns())
        spend(20_000_000)
        threads = cpu.read(time.monotonic_ns())["threads"]
    finally:
        zombie.wait()
    assert threads["reaped"] is None and threads["zombie"] is None
    assert 0 < threads["me"]["busiest"] <= threads["me"]["sum"]


def test_ticks_are_used_where_the_scheduler_keeps_no_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and system ticks of proc(5)'s stat, found behind a name with blanks and brackets."""

    def read(path: str) -> bytes:
        stat = b"7 (a ) b) R " + b" ".join(b"%d" % field for field in range(4, 25))
        return b"0 0 0\n" if path.endswith("schedstat") else stat

    monkeypatch.setattr(sampler, "_read", read)
    assert sampler._cpu_ns("/proc/7/task/7") == (14 + 15) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def spend(nanoseconds: int) -> None:
    """Keep this process busy for that much of its own CPU time."""
    end = time.process_time_ns() + nanoseconds
    while time.process_time_ns() < end:
        pass


LO = {"interface": "lo", "pid": 0}
GOOD = {"period_ms": 20, "cpu_period_ms": 100, "interfaces": [LO], "processes": {"switch": 1}}


def test_a_good_request_is_read(tmp_path: Path) -> None:
    """Every value arrives, and what may be left out has its default."""
    path = tmp_path / "sampler.json"
    path.write_text(json.dumps(GOOD))
    request = read_request(path)
    assert request == sampler.Request(20.0, 100.0, (Watched("lo", 0),), {"switch": 1}, None)
    path.write_text(json.dumps({**GOOD, "marks": {"qdisc": "red"}}))
    assert read_request(path).marks == {"qdisc": "red"}
    path.write_text('{"interfaces": [{"interface": "lo"}]}')
    assert read_request(path) == sampler.Request(50.0, 250.0, (Watched("lo", 0),), {}, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"period_ms": 0}, "period_ms: got 0; accepted: milliseconds from 1 to 60000"),
        ({"period_ms": True}, "period_ms: got true"),
        ({"cpu_period_ms": 5}, "cpu_period_ms: got 5; accepted: milliseconds from 100"),
        ({"interfaces": None}, "interfaces: got null; accepted: a list"),
        ({"interfaces": ["lo"]}, r'interfaces\[0\]: got "lo"'),
        ({"interfaces": [LO, LO]}, r"interfaces\[1\].interface: got \"lo\"; .*each once"),
        ({"interfaces": [{"interface": "lo", "pid": -1}]}, r"interfaces\[0\].pid: got -1"),
        ({"processes": {"switch": "1"}}, 'processes.switch: got "1"; accepted: a process id'),
        ({"parent": 0}, "parent: got 0"),
        ({"marks": {"qdisc": "fq"}}, 'marks: got {"qdisc": "fq"}; accepted: {"map": NUMBER'),
        ({"preiod_ms": 50}, "preiod_ms.*accepted: period_ms"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """The error names file, key, what was got and what is accepted."""
    path = tmp_path / "sampler.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(RequestError, match=message) as caught:
        read_request(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


HEADER = {"interfaces": ["a", "b"], "fields": FIELDS, "period_ms": 50}


def line(t: float, sent: list[int], **more: Any) -> str:
    queue = {"backlog_bytes": [5, 6], "backlog_packets": [1, 2], "drops": [3, 4]}
    rows = {**queue, "sent_bytes": sent, "sent_packets": [7, 8]}
    return json.dumps({"t": t, "late_ms": 0.5, "missed": 0, **rows, **more})


def recorded(folder: Path, *lines: str, end: str = "\n") -> Queues:
    path = folder / "queues.jsonl"
    path.write_text("\n".join([json.dumps(HEADER), *lines]) + end)
    return read_queues(path)


def test_queues_are_read_into_arrays(tmp_path: Path) -> None:
    """Samples are rows, interfaces columns, and interfaces that were gone are named."""
    queues = recorded(tmp_path, line(1.0, [0, 0]), line(1.05, [10, 20], missed=2, gone=["b"]))
    assert queues.interfaces == ("a", "b") and queues.period_ms == 50 and queues.gone == ("b",)
    assert queues.t.tolist() == [1.0, 1.05] and queues.late_ms.tolist() == [0.5, 0.5]
    assert queues.missed.tolist() == [0, 2]
    assert queues.sent_bytes.tolist() == [[0, 0], [10, 20]] and queues.sent_packets.tolist() == [[7, 8], [7, 8]]
    assert queues.backlog_packets.tolist() == [[1, 2], [1, 2]] and queues.backlog_bytes.tolist() == [[5, 6], [5, 6]]
    assert queues.drops.tolist() == [[3, 4], [3, 4]]


def test_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    """What was whole is read, wherever the last line was cut."""
    whole = line(2.0, [9, 9])
    for cut in (1, len(whole) // 2, len(whole) - 1):
        assert recorded(tmp_path, line(1.0, [0, 0]), whole[:cut], end="").t.tolist() == [1.0]


def test_a_record_without_samples_has_empty_arrays(tmp_path: Path) -> None:
    """The shape still says how many interfaces there are."""
    assert recorded(tmp_path).sent_bytes.shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"interfaces": ["a"]', "is empty"),
        ('{"interfaces": ["a"]}\n', "not what the sampler writes: KeyError"),
        (json.dumps(HEADER) + "\n{broken\n" + line(1.0, [0, 0]) + "\n", r":2: is not JSON"),
        (json.dumps(HEADER) + "\n" + line(1.0, [0, 0, 0]) + "\n", "not what the sampler writes: ValueError"),
    ],
)
def test_a_broken_record_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Only a cut end is forgiven."""
    path = tmp_path / "queues.jsonl"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_queues(path)


def test_utilisation_is_sent_over_configured_capacity(tmp_path: Path) -> None:
    """Bytes of each interval, over its own length, against each interface's own rate."""
    queues = recorded(tmp_path, line(1.0, [0, 100]), line(1.5, [1_250_000, 100]), line(2.5, [1_250_000, 250_100]))
    t, shares = utilisation(queues, {"a": 20, "b": 4})
    assert t.tolist() == [1.5, 2.5]
    assert shares == pytest.approx(np.array([[1.0, 0.0], [0.0, 0.5]]))


def test_utilisation_needs_a_rate_for_every_interface(tmp_path: Path) -> None:
    """An interface without a rate is named, not guessed."""
    with pytest.raises(RequestError, match="for b;"):
        utilisation(recorded(tmp_path, line(1.0, [0, 0])), {"a": 20})


def test_cpu_samples_are_read(tmp_path: Path) -> None:
    """A process that had vanished is None; a cut last line is left out."""
    path = tmp_path / "cpu.jsonl"
    busy = {"busiest": 0.4, "name": "handler1", "sum": 0.5}
    sample = {"t": 1.0, "idle": 0.5, "steal": 0.1, "threads": {"switch": busy, "gone": None}, "sampler": 0.01}
    whole = json.dumps(sample)
    path.write_text(whole + "\n" + whole[:-1])
    threads = {"switch": ProcessSample(0.4, "handler1", 0.5), "gone": None}
    assert read_cpu(path) == [CpuSample(1.0, 0.5, 0.1, threads, 0.01)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the sampler on `tmp_path`, and ends what is left of it."""
    started: list[subprocess.Popen[str]] = []

    def run(request: dict[str, Any], *command: str) -> subprocess.Popen[str]:
        (tmp_path / "sampler.json").write_text(json.dumps(request))
        environment = {**os.environ, "FABRIC_RUN": str(tmp_path), "PYTHONPATH": str(ROOT)}
        arguments = [*command, sys.executable, "-m", "fabric.sampler"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(arguments, env=environment, stderr=pipe, stdout=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], what: str) -> None:
    assert until(condition, DEADLINE_S), f"{what}: not within {DEADLINE_S} s"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_on_a_signal_with_whole_files(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], how: signal.Signals
) -> None:
    """After a signal the exit code is 0, no line is cut, and both files say what was sampled."""
    process = start({**GOOD, "processes": {"me": os.getpid()}, "parent": os.getpid()})
    wait_for((tmp_path / "ready").exists, "ready")
    wait_for(lambda: read_cpu(tmp_path / "cpu.jsonl"), "a first CPU sample")
    wait_for(lambda: (tmp_path / "queues.jsonl").read_text().count("\n") > 2, "a header and two samples")
    process.send_signal(how)
    assert process.wait(DEADLINE_S) == 0
    for name in ("queues.jsonl", "cpu.jsonl"):
        assert (tmp_path / name).read_text().endswith("\n")
    queues, cpu = read_queues(tmp_path / "queues.jsonl"), read_cpu(tmp_path / "cpu.jsonl")
    assert queues.interfaces == ("lo",) and len(queues.t) >= 2 and (np.diff(queues.t) > 0).all()
    assert cpu[0].threads["me"] is not None and 0 <= cpu[0].idle <= 1 and cpu[0].sampler >= 0


def test_the_process_ends_with_its_parent(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """When whoever started it is killed, the sampler ends too, with whole files."""
    parent = start(GOOD, "/bin/sh", "-c", '"$@" & echo $!; wait', "sh")
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for((tmp_path / "ready").exists, "ready")
    parent.kill()
    parent.wait()
    wait_for(lambda: sampler._thread_times(child) is None, "the end of the sampler")
    assert (tmp_path / "queues.jsonl").read_text().endswith("\n")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"interfaces": "all"}, "interfaces: got"),
        ({**GOOD, "interfaces": [{"interface": "nowhere0"}]}, "no interface nowhere0"),
        ({**GOOD, "parent": 2**30}, "who started the sampler has ended"),
    ],
)
def test_a_wrong_request_ends_the_process_with_one_line(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], request_: dict[str, Any], message: str
) -> None:
    """Exit code 2, one line, no traceback, and nothing is ready."""
    process = start(request_)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2 and message in stderr and stderr.count("\n") == 1
    assert not (tmp_path / "ready").exists()


def test_a_recorded_folder_is_not_written_over(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """A second sampler in the same folder is refused, and the first record stays as it was."""
    (tmp_path / "queues.jsonl").write_text("precious\n")
    process = start(GOOD)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2 and "is there already" in stderr
    assert (tmp_path / "queues.jsonl").read_text() == "precious\n"
