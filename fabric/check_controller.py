"""A verdict on anyone's controller, without root: what it does to a fabric, and how it takes what befalls one.

Comes in: a controller by its spelling, its parameters, topologies. Goes out: a `Report` for each topology, whose findings
each say what was seen, where, and what to do. A real Ryu runs the app unchanged against real Open vSwitch tables; no
packet leaves a switch, so what needs traffic (rates, timing, discovery by LLDP) is not judged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fabric import plugins
from fabric.controller_bench import Bench, Finding, last_trouble
from fabric.errors import RequestError, RunError
from fabric.experiment import parse_override
from fabric.graph import Fabric
from fabric.keys import Use
from fabric.parameters import Wanted, misfits, wanted
from fabric.unrooted import controlled_fabric

__all__ = ["DEFAULT_TOPOLOGIES", "MAX_RULES", "Finding", "Report", "Request", "check", "request"]

DEFAULT_TOPOLOGIES = ("single-switch", "fat-tree,k=4")
MAX_RULES = 2000  # an assumption, of the order of what a TCAM holds; data sheets say from hundreds to some thousands


@dataclass(frozen=True)
class Report:
    """What was found on one topology."""

    topology: str
    fabric: Fabric
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(finding.verdict != "FAIL" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A dictionary for the screen's `--json`."""
        size = {"switches": len(self.fabric.switches), "hosts": len(self.fabric.hosts)}
        return {"topology": self.topology, **size, "passed": self.passed, "findings": [asdict(item) for item in self.findings]}


@dataclass(frozen=True)
class Request:
    """What to check: the app by its source, on which fabrics (by how they were asked for), with which parameters."""

    controller: str
    source: plugins.Source
    parameters: Mapping[str, Any]
    fabrics: Mapping[str, Fabric]
    max_rules: int = MAX_RULES
    poll_ms: int = 100
    defect: str | None = None  # why it cannot be run at all


def request(
    controller: str, overrides: Sequence[str], topologies: Sequence[str], base: Path, *, max_rules: int = MAX_RULES,
    poll_ms: int = 100,
) -> Request:  # fmt: skip
    """The checked request; RequestError when a name, a file or a parameter is wrong.

    `overrides` are `key=value`, `topologies` `name,key=value,...`; relative files start from `base`.
    """
    source = plugins.find("controller", controller, base)
    if source.external:
        raise RequestError(f"got {controller}; accepted: a built-in's name, pkg.module:attr or ./file.py, as each check starts the controller anew; name its app")
    parameters = dict(parse_override(text) for text in overrides)
    asked = {text: _fabric(text, base) for text in topologies or DEFAULT_TOPOLOGIES}
    defect = None
    try:
        takes = wanted("controller", controller, base)
    except RequestError as err:
        if not source.is_file:
            raise
        defect = str(err)
    else:
        _refuse("--set", parameters, takes)
    return Request(controller, source, plugins.rooted(parameters, base), asked, max_rules, poll_ms, defect)


def _fabric(text: str, base: Path) -> Fabric:
    name, *rest = text.split(",")
    params = dict(parse_override(item) for item in rest)
    _refuse(f"--topology {text}", params, wanted("topology", name, base))
    return plugins.load_topology(name, base, params)


def _refuse(where: str, params: Mapping[str, Any], takes: Wanted) -> None:
    if "use" in params:
        raise RequestError(f"{where}: use: got a name a second time; accepted: parameters; name it before them")
    for problem in misfits((), Use(use="it", **params), takes):
        raise RequestError(f"{where}: {'.'.join(map(str, problem.path))}: {problem.text}")


def check(asked: Request, progress: Callable[[str], None] = lambda _: None) -> Iterator[Report]:
    """A report for each topology, as it is ready; `progress` is told which check begins."""
    for name, fabric in asked.fabrics.items():
        with tempfile.TemporaryDirectory(prefix="fabriclab-") as folder:
            findings = tuple(_on(Path(folder), asked, fabric, partial(_tell, progress, name)))
        yield Report(name, fabric, findings)


def _tell(progress: Callable[[str], None], topology: str, what: str) -> None:
    progress(f"{topology}: {what}")


def _on(folder: Path, asked: Request, fabric: Fabric, progress: Callable[[str], None]) -> Iterator[Finding]:
    if asked.defect:
        yield Finding("app", "FAIL", asked.defect)
        return
    yield Finding("app", "PASS", "exactly one app class")
    progress("start")
    log = folder / "controller" / "manager.log"
    try:
        with controlled_fabric(
            folder, fabric, asked.source.module, parameters=asked.parameters, poll_ms=asked.poll_ms, wait=False, proxied=True
        ) as running:
            yield Finding("start", "PASS", "Ryu runs it")
            yield from Bench(running, asked.source, asked.max_rules, progress).all()
    except RunError as err:
        if not str(err).startswith("the controller"):  # Open vSwitch's trouble, not the app's
            raise
        yield Finding("start", "FAIL", f"it does not start: {last_trouble(log, asked.source) or str(err).partition('; log: ')[0]}")
