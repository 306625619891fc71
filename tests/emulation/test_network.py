"""A network is what was asked, or says where it is not; and nothing of it is left, in no place but its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fabric.graph import Port
from fabric.kernel import inside_namespace, namespace_of
from topologies.fat_tree import fat_tree
from topologies.single_switch import single_switch

pytestmark = pytest.mark.emulation

# what is done to interface {0}, how it is undone, and a pattern of what the network says of it in between
TAMPERINGS = {
    "qdisc deleted": (
        "tc qdisc del dev {0} root",
        "tc qdisc add dev {0} root handle 1: htb default 1 && "
        "tc class add dev {0} parent 1: classid 1:1 htb rate 20mbit burst 9014 cburst 9014 mtu 9014 && "
        "tc qdisc add dev {0} parent 1:1 handle 10: pfifo limit 50",
        "{0}: no shaper of ours",
    ),
    "queue longer": (
        "tc qdisc change dev {0} parent 1:1 handle 10: pfifo limit 51",
        "tc qdisc change dev {0} parent 1:1 handle 10: pfifo limit 50",
        "{0}: queue 51 packets instead of 50 packets",
    ),
    "queue in bytes": (
        "tc qdisc replace dev {0} parent 1:1 handle 11: bfifo limit 450700",
        "tc qdisc replace dev {0} parent 1:1 handle 10: pfifo limit 50",
        "{0}: queue 450700 bytes instead of 50 packets",
    ),
    "rate raised": (
        "tc class change dev {0} parent 1: classid 1:1 htb rate 21mbit burst 9014 cburst 9014 mtu 9014",
        "tc class change dev {0} parent 1: classid 1:1 htb rate 20mbit burst 9014 cburst 9014 mtu 9014",
        "{0}: mbps 21 instead of 20",
    ),
    "may borrow": (
        "tc class change dev {0} parent 1: classid 1:1 htb rate 20mbit ceil 40mbit burst 9014 cburst 9014 mtu 9014",
        "tc class change dev {0} parent 1: classid 1:1 htb rate 20mbit burst 9014 cburst 9014 mtu 9014",
        "{0}: no shaper of ours",
    ),
    "burst raised": (
        "tc class change dev {0} parent 1: classid 1:1 htb rate 20mbit burst 64kb cburst 9014 mtu 9014",
        "tc class change dev {0} parent 1: classid 1:1 htb rate 20mbit burst 9014 cburst 9014 mtu 9014",
        r"{0}: burst 655\d\d bytes, more than one frame of 9014",
    ),
    "mtu changed": ("ip link set {0} mtu 1500", "ip link set {0} mtu 9000", "{0}: mtu 1500 instead of 9000"),
    "gro on": ("ethtool -K {0} gro on", "ethtool -K {0} gro off", "{0}: offload gro is on"),
    "checksums left to the device": (
        "ethtool -K {0} tx on", "ethtool -K {0} tx off", "{0}: offload tx-checksum is on",
    ),
    "super-packets": (
        "ip link set {0} gso_max_segs 44", "ip link set {0} gso_max_segs 1", "{0}: 44 segments a packet instead of 1",
    ),
    "renamed": (
        "ip link set {0} down && ip link set {0} name elsewhere",
        "ip link set elsewhere name {0} && ip link set {0} up",
        "{0}: no such interface",
    ),
}  # fmt: skip
# Newer kernels count more under tcp-segmentation-offload than those that cut segments of TCP over IPv4.
OFFLOADS = (
    "tx-checksumming", "scatter-gather", "tx-tcp-segmentation", "generic-segmentation-offload", "generic-receive-offload",
)  # fmt: skip


def shape() -> Any:
    """20 Mb/s, jumbo frames, 50 packets of queue."""
    from fabric.links import Shape

    return Shape(20, 9000, 50)


@pytest.fixture
def net(bring_up: Any) -> Iterator[Any]:
    """A network of two hosts, for one test alone."""
    with bring_up(single_switch(2), shape()) as running:
        yield running


def inside(net: Any, port: Port) -> Any:
    """The namespace that an interface is in."""
    return net.inside(port.node) if port.node in net.fabric.host_by_name else ExitStack()


def shell(command: str) -> str:
    """What a command prints, run in this thread's namespace; it succeeds."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def test_every_interface_is_what_was_asked_by_the_tools_own_words(bring_up: Any) -> None:
    """All 96 interfaces of a fat-tree, by tc, ip and ethtool: rate, burst, queue, MTU, no offload, nothing unshaped."""
    fabric = fat_tree(4)
    with bring_up(fabric, shape()) as net:
        assert net.read_back() == []
        for port in fabric.peer:
            with inside(net, port):
                name = port.interface
                (rate,) = shell(f"tc class show dev {name}").strip().splitlines()
                assert re.search(r"class htb 1:1 root .*rate 20Mbit ceil 20Mbit burst 90\d\db cburst 90\d\db", rate), rate
                htb, queue = json.loads(shell(f"tc -s -j qdisc show dev {name}"))
                assert (htb["kind"], htb["options"]["direct_packets_stat"]) == ("htb", 0)
                assert (queue["kind"], queue["parent"], queue["options"]["limit"]) == ("pfifo", "1:1", 50)
                (link,) = json.loads(shell(f"ip -d -j link show {name}"))
                assert link["mtu"] == 9000 and "UP" in link["flags"]
                assert link["gso_max_segs"] == 1
                features = dict(re.findall(r"^\s*(\S+): (on|off)", shell(f"ethtool -k {name}"), re.M))
                assert {features[feature] for feature in OFFLOADS} == {"off"}


