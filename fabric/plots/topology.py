"""The fabric as a picture: tiers above each other, every link in two halves, each of which belongs to the port at its end.

Comes in: a fabric, and what its ports carried. Goes out: the drawing, and its table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from fabric.graph import Fabric, Port
from fabric.plots.frame import GREY, Plot, Table, arms_of, grouped, lay_out
from fabric.plots.utilisation import TOPOLOGY as FILE
from fabric.plots.utilisation import Heat, heading, heat_of, with_telemetry
from fabric.results import Row

__all__ = ["TOPOLOGY", "draw_fabric", "places"]

_NAMED = 40  # nodes of a tier, above which its names would lie on each other
_CROWDED = 14  # from which they are written upright
_COLOURS = {"host": "white"}
_MANY = 300  # directions, from which links are thin
_SIZE = 46.0  # of a node, in square points


def places(fabric: Fabric) -> dict[str, tuple[float, float]]:
    """Where each node is drawn: x from 0 to 1, in each tier by what lies below it, then as the topology counts; y is its tier, from 0."""
    found: dict[str, tuple[float, float]] = {}
    position = {host.name: host.position for host in fabric.hosts} | {switch.name: switch.position for switch in fabric.switches}
    levels = fabric.level
    for level in range(max(levels.values()) + 1):
        tier = [name for name in position if levels[name] == level]
        middle = {name: [found[near][0] for near in fabric.graph[name] if near in found] for name in tier}
        tier.sort(key=lambda name: (round(float(np.mean(middle[name])), 9) if middle[name] else 0.0, position[name]))
        found.update({name: ((number + 0.5) / len(tier), float(level)) for number, name in enumerate(tier)})
    return found


def draw_fabric(axis: Any, fabric: Fabric, shares: Mapping[Port, float] | None = None) -> Any:
    """Draw a fabric; with `shares` each half of a link has the colour of what its port carried, and what is given back is for a colour bar."""
    at = places(fabric)
    halves, ports = [], []
    for near, far in fabric.peer.items():
        (x, y), (to_x, to_y) = at[near.node], at[far.node]
        halves.append([(x, y), ((x + to_x) / 2, (y + to_y) / 2)])
        ports.append(near)
    widths = [(1.4 if len(ports) < _MANY else 0.5) * fabric.scale[port] ** 0.5 for port in ports]
    if shares is None:
        lines = LineCollection(halves, colors="0.6", linewidths=widths, zorder=1)
    else:
        lines = LineCollection(halves, cmap="viridis", norm=Normalize(0, 1), linewidths=[width + 0.8 for width in widths], zorder=1)
        lines.set_array(np.array([shares.get(port, np.nan) for port in ports]))
    axis.add_collection(lines)
    for level in sorted({y for _, y in at.values()}):
        tier = [name for name, (_, y) in at.items() if y == level]
        kind = fabric.graph.nodes[tier[0]]["tier"]
        axis.scatter([at[name][0] for name in tier], [level] * len(tier), s=_SIZE, c=_COLOURS.get(kind, "0.25"), edgecolors="0.25", marker="o" if kind == "host" else "s", zorder=2)
        _name_tier(axis, at, tier, level)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.6, max(y for _, y in at.values()) + 0.4)
    axis.axis("off")
    return lines


def _name_tier(axis: Any, at: Mapping[str, tuple[float, float]], tier: Sequence[str], level: float) -> None:
    if len(tier) > _NAMED:
        axis.annotate(f"{len(tier)}: {tier[0]} … {tier[-1]}", (0.5, level), (0, -11), textcoords="offset points", ha="center", va="top", fontsize=7, color=GREY)
        return
    upright = 90 if len(tier) > _CROWDED else 0
    for name in tier:
        above = level > 0
        axis.annotate(
            name, (at[name][0], level), (0, 7 if above else -7), textcoords="offset points", ha="center", va="bottom" if above else "top",
            fontsize=7, rotation=upright, bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7}, zorder=3,
        )  # fmt: skip


def _shares(heat: Heat) -> dict[Port, float]:
    """The mean over time of what each port carried."""
    spans = np.diff(heat.edges)
    means = (heat.shares * spans[:, None]).sum(axis=0) / spans.sum()
    return {port: float(share) for port, share in zip(heat.ports, means, strict=True)}


def _topology(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """A map of the fabric, a panel a point."""
    points, arms = grouped(rows, lambda row: row.point), arms_of(rows)
    axes = lay_out(figure, [heading(arms[mine[0].variant], mine) for mine in points.values()], 1, 3.2, sharey=False, sharex=False)
    lines: list[tuple[Any, ...]] = []
    for axis, (point, mine) in zip(axes, points.items(), strict=True):
        fabric = Fabric.from_json(json.loads((folder / "points" / point / FILE).read_text()))
        shares = _shares(heat_of(folder / "points" / point))
        drawn = draw_fabric(axis, fabric, shares)
        lines += [(mine[0].variant, point, port.interface, fabric.peer[port].node, round(share, 5)) for port, share in shares.items()]
    mappable = matplotlib.cm.ScalarMappable(drawn.norm, drawn.cmap)
    figure.colorbar(mappable, ax=axes, label="mean share of the configured rate", aspect=40, pad=0.02)
    return Table(("variant", "point", "port", "to", "share"), tuple(lines)), "each half of a link is what the node at its end sent, over the whole time that was sampled"


TOPOLOGY = Plot("the fabric as a map, coloured by what every link carried, per variant", f"points with telemetry (queues, network and {FILE})", with_telemetry, _topology)
