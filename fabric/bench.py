"""`fabriclab bench`: nccl-tests' options become an experiment, so that a quick look is as checked and as recorded as any run.

Comes in: options as users of nccl-tests type them. Goes out: the text of an experiment file. Nothing here runs anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fabric import plugins
from fabric.errors import RequestError
from fabric.experiment import Collective, Controller, Load, parse_override

__all__ = ["OPERATIONS", "Bench", "sizes"]

OPERATIONS = {  # what nccl-tests has a program for, and what does it where no algorithm is named
    "all-reduce": "ring-allreduce", "reduce-scatter": "ring-reduce-scatter", "all-gather": "ring-all-gather",
}  # fmt: skip
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_MOST_SIZES = 200
_MODELS: dict[str, type[Collective | Controller | Load]] = {"collective": Collective, "controller": Controller, "load": Load}  # whose keys are no parameters of a plug-in
_LARGEST = 1 << 30


@dataclass(frozen=True)
class Bench:
    """What was asked for; plug-ins are given as `name,key=value,...`, and sizes in bytes."""

    collective: str
    sizes: tuple[int, ...]
    iterations: int = 20
    warmup: int = 5
    check: bool = True
    dtype: str = "float32"
    topology: str = "single-switch"
    controller: str = "ecmp"
    loads: tuple[str, ...] = ()
    ranks: int | None = None
    placement: str = "ranked"
    channels: int = 1
    mbps: float = 10.0
    mtu: int = 9000
    queue_packets: int = 50
    tcp: str = "cubic"
    hints: bool = False
    repeat: int = 1
    seed: int = 1

    @property
    def name(self) -> str:
        """What its run folder is called."""
        return "bench-" + re.sub(r"[^A-Za-z0-9]+", "-", self.collective.split(",")[0]).strip("-")

    def experiment(self) -> str:
        """The experiment file's text; RequestError where a plug-in is not written as it must be."""
        collective = {
            **_use("collective", self.collective), "nbytes": list(self.sizes), "iterations": self.iterations, "warmup": self.warmup,
            "check": self.check, "dtype": self.dtype, "placement": self.placement, "channels": self.channels,
            "hints": self.hints, **({} if self.ranks is None else {"ranks": self.ranks}),
        }  # fmt: skip
        blocks: dict[str, Any] = {
            "question": f"How fast is {self.collective} on {self.topology} under {self.controller}?",
            "topology": _use("topology", self.topology),
            "links": {"mbps": self.mbps, "mtu": self.mtu, "queue_packets": self.queue_packets},
            "controller": _use("controller", self.controller),
            "collective": collective,
            **({"load": [_use("load", load) for load in self.loads]} if self.loads else {}),
            "transport": {"tcp": self.tcp},
            "repeat": self.repeat, "seed": self.seed,
        }  # fmt: skip
        # A block a line: JSON is YAML, and an error then names the line of its block.
        return "".join(f"{name}: {json.dumps(value)}\n" for name, value in blocks.items())


def sizes(first: str, last: str, factor: int | None, step: str | None) -> tuple[int, ...]:
    """The sizes of a scan from `first` to `last`, as nccl-tests scans: each `factor` times the one before, or `step` more.

    Sizes are bytes, or end in K, M or G for powers of 1024. RequestError, one line, for what is no scan.

    >>> sizes("64K", "1M", 4, None)
    (65536, 262144, 1048576)
    >>> sizes("8", "24", None, "8")
    (8, 16, 24)
    """
    low, high = _nbytes("-b", first), _nbytes("-e", last)
    if factor is not None and step is not None:
        raise RequestError("bench: got -f and -i; accepted: one of them; leave one out")
    if low > high:
        raise RequestError(f"bench: -b {first}: got more than -e {last}; accepted: at most that")
    if step is None:
        by = 2 if factor is None else factor
        if by < 2:
            raise RequestError(f"bench: -f: got {by}; accepted: 2 or more; each size is that many times the one before")
        found = [low]
        while found[-1] * by <= high:
            found.append(found[-1] * by)
    else:
        more = _nbytes("-i", step)
        found = [low + more * number for number in range(min((high - low) // more + 1, _MOST_SIZES + 1))]
    if len(found) > _MOST_SIZES:
        raise RequestError(f"bench: got more than {_MOST_SIZES} sizes; accepted: at most that; make -i larger, or use -f")
    return tuple(found)


def _nbytes(option: str, text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    nbytes = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not 0 < nbytes <= _LARGEST or nbytes % 4:
        raise RequestError(f"bench: {option}: got {text!r}; accepted: a multiple of 4 bytes up to 1G, as 65536, 64K or 16M")
    return nbytes


def _use(kind: str, text: str) -> dict[str, Any]:
    """`name,key=value,...` as an experiment file has it."""
    name, *rest = text.split(",")
    if kind == "collective":
        name = OPERATIONS.get(name, name)
    if not name:
        known: Sequence[str] = plugins.names(kind)
        raise RequestError(f"bench: {kind}: got {text!r}; accepted: a name, then its parameters, as {known[0]},key=value")
    params = dict(parse_override(item) for item in rest)
    for key in params.keys() & {"use", *(_MODELS[kind].model_fields if kind in _MODELS else ())}:
        raise RequestError(f"bench: {text}: {key}: got a key of the experiment's; accepted: parameters of {name}; use an option, or an experiment file")
    return {"use": name, **params}
