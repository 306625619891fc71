"""In-band probes of a point: between which hosts, over which installed paths, and the process that sends them.

Comes in: a `Point`, its `Workload`, installed paths by a function, the hosts' process ids. Goes out: the folder `inband` of the
point, which `fabric.journeys` reads: `pairs.json`, and what `fabric.scout` writes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from fabric.experiment import Point
from fabric.graph import Port
from fabric.probes import PathOf
from fabric.process import BEGIN_S, Companion, companion
from fabric.seeds import PORTS, rng
from fabric.stamps import PROBES
from fabric.tcp import Endpoints
from fabric.workload import Workload

__all__ = ["MOST_PAIRS", "pairs_of", "scouting"]

MOST_PAIRS = 8  # that are chosen without being asked for: each puts `hz` packets a second on every link of its way
_LONGEST_RUN_S = 24 * 3600.0


def pairs_of(point: Point, work: Workload) -> list[tuple[str, str]]:
    """The pairs asked for; else those of the collective's connections, without one those of the load's flows.

    Of these each once that crosses the network, and at most eight, spread evenly over all.
    """
    probes = point.telemetry.probes
    if probes is None:
        return []
    if probes.pairs != "auto":
        return list(probes.pairs)
    every = work.hosts_by_edge.values() or ((flow.src, flow.dst) for flow in work.flows)
    busy = [pair for pair in dict.fromkeys(every) if not point.fabric.together(*pair)]
    n = min(MOST_PAIRS, len(busy))
    return [busy[number * len(busy) // n] for number in range(n)]


@contextlib.contextmanager
def scouting(
    point: Point, work: Workload, folder: Path, *, path_of: PathOf, host_pid: Callable[[str], int], numbers: Mapping[Port, int]
) -> Iterator[Companion | None]:
    """Probes flow within the block, where the point asks for them; `numbers` are the ports' as stamps name them."""
    pairs = pairs_of(point, work)
    if not pairs or point.telemetry.probes is None:
        yield None
        return
    folder.mkdir()
    hosts = point.fabric.host_by_name
    draws = rng(point.seed, "inband").permutation(len(PORTS))
    ends = [Endpoints(hosts[src].ip, PORTS[int(draw)], hosts[dst].ip, PROBES) for (src, dst), draw in zip(pairs, draws, strict=False)]
    paths = [path_of(*pair, endpoints) for pair, endpoints in zip(pairs, ends, strict=True)]
    told = [
        {"src": src, "dst": dst, "endpoints": asdict(endpoints), "path": path and [port.interface for port in path]}
        for (src, dst), endpoints, path in zip(pairs, ends, paths, strict=True)
    ]
    ports = {number: port.interface for port, number in numbers.items()}
    (folder / "pairs.json").write_text(json.dumps({"hz": point.telemetry.probes.hz, "pairs": told, "ports": ports}, indent=1) + "\n")
    plan = {
        "period_ms": 1000 / point.telemetry.probes.hz, "until": time.monotonic() + _LONGEST_RUN_S,
        "pairs": [{**one, "src_pid": host_pid(src), "dst_pid": host_pid(dst)} for one, (src, dst) in zip(told, pairs, strict=True)],
    }  # fmt: skip
    (folder / "scout.json").write_text(json.dumps(plan))
    with companion("the scouts' process", "fabric.scout", folder) as running:
        running.wait_for("ready", BEGIN_S, "send its first probes")
        yield running
        running.check_alive()
