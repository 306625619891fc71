"""A controller to copy that knows its fabric and looks at its links. Run it by `controller: {use: ./my_fabric_app.py}`."""

from collections.abc import Iterator

from fabric.app import FabricApp
from fabric.graph import Port, Switch
from fabric.openflow import Match, Output, Rule
from fabric.paths import next_hops
from fabric.policy import View


class MyFabricApp(FabricApp):
    """Static routes at first; then, every `poll_ms`, each switch takes one destination off its busiest port."""

    PARAMETERS = {"margin": 0.3}  # noqa: RUF012

    def rules(self, switch: Switch) -> Iterator[Rule]:
        for number, (host, ports) in enumerate(next_hops(self.fabric)[switch.name].items()):
            yield self.toward(host, ports[number % len(ports)])

    def on_sample(self, view: View) -> None:
        for switch, toward in next_hops(self.fabric).items():
            for host, ports in toward.items():
                idle, *_, busy = sorted(ports * 2, key=lambda port: view.links[port].utilisation)
                if view.links[busy].utilisation - view.links[idle].utilisation > self.parameters["margin"]:
                    self.send(switch, self.toward(host, idle))
                    break

    def toward(self, host: str, port: Port) -> Rule:
        return Rule(Match(ip_dst=self.fabric.host_by_name[host].ip), (Output(port.number),))
