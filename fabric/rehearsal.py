"""A policy tried without a network: its actions change the paths, the fluid model gives the rates that it then sees.

Comes in: a `Fabric`, flows between hosts, a policy. Goes out: rates, moves and share of non-blocking after each tick.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabric import demand
from fabric.errors import RequestError
from fabric.fluid import max_min
from fabric.graph import Fabric, Port
from fabric.load import Flow
from fabric.paths import Path, PathSets
from fabric.policy import Action, FlowKey, FlowView, LinkView, Policy, Reroute, Reweight, View

__all__ = ["Rehearsal", "Step"]

PERIOD_S = 0.1
FIRST_PORT, SERVICE = 20000, 5001  # flow i is one connection from port 20000 + i


@dataclass(frozen=True, slots=True)
class Step:
    """What a tick did: the policy's actions; then every flow's rate in Mb/s, and their sum over non-blocking's."""

    actions: tuple[Action, ...]
    rates: npt.NDArray[np.float64]
    share_of_nb: float

    @property
    def moves(self) -> int:
        """How many flows the policy rerouted."""
        return sum(isinstance(action, Reroute) for action in self.actions)


class Rehearsal:
    """Flows on a fabric whose links carry `mbps` times their scale, first hashed over their shortest paths by `rng`.

    `rates_mbps` are the rates of degraded links by port, 0 for a dead one: both directions, at once in the view.
    With `shows_hash` the policy sees where the hash put a flow; without it such a flow's path is None.
    """

    def __init__(
        self,
        fabric: Fabric,
        flows: Sequence[Flow],
        rng: np.random.Generator,
        *,
        mbps: float = 1.0,
        rates_mbps: Mapping[Port, float] | None = None,
        shows_hash: bool = True,
    ) -> None:
        self._fabric, self._rng, self._shows_hash = fabric, rng, shows_hash
        self.flows = tuple(flows)
        self._configured = {port: mbps * scale for port, scale in fabric.scale.items()}
        self._tick = 0
        self._keys = [self._key(index, flow) for index, flow in enumerate(self.flows)]
        self._index = {key: index for index, key in enumerate(self._keys)}
        self.sets = PathSets(fabric)
        self._demand = self._natural_demand()
        self._groups: dict[tuple[str, str], tuple[int, ...]] = {}
        self._hashed: dict[tuple[str, str], list[int]] = {}
        self.paths: list[Path | None] = [self._draw(flow) for flow in self.flows]
        self.break_links(rates_mbps or {})
        self._find_groups()

    def break_links(self, rates_mbps: Mapping[Port, float]) -> None:
        """From now on these links carry what is said, the others what they are configured for."""
        self._rate = dict(self._configured)
        for port, rate in rates_mbps.items():
            self._rate[port] = self._rate[self._fabric.peer[port]] = rate
        self.sets = self.sets.without(frozenset(port for port, rate in self._rate.items() if not rate > 0))

    def rates(self) -> npt.NDArray[np.float64]:
        """The max-min fair rate of every flow where it is now, in Mb/s; 0 without a path."""
        unplaced: list[float | None] = [
            flow.mbps if path is not None else 0.0 for flow, path in zip(self.flows, self.paths, strict=True)
        ]
        capacity: dict[Hashable, float] = {port: rate for port, rate in self._rate.items()}
        return max_min([path or () for path in self.paths], capacity, unplaced)

    def view(self) -> View:
        """What a policy sees now."""
        rates = self.rates()
        load = dict.fromkeys(self._rate, 0.0)
        for path, rate in zip(self.paths, rates.tolist(), strict=True):
            for port in path or ():
                load[port] += rate
        hashed = set() if self._shows_hash else {index for group in self._hashed.values() for index in group}
        seen = [None if index in hashed else path for index, path in enumerate(self.paths)]
        return View(
            t=self._tick * PERIOD_S,
            tick=self._tick,
            period_s=PERIOD_S,
            links={
                port: LinkView(port, rate, self._configured[port], min(load[port] / self._configured[port], 1.0))
                for port, rate in self._rate.items()
            },
            flows=tuple(
                FlowView(key, flow.src, flow.dst, path, wanted, rate)
                for key, flow, path, wanted, rate in zip(
                    self._keys, self.flows, seen, self._demand, rates.tolist(), strict=True
                )
            ),
            paths=self.sets,
            groups=dict(self._groups),
            switch_paths=self.sets.between,
        )

    def tick(self, policy: Policy) -> Step:
        """Let the policy decide once, and do what it says; RequestError when it may not say that."""
        actions = tuple(policy.decide(self.view()))
        self._tick += 1
        self._check(actions)
        for action in actions:
            if isinstance(action, Reroute):
                self._reroute(action)
            elif isinstance(action, Reweight):
                self._reweight(action)
        rates = self.rates()
        return Step(actions, rates, self.share_of_nb(rates))

    def run(self, policy: Policy, ticks: int) -> list[Step]:
        """So many ticks, one after another."""
        return [self.tick(policy) for _ in range(ticks)]

    def share_of_nb(self, rates: npt.NDArray[np.float64]) -> float:
        """The sum of rates over what the flows would get were only the hosts' links, unbroken, in their way."""
        return float(rates.sum() / sum(self._demand))

    def slowdown(self, rates: npt.NDArray[np.float64]) -> float:
        """How many times slower than on a non-blocking fabric the flow is that suffers most."""
        pairs = zip(self._demand, rates.tolist(), strict=True)
        return float(max(wanted / rate if rate > 0 else np.inf for wanted, rate in pairs))

    def _key(self, index: int, flow: Flow) -> FlowKey:
        hosts = self._fabric.host_by_name
        return FlowKey(hosts[flow.src].ip, FIRST_PORT + index, hosts[flow.dst].ip, SERVICE)

    def _natural_demand(self) -> list[float]:
        ports_of = self._fabric.ports_of
        nic = {host.name: sum(self._configured[port] for port in ports_of[host.name]) for host in self._fabric.hosts}
        pairs = [(flow.src, flow.dst) for flow in self.flows]
        return demand.estimate(pairs, nic, nic, [flow.mbps for flow in self.flows])

    def _draw(self, flow: Flow) -> Path | None:
        """One of the flow's paths, each as likely."""
        paths = self.sets(flow.src, flow.dst)
        return paths[int(self._rng.integers(len(paths)))] if paths else None

    def _find_groups(self) -> None:
        for index, path in enumerate(self.paths):
            if path is not None:
                self._hashed.setdefault(_ends(path), []).append(index)
        self._groups = {group: (1,) * len(self.sets.between(*group)) for group in self._hashed}

    def _reroute(self, action: Reroute) -> None:
        index = self._index[action.flow]
        old = self.paths[index]
        group = self._hashed.get(_ends(old), []) if old is not None else []
        if index in group:
            group.remove(index)
        self.paths[index] = action.path

    def _reweight(self, action: Reweight) -> None:
        """Draw all flows of the group anew that no Reroute has placed."""
        group = action.switch, action.group
        self._groups[group] = action.weights
        share = np.array(action.weights) / sum(action.weights)
        between = self.sets.between(*group)
        for index in self._hashed.get(group, ()):
            path = self.paths[index]
            assert path is not None
            self.paths[index] = (path[0], *between[int(self._rng.choice(len(between), p=share))], path[-1])

    def _check(self, actions: Sequence[Action]) -> None:
        flows = [action.flow for action in actions if isinstance(action, Reroute)]
        groups = [(action.switch, action.group) for action in actions if isinstance(action, Reweight)]
        if len(set(flows)) < len(flows) or len(set(groups)) < len(groups):
            raise RequestError("policy: answered for a flow or a group twice; accepted: one action for each in a tick")
        for action in actions:
            if isinstance(action, Reroute):
                self._check_path(action)
            elif not isinstance(action, Reweight):
                got = f"answered with {type(action).__name__}, which is for hosts and ports"
                raise RequestError(f"policy: {got}; accepted: Reroute and Reweight, as there are only paths here")
            elif len(action.weights) != len(self.sets.between(action.switch, action.group)) or not sum(action.weights):
                got = f"weights {action.weights} from {action.switch} to {action.group}"
                raise RequestError(f"policy: got {got}; accepted: one for each path between them, not all 0")

    def _check_path(self, action: Reroute) -> None:
        if action.flow not in self._index:
            raise RequestError(f"policy: rerouted {action.flow}, which is no active flow; accepted: flows of the view")
        flow = self.flows[self._index[action.flow]]
        if action.path not in self.sets(flow.src, flow.dst):
            got = f"sent {action.flow} along a path that is not offered"
            raise RequestError(f"policy: {got}; accepted: those of view.paths")


def _ends(path: Path) -> tuple[str, str]:
    """The edge switches of a path."""
    return path[1].node, path[-1].node
