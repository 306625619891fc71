"""A fabric of one's own from a file: hosts, switches and links in YAML, or a graph in GraphML, as the Internet Topology Zoo has.

    hosts: [a, b, {name: c, ip: 10.0.9.1}]     # {name: n0r1, server: n0} for the NICs of one server
    switches: [left, {name: right, tier: spine}]
    links:
      - [a, left]
      - [left, right, 2]                        # of twice a host's rate
    nvlink_ratio: 9                             # with servers: as of rail-optimized

In GraphML a node is a switch unless its `kind` says host; a link's `scale` is 1 unless it says otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder
from fabric.located import Document, KeyPath, Problem, meant, parse, raise_first, read, told

__all__ = ["custom"]

KEYS = ("hosts", "switches", "links", "nvlink_ratio")
OF_NODE = {"hosts": ("name", "ip", "server"), "switches": ("name", "tier", "transit")}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")  # so that interfaces, which are called NAME-ethN, can be told apart
RATIO = "a number above 0 and at most 1000, or free"


def custom(file: Path, hosts: int = 0) -> Fabric:
    """What `file` describes, YAML or `.graphml`, with as many `hosts` more on each of its switches (h0s1 is the first one's on s1).

    RequestError names the line of what is wrong; GraphML has no lines, and its nodes are named.
    """
    if not 0 <= hosts <= 250:
        raise RequestError(f"topology.hosts: got {hosts}; accepted: 0 to 250, on each switch; use fewer")
    if not file.is_file():
        raise RequestError(f"topology.file: got no file {file}; accepted: one of YAML or GraphML, looked up from the experiment's folder; check the path")
    build = FabricBuilder("custom", {"file": file.name, "hosts": hosts})
    switches = list(_from_graphml(file, build) if file.suffix == ".graphml" else _from_yaml(file, build))
    for switch in switches:
        for number in range(hosts):
            build.link(build.host(f"h{number}{switch}"), switch)
    return build.fabric()


def _from_yaml(file: Path, build: FabricBuilder) -> Iterator[str]:
    """Build what the file says, and give the names of its switches."""
    document = parse(read(file), str(file))
    raise_first(document, _wrong(document))
    ratio = document.get(("nvlink_ratio",))
    build.inside = None if ratio in (None, "free") else float(ratio)
    for entry in document.get(("switches",)):
        known = _node(entry)
        yield build.switch(known["name"], tier=known.get("tier", "switch"), transit=known.get("transit", True))
    for entry in document.get(("hosts",)) or []:
        known = _node(entry)
        build.host(known["name"], ip=known.get("ip"), server=known.get("server", ""))
    for a, b, *scale in document.get(("links",)):
        build.link(a, b, scale=float(scale[0]) if scale else 1.0)


def _node(entry: Any) -> dict[str, Any]:
    return entry if isinstance(entry, dict) else {"name": entry}


def _wrong(document: Document) -> Iterator[Problem]:
    for key in document.data:
        if key not in KEYS:
            yield Problem((key,), f"got an unknown key; accepted: {', '.join(KEYS)}; {meant(key, KEYS, 'remove it')}")
    names: set[str] = set()
    for key in OF_NODE:
        yield from _wrong_nodes(document, key, names)
    links = document.get(("links",))
    if not isinstance(links, list):
        yield Problem(("links",), told(links, "a list of pairs of names", "write e.g. links: [[h1, s1], [s1, s2, 2]]"), links is None)
        return
    for number, link in enumerate(links):
        yield from _wrong_link(("links", number), link, names)
    ratio = document.get(("nvlink_ratio",))
    if not (ratio in (None, "free") or (_is_number(ratio) and 0 < ratio <= 1000)):
        yield Problem(("nvlink_ratio",), told(ratio, RATIO, "write e.g. nvlink_ratio: 9"))


def _wrong_nodes(document: Document, key: str, names: set[str]) -> Iterator[Problem]:
    """What is wrong with the hosts or the switches; `names` gains theirs."""
    nodes = document.get((key,))
    if nodes is None and key == "hosts":
        return  # topology.hosts may ask for some
    if not isinstance(nodes, list) or not nodes:
        yield Problem((key,), told(nodes, "a list of names", f"write e.g. {key}: [{key[0]}1, {key[0]}2]"), nodes is None)
        return
    for number, entry in enumerate(nodes):
        known, path = _node(entry), (key, number)
        for word, value in known.items():
            if word not in OF_NODE[key]:
                accepted = ", ".join(OF_NODE[key])
                yield Problem((*path, word), f"got an unknown key; accepted: {accepted}; {meant(word, OF_NODE[key], 'remove it')}")
            elif word == "transit":
                if not isinstance(value, bool):
                    yield Problem((*path, word), told(value, "true, or false for a switch that passes on only what is its hosts'", "remove it"))
            elif not isinstance(value, str) or (word != "ip" and not NAME.fullmatch(value)):
                yield Problem(path, told(value, "a text of letters and digits that begins with a letter", f"write e.g. {word}: {key[0]}1"))
        if "name" not in known:
            yield Problem(path, told(entry, "a name, or a mapping with one", f"write e.g. {{name: {key[0]}1}}"))
        elif known["name"] in names:
            yield Problem(path, told(known["name"], "a name that is used once", "give each node its own"))
        names.add(str(known.get("name")))


def _wrong_link(path: KeyPath, link: Any, names: set[str]) -> Iterator[Problem]:
    example = "write e.g. [h1, s1], or [s1, s2, 2] for twice a host's rate"
    if not isinstance(link, list) or len(link) not in (2, 3):
        yield Problem(path, told(link, "two names, and a scale if it is not 1", example))
        return
    for end in link[:2]:
        if not isinstance(end, str) or end not in names:
            yield Problem(path, told(end, "a host or a switch of this file", meant(str(end), names, example)))
    if link[0] == link[1]:
        yield Problem(path, told(link, "two nodes", example))
    if len(link) == 3 and not (_is_number(link[2]) and 0 < link[2] < math.inf):
        yield Problem(path, told(link[2], "a scale above 0", example))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# -- GraphML


@dataclass(frozen=True, slots=True)
class _Graph:
    """A graph of networkx, and what to call its nodes: their ids, or s0, s1, ... in their order where those are no names."""

    file: Path
    graph: Any
    names: Mapping[Any, str]

    def refuse(self, where: str, got: Any, accepted: str, remedy: str) -> RequestError:
        return RequestError(f"{self.file}: {where}: {told(got, accepted, remedy)}")


def _from_graphml(file: Path, build: FabricBuilder) -> Iterator[str]:
    """Build what the graph says, and give the names of its switches."""
    found = _read_graphml(file)
    for node, name in found.names.items():
        kind = found.graph.nodes[node].get("kind", "switch")
        if kind == "host":
            build.host(name)
        elif kind == "switch":
            yield build.switch(name)
        else:
            raise found.refuse(f"node {node}", kind, "the kind host or switch", "leave it out for a switch")
    for a, b, scale in found.graph.edges(data="scale", default=1.0):
        if not (_is_number(scale) and 0 < scale < math.inf):
            raise found.refuse(f"edge {a} - {b}", scale, "a scale above 0", "declare it as a double in the file's keys")
        if a == b:
            raise found.refuse(f"node {a}", "an edge to itself", "edges between two nodes", "remove it")
        build.link(found.names[a], found.names[b], scale=float(scale))


def _read_graphml(file: Path) -> _Graph:
    read(file)  # whatever keeps one from reading it is said in our words
    try:
        graph = nx.read_graphml(file)
    except (nx.NetworkXError, ParseError, ValueError, KeyError) as err:
        raise RequestError(f"{file}: got no GraphML: {' '.join(str(err).split())}; accepted: what networkx.write_graphml writes; mend the file") from err
    proper = all(NAME.fullmatch(str(node)) for node in graph)
    return _Graph(file, graph, {node: str(node) if proper else f"s{number}" for number, node in enumerate(graph)})
