"""The decision log of a controller: what it did, when, to which flow, on what signal, and what came of it.

Comes in: what a controller decides, a line of JSON each (`decisions.jsonl` in its folder). Goes out: the same lines,
read. `t` is CLOCK_MONOTONIC in seconds, paths are names of interfaces.

    {"event": "reroute", "t", "tick", "flow", "src", "dst", "old", "new", "signal", "mbps", "reason", "numbers"}
    {"event": "reweight", "t", "tick", "switch", "group", "old", "new", "reason", "numbers"}
    {"event": "in-force", "t", "tick", "sampled", "decided", "switches"}   every switch has answered a barrier
    {"event": "outcome", "t", "flow", "before_mbps", "after_mbps"}         by flow counters, some seconds later
    {"event": "held", "t", "tick", "flow", "reason"}                       wanted by the policy, and not done
    {"event": "flow", "t", "flow", "src", "dst", "signal"}                 first seen
    {"event": "link", "t", "port", "up"}   {"event": "degraded", "t", "port", "mbps", "configured_mbps"}
    {"event": "resynchronised", "t", "flow", "path"}                       a flow's rule found in its switch at the start
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

from fabric.errors import RunError
from fabric.paths import Path

__all__ = ["DecisionLog", "count", "interfaces", "read_decisions"]


def interfaces(path: Path | None) -> list[str] | None:
    """A path as names of interfaces."""
    return None if path is None else [port.interface for port in path]


class DecisionLog:
    """Appends to `decisions.jsonl`; every line is whole on disk before the next one is begun."""

    def __init__(self, folder: FilePath) -> None:
        self._file = open(folder / "decisions.jsonl", "a", buffering=1)  # noqa: SIM115  (kept for the process's life)

    def write(self, event: str, **fields: Any) -> None:
        """Add a line; without `t` among its fields it is now."""
        line = {"event": event, "t": round(fields.pop("t", time.monotonic()), 6), **fields}
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")


def read_decisions(folder: FilePath) -> list[dict[str, Any]]:
    """The lines of a controller's folder, in order; empty when it keeps no log. RunError on any other file."""
    path = folder / "decisions.jsonl"
    if not path.is_file():
        return []
    *whole, _ = path.read_text().split("\n")
    try:
        return [json.loads(line) for line in whole]
    except ValueError as err:
        raise RunError(f"{path}: is not a decision log ({err}); only a last line may be cut") from err


def count(lines: Iterable[Mapping[str, Any]], event: str, window: tuple[float, float]) -> int:
    """How many lines of a kind fall into a window."""
    return sum(1 for line in lines if line["event"] == event and window[0] <= line["t"] <= window[1])
