"""Servers of several NICs: one namespace, an address and a shaped way out for each, and a link inside that is no part of the network."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fabric.emulation import routes_of
from topologies.rails import rail_optimized

pytestmark = pytest.mark.emulation

RAILS = """
question: Does what stays on its rails leave the spines alone?
topology: {use: rail-optimized, servers: 2, rails: 2}
links: {mbps: 10, mtu: 9000, queue_packets: 50}
controller: {use: adaptive}
collective: {use: hierarchical-allreduce, per_server: 2, nbytes: 256KiB, iterations: 3, warmup: 1}
sweep:
  topology: [{use: rail-optimized, servers: 2, rails: 2}, {use: rail-only, servers: 2, rails: 2}]
  collective: [{use: hierarchical-allreduce, per_server: 2, nbytes: 256KiB, iterations: 3, warmup: 1},
               {use: all-to-all, nbytes: 256KiB, iterations: 3, warmup: 1}]
"""


def test_rails_and_spines(fabriclab: Any) -> None:
    """Every sum is right; the spines carry what changes rails and nothing else; where there are none it is passed on inside servers."""
    done, _ = fabriclab.run(RAILS)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    found = {(row["topology"], row["collective"]): row for row in rows}
    assert [row["correct"] for row in rows] == [True] * 4 and {row["nvlink_ratio"] for row in rows} == {9.0}
    assert found["rail-optimized", "hierarchical-allreduce"]["spine_bytes"] == 0
    # Of each rank's four shares one goes to the other server on another rail, in each of three iterations.
    assert found["rail-optimized", "all-to-all"]["spine_bytes"] > 0.9 * 4 * 3 * 65536
    assert {found["rail-only", use]["spine_bytes"] for use in ("hierarchical-allreduce", "all-to-all")} == {None}


def test_a_server_is_one_namespace_with_a_shaped_way_out_for_each_nic(bring_up: Any) -> None:
    """Read back: classes inside, rules by source; a rate that was changed inside, or a rule that is gone, is found."""
    from pyroute2 import IPRoute

    from fabric.links import Shape

    fabric = rail_optimized(2, 2)
    with bring_up(fabric, Shape(10, 9000, 50), inside_mbps=90.0) as net:
        assert net.host_pid("n0r0") == net.host_pid("n0r1") != net.host_pid("n1r0")
        assert sorted(host.name for host in net.mininet.hosts) == ["n0", "n1"]
        net.set_routes(routes_of(_Point(fabric), _Work()))  # type: ignore[arg-type]
        assert net.read_back() == [] and net.routes_differ() == []
        with net.inside("n0r0"), IPRoute() as netlink:
            (lo,) = netlink.link_lookup(ifname="lo")
            netlink.tc("change-class", "htb", lo, handle=0x10011, parent=0x10000, rate=1_000_000, ceil=1_000_000)
            netlink.rule("del", src=fabric.hosts[1].ip, src_len=32, table=2001, priority=2001)
        assert net.read_back() == ["n0: inside the server: ['8', '90'] Mb/s instead of ['90', '90']"]
        assert net.routes_differ() == [f"n0r1: packets from {fabric.hosts[1].ip} take table None instead of 2001"]


class _Work:
    def __init__(self) -> None:
        self.hosts_by_job: dict[str, list[str]] = {}


class _Point:
    """What `routes_of` reads of a point."""

    collective, jobs, load, requests = None, (), (), ()

    def __init__(self, fabric: Any) -> None:
        from fabric.experiment import Transport

        self.fabric, self.transport = fabric, Transport()
