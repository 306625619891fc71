"""Path labels: the ports that a packet still has to take, written into its destination MAC at the edge where it enters.

Every later switch takes the first byte off and sends the packet out of that port, so one rule at the entering edge
decides the whole path, in any topology, and no label can make a loop. A label that has run out is delivered by address.
The host's own MAC is put back by the last switch.

Beside a label there is a backup for every port between switches, to be used by the switch itself when that link is
down. Where the rest of the label leads to the same place over another port, that port will do (`Backup.prepend` is
empty: upward in a fat-tree); else the packet goes round the dead link, by a detour that is put before the label. A
detoured packet is marked and is not detoured again, so that two failures cannot send it in circles.

Comes in: a `Fabric` and its paths. Goes out: labels and backups, as numbers. Pure.
Source of the idea: Jyothi et al., "Towards a flexible data center fabric with source routing", SOSR 2015 (port lists as
labels); Pan et al., RFC 4090 (a detour round each link, prepared beforehand).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from fabric.errors import RequestError
from fabric.graph import Fabric, Port
from fabric.paths import Path

__all__ = ["DETOURED", "LABEL_BYTES", "Backup", "Label", "backups", "follow", "label_of", "mac_of_label", "path_of_label"]

LABEL_BYTES = 5  # of six; the last byte marks a packet that was detoured
DETOURED = 0x01

Label = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Backup:
    """Where a packet goes when the link out of a port is down: out of `port`, after `prepend` was put before its label."""

    port: Port
    prepend: Label


def label_of(path: Path) -> Label:
    """The label of a path from host to host: the ports out of its second switch to the last but one.

    RequestError when it is longer than a label can be.
    """
    label = tuple(port.number for port in path[2:-1])
    if len(label) > LABEL_BYTES or any(not 0 < number < 256 for number in label):
        over = " - ".join(port.node for port in path[1:])
        raise RequestError(
            f"path {over}: got {len(path) - 1} switches with ports up to {max(label)}; accepted: at most {LABEL_BYTES + 2} switches "
            "with ports up to 255, what a label can hold; use a flatter topology, or a controller without labels"
        )
    return label


def mac_of_label(label: Label) -> str:
    """The hardware address that carries a label.

    >>> mac_of_label((3, 1, 2))
    '03:01:02:00:00:00'
    """
    return ":".join(f"{number:02x}" for number in (*label, *[0] * (LABEL_BYTES - len(label)), 0))


def path_of_label(fabric: Fabric, src: str, dst: str, first: int, label: Label) -> Path | None:
    """The path from host `src` whose edge switch sends out of port `first` with `label`; None when it does not end at `dst`."""
    (host,) = fabric.ports_of[src][:1]
    ports = [host, Port(fabric.peer[host].node, first)]
    if ports[-1] not in fabric.peer:
        return None
    for number in label:
        ports.append(Port(fabric.peer[ports[-1]].node, number))
        if ports[-1] not in fabric.peer:
            return None
    if fabric.peer[ports[-1]].node != dst:
        ports.append(next((port for port in fabric.ports_of[fabric.peer[ports[-1]].node] if fabric.peer[port].node == dst), host))
    return tuple(ports) if fabric.peer[ports[-1]].node == dst else None


def follow(fabric: Fabric, switch: str, label: Label) -> str | None:
    """The switch at which a label that is met at `switch` runs out; None when it leads to no switch."""
    for number in label:
        port = Port(switch, number)
        if port not in fabric.peer or fabric.peer[port].node not in fabric.switch_by_name:
            return None
        switch = fabric.peer[port].node
    return switch


def backups(fabric: Fabric, paths: Iterable[Path]) -> dict[Port, tuple[Backup, ...]]:
    """For every port between switches on `paths`, where else its packets can go: up to two ways, by different ports.

    Two, because a switch does not send a packet back out of the port it came in by: what comes in by the first way's
    port takes the second. `paths` are all the paths that labels are made of; a path's first and last port are hosts'.
    """
    rests: dict[Port, set[Label]] = {}
    for path in paths:
        for index in range(1, len(path) - 1):
            rests.setdefault(path[index], set()).add(tuple(port.number for port in path[index + 1 : -1]))
    return {port: _backups_of(fabric, port, rest) for port, rest in sorted(rests.items())}


def _backups_of(fabric: Fabric, port: Port, rests: set[Label]) -> tuple[Backup, ...]:
    room = LABEL_BYTES - max(map(len, rests))
    sidesteps = tuple(islice(_sidesteps(fabric, port, rests), 2))
    taken = {backup.port for backup in sidesteps}
    detours = (way for way in _detours(fabric, port) if len(way.prepend) <= room and way.port not in taken)
    return tuple(islice(chain(sidesteps, detours), 2))


def _sidesteps(fabric: Fabric, port: Port, rests: set[Label]) -> Iterator[Backup]:
    """The other ports from which every label that may be met here leads to where it should, and not back through here."""
    over = fabric.peer[port].node
    ends: Mapping[Label, str | None] = {label: follow(fabric, over, label) for label in rests}
    for other in _others(fabric, port):
        node = fabric.peer[other].node
        if all(follow(fabric, node, label) == end and _straight(fabric, other, label) for label, end in ends.items()):
            yield Backup(other, ())


def _straight(fabric: Fabric, port: Port, label: Label) -> bool:
    """Whether a label, met at the far end of `port`, leads to no switch twice, nor to that of `port` again."""
    visited = [port.node, *(follow(fabric, fabric.peer[port].node, label[:length]) for length in range(len(label) + 1))]
    return len(set(visited)) == len(visited)


def _detours(fabric: Fabric, port: Port) -> Iterator[Backup]:
    """The way to the far end of the link by each other port, shortest first."""
    goal = fabric.peer[port].node
    toward = _toward(fabric, goal, avoiding=port)
    ways = [(other, _way(fabric, toward, fabric.peer[other].node, goal)) for other in _others(fabric, port)]
    found = [Backup(other, way) for other, way in ways if way is not None]
    yield from sorted(found, key=lambda backup: len(backup.prepend))


def _others(fabric: Fabric, port: Port) -> list[Port]:
    """The switch's other ports to switches that pass on, beginning after `port`, so that the backups of neighbours differ."""
    between = [item for item in fabric.ports_of[port.node] if item == port or _passes(fabric, fabric.peer[item].node)]
    return _rotated(between, between.index(port))[1:]


def _toward(fabric: Fabric, goal: str, avoiding: Port) -> dict[str, int]:
    """By switch, the port that lies on a shortest way to `goal`, none of them through the switch of `avoiding`."""
    toward: dict[str, int] = {}
    queue = deque([goal])
    while queue:
        node = queue.popleft()
        for step in _rotated(fabric.ports_of[node], avoiding.number):  # so that detours of neighbouring links spread
            far = fabric.peer[step]
            if _passes(fabric, far.node) and far.node not in toward and far.node not in (goal, avoiding.node):
                toward[far.node] = far.number
                queue.append(far.node)
    return toward


def _passes(fabric: Fabric, node: str) -> bool:
    return node in fabric.switch_by_name and fabric.switch_by_name[node].transit


def _way(fabric: Fabric, toward: Mapping[str, int], node: str, goal: str) -> Label | None:
    """The ports from a switch to `goal`; None when there is no way."""
    numbers: list[int] = []
    while node != goal:
        if node not in toward:
            return None
        numbers.append(toward[node])
        node = fabric.peer[Port(node, numbers[-1])].node
    return tuple(numbers)


def _rotated(ports: Sequence[Port], by: int) -> list[Port]:
    at = by % len(ports)
    return [*ports[at:], *ports[:at]]
