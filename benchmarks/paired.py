"""The mean of paired ratios of two arms of a run, with its 95 % bootstrap interval, over PASS pairs and over all.

    python benchmarks/paired.py RUN "ecmp, random" "adaptive, random" [p50_ms]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fabric.claims import paired
from fabric.results import read_rows


def main() -> None:
    """Print the two means."""
    parser = argparse.ArgumentParser(description="The mean of paired ratios of two arms of a run.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("over", help="the variant above the line, as in the run's table")
    parser.add_argument("under", help="the variant below it")
    parser.add_argument("measure", nargs="?", default="p50_ms", help="a column of rows.csv (default: %(default)s)")
    asked = parser.parse_args()
    passed, every = paired(read_rows(asked.run), asked.over, asked.under, asked.measure)
    print(f"{asked.measure} of {asked.over!r} over {asked.under!r}: PASS pairs {passed}, all pairs {every}")


if __name__ == "__main__":
    main()
