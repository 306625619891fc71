"""A packet that has left its host is on nobody's account: a queue in the fabric fills, whoever forwards."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyroute2 import IPRoute

from fabric.kernel import inside_namespace, namespace_of, new_network_namespace
from fabric.links import Shape, requests
from fabric.release import release_senders

pytestmark = pytest.mark.emulation

SHAPE = Shape(20, 1500, queue_packets=100)
ACCOUNT = 40  # packets, of 100: many times what TCP small queues allow one connection, once it knows its round-trip time
BEGIN, END = 1000, 3000  # the packets between which the queue is looked at
DEADLINE_S = 20
PORT = 5001


def host(address: str, name: str, switch: int) -> int:
    """A host whose interface's peer is in the switch's namespace; gives its own namespace."""
    new_network_namespace()
    home = namespace_of()
    with IPRoute() as netlink:
        netlink.link("add", ifname="eth0", kind="veth", peer={"ifname": name, "net_ns_fd": switch})
        (index,) = netlink.link_lookup(ifname="eth0")
        netlink.addr("add", index=index, address=address, prefixlen=8)
        netlink.link("set", index=index, state="up", gso_max_segs=1)
    return home


def backlog(netlink: Any, index: int) -> int:
    """Packets that wait at an interface's root."""
    roots = [qdisc for qdisc in netlink.get_qdiscs(index) if qdisc["parent"] == 0xFFFFFFFF]
    return int(roots[0].get_attr("TCA_STATS2").get_attr("TCA_STATS_QUEUE")["qlen"])


def longest_queue(released: bool) -> int:
    """The longest queue that one connection makes where a bridge in the kernel hands it to a slow link."""
    new_network_namespace()
    switch = namespace_of()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:  # a namespace belongs to a thread
        near = one.submit(host, "10.0.0.1", "near", switch).result()
        far = other.submit(host, "10.0.0.2", "far", switch).result()
    with IPRoute() as netlink:
        netlink.link("add", ifname="bridge", kind="bridge")
        (bridge,) = netlink.link_lookup(ifname="bridge")
        index = {name: netlink.link_lookup(ifname=name)[0] for name in ("near", "far")}
        for command, kind, arguments in requests(SHAPE):
            netlink.tc(command, kind, index["far"], **arguments)
        if released:
            release_senders(netlink, [index["near"]])
        for name in ("near", "far"):
            netlink.link("set", index=index[name], master=bridge, state="up", gso_max_segs=1)
        netlink.link("set", index=bridge, state="up")
        return watched(netlink, index["far"], near, far)


def watched(netlink: Any, index: int, near: int, far: int) -> int:
    """Send as fast as TCP goes, and see the longest queue at an interface, from the thousandth packet that leaves it on."""
    with inside_namespace(far):
        listener = socket.create_server(("10.0.0.2", PORT))
    with inside_namespace(near):
        sender = socket.create_connection(("10.0.0.2", PORT), timeout=DEADLINE_S)
    sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")  # bbr would leave the queue short by itself
    receiver, _ = listener.accept()
    ended = threading.Event()

    def pump() -> None:
        while not ended.is_set():
            sender.sendall(bytes(65536))

    def drain() -> None:
        while receiver.recv(1 << 16):
            pass

    threads = [threading.Thread(target=task) for task in (pump, drain)]
    for thread in threads:
        thread.start()
    longest, until = 0, time.monotonic() + DEADLINE_S
    while (count := sent(netlink, index)) < END:
        assert time.monotonic() < until, f"{count} packets in {DEADLINE_S} s"
        longest = max(longest, backlog(netlink, index)) if count >= BEGIN else 0
    ended.set()
    threads[0].join()
    sender.close()
    threads[1].join()
    for one in (receiver, listener):
        one.close()
    return longest


def sent(netlink: Any, index: int) -> int:
    """Packets that left an interface."""
    (link,) = netlink.get_links(index)
    return int(link.get_attr("IFLA_STATS64")["tx_packets"])


def test_a_queue_behind_a_kernels_switch_fills_once_senders_are_released() -> None:
    """With the program, one connection fills it."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(longest_queue, True).result() >= ACCOUNT


def test_without_the_program_tcp_holds_back_by_what_stands_in_the_fabric() -> None:
    """A few packets, no drop and no mark, ever: what the program is for, where the kernel leaves packets on account."""
    with ThreadPoolExecutor(1) as pool:
        longest = pool.submit(longest_queue, False).result()
    if longest >= ACCOUNT:
        pytest.skip(f"this kernel takes packets off their senders' accounts by itself: the queue held {longest}")
    assert longest < 10
