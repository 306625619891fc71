"""Does ECMP use every uplink as often as chance says? Over all points of a run folder, from the paths as installed.

Each multi-path flow that reaches a switch with c uplinks takes each of them with probability 1/c, so an uplink's count is
binomial. Prints, for each tier, how many uplinks lie outside their own 95 % interval (5 % of them are expected to), and
the chi-square of all counts.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path

from fabric.graph import Fabric

Z_95 = 1.959964


def main() -> int:
    """Count the uplinks of a run's installed paths."""
    folder = Path(sys.argv[1])
    used: Counter[str] = Counter()
    fabric = None
    for point in sorted(folder.glob("points/*")):
        fabric = fabric or Fabric.from_json(json.loads((point / "controller" / "topology.json").read_text()))
        installed = json.loads((point / "installed.json").read_text())
        paths = [path for *_, path in installed["edges"]] + installed["flows"]
        used.update(name for path in paths for name in path or ())
    if fabric is None:
        print(f"{folder} has no points")
        return 2
    uplinks: dict[str, list[str]] = {}
    for port in fabric.uplinks():
        uplinks.setdefault(port.node, []).append(port.interface)
    for tier in dict.fromkeys(fabric.switch_by_name[node].tier for node in uplinks):
        report(tier, [[used[name] for name in names] for node, names in uplinks.items() if fabric.switch_by_name[node].tier == tier])
    return 0


def report(tier: str, groups: list[list[int]]) -> None:
    """One line for a tier; a group is the counts of one switch's uplinks."""
    outside = total = freedom = 0
    chi_square = 0.0
    for counts in groups:
        flows, share = sum(counts), 1 / len(counts)
        expected, deviation = flows * share, math.sqrt(flows * share * (1 - share))
        outside += sum(1 for count in counts if deviation and abs(count - expected) > Z_95 * deviation)
        chi_square += sum((count - expected) ** 2 / expected for count in counts if expected)
        freedom += len(counts) - 1
        total += len(counts)
    smallest, largest = min(map(min, groups)), max(map(max, groups))
    print(
        f"{tier}: {total} uplinks, {sum(map(sum, groups))} flows, {smallest} to {largest} each; "
        f"{outside} outside their 95 % interval; chi-square {chi_square:.1f} with {freedom} degrees of freedom"
    )


if __name__ == "__main__":
    sys.exit(main())
