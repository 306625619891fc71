"""Which hosts the ranks of a job are on, and those of several jobs beside each other.

Comes in: what each job asks for, a `Fabric`, a seed. Goes out: host names by rank, no host in two jobs. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest

from fabric import seeds
from fabric.errors import RequestError
from fabric.graph import Fabric
from fabric.keys import Placement

__all__ = ["place", "spread"]

Asked = tuple[str | int | tuple[str, ...], Placement]  # all, a number or a list; and how


def place(asked: Mapping[str, Asked], fabric: Fabric, seed: int, purposes: Mapping[str, str]) -> dict[str, list[str]]:
    """The hosts of the ranks 0, 1, ... of every job, by its name, in the order of `asked`.

    Lists are served first, then the others in order, each from the hosts that are left; `purposes` is what a job's random draw
    is for. RequestError, which begins with the job's name, when too few are left.
    """
    taken = {host for ranks, _ in asked.values() if isinstance(ranks, tuple) for host in ranks}
    found: dict[str, list[str]] = {}
    for name, (ranks, how) in asked.items():
        if isinstance(ranks, tuple):
            found[name] = list(ranks)
            continue
        free = [host.name for host in fabric.hosts if host.name not in taken]
        n = len(free) if ranks == "all" else int(ranks)
        if not 2 <= n <= len(free):
            text = f"accepted: 2 to {len(free)}, the hosts that the other jobs leave; use fewer, or a larger topology"
            if len(free) < 2:
                text = f"accepted: jobs that leave two hosts or more, and the others leave {len(free)}; give those fewer ranks, or use a larger topology"
            raise RequestError(f"{name}.ranks: got {ranks}; {text}")
        if how == "random":
            found[name] = [free[int(index)] for index in seeds.rng(seed, purposes[name]).permutation(len(free))[:n]]
        else:
            found[name] = (spread(fabric, free) if how == "striped" else free)[:n]
        taken |= set(found[name])
    return found


def spread(fabric: Fabric, hosts: Sequence[str]) -> list[str]:
    """The hosts in turns, one of each switch a turn; or one of each server, where hosts are NICs of servers."""
    units: dict[str, list[str]] = {}
    for name in hosts:
        host = fabric.host_by_name[name]
        unit = host.machine if fabric.servers else fabric.attached_to[name][0]
        units.setdefault(unit, []).append(name)
    return [host for host in chain.from_iterable(zip_longest(*units.values())) if host is not None]
