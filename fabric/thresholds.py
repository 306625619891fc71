"""What is wrong between the keys of `links.ecn`: the pair of thresholds, their order, and the queue that they are of.

Comes in: checked values of `links`. Goes out: problems, for `fabric.experiment` to tell. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from fabric.keys import ETHERNET_HEADER, Ecn, Links
from fabric.located import Problem, told

__all__ = ["misplaced"]

_PAIRS = "min_packets and max_packets, or min_bytes and max_bytes"


def misplaced(links: Links) -> Iterator[Problem]:
    """Each way in which the thresholds are none, too many, upside down, or above the queue."""
    if links.ecn is None:
        return
    problems = [*_pairs(links.ecn)]
    yield from problems or [*_order(links.ecn)] or _above_the_queue(links, links.ecn)


def _pairs(ecn: Ecn) -> Iterator[Problem]:
    """Exactly one pair, and all of it."""
    values = ecn.model_dump()
    given = [name for name in ("min_packets", "max_packets", "min_bytes", "max_bytes") if values[name] is not None]
    units = list(dict.fromkeys(name.removeprefix("min_").removeprefix("max_") for name in given))
    if not units:
        yield _at("min_packets", told(None, _PAIRS, "add e.g. min_packets: 20 and max_packets: 20"), absent=True)
    elif len(units) > 1:
        bytes_ = next(name for name in given if name.endswith("_bytes"))
        yield _at(bytes_, told(values[bytes_], f"{_PAIRS}, not some of each", f"remove {bytes_}, or the thresholds in packets"))
    elif len(given) == 1:
        other = ("max_" if given[0].startswith("min_") else "min_") + units[0]
        accepted = str(Ecn.model_fields[other].description)
        yield _at(other, told(None, accepted, f"add e.g. {other}: {values[given[0]]}"), absent=True)


def _order(ecn: Ecn) -> Iterator[Problem]:
    unit, least, most = _pair(ecn)
    if most < least:
        accepted = f"at least min_{unit}, which is {least}"
        yield _at(f"max_{unit}", told(most, accepted, f"write e.g. max_{unit}: {least}"))


def _above_the_queue(links: Links, ecn: Ecn) -> Iterator[Problem]:
    unit, least, _ = _pair(ecn)
    frame = links.mtu + ETHERNET_HEADER
    queue = links.queue_bytes if links.queue_bytes is not None else (links.queue_packets or 0) * frame
    if ecn.in_bytes(links.mtu)[0] > queue:
        said = f"queue_{unit}, which is {getattr(links, f'queue_{unit}')}"
        if getattr(links, f"queue_{unit}") is None:  # the one counts packets and the other bytes
            said = f"the queue, which is {queue} bytes" if unit == "bytes" else f"queue_bytes, which is {queue // frame} full frames"
        yield _at(f"min_{unit}", told(least, f"at most {said}, or nothing is ever marked", "lower it"))


def _pair(ecn: Ecn) -> tuple[str, int, int]:
    """The unit in which the thresholds are given, and both."""
    if ecn.min_packets is not None:
        return "packets", ecn.min_packets, ecn.max_packets or 0
    return "bytes", ecn.min_bytes or 0, ecn.max_bytes or 0


def _at(key: str, text: str, absent: bool = False) -> Problem:
    return Problem(("links", "ecn", key), text, absent)
