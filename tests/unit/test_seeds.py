"""Draws depend on the seed and the purpose, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import seeds
from fabric.errors import RequestError


@given(st.integers(0, 2**63 - 1), st.text(max_size=20))
def test_a_seed_and_a_purpose_always_give_the_same_draws(seed: int, purpose: str) -> None:
    """Two generators made at different times agree."""
    first, second = seeds.rng(seed, purpose), seeds.rng(seed, purpose)
    assert first.integers(0, 2**32, 8).tolist() == second.integers(0, 2**32, 8).tolist()


@pytest.mark.parametrize("other", [(7, "load1"), (8, "load0")])
def test_another_seed_or_purpose_gives_other_draws(other: tuple[int, str]) -> None:
    """Streams are independent: changing one load leaves the draws of the next alone."""
    assert seeds.rng(7, "load0").integers(0, 2**32, 8).tolist() != seeds.rng(*other).integers(0, 2**32, 8).tolist()


def test_streams_of_neighbouring_seeds_are_uncorrelated() -> None:
    """1,000 pairs of first draws correlate as independent ones do: within 4 standard errors of 0."""
    draws = np.array([seeds.rng(seed, "placement").random() for seed in range(1001)])
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / np.sqrt(1000)


def test_a_seed_gives_what_it_gave_when_results_were_published() -> None:
    """The first bits of SHA-256("1/hash"), computed by sha256sum: a change here makes old results unrepeatable."""
    assert seeds.number(1, "hash", 16) == 0x0030
    assert seeds.number(1, "hash", 256) >> 240 == seeds.number(1, "hash", 16)


@given(st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_a_number_has_at_most_its_bits(seed: int, bits: int) -> None:
    """From 0 up to 2^bits - 1."""
    assert 0 <= seeds.number(seed, "hash", bits) < 2**bits


@given(st.integers(0, 2**63 - 1), st.integers(0, 500))
def test_source_ports_are_distinct_and_in_range(seed: int, n: int) -> None:
    """As many as asked, in 20000..60000, none twice."""
    ports = seeds.source_ports(seed, n)
    assert len(ports) == len(set(ports)) == n
    assert all(20000 <= port <= 60000 for port in ports)


def test_more_connections_keep_the_ports_of_the_first() -> None:
    """An arm with more connections shares the ports of those that both have."""
    assert seeds.source_ports(7, 64)[:16] == seeds.source_ports(7, 16)


def test_all_ports_can_be_had_and_not_one_more() -> None:
    """40001 ports exist; one more connection is refused with the number."""
    assert set(seeds.source_ports(1, 40001)) == set(range(20000, 60001))
    with pytest.raises(RequestError, match="got 40002 connections; accepted: at most 40001"):
        seeds.source_ports(1, 40002)
