"""What was recorded while the network ran: the queues of every interface, and how busy the processors were.

Comes in: the JSONL files that `python -m fabric.sampler` appended. Goes out: numpy arrays and frozen samples, and the
utilisation of every interface. Pure: any machine can read a recorded run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.errors import RequestError, RunError

__all__ = ["CpuSample", "ProcessSample", "Queues", "read_cpu", "read_queues", "utilisation"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Queues:
    """Every queue over time: S samples of N interfaces.

    `t` [S] are seconds of CLOCK_MONOTONIC, taken before the kernel was asked, `took_ms` [S] how long until all was read: a
    figure is from somewhere in between; None in records that do not say it. `late_ms` [S] is how long after its due
    time a sample was taken, `missed` [S] how many due times were skipped before it. The arrays [S, N] are backlogs
    (now) and totals since the queue was made; `sent_bytes` counts frames with their Ethernet header. `gone` are
    interfaces that some sample did not find: from there on their totals stand still and their backlog reads 0. `marks` are
    packets marked with CE before they joined the queue; None where no queue marks.
    """

    interfaces: tuple[str, ...]
    period_ms: float
    t: Floats
    late_ms: Floats
    missed: Ints
    backlog_bytes: Ints
    backlog_packets: Ints
    drops: Ints
    sent_bytes: Ints
    sent_packets: Ints
    gone: tuple[str, ...] = ()
    marks: Ints | None = None
    took_ms: Floats | None = None


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """CPU of a process since the sample before: of its busiest thread (`name`), and of all; 1.0 is one core."""

    busiest: float
    name: str
    sum: float


@dataclass(frozen=True, slots=True)
class CpuSample:
    """The processors since the sample before: `idle` and `steal` are shares of all cores, `sampler` of one core.

    `t` is the end of the interval, CLOCK_MONOTONIC in seconds; a process that had vanished is None in `threads`.
    """

    t: float
    idle: float
    steal: float
    threads: Mapping[str, ProcessSample | None]
    sampler: float


def read_queues(path: Path) -> Queues:
    """The recorded queues; a last line that was cut short is left out. RunError when the file is not such a record."""
    lines = _lines(path)
    if not lines:
        raise RunError(f"{path}: is empty; the sampler wrote no header before it ended, see its messages")
    header, samples = lines[0], lines[1:]
    try:
        interfaces = tuple(str(name) for name in header["interfaces"])
        return Queues(
            interfaces=interfaces,
            period_ms=float(header["period_ms"]),
            t=np.array([line["t"] for line in samples], np.float64),
            late_ms=np.array([line["late_ms"] for line in samples], np.float64),
            missed=np.array([line["missed"] for line in samples], np.int64),
            took_ms=np.array([line["took_ms"] for line in samples], np.float64) if samples and "took_ms" in samples[0] else None,
            gone=tuple(sorted({name for line in samples for name in line.get("gone", ())})),
            **{name: _table(samples, name, len(interfaces)) for name in header["fields"]},
        )
    except (KeyError, TypeError, ValueError) as err:
        raise RunError(f"{path}: is not what the sampler writes: {type(err).__name__}: {err}") from err


def read_cpu(path: Path) -> list[CpuSample]:
    """The recorded CPU samples; a last line that was cut short is left out. RunError on any other file."""
    try:
        return [
            CpuSample(
                t=line["t"],
                idle=line["idle"],
                steal=line["steal"],
                threads={name: ProcessSample(**busy) if busy else None for name, busy in line["threads"].items()},
                sampler=line["sampler"],
            )
            for line in _lines(path)
        ]
    except (KeyError, TypeError) as err:
        raise RunError(f"{path}: is not what the sampler writes: {type(err).__name__}: {err}") from err


def utilisation(queues: Queues, mbps_by_interface: Mapping[str, float]) -> tuple[Floats, Floats]:
    """How full each interface was between two samples: sent bytes over configured capacity (10^6 bit/s).

    Returns the intervals' ends [S-1] in seconds, and shares [S-1, N]; a burst can lift one above 1. The configured
    rate is asked for because virtual interfaces report a speed of their own. RequestError on an interface without rate.
    """
    without = [name for name in queues.interfaces if not mbps_by_interface.get(name, 0) > 0]
    if without:
        raise RequestError(f"utilisation: no rate above 0 for {', '.join(without[:5])}; give mbps for every interface")
    bytes_per_s = np.array([mbps_by_interface[name] for name in queues.interfaces], np.float64) * 1e6 / 8
    seconds = np.diff(queues.t)
    return queues.t[1:], np.diff(queues.sent_bytes, axis=0) / (seconds[:, np.newaxis] * bytes_per_s)


def _table(samples: list[dict[str, Any]], name: str, width: int) -> Ints:
    """One field of all samples, [S, N]; ValueError when a row has another width."""
    return np.array([line[name] for line in samples], np.int64).reshape(len(samples), width)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, without a last line that has no end."""
    try:
        text = path.read_text()
    except OSError as err:
        raise RunError(f"{path}: cannot be read: {err.strerror}; the sampler writes it") from err
    *whole, _ = text.split("\n")
    found = []
    for number, line in enumerate(whole, 1):
        try:
            found.append(json.loads(line))
        except ValueError as err:
            raise RunError(f"{path}:{number}: is not JSON ({err}); only a last line may be cut") from err
    return found
