"""How full every port was over time: a heat map a point.

Comes in: telemetry of points. Goes out: the drawing, and its table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fabric.errors import RequestError
from fabric.graph import Fabric, Port
from fabric.plots.frame import Floats, Plot, Table, arms_of, grouped, lay_out, load_of
from fabric.results import Row
from fabric.telemetry import Queues, read_queues, utilisation

__all__ = ["TOPOLOGY", "UTILISATION", "Heat", "heading", "heat_of", "tier_axis", "with_telemetry"]

COLUMNS_OF_HEAT = 240  # finer than a screen shows, and a CSV that still opens
QUEUES, NETWORK, TOPOLOGY = "telemetry/queues.jsonl", "network.json", "controller/topology.json"

def with_telemetry(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows of one point a variant: of its first repeat that was recorded, rather one that was not refused."""
    there = {point for point in {row.point for row in rows} if _recorded(folder / "points" / point)}
    recorded = sorted((row for row in rows if row.point in there), key=lambda row: (bool(row.refused), row.repeat))
    points = {mine[0].point for mine in grouped(recorded, lambda row: row.variant).values()}
    return [row for row in rows if row.point in points]


def _recorded(point: Path) -> bool:
    return all((point / name).is_file() for name in (QUEUES, NETWORK, TOPOLOGY))


def _utilisation(figure: Any, folder: Path, rows: Sequence[Row]) -> tuple[Table, str]:
    """Heat maps of every port over time, a panel a point."""
    points = grouped(rows, lambda row: row.point)
    heats, arms = {point: heat_of(folder / "points" / point) for point in points}, arms_of(rows)
    lines: list[tuple[Any, ...]] = []
    axes = lay_out(figure, [heading(arms[mine[0].variant], mine) for mine in points.values()], 2, 4.2,
                   sharey=len({heat.tiers for heat in heats.values()}) == 1)  # fmt: skip
    for axis, (point, heat) in zip(axes, heats.items(), strict=True):
        down = np.arange(len(heat.ports) + 1)
        colours = axis.pcolormesh(heat.edges, down, heat.shares.T, vmin=0, vmax=1, cmap="viridis", rasterized=True)
        tier_axis(axis, heat, "ports")
        axis.set_xlabel("time, s")
        lines += _heat_lines(points[point][0], heat)
    figure.colorbar(colours, ax=axes, extend="max", label="share of the configured rate", aspect=40, pad=0.02)
    reading = "each row is one port, by the direction it sends in; time from the first sample"
    return Table(("variant", "point", "tier", "port", "to", "from_s", "until_s", "share"), tuple(lines)), reading


def heading(arm: str, rows: Sequence[Row]) -> str:
    """A point in words, with the worst that was said of its rows."""
    verdicts = ["refused" if row.refused else row.fidelity for row in rows]
    worst = next((verdict for verdict in ("refused", "FAIL", "WARN") if verdict in verdicts), "")
    return " · ".join(filter(None, (arm, load_of(rows[0]), f"repeat {rows[0].repeat}", worst)))


@dataclass(frozen=True, slots=True)
class Heat:
    """Shares [T, N] of N ports between the T + 1 `edges`, in seconds from `first_t`; `tiers` are the ports' groups."""

    ports: tuple[Port, ...]
    peers: tuple[str, ...]
    tiers: tuple[str, ...]
    edges: Floats
    shares: Floats
    first_t: float

    def only(self, keep: Sequence[int]) -> Heat:
        """These of the ports."""
        return replace(
            self, ports=tuple(self.ports[n] for n in keep), peers=tuple(self.peers[n] for n in keep),
            tiers=tuple(self.tiers[n] for n in keep), shares=self.shares[:, list(keep)],
        )  # fmt: skip


def heat_of(point: Path) -> Heat:
    """How full every port of a point was; RequestError without a port or two samples."""
    fabric = Fabric.from_json(json.loads((point / TOPOLOGY).read_text()))
    shapes = json.loads((point / NETWORK).read_text())["shapes"]
    queues = read_queues(point / QUEUES)
    known = {*queues.interfaces} & {*shapes}
    found = [port for port in fabric.peer if port.interface in known]
    ports = tuple(sorted(found, key=lambda port: _place(fabric, port)))
    if not ports or len(queues.t) < 2:
        got = f"got {len(ports)} ports of the topology and {len(queues.t)} samples"
        raise RequestError(f"{point / QUEUES}: {got}; accepted: one port and two samples or more; run it again")
    thinned = _thinned(queues, [port.interface for port in ports])
    _, shares = utilisation(thinned, {name: shapes[name]["mbps"] for name in thinned.interfaces})
    peers = tuple(fabric.peer[port].node for port in ports)
    return Heat(
        ports, peers, tuple(_tier(fabric, port) for port in ports), thinned.t - queues.t[0], shares,
        first_t=float(queues.t[0]),
    )  # fmt: skip


def _thinned(queues: Queues, names: Sequence[str]) -> Queues:
    """The interfaces of these names, at no more samples than the heat map has columns; totals lose nothing by that."""
    step = -(-(len(queues.t) - 1) // COLUMNS_OF_HEAT)
    columns = [queues.interfaces.index(name) for name in names]
    return replace(queues, interfaces=tuple(names), t=queues.t[::step], sent_bytes=queues.sent_bytes[::step, columns])


def _place(fabric: Fabric, port: Port) -> tuple[Any, ...]:
    """Where a port stands: in the order a packet passes the tiers, up first, then as the topology counts."""
    near, far = (fabric.level[node] for node in (port.node, fabric.peer[port].node))
    node = fabric.switch_by_name.get(port.node) or fabric.host_by_name[port.node]
    return (near > far, near == far, near if near <= far else -near, _tier(fabric, port), node.position, port)


def _tier(fabric: Fabric, port: Port) -> str:
    near, far = (fabric.level[node] for node in (port.node, fabric.peer[port].node))
    tier = fabric.graph.nodes[port.node]["tier"]
    return f"{tier} {'up' if near < far else 'down' if near > far else 'across'}"


def tier_axis(axis: Any, heat: Heat, what: str) -> None:
    """Tiers from the top down, named at their middle and parted by lines."""
    axis.grid(False)
    axis.set_ylim(max(len(heat.ports), 1), 0)  # on a single switch there may be none to show
    names = list(dict.fromkeys(heat.tiers))
    sizes = [heat.tiers.count(name) for name in names]
    ends = np.cumsum(sizes)
    for end in ends[:-1]:
        axis.axhline(end, color="white", lw=1.5)
    labels = [f"{name}\n{size} {what}" for name, size in zip(names, sizes, strict=True)]
    axis.set_yticks(ends - np.array(sizes) / 2, labels)
    axis.tick_params(axis="y", length=0)


def _heat_lines(row: Row, heat: Heat) -> Iterator[tuple[Any, ...]]:
    for n, (port, peer, tier) in enumerate(zip(heat.ports, heat.peers, heat.tiers, strict=True)):
        for t, share in enumerate(heat.shares[:, n]):
            span = (round(float(heat.edges[t]), 4), round(float(heat.edges[t + 1]), 4))
            yield (row.variant, row.point, tier, port.interface, peer, *span, round(float(share), 5))


UTILISATION = Plot(
    "how full every link was over time, per variant",
    f"points with telemetry ({QUEUES}, {NETWORK}, {TOPOLOGY})",
    with_telemetry,
    _utilisation,
)
