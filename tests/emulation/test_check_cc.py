"""`fabriclab check-cc` as a person calls it: the template passes, and each of what it is made bad by fails just where it should."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fabric.check_cc import UNDECIDED
from fabric.congestion import compiler

pytestmark = [pytest.mark.emulation, pytest.mark.skipif(compiler() is None, reason="no clang here; an object needs none")]

TEMPLATE = Path(__file__).parents[2] / "controllers" / "templates" / "my_cc.bpf.c"
GROWS = "flow->cwnd += grown;"
BACKS_OFF = "if (state >= CA_RECOVERY && ("
OWN_RUN = """
question: Does a congestion control of one's own run beside the kernel's?
topology: {use: single-switch, hosts: 4}
links: {mbps: 20, queue_packets: 50}
controller: {use: two-level}
load: [{use: stride, step: 2, transport: {tcp: ./my_cc.bpf.c}}]
collective: {use: ring-allreduce, nbytes: 64KiB, iterations: 3, warmup: 1, transport: {tcp: reno}}
transport: {hosts: {h3: {tcp: ./my_cc.bpf.c}}}
"""


def verdicts(fabriclab: Any, file: Path, code: int, *asked: str) -> dict[str, tuple[str, str]]:
    """What check-cc finds in a file, by question, when it ends with this code; skipped where the machine is too busy to say what is `asked`."""
    done = fabriclab.alone("check-cc", str(file), "--json")
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    found = {item["check"]: (item["verdict"], item["sentence"]) for item in told["findings"]}
    assert code or not any(verdict == "FAIL" for verdict, _ in found.values()), found
    for check, (_, sentence) in found.items():
        if check in asked and sentence.startswith(UNDECIDED):
            pytest.skip(f"{check}: {sentence}")
    assert (done.returncode, told["passed"]) == (code, code == 0), found
    return found


def made_bad(folder: Path, old: str, new: str) -> Path:
    """The template with one thing changed."""
    source = TEMPLATE.read_text()
    assert old in source
    file = folder / "bad.bpf.c"
    file.write_text(source.replace(old, new))
    return file


def test_the_template_passes(fabriclab: Any) -> None:
    """Every question is answered, and none by a failure."""
    found = verdicts(fabriclab, TEMPLATE, 0, "fills", "shares", "backs off")
    assert list(found) == ["loads", "negotiates", "fills", "shares", "backs off"]
    assert {verdict for verdict, _ in found.values()} == {"PASS"}, found


def test_one_that_never_grows_does_not_fill(fabriclab: Any) -> None:
    """Its window is one packet for ever."""
    found = verdicts(fabriclab, made_bad(fabriclab.folder, GROWS, ""), 1, "fills")
    assert found["loads"][0] == found["negotiates"][0] == "PASS"
    assert found["fills"][0] == "FAIL" and "its window ended at 1" in found["fills"][1], found


@pytest.mark.parametrize(
    ("old", "new"),
    [(BACKS_OFF, "if (state > CA_LOSS && ("), ("flow->part -= grown * flow->cwnd;", "flow->part %= flow->cwnd + grown;")],
    ids=["never backs off", "grows by one an acknowledgement"],
)
def test_one_that_loses_too_much_is_found(fabriclab: Any, old: str, new: str) -> None:
    """In a short queue it leaves cubic nothing, or has much of what it sends dropped."""
    found = verdicts(fabriclab, made_bad(fabriclab.folder, old, new), 1, "backs off")
    assert found["backs off"][0] == "FAIL", found
    assert "it must make its window smaller on a loss" in found["backs off"][1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("flow->state = state;", "tp->rcv_nxt = state;", "the verifier, of my_control: "),
        ("flow->state = state;", "flow->no_such_thing = state;", "error: no member named 'no_such_thing' in 'struct flow'"),
        ('.name = "my_cc"', '.name = "cubic"', "calls itself cubic, which the kernel has already"),
        ('.name = "my_cc"', '.name = "bpf_dctcp"', "calls itself bpf_dctcp, which fabriclab has already"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_says_why(fabriclab: Any, old: str, new: str, words: str) -> None:
    """In the words of the verifier, or of the compiler; nothing is run."""
    found = verdicts(fabriclab, made_bad(fabriclab.folder, old, new), 1)
    assert list(found) == ["loads"] and words in found["loads"][1], found


def test_it_runs_for_one_job_and_leaves_nothing(fabriclab: Any, state: Any) -> None:
    """Flows of the load use it, at both ends; the collective does not; afterwards the kernel does not know it any more."""
    before = state(), Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()
    shutil.copy(TEMPLATE, fabriclab.folder)
    # Without its flag a namespace may not choose it, unless it is allowed to.
    file = fabriclab.folder / TEMPLATE.name
    file.write_text(file.read_text().replace(".flags = TCP_CONG_NON_RESTRICTED", ".flags = 0"))
    done, folder = fabriclab.run(OWN_RUN)
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["refused"] is None and row["tcp_by"] == "cubic: kernel, my_cc: file, reno: kernel"
    (path,) = (folder / "points").iterdir()
    records = [json.loads(line) for line in (path / "traffic" / "records.jsonl").read_text().splitlines()]
    ends = {(end["kind"], end["tcp"]) for one in records if one["event"] == "sockets" for end in one["sockets"]}
    assert ends == {("load", "my_cc"), ("collective", "reno")}
    provided = json.loads((path / "network.json").read_text())["transport"]["provided"]["./my_cc.bpf.c"]
    assert (provided["name"], provided["by"], len(provided["sha256"])) == ("my_cc", "file", 64)
    assert (state(), Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()) == before
