"""Static routing by destination: each tier spreads destinations over its uplinks by another digit of their number.

Source: the two-level tables of Al-Fares et al., "A Scalable, Commodity Data Center Network Architecture", SIGCOMM 2008.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fabric.app import FabricApp
from fabric.graph import Fabric, Host, Port, Switch
from fabric.openflow import Match, Output, Rule
from fabric.paths import next_hops

__all__ = ["TwoLevel", "numbered", "static_port"]


class TwoLevel(FabricApp):
    """One fixed path to each destination, chosen so that neighbouring destinations use different ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.toward = next_hops(self.fabric)
        self.numbered = numbered(self.fabric)

    def rules(self, switch: Switch) -> Iterator[Rule]:
        """One rule per destination that can be reached."""
        for number, host in enumerate(self.numbered):
            if choices := self.toward[switch.name][host.name]:
                port = static_port(self.fabric, switch.name, choices, number)
                for nic in host.nics:
                    yield Rule(Match(ip_dst=nic.ip), (Output(port.number),))


def numbered(fabric: Fabric) -> list[Host]:
    """All hosts in the order that their digits are taken from: edge by edge, and there port by port.

    Neighbours on a switch then differ in the lowest digit, whatever order the topology names them in.
    """
    order = {switch.name: number for number, switch in enumerate(fabric.switches)}
    place = {host.name: fabric.peer[Port(host.name, host.nics[0].port)] for host in fabric.hosts}
    return sorted(fabric.hosts, key=lambda host: (order[place[host.name].node], place[host.name].number))


def static_port(fabric: Fabric, switch: str, choices: tuple[Port, ...], destination: int) -> Port:
    """The choice for a destination's number: its lowest digit decides at the edge, the next one a tier above, ...

    Were it the same digit everywhere, the two tiers of a fat-tree would use only k/2 of its k^2/4 core switches.
    """
    radix = len(choices)
    below: int = radix ** (fabric.level[switch] - 1)
    return choices[destination // below % radix]
