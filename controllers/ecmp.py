"""Equal-cost multi-path: every switch hashes a flow's 5-tuple onto its shortest-path ports, each with its own basis.

With one basis for all, an aggregation switch would repeat the choice that the edge switch made and leave part of the
core empty (hash polarization); this baseline is an honest one, and the experiments test it against theory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fabric.app import FabricApp
from fabric.graph import Switch
from fabric.openflow import HashIntoRegister, Match, Output, Rule, basis_of
from fabric.paths import next_hops

__all__ = ["Ecmp"]


class Ecmp(FabricApp):
    """Table 0 finds the destination, and where several ports lead there, a table per set of ports takes the hash."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.toward = next_hops(self.fabric)

    def rules(self, switch: Switch) -> Iterator[Rule]:
        """One rule per destination, one per member of each set of equal-cost ports."""
        basis = basis_of(self.hash_basis, switch.dpid)
        toward = self.toward[switch.name]
        sets = sorted({ports for ports in toward.values() if len(ports) > 1})
        table_of = {ports: 1 + index for index, ports in enumerate(sets)}
        for ports, table in table_of.items():
            for index, port in enumerate(ports):
                yield Rule(Match(reg0=index), (Output(port.number),), table=table)
        for host in self.fabric.hosts:
            ports = toward[host.name]
            for nic in host.nics:
                if len(ports) == 1:
                    yield Rule(Match(ip_dst=nic.ip), (Output(ports[0].number),))
                elif ports:
                    yield Rule(Match(ip_dst=nic.ip), (HashIntoRegister(basis, len(ports)),), goto=table_of[ports])
