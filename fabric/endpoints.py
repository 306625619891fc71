"""Which congestion control hosts really use for what an experiment asks, and who provides it.

A name is the kernel's own where the kernel has it, or has a module for it. Some that a kernel may lack are ours, as BPF
programs, under another name: nobody can take one for the other, and every socket says which it uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fabric.kernel import has_module, read_sysctl
from fabric.libbpf import BpfObject, objects

__all__ = ["OURS", "Provided", "offered", "provided", "providers"]

OURS = {"dctcp": ("bpf_dctcp", "dctcp.o")}  # asked for: as what ours is registered, and its object


@dataclass(frozen=True, slots=True)
class Provided:
    """A congestion control: as it was `asked` for, the `name` that sockets choose, and `by` whom: kernel or bpf."""

    asked: str
    name: str
    by: str


def provided(tcp: str, available: Iterable[str]) -> Provided:
    """Who provides what is asked for, where the kernel has `available`; the kernel goes first."""
    if tcp in OURS and tcp not in available:
        return Provided(tcp, OURS[tcp][0], "bpf")
    return Provided(tcp, tcp, "kernel")


def providers(tcps: Iterable[str]) -> Mapping[str, Provided]:
    """Who provides each of `tcps` on this machine; a module that the kernel has for one is loaded."""
    wanted = dict.fromkeys(tcps)
    for tcp in wanted:
        has_module(f"tcp_{tcp}")
    available = read_sysctl("net.ipv4.tcp_available_congestion_control").split()
    return {tcp: provided(tcp, available) for tcp in wanted}


@contextlib.contextmanager
def offered(tcps: Iterable[Provided]) -> Iterator[None]:
    """Have those that are ours ready to be chosen, for the time of the block; they go with it, or with the process.

    MachineError when the kernel refuses one.
    """
    with contextlib.ExitStack() as held:
        for one in tcps:
            if one.by == "bpf":
                held.enter_context(BpfObject(objects() / OURS[one.asked][1])).register()
        yield
