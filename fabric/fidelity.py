"""May a result be believed? Evidence about the machine during the measured window, and a verdict with its reasons.

Comes in: what the sampler, the shapers and the ranks recorded. Goes out: PASS, WARN or FAIL. Pure. The thresholds are
calibrated by experiments/fidelity-ladder.yaml: links from 5 to 100 Mb/s under one load, until the machine gives way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabric.events import Happened, InForce, in_force
from fabric.graph import Fabric
from fabric.telemetry import CpuSample, Ints, Queues, utilisation

__all__ = ["LIMITS", "Evidence", "Limit", "Verdict", "gather", "judge", "lost_inside"]

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
_SECOND = 1.0
_FRAMES_A_STRETCH = 50  # of a saturated link: a frame more or less at its end is 2 % then
_FEW = 10  # samples
_ENOUGH = 0.25  # of all packets, that tell for the rest
_CALM = 4  # samples without a drop between them, over which a wait can be told
_JUDGED = 0.1  # of the window, at least, in such stretches
_LOOP_S = 0.5e-3  # twice what a healthy userspace switch takes a packet


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the machine did during the measured window; None where there was nothing to judge.

    `samples` is how many telemetry samples fell into the window. `switch_delay` is how long a packet stays inside a switch on average, before any queue, as a share of a full frame's
    time on a link: by Little's law, packets inside over packets per second. Shares are 0..1: `controller_busy` of one
    core, by its busiest thread in its worst second; `steal` of all cores likewise. `late_ms` is the sampler's 99th percentile of lateness,
    `missed` the share of its samples that it had to skip. `saturated_low` and `saturated_high` are the 5th and 95th
    percentile, over links, of a saturated link's rate against its shaper. `burst_frames` is the most that any link was
    ahead of its rate over any stretch of time, in full frames: one is its bucket, more is the sampler's own lateness, or
    packets that no shaper should have passed. `unaccounted` is the share of packets that
    went into a switch and neither left it nor were counted as dropped by a queue. `idle_hop_ms` is the idle latency
    per switch. `release_late` is how late the last rank began, as a share of the iteration, in the median iteration.
    `line_late` and `line_overrun` are shares of the packets that a user-space delay line released more than a millisecond
    late, and that the kernel dropped because it did not take them in time. `watched_s` is for how long somebody captured or traced packets.
    """

    samples: float | None = None
    switch_delay: float | None = None
    controller_busy: float | None = None
    steal: float | None = None
    late_ms: float | None = None
    missed: float | None = None
    saturated_low: float | None = None
    saturated_high: float | None = None
    burst_frames: float | None = None
    unaccounted: float | None = None
    idle_hop_ms: float | None = None
    release_late: float | None = None
    line_late: float | None = None
    line_overrun: float | None = None
    watched_s: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """From where on a piece of evidence is a warning or a failure; `above` says which side is bad."""

    evidence: str
    warn: float
    fail: float
    above: bool
    words: str


