"""Timed events: what an experiment file asks to happen to the network, one by one, and what did happen.

Comes in: the `events` of a file, and the lines of a point's events.jsonl. Goes out: `Timed` events in order of time,
what is wrong with them, and for each moment the rate in force on each interface. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.graph import Fabric, Port
from fabric.keys import Event
from fabric.located import Document, Problem, told
from fabric.misnamed import misnamed

__all__ = [
    "Happened", "InForce", "Timed", "asked_wrongly", "degraded", "describe_events", "expand", "in_force", "ports_of",
    "read_happened", "strangers", "undone_at",
]  # fmt: skip

SETTLE_S = 1.0  # after this a network that repairs itself has done so


@dataclass(frozen=True, slots=True)
class Timed:
    """One event, `at_s` after the traffic began: `do` is down, up or rate, `names` are a link's two nodes or a switch.

    Without names it is the controller's. `mbps` is the link's new rate with `rate`.
    """

    at_s: float
    do: str
    names: tuple[str, ...] = ()
    mbps: float | None = None
    probe: bool = True

    @property
    def target(self) -> str:
        """What it is done to, for a person: `link p0a0-g0c0`, `switch g0c0`, `controller`."""
        kind = ("controller", "switch", "link")[len(self.names)]
        return f"{kind} {'-'.join(self.names)}".strip()

    def words(self) -> str:
        """The event for a person.

        >>> Timed(5, "rate", ("p0a0", "g0c0"), 5.0).words()
        '5 s link p0a0-g0c0 rate 5 Mb/s'
        """
        rate = f" {self.mbps:g} Mb/s" if self.mbps is not None else ""
        return f"{self.at_s:g} s {self.target} {self.do}{rate}"


@dataclass(frozen=True, slots=True)
class Happened:
    """An event that was done: from when to when (CLOCK_MONOTONIC), and the rate of each touched interface after it.

    A rate is in Mb/s with its Ethernet header, 0 while the interface is down. `crossing` says by a probe's number whether
    its path crossed the target just before, read back from the switches.
    """

    event: Timed
    begin: float
    end: float
    mbps: Mapping[str, float]
    crossing: Mapping[str, bool] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A line of events.jsonl."""
        figures = {"in_force": dict(self.mbps), "crossing": dict(self.crossing)}
        return {"begin": self.begin, "end": self.end, **asdict(self.event), **figures}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Happened:
        """What `to_json` wrote."""
        event = Timed(data["at_s"], data["do"], tuple(data["names"]), data["mbps"], data["probe"])
        return Happened(event, data["begin"], data["end"], data["in_force"], data["crossing"])


def expand(events: Iterable[Event]) -> tuple[Timed, ...]:
    """Every event as often as it is asked for, in order of time; those of one moment in the file's order."""
    every = [
        Timed(event.at_s + nth * (event.every_s or 0), event.do, _names(event), event.mbps, event.probe)
        for event in events
        for nth in range(event.times)
    ]
    return tuple(sorted(every, key=lambda event: event.at_s))


def describe_events(events: Sequence[Event]) -> str | None:
    """The events of a file in a few words; None without any."""
    return "; ".join(_once(event) + _repeats(event) for event in events) or None


def _once(event: Event) -> str:
    return Timed(event.at_s, event.do, _names(event), event.mbps).words()


def _repeats(event: Event) -> str:
    return f" {event.times} times every {event.every_s:g} s" if event.times > 1 else ""


def _names(event: Event) -> tuple[str, ...]:
    return event.link or ((event.switch,) if event.switch is not None else ())


def ports_of(fabric: Fabric, event: Timed) -> tuple[Port, ...]:
    """Every direction that the event touches: of all links between its two nodes, or of its switch; else none."""
    touched = set(event.names)
    return tuple(
        port
        for link in fabric.links
        if touched and len(touched & {link.a.node, link.b.node}) == len(touched)
        for port in (link.a, link.b)
    )


# -- what is wrong with them


def asked_wrongly(document: Document, events: Sequence[Event], duration_s: float | None) -> Iterator[Problem]:
    """What is wrong between the keys of each event, whatever the topology."""
    for number, event in enumerate(events):
        path = ("events", number)
        targets = [key for key in ("link", "switch", "controller") if getattr(event, key) is not None]
        if len(targets) != 1:
            got = " and ".join(targets) or "neither link, switch nor controller"
            remedy = f"remove {targets[-1]}" if targets else "add e.g. link: [p0a0, g0c0]"
            yield Problem(path, f"got {got}; accepted: one of link, switch and controller; {remedy}")
        yield from (Problem((*path, key), text, not document.has((*path, key))) for key, text in _misfits(event))
        last = event.at_s + (event.times - 1) * (event.every_s or 0)
        if duration_s is not None and last >= duration_s:
            accepted = f"events before duration_s, which is {duration_s:g}"
            text = f"got one at {last:g} s; accepted: {accepted}; let it come earlier, or last longer"
            yield Problem((*path, "at_s"), text)


