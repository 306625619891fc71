"""Demands are what hosts alone allow: Hedera's estimator agrees, and so does the fluid model on a star."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.demand import estimate
from fabric.errors import RequestError

Pairs = list[tuple[str, str]]


def hedera(flows: Pairs, nic: float) -> list[float]:
    """The paper's two steps by its text, for equal NICs: sources share equally, receivers limit, until nothing changes."""
    rate, converged = [0.0] * len(flows), [False] * len(flows)
    for _ in range(1000):
        before = list(rate)
        for src in {src for src, _ in flows}:
            mine = [i for i, flow in enumerate(flows) if flow[0] == src]
            open_ = [i for i in mine if not converged[i]]
            for i in open_:
                rate[i] = (nic - sum(rate[j] for j in mine if converged[j])) / len(open_)
        for dst in {dst for _, dst in flows}:
            mine = [i for i, flow in enumerate(flows) if flow[1] == dst]
            if sum(rate[i] for i in mine) <= nic + 1e-12:
                continue
            limited_here, share = set(mine), nic / len(mine)
            while small := {i for i in limited_here if rate[i] < share - 1e-12}:
                limited_here -= small
                share = (nic - sum(rate[i] for i in mine if i not in limited_here)) / len(limited_here)
            for i in limited_here:
                rate[i], converged[i] = share, True
        if max(abs(old - new) for old, new in zip(before, rate, strict=True)) < 1e-12:
            return rate
    raise AssertionError("the estimator did not settle")


hosts = st.sampled_from("abcdef")
flows_of_six = st.lists(st.tuples(hosts, hosts).filter(lambda pair: pair[0] != pair[1]), min_size=1, max_size=14)


@given(flows_of_six)
def test_hederas_estimator_converges_to_the_same(flows: Pairs) -> None:
    """On equal NICs the paper's iteration, written out here, ends at the same demands."""
    nic = dict.fromkeys("abcdef", 10.0)
    assert estimate(flows, nic, nic) == pytest.approx(hedera(flows, 10.0), abs=1e-6)


def test_a_case_worked_by_hand() -> None:
    """Five flows into one host get a fifth each; what their sources have left goes to the other flows."""
    flows = [("0", "1"), ("0", "2"), ("0", "3"), ("1", "0"), ("1", "0"), ("1", "2"), ("2", "0"), ("2", "3"), ("3", "0"), ("3", "0")]
    nic = dict.fromkeys("0123", 1.0)
    wanted = [1 / 3, 1 / 3, 1 / 3, 1 / 5, 1 / 5, 3 / 5, 1 / 5, 2 / 3, 1 / 5, 1 / 5]
    assert estimate(flows, nic, nic) == pytest.approx(wanted)


def test_rates_of_hosts_may_differ() -> None:
    """A fast server to two slow clients: each takes its own link's rate, the third what is left at the server."""
    out, into = {"server": 10.0}, {"slow": 2.0, "slower": 1.0, "fast": 10.0}
    flows = [("server", "slow"), ("server", "slower"), ("server", "fast")]
    assert estimate(flows, out, into) == pytest.approx([2.0, 1.0, 7.0])


def test_what_a_limited_flow_leaves_the_others_share() -> None:
    """Three flows of one host, one of which wants 1 of 10: the others want 4.5 each."""
    flows = [("a", "b"), ("a", "c"), ("a", "d")]
    nic = dict.fromkeys("abcd", 10.0)
    assert estimate(flows, nic, nic, [1.0, None, None]) == pytest.approx([1.0, 4.5, 4.5])


def test_a_host_without_a_rate_is_refused() -> None:
    """The message names the host."""
    with pytest.raises(RequestError, match="'b', 'in'"):
        estimate([("a", "b")], {"a": 1.0}, {})
