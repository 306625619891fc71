"""The one test that all other emulation tests depend on: two hosts talk through one switch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation


def test_two_hosts_ping_each_other(tmp_path: Path, alone: Any) -> None:
    """Namespaces, Open vSwitch, Ryu and shaped links work together: five pings go out, five answers come back."""
    from fabric.control import controller_process
    from fabric.links import Shape
    from fabric.network import ControllerAddress, network
    from fabric.ovs import best_datapath, private_ovs
    from topologies.single_switch import single_switch

    fabric = single_switch(2)
    shapes = dict.fromkeys(fabric.scale, Shape(10, 1500, 50))
    control = controller_process(
        tmp_path, fabric, app="controllers.two_level", parameters={}, poll_ms=100, hash_basis=0, port=6653
    )
    with alone() as place, place.namespace(), control as controller:
        folder = Path(tempfile.mkdtemp(dir=place.folder, prefix="ovs-"))
        with private_ovs(folder, best_datapath()) as ovs, network(fabric, shapes, ovs) as net:
            net.start()
            controller.wait_listening()
            net.connect(ControllerAddress(6653))
            controller.wait_ready()
            answer = net.mininet.hosts[0].cmd(f"ping -n -c 5 -i 0.02 -W 2 {fabric.hosts[1].ip}")
    assert "5 packets transmitted, 5 received, 0% packet loss" in answer
