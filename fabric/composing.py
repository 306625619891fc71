"""The schedule that an experiment asks for: the collective's, held to what it promises, over as many channels.

Comes in: the file's `Collective`, ranks and a size. Goes out: a `Schedule` that can be executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fabric import plugins
from fabric.cutting import over_channels
from fabric.errors import RequestError
from fabric.graph import Fabric
from fabric.keys import Collective, Links
from fabric.parameters import on_request
from fabric.relaying import relayed
from fabric.schedule import ELEMENT_BYTES, Schedule, check_structure

__all__ = ["compose"]


def compose(collective: Collective, fabric: Fabric, hosts: Sequence[str], nbytes: int, base: Path, links: Links) -> Schedule:
    """The collective over ranks on these hosts, `nbytes` a buffer; relative plug-in files start from `base`.

    A plug-in that has parameters called `fabric`, `hosts` or `links` is given them.

    Where rails meet inside servers only, what changes rails is passed on there.

    RequestError when it refuses, or gives something else, or what never ends; whether it computes the right thing is
    asked by `interpreter.check_result`.
    """
    ranks = len(hosts)
    make = plugins.load("collective", collective.use, base)
    known = {"fabric": fabric, "hosts": hosts, "links": links}
    asked = {name: known[name] for name in on_request("collective", make)}
    schedule = make(ranks, nbytes // ELEMENT_BYTES, **asked, **collective.params)
    if not isinstance(schedule, Schedule) or schedule.ranks != ranks or schedule.nbytes != nbytes:
        raise RequestError(
            f"collective {collective.use!r}: got {type(schedule).__name__} for {ranks} ranks and {nbytes} bytes; "
            "accepted: a Schedule of just these; see fabric/collectives/ring_allreduce.py"
        )
    check_structure(schedule)
    schedule = over_channels(schedule, collective.channels)
    machines = [fabric.host_by_name[host].machine for host in hosts]
    passed_on = relayed(schedule, [fabric.part[host] for host in hosts], machines) if any(fabric.part.values()) else schedule
    if collective.compute_ms is not None and any((src - dst) % schedule.groups for src, dst, _ in passed_on.connections):
        text = "accepted: none where one job's ranks pass on what another's send, as between these rails; remove it, or choose groups that lie along rails"
        raise RequestError(f"collective.compute_ms: got {collective.compute_ms:g}; {text}")
    return passed_on
