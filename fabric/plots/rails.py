"""How busy each rail was: the NICs of one number in all servers, and the uplinks of the leaves that are theirs alone.

Comes in: telemetry of points whose hosts are the NICs of servers. Goes out: the drawing of one point a variant, and its table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fabric.graph import Fabric, Port
from fabric.plots.frame import COLOURS, Plot, Table, arms_of, grouped, lay_out, size_of
from fabric.plots.utilisation import QUEUES, TOPOLOGY, heading, with_telemetry
from fabric.recorded import Recorded, fabric_of
from fabric.results import Row

__all__ = ["RAILS", "ports_by_rail"]

_MOST = 6  # panels
WAYS = ("NICs send", "NICs receive", "leaves send up")


def ports_by_rail(fabric: Fabric) -> dict[int, dict[str, list[Port]]]:
    """By rail, the ports that NICs send by, that leaves send to NICs by, and that leaves send up by where all their NICs are of one rail.

    >>> from topologies.rails import rail_optimized
    >>> {way: len(ports) for way, ports in ports_by_rail(rail_optimized(4, 2))[0].items()}
    {'NICs send': 4, 'NICs receive': 4, 'leaves send up': 4}
    """
    rail_of = {host.name: rail for members in fabric.servers.values() for rail, host in enumerate(members)}
    found: dict[int, dict[str, list[Port]]] = {rail: {way: [] for way in WAYS} for rail in sorted(set(rail_of.values()))}
    for host, rail in rail_of.items():
        found[rail][WAYS[0]] += fabric.ports_of[host]
        found[rail][WAYS[1]] += [fabric.peer[port] for port in fabric.ports_of[host]]
    for switch in fabric.switch_by_name:
        rails = {rail_of[far] for port in fabric.ports_of[switch] if (far := fabric.peer[port].node) in rail_of}
        if len(rails) == 1:
            found[rails.pop()][WAYS[2]] += [port for port in fabric.ports_of[switch] if fabric.level[fabric.peer[port].node] > fabric.level[switch]]
    return found


def _pick(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """One point a variant, where hosts are the NICs of servers."""
    there = [row for row in with_telemetry(folder, [row for row in rows if not row.refused]) if _has_servers(folder / "points" / row.point)]
    return [mine[0] for mine in grouped(there, lambda row: (row.variant, row.nbytes)).values()][:_MOST]


def _has_servers(point: Path) -> bool:
    return any(host.get("server") for host in json.loads((point / TOPOLOGY).read_text())["hosts"])


def _paint(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    arms, lines = arms_of(rows), list[tuple[Any, ...]]()
    axes = lay_out(figure, [f"{heading(arms[row.variant], [row])} · {size_of(row.nbytes)}" if row.nbytes else heading(arms[row.variant], [row]) for row in rows], 2, 2.0, sharex=False)
    for axis, row in zip(axes, rows, strict=True):
        shares = _shares(folder / "points" / row.point, row.nbytes)
        for place, way in enumerate(WAYS):
            drawn = [(rail, by_way[way]) for rail, by_way in shares.items() if way in by_way]
            axis.bar([rail + (place - 1) * 0.27 for rail, _ in drawn], [share for _, share in drawn], 0.25, color=COLOURS[place], label=way)
            lines += [(row.variant, row.point, row.nbytes, rail, way, round(share, 5)) for rail, share in drawn]
        axis.set_xticks(list(shares), [f"rail {rail}" for rail in shares])
        axis.set_ylim(0, 1)
        axis.set_ylabel("share of the rate")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(WAYS), alignment="left")
    reading = "means over a rail's ports and the measured iterations · what stays inside servers is on no rail · a leaf of several rails has no bar of its own"
    return Table(("variant", "point", "nbytes", "rail", "ports", "share"), tuple(lines)), reading


def _shares(point: Path, nbytes: int | None) -> dict[int, dict[str, float]]:
    """By rail and kind of port, the mean share of their configured rates that went out of them."""
    seen = Recorded(point)
    begin, end = _window(seen, nbytes)
    queues = seen.queues
    sent = {name: float(np.diff(np.interp((begin, end), queues.t, queues.sent_bytes[:, n]))[0]) for n, name in enumerate(queues.interfaces)}
    return {
        rail: {way: float(np.mean([sent[port.interface] * 8e-6 / (end - begin) / seen.mbps[port.interface] for port in ports])) for way, ports in by_way.items() if ports}
        for rail, by_way in ports_by_rail(fabric_of(seen)).items()
    }


def _window(seen: Recorded, nbytes: int | None) -> tuple[float, float]:
    """From the first measured iteration of a size to the last; without a collective the whole record."""
    spans = list(_spans(seen, nbytes))
    return (min(begin for begin, _ in spans), max(end for _, end in spans)) if spans else (float(seen.queues.t[0]), float(seen.queues.t[-1]))


def _spans(seen: Recorded, nbytes: int | None) -> Iterator[tuple[float, float]]:
    for record in seen.event("iteration"):
        if record["iteration"] >= 0 and record["nbytes"] == nbytes:
            yield record["release"], record["release"] + max(record["ends_ms"]) / 1000


RAILS = Plot(
    "how busy each rail was, by the NICs of its number and by the uplinks of its leaves",
    f"points with telemetry ({QUEUES}) whose hosts are the NICs of servers",
    _pick,
    _paint,
)
