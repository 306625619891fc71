"""Controllers that are somebody else's program: where they listen, and whether they do.

    controller: {use: "tcp:127.0.0.1:6653"}

Comes in: the spelling. Goes out: an `Address`; and, in words, why nobody can be reached there.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from fabric.errors import RequestError

__all__ = ["PREFIX", "Address", "address_of", "unreachable"]

PREFIX = "tcp:"
_SPELLING = re.compile(r"tcp:(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>[0-9]{1,5})")
_HIGHEST_PORT = 65535
_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a controller listens for switches, as it is reached from outside a run's namespaces."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{PREFIX}[{self.host}]:{self.port}" if ":" in self.host else f"{PREFIX}{self.host}:{self.port}"


def address_of(spelling: str) -> Address:
    """The address in `tcp:HOST:PORT`, or `tcp:[IPV6]:PORT`; RequestError when it is none."""
    found = _SPELLING.fullmatch(spelling)
    if found is None or not 0 < int(found["port"]) <= _HIGHEST_PORT:
        raise RequestError(f"controller {spelling!r}: no address; accepted: tcp:HOST:PORT with a port from 1 to {_HIGHEST_PORT}; write e.g. tcp:127.0.0.1:6653")
    return Address(found["six"] or found["host"], int(found["port"]))


def unreachable(address: Address) -> str | None:
    """Why no connection can be made to a controller, and what to do; None where one can."""
    try:
        socket.create_connection((address.host, address.port), _ANSWER_S).close()
    except OSError as err:
        why = err.strerror or str(err) or type(err).__name__
        return f"controller.use: got {address}, where no controller answers ({why}); accepted: one that listens; start it before the run, or mend the address"
    return None
