"""Who asks whom, how often and for how much: `requests` of an experiment as one `Asking` a connection, and what is wrong between their keys.

Comes in: keys, hosts, a folder for files of sizes. Goes out: askings, problems. Pure but for those files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fabric.asking import Asking
from fabric.errors import RequestError
from fabric.ideal import payload_mbps
from fabric.keys import Links, Requests
from fabric.located import Problem, told
from fabric.sizes import Sizes, sizes_of

__all__ = ["MOST", "asked_wrongly", "askings_of", "mean_bytes"]

MOST = 2000  # connections of an entry: beyond, their sockets alone take longer to open than most runs


def asked_wrongly(number: int, one: Requests, base: Path) -> Iterator[Problem]:
    """What is wrong between the keys of an entry that are each fine."""
    path = ("requests", number)
    for a, b, e_g in (("response", "sizes", "response: 64KiB"), ("rate_hz", "load", "rate_hz: 5")):
        given = [key for key in (a, b) if getattr(one, key) is not None]
        if len(given) != 1:
            text = f"got {'both' if given else 'neither'} of {a} and {b}; accepted: one of them; {f'remove {b}' if given else f'add e.g. {e_g}'}"
            yield Problem((*path, b) if given else path, text, not given)
    if one.arrivals == "periodic":
        for key, value, unfit in (("load", one.load, one.load is not None), ("servers", one.servers, one.servers == "all")):
            if unfit:
                yield Problem((*path, key), told(value, f"{'none' if key == 'load' else 'a list'} beside arrivals: periodic, which are everybody's at once", "write arrivals: poisson"))
    if one.sizes is not None:
        try:
            sizes_of(one.sizes, base)
        except RequestError as err:
            yield Problem((*path, "sizes"), str(err))
    elif one.scale != 1:
        yield Problem((*path, "scale"), told(one.scale, "none without sizes", "remove it, or write e.g. sizes: websearch"))


def mean_bytes(one: Requests, base: Path) -> float:
    """The mean size of an answer."""
    sizes = _sizes(one, base)
    return sizes.mean() if sizes else float(one.response or 0)


def _sizes(one: Requests, base: Path) -> Sizes | None:
    return sizes_of(one.sizes, base).scaled(one.scale) if one.sizes else None


def askings_of(number: int, one: Requests, hosts: Sequence[str], links: Links, seed: int, base: Path) -> list[Asking]:
    """The connections of an entry; `hosts` are those that its `all` and `idle` stand for.

    A client that asks any of several servers at random asks each at random moments of its own: parted at random, a Poisson process is several.
    """
    sizes = _sizes(one, base)
    clients = list(one.clients) if isinstance(one.clients, tuple) else [host for host in hosts if one.servers == "all" or host not in one.servers]
    rate_hz = one.rate_hz or (one.load or 0) * payload_mbps(links.mbps, links.mtu) * 1e6 / 8 / mean_bytes(one, base)
    found = []
    for place, client in enumerate(clients):
        servers = [host for host in hosts if host != client] if one.servers == "all" else [one.servers[place % len(one.servers)]]
        for server in servers:
            draw = f"requests{number}/{client}" if len(servers) == 1 else f"requests{number}/{client}/{server}"
            found.append(
                Asking(client, server, one.request, one.response or 0, rate_hz / len(servers), one.arrivals == "poisson", draw, seed, sizes.points if sizes else ())
            )
    return found
