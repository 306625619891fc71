"""Writes `two-arms`, the golden run folder, anew: invented round numbers, in the layout that `fabric.results` names.

Two arms on a fat-tree of k=4, three seeds: an all-reduce of three sizes without and under a load, and the load alone.
ECMP is slower than two-level routing; two rows are WARN, one is FAIL, one refused. Points with a load have their
iterations, those of the first seed two flows of which one comes late. To run it: `python make.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fabric.graph import Fabric, Port
from fabric.results import Row, RunFolder
from topologies.fat_tree import fat_tree

FOLDER = Path(__file__).parent / "two-arms"
QUESTION = "Does static two-level routing keep an all-reduce fast under a stride load?"
STRIDE = "stride step=8"
SIZES = (65536, 1048576, 16777216)
IDEAL_MS = {65536: 50.0, 1048576: 800.0, 16777216: 12800.0}
SLOWDOWN = {  # by load, arm and seed: from one seed to the next ECMP hashes otherwise
    (None, "ecmp"): (2.0, 3.0, 2.0),
    (None, "two-level"): (1.04, 1.05, 1.06),
    (STRIDE, "ecmp"): (5.0, 8.0, 6.0),
    (STRIDE, "two-level"): (2.0, 2.25, 2.5),
}
SHARE = {"ecmp": (0.61, 0.58, 0.64), "two-level": (0.98, 0.97, 0.99)}
GOODPUT = {"ecmp": (60.0, 70.0, 80.0), "two-level": (110.0, 120.0, 115.0)}  # beside the all-reduce
SPREAD = (1.0, 0.8, 0.85, 0.9, 0.95, 1.05, 1.1, 1.15, 1.2)  # an iteration's time over the median
PREDICTED = {"ecmp": (0.625, 0.5625, 0.625), "two-level": (1.0, 1.0, 1.0)}
VERDICTS = {  # of all others: PASS
    ("ecmp", STRIDE, 1, 16777216): {"fidelity": "WARN", "fidelity_reasons": ("a switch thread at 0.74 of a core",)},
    ("ecmp", STRIDE, 2, 16777216): {"fidelity": "FAIL", "fidelity_reasons": ("a switch thread at 0.97 of a core",)},
    ("two-level", STRIDE, 3, 65536): {"refused": "no telemetry", "p50_ms": None, "slowdown": None},
    ("two-level", STRIDE, 3, None): {"fidelity": "WARN", "fidelity_reasons": ("idle CPU of the worst second 0.04",)},
}
MBPS, MTU = 20.0, 9000
PERIOD_S, SAMPLES = 0.5, 9
BEGIN = 1000.0
FLOWS = ((10.0,) * 4, (0.0, 5.0, 10.0, 10.0))  # Mb/s in each second


def main() -> None:
    """Write every file of the folder."""
    folder = RunFolder(FOLDER)
    FOLDER.mkdir(exist_ok=True)
    folder.write_json("run.json", {"question": QUESTION})
    (FOLDER / "rows.jsonl").unlink(missing_ok=True)
    folder.append_rows(rows())
    fabric = fat_tree(4)
    for arm in ("ecmp", "two-level"):
        write_point(folder.point(label(arm, STRIDE, 1)), fabric, arm)
        for repeat in (1, 2, 3):
            write_traffic(folder.point(label(arm, STRIDE, repeat)), arm, repeat)
    folder.write_json("finished.json", {})


def label(arm: str, load: str | None, repeat: int) -> str:
    """The point's name; loads stand for different files of the sweep."""
    return f"{'stride' if load else 'quiet'}-{arm}-r{repeat}"


def rows() -> Iterator[Row]:
    """The rows with a collective, then those of the load alone."""
    for (load, arm), slowdowns in SLOWDOWN.items():
        for repeat, slowdown in enumerate(slowdowns, 1):
            for nbytes in SIZES:
                ideal = IDEAL_MS[nbytes]
                beside = {"load_goodput_mbps": GOODPUT[arm][repeat - 1]} if load else {}
                yield row(arm, load, repeat, collective="ring-allreduce", nbytes=nbytes, ranks=16, rto_over_ideal=200 / ideal,
                          p50_ms=ideal * slowdown, p95_ms=1.2 * ideal * slowdown, ideal_ms=ideal, slowdown=slowdown, **beside)  # fmt: skip
    for arm, shares in SHARE.items():
        for repeat, (share, predicted) in enumerate(zip(shares, PREDICTED[arm], strict=True), 1):
            yield row(arm, STRIDE, repeat, load_share_of_nb=share, load_share_predicted=predicted)


