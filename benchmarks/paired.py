"""The mean of paired ratios of two arms of a run, with its 95 % bootstrap interval, over PASS pairs and over all.

    python benchmarks/paired.py RUN "ecmp, random" "adaptive, random" [p50_ms]
"""

from __future__ import annotations

import sys
from pathlib import Path

from fabric.claims import paired
from fabric.results import read_rows


def main() -> None:
    """Print the two means."""
    run, over, under, *rest = sys.argv[1:]
    measure = rest[0] if rest else "p50_ms"
    passed, every = paired(read_rows(Path(run)), over, under, measure)
    print(f"{measure} of {over!r} over {under!r}: PASS pairs {passed}, all pairs {every}")


if __name__ == "__main__":
    main()