def test_addresses_and_neighbours_are_static(net: Any) -> None:
    """A host has its own address and knows every other's, so that nothing on the fabric needs a broadcast."""
    here, other = net.fabric.hosts
    with net.inside(here.name):
        (found,) = [item for item in json.loads(shell("ip -j addr show dev h0-eth0")) if item]
        assert [item["local"] for item in found["addr_info"]] == [here.ip] and found["address"] == here.mac
        (neighbour,) = json.loads(shell("ip -j neigh"))
        assert (neighbour["dst"], neighbour["lladdr"], neighbour["state"]) == (other.ip, other.mac, ["PERMANENT"])


@pytest.mark.parametrize("port", [Port("s0", 2), Port("h0", 0)], ids=["switch", "host"])
@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_with_an_interface_is_noticed(net: Any, port: Port, what: str) -> None:
    """Changed by the machine's own tools: read-back names the interface, what it is and what was asked."""
    change, undo, said = (text.format(port.interface) for text in TAMPERINGS[what])
    assert net.read_back() == []
    with inside(net, port):
        shell(change)
    try:
        (found,) = net.read_back()
        assert re.fullmatch(said, found), found
    finally:
        with inside(net, port):
            shell(undo)
    assert net.read_back() == []


def test_a_queue_limited_in_bytes_is_built_and_read_back(bring_up: Any) -> None:
    """The limit in bytes is what tc shows."""
    from fabric.links import Shape

    with bring_up(single_switch(2), Shape(10, 1500, queue_bytes=75_700)) as net:
        assert net.read_back() == []
        _, queue = json.loads(shell("tc -j qdisc show dev s0-eth1"))
    assert (queue["kind"], queue["options"]["limit"]) == ("bfifo", 75_700)


@pytest.mark.parametrize("port", [Port("s0", 2), Port("h0", 0)], ids=["switch", "host"])
def test_a_floor_is_built_and_its_filter_is_missed_when_it_goes(bring_up: Any, port: Port) -> None:
    """Two classes by tc's own words; without the filter nothing would go first, and read-back says so."""
    from fabric.links import Shape

    with bring_up(single_switch(2), Shape(20, 9000, 50, floor=0.05)) as net:
        assert net.read_back() == []
        with inside(net, port):
            words = shell(f"tc class show dev {port.interface}")
            assert re.search(r"htb 1:10 parent 1:1 .*prio 0 rate 20Kbit ceil 20Mbit", words), words
            assert re.search(r"htb 1:20 parent 1:1 .*prio 1 rate 1Mbit ceil 20Mbit", words), words
            shell(f"tc filter del dev {port.interface} parent 1: prio 1")
        (found,) = net.read_back()
    assert found == f"{port.interface}: no filter leads packets with priority to their class"


