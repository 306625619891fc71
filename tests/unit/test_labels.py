"""Labels lead where their paths do, and every link between switches has a way round it that fits before the rest."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest

from fabric.errors import RequestError
from fabric.graph import Fabric, FabricBuilder, Port
from fabric.labels import LABEL_BYTES, Backup, backups, follow, label_of, mac_of_label, path_of_label
from fabric.paths import Path, PathSets
from topologies.dual_plane import dual_plane
from topologies.fat_tree import fat_tree


def switches_and_hosts(name: str, switches: int, links: list[tuple[int, int]], hosts: range) -> Fabric:
    """Switches s0, s1, ... with these links, and a host on each of some."""
    build = FabricBuilder(name)
    names = [build.switch(f"s{index}") for index in range(switches)]
    for a, b in links:
        build.link(names[a], names[b])
    for index in hosts:
        build.link(build.host(f"h{index}"), names[index])
    return build.fabric()


LEAF_SPINE = switches_and_hosts("leaf-spine", 7, [(leaf, spine) for leaf in range(4) for spine in (4, 5, 6)], range(4))
RING = switches_and_hosts("ring", 5, [(index, (index + 1) % 5) for index in range(5)], range(5))
PARALLEL = switches_and_hosts("parallel", 3, [(0, 1), (0, 1), (1, 2), (1, 2), (1, 2)], range(3))
LINE = switches_and_hosts("line", 3, [(0, 1), (1, 2)], range(3))
DUAL_PLANE = dual_plane(3, 2, 2)
FABRICS = {"fat-tree 4": fat_tree(4), "fat-tree 6": fat_tree(6), "leaf-spine": LEAF_SPINE, "ring": RING, "parallel": PARALLEL}


def paths_of(fabric: Fabric) -> Iterator[tuple[str, str, Path]]:
    """Every path between the first hosts of every two edges."""
    first = {fabric.peer[fabric.ports_of[host.name][0]].node: host.name for host in reversed(fabric.hosts)}
    paths = PathSets(fabric)
    for src, dst in permutations(first.values(), 2):
        yield from ((src, dst, path) for path in paths(src, dst))


@pytest.mark.parametrize("name", FABRICS)
def test_a_label_leads_from_edge_to_edge(name: str) -> None:
    """Followed from where the first port leads, it runs out at the switch of the destination."""
    fabric = FABRICS[name]
    for _, dst, path in paths_of(fabric):
        edge = fabric.peer[fabric.ports_of[dst][0]].node
        assert follow(fabric, fabric.peer[path[1]].node, label_of(path)) == edge


@pytest.mark.parametrize("name", FABRICS)
def test_a_path_comes_back_from_its_label(name: str) -> None:
    """Between every two edges, every path."""
    fabric = FABRICS[name]
    for src, dst, path in paths_of(fabric):
        assert path_of_label(fabric, src, dst, path[1].number, label_of(path)) == path


@pytest.mark.parametrize("name", FABRICS)
def test_labels_of_two_paths_differ(name: str) -> None:
    """First port and label together are the path: no two of a pair are alike."""
    fabric = FABRICS[name]
    marks = [(src, dst, path[1].number, label_of(path)) for src, dst, path in paths_of(fabric)]
    assert len(set(marks)) == len(marks)


@pytest.mark.parametrize(
    ("first", "label"), [(3, (3, 2)), (3, (3,)), (3, (3, 2, 9)), (9, (3, 2, 1)), (9, ()), (1, (1,)), (3, (3, 3, 2))],
    ids=["ends at an aggregation switch", "ends at a core", "no such port", "no such first port", "no such first port, no label",
         "goes on behind a host", "leads to another edge"],
)  # fmt: skip
def test_a_label_that_leads_elsewhere_is_no_path(first: int, label: tuple[int, ...]) -> None:
    """As one that was left by a controller of another fabric: None, whatever is wrong with it."""
    assert path_of_label(FABRICS["fat-tree 4"], "p0e0h0", "p1e0h0", first, label) is None


def test_hosts_of_one_edge_have_an_empty_label() -> None:
    """The edge delivers by address."""
    (path,) = PathSets(FABRICS["fat-tree 4"])("p0e0h0", "p0e0h1")
    assert label_of(path) == ()


def test_a_label_that_meets_no_switch_leads_nowhere() -> None:
    """A port that is not there, or a host's."""
    fabric = FABRICS["fat-tree 4"]
    assert follow(fabric, "p0e0", (9,)) is None and follow(fabric, "p0e0", (1,)) is None
    assert follow(fabric, "p0e0", ()) == "p0e0"


def test_a_path_longer_than_a_label_is_refused() -> None:
    """With what it would need, what fits, and what to do."""
    fabric = switches_and_hosts("line", 8, [(index, index + 1) for index in range(7)], range(8))
    paths = PathSets(fabric)
    assert len(label_of(paths("h0", "h6")[0])) == LABEL_BYTES
    with pytest.raises(RequestError) as error:
        label_of(paths("h0", "h7")[0])
    assert str(error.value) == (
        "path s0 - s1 - s2 - s3 - s4 - s5 - s6 - s7: got 8 switches with ports up to 2; accepted: at most 7 switches with ports "
        "up to 255, what a label can hold; use a flatter topology, or a controller without labels"
    )


