"""A latency and a bandwidth for each algorithm of a run, fitted to most of its sizes and tried on those held out.

    python benchmarks/alpha_beta.py RUN [--hold-out 4]

Sizes are counted in the order of the file: every fourth is held out. Medians over repeats, of all rows that were not refused.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import median

from fabric.costs import fit
from fabric.results import Row, read_rows


def main() -> None:
    """Print a line an algorithm: the two numbers, how far times are from them, and how near to the ideal the algorithm comes."""
    parser = argparse.ArgumentParser(description="The α-β model of each algorithm of a run.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--hold-out", type=int, default=4, help="every so manieth size is not fitted (default: %(default)s)")
    asked = parser.parse_args()
    by_variant: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(asked.run):
        if row.p50_ms is not None:
            by_variant[row.variant].append(row)
    for variant, rows in by_variant.items():
        print(told(variant, rows, asked.hold_out))


def told(variant: str, rows: list[Row], hold_out: int) -> str:
    """One algorithm's line."""
    times: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        times[row.nbytes or 0].append(row.p50_ms or 0.0)
    sizes = list(times)
    held = sizes[hold_out - 1 :: hold_out]
    fitted = [size for size in sizes if size not in held]
    cost = fit(fitted, [median(times[size]) for size in fitted])
    errors = {size: median(times[size]) / cost.time_ms(size) - 1 for size in sizes}
    worst = [max((abs(errors[size]) for size in group), default=0.0) for group in (fitted, held)]
    share = {size: median((row.ideal_ms or 0.0) / (row.p50_ms or 1.0) for row in rows if row.nbytes == size) for size in sizes}
    passed = sum(row.fidelity == "PASS" for row in rows)
    return (
        f"{variant}: alpha {cost.alpha_ms:.1f} ms, {cost.mbps:.2f} Mb/s of size; off by at most {worst[0]:.1%} on {len(fitted)} sizes, "
        f"{worst[1]:.1%} on {len(held)} held out; ideal / p50 {min(share.values()):.3f} to {max(share.values()):.3f}; {passed} of {len(rows)} rows PASS"
    )


if __name__ == "__main__":
    main()
