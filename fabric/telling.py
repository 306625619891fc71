"""An explanation in words that a network engineer would use: whole sentences, with numbers and units.

Comes in: an `Explanation`. Goes out: text, a paragraph for each question. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fabric.explain import Explanation, Move
from fabric.fullest import FULL, FullLink, Share
from fabric.results import Row
from fabric.slowest import Slow, Work

__all__ = ["told"]

_BUSY = 0.2  # of a link's rate: on an emptier one acknowledgements and retransmissions count for too much
_UNEXPLAINED = 0.25
_SHOWN = 8  # moves and sharers named one by one; the rest are counted


def told(what: Explanation) -> str:
    """The explanation as text, lines as long as they get, no line end at its end."""
    parts = [list(_head(what)), list(_work(what)), list(_slow(what)), list(_link(what)), list(_controller(what))]
    parts.append([f"The record does not say {text}." for text in what.missing])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _head(what: Explanation) -> Iterator[str]:
    row = what.row
    policy = f" with policy {row.policy}" if row.policy else ""
    arm = row.variant if row.variant.startswith(row.controller) else f"{row.variant}, controller {row.controller}"
    verdict = f"refused: {row.refused}" if row.refused else f"fidelity {row.fidelity or 'not judged'}"
    yield f"{what.run}, point {what.point}: {arm}{policy} on {row.topology}, links of {row.mbps:g} Mb/s, seed {row.seed}; {verdict}."
    if what.chosen:
        yield f"It is the slowest of {what.points} points; another is explained by --point."
    yield from (f"Event: {text}." for text in what.events)


# -- what was slow


def _work(what: Explanation) -> Iterator[str]:
    work, row = what.work, what.row
    if work.iteration is None:
        share = "its row was refused, so no share is given"
        if row.load_share_of_nb is not None:
            share = f"{row.load_share_of_nb:.3f} of what one ideal switch would carry"
        yield f"The load ({row.load}) ran for {_time(work.time_ms)}: {share}. Times count from its begin."
        return
    beside = f", beside {row.load}" if row.load else ""
    operation = row.algorithm if row.algorithm and not row.algorithm.endswith("allreduce") else "all-reduce"
    yield (
        f"The slowest {operation} was iteration {work.iteration + 1} of {work.iterations}{_of_job(work)} of {_size(work.nbytes or 0)} over "
        f"{len(work.ends_ms)} ranks{beside}: {_time(work.time_ms)}, {work.time_ms / (work.ideal_ms or 1):.2f} times the ideal of "
        f"{_time(work.ideal_ms or 0)} (median {_time(work.median_ms or 0)}{_foretold(row)}). Times count from its release."
    )
    yield _ranks(work)


def _of_job(work: Work) -> str:
    bucket = f", bucket {work.bucket + 1}" if work.bucket is not None else ""
    return f"{bucket} of {work.job}," if work.job else ""


def _foretold(row: Row) -> str:
    return f", predicted from the installed paths {_time(row.predicted_ms)}" if row.predicted_ms is not None else ""


def _ranks(work: Work) -> str:
    last = max(work.ends_ms, key=lambda rank: work.ends_ms[rank])
    first = min(work.ends_ms, key=lambda rank: work.ends_ms[rank])
    return (
        f"Rank {last} on {work.hosts[last]} was last, at {_time(work.ends_ms[last])}; rank {first} on {work.hosts[first]} was first, "
        f"at {_time(work.ends_ms[first])}."
    )


# -- which flow


def _slow(what: Explanation) -> Iterator[str]:
    slow = what.slow
    if slow is None:
        return
    yield f"The slowest flow was {slow.name}, from {slow.src} to {slow.dst}: {_why(slow, what.sampled_ms)}."
    if slow.silence_ms is not None and slow.silence_from_ms is not None and slow.silence_ms >= what.rto_min_ms:
        yield (
            f"Its receiver heard nothing for {_time(slow.silence_ms)}, from {_time(slow.silence_from_ms)} on: longer than TCP's "
            f"smallest retransmission timeout here ({what.rto_min_ms:g} ms), so a timeout, or a wait for others, is in it."
        )
    for leg in slow.legs:
        when = "all the time" if len(slow.legs) == 1 else f"from {_time(leg.from_ms)} to {_time(leg.until_ms)}"
        yield f"Its path {when}: {_path(leg.nodes)}."


def _why(slow: Slow, sampled_ms: float) -> str:
    if slow.by == "goodput":
        return f"it got {slow.mbps:.2f} Mb/s, {_times(slow.ideal_mbps, slow.mbps)} less than its {slow.ideal_mbps:.2f} Mb/s on one ideal switch"
    needs = f"its {_size(slow.nbytes or 0)} need {_time(slow.alone_ms or 0)} on an idle path"
    if slow.busy_ms is None:
        return f"it has the smallest max-min share for what it carries; {needs} (by the fluid model)"
    return (
        f"it had data on its way for {_time(slow.busy_ms)}, longer than any other, at {slow.mbps:.2f} Mb/s; {needs} "
        f"(inferred from byte counts of the hosts' links every {sampled_ms:g} ms)"
    )


def _times(more: float, less: float) -> str:
    return f"{more / less:.2f} times" if less > 1e-3 else "endlessly"


# -- which link


def _link(what: Explanation) -> Iterator[str]:
    link = what.link
    if link is None:
        return
    yield f"The fullest link on its way was {link.near} to {link.far} ({link.interface}): {_fullness(link, what.work.time_ms)}."
    yield (
        f"Its queue held {link.queue_mean_packets:.0f} packets on average and {link.queue_max_packets} at most, and dropped {link.drops}; "
        f"it was {100 * link.share:.0f} % full on average."
    )
    yield from _sharers(link, what.slow)


def _fullness(link: FullLink, time_ms: float) -> str:
    on = "" if link.on_ms > 0.95 * time_ms else " that the flow was on it"
    if link.from_ms is None or link.until_ms is None:
        return f"never above {100 * FULL:.0f} % of its rate within a sample in the {_time(link.on_ms)}{on}"
    total = f"above {100 * FULL:.0f} % of its rate for {_time(link.full_ms)} of {_time(link.on_ms)}{on}"
    return f"{total}, at a stretch from {_time(max(link.from_ms, 0))} to {_time(min(link.until_ms, time_ms))}"


def _sharers(link: FullLink, slow: Slow | None) -> Iterator[str]:
    others = [one for one in link.sharers if slow is None or one.name != slow.name]
    own = next((one for one in link.sharers if slow is not None and one.name == slow.name), None)
    if not others:
        yield f"No other flow of the record crossed it at {_time(link.at_ms)}."
    else:
        flows = f"{len(others)} other flow{'s' * (len(others) != 1)}"
        yield f"At {_time(link.at_ms)} it was shared with {flows}; max-min shares, were all flows sending:"
        for one in [*([own] if own else []), *others][:_SHOWN]:
            yield f"  {_share(one)}"
        if len(link.sharers) > _SHOWN:
            yield f"  and {len(link.sharers) - _SHOWN} more"
    if link.share > _BUSY and abs(link.explained - 1) > _UNEXPLAINED:
        only = "account for only" if link.explained < 1 else "would account for"
        yield f"These flows {only} {100 * link.explained:.0f} % of what it carried: some flow went another way than the record says."


def _share(one: Share) -> str:
    fair = "share not known" if one.fair_mbps is None else f"{one.fair_mbps:.2f} Mb/s"
    got = "" if one.mbps is None else f", got {one.mbps:.2f} Mb/s"
    return f"{one.name} ({one.src} to {one.dst}): {fair}{got}"


# -- what the controller did


def _controller(what: Explanation) -> Iterator[str]:
    if not what.has_log:
        yield f"What the controller did: {what.row.controller} keeps no decision log."
        return
    others = [f"{number} {_KINDS[kind][number != 1]}" for kind, number in what.others.items()]
    more = f"; besides: {', '.join(others)}" if others else ""
    count = len(what.moves)
    if not count:
        before = f" Before that it had moved flows {what.before} times." if what.before else " Nor had it moved any before."
        yield f"What the controller did: it moved no flow meanwhile{more}.{before}"
        return
    concerned = [move for move in what.moves if move.concerned]
    yield (
        f"What the controller did: it moved flows {count} time{'s' * (count != 1)} meanwhile, {len(concerned)} of them the slowest flow, "
        f"or off or onto its fullest link{more}."
    )
    shown = [*concerned, *(move for move in what.moves if not move.concerned)][:_SHOWN]
    for move in sorted(shown, key=lambda move: move.at_ms):
        yield f"  {_move(move)}"
    if count > len(shown):
        yield f"  and {count - len(shown)} more"


_KINDS = {
    "reweight": ("change of weights", "changes of weights"), "held": ("move held back", "moves held back"),
    "link": ("link seen to change", "links seen to change"), "degraded": ("link found slow", "links found slow"),
}  # fmt: skip


def _move(move: Move) -> str:
    numbers = ", ".join(f"{name} {value:g}" for name, value in move.numbers.items())
    before = "" if move.before_mbps is None else f"{move.before_mbps:.2f} Mb/s before, "
    after = "its outcome is not recorded" if move.after_mbps is None else f"{before}{move.after_mbps:.2f} Mb/s some seconds later"
    old, new = _parted(move.old, move.new)
    return f"{_time(move.at_ms)}: {move.name} ({move.src} to {move.dst}) from {old} to {new}: {move.reason} ({numbers}); {after}"


def _parted(old: Sequence[str], new: Sequence[str]) -> tuple[str, str]:
    """Both paths without the nodes that they begin and end with alike."""
    if not old:
        return "a path not known", _path(new)
    ahead = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    behind = next((n for n, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b), 0)
    return _path(old[ahead : len(old) - behind]), _path(new[ahead : len(new) - behind])


def _path(nodes: Sequence[str]) -> str:
    return " > ".join(nodes) or "not known, the switches' rules did not say it"


def _time(ms: float) -> str:
    """A time in ms; from 10 s in s.

    >>> _time(487.93), _time(30000.0)
    ('487.9 ms', '30.00 s')
    """
    return f"{ms / 1000:.2f} s" if ms >= 10_000 else f"{ms:.1f} ms"


def _size(nbytes: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= unit and nbytes % unit == 0:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} B"
