"""Every random draw of an experiment, from one seed and a purpose.

Comes in: a point's seed and what the draw is for. Goes out: a generator, a number or source ports that depend on
nothing else, so that two arms with the same seed share their placement, load and ports, whatever else they draw.
"""

from __future__ import annotations

import hashlib

import numpy as np

from fabric.errors import RequestError

__all__ = ["number", "rng", "source_ports"]

PORTS = range(20000, 60001)  # above the services, below Linux's last ephemeral ports


def rng(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each seed and purpose; the same two always give the same draws."""
    # PCG64 by name: numpy may change what default_rng() means, and then old results could not be repeated.
    return np.random.Generator(np.random.PCG64(number(seed, purpose, 256)))


def number(seed: int, purpose: str, bits: int) -> int:
    """A number of `bits` bits, 1 to 256: the leading ones of the SHA-256 of `{seed}/{purpose}`."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest, "big") >> (256 - bits)


def source_ports(seed: int, n: int) -> list[int]:
    """`n` distinct TCP ports in 20000..60000, in the order drawn; RequestError when there are not so many."""
    if n > len(PORTS):
        raise RequestError(
            f"source ports: got {n} connections; accepted: at most {len(PORTS)}; use fewer ranks or flows"
        )
    return [PORTS[int(index)] for index in rng(seed, "ports").permutation(len(PORTS))[:n]]
