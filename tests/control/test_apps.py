"""Anyone's own controller: a plain Ryu app runs unchanged, and one that cannot run is told why."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from fabric.errors import RequestError, RunError
from fabric.plugins import Source, controller_parameters, find
from topologies.single_switch import single_switch

FABRIC = single_switch(4)
APP = """from ryu.base.app_manager import RyuApp


class {name}(RyuApp):
    pass
"""
CRASHES = """from ryu.base.app_manager import RyuApp


class Crashes(RyuApp):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        raise ValueError("no such policy: fastest")
"""
FAILS_LATER = """from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, set_ev_cls

from ryu.base.app_manager import RyuApp


class FailsLater(RyuApp):
    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def on_connect(self, ev):
        raise KeyError("a defect of this app")
"""
NO_RULES = """from fabric.app import FabricApp


class Undecided(FabricApp):
    pass
"""
PACKET = "eth(src={src.mac},dst={dst.mac}),eth_type(0x800),ipv4(src={src.ip},dst={dst.ip},proto=6,tos=0,ttl=64,frag=no),tcp(src=1,dst=2)"


def simple_switch() -> Path:
    """The learning switch that Ryu ships, by its file; importing it here would need Ryu's patched world."""
    spec = importlib.util.find_spec("ryu")
    assert spec and spec.origin
    return Path(spec.origin).parent / "app" / "simple_switch_13.py"


def test_a_plain_ryu_app_runs_unchanged(start: Any, wait: Any) -> None:
    """Ryu's own learning switch by its file's path: it gets ready, and learns from the packets that it is sent."""
    a, b, *_ = FABRIC.hosts
    with start(FABRIC, str(simple_switch())) as running:
        assert running.flows("s0") == ["priority=0,actions=CONTROLLER:65535"]
        running.receive("s0-eth1", PACKET.format(src=a, dst=b))

        def learnt() -> bool:
            # The first packet was flooded and taught it where a is; an answer makes it install a rule towards a.
            running.receive("s0-eth2", PACKET.format(src=b, dst=a))
            return f"priority=1,in_port=2,dl_src={b.mac},dl_dst={a.mac},actions=output:1" in running.flows("s0")

        wait(learnt, "a rule learnt from packets")
        assert running.controller.exceptions() == 0


def test_the_parameters_of_a_plain_ryu_app_are_its_own_affair() -> None:
    """None: any may be given."""
    assert controller_parameters(find("controller", str(simple_switch()), Path("/"))) is None


def test_two_apps_in_a_file_are_refused(tmp_path: Path) -> None:
    """Ryu would run the first by alphabet and never say so."""
    file = tmp_path / "twins.py"
    file.write_text(APP.format(name="First") + APP.format(name="Second"))
    with pytest.raises(RequestError) as error:
        controller_parameters(Source(str(file)))
    assert str(error.value) == (
        f"{file}:9: got the app classes First (line 4), Second (line 9); accepted: one class of RyuApp or FabricApp; "
        "move the others to files of their own; Ryu runs only the first by alphabet"
    )


def test_a_syntax_error_is_found_before_anything_starts(tmp_path: Path) -> None:
    """With file and line."""
    file = tmp_path / "typo.py"
    file.write_text("import os\n\ndef (:\n")
    with pytest.raises(RequestError) as error:
        controller_parameters(Source(str(file)))
    assert str(error.value) == f"{file}:3: got a syntax error, invalid syntax; accepted: Python; mend the file"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CRASHES, "ValueError: no such policy: fastest"),
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def (:\n", "SyntaxError: invalid syntax"),
    ],
    ids=["crash in __init__", "import that fails", "syntax error"],
)
def test_an_app_that_cannot_start_is_told_why(start: Any, tmp_path: Path, text: str, said: str) -> None:
    """The app's own error is the message, with the log that has the rest."""
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(RunError) as error, start(FABRIC, str(file)):
        pass
    message = str(error.value)
    assert message.startswith(f"the controller stopped: {said}; log: ")
    assert said in Path(message.rpartition("log: ")[2]).read_text()


@pytest.mark.parametrize("text", [FAILS_LATER, NO_RULES], ids=["handler", "no rules"])
def test_an_exception_in_a_handler_is_counted(start: Any, tmp_path: Path, text: str) -> None:
    """Ryu logs it and goes on; we count it, so that a result made under it is not believed."""
    file = tmp_path / "fails_later.py"
    file.write_text(text)
    with start(FABRIC, str(file)) as running:
        assert running.controller.exceptions() == 1
