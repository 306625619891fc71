"""Which congestion control hosts really use for what an experiment asks, and who provides it.

A name is the kernel's own where the kernel has it, or has a module for it. Some that a kernel may lack are ours, as BPF
programs, under another name: nobody can take one for the other, and every socket says which it uses. And some are a file
of the user's, a BPF program too, under the name that it gives itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fabric.congestion import compiled, declared, fingerprint, is_file, located
from fabric.errors import MachineError, RequestError
from fabric.kernel import has_module, read_sysctl, set_sysctl
from fabric.keys import NEED_ECN
from fabric.libbpf import BpfObject, objects

__all__ = ["ALLOWED", "OURS", "Provided", "offered", "provided", "providers"]

ALLOWED = "net.ipv4.tcp_allowed_congestion_control"
OURS = {"dctcp": ("bpf_dctcp", "dctcp.o")}  # asked for: as what ours is registered, and its object


@dataclass(frozen=True, slots=True)
class Provided:
    """A congestion control: as it was `asked` for, the `name` that sockets choose, and `by` whom: kernel, bpf or file.

    Of a file: the object that is loaded, its SHA-256, and whether it says that it needs ECN.
    """

    asked: str
    name: str
    by: str
    file: str = ""
    sha256: str = ""
    needs_ecn: bool = False


def provided(tcp: str, available: Iterable[str]) -> Provided:
    """Who provides what is asked for, where the kernel has `available`; the kernel goes first."""
    if tcp in OURS and tcp not in available:
        return Provided(tcp, OURS[tcp][0], "bpf", needs_ecn=tcp in NEED_ECN)
    return Provided(tcp, tcp, "kernel", needs_ecn=tcp in NEED_ECN)


def providers(tcps: Iterable[str], base: Path = Path(), into: Path = Path()) -> Mapping[str, Provided]:
    """Who provides each of `tcps` on this machine; a module that the kernel has for one is loaded.

    Files are looked up from `base`, and what is C is compiled into the folder `into`. RequestError when one calls itself
    as another does.
    """
    wanted = dict.fromkeys(tcps)
    for tcp in wanted:
        if not is_file(tcp):
            has_module(f"tcp_{tcp}")
    available = read_sysctl("net.ipv4.tcp_available_congestion_control").split()
    found = {tcp: _of_a_file(tcp, base, into, available) if is_file(tcp) else provided(tcp, available) for tcp in wanted}
    names: dict[str, str] = {}
    for tcp, one in found.items():
        if (other := names.setdefault(one.name, tcp)) != tcp:
            raise RequestError(f"transport.tcp: {tcp} calls itself {one.name}, as {other} does; accepted: a name of its own; change its .name")
    return found


def _of_a_file(tcp: str, base: Path, into: Path, available: Iterable[str]) -> Provided:
    source = located(tcp, base)
    target = compiled(source, into)
    says = declared(target)
    ours = {*OURS, *(name for name, _ in OURS.values())}
    if says.name in ours or says.name in available or has_module(f"tcp_{says.name}"):
        whose = "fabriclab" if says.name in ours else "the kernel"
        raise RequestError(f"transport.tcp: {tcp} calls itself {says.name}, which {whose} has already; accepted: a name of its own; change its .name")
    return Provided(tcp, says.name, "file", str(target), fingerprint(source), says.needs_ecn)


@contextlib.contextmanager
def offered(tcps: Iterable[Provided]) -> Iterator[None]:
    """Have those that are BPF programs ready to be chosen, for the time of the block; they go with it, or with the process.

    MachineError when the kernel refuses one.
    """
    with contextlib.ExitStack() as held:
        for one in tcps:
            if one.by != "kernel":
                path = Path(one.file) if one.file else objects() / OURS[one.asked][1]
                held.enter_context(BpfObject(path)).register()
                _check_registered(one)
        _allow([one.name for one in tcps if one.by == "file"])
        yield


def _check_registered(one: Provided) -> None:
    available = read_sysctl("net.ipv4.tcp_available_congestion_control").split()
    if one.name not in available:
        raise MachineError(f"{one.asked} was registered, and the kernel does not list {one.name}: it offers {', '.join(available)}")


def _allow(names: Iterable[str]) -> None:
    """Let namespaces choose these, which may not say themselves that anyone may (TCP_CONG_NON_RESTRICTED).

    The kernel keeps this in the congestion control, so it goes with that: `machine_sysctls` has noted what to put back.
    """
    allowed = read_sysctl(ALLOWED).split()
    if missing := [name for name in names if name not in allowed]:
        set_sysctl(ALLOWED, " ".join([*allowed, *missing]))
