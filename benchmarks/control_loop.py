"""What the control loop did in runs, by variant: read from the decision logs, the telemetry and the traffic's records.

    python benchmarks/control_loop.py RUN...

From a flow's SYN until the rule that moved it was in force: a flow cannot congest anything before its SYN, so this is at least the
time from congestion's onset; half a period of it is waiting for the loop's next turn. The controller's share of a core is over all
its threads. The first iteration, warm-up included, is against the ideal of the row.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fabric.claims import interval
from fabric.decisions import read_decisions
from fabric.results import Row, read_rows
from fabric.telemetry import read_cpu


@dataclass
class Loop:
    """What was found of one variant, a value a point (of reactions: a flow)."""

    moves: list[int] = field(default_factory=list)
    signals: Counter[str] = field(default_factory=Counter)
    reactions_ms: list[float] = field(default_factory=list)
    core: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    every: list[float] = field(default_factory=list)
    first_of_pass: list[float] = field(default_factory=list)


def reactions_ms(controller: Path) -> Iterator[float]:
    """For every flow's first move: from its SYN to the rules of that turn being in force."""
    lines = read_decisions(controller)
    seen = {line["flow"]: line["t"] for line in lines if line["event"] == "flow" and line["signal"] == "syn"}
    in_force = {line["tick"]: line["t"] for line in lines if line["event"] == "in-force"}
    for line in lines:
        if line["event"] == "reroute" and line["flow"] in seen and line["tick"] in in_force:
            yield 1e3 * (in_force[line["tick"]] - seen.pop(line["flow"]))


def look(point: Path, row: Row, into: Loop) -> None:
    """Add what one point's folder says."""
    moves = [line for line in read_decisions(point / "controller") if line["event"] == "reroute"]
    into.moves.append(len(moves))
    into.signals.update(line["signal"] for line in moves)
    into.reactions_ms += reactions_ms(point / "controller")
    busy = [sample.threads.get("controller") for sample in read_cpu(point / "telemetry" / "cpu.jsonl")]
    into.core.append(float(np.mean([sample.sum for sample in busy if sample is not None])))
    records = map(json.loads, (point / "traffic" / "records.jsonl").read_text().splitlines())
    times = [max(record["ends_ms"]) for record in records if record["event"] == "iteration"]
    if times and row.ideal_ms:
        into.first.append(times[0] / row.ideal_ms)
        into.every.append(float(np.mean(times)) / row.ideal_ms)
        into.first_of_pass += [times[0] / row.ideal_ms] if row.fidelity == "PASS" else []


def main() -> None:
    """Print a line per variant."""
    found: dict[str, Loop] = defaultdict(Loop)
    for run in map(Path, sys.argv[1:]):
        for row in {row.point: row for row in reversed(read_rows(run))}.values():  # the first row of each point
            if not row.refused:
                look(run / "points" / row.point, row, found[row.variant])
    for variant, loop in found.items():
        took = "no reaction" if not loop.reactions_ms else "SYN to rule p50 {:.0f} ms, p95 {:.0f} ms, n={}".format(
            *np.percentile(loop.reactions_ms, [50, 95]), len(loop.reactions_ms)
        )  # fmt: skip
        first = "" if not loop.first else f", first iteration {interval(loop.first)} of the ideal (PASS rows {interval(loop.first_of_pass)}), all {interval(loop.every)}"
        print(
            f"{variant}: {len(loop.moves)} points, moves {np.mean(loop.moves):.1f} ({min(loop.moves)} to {max(loop.moves)}) "
            f"by {dict(loop.signals)}, {took}, controller {np.mean(loop.core):.3f} of a core{first}"
        )


if __name__ == "__main__":
    main()
