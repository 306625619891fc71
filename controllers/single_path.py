"""Everything over one spanning tree, as plain Ethernet would: the floor of every comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fabric.app import FabricApp
from fabric.graph import Switch
from fabric.openflow import Match, Output, Rule
from fabric.paths import spanning_tree_hops

__all__ = ["SinglePath"]


class SinglePath(FabricApp):
    """One path between any two hosts, all of them in the same tree."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.toward = spanning_tree_hops(self.fabric)

    def rules(self, switch: Switch) -> Iterator[Rule]:
        """One rule per destination."""
        for host in self.fabric.hosts:
            for port in self.toward[switch.name][host.name]:  # one, or none on another rail
                for nic in host.nics:
                    yield Rule(Match(ip_dst=nic.ip), (Output(port.number),))
