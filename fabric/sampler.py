"""The telemetry process, `python -m fabric.sampler`: reads queues and CPU at a fixed rhythm while a network runs.

Comes in: the folder in FABRIC_RUN, and `sampler.json` there:

    {"period_ms": 50, "cpu_period_ms": 250,
     "interfaces": [{"interface": "p0e1-eth3", "pid": 0}, {"interface": "p0e1h0-eth0", "pid": 4711}],
     "processes": {"switch": 123, "controller": 456}, "parent": 99, "marks": {"map": 17, "ports": {"p0e1-eth3": 5}}}

pid 0 is this process's own network namespace, any other the namespace of that process. `parent` may be left out, and `marks`,
which `fabric.marking` tells where queues mark.
Goes out: `queues.jsonl` and `cpu.jsonl`, one line a sample, in the file half a second later at most, and `ready` after
the first; `fabric.telemetry` reads them. It ends on SIGTERM, on SIGINT, and by itself when its parent ends.

It is a process of its own, so that it keeps its rhythm while the runner is busy.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fabric.errors import FabricError, RequestError
from fabric.marking import MarkReader
from fabric.qdiscs import FIELDS, QueueReader, Watched

__all__ = ["CpuReader", "Request", "cpu_shares", "machine_ticks", "main", "next_due", "read_request", "sample", "thread_shares"]

_BY_RED = {"qdisc": "red"}  # as fabric.markers tells it
_STOP = frozenset({signal.SIGTERM, signal.SIGINT})
_PR_SET_PDEATHSIG = 1
_FLUSH_NS = 500_000_000  # what a crash can lose
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Request:
    """What `sampler.json` asks for; `parent` is the runner's process id, None when it is not said."""

    period_ms: float
    cpu_period_ms: float
    interfaces: tuple[Watched, ...]
    processes: Mapping[str, int]
    parent: int | None = None
    marks: Mapping[str, Any] | None = None


