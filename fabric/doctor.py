"""What this machine can do, found out by trying, and what an experiment asks that it cannot.

Comes in: the machine, or recorded facts of one; the points of an experiment. Goes out: findings with reason and remedy,
and refusals of one line each. What is tried is tried in child processes and in network namespaces that end with them;
all that may stay is a kernel module, where root asks for what the kernel keeps in one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from fabric import plugins
from fabric.congestion import is_file, located, uncompiled
from fabric.delay import MOST_CORES, NETEM, NFQUEUE, cores_needed, delay_of, fastest_mbps
from fabric.delayline import try_way
from fabric.endpoints import OURS
from fabric.errors import FabricError
from fabric.experiment import Point
from fabric.external import unreachable
from fabric.kernel import has_module, new_network_namespace, read_sysctl
from fabric.libbpf import BpfObject, objects
from fabric.links import Shape
from fabric.markers import RED_TRIAL, build_and_read_back
from fabric.release import can_release
from fabric.sandbox import leftovers
from fabric.transports import asked_tcps

__all__ = ["Finding", "Kernel", "Machine", "Software", "examine", "findings", "refusals", "trials"]

NEEDS_ROOT = "needs root to try"
WORKS = ""
VM = "run in the VM (Vagrantfile), whose kernel has it"
SHAPERS = {  # by the key of `links` that asks for it: what it is made of, and one to try
    "queue_packets": ("htb+pfifo", Shape(20.0, 1500, queue_packets=50)),
    "queue_bytes": ("htb+bfifo", Shape(20.0, 1500, queue_bytes=75_700)),
    "priority_floor": ("htb+u32", Shape(20.0, 1500, queue_packets=50, floor=0.05)),
}
OTHER_QUEUE = {"queue_packets": "write links.queue_bytes instead", "queue_bytes": "write links.queue_packets instead", "priority_floor": f"leave it out, or {VM}"}
EXTRAS = {  # what `tc` is told, and what a fabric would want it for
    "fq": ("limit 1000", "pacing, which bbr does without it too"),
}
BUILT_OF = {key: name for key, (name, _) in SHAPERS.items()}  # what each key of `links` is built of
DELAYS = {NETEM: "by netem", NFQUEUE: "by a user-space delay line (NFQUEUE)"}  # best first
IPTABLES = "install iptables (.ci/provision), which serves the user-space delay line"
MEASURING = {"queueing.o": ("queueing_delay", "packets' queueing delay"), "stamp.o": ("probes", "in-band telemetry")}  # the object, the key of `telemetry` that is built of it, its finding
PHANTOMS = ("mark.o", "mark_phantom.o")  # a headroom takes one of these
MARKING = {"red": "by the queue itself (RED)", "mark.o": "by the queue itself (BPF)", "mark_phantom.o": "by a phantom queue (BPF)"}  # best first
NEWER = "use a kernel with BPF and BTF (Linux 6.10 or later has all that is asked of it)"
TCPS = {"cubic": "the default of transport.tcp", "bbr": "transport.tcp: bbr", "dctcp": "transport.tcp: dctcp"}
GIB = 1 << 30
MEMORY_GIB, DISK_GIB, CORES = 1, 1, 2  # round numbers, generous for a fat-tree of k=4
TRIAL_DEADLINE_S = 60
PROVISION = "run .ci/provision"

RYU_VERSION = "import fabric.manager; from importlib.metadata import version; print(version('ryu'))"  # with its shim
MININET_VERSION = "import mininet.net; print(mininet.net.VERSION)"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined: `needed` by every run or only by some; `remedy` is '' when it is `ok`."""

    name: str
    ok: bool
    needed: bool
    got: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the kernel can do. `trials` is '' for what worked, else what it said; `loadable` are TCPs not loaded yet.

    What is tried are shapers and queueing disciplines, by the name of BUILT_OF or EXTRAS, and BPF objects, by their file's.
    """

    release: str
    trials: Mapping[str, str]
    tcps: tuple[str, ...]
    loadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Software:
    """A program or package: its version, or '' and what was said instead."""

    version: str
    said: str = ""


@dataclass(frozen=True)
class Machine:
    """Everything that findings are made of; sizes in bytes, `leftovers` as (process, state folder)."""

    user: int
    kernel: Kernel
    mininet: Software
    ovs: Software
    ovs_module: bool
    releases: bool  # takes the program without which the kernel's datapath would be no network
    ryu: Software
    memory: int
    cores: int
    disk: int
    runs: Path
    leftovers: tuple[tuple[int, str], ...] = ()


def examine(runs: Path | None = None) -> list[Finding]:
    """All findings about this machine; `runs` is where run folders would go, the working directory by default."""
    return findings(_machine(runs or Path.cwd()))


def findings(machine: Machine) -> list[Finding]:
    """The findings that follow from the facts, most basic first."""
    return [
        *_privileges(machine),
        *_programs(machine),
        *_qdiscs(machine.kernel),
        _marking(machine.kernel),
        *_measuring(machine.kernel),
        _delaying(machine.kernel),
        *_tcps(machine.kernel),
        *_room(machine),
        _leftovers(machine),
    ]


def refusals(points: Sequence[Point], kernel: Kernel | None = None) -> list[str]:
    """What the points ask and this machine, or fabriclab so far, cannot do; a line each, empty when it can do all.

    `kernel` is the one to judge by, this machine's by default. Only what is asked for is tried.
    """
    asked = {(key, _shown(value)) for point in points for key in BUILT_OF if (value := getattr(point.links, key))}
    every = {(tcp, point.base) for point in points for _, tcp in asked_tcps(point)}
    tcps = {tcp for tcp, _ in every if not is_file(tcp)}
    marked = any(point.links.ecn for point in points)
    measured = {name for point in points for name, (key, _) in MEASURING.items() if getattr(point.telemetry, key)}
    delayed = [point for point in points if delay_of(point.links)]
    if kernel is None:
        ours = {OURS[tcp][1] for tcp in tcps & OURS.keys()}
        tried = {BUILT_OF[key] for key, _ in asked} | ours | measured
        kernel = _kernel(tried | (MARKING.keys() if marked else set()) | (DELAYS.keys() if delayed else set()), tcps)
    lines = [_refused_shaper(key, value, kernel) for key, value in sorted(asked)]
    lines += dict.fromkeys(_refused_delay(point, kernel) for point in delayed)
    lines += [_refused_measuring(name, kernel) for name in sorted(measured)]
    lines += [_refused_marking(kernel, [*MARKING])] if marked else []
    lines += [_refused_marking(kernel, PHANTOMS)] if any(point.links.ecn and point.links.ecn.headroom for point in points) else []
    lines += [_refused_tcp(tcp, kernel) for tcp in sorted(tcps) if not _provider(tcp, kernel)]
    lines += sorted({uncompiled(located(tcp, base)) for tcp, base in every if is_file(tcp)})
    asked_controllers = {plugins.find("controller", point.controller.use, point.base).external for point in points}
    lines += [why for address in sorted(filter(None, asked_controllers), key=str) if (why := unreachable(address))]
    return list(dict.fromkeys(line for line in lines if line))


def trials(names: Iterable[str]) -> dict[str, str]:
    """Try shapers and queueing disciplines, each in a namespace of its own: '' for what worked, else the error.

    Needs root. The thread is left in the last namespace: call it where the process ends afterwards.
    """
    return {"namespace": _said(new_network_namespace), **{name: _said(lambda name=name: _try(name)) for name in names}}


# -- findings


def _privileges(machine: Machine) -> Iterator[Finding]:
    root = machine.user == 0
    reason = "namespaces, shapers and Open vSwitch belong to root"
    yield _finding("root", root, True, "yes" if root else f"user {machine.user}", reason,
                   "use sudo; only run, bench, shell, trace, capture and clean need it")  # fmt: skip
    yield _tried("network namespaces", "namespace", machine.kernel, True, "every host and every run lives in one",
                 "allow them: a container needs --privileged, a kernel CONFIG_NET_NS")  # fmt: skip


def _programs(machine: Machine) -> Iterator[Finding]:
    yield _software("mininet", machine.mininet, "it builds the fabric")
    yield _software("ovs-vswitchd", machine.ovs, "it forwards the packets")
    kernels = machine.ovs_module and machine.releases
    got = "kernel module openvswitch" if kernels else "userspace (netdev)"
    if machine.ovs_module and not kernels:
        got += ": the module is there, but not the BPF program beside it" + ("" if machine.user == 0 else " without root")
    reason = "the kernel's datapath carries far more than userspace; every result says which it used"
    remedy = f"lower links.mbps, or load the module (sudo modprobe openvswitch), or {VM}"
    yield _finding("kernel datapath", kernels, False, got, reason, remedy)
    yield _software("ryu", machine.ryu, "it is the controller")


def _qdiscs(kernel: Kernel) -> Iterator[Finding]:
    for key, (name, _) in SHAPERS.items():
        yield _tried(f"qdisc {name}", name, kernel, key != "priority_floor", f"links.{key} is built of it", OTHER_QUEUE[key])
    for name, (_, use) in EXTRAS.items():
        yield _tried(f"qdisc {name}", name, kernel, False, f"for {use}", VM)


def _marking(kernel: Kernel) -> Finding:
    works = [how for name, how in MARKING.items() if kernel.trials.get(name, NEEDS_ROOT) == WORKS]
    said = kernel.trials.get("mark_phantom.o", NEEDS_ROOT)
    remedy = "use sudo to find out" if said == NEEDS_ROOT else NEWER
    return _finding("ecn marking", bool(works), False, works[0] if works else said, "links.ecn is built of it", remedy)


def _measuring(kernel: Kernel) -> Iterator[Finding]:
    for name, (key, what) in MEASURING.items():
        yield _tried(what, name, kernel, False, f"telemetry.{key} is built of it", NEWER)


def _delaying(kernel: Kernel) -> Finding:
    said = {way: kernel.trials.get(way, NEEDS_ROOT) for way in DELAYS}
    works = [how for way, how in DELAYS.items() if said[way] == WORKS]
    failed = "; ".join(f"{way}: {words}" for way, words in said.items())
    unknown = NEEDS_ROOT in said.values() and not works
    remedy = "use sudo to find out" if unknown else f"{IPTABLES}, or {VM}"
    reason = "links.delay_ms and links.loss_percent are built of it"
    return _finding("link delay", bool(works), False, works[0] if works else NEEDS_ROOT if unknown else failed, reason, remedy)


def _tcps(kernel: Kernel) -> Iterator[Finding]:
    for name, reason in TCPS.items():
        provider = _provider(name, kernel)
        got = provider or f"the kernel offers {', '.join(kernel.tcps)}"
        yield _finding(f"tcp {name}", bool(provider), name == "cubic", got, reason, _tcp_remedy(name))


def _provider(tcp: str, kernel: Kernel) -> str:
    """Who would provide a congestion control; '' when nobody can."""
    if tcp in kernel.tcps:
        return "available"
    if tcp in kernel.loadable:
        return "a module of the kernel, which a run loads"
    name, ours = OURS.get(tcp, ("", ""))
    said = kernel.trials.get(ours, NEEDS_ROOT) if ours else ""
    return f"by BPF, as {name}" if ours and said in (WORKS, NEEDS_ROOT) else ""


def _room(machine: Machine) -> Iterator[Finding]:
    memory, disk = machine.memory / GIB, machine.disk / GIB
    yield _finding("memory", memory >= MEMORY_GIB, True, f"{memory:.1f} GiB available",
                   "switches, ranks and controller share it", f"free some: {MEMORY_GIB} GiB is asked")  # fmt: skip
    yield _finding("cores", machine.cores >= CORES, False, str(machine.cores),
                   "switches, ranks and controller compete for them, and that falsifies timings",
                   f"use {CORES} or more, or lower links.mbps; the fidelity verdict tells")  # fmt: skip
    yield _finding("disk", disk >= DISK_GIB, True, f"{disk:.1f} GiB free in {machine.runs}",
                   "run folders hold every sample", "free some, or write elsewhere by --out")  # fmt: skip


def _leftovers(machine: Machine) -> Finding:
    left = machine.leftovers
    got = ", ".join(f"process {pid} left {folder}" for pid, folder in left) or "none"
    return _finding("leftovers", not left, True, got, "a killed run may have left sysctls and processes",
                    "sudo fabriclab clean")  # fmt: skip


def _finding(name: str, ok: bool, needed: bool, got: str, reason: str, remedy: str) -> Finding:
    return Finding(name, ok, needed, got, reason, "" if ok else remedy)


def _software(name: str, found: Software, reason: str) -> Finding:
    return _finding(name, bool(found.version), True, found.version or found.said, reason, PROVISION)


def _tried(name: str, trial: str, kernel: Kernel, needed: bool, reason: str, remedy: str) -> Finding:
    said = kernel.trials.get(trial, NEEDS_ROOT)
    remedy = "use sudo to find out" if said == NEEDS_ROOT else remedy
    return _finding(name, said == WORKS, needed, said or "works", reason, remedy)


# -- refusals


def _refused_shaper(key: str, value: str, kernel: Kernel) -> str:
    """Why no link can have it; '' when it can."""
    name, said = BUILT_OF[key], kernel.trials.get(BUILT_OF[key], NEEDS_ROOT)
    text = f"links.{key}: {value} is built of {name}, which failed here: {said}; remedy: {OTHER_QUEUE[key]}"
    return "" if said in (WORKS, NEEDS_ROOT) else text


def _refused_delay(point: Point, kernel: Kernel) -> str:
    """Why links can neither be delayed nor lose, or not at that rate; '' when they can."""
    key = "delay_ms" if point.links.delay_ms else "loss_percent"
    asked = f"links.{key}: {getattr(point.links, key):g}"
    said = {way: kernel.trials.get(way, NEEDS_ROOT) for way in DELAYS}
    if any(said[way] == NEEDS_ROOT for way in DELAYS) or said[NETEM] == WORKS:
        return ""
    if said[NFQUEUE] != WORKS:
        return (
            f"{asked} asks for netem, which failed here ({kernel.release}): {said[NETEM]}; and for want of it for NFQUEUE, which failed too: "
            f"{said[NFQUEUE]}; remedy: leave it out, or {IPTABLES}, or {VM}"
        )
    cores = cores_needed(point)
    if cores <= MOST_CORES:
        return ""
    return (
        f"{asked}: without netem ({kernel.release} has none) the user-space delay line would need {cores:.2f} of a core for these links, and "
        f"{MOST_CORES:g} is the most that it may; remedy: write links.mbps: {fastest_mbps(point):g} or less, or a larger links.mtu, or {VM}"
    )


def _refused_marking(kernel: Kernel, ways: Sequence[str]) -> str:
    """Why no queue can mark in any of these ways; '' when one works."""
    said = [kernel.trials.get(name, NEEDS_ROOT) for name in ways]
    if any(word in (WORKS, NEEDS_ROOT) for word in said):
        return ""
    what = "links.ecn: marking needs RED or BPF" if "red" in ways else "links.ecn.headroom: a phantom queue needs BPF"
    return f"{what}, and this kernel ({kernel.release}) refused it: {said[-1]}; remedy: leave it out, or {NEWER}"


def _refused_measuring(name: str, kernel: Kernel) -> str:
    """Why it cannot be measured; '' when it can."""
    said = kernel.trials.get(name, NEEDS_ROOT)
    line = f"telemetry.{MEASURING[name][0]}: needs BPF, and this kernel ({kernel.release}) refused it: {said}; remedy: leave it out, or {NEWER}"
    return "" if said in (WORKS, NEEDS_ROOT) else line


def _refused_tcp(tcp: str, kernel: Kernel) -> str:
    offers = f"this kernel ({kernel.release}) offers {', '.join(kernel.tcps)}"
    ours = kernel.trials.get(OURS[tcp][1]) if tcp in OURS else None
    besides = f", and refused ours: {ours}" if ours else ""
    return f"transport.tcp: got {tcp}; {offers}{besides}; remedy: write one of these, or {_tcp_remedy(tcp)}"


def _tcp_remedy(tcp: str) -> str:
    return f"sudo modprobe tcp_{tcp} on a kernel that has it (the VM: Vagrantfile)"


def _shown(value: Any) -> str:
    """A value of `links` as the file has it."""
    fields = value.model_dump() if hasattr(value, "model_dump") else None
    return "{" + ", ".join(f"{key}: {item}" for key, item in fields.items()) + "}" if fields else f"{value:g}"


# -- the machine


def _all_trials() -> set[str]:
    """Everything that can be tried."""
    ours = {name for _, name in OURS.values()}
    return {name for name, _ in SHAPERS.values()} | EXTRAS.keys() | DELAYS.keys() | MARKING.keys() | MEASURING.keys() | ours


def _machine(runs: Path) -> Machine:
    return Machine(
        user=os.geteuid(),
        kernel=_kernel(_all_trials(), TCPS),
        mininet=_python(MININET_VERSION),
        ovs=_version(["ovs-vswitchd", "--version"]),
        ovs_module=_has_module("openvswitch"), releases=can_release(),
        ryu=_python(RYU_VERSION),
        memory=_available_memory(),
        cores=len(os.sched_getaffinity(0)),
        disk=shutil.disk_usage(_existing(runs)).free,
        runs=runs,
        leftovers=tuple((left.pid, str(left.folder)) for left in leftovers()),
    )


def _kernel(qdiscs: Iterable[str], tcps: Iterable[str]) -> Kernel:
    have = tuple(read_sysctl("net.ipv4.tcp_available_congestion_control").split())
    loadable = tuple(tcp for tcp in sorted({*tcps} - {*have}) if _could_load(f"tcp_{tcp}"))
    return Kernel(os.uname().release, _trials_in_child(sorted(qdiscs)), have, loadable)


def _trials_in_child(names: Sequence[str]) -> dict[str, str]:
    """The trials' answers; all of them NEEDS_ROOT for anyone else."""
    if os.geteuid() != 0:
        return dict.fromkeys(["namespace", *names], NEEDS_ROOT)
    code = f"import json; from fabric.doctor import trials; print(json.dumps(trials({list(names)!r})))"
    done = _child([sys.executable, "-c", code])
    with contextlib.suppress(ValueError):
        answers: dict[str, str] = json.loads(done.version)
        return answers
    return dict.fromkeys(["namespace", *names], done.said or "the trial said nothing")


