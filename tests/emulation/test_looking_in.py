"""Looking into a network that is up, from another terminal: its shell, the paths that packets take, and the packets of a link."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.utils import rdpcap

from fabric.sandbox import STATE_ROOT

pytestmark = pytest.mark.emulation

STANDING = """
question: What is in there?
topology: {use: fat-tree, k: 4}
links: {mbps: 10, mtu: 9000}
controller: {use: ecmp}
collective: {use: ring-allreduce, ranks: [p0e0h0, p3e1h1], nbytes: 64KiB}
"""
BUSY = """
question: Is it said when somebody looks?
topology: {use: single-switch, hosts: 2}
links: {mbps: 10}
controller: {use: two-level}
collective: {use: ring-allreduce, nbytes: 4KiB, iterations: 1000, warmup: 0}
"""


def up(pid: int) -> bool:
    """Whether the network of a runner is up."""
    return (STATE_ROOT / str(pid) / "live.json").exists()


@dataclass
class Shell:
    """A shell that somebody has open on a fabric."""

    fabriclab: Any
    process: subprocess.Popen[str]

    def trace(self, *words: str) -> dict[str, Any]:
        """What `trace` finds, from another terminal."""
        done = self.fabriclab.call("trace", *words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def shell(module_fabriclab: Any, start_alone: Any, wait: Any) -> Iterator[Shell]:
    """The shell of a k=4 fat-tree under ECMP."""
    process = start_alone(module_fabriclab, "shell", str(module_fabriclab.file(STANDING)))
    wait(lambda: up(process.pid) or process.poll() is not None, "the network")
    yield Shell(module_fabriclab, process)


def test_a_flow_goes_where_the_rules_lead(shell: Shell) -> None:
    """As the collective's own connection by default: over five switches, every probe by the same way, each port's counter says so too."""
    found = shell.trace("p0e0h0", "p3e1h1", "--probes", "30")
    (path,) = found["paths"]
    assert found["agrees"] and found["arrived"] == path["probes"] == 30 and found["equal_cost"] == 4
    assert path["interfaces"] == found["rules"]["interfaces"] and len(path["interfaces"]) == 6
    assert path["interfaces"][0] == "p0e0h0-eth0" and all(found["counted"][name] >= 30 for name in path["interfaces"])
    assert found["ports"][1] >= 5001 and found["ports"][0] != 20_000  # the run's own, drawn from the seed
    assert 0 < found["one_way_ms"] < 1000


def test_other_ports_go_other_ways(shell: Shell) -> None:
    """ECMP hashes them: of eight source ports, over at least two of four paths; UDP is traced as well."""
    tcp = {tuple(shell.trace("p0e0h0", "p3e1h1", "--sport", str(port), "--dport", "80", "--probes", "5")["paths"][0]["interfaces"]) for port in range(4000, 4008)}
    assert 2 <= len(tcp) <= 4
    udp = shell.trace("p0e0h0", "p3e1h1", "--udp", "--sport", "4000", "--dport", "80", "--probes", "5")
    assert udp["agrees"] and udp["protocol"] == "udp" and udp["ports"] == [4000, 80]


def test_a_link_is_captured(shell: Shell, tmp_path: Path, wait: Any) -> None:
    """All that passes it, both ways, as scapy reads it."""
    file = tmp_path / "link.pcap"
    capturing = shell.fabriclab.start("capture", "p0e0h0", "p0e0", "--out", str(file), "--seconds", "60", "--count", "40")
    wait(file.exists, "the capture")
    while capturing.poll() is None:
        shell.trace("p0e0h0", "p1e0h0", "--sport", "4321", "--probes", "40")
    done = shell.fabriclab.finish(capturing)
    assert done.returncode == 0, done.stderr
    packets = rdpcap(str(file))
    assert len(packets) == 40 and "packets out of p0e0-eth1, " in done.stdout
    probes = [packet for packet in packets if TCP in packet and packet[TCP].sport == 4321]
    assert len(probes) >= 15 and probes[0].time <= probes[-1].time  # the rest: what the host had to say to them


WRONG = {
    "no such host": (("trace", "p0e0h0", "p9e0h0"), "trace: got p9e0h0; accepted: a host that is up: p0e0h0, p0e0h1, p0e1h0, p0e1h1, ...; did you mean p3e0h0?"),
    "no such node": (("capture", "p0e0", "x"), "capture: got x; accepted: a node that is up: g0c0, g0c1, g1c0, g1c1, ...; write one of those"),
    "no such link": (("capture", "p0e0", "p1e0"), "capture: got p0e0 and p1e0, which no link joins; accepted: p0e0 and one of p0e0h0, p0e0h1, p0a0, p0a1; name one of those"),
    "no such folder": (("capture", "p0e0", "p0a0", "--out", "no/such.pcap"), "capture: --out: got no/such.pcap: No such file or directory; accepted: a file that can be written; name another one"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_there_is_refused(shell: Shell, what: str) -> None:
    """In one line that says what is."""
    words, said = WRONG[what]
    done = shell.fabriclab.call(*words)
    assert done.returncode == 2 and done.stderr.strip() == f"fabriclab: {said}"


def test_the_shell_is_mininet_s_and_ends_clean(shell: Shell, state: Any) -> None:
    """Hosts' commands by their names, `trace`, one line for what is wrong; `exit` takes all down."""
    out, err = shell.process.communicate("p0e0h0 ping -c 1 p3e1h1\ntrace p0e0h0 p3e1h1\ntrace p0e0h0 nobody\ntrace p0e0h0\ntrace p0e0h0 p1e0h0 x\nexit\n", 60)
    shell.fabriclab.started.remove(shell.process)
    assert shell.process.returncode == 0, err
    assert "fat-tree with 16 hosts, ecmp: try pingall, " in err and "1 received" in out + err
    assert "the rules lead the same way, one of 4 shortest paths" in out
    assert "trace: got nobody; accepted: a host that is up" in out and "trace: got 1 words; accepted: SRC DST [SPORT [DPORT]]" in out
    assert "trace: got port x; accepted: a whole number from 1 to 65535" in out
    assert "Traceback" not in out + err
    done = shell.fabriclab.call("trace", "p0e0h0", "p3e1h1")
    assert done.returncode == 3 and "no network is up; begin a run, or fabriclab shell FILE, in another terminal" in done.stderr
    assert not state().folders and not state().processes


def test_a_row_says_that_somebody_looked(fabriclab: Any, start_alone: Any, wait: Any) -> None:
    """It is no PASS: a capture takes time of the machine that emulates."""
    process = start_alone(fabriclab, "run", str(fabriclab.file(BUSY)), "--out", str(fabriclab.folder / "out"), "--json")
    iterating = "*/points/*/traffic/records.jsonl"
    wait(lambda: any('"iteration"' in path.read_text() for path in (fabriclab.folder / "out").glob(iterating)), "the first iteration")
    looked = fabriclab.call("capture", "h0", "s0", "--seconds", "0.5")
    assert looked.returncode == 0, looked.stderr
    done = fabriclab.finish(process)
    row = json.loads(done.stdout)
    assert row["fidelity"] in ("WARN", "FAIL") and any("packets were captured or traced meanwhile, for 0." in reason for reason in row["fidelity_reasons"]), row
