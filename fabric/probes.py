"""Which packets tell how long a failure loses data, and what those that never arrived say.

Comes in: a Fabric, its events, the installed paths by a function; later what `fabric.prober` recorded. Goes out: a probe for
each direction of what fails, and the loss of each. Pure. docs/measures.md defines `recovery_data_ms` in words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.events import SETTLE_S, Happened, Timed, ports_of, undone_at
from fabric.graph import Fabric, Port
from fabric.paths import Path as Hops
from fabric.paths import equal_cost_paths, next_hops
from fabric.seeds import PORTS, rng
from fabric.tcp import Endpoints

__all__ = ["AGAIN", "PERIOD_MS", "Loss", "PathOf", "Probe", "Recovery", "choose", "loss", "read_probes", "recoveries"]

PERIOD_MS = 1.0
_SERVICE_PORT = 4000
_FIRST = (8, 64)  # pairs of hosts, and source ports for each
AGAIN = (3, 16)  # in mid run, where asking the switches takes their time
_MOST = 8  # probes at once: each is a thousand packets a second at every switch on its way
_LOOK = 20  # probes that say whether a path carries again
_BEFORE_S = 1.0  # from here on a loss may have been caused by the event: its packet still stood in a queue

Floats = npt.NDArray[np.float64]
PathOf = Callable[[str, str, Endpoints], "Hops | None"]


@dataclass(frozen=True)
class Probe:
    """A stream of probes over one direction of a link (`out`, an interface) that the event on `target` breaks.

    `path` are the interfaces it leaves by, read back from the switches; None, with the `reason`, when none was found.
    `stopped` when a controller moved it off the link, and another took its place.
    """

    target: str
    out: str
    src: str = ""
    dst: str = ""
    endpoints: Endpoints | None = None
    path: tuple[str, ...] | None = None
    reason: str | None = None
    stopped: bool = False

    def to_json(self) -> dict[str, Any]:
        """A dictionary for probes.json."""
        return asdict(self)


def choose(
    fabric: Fabric, events: Sequence[Timed], seed: int, path_of: PathOf, tries: tuple[int, int] = _FIRST, before: int = 0
) -> list[Probe]:
    """A probe for each direction of each link that goes down, or of a switch's first link to another switch.

    `path_of(src, dst, endpoints)` is the installed path of a UDP packet. Pairs of hosts and source ports are tried in an
    order that the seed alone decides; `tries` says how many of each. There are already `before` probes.
    """
    found: list[Probe] = []
    wanted = {event.target: event for event in events if event.do == "down" and event.names and event.probe}
    for event in wanted.values():
        for port in _directions(fabric, event):
            if sum(probe.path is not None for probe in found) == _MOST:
                found.append(Probe(event.target, port.interface, reason=f"there are {_MOST} probes already"))
            else:
                found.append(_pinned(fabric, event.target, port, seed, path_of, tries, _SERVICE_PORT + before + len(found)))
    return found


def _directions(fabric: Fabric, event: Timed) -> tuple[Port, ...]:
    """Both directions of the first link that the event breaks; of a switch, of one that leads to another switch."""
    touched = ports_of(fabric, event)
    links = list(zip(touched[::2], touched[1::2], strict=True))
    return min(links, key=lambda link: any(port.node in fabric.host_by_name for port in link))


def _pinned(
    fabric: Fabric, target: str, port: Port, seed: int, path_of: PathOf, tries: tuple[int, int], service: int
) -> Probe:
    hosts = fabric.host_by_name
    draws = rng(seed, f"probe {port.interface}")
    ports = [PORTS[int(index)] for index in draws.permutation(len(PORTS))[: tries[1]]]
    tried = 0
    for src, dst in _pairs(fabric, port, draws, tries[0]):
        tried += 1
        for source in ports:
            endpoints = Endpoints(hosts[src].ip, source, hosts[dst].ip, service)
            path = path_of(src, dst, endpoints)
            if path is not None and port in path:
                names = tuple(hop.interface for hop in path)
                return Probe(target, port.interface, src, dst, endpoints, names)
    reason = f"no path of {tried} pairs of hosts with {tries[1]} source ports each crosses it"
    return Probe(target, port.interface, reason=reason if tried else "it is on no shortest path between two hosts")


def _pairs(fabric: Fabric, port: Port, draws: np.random.Generator, left: int) -> Iterator[tuple[str, str]]:
    """A few pairs of hosts with a shortest path over one direction of a link, in a drawn order."""
    names = [host.name for host in fabric.hosts]
    toward = next_hops(fabric)
    for index in draws.permutation(len(names) ** 2):
        src, dst = names[int(index) // len(names)], names[int(index) % len(names)]
        if left and src != dst and not fabric.together(src, dst) and any(port in path for path in equal_cost_paths(fabric, src, dst, toward)):
            left -= 1
            yield src, dst


@dataclass(frozen=True, slots=True)
class Loss:
    """How long probes were lost around one event, in ms; `complete` when they arrived again before the observation ended.

    `lost` were lost in that span, `sent` in the whole observation. `dark_ms` is its longest stretch in which not one arrived:
    where the way round the failure is overloaded, the rest of the span is what its queues drop. `before_ms` is the
    longest span in the second before the event: what full queues do by themselves.
    """

    ms: float
    dark_ms: float
    complete: bool
    lost: int
    sent: int
    before_ms: float


def loss(sent: Floats, arrived: Floats, begin: float, until: float) -> Loss | None:
    """The loss that an event at `begin` caused, observed until `until`; None when no probe was sent meanwhile.

    `sent` and `arrived` are seconds, nan for one that never came. A span begins with a lost probe and ends with the last
    lost one before half of the next 20 arrive; it is as long as from one to the other, and a period. Of all that touch
    the second after the event, or the event itself, the longest counts.
    """
    seen = (sent >= begin - _BEFORE_S) & (sent < until)
    sent, came = sent[seen], ~np.isnan(arrived[seen])
    if not (sent >= begin).any():
        return None
    longest, before = Loss(0.0, 0.0, True, 0, int((sent >= begin).sum()), 0.0), 0.0
    for first, last, complete in _spans(came):
        ms = 1000 * float(sent[last] - sent[first]) + PERIOD_MS
        if sent[last] < begin:
            before = max(before, ms)
        elif sent[first] <= begin + SETTLE_S and ms > longest.ms:
            dark = _darkest_ms(sent[first : last + 1], came[first : last + 1])
            longest = Loss(ms, dark, complete, int((~came[first : last + 1]).sum()), longest.sent, 0.0)
    return replace(longest, before_ms=before)


def _darkest_ms(sent: Floats, came: npt.NDArray[np.bool_]) -> float:
    """The longest run of probes that all were lost, from the first to the last of them, and a period."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], ~came, [False]))))
    runs = zip(edges[::2], edges[1::2] - 1, strict=True)
    return max(1000 * float(sent[last] - sent[first]) + PERIOD_MS for first, last in runs)


