"""Static routing by destination: each tier spreads destinations over its uplinks by another digit of their number.

Source: the two-level tables of Al-Fares et al., "A Scalable, Commodity Data Center Network Architecture", SIGCOMM 2008.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fabric.app import FabricApp
from fabric.graph import Fabric, Port, Switch
from fabric.openflow import Match, Output, Rule
from fabric.paths import next_hops

__all__ = ["TwoLevel", "static_port"]


class TwoLevel(FabricApp):
    """One fixed path to each destination, chosen so that neighbouring destinations use different ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.toward = next_hops(self.fabric)

    def rules(self, switch: Switch) -> Iterator[Rule]:
        """One rule per destination."""
        for number, host in enumerate(self.fabric.hosts):
            port = static_port(self.fabric, switch.name, self.toward[switch.name][host.name], number)
            for nic in host.nics:
                yield Rule(Match(ip_dst=nic.ip), (Output(port.number),))


def static_port(fabric: Fabric, switch: str, choices: tuple[Port, ...], destination: int) -> Port:
    """The choice for a destination's number: its lowest digit decides at the edge, the next one a tier above, ...

    Were it the same digit everywhere, the two tiers of a fat-tree would use only k/2 of its k^2/4 core switches.
    """
    radix = len(choices)
    below: int = radix ** (fabric.level[switch] - 1)
    return choices[destination // below % radix]