# There is no limit on the switch thread's share of a core, on purpose. The userspace datapath looks at every port in each
# turn of its loop, and takes more packets a turn when more are there: on the ladder it uses 98 % of a core at 10 Mb/s a
# link, where it carries 0.995 of the ideal, and the same at 50 Mb/s, where it carries 0.65. What tells the two apart is
# how long packets wait inside it: 0.1 and 10 frame times.
LIMITS = (
    Limit("samples", 4, 2, False, "{:.0f} telemetry samples fell into the measured window: iterate more, or longer"),
    Limit("switch_delay", 0.5, 1.0, True, "packets waited {:.2f} frame times inside a switch"),
    Limit("controller_busy", 0.70, 0.90, True, "the controller's thread used {:.0%} of a core"),
    Limit("steal", 0.10, 0.25, True, "the hypervisor took {:.0%} of the processors in the worst second"),
    Limit("late_ms", 25.0, 100.0, True, "the sampler came {:.0f} ms late"),
    Limit("missed", 0.02, 0.20, True, "the sampler missed {:.0%} of its samples"),
    Limit("saturated_low", 0.97, 0.93, False, "saturated links carried only {:.1%} of their rate"),
    Limit("saturated_high", 1.02, 1.05, True, "saturated links carried {:.1%} of their rate"),
    Limit("burst_frames", 4.0, 6.0, True, "a link was {:.1f} frames ahead of its rate"),
    Limit("unaccounted", 0.0005, 0.005, True, "{:.2%} of the packets were lost outside any queue"),
    Limit("idle_hop_ms", 2.0, 6.0, True, "an idle switch took {:.1f} ms per packet"),
    Limit("release_late", 0.05, 0.20, True, "ranks began up to {:.0%} of an iteration late"),
    Limit("line_late", 0.02, 0.10, True, "the delay line released {:.1%} of the packets more than 1 ms late"),
    Limit("line_overrun", 0.0, 0.001, True, "the delay line was overrun and lost {:.3%} of the packets"),
    Limit("watched_s", 0.0, 60.0, True, "packets were captured or traced meanwhile, for {:.1f} s, which takes time of the machine"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """PASS, WARN or FAIL, and a sentence for each limit that was passed."""

    level: str
    reasons: tuple[str, ...]


def judge(evidence: Evidence, faults: Sequence[str] = ()) -> Verdict:
    """The verdict on the evidence; `faults` are failures found elsewhere, in words."""
    reasons, levels = list(faults), [FAIL] * len(faults)
    for limit in LIMITS:
        value = getattr(evidence, limit.evidence)
        level = PASS if value is None else _level(limit, value)
        if level != PASS:
            threshold = limit.warn if level == WARN else limit.fail
            reasons.append(f"{limit.words.format(value)} ({level} {'above' if limit.above else 'below'} {threshold:g})")
            levels.append(level)
    worst = FAIL if FAIL in levels else WARN if WARN in levels else PASS
    return Verdict(worst, tuple(reasons))


def _level(limit: Limit, value: float) -> str:
    sign = 1 if limit.above else -1
    if sign * value > sign * limit.fail:
        return FAIL
    return WARN if sign * value > sign * limit.warn else PASS


def gather(
    queues: Queues,
    cpu: Sequence[CpuSample],
    fabric: Fabric,
    mbps: Mapping[str, float],
    window: tuple[float, float],
    *,
    frame: int,
    idle_rtt_ms: float,
    switches_on_path: int,
    release_late: float | None,
    happened: Sequence[Happened] = (),
) -> Evidence:
    """The evidence of one window (CLOCK_MONOTONIC seconds); `mbps` is each interface's configured rate,
    `frame` the size in bytes of a full one. What `happened` to links counts: a link is judged by the rate in force, and
    losses only where no interface was down.
    """
    seconds = _by_second(cpu, window)
    inside = (queues.t >= window[0]) & (queues.t <= window[1])
    late = queues.late_ms[inside]
    force = in_force(queues.t, mbps, queues.interfaces, happened)
    low, high = _saturated(queues, mbps, force, frame, window)
    return Evidence(
        samples=float(inside.sum()),
        switch_delay=_switch_delay(queues, fabric, window, frame * 8e-6 / max(mbps[name] for name in queues.interfaces)),
        controller_busy=_worst(seconds, lambda sample: _busy(sample, "controller")),
        steal=_worst(seconds, lambda sample: sample.steal),
        late_ms=float(np.percentile(late, 99)) if len(late) else None,
        missed=float(queues.missed[inside].sum() / (len(late) + queues.missed[inside].sum())) if len(late) else None,
        saturated_low=low,
        saturated_high=high,
        burst_frames=_burst_frames(queues, force, frame, window),
        unaccounted=_unaccounted(queues, fabric, force),
        idle_hop_ms=idle_rtt_ms / 2 / max(1, switches_on_path),
        release_late=release_late,
    )


def _busy(sample: CpuSample, process: str) -> float:
    found = sample.threads.get(process)
    return found.busiest if found else 0.0


def _by_second(cpu: Sequence[CpuSample], window: tuple[float, float]) -> list[list[CpuSample]]:
    """The samples of each whole second of the window; a window shorter than one gives what there is."""
    inside = [sample for sample in cpu if window[0] <= sample.t <= window[1] + _SECOND / 4]
    groups: dict[int, list[CpuSample]] = {}
    for sample in inside:
        groups.setdefault(int((sample.t - window[0]) / _SECOND), []).append(sample)
    full = [group for group in groups.values() if len(group) >= 3]
    return full or list(groups.values())


def _worst(seconds: Sequence[Sequence[CpuSample]], value: Callable[[CpuSample], float]) -> float | None:
    if not seconds:
        return None
    return max(float(np.mean([value(sample) for sample in second])) for second in seconds)


def _saturated(
    queues: Queues, mbps: Mapping[str, float], force: InForce, frame: int, window: tuple[float, float]
) -> tuple[float | None, float | None]:
    """How near a link comes to its rate while its queue is never empty: percentiles 5 and 95 over links.

    A link counts between two samples when at the first more was waiting than it can send until the second, so that it
    had no reason to rest, and its rate did not change; and is judged when these stretches make a second. At the ends of one a frame
    more or less may have just gone, and where the queue decides what is a stretch it is no matter of chance: so much is
    forgiven in each, and one too short for that to be little does not count.
    """
    t, share = utilisation(queues, mbps)
    inside = (t >= window[0]) & (t <= window[1])
    step = np.diff(queues.t)
    configured = np.array([mbps[name] for name in queues.interfaces])
    now = force.mbps[:-1]
    share = share * np.divide(configured, now, out=np.ones_like(now), where=now > 0)
    waiting = force.steady & (queues.backlog_bytes[:-1] >= step[:, np.newaxis] * (now * 1e6 / 8))
    rates = []
    for column in range(share.shape[1]):
        frame_s = np.divide(frame * 8e-6, now[:, column], out=np.full(len(step), np.inf), where=now[:, column] > 0)
        found = (slice(*ends) for ends in _stretches(waiting[:, column] & inside))
        stretches = [at for at in found if step[at].sum() >= _FRAMES_A_STRETCH * frame_s[at].max()]
        lasted = sum(float(step[at].sum()) for at in stretches)
        if lasted >= _SECOND:
            ratio = sum(float((share[at, column] * step[at]).sum()) for at in stretches) / lasted
            off = max(0.0, abs(ratio - 1) - sum(float(frame_s[at].max()) for at in stretches) / lasted)
            rates.append(1 + off if ratio > 1 else 1 - off)
    if not rates:
        return None, None
    return float(np.percentile(rates, 5)), float(np.percentile(rates, 95))


def _burst_frames(queues: Queues, force: InForce, frame: int, window: tuple[float, float]) -> float | None:
    """The largest excess of bytes sent over rate x time, over all links and all stretches between two samples.

    A sample's figures may be as old as its time, or as new as the end of the reading: a stretch lasts from the one to the
    other. A processor that was taken away in between would look like a link that is too fast.
    """
    inside = (queues.t >= window[0]) & (queues.t <= window[1])
    if inside.sum() < 2:
        return None
    rate = force.mbps[inside] * 1e6 / 8
    # Between two samples a rate may have changed: the higher one is allowed.
    allowed = np.maximum(rate[1:], rate[:-1]) * np.diff(queues.t[inside])[:, np.newaxis]
    ahead = queues.sent_bytes[inside] - np.concatenate((np.zeros_like(rate[:1]), np.cumsum(allowed, axis=0)))
    read_late = np.zeros_like(rate) if queues.took_ms is None else rate * queues.took_ms[inside, np.newaxis] / 1e3
    return float((ahead - read_late - np.minimum.accumulate(ahead, axis=0)).max() / frame)


def lost_inside(queues: Queues, fabric: Fabric) -> int:
    """How many packets went into a switch and neither left it nor were counted as dropped, nor stand in a queue at the end, over a whole record.

    The userspace datapath sends in batches: when a queue refuses a packet, those behind it in its batch may be given up as well.
    """
    _, inside, _ = _inside(queues, fabric)
    return int(np.maximum(inside[-1], 0).sum()) if len(inside) else 0


def _inside(queues: Queues, fabric: Fabric) -> tuple[Ints, Ints, Ints]:
    """By switch: packets that have gone in, how many of them are inside, before any queue, and drops so far; [S, W] each."""
    column = {name: index for index, name in enumerate(queues.interfaces)}
    left = queues.sent_packets + queues.drops + queues.backlog_packets
    entered, out, drops = [], [], []
    for switch in fabric.switches:
        ports = fabric.ports_of[switch.name]
        own = [column[port.interface] for port in ports]
        entered.append(queues.sent_packets[:, [column[fabric.peer[port].interface] for port in ports]].sum(axis=1))
        out.append(left[:, own].sum(axis=1))
        drops.append(queues.drops[:, own].sum(axis=1))
    into, gone, dropped = (np.stack(columns, axis=1) for columns in (entered, out, drops))
    into, gone, dropped = into - into[0], gone - gone[0], dropped - dropped[0]
    return into, into - gone, dropped


def _switch_delay(queues: Queues, fabric: Fabric, window: tuple[float, float], frame_s: float) -> float | None:
    """Little's law: the mean number of packets waiting inside the switches, over their rate, in frame times of a link.

    What never comes out again is lost, not waiting, and judged as such: at each moment that is at most the fewest that
    are inside at any later one. Switches whose queues dropped are left out where others carry enough: the userspace
    datapath offers a packet that a queue refused once more when it was not the first of its batch, so that one packet
    is counted out twice, and a few such would pass for a wait. One loop serves all switches, so the others tell. Where
    every switch drops, the stretches without a drop do; None where there is too little of these.
    A frame time counts as `_LOOP_S` at least: that a healthy loop takes, however small the frames.
    """
    chosen = (queues.t >= window[0]) & (queues.t <= window[1])
    if chosen.sum() < 2:
        return None
    into, inside, dropped = _inside(queues, fabric)
    clean = dropped[-1] == 0
    if into[-1, clean].sum() < _ENOUGH * into[-1].sum():
        clean[:] = True
    quiet = np.diff(dropped[:, clean].sum(axis=1)) == 0
    entered, within = into[:, clean].sum(axis=1), inside[:, clean].sum(axis=1)
    waiting = through = seconds = 0.0
    for first, last in _stretches(quiet):
        never_out = np.minimum.accumulate(within[first : last + 1][::-1])[::-1]
        here = np.flatnonzero(chosen[first : last + 1])
        if len(here) >= _CALM:
            begin, end = first + here[0], first + here[-1]
            took = queues.t[end] - queues.t[begin]
            waiting += float((within[first : last + 1] - never_out)[here].mean()) * took
            through, seconds = through + float(entered[end] - entered[begin]), seconds + took
    if seconds < _JUDGED * (queues.t[chosen][-1] - queues.t[chosen][0]) or not through:
        return None
    return waiting / through / max(frame_s, _LOOP_S)


def _unaccounted(queues: Queues, fabric: Fabric, force: InForce) -> float | None:
    """Packets into switches that neither left them nor stand in a queue at the end; a share of those in.

    By switch, as one that counted packets out twice must not hide what another lost. What a dead link swallows is no
    defect of the emulation: with events, only stretches without one count.
    """
    if len(queues.t) < 2:
        return None
    entered, inside, _ = _inside(queues, fabric)
    into = entered.sum(axis=1)
    if force.whole.all():
        return float(np.maximum(inside[-1], 0).sum() / into[-1]) if into[-1] else None
    lost = through = 0
    for first, last in _stretches(force.whole):
        more = _least(inside[first : last + 1][-_FEW:]) - _least(inside[first : last + 1][:_FEW])
        lost += int(np.maximum(more, 0).sum())
        through += int(into[last] - into[first])
    return lost / through if through else None


def _least(inside: Ints) -> Ints:
    """What was still inside each switch at the quietest of a few samples: packets under way are not lost."""
    least: Ints = inside.min(axis=0)
    return least


def _stretches(whole: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last sample of each stretch of intervals that hold."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], whole.astype(np.int8), [0]))))
    return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]
