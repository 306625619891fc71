"""Rows as nccl-tests prints them: its table, its footer and its JSON report, and what it does not know behind that.

Comes in: `Row`s of one benchmark. Goes out: lines, and a dictionary. Source: the columns and keys of nccl-tests 2.17
(src/util.cu). Ranks have one buffer, so what that measures twice, out of place and in place, is measured once here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fabric.results import Row

__all__ = ["footer", "heading", "line", "report"]

_NO_REDUCTION = ("all-gather", "all-to-all", "broadcast", "barrier", "sendrecv")
_ROOTED = ("broadcast", "reduce", "incast")
_TYPES = {"float32": "float", "int32": "int32"}
_OURS = ("ideal", "slowdown", "p50", "p95", "p99", "max", "straggler", "fidelity")
_UNITS = ("(ms)", "", "(ms)", "(ms)", "(ms)", "(ms)", "(rank)", "")
_WIDTHS = (9, 8, 9, 9, 9, 9, 9, 8)


def heading(text: str) -> list[str]:
    """What was asked for, then the columns and their units; the time is the median, from which bandwidths are made."""
    names = f"# {'size':>10}  {'count':>12}  {'type':>8}  {'redop':>6}  {'root':>6}  {'time':>9}  {'algbw':>8}  {'busbw':>8}  {'#wrong':>6}"
    units = f"# {'(B)':>10}  {'(elements)':>12}  {'':>8}  {'':>6}  {'':>6}  {'(ms)':>9}  {'(Mb/s)':>8}  {'(Mb/s)':>8}  {'':>6}"
    return [f"# {text}", "#", names + _joined(_OURS), (units + _joined(_UNITS)).rstrip()]


def line(row: Row, dtype: str) -> str:
    """One size; a refused row is a comment that says why, as it has no figures."""
    if row.refused:
        return f"# {row.nbytes} bytes, seed {row.seed}: refused: {row.refused}"
    size = f"{row.nbytes or 0:>12}  {(row.nbytes or 0) // 4:>12}  {_TYPES[dtype]:>8}"
    wrong = "N/A" if row.wrong is None else str(row.wrong)
    theirs = f"{size}  {_redop(row):>6}  {_root(row):>6}  {_ms(row.p50_ms):>9}  {_mbps(row.algbw_mbps):>8}  {_mbps(row.busbw_mbps):>8}  {wrong:>6}"
    ours = (
        _ms(row.ideal_ms), "N/A" if row.slowdown is None else f"{row.slowdown:.3f}", _ms(row.p50_ms), _ms(row.p95_ms), _ms(row.p99_ms),
        _ms(row.max_ms), "N/A" if row.straggler_rank is None else str(row.straggler_rank), row.fidelity or "N/A",
    )  # fmt: skip
    return theirs + _joined(ours)


def footer(rows: Sequence[Row]) -> list[str]:
    """Whether every element was right, and the mean bus bandwidth."""
    wrong, bandwidth = _wrong(rows), _mean_busbw(rows)
    return [
        f"# {'Out of bounds values':<20} : {wrong} {'FAILED' if wrong else 'OK'}",
        f"# {'Avg bus bandwidth':<20} : {'N/A' if bandwidth is None else f'{bandwidth:g}'} Mb/s",
        "#",
    ]


def report(rows: Sequence[Row], dtype: str, args: Sequence[str], started: str, ended: str) -> dict[str, Any]:
    """nccl-tests' JSON: times in microseconds, bandwidths in GB/s; under `fabriclab` the rows themselves.

    `out_of_place` and `in_place` are the same measurement.
    """
    bandwidth = _mean_busbw(rows)
    return {
        "version": 2, "start_time": started, "args": list(args), "env": [], "nccl_version": None,
        "config": {
            "minimum_bytes": min((row.nbytes or 0 for row in rows), default=0), "maximum_bytes": max((row.nbytes or 0 for row in rows), default=0),
            "iterations": rows[0].iterations if rows else 0, "validation": int(any(row.wrong is not None for row in rows)),
        },
        "results": [_result(row, _TYPES[dtype]) for row in rows if not row.refused],
        "out_of_bounds": {"count": _wrong(rows), "okay": "false" if _wrong(rows) else "true"},
        "average_bus_bandwidth": {"bandwidth": None if bandwidth is None else _gbytes(bandwidth), "okay": "unchecked"},
        "end_time": ended, "fabriclab": [row.to_json() for row in rows],
    }  # fmt: skip


def _result(row: Row, kind: str) -> dict[str, Any]:
    figures = {
        "time": None if row.p50_ms is None else 1e3 * row.p50_ms, "alg_bw": _gbytes(row.algbw_mbps), "bus_bw": _gbytes(row.busbw_mbps),
        "nwrong": row.wrong,
    }  # fmt: skip
    return {
        "size": row.nbytes, "count": (row.nbytes or 0) // 4, "type": kind, "redop": _redop(row), "root": _root(row),
        "out_of_place": figures, "in_place": figures, "actual_iterations": row.iterations, "experiment_name": row.algorithm,
    }  # fmt: skip


def _redop(row: Row) -> str:
    return "none" if str(row.algorithm).endswith(_NO_REDUCTION) else "sum"


def _root(row: Row) -> str:
    """Rank 0, of what has a root; an all-reduce has none, though its name ends like a reduce's."""
    name = str(row.algorithm)
    return "0" if name.endswith(_ROOTED) and not name.endswith("allreduce") else "-1"


def _wrong(rows: Sequence[Row]) -> int:
    return sum(row.wrong or 0 for row in rows)


def _mean_busbw(rows: Sequence[Row]) -> float | None:
    found = [row.busbw_mbps for row in rows if row.busbw_mbps is not None]
    return sum(found) / len(found) if found else None


def _gbytes(mbps: float | None) -> float | None:
    return None if mbps is None else mbps / 8e3


def _joined(words: Sequence[str]) -> str:
    return "".join(f"  {word:>{width}}" for word, width in zip(words, _WIDTHS, strict=True))


def _ms(value: float | None) -> str:
    return "N/A" if value is None else f"{value:.3f}"


def _mbps(value: float | None) -> str:
    return "N/A" if value is None else f"{value:.2f}"