@pytest.mark.parametrize(("number", "fits"), [(255, True), (256, False)])
def test_a_port_beyond_a_byte_is_refused(number: int, fits: bool) -> None:
    """255 is the last one that a byte holds; a host's port may be any."""
    path = (Port("h", 0), Port("a", 300), Port("b", number), Port("c", 300))
    if fits:
        assert label_of(path) == (255,)
    else:
        with pytest.raises(RequestError, match="ports up to 256"):
            label_of(path)


def test_a_label_is_a_hardware_address() -> None:
    """Its bytes in order, then zeros; the last byte is the mark's."""
    assert mac_of_label(()) == "00:00:00:00:00:00"
    assert mac_of_label((1, 2, 3, 4, 255)) == "01:02:03:04:ff:00"


# -- backups


@pytest.mark.parametrize("name", FABRICS)
def test_every_port_between_switches_has_backups(name: str) -> None:
    """By another port each, and never through the dead link's own switch again; they end at its far end, or the label's."""
    fabric = FABRICS[name]
    found = backups(fabric, (path for _, _, path in paths_of(fabric)))
    between = {port for port in fabric.peer if {port.node, fabric.peer[port].node} <= fabric.switch_by_name.keys()}
    assert found.keys() == between
    for port, ways in found.items():
        assert 1 <= len(ways) <= 2 and len({port, *(way.port for way in ways)}) == len(ways) + 1
        for way in ways:
            assert way.port.node == port.node
            if way.prepend:
                assert follow(fabric, fabric.peer[way.port].node, way.prepend) == fabric.peer[port].node


@pytest.mark.parametrize("name", FABRICS)
def test_a_backup_fits_before_any_label_that_meets_it(name: str) -> None:
    """Detour and rest together are no longer than a label."""
    fabric = FABRICS[name]
    rest: dict[Port, int] = {}
    for _, _, path in paths_of(fabric):
        for index, port in enumerate(path[1:-1], 1):
            rest[port] = max(rest.get(port, 0), len(path) - index - 2)
    for port, ways in backups(fabric, (path for _, _, path in paths_of(fabric))).items():
        assert all(len(way.prepend) + rest[port] <= LABEL_BYTES for way in ways)


def test_upward_in_a_fat_tree_another_port_will_do() -> None:
    """The label goes on as it is, over any other switch of the tier above; downward there is a detour."""
    fabric = FABRICS["fat-tree 6"]
    found = backups(fabric, (path for _, _, path in paths_of(fabric)))
    for port in fabric.uplinks():
        assert [way.prepend for way in found[port]] == [(), ()]
    for port, ways in found.items():
        if port not in set(fabric.uplinks()):
            assert all(way.prepend for way in ways)


def test_a_nic_sends_by_its_other_port_and_passes_on_nothing() -> None:
    """With the link to one plane dead the label serves in the other; no detour of a leaf or a spine leads through a NIC, so its last link has none."""
    found = backups(DUAL_PLANE, (path for _, _, path in paths_of(DUAL_PLANE)))
    tier = {switch.name: switch.tier for switch in DUAL_PLANE.switches}
    for port, ways in found.items():
        across = (tier[port.node], tier[DUAL_PLANE.peer[port].node])
        if across[0] == "nic":
            assert ways == (Backup(Port(port.node, 5 - port.number), ()),)
        elif across[1] == "nic":
            assert ways == ()
        else:
            assert ways and all("nic" not in tier[DUAL_PLANE.peer[way.port].node] for way in ways)
            for way in ways:
                visited = [follow(DUAL_PLANE, DUAL_PLANE.peer[way.port].node, way.prepend[:n]) for n in range(len(way.prepend))]
                assert not [name for name in visited if name is None or tier[name] == "nic"]


def test_a_parallel_link_is_a_backup_without_a_detour() -> None:
    """It leads to the same switch."""
    found = backups(PARALLEL, (path for _, _, path in paths_of(PARALLEL)))
    assert found[Port("s0", 1)] == (Backup(Port("s0", 2), ()),)


def test_a_link_with_no_way_round_it_has_no_backup() -> None:
    """A line falls apart wherever it is cut."""
    assert set(backups(LINE, (path for _, _, path in paths_of(LINE))).values()) == {()}


def test_neighbours_detour_by_different_ports() -> None:
    """The cores of a fat-tree spread over all pods what they send round, pod by pod."""
    fabric = FABRICS["fat-tree 6"]
    found = backups(fabric, (path for _, _, path in paths_of(fabric)))
    by = [found[Port("g0c0", pod)][0].port.number for pod in range(1, 7)]
    assert len(set(by)) == 6


def test_only_links_that_paths_use_get_backups() -> None:
    """What no label can meet needs none."""
    (path,) = PathSets(RING)("h0", "h1")
    assert set(backups(RING, [path])) == {Port("s0", 1)}
