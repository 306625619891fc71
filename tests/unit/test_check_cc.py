"""How check-cc judges what it saw, and what it reads of an object: each question by figures that just pass and just do not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fabric.check_cc import Seen, backing_off, filling, holding, negotiating, sharing, undecided
from fabric.congestion import Declared, compiled, compiler, declared, is_file, uncompiled
from fabric.endpoints import Provided
from fabric.errors import MachineError, RequestError
from fabric.libbpf import last_words, objects

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "controllers" / "templates" / "my_cc.bpf.c"
OWN = Provided("./own.o", "own", "file")
GOOD = Seen((9.5, 9.5), 1000, 10, 20, frozenset({"own"}), frozenset({False}), 20.0, 10)
clang = pytest.mark.skipif(compiler() is None, reason="no clang here")


def test_all_sockets_report_its_name_and_ecn_where_it_needs_that() -> None:
    """One that reports another, or has no ECN, is one too many."""
    needing = replace(OWN, needs_ecn=True)
    assert negotiating(GOOD, OWN).verdict == "PASS"
    assert negotiating(replace(GOOD, names=frozenset({"own", "cubic"})), OWN).verdict == "FAIL"
    assert negotiating(GOOD, needing).verdict == "FAIL"
    assert negotiating(replace(GOOD, ecn=frozenset({True})), needing).verdict == "PASS"
    assert "no socket" in negotiating(replace(GOOD, wrong="no socket reported"), OWN).sentence


@pytest.mark.parametrize(("got", "verdict"), [(18.0, "PASS"), (17.0, "FAIL")])
def test_it_fills_as_cubic_does(got: float, verdict: str) -> None:
    """Nine tenths of what cubic got."""
    assert filling(replace(GOOD, goodput_mbps=(got,)), replace(GOOD, goodput_mbps=(19.0,))).verdict == verdict


@pytest.mark.parametrize(("rates", "verdict"), [((10.0, 9.0), "PASS"), ((14.0, 5.0), "PASS"), ((15.0, 4.0), "FAIL"), ((19.0, 0.0), "FAIL"), ((0.0, 0.0), "FAIL")])
def test_two_flows_share(rates: tuple[float, float], verdict: str) -> None:
    """Jain's index of 0.8 is about three to one."""
    assert sharing(replace(GOOD, goodput_mbps=rates)).verdict == verdict


def test_losses_are_few_and_the_goodput_stays() -> None:
    """Too many, too slow, and none to judge by are three answers."""
    assert backing_off(GOOD).verdict == "PASS"
    assert "smaller on a loss" in backing_off(replace(GOOD, retransmits=36)).sentence
    assert "smaller on a loss" in backing_off(replace(GOOD, goodput_mbps=(18.0, 1.0))).sentence
    assert "too far" in backing_off(replace(GOOD, goodput_mbps=(1.0, 18.0))).sentence
    assert "too far" in backing_off(replace(GOOD, goodput_mbps=(5.0, 5.0))).sentence
    assert backing_off(replace(GOOD, drops=0, retransmits=0)).verdict == "NOTE"


@pytest.mark.parametrize(("packets", "verdict"), [(20.0, "PASS"), (2.0, "FAIL"), (80.0, "FAIL")])
def test_a_marking_queue_stays_near_its_threshold(packets: float, verdict: str) -> None:
    """Neither empty nor full."""
    assert holding(replace(GOOD, queue_packets=packets)).verdict == verdict


def test_a_busy_machine_decides_nothing() -> None:
    """Whatever the figures were; a faithful arm leaves the finding as it is."""
    finding = sharing(GOOD)
    assert undecided(finding, GOOD, GOOD) == finding
    busy = undecided(finding, GOOD, replace(GOOD, unfaithful=("the hypervisor took 60%",)))
    assert busy.verdict == "NOTE" and busy.sentence.startswith("undecided in 2 turns, as this machine was too busy: the hypervisor took 60%")


def test_an_object_says_its_name_and_what_it_needs() -> None:
    """Read from the file alone; one that marks packets is no congestion control, and a text no object."""
    assert declared(objects() / "dctcp.o") == Declared("bpf_dctcp", 3)
    assert declared(objects() / "dctcp.o").needs_ecn
    with pytest.raises(RequestError, match=r"mark.o has 0 tcp_congestion_ops \(none\); accepted: one"):
        declared(objects() / "mark.o")


@pytest.mark.parametrize("cut", [0, 4, 60, 1000, 3000])
def test_a_damaged_object_is_no_object(tmp_path: Path, cut: int) -> None:
    """Wherever it was cut off, in one line."""
    file = tmp_path / "cut.o"
    file.write_bytes((objects() / "dctcp.o").read_bytes()[:cut])
    with pytest.raises(RequestError, match=r"cut\.o (is no BPF object|has 0 tcp_congestion_ops)"):
        declared(file)


def test_a_name_is_no_file() -> None:
    """A dot or a slash makes one."""
    assert [is_file(tcp) for tcp in ("cubic", "./cc.bpf.c", "cc.o", "/tmp/cc.o")] == [False, True, True, True]


@clang
def test_the_template_compiles_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """Our header is found from anywhere; sixty lines are enough."""
    source = Path(shutil.copy(TEMPLATE, tmp_path))
    assert declared(compiled(source, tmp_path)) == Declared("my_cc", 1)
    assert len(TEMPLATE.read_text().splitlines()) <= 60


@clang
def test_the_compilers_first_complaint_is_told(tmp_path: Path) -> None:
    """With the line; and a name that no socket could choose it by is refused."""
    source = tmp_path / "own.bpf.c"
    source.write_text(TEMPLATE.read_text().replace("flow->state = state;", "flow->state = stat;"))
    with pytest.raises(RequestError, match=r"own\.bpf\.c:\d+:\d+: error: use of undeclared identifier 'stat'.*accepted: C that clang"):
        compiled(source, tmp_path)
    source.write_text(TEMPLATE.read_text().replace('.name = "my_cc"', '.name = "My CC"'))
    with pytest.raises(RequestError, match="calls itself 'My CC'; accepted: 1 to 15 small letters"):
        declared(compiled(source, tmp_path))


def test_without_a_compiler_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object needs none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    said = "my_cc.bpf.c is to be compiled, and there is no clang here; remedy: apt-get install clang llvm libbpf-dev, or give the .o"
    assert uncompiled(TEMPLATE) == f"transport.tcp: {said}"
    assert uncompiled(Path("my_cc.bpf.o")) == ""
    with pytest.raises(MachineError, match="no clang here"):
        compiled(TEMPLATE, tmp_path)


def test_the_verifiers_last_words_are_found_in_what_libbpf_said() -> None:
    """The line before its statistics, and the program; without a verifier's log the last line."""
    log = "libbpf: prog 'my_control': -- BEGIN PROG LOAD LOG --\n0: R1=ctx\n; tp->x\n5: (63) *(u32 *)(r1 +4) = r2\nwrite is not supported\nprocessed 6 insns (limit 1000000) max_states_per_insn 0\n-- END PROG LOAD LOG --"
    said = ["libbpf: prog 'my_control': BPF program load failed: Permission denied", log, "libbpf: failed to load object 'own.o'"]
    assert last_words(said) == "the verifier, of my_control: write is not supported"
    assert last_words(["libbpf: one", "libbpf: two", ""]) == "libbpf: two"
    assert last_words([]) == ""
