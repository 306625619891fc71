"""What can go wrong, and whose turn it is then.

    FabricError                 yours to mend: one line on the screen, an exit code, no traceback
      RequestError       (2)    the request is wrong: an experiment file, an option, a plug-in
      MachineError       (3)    this machine cannot do what was asked
      RunError           (4)    the run broke; its folder is kept
        Refusal          (4)    the run ended, but its result would say nothing: it is not reported

Any other exception is a defect of fabriclab and keeps its traceback.
"""

from __future__ import annotations

__all__ = ["FabricError", "MachineError", "Refusal", "RequestError", "RunError"]


class FabricError(Exception):
    """One line for a person: where, what was got, what is accepted, what to do."""

    exit_code = 4


class RequestError(FabricError):
    """The request is wrong; nothing was started."""

    exit_code = 2


class MachineError(FabricError):
    """This machine cannot do it; the message names the reason and the remedy."""

    exit_code = 3


class RunError(FabricError):
    """The run broke while it ran; the run folder holds what was written until then."""

    exit_code = 4


class Refusal(RunError):
    """A result that would be vacuous or wrong: the row is printed with this reason and no figures."""