def _spans(came: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int, bool]]:
    """First and last lost probe of each span, and whether it ended."""
    total = np.concatenate(([0], np.cumsum(came)))
    at, n = 0, len(came)
    while at < n:
        if came[at]:
            at += 1
            continue
        first = at
        while at < n and not (came[at] and 2 * (total[min(n, at + _LOOK)] - total[at]) >= min(n, at + _LOOK) - at):
            at += 1
        last = at - 1
        while came[last]:
            last -= 1
        yield first, last, at < n


@dataclass(frozen=True)
class Recovery:
    """What one probe says of one event; `loss` is None, with the `reason`, where there was nothing to measure."""

    event: Timed
    begin: float
    probe: Probe
    loss: Loss | None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A line of recovery.jsonl."""
        told = {"event": self.event.words(), "begin": self.begin, **self.probe.to_json()}
        return {**told, "reason": self.reason or self.probe.reason, "loss": asdict(self.loss) if self.loss else None}


def recoveries(happened: Sequence[Happened], folder: Path) -> list[Recovery]:
    """For each link or switch that went down and each of its probes: the loss, from the folder of the probes."""
    probes, times = read_probes(folder)
    found = []
    for index, one in enumerate(happened):
        if probes and one.event.do == "down" and one.event.names:
            # The last one of each direction that was on its link when it went, or else the last one.
            by_out = {probe.out: number for number, probe in enumerate(probes) if probe.target == one.event.target}
            by_out |= {probes[int(number)].out: int(number) for number, crosses in one.crossing.items() if crosses}
            found += [_recovery(happened, index, number, probes[number], times.get(number)) for number in by_out.values()]
    return found


def _recovery(
    happened: Sequence[Happened], index: int, number: int, probe: Probe, times: tuple[Floats, Floats] | None
) -> Recovery:
    one = happened[index]
    if times is None:
        return Recovery(one.event, one.begin, probe, None)
    if not one.crossing.get(str(number), False):
        return Recovery(one.event, one.begin, probe, None, "its path had left the link before the event")
    found = loss(*times, one.begin, undone_at(happened, index, float("inf")))
    return Recovery(one.event, one.begin, probe, found, None if found else "no probe was sent after it")


def read_probes(folder: Path) -> tuple[list[Probe], Mapping[int, tuple[Floats, Floats]]]:
    """The probes of a point, and by number when each packet was sent and arrived, in seconds; none without the folder."""
    if not (folder / "probes.json").is_file():
        return [], {}
    probes = [_probe(data) for data in json.loads((folder / "probes.json").read_text())]
    pinned = [number for number, probe in enumerate(probes) if probe.path is not None]
    if not (folder / "probes.npz").is_file():
        return probes, {}
    with np.load(folder / "probes.npz") as times:
        return probes, {
            number: (times[f"sent_{place}"] / 1e9, _seconds(times[f"arrived_{place}"])) for place, number in enumerate(pinned)
        }


def _seconds(nanoseconds: npt.NDArray[np.int64]) -> Floats:
    """Seconds, nan where the time is -1."""
    found: Floats = np.where(nanoseconds < 0, np.nan, nanoseconds / 1e9)
    return found


def _probe(data: Mapping[str, Any]) -> Probe:
    endpoints = Endpoints(**data["endpoints"]) if data["endpoints"] else None
    return Probe(**{**data, "endpoints": endpoints, "path": tuple(data["path"]) if data["path"] else None})
