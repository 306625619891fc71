"""Names that a topology does not have, in the words of an error.

Comes in: a name of a file, and those that are known. Goes out: what is wrong with it. Pure.
"""

from __future__ import annotations

from collections.abc import Collection

from fabric.located import meant, told

__all__ = ["misnamed", "some"]

_SOME = 4  # names: enough to see how they are made


def some(known: Collection[str]) -> str:
    """The first few of known names, and whether there are more.

    >>> some(["h0", "h1"]), some("abcde")
    ('h0, h1', 'a, b, c, d, ...')
    """
    return ", ".join([*list(known)[:_SOME], *(["..."] if len(known) > _SOME else [])])


def misnamed(name: str, what: str, known: Collection[str]) -> str:
    """What is wrong with a name that is none of the topology's; `what` are hosts, switches or nodes.

    >>> misnamed("h9", "hosts", ["h0", "s1"])
    "got 'h9'; accepted: hosts of this topology: h0, s1; take the names from the topology"
    """
    return told(name, f"{what} of this topology: {some(known)}", meant(name, known, "take the names from the topology"))
