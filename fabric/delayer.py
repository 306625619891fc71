"""The delay line's process, `python -m fabric.delayer`: holds back, or loses, what hosts receive, where the kernel has no netem.

Its folder is in FABRIC_RUN: `delayer.json` comes in,

    {"delay_ms": 5, "hosts": {"h0": {"pid": 4711, "seed": 12}}, "loss": 0.01}

Goes out: `ready` once every host's queue is bound (what fills the queues comes after it), `delay.jsonl` with the totals so far,
four lines a second, and `report.json` at the end: the added delay's percentiles. It ends on SIGTERM.

One process serves all hosts: a socket belongs to the namespace that it was made in. The kernel stamps arrivals, so nothing
need be read before something is due: a packet that has not been read yet arrived within the last delay, and is due later.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fabric.errors import FabricError
from fabric.kernel import die_with_parent, inside_namespace, namespace_of
from fabric.nfqueue import PacketQueue, stamp_arrivals
from fabric.waiting import Waiting, gaps

__all__ = ["main", "serve"]

_PR_SET_TIMERSLACK = 29
_REPORT_NS = 250_000_000
_LONGEST_NAP_NS = 50_000_000  # unread packets fill a socket's buffer
_UNSTAMPED_NAP_NS = 200_000  # where the kernel does not stamp arrivals, reading a packet is its arrival
_SLACK_NS = 100_000  # and a hundredth of the delay at most: nothing may seem faster than ideal by it
_FIRST_IN_LINE = 1  # of SCHED_FIFO's priorities: before everything that is not real-time
_NICE = -15


def main() -> int:
    """Serve until told to stop; returns the exit code, 0 when it was told."""
    die_with_parent()
    folder = Path(os.environ["FABRIC_RUN"])
    request = json.loads((folder / "delayer.json").read_text())
    stop: list[int] = []
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda number, _: stop.append(number))
    try:
        with contextlib.ExitStack() as held:
            queues = [held.enter_context(_queue_of(host["pid"])) for host in request["hosts"].values()]
            held.enter_context(stamp_arrivals())
            waiting = _waiting(request)
            priority = _be_prompt()
            with open(folder / "delay.jsonl", "x", buffering=1) as totals:
                (folder / "ready").touch()
                unstamped = serve(queues, waiting, totals, stop)
            (folder / "report.json").write_text(json.dumps(_report(waiting, priority, unstamped), indent=1))
    except FabricError as err:
        print(f"fabric.delayer: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def _queue_of(pid: int) -> PacketQueue:
    namespace = namespace_of(pid)
    try:
        with inside_namespace(namespace):
            return PacketQueue()
    finally:
        os.close(namespace)


def _waiting(request: Mapping[str, Any]) -> Waiting:
    delay_ns = round(request["delay_ms"] * 1e6)
    losses = [gaps(host["seed"], request["loss"]) for host in request["hosts"].values()]
    return Waiting(delay_ns, losses, min(_SLACK_NS, delay_ns // 100))


def _be_prompt() -> str:
    """Sleep to the microsecond, and go before others when it is time; says by what."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    gc.disable()  # nothing here makes cycles
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIRST_IN_LINE))
        return "fifo"
    with contextlib.suppress(OSError):
        return f"nice {os.nice(_NICE)}"
    return "none"


def serve(queues: Sequence[PacketQueue], waiting: Waiting, totals: IO[str], stop: list[int]) -> int:
    """Hold packets back until there is something in `stop`; gives how many bore no time of arrival."""
    poll = select.epoll()
    by_descriptor = {queue.fileno(): number for number, queue in enumerate(queues)}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    now_ns, clock_ns, realtime = time.monotonic_ns, time.clock_gettime_ns, time.CLOCK_REALTIME
    packets = unstamped = report_at = 0
    nap_ns = _LONGEST_NAP_NS
    while not stop:
        if (wake_at := waiting.wake_at()) is not None:
            pause = min(wake_at - now_ns(), nap_ns)
            if pause > 0:
                time.sleep(pause / 1e9)
        found = poll.poll(0 if wake_at is not None else _REPORT_NS / 1e9)
        since = now_ns() - clock_ns(realtime)  # from a stamp to our clock; asked anew, as the other may be set
        for descriptor, _ in found:
            host = by_descriptor[descriptor]
            queue = queues[host]
            for packet, stamp in queue.read():
                packets += 1
                if not stamp:
                    unstamped += 1
                    nap_ns = _UNSTAMPED_NAP_NS
                if not waiting.arrive(host, packet, stamp + since if stamp else now_ns()):
                    queue.drop(packet)
        for host, last in waiting.release(now_ns()).items():
            queues[host].accept(last)
        if (now := now_ns()) >= report_at:
            totals.write(_line(now, packets, waiting, queues))
            report_at = now + _REPORT_NS
    totals.write(_line(now_ns(), packets, waiting, queues))
    return unstamped


def _line(now: int, packets: int, waiting: Waiting, queues: Sequence[PacketQueue]) -> str:
    late = waiting.lateness
    return json.dumps({
        "t": now / 1e9, "packets": packets, "released": late.released, "lost": waiting.lost, "late": late.late,
        "waiting": len(waiting), "overrun": sum(queue.overrun() for queue in queues), "cpu_s": time.process_time_ns() / 1e9,
    }) + "\n"  # fmt: skip


def _report(waiting: Waiting, priority: str, unstamped: int) -> dict[str, Any]:
    late, delay_ms = waiting.lateness, waiting.delay_ns / 1e6
    measured = {f"p{percent}": late.percentile_ms(percent) for percent in (5, 50, 95, 99)}
    return {
        "priority": priority, "unstamped": unstamped, "worst_late_ms": late.worst_ns / 1e6,
        "added_ms": {name: None if value is None else round(delay_ms + value, 3) for name, value in measured.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
