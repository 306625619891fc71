"""Jobs that announced themselves go first in every queue; the background keeps the floor that the links leave it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from fabric.policy import Action, SetPriority, View

__all__ = ["Priority", "prioritised"]


class Priority:
    """Gives priority to every flow of a job, and to nothing else; where queues know no priority it does nothing."""

    NEEDS: ClassVar[Mapping[str, str]] = {"hints": "true"}  # keys of the collective, each with an example

    def decide(self, view: View) -> Sequence[Action]:
        """One order for each of a job's flows that does not go first yet."""
        return list(prioritised(view))


def prioritised(view: View) -> Iterator[SetPriority]:
    """The orders that are missing for the jobs' flows to go first."""
    if view.wires is None or view.wires.floor is None:
        return
    for flow in view.flows:
        if flow.job is not None and not flow.first:
            yield SetPriority(flow.key, True, f"it is the job {flow.job}'s, which goes before the background", {"floor": view.wires.floor})
