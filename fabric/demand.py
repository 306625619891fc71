"""What flows would take were only their hosts' links in the way: the demand that policies book.

Comes in: who sends to whom, and the rates of the hosts' links. Goes out: Mb/s a flow.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from fabric.fluid import max_min

__all__ = ["estimate"]


def estimate(
    flows: Sequence[tuple[str, str]],
    out_mbps: Mapping[str, float],
    in_mbps: Mapping[str, float],
    known: Sequence[float | None] | None = None,
) -> list[float]:
    """The natural demand in Mb/s of each flow, a pair (source, destination), where links of hosts alone limit.

    `known` caps a flow that was measured to want less, None does not; what it leaves is shared among the others.
    This is what Hedera's estimator (Al-Fares et al., NSDI 2010, "Demand Estimation") iterates towards, sources sharing equally
    and receivers limiting: the max-min fair rates on a star. So `fluid.max_min`, which a test proves by the definition,
    computes them, also for links that differ, and without an iteration that must be trusted to end.
    RequestError for a host without a rate.

    >>> estimate([("a", "c"), ("b", "c"), ("b", "d")], {"a": 10, "b": 10}, {"c": 10, "d": 10})
    [5.0, 5.0, 5.0]
    >>> estimate([("a", "c"), ("b", "c"), ("b", "d")], {"a": 10, "b": 10}, {"c": 10, "d": 10}, [2, None, None])
    [2.0, 5.0, 5.0]
    """
    capacity: dict[Hashable, float] = {(host, "out"): rate for host, rate in out_mbps.items()}
    capacity.update({(host, "in"): rate for host, rate in in_mbps.items()})
    rates: list[float] = max_min([((src, "out"), (dst, "in")) for src, dst in flows], capacity, known).tolist()
    return rates
