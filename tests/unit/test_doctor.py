"""What the doctor concludes from given facts, and what it refuses; nothing here asks this machine, but for the last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fabric import doctor
from fabric.doctor import NEEDS_ROOT, Finding, Kernel, Machine, Software, findings, refusals
from fabric.experiment import Point, load_experiment

MEASURING = ("queueing.o", "stamp.o")
BPF = ("mark.o", "mark_phantom.o", "dctcp.o", *MEASURING)
RICH = {name: "" for name in ("namespace", "htb+pfifo", "htb+bfifo", "htb+u32", "netem", "nfqueue", "red", "fq", *BPF)}
BARE = {
    **RICH, **dict.fromkeys(("netem", "red", "fq"), "Error: Specified qdisc kind is unknown."), "nfqueue": "no iptables",
    **dict.fromkeys(BPF, "it cannot be loaded by this kernel: no BTF"),
}  # fmt: skip
DEBIAN = Kernel("6.1.0-cloud", RICH, ("reno", "cubic", "bbr"), loadable=("dctcp",))
SMALL = Kernel("6.18.0-small", BARE, ("reno", "cubic"))
QUEUING = replace(SMALL, trials={**BARE, "nfqueue": ""})
GIB = 1 << 30
FINE = Machine(
    user=0, kernel=replace(DEBIAN, tcps=("reno", "cubic", "bbr", "dctcp")), mininet=Software("2.3.0"),
    ovs=Software("3.1.0"), ovs_module=True, releases=True, ryu=Software("4.34"), memory=8 * GIB, cores=4, disk=50 * GIB,
    runs=Path("runs"),
)  # fmt: skip
EXPERIMENT = """
question: Is it possible?
topology: {use: single-switch, hosts: 2}
links: {mbps: 20%s}
controller: {use: single-path}
collective: {use: ring-allreduce, nbytes: 64KiB}
transport: {tcp: %s}
"""


def named(found: list[Finding]) -> Mapping[str, Finding]:
    names = [finding.name for finding in found]
    assert len(set(names)) == len(names)
    return dict(zip(names, found, strict=True))


def points(tmp_path: Path, links: str = "", tcp: str = "cubic") -> tuple[Point, ...]:
    """The points of an experiment with these further keys of `links`."""
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT % (links and f", {links}", tcp))
    return load_experiment(file).points


def test_a_machine_with_everything_has_nothing_to_mend() -> None:
    """All findings are ok, say why they matter, and none has a remedy."""
    for finding in findings(FINE):
        assert finding.ok and finding.got and finding.reason and not finding.remedy, finding


@pytest.mark.parametrize(
    ("machine", "name", "needed", "got", "remedy"),
    [
        (replace(FINE, user=1000), "root", True, "user 1000", "use sudo"),
        (replace(FINE, mininet=Software("", "No module")), "mininet", True, "No module", ".ci/provision"),
        (replace(FINE, ovs=Software("", "not installed")), "ovs-vswitchd", True, "not installed", ".ci/provision"),
        (replace(FINE, releases=False), "kernel datapath", False, "userspace (netdev): the module is there, but not the BPF program", "modprobe"),
        (replace(FINE, ovs_module=False), "kernel datapath", False, "userspace (netdev)", "modprobe openvswitch"),
        (replace(FINE, ryu=Software("", "no ryu")), "ryu", True, "no ryu", ".ci/provision"),
        (replace(FINE, kernel=SMALL), "link delay", False, "nfqueue: no iptables", "install iptables (.ci/provision)"),
        (replace(FINE, kernel=SMALL), "tcp dctcp", False, "reno, cubic", "on a kernel that has it"),
        (replace(FINE, kernel=SMALL), "ecn marking", False, "no BTF", "use a kernel with BPF"),
        (replace(FINE, kernel=SMALL), "packets' queueing delay", False, "no BTF", "use a kernel with BPF"),
        (replace(FINE, kernel=SMALL), "in-band telemetry", False, "no BTF", "use a kernel with BPF"),
        (replace(FINE, memory=GIB // 2), "memory", True, "0.5 GiB", "free some"),
        (replace(FINE, cores=1), "cores", False, "1", "links.mbps"),
        (replace(FINE, disk=0), "disk", True, "0.0 GiB free in runs", "--out"),
        (replace(FINE, leftovers=((7, "/run/fabriclab/7"),)), "leftovers", True, "process 7", "fabriclab clean"),
    ],
)  # fmt: skip
def test_what_is_missing_is_found(machine: Machine, name: str, needed: bool, got: str, remedy: str) -> None:
    """One thing missing makes one finding not ok, with what was got and what to do."""
    finding = named(findings(machine))[name]
    assert (finding.ok, finding.needed) == (False, needed)
    assert got in finding.got
    assert remedy in finding.remedy


def test_only_what_is_missing_is_found() -> None:
    """One fact that is wrong spoils one finding, not its neighbours."""
    found = findings(replace(FINE, ovs_module=False))
    assert [finding.name for finding in found if not finding.ok] == ["kernel datapath"]


def test_what_only_root_can_try_is_unknown_to_others() -> None:
    """Without root no shaper is said to work, and none to be absent."""
    unknown = replace(FINE, user=1000, kernel=replace(FINE.kernel, trials=dict.fromkeys(RICH, NEEDS_ROOT)))
    measured = [finding for finding in findings(unknown) if "is built of it" in finding.reason and finding.reason.startswith("telemetry")]
    assert {finding.got for finding in measured} == {"needs root to try"} and len(measured) == len(MEASURING)
    tried = [finding for finding in findings(unknown) if finding.name.startswith(("qdisc", "network", "ecn", "link"))]
    assert len(tried) == len(RICH.keys() - {*BPF, "red", "netem", "nfqueue"}) + 2  # all marks are one finding, both ways to delay another
    assert {(finding.ok, finding.got, finding.remedy) for finding in tried} == {
        (False, "needs root to try", "use sudo to find out")
    }


def test_what_a_kernel_can_do_is_not_refused(tmp_path: Path) -> None:
    """The plain experiment passes on the barest kernel that has the shaper."""
    assert refusals(points(tmp_path), SMALL) == []


@pytest.mark.parametrize(
    ("links", "kernel", "line"),
    [
        (
            "delay_ms: 5", SMALL,
            "links.delay_ms: 5 asks for netem, which failed here (6.18.0-small): Error: Specified qdisc kind is unknown.; and for want of it "
            "for NFQUEUE, which failed too: no iptables; remedy: leave it out, or install iptables (.ci/provision), which serves the "
            "user-space delay line, or run in the VM (Vagrantfile), whose kernel has it",
        ),
        (
            "loss_percent: 0.1", SMALL,
            "links.loss_percent: 0.1 asks for netem, which failed here (6.18.0-small): Error: Specified qdisc kind is unknown.; and for want "
            "of it for NFQUEUE, which failed too: no iptables; remedy: leave it out, or install iptables (.ci/provision), which serves the "
            "user-space delay line, or run in the VM (Vagrantfile), whose kernel has it",
        ),
        (
            "ecn: {min_packets: 20, max_packets: 30}", SMALL,
            "links.ecn: marking needs RED or BPF, and this kernel (6.18.0-small) refused it: it cannot be loaded by this kernel: no BTF; "
            "remedy: leave it out, or use a kernel with BPF and BTF (Linux 6.10 or later has all that is asked of it)",
        ),
        (
            "queue_bytes: 90000", replace(DEBIAN, trials={**RICH, "htb+bfifo": "File exists"}),
            "links.queue_bytes: 90000 is built of htb+bfifo, which failed here: File exists; "
            "remedy: write links.queue_packets instead",
        ),
    ],
)  # fmt: skip
def test_what_links_ask_in_vain_is_refused(tmp_path: Path, links: str, kernel: Kernel, line: str) -> None:
    """One line, with the value, the reason and a remedy that helps."""
    assert refusals(points(tmp_path, links), kernel) == [line]


@pytest.mark.parametrize(("asked", "key"), [("queueing_delay: true", "queueing_delay"), ("probes: {hz: 100}", "probes")])
def test_what_cannot_be_measured_is_refused(tmp_path: Path, asked: str, key: str) -> None:
    """Where the kernel takes no such program; where it does, and where nobody asks, there is nothing to say."""
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT % ("", "cubic") + f"telemetry: {{{asked}}}\n")
    measured = load_experiment(file).points
    [line] = refusals(measured, SMALL)
    assert line.startswith(f"telemetry.{key}: needs BPF, and this kernel (6.18.0-small) refused it: it cannot be loaded")
    assert "no BTF; remedy: leave it out, or use a kernel with BPF" in line
    assert refusals(measured, DEBIAN) == refusals(measured, replace(SMALL, trials={})) == []


def test_links_are_delayed_by_whatever_works(tmp_path: Path) -> None:
    """netem, or for want of it the user-space line; without root nobody knows, and the run will find out."""
    asked = points(tmp_path, "delay_ms: 5, loss_percent: 1")
    assert refusals(asked, DEBIAN) == refusals(asked, QUEUING) == refusals(asked, replace(SMALL, trials={})) == []
    got = [named(findings(replace(FINE, kernel=kernel)))["link delay"] for kernel in (DEBIAN, QUEUING)]
    assert [(one.ok, one.got) for one in got] == [(True, "by netem"), (True, "by a user-space delay line (NFQUEUE)")]


def test_what_the_user_space_line_cannot_hold_is_refused_before_it_starts(tmp_path: Path) -> None:
    """Many small packets: the share of a core, and a rate that would do and is not refused; netem has no such limit."""
    (point,) = points(tmp_path, "delay_ms: 5")
    fast = replace(point, links=point.links.model_copy(update={"mbps": 200.0}))
    assert refusals([fast], DEBIAN) == []
    assert refusals([fast], QUEUING) == [
        "links.delay_ms: 5: without netem (6.18.0-small has none) the user-space delay line would need 1.49 of a core for these links, "
        "and 0.6 is the most that it may; remedy: write links.mbps: 80 or less, or a larger links.mtu, or run in the VM (Vagrantfile), "
        "whose kernel has it"
    ]
    assert refusals([replace(point, links=point.links.model_copy(update={"mbps": 80.0}))], QUEUING) == []
    assert refusals([replace(point, links=point.links.model_copy(update={"mbps": 81.0}))], QUEUING) != []


def test_nothing_asked_is_nothing_refused(tmp_path: Path) -> None:
    """A delay and a loss of 0 are what every kernel does."""
    assert refusals(points(tmp_path, "delay_ms: 0, loss_percent: 0"), SMALL) == []


def test_a_congestion_control_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The line says which there are, and why ours will not do."""
    assert refusals(points(tmp_path, "ecn: {min_packets: 20, max_packets: 20}", tcp="dctcp"), SMALL)[1:] == [
        "transport.tcp: got dctcp; this kernel (6.18.0-small) offers reno, cubic, and refused ours: it cannot be loaded by this "
        "kernel: no BTF; remedy: write one of these, or sudo modprobe tcp_dctcp on a kernel that has it (the VM: Vagrantfile)"
    ]
    [line] = refusals(points(tmp_path, tcp="vegas"), SMALL)
    assert line.startswith("transport.tcp: got vegas; this kernel (6.18.0-small) offers reno, cubic; remedy: write one of these")


