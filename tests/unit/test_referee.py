"""What a policy may not do is not done, and the reason is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fabric.paths import PathSets
from fabric.policy import Action, FlowKey, FlowView, JobView, LinkView, Reroute, Reweight, Shift, View
from fabric.referee import referee
from topologies.fat_tree import fat_tree

FABRIC = fat_tree(4)
PATHS = PathSets(FABRIC)
KEY = FlowKey("10.0.0.2", 20000, "10.1.0.2", 5001)
FLOW = FlowView(KEY, "p0e0h0", "p1e0h0", None, 10.0)
OFFERED = PATHS("p0e0h0", "p1e0h0")
GROUP = ("p0e0", "p1e0")


def view(**changes: Any) -> View:
    """One active flow on a healthy fat-tree."""
    links = {port: LinkView(port, 10.0, 10.0) for port in FABRIC.peer}
    return replace(View(0.0, 1, 0.1, links, (FLOW,), PATHS, {GROUP: (1, 1, 1, 1)}, PATHS.between), **changes)


def test_what_is_in_order_is_done_in_order() -> None:
    """A move and new weights both pass."""
    actions: list[Action] = [Reroute(KEY, OFFERED[2], "why not"), Reweight(*GROUP, (3, 1, 0, 2), "why not")]
    assert referee(view(), actions) == (actions, [])


@pytest.mark.parametrize(
    ("seen", "action", "reason"),
    [
        (view(), Reroute(replace(KEY, src_port=7), OFFERED[0], ""), "no active flow"),
        (view(flows=(replace(FLOW, movable=False),)), Reroute(KEY, OFFERED[0], ""), "a moment ago"),
        (view(), Reroute(KEY, PATHS("p0e0h0", "p1e0h1")[0], ""), "not among those offered"),
        (view(), Reroute(KEY, OFFERED[0][:-1], ""), "not among those offered"),
        (view(), Reweight("p0e0", "p0e0", (1,), ""), "no such group"),
        (view(), Reweight(*GROUP, (1, 1, 1), ""), "accepted: 4 whole numbers"),
        (view(), Reweight(*GROUP, (1, 1, 1, -1), ""), "accepted: 4 whole numbers"),
        (view(), Reweight(*GROUP, (0, 0, 0, 0), ""), "not all 0"),
        (view(), Shift("job.0", 100.0, ""), "no job has announced itself so"),
        (view(jobs=(JobView("job.0", (), ()),)), Shift("job.0", 0.0, ""), "accepted: above 0"),
        (view(jobs=(JobView("job.0", (), ()),)), Shift("job.0", float("nan"), ""), "accepted: above 0"),
    ],
)
def test_what_is_not_is_held_with_the_reason(seen: View, action: Action, reason: str) -> None:
    """Nothing of it is done."""
    allowed, held = referee(seen, [action])
    assert allowed == []
    assert len(held) == 1 and held[0][0] is action and reason in held[0][1]


def test_a_flow_moves_once_in_a_tick() -> None:
    """The first answer counts."""
    first, second = Reroute(KEY, OFFERED[0], ""), Reroute(KEY, OFFERED[1], "")
    allowed, held = referee(view(), [first, second])
    assert allowed == [first]
    assert held == [(second, "it was moved already in this tick")]


def test_a_path_too_long_for_a_label_is_held() -> None:
    """A label holds five ports: eight switches are too many."""
    long = tuple(OFFERED[0][1] for _ in range(9))
    allowed, held = referee(view(paths=lambda _src, _dst: (long,)), [Reroute(KEY, long, "")])
    assert allowed == []
    assert "accepted: at most 7 switches" in held[0][1]