def _try(name: str) -> None:
    if name in DELAYS:
        try_way(name)
        return
    new_network_namespace()
    shapes = {**dict(SHAPERS.values()), "red": RED_TRIAL}
    if name in shapes:
        build_and_read_back(shapes[name])
    elif name.endswith(".o"):
        BpfObject(objects() / name).close()
    else:
        command = ["tc", "qdisc", "add", "dev", "lo", "root", name, *EXTRAS[name][0].split()]
        subprocess.run(command, check=True, capture_output=True, text=True)


def _said(action: Any) -> str:
    """What a trial's failure says, on one line; '' when there is none."""
    try:
        action()
    except subprocess.CalledProcessError as err:
        return _last_line(err.stderr) or f"tc ended with {err.returncode}"
    except NetlinkError as err:
        return os.strerror(err.code)
    except (FabricError, OSError, ValueError) as err:
        return str(err) or type(err).__name__
    return WORKS


def _child(command: Sequence[str]) -> Software:
    """What a command printed last; what it complained of last when it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TRIAL_DEADLINE_S)
    except FileNotFoundError:
        return Software("", f"{command[0]} is not installed")
    except (OSError, subprocess.TimeoutExpired) as err:
        return Software("", str(err))
    if done.returncode != 0:
        return Software("", _last_line(done.stderr) or f"{command[0]} ended with {done.returncode}")
    return Software(_last_line(done.stdout))


def _python(code: str) -> Software:
    """In a child, since Ryu's world is patched by eventlet and must stay apart."""
    return _child([sys.executable, "-c", code])


def _version(command: Sequence[str]) -> Software:
    """The version out of a line like `ovs-vswitchd (Open vSwitch) 3.1.0`."""
    found = _child(command)
    words = found.version.split()
    return Software(words[-1]) if words else found


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _has_module(name: str) -> bool:
    """As a run would find it: root may load it, and then knows; anyone else is told whether it could be."""
    return has_module(name) if os.geteuid() == 0 else Path("/sys/module", name).exists() or _could_load(name)


def _could_load(module: str) -> bool:
    """Whether modprobe knows the module, without loading it."""
    with contextlib.suppress(OSError):
        command = ["modprobe", "--dry-run", "--quiet", module]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def _available_memory() -> int:
    """MemAvailable of proc(5)'s meminfo, in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