def test_dctcp_is_the_kernels_or_ours(tmp_path: Path) -> None:
    """A module that can be loaded goes before our program, and either before a refusal."""
    asked = points(tmp_path, "ecn: {min_packets: 20, max_packets: 20}", tcp="dctcp")
    ours = replace(DEBIAN, loadable=())
    assert refusals(asked, DEBIAN) == refusals(asked, ours) == refusals(asked, replace(SMALL, trials={})) == []
    told = {kernel.loadable: named(findings(replace(FINE, kernel=kernel)))["tcp dctcp"].got for kernel in (DEBIAN, ours)}
    assert told == {("dctcp",): "a module of the kernel, which a run loads", (): "by BPF, as bpf_dctcp"}


def test_a_phantom_queue_marks_where_the_true_one_cannot_be_seen(tmp_path: Path) -> None:
    """An older kernel: said so, not refused."""
    older = replace(DEBIAN, trials={**RICH, "red": "Specified qdisc kind is unknown.", "mark.o": "unknown func bpf_cast_to_kern_ctx"})
    assert refusals(points(tmp_path, "ecn: {min_packets: 20, max_packets: 20}"), older) == []
    assert named(findings(replace(FINE, kernel=older)))["ecn marking"].got == "by a phantom queue (BPF)"


def test_red_goes_before_bpf_but_not_with_a_headroom(tmp_path: Path) -> None:
    """A kernel with RED and without BPF marks; it has no phantom queue, and the line says so once."""
    assert named(findings(FINE))["ecn marking"].got == "by the queue itself (RED)"
    only_red = replace(SMALL, trials={**BARE, "red": ""})
    assert refusals(points(tmp_path, "ecn: {min_bytes: 30000, max_bytes: 30000}"), only_red) == []
    asked = points(tmp_path, "ecn: {min_packets: 20, max_packets: 20, headroom: 0.95}") * 2
    assert refusals(asked, only_red) == [
        "links.ecn.headroom: a phantom queue needs BPF, and this kernel (6.18.0-small) refused it: it cannot be loaded by this "
        "kernel: no BTF; remedy: leave it out, or use a kernel with BPF and BTF (Linux 6.10 or later has all that is asked of it)"
    ]


def test_many_points_that_ask_the_same_make_one_line(tmp_path: Path) -> None:
    """A sweep is refused once for each thing it asks, not once a point."""
    assert len(refusals(points(tmp_path, "delay_ms: 5") * 3, SMALL)) == 1


def test_without_root_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone who is not root gets findings of everything, and no child that would try."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(doctor, "_child", lambda command: Software("1.0"))
    found = named(doctor.examine(tmp_path / "not" / "there"))
    assert found["root"].got == "user 1000"
    assert found["qdisc htb+pfifo"].got == NEEDS_ROOT
    assert found["ryu"].got == "1.0"
    assert str(tmp_path) in found["disk"].got


def test_a_command_that_is_not_there_is_said_to_be_missing() -> None:
    """No traceback for a program that nobody installed, nor for one that fails."""
    assert doctor._child(["fabriclab-no-such-program"]) == Software("", "fabriclab-no-such-program is not installed")
    assert doctor._child(["false"]) == Software("", "false ended with 1")
    assert doctor._version(["echo", "ovs-vswitchd (Open vSwitch) 3.1.0"]) == Software("3.1.0")