def test_an_idle_link_passes_two_frames_at_once(bring_up: Any) -> None:
    """Six full frames to a link at rest take the time of four: what every ideal reckons with. The quickest of ten tries, on any machine."""
    from fabric.ideal import CREDIT_FRAMES
    from fabric.links import Shape

    frames, frame_ms = 6, 9014 * 8e-3 / 10
    with bring_up(single_switch(2), Shape(10, 9000, 50)) as net:
        src, dst = net.fabric.hosts
        with net.inside(src.name):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            lasted = []
            sent = net.fabric.peer[Port(src.name, 0)]
            for _ in range(10):
                time.sleep(0.15)
                begin, before = time.monotonic(), packets_received(sent)
                for _ in range(frames):
                    sender.sendto(bytes(8972), (dst.ip, 9))
                while packets_received(sent) < before + frames and time.monotonic() < begin + 2:
                    time.sleep(0.0002)
                lasted.append(1000 * (time.monotonic() - begin))
    assert frame_ms * (frames - CREDIT_FRAMES) * 0.99 < min(lasted) < frame_ms * (frames - CREDIT_FRAMES + 0.7)


def packets_received(port: Port) -> int:
    """Packets that a switch's port has taken in, in this thread's namespace."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.split()[0] == f"{port.interface}:")


def test_a_network_is_in_a_place_of_its_own_and_leaves_none(bring_up: Any, state: Any, state_now: Any) -> None:
    """While it is up the machine's own namespace has the interfaces it had; afterwards all is as it was before."""
    home = namespace_of()
    before = state()
    with bring_up(fat_tree(2), shape()) as net:
        ours = {port.interface for port in net.fabric.peer}
        here = state_now()
        assert {port.interface for port in net.fabric.peer if port.node in net.fabric.switch_by_name} <= here.interfaces
        assert here.folders - before.folders and here.processes - before.processes
        with inside_namespace(home):
            assert state_now().interfaces == before.interfaces
            assert not ours & before.interfaces
    with open(home) as descriptor:
        assert os.path.samestat(os.fstat(descriptor.fileno()), os.stat("/proc/thread-self/ns/net"))
    assert state() == before


def test_an_error_inside_takes_the_network_down_as_well(bring_up: Any, state: Any) -> None:
    """The block raises: processes, sysctls, interfaces and state folder are gone all the same."""
    before = state()
    with pytest.raises(ZeroDivisionError), bring_up(single_switch(2), shape()):
        raise ZeroDivisionError
    assert state() == before


def test_values_set_in_hosts_are_read_back(net: Any) -> None:
    """Sysctls and TCP's minimum timeout are those of every host, and not of the machine."""
    from fabric.kernel import read_sysctl
    from fabric.routes import Metrics

    outside = read_sysctl("net.ipv4.tcp_no_metrics_save")
    net.set_host_sysctls({"net.ipv4.tcp_no_metrics_save": "1", "net.ipv4.tcp_congestion_control": "reno"})
    net.set_routes({host.name: {0: Metrics(50)} for host in net.fabric.hosts})
    for host in net.fabric.hosts:
        assert net.host_sysctl(host.name, "net.ipv4.tcp_no_metrics_save") == "1"
        assert net.host_sysctl(host.name, "net.ipv4.tcp_congestion_control") == "reno"
        with net.inside(host.name):
            assert "rto_min lock 50ms" in shell("ip route show 10.0.0.0/8")
    assert read_sysctl("net.ipv4.tcp_no_metrics_save") == outside