def main() -> int:
    """Sample until told to stop; returns the exit code, 0 when it was told."""
    # Signals are held back and asked for between two samples, so that no line is ever cut by one.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    try:
        if "FABRIC_RUN" not in os.environ:
            raise RequestError("FABRIC_RUN is not set; it names the folder that holds sampler.json")
        folder = Path(os.environ["FABRIC_RUN"])
        request = read_request(folder / "sampler.json")
        _die_with_parent(request.parent)
        sample(folder, request)
    except FabricError as err:
        print(f"fabric.sampler: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def sample(folder: Path, request: Request) -> None:
    """Append samples to the files in `folder` until SIGTERM or SIGINT, which the caller has blocked."""
    period, cpu_period = (int(ms * 1e6) for ms in (request.period_ms, request.cpu_period_ms))
    with (
        QueueReader(request.interfaces) as queues,
        _new_file(folder / "queues.jsonl") as queue_file,
        _new_file(folder / "cpu.jsonl") as cpu_file,
    ):
        ready = folder / "ready"
        names = [one.interface for one in request.interfaces]
        marks = _marks(request.marks, names, queues)
        fields = (*FIELDS, "marks") if marks else FIELDS
        header = {"interfaces": names, "fields": fields, "period_ms": request.period_ms}
        queue_file.write(json.dumps(header) + "\n")
        queues.read()  # learns the layout, which costs more than all later readings do
        cpu = CpuReader(request.processes, time.monotonic_ns())
        due, missed = time.monotonic_ns(), 0
        cpu_due, flush_due = due + cpu_period, due
        while True:
            now = time.monotonic_ns()
            queue_file.write(_queue_line(queues, marks, now, due, missed))
            if now >= cpu_due:
                cpu_file.write(json.dumps(cpu.read(time.monotonic_ns())) + "\n")
                cpu_due, _ = next_due(cpu_due, now, cpu_period)
            if now >= flush_due:
                for file in (queue_file, cpu_file):
                    file.flush()
                if not ready.exists():
                    ready.touch()
                flush_due = now + _FLUSH_NS
            due, missed = next_due(due, time.monotonic_ns(), period)
            if signal.sigtimedwait(_STOP, max(0, due - time.monotonic_ns()) / 1e9):
                return


def next_due(due: int, now: int, period: int) -> tuple[int, int]:
    """The due time after `due`, and how many were skipped to reach it, because `now` is later by more than a period.

    All in nanoseconds. Due times stay on the grid of the first one, so that lateness does not add up.

    >>> next_due(100, 120, 50), next_due(100, 190, 50), next_due(100, 270, 50)
    ((150, 0), (150, 0), (250, 2))
    """
    following = due + period
    missed = max(0, (now - following - 1) // period)
    return following + missed * period, missed


def read_request(path: Path) -> Request:
    """The checked content of `sampler.json`; RequestError names the key, what was got and what is accepted."""
    try:
        data = json.loads(path.read_text())
    except OSError as err:
        raise RequestError(f"{path}: cannot be read: {err.strerror}; the runner writes it") from err
    except ValueError as err:
        raise RequestError(f"{path}: is not JSON: {err}") from err
    _require(isinstance(data, dict), path, "", data, "an object")
    unknown = sorted(set(data) - {"period_ms", "cpu_period_ms", "interfaces", "processes", "parent", "marks"})
    _require(not unknown, path, "", unknown, "period_ms, cpu_period_ms, interfaces, processes, parent, marks")
    processes = data.get("processes", {})
    _require(isinstance(processes, dict), path, "processes", processes, "an object of name and process id")
    for name, pid in processes.items():
        _require(_is_pid(pid), path, f"processes.{name}", pid, "a process id, above 0")
    parent = data.get("parent")
    _require(parent is None or _is_pid(parent), path, "parent", parent, "a process id, above 0")
    marks = data.get("marks")
    fine = marks in (None, _BY_RED) or (isinstance(marks, dict) and set(marks) == {"map", "ports"} and isinstance(marks["ports"], dict))
    _require(fine, path, "marks", marks, '{"map": NUMBER, "ports": {NAME: NUMBER}}, or {"qdisc": "red"}')
    return Request(
        period_ms=_number(data, path, "period_ms", 50, 1),
        # /proc/stat counts hundredths of a second: a shorter interval would hold too few of them.
        cpu_period_ms=_number(data, path, "cpu_period_ms", 250, 100),
        interfaces=_interfaces(data, path),
        processes=processes,
        parent=parent,
        marks=marks,
    )


def _interfaces(data: dict[str, Any], path: Path) -> tuple[Watched, ...]:
    items = data.get("interfaces")
    _require(isinstance(items, list), path, "interfaces", items, 'a list of {"interface": NAME, "pid": N}')
    found: dict[str, Watched] = {}
    for index, item in enumerate(items or ()):
        where = f"interfaces[{index}]"
        fine = isinstance(item, dict) and set(item) <= {"interface", "pid"}
        _require(fine, path, where, item, '{"interface": NAME, "pid": N}')
        name, pid = item.get("interface"), item.get("pid", 0)
        fine = isinstance(name, str) and bool(name) and name not in found
        _require(fine, path, f"{where}.interface", name, "a name, each once")
        fine = _is_pid(pid) or pid == 0
        _require(fine, path, f"{where}.pid", pid, "a process id, or 0 for the sampler's own namespace")
        found[name] = Watched(name, pid)
    return tuple(found.values())


def _number(data: dict[str, Any], path: Path, key: str, default: float, least: float) -> float:
    value = data.get(key, default)
    fine = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= 60_000
    _require(fine, path, key, value, f"milliseconds from {least:g} to 60000")
    return float(value)


def _is_pid(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _require(fine: object, path: Path, key: str, got: object, accepted: str) -> None:
    if not fine:
        raise RequestError(f"{path}: {key + ': ' if key else ''}got {json.dumps(got)[:80]}; accepted: {accepted}")


def _marks(asked: Mapping[str, Any] | None, names: list[str], queues: QueueReader) -> Callable[[], list[int]] | None:
    """How marks are read, after each reading of the queues: from our program's map, or from among RED's counters."""
    if not asked:
        return None
    return queues.marked if asked == _BY_RED else MarkReader(asked, names).read


def _queue_line(queues: QueueReader, marks: Callable[[], list[int]] | None, now: int, due: int, missed: int) -> str:
    # A list of integers prints as JSON writes it; json.dumps takes twice the time, and this is done 20 times a second.
    rows = "".join(f', "{name}": {row}' for name, row in zip(FIELDS, queues.read(), strict=True))
    rows += f', "marks": {marks()}' if marks else ""
    gone = f', "gone": {json.dumps(queues.gone)}' if queues.gone else ""
    took = f'"took_ms": {(time.monotonic_ns() - now) / 1e6:.3f}'
    return f'{{"t": {now / 1e9}, "late_ms": {(now - due) / 1e6:.3f}, "missed": {missed}, {took}{rows}{gone}}}\n'


class CpuReader:
    """Shares of the processors since the last reading, from /proc."""

    def __init__(self, processes: Mapping[str, int], now: int) -> None:
        """Take the first reading of `processes`, at `now` in nanoseconds."""
        self._processes = processes
        self._last = self._totals(now)

    def read(self, now: int) -> dict[str, Any]:
        """The line for `cpu.jsonl` of the interval that ends at `now`, in nanoseconds."""
        before, self._last = self._last, self._totals(now)
        elapsed = self._last.at - before.at
        idle, steal = cpu_shares(before.machine, self._last.machine)
        return {
            "t": now / 1e9,
            "idle": idle,
            "steal": steal,
            "threads": {
                name: thread_shares(before.threads[name], self._last.threads[name], elapsed, pid)
                for name, pid in self._processes.items()
            },
            "sampler": round((self._last.own - before.own) / elapsed, 4),
        }

    def _totals(self, now: int) -> _Totals:
        threads = {name: _thread_times(pid) for name, pid in self._processes.items()}
        return _Totals(now, machine_ticks(), threads, time.process_time_ns())


@dataclass(frozen=True, slots=True)
class _Totals:
    """CPU time used until `at`, in nanoseconds; of the machine in ticks; None for a process that is not there."""

    at: int
    machine: tuple[int, ...]
    threads: Mapping[str, Mapping[int, int] | None]
    own: int


def cpu_shares(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[float, float]:
    """Idle and stolen share of all cores between two first lines of /proc/stat.

    Columns as in proc(5): user nice system idle iowait irq softirq steal; guest time is already in user.
    """
    spent = [late - early for early, late in zip(before[:8], after[:8], strict=True)]
    total = max(1, sum(spent))
    return round((spent[3] + spent[4]) / total, 4), round(spent[7] / total, 4)


def thread_shares(
    before: Mapping[int, int] | None, after: Mapping[int, int] | None, elapsed: int, pid: int
) -> dict[str, Any] | None:
    """How much of a core a process's threads used: busiest, its name, and the sum; None when the process is not there.

    `before` and `after` are CPU nanoseconds by thread id; a thread that is new has used all of its time since.
    """
    if not after:
        return None
    spent = {thread: total - (before or {}).get(thread, 0) for thread, total in after.items()}
    busiest = max(spent, key=spent.__getitem__)
    return {
        "busiest": round(spent[busiest] / elapsed, 4),
        "name": _comm(pid, busiest),
        "sum": round(sum(spent.values()) / elapsed, 4),
    }


def machine_ticks() -> tuple[int, ...]:
    """What all processors did since the machine began, in hundredths of a second: the first line of /proc/stat."""
    return tuple(map(int, _read("/proc/stat").split(b"\n", 1)[0].split()[1:]))


def _thread_times(pid: int) -> dict[int, int] | None:
    """CPU nanoseconds by thread id; None when the process is gone or only waits for its parent to notice."""
    times: dict[int, int] = {}
    with suppress(OSError):
        if _stat(f"/proc/{pid}")[0] not in (b"Z", b"X"):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError):  # this thread ended while we looked
                    times[int(thread)] = _cpu_ns(f"/proc/{pid}/task/{thread}")
    return times or None


def _cpu_ns(task: str) -> int:
    with suppress(FileNotFoundError):
        spent = int(_read(f"{task}/schedstat").split()[0])
        if spent:
            return spent
    # A kernel without scheduler statistics has no such file, or zeros in it: then ticks must do.
    fields = _stat(task)
    return (int(fields[11]) + int(fields[12])) * _TICK_NS


def _stat(task: str) -> list[bytes]:
    """The fields of proc(5)'s stat after the command's name, which may hold blanks and brackets; state is the first."""
    return _read(f"{task}/stat").rpartition(b")")[2].split()


def _comm(pid: int, thread: int) -> str:
    with suppress(OSError):
        return _read(f"/proc/{pid}/task/{thread}/comm").decode(errors="replace").strip()
    return "?"


def _read(path: str) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, 65536)
    except ProcessLookupError as err:
        raise FileNotFoundError(path) from err
    finally:
        os.close(handle)


def _new_file(path: Path) -> IO[str]:
    try:
        return path.open("x", buffering=1 << 20)  # whole lines collect here until they are flushed
    except FileExistsError as err:
        raise RequestError(f"{path}: is there already; give every run its own folder") from err


def _die_with_parent(parent: int | None) -> None:
    """Ask the kernel for SIGTERM when the parent ends (more exactly: the thread of it that started us)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # A parent that ended before the line above sends no signal, but it has left us to another one: to process 1 unless
    # someone adopts orphans. A runner that is process 1, or below an adopter, says who it is.
    now = os.getppid()
    if now != parent if parent else now == 1:
        raise RequestError(f"sampler.json: parent: who started the sampler has ended; its parent is now process {now}")


if __name__ == "__main__":
    sys.exit(main())
