"""Waiting for what nobody announces: a condition is asked again and again, until it holds or a deadline has come."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]

_EVERY_S = 0.01


def until(condition: Callable[[], object], deadline_s: float, every_s: float = _EVERY_S) -> bool:
    """Wait until the condition holds; False when it did not within `deadline_s`. Whatever it raises ends the wait.

    >>> until(lambda: True, 0.0), until(lambda: False, 0.0)
    (True, False)
    """
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(every_s)
    return True
