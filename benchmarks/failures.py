"""What failures did in every point of runs, from its record: data lost, flows that were in the way, and the controller's answer.

    python benchmarks/failures.py RUN...

`lost` is the data lost in each direction of what went down, in ms (`recovery.jsonl`). `in the way` are the connections whose path,
as it was installed before the traffic, crossed what an event changed. `degraded` are the seconds from the first event until the
controller called each link so; `moves` how often it moved each flow from then on, the most for one flow first.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from fabric.recorded import Recorded
from fabric.results import Row, read_rows


def told(run: Path, row: Row) -> str:
    """One point in words."""
    seen = Recorded(run / "points" / row.point)
    words = [row.point, row.fidelity or "refused"]
    if seen.happened:
        first = min(one.begin for one in seen.happened if one.event.names)
        changed = {name for one in seen.happened for name in one.mbps}
        paths = [path for path in (*seen.edge_paths.values(), *seen.flow_paths) if path]
        words += [*lost(seen), f"in the way {sum(bool(changed & set(path)) for path in paths)}", *answers(seen.decisions or [], first)]
    if row.after_slowdown is not None:
        words.append(f"iterations afterwards {row.after_slowdown:.2f} of the ideal")
    return ", ".join(words)


def lost(seen: Recorded) -> list[str]:
    """The loss in each direction."""
    file = seen.folder / "recovery.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    spans = [f"{line['out']} {line['loss']['ms']:.0f}{'' if line['loss']['complete'] else '+'}" for line in lines if line["loss"]]
    return [f"lost {' '.join(spans)} ms"] if spans else []


def answers(decisions: list[dict[str, Any]], first: float) -> list[str]:
    """What the controller found and moved after the first event."""
    later = [line for line in decisions if line["t"] >= first]
    found = [f"{line['t'] - first:.1f}" for line in later if line["event"] == "degraded"]
    moves = Counter(line["flow"] for line in later if line["event"] == "reroute")
    return [f"degraded after {' '.join(found)} s"] * bool(found) + [f"moves {sorted(moves.values(), reverse=True)}"] * bool(moves)


def main() -> None:
    """Print a line per point."""
    for run in map(Path, sys.argv[1:]):
        for row in read_rows(run):
            print(told(run, row))


if __name__ == "__main__":
    main()
