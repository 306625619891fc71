"""How long from a flow's SYN until the rule that moved it was in force: read from the decision logs of runs.

    python benchmarks/reaction.py RUN...

A flow cannot congest anything before its SYN, so this is at least the time from congestion's onset. Half a period of it
is waiting for the loop's next turn.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fabric.decisions import read_decisions


def reactions_ms(controller: Path) -> Iterator[float]:
    """For every flow's first move: from the first line about the flow to the rules of that turn being in force."""
    lines = read_decisions(controller)
    seen = {line["flow"]: line["t"] for line in lines if line["event"] == "flow" and line["signal"] == "syn"}
    in_force = {line["tick"]: line["t"] for line in lines if line["event"] == "in-force"}
    for line in lines:
        if line["event"] == "reroute" and line["flow"] in seen and line["tick"] in in_force:
            yield 1e3 * (in_force[line["tick"]] - seen.pop(line["flow"]))


def main() -> None:
    """Print a line per period."""
    found: dict[int, list[float]] = defaultdict(list)
    for run in map(Path, sys.argv[1:]):
        for controller in sorted(run.glob("points/*/controller")):
            period_ms = json.loads((controller / "controller.json").read_text())["poll_ms"]
            found[period_ms] += reactions_ms(controller)
    print(f"{'period ms':>10} {'moves':>6} {'p50 ms':>8} {'p95 ms':>8} {'in periods':>11}")
    for period_ms, times in sorted(found.items()):
        if times:
            p50, p95 = np.percentile(times, [50, 95])
            print(f"{period_ms:>10} {len(times):>6} {p50:>8.1f} {p95:>8.1f} {p50 / period_ms:>11.2f}")


if __name__ == "__main__":
    main()