def _misfits(event: Event) -> Iterator[tuple[str, str]]:
    if event.do == "rate" and event.link is None:
        yield "do", told("rate", "down or up of a switch or of the controller", "write do: down, or name a link")
    if event.do == "rate" and event.mbps is None:
        yield "mbps", told(None, "the link's new rate beside do: rate", "add e.g. mbps: 5")
    if event.do != "rate" and event.mbps is not None:
        yield "mbps", told(event.mbps, "none beside another do than rate", "remove it, or write do: rate")
    if event.times > 1 and event.every_s is None:
        yield "every_s", told(None, "the seconds from one time to the next", "add e.g. every_s: 2")
    if event.times == 1 and event.every_s is not None:
        yield "every_s", told(event.every_s, "none for an event that happens once", "remove it, or add e.g. times: 10")


def strangers(events: Sequence[Event], fabric: Fabric) -> Iterator[Problem]:
    """Names that are no node of the topology, nodes that no link joins, and links without a switch."""
    for number, event in enumerate(events):
        if event.switch is not None and event.switch not in fabric.switch_by_name:
            text = misnamed(event.switch, "switches", fabric.switch_by_name)
            yield Problem(("events", number, "switch"), text)
        if event.link is not None and (wrong := _no_link(event.link, fabric)):
            yield Problem(("events", number, "link"), wrong)


def _no_link(names: tuple[str, ...], fabric: Fabric) -> str | None:
    for name in names:
        if name not in fabric.ports_of:
            return misnamed(name, "nodes", fabric.ports_of)
    near, far = names
    if not ports_of(fabric, Timed(0, "down", names)) or near == far:
        neighbours = ", ".join(dict.fromkeys(fabric.peer[port].node for port in fabric.ports_of[near]))
        return told(list(names), f"two nodes with a link; {near} has links to {neighbours}", "name one of these")
    if not set(names) & fabric.switch_by_name.keys():
        return told(list(names), "a link with a switch at one end or both", "name another link")
    return None


# -- what did happen


@dataclass(frozen=True)
class InForce:
    """The network over S samples of N interfaces: `mbps` [S, N] at each sample, 0 where an interface is down.

    Between two samples, `steady` [S-1, N] says that nothing changed and the interface was up, `whole` [S-1] that no
    interface of the fabric was down.
    """

    mbps: npt.NDArray[np.float64]
    steady: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]


def in_force(
    t: npt.NDArray[np.float64], configured: Mapping[str, float], interfaces: Sequence[str], happened: Sequence[Happened]
) -> InForce:
    """The rate of every interface at the moments `t` (CLOCK_MONOTONIC), from the configured ones and what happened."""
    mbps = np.tile(np.array([configured[name] for name in interfaces], np.float64), (len(t), 1))
    steady = np.ones((max(0, len(t) - 1), len(interfaces)), np.bool_)
    column = {name: index for index, name in enumerate(interfaces)}
    for one in happened:
        meanwhile = (t[1:] >= one.begin) & (t[:-1] <= one.end)
        for name in one.mbps.keys() & column.keys():
            rate = mbps[:, column[name]]
            # While it is being done either may be in force: nothing is held against a link for having the higher one.
            rate[t >= one.begin] = np.maximum(rate[t >= one.begin], one.mbps[name])
            rate[t > one.end] = one.mbps[name]
            steady[meanwhile, column[name]] = False
    up = mbps > 0
    steady &= up[1:] & up[:-1]
    return InForce(mbps, steady, _whole(t, up, happened))


def _whole(t: npt.NDArray[np.float64], up: npt.NDArray[np.bool_], happened: Sequence[Happened]) -> npt.NDArray[np.bool_]:
    whole: npt.NDArray[np.bool_] = np.logical_and(up[1:].all(axis=1), up[:-1].all(axis=1))
    for one in happened:
        if one.event.do != "rate" and one.event.names:
            whole &= (t[1:] < one.begin) | (t[:-1] > one.end)
    return whole


def undone_at(happened: Sequence[Happened], index: int, end: float) -> float:
    """When the next event on the same target took back the effect of one: up after down, any after rate; else `end`."""
    one = happened[index]
    wanted = {"down": ("up",), "rate": ("rate", "up")}[one.event.do]
    later = (
        other.begin for other in happened[index + 1 :]
        if set(other.event.names) == set(one.event.names) and other.event.do in wanted
    )  # fmt: skip
    return min(next(later, end), end)


def degraded(happened: Sequence[Happened], end: float) -> tuple[float, float] | None:
    """The stretch that says how the network does after the first failure: from `SETTLE_S` after it until it is undone.

    The first down or rate of a link or a switch counts; without one, of the controller. None when there is no stretch.
    """
    broken = [index for index, one in enumerate(happened) if one.event.do in ("down", "rate")]
    if not broken:
        return None
    first = next((index for index in broken if happened[index].event.names), broken[0])
    begin, until = happened[first].end + SETTLE_S, undone_at(happened, first, end)
    return (begin, until) if begin < until else None


def read_happened(path: Path) -> list[Happened]:
    """What events.jsonl says was done, in order; empty when there is no such file."""
    if not path.is_file():
        return []
    whole = path.read_text().rpartition("\n")[0].splitlines()
    return [Happened.from_json(line) for line in map(json.loads, whole) if "names" in line]
