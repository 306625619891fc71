"""Waiting for a quiet machine: as long as it takes, never longer than asked, and by what the machine says alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fabric.patience import QUIET, Waited, stolen, wait_until_quiet


class Time:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        """Move it."""
        self.now += seconds


def waited(patience_s: float, looks: Iterator[float]) -> tuple[Waited, list[float]]:
    """What came of it, and what was told meanwhile."""
    clock, told = Time(), list[float]()
    return wait_until_quiet(patience_s, told.append, lambda: next(looks), clock.pause, clock), told


def test_a_quiet_machine_holds_nothing_back() -> None:
    """At the limit is quiet still."""
    assert waited(60, iter([QUIET])) == (Waited(0.0, QUIET), [])


def test_it_waits_until_the_neighbours_are_quiet() -> None:
    """Two loud looks, one quiet."""
    assert waited(60, iter([0.4, 0.3, 0.05])) == (Waited(4.0, 0.05), [0.4, 0.3])


def test_patience_ends() -> None:
    """A machine that is never quiet is used all the same, and what it was like is on record."""
    end, told = waited(7, iter([0.5] * 9))
    assert (end.seconds, end.stolen, len(told)) == (8.0, 0.5, 4)


def test_the_machine_says_what_is_stolen() -> None:
    """A share, whatever this machine's neighbours do."""
    assert 0 <= stolen() <= 1


@pytest.mark.parametrize("patience_s", [0.0, -1.0])
def test_without_patience_one_look_is_all(patience_s: float) -> None:
    """Nothing is waited for."""
    assert waited(patience_s, iter([0.9])) == (Waited(0.0, 0.9), [])
