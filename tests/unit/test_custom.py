"""A fabric from a file: what it says is what is built, and what is wrong with it is told by its line."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest

from fabric.errors import RequestError
from fabric.experiment import load_experiment
from fabric.plugins import load_topology
from topologies.custom import custom

GOOD = """\
hosts: [a, b, {name: c, ip: 10.0.9.1}]
switches: [left, {name: right, tier: spine}]
links:
  - [a, left]
  - [b, left]
  - [c, right]
  - [left, right, 0.5]
  - [left, right]
"""


def written(folder: Path, text: str = GOOD) -> Path:
    """The text in a file."""
    file = folder / "fab.yaml"
    file.write_text(text)
    return file


def test_what_it_says_is_built(tmp_path: Path) -> None:
    """Names, addresses, tiers, parallel links and their scales; ports in the order of the links."""
    fabric = custom(written(tmp_path))
    assert [(host.name, host.ip) for host in fabric.hosts] == [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.9.1")]
    assert [(switch.name, switch.tier) for switch in fabric.switches] == [("left", "switch"), ("right", "spine")]
    assert [(link.a.interface, link.b.interface, link.scale) for link in fabric.links[2:]] == [
        ("c-eth0", "right-eth1", 1.0), ("left-eth3", "right-eth2", 0.5), ("left-eth4", "right-eth3", 1.0),
    ]  # fmt: skip
    assert fabric.inside is None


def test_servers_of_several_nics(tmp_path: Path) -> None:
    """As those of rails: one namespace, and a ratio."""
    text = "hosts: [{name: n0r0, server: n0}, {name: n0r1, server: n0}, {name: n1r0, server: n1}]\nswitches: [s]\n"
    text += "links: [[n0r0, s], [n0r1, s], [n1r0, s]]\nnvlink_ratio: 4\n"
    fabric = custom(written(tmp_path, text))
    assert {name: len(nics) for name, nics in fabric.servers.items()} == {"n0": 2, "n1": 1} and fabric.inside == 4.0


def test_hosts_are_added_to_switches(tmp_path: Path) -> None:
    """For graphs that know of switches only."""
    fabric = custom(written(tmp_path, "switches: [s1, s2]\nlinks: [[s1, s2]]\n"), hosts=2)
    assert [host.name for host in fabric.hosts] == ["h0s1", "h1s1", "h0s2", "h1s2"] and len(fabric.links) == 5


def test_a_graph_of_networkx_is_read_again(tmp_path: Path) -> None:
    """Kinds and scales as attributes, parallel edges kept; nodes without proper names are numbered."""
    graph = nx.MultiGraph()
    graph.add_node("h1", kind="host")
    graph.add_edges_from([("h1", "s1"), ("s1", "s2"), ("s1", "s2")])
    graph.add_edge("s2", "s3", scale=2.5)
    file = tmp_path / "own.graphml"
    nx.write_graphml(graph, file)
    fabric = custom(file)
    assert ([host.name for host in fabric.hosts], sorted(fabric.switch_by_name)) == (["h1"], ["s1", "s2", "s3"])
    assert sorted(link.scale for link in fabric.links) == [1.0, 1.0, 1.0, 2.5]
    nx.write_graphml(nx.random_regular_graph(3, 8, seed=1), file)
    fabric = custom(file, hosts=1)
    assert [switch.name for switch in fabric.switches] == [f"s{number}" for number in range(8)] and len(fabric.links) == 12 + 8


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("hosts:", "host:", 1, "host: got an unknown key; accepted: hosts, switches, links, nvlink_ratio; did you mean hosts?"),
        ("[c, right]", "[d, right]", 6, "links.2: got 'd'; accepted: a host or a switch of this file; write e.g. [h1, s1], or"),
        ("[c, right]", "[c, rigth]", 6, "links.2: got 'rigth'; accepted: a host or a switch of this file; did you mean right?"),
        ("[c, right]", "[c]", 6, "links.2: got ['c']; accepted: two names, and a scale if it is not 1; write e.g. [h1, s1], or"),
        ("0.5", "0", 7, "links.3: got 0; accepted: a scale above 0; write e.g."),
        ("0.5", "fast", 7, "links.3: got 'fast'; accepted: a scale above 0; write e.g."),
        ("[a, left]", "[a, a]", 4, "links.0: got ['a', 'a']; accepted: two nodes; write e.g."),
        ("[a, b,", "[a, a,", 1, "hosts.1: got 'a'; accepted: a name that is used once; give each node its own"),
        ("[a, b,", "[a, b c,", 1, "hosts.1: got 'b c'; accepted: a text of letters and digits that begins with a letter; write e.g. name: h1"),
        ("[a, b,", "[a, 7,", 1, "hosts.1: got 7; accepted: a text of letters and digits"),
        ("name: c, ip", "name: c, IP", 1, "hosts.2.IP: got an unknown key; accepted: name, ip, server; remove it"),
        ("name: c, ip: 10.0.9.1", "ip: 10.0.9.1", 1, "hosts.2: got {ip: '10.0.9.1'}; accepted: a name, or a mapping with one; write e.g. {name: h1}"),
        ("switches: [left, {name: right, tier: spine}]", "switches: [left, {name: right, transit: 0}]", 2, "switches.1.transit: got 0; accepted: true, or false for a switch that passes on only what is its hosts'; remove it"),
        ("switches: [left, {name: right, tier: spine}]", "switches: 7", 2, "switches: got 7; accepted: a list of names; write e.g. switches: [s1, s2]"),
        (GOOD[GOOD.index("links") :], "", 1, "links: got nothing; accepted: a list of pairs of names; write e.g. links: [[h1, s1], [s1, s2, 2]]"),
        ("hosts:", "nvlink_ratio: often\nhosts:", 1, "nvlink_ratio: got 'often'; accepted: a number above 0 and at most 1000, or free; write e.g."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    """What was got, what is accepted, and what to do."""
    assert old in GOOD
    with pytest.raises(RequestError) as caught:
        custom(file := written(tmp_path, GOOD.replace(old, new, 1)))
    assert str(caught.value).startswith(f"{file}:{line}: {said}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("10.0.9.1", "192.168.0.1", "topology custom: host c has address 192.168.0.1; give it an IPv4 one of 10.0.0.0/8"),
        ("10.0.9.1", "10.0.0.1", "topology custom: address 10.0.0.1 is used twice; each address must be its own"),
        ("  - [c, right]\n", "", "topology custom: c cannot be reached from a; link every node"),
        ("  - [c, right]\n", "  - [c, right]\n  - [c, left]\n", "topology custom: host c has 2 links; give it one, as it has one address"),
        ("  - [left, right, 0.5]\n  - [left, right]\n", "", "topology custom: c, right cannot be reached from a; link every node"),
    ],
)  # fmt: skip
def test_what_is_no_fabric_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    """As of any topology."""
    with pytest.raises(RequestError) as caught:
        load_topology("custom", tmp_path, {"file": str(written(tmp_path, GOOD.replace(old, new, 1)))})
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not xml", "got no GraphML: syntax error: line 1, column 0; accepted: what networkx.write_graphml writes; mend the file"),
        ("<a/>", "got no GraphML: file not successfully read as graphml; accepted"),
        ('<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><key id="k" for="node" attr.name="kind" attr.type="string"/><graph edgedefault="undirected">'
         '<node id="a"><data key="k">router</data></node></graph></graphml>', "node a: got 'router'; accepted: the kind host or switch; leave it out for a switch"),
    ],
)  # fmt: skip
def test_a_graph_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    """By its file, and its node where there is one."""
    file = tmp_path / "own.graphml"
    file.write_text(text)
    with pytest.raises(RequestError) as caught:
        custom(file)
    assert str(caught.value).startswith(f"{file}: {said}")


def test_the_file_is_looked_up_from_the_experiment(tmp_path: Path) -> None:
    """Like plug-ins; one that is missing is told of where it was asked for."""
    written(tmp_path)
    text = "question: Why?\ntopology: {use: custom, file: ./FILE}\nlinks: {mbps: 10}\ncontroller: {use: ecmp}\n"
    text += "collective: {use: ring-allreduce, nbytes: 4KiB}\n"
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("FILE", "fab.yaml"))
    assert len(load_experiment(own).points[0].fabric.hosts) == 3
    for file, key, said in (("no.yaml", "file", "got no file "), ("own.yaml", "use", "own.yaml:1: question: got an unknown key")):
        own.write_text(text.replace("FILE", file))
        with pytest.raises(RequestError) as caught:
            load_experiment(own)
        assert str(caught.value).startswith(f"{own}:2: topology.{key}: ") and said in str(caught.value)
    own.write_text(text.replace("file: ./FILE", "file: 7"))
    with pytest.raises(RequestError, match=r"topology.file: got 7; accepted: a file's name; write e.g. file: ./my_fabric.yaml"):
        load_experiment(own)
