"""The schedule that an experiment asks for: the collective's, held to what it promises, over as many channels.

Comes in: the file's `Collective`, ranks and a size. Goes out: a `Schedule` that can be executed.
"""

from __future__ import annotations

from pathlib import Path

from fabric import plugins
from fabric.cutting import over_channels
from fabric.errors import RequestError
from fabric.keys import Collective
from fabric.schedule import ELEMENT_BYTES, Schedule, check_structure

__all__ = ["compose"]


def compose(collective: Collective, ranks: int, nbytes: int, base: Path) -> Schedule:
    """The collective over `ranks` ranks, `nbytes` a buffer; relative plug-in files start from `base`.

    RequestError when it refuses, or gives something else, or what never ends; whether it computes the right thing is
    asked by `interpreter.check_result`.
    """
    schedule = plugins.load("collective", collective.use, base)(ranks, nbytes // ELEMENT_BYTES, **collective.params)
    if not isinstance(schedule, Schedule) or schedule.ranks != ranks or schedule.nbytes != nbytes:
        raise RequestError(
            f"collective {collective.use!r}: got {type(schedule).__name__} for {ranks} ranks and {nbytes} bytes; "
            "accepted: a Schedule of just these; see fabric/collectives/ring_allreduce.py"
        )
    check_structure(schedule)
    return over_channels(schedule, collective.channels)
