"""Congestion control from the fabric's own view: adaptive routing, and orders to hosts and ports beside it.

The loop is that of `controllers.adaptive`; the policy may also answer with levers: which flows go first in every queue,
how fast a flow or a host may send, where a port begins to mark, what a host's connections go by. Each order goes to the
agent of hosts and ports, which reads back what it did; only then does the next `View` show it. Every order, its cause
and its answer are in `decisions.jsonl`.

Which flows are whose is known from hints (`collective.hints: true`): jobs announce themselves, background does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from controllers.adaptive import Adaptive
from fabric.graph import Port
from fabric.hints import Announced, Beat
from fabric.orders import Answer, described
from fabric.policy import JobView, Lever, SetEcn, SetPriority, SetRate, SetTransport, Shift, Transport, View, Wires

__all__ = ["Congestion"]

_BEATS = 16  # iterations of a job that are kept in mind
_AGAIN_S = 1.0  # what was refused is not asked for again sooner

Order = tuple[str, str, str]  # which lever, on what, and what was asked


class Congestion(Adaptive):
    """Adaptive's parameters, and a policy that may pull levers."""

    PARAMETERS = {  # noqa: RUF012
        "policy": "combined", "options": {}, "hold_ms": 1000, "linger_ms": 5000, "hold_down_ms": 3000, "flow_poll_ms": 500,
        "repair": True,
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        told = dict(self.setup.get("wires") or {})
        ecn, transports = told.pop("ecn", None), told.pop("transport", {})
        self.wires = Wires(**told, transport={host: Transport(**one) for host, one in transports.items()}) if told else None
        ports = [port for port in self.fabric.peer if port.node in self.fabric.switch_by_name]
        self.ecn: dict[Port, tuple[int, int]] = dict.fromkeys(ports, tuple(ecn)) if ecn else {}
        self.jobs: dict[str, JobView] = {}
        self.waiting: set[Order] = set()
        self.refused: dict[Order, float] = {}

    # -- what is seen

    def on_ready(self) -> None:
        """A first turn before there is any flow: what is known of the topology may be enough to act on."""
        super().on_ready()
        self._tick(self.view(time.monotonic()))

    def on_plan(self, flows: list[Announced], placed: Callable[[int], None]) -> None:
        """A job is about to open its connections: what their windows must be has to be set before."""
        self._note_job(flows)
        self._tick(self.view(time.monotonic()), lambda: placed(len(flows)))

    def on_hint(self, flows: list[Announced], placed: Callable[[int], None]) -> None:
        """A job's flows, before their first byte."""
        self._note_job(flows)
        super().on_hint(flows, placed)

    def on_beat(self, beat: Beat) -> None:
        """An iteration of a job that announced itself."""
        job = self.jobs.get(beat.job)
        if job is not None:
            began, busy_s = (*job.began, beat.began)[-_BEATS:], (*job.busy_s, beat.busy_s)[-_BEATS:]
            self.jobs[beat.job] = replace(job, last=beat.iteration, began=began, busy_s=busy_s)

    def _note_job(self, flows: Sequence[Announced]) -> None:
        for name in dict.fromkeys(flow.job for flow in flows):
            mine = [flow for flow in flows if flow.job == name]
            ends = tuple((self.steering.host_of[flow.src_ip], self.steering.host_of[flow.dst_ip]) for flow in mine)
            self.jobs[name] = JobView(name, ends, tuple(flow.nbytes for flow in mine))  # anew: its clock starts now

    def _with_flows(self, view: View) -> View:
        view = super()._with_flows(view)
        links = {port: replace(link, ecn_bytes=self.ecn.get(port)) for port, link in view.links.items()}
        return replace(view, links=links, jobs=tuple(self.jobs.values()), wires=self.wires)

    # -- what is ordered

    def pull(self, view: View, levers: Sequence[Lever], done: Callable[[], None]) -> None:
        """Order what is neither under way nor was refused a moment ago."""
        fresh = [lever for lever in levers if self._is_fresh(_order(lever), view.t)]
        for lever in fresh:
            self.waiting.add(_order(lever))
            self.log.write("lever", tick=view.tick, **described(lever), reason=lever.reason, numbers=dict(lever.numbers))
        if fresh:
            self.order(fresh, done)
        else:
            done()

    def _is_fresh(self, order: Order, t: float) -> bool:
        return order not in self.waiting and t - self.refused.get(order, float("-inf")) >= _AGAIN_S

    def on_answer(self, lever: Lever, answer: Answer) -> None:
        """Believe what was read back, and nothing else."""
        self.waiting.discard(_order(lever))
        what = described(lever)
        if answer.error is not None:
            self.refused[_order(lever)] = time.monotonic()
            self.log.write("lever-refused", lever=what["lever"], on=what["on"], reason=answer.error)
            return
        self.log.write("lever-in-force", lever=what["lever"], on=what["on"], got=answer.got)
        self._believe(lever, answer.got)

    def _believe(self, lever: Lever, got: Any) -> None:
        if isinstance(lever, SetPriority) and lever.flow in self.flows.records:
            self.flows.records[lever.flow].first = lever.first
        elif isinstance(lever, SetRate) and lever.target in self.flows.records:
            self.flows.records[lever.target].limit_mbps = lever.mbps
        elif isinstance(lever, SetEcn):
            self.ecn[lever.port] = (got[0], got[1])
        elif isinstance(lever, SetTransport) and self.wires is not None:
            self.wires = replace(self.wires, transport={**self.wires.transport, lever.host: Transport(**got)})
        elif isinstance(lever, Shift) and lever.job in self.jobs:
            self.jobs[lever.job] = replace(self.jobs[lever.job], shifted=got["iteration"])


def _order(lever: Lever) -> Order:
    what = described(lever)
    # Shifts add up: while one is on its way another one of the same job would be one too many, whatever its delay.
    return (what["lever"], what["on"], "" if isinstance(lever, Shift) else str(what["asked"]))
