"""What a controller costs, of one core: real Ryu against real Open vSwitch that carries no packets. No root.

    python benchmarks/controller_cpu.py [K ...]

Every host has opened one connection to the host half the fabric away, so that `adaptive` knows as many flows as there are hosts
and looks at them in every turn; the loop runs at 10 Hz. Reading the queues is not in it, as there are none.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from fabric.unrooted import ControlledFabric, controlled_fabric, packet
from topologies.fat_tree import fat_tree

_SECONDS, _ROUNDS, _SETTLE_S = 5.0, 3, 2.0
_LASTING = {"linger_ms": 60_000}


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_connections(running: ControlledFabric) -> None:
    """A SYN from every host."""
    fabric, hosts = running.fabric, [host.name for host in running.fabric.hosts]
    for number, src in enumerate(hosts):
        edge = fabric.peer[fabric.ports_of[src][0]]
        dst = hosts[(number + len(hosts) // 2) % len(hosts)]
        running.receive(edge.interface, packet(fabric, src, dst, 20000 + 7 * number, 5001))


def shares(k: int, app: str) -> list[float]:
    """The controller's share of a core in each round."""
    parameters = _LASTING if app == "adaptive" else {}
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="fabriclab-") as folder,
        controlled_fabric(Path(folder), fat_tree(k), f"controllers.{app}", parameters=parameters) as running,
    ):
        open_connections(running)
        time.sleep(_SETTLE_S)
        pid = running.controller.companion.process.pid
        for _ in range(_ROUNDS):
            begin, used = time.monotonic(), cpu_s(pid)
            time.sleep(_SECONDS)
            found.append((cpu_s(pid) - used) / (time.monotonic() - begin))
    return found


def main() -> None:
    """Print a line per fabric and controller."""
    print(f"{'k':>3} {'controller':>12} {'share of a core: min':>21} {'median':>7} {'max':>6}")
    for k in map(int, sys.argv[1:] or ["4", "8"]):
        for app in ("ecmp", "adaptive"):
            found = sorted(shares(k, app))
            print(f"{k:>3} {app:>12} {found[0]:>21.3f} {found[len(found) // 2]:>7.3f} {found[-1]:>6.3f}")


if __name__ == "__main__":
    main()