def row(arm: str, load: str | None, repeat: int, **figures: Any) -> Row:
    """One row, with the verdict that VERDICTS gives it."""
    asked = {"variant": arm, "topology": "fat-tree", "controller": arm, "load": load, "tcp": "cubic", "mtu": MTU}
    also = {"mbps": MBPS, "repeat": repeat, "seed": repeat, "datapath": "netdev", "point": label(arm, load, repeat)}
    verdict = VERDICTS.get((arm, load, repeat, figures.get("nbytes")), {})
    return Row(**{**asked, **also, "fidelity": None if "refused" in verdict else "PASS", **figures, **verdict})


def write_point(point: Path, fabric: Fabric, arm: str) -> None:
    """What the utilisation figure reads of a point: topology, shapers and queues."""
    for name in ("controller", "telemetry"):
        (point / name).mkdir(parents=True, exist_ok=True)
    (point / "controller" / "topology.json").write_text(json.dumps(fabric.to_json()) + "\n")
    ports = sorted(fabric.peer)
    shape = {"mbps": MBPS, "mtu": MTU, "queue_packets": 50, "queue_bytes": None}
    network = {"datapath": "netdev", "shapes": {port.interface: shape for port in ports}}
    (point / "network.json").write_text(json.dumps(network) + "\n")
    (point / "telemetry" / "queues.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in queues(ports, arm)))


def queues(ports: list[Port], arm: str) -> Iterator[dict[str, Any]]:
    """The sampler's lines: from 1 s on every port sends at its share of the rate."""
    names = [port.interface for port in ports]
    fields = ["backlog_bytes", "backlog_packets", "drops", "sent_bytes", "sent_packets"]
    yield {"interfaces": names, "fields": fields, "period_ms": PERIOD_S * 1000}
    for sample in range(SAMPLES):
        t = sample * PERIOD_S
        sent = [round(share(port, arm) * MBPS * 1e6 / 8 * max(0.0, t - 1.0)) for port in ports]
        packets = [one // (MTU + 14) for one in sent]
        zeros = [0] * len(ports)
        figures = dict(zip(fields, (zeros, zeros, zeros, sent, packets), strict=True))
        yield {"t": BEGIN + t, "late_ms": 0.1, "missed": 0, **figures}


def write_traffic(point: Path, arm: str, repeat: int) -> None:
    """The traffic's records: iterations one after another, and, of the first seed, the running totals of two flows."""
    lines: list[dict[str, Any]] = []
    release = BEGIN + 1.0
    for nbytes in SIZES:
        for number, spread in enumerate(SPREAD):
            ms = IDEAL_MS[nbytes] * SLOWDOWN[STRIDE, arm][repeat - 1] * spread
            lines.append({"event": "iteration", "nbytes": nbytes, "iteration": number, "release": release, "ends_ms": [0.9 * ms, ms]})
            release += ms / 1000
    if repeat == 1:
        totals = [[round(sum(rates[:second]) * 1e6 / 8) for second in range(len(rates) + 1)] for rates in FLOWS]
        t = [BEGIN + second for second in range(len(totals[0]))]
        lines.append({"event": "flows", "flows": {str(number): {"first": t[0], "t": t, "nbytes": total} for number, total in enumerate(totals)}})
    (point / "traffic").mkdir(parents=True, exist_ok=True)
    (point / "traffic" / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def share(port: Port, arm: str) -> float:
    """All ports busy under two-level routing; under ECMP every fourth is idle and the others differ."""
    if arm == "two-level":
        return 0.98
    return (0.0, 0.5, 0.75, 1.0)[sum(map(ord, port.interface)) % 4]


if __name__ == "__main__":
    main()
