"""What a controller is shown of the network that it controls."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

SHOWN_DEADLINE_S = 10.0
APP = """
import json

from controllers.two_level import TwoLevel


class Teller(TwoLevel):
    def on_sample(self, view):
        told = {port.interface: link.backlog_bytes for port, link in view.links.items()}
        (self.folder / "told.tmp").write_text(json.dumps(told))
        (self.folder / "told.tmp").rename(self.folder / "told.json")
"""


def test_a_controller_that_was_there_before_the_network_sees_its_queues(tmp_path: Path, alone: Any) -> None:
    """Which of the two comes up first is a race in every run: here the controller wins it by a wide margin."""
    from fabric.control import controller_process
    from fabric.links import Shape
    from fabric.network import ControllerAddress, network
    from fabric.ovs import best_datapath, private_ovs
    from topologies.single_switch import single_switch

    fabric = single_switch(2)
    app = tmp_path / "teller.py"
    app.write_text(APP)
    control = controller_process(tmp_path, fabric, app=str(app), parameters={}, poll_ms=50, hash_basis=0, port=6653)
    with alone() as place, place.namespace(), control as controller:
        controller.wait_listening()
        folder = Path(tempfile.mkdtemp(dir=place.folder, prefix="ovs-"))
        shapes = dict.fromkeys(fabric.scale, Shape(10, 1500, 50))
        with private_ovs(folder, best_datapath()) as ovs, network(fabric, shapes, ovs) as net:
            net.start()
            net.connect(ControllerAddress(6653))
            controller.wait_ready()
            until = time.monotonic() + SHOWN_DEADLINE_S
            while not (tmp_path / "told.json").exists() and time.monotonic() < until:
                time.sleep(0.05)
    told = json.loads((tmp_path / "told.json").read_text())
    assert all(told[port.interface] is not None for port in fabric.peer if port.node in fabric.switch_by_name)
