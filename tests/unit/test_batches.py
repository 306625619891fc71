"""What was sent and is not in force yet: nothing is forgotten, and a switch that is lost holds nothing up."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from fabric.batches import Batch, Batches, Questions
from fabric.openflow import Match, Output, Rule

RULE = Rule(Match(), (Output(1),))


class Wire:
    """Stands for a FabricApp: notes what is sent, and gives every request a number; `cut` switches get nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Rule]] = []
        self.asked: list[tuple[str, int]] = []
        self.cut: set[str] = set()
        self._numbers = count(100)

    def send(self, switch: str, *rules: Rule) -> None:
        """As FabricApp.send."""
        self.sent += [(switch, rule) for rule in rules]

    def ask(self, switch: str, _: Any) -> int | None:
        """As FabricApp.ask."""
        if switch in self.cut:
            return None
        self.asked.append((switch, next(self._numbers)))
        return self.asked[-1][1]


@pytest.fixture
def wire() -> Wire:
    """A fresh one."""
    return Wire()


def test_a_batch_is_in_force_when_the_last_switch_has_answered(wire: Wire) -> None:
    """Rules go first, then a barrier to each switch; only the last answer ends the batch."""
    batches, batch = Batches(wire.send, wire.ask), Batch(7, 1.0, 1.1)
    assert batches.go(batch, {"a": [RULE, RULE], "b": [RULE]}) == 2
    assert [switch for switch, _ in wire.sent] == ["a", "a", "b"]
    assert batch.switches == ("a", "b")
    (_, first), (_, second) = wire.asked
    assert batches.answered("b", second) is None
    assert batches.answered("a", 1) is None, "somebody else's barrier"
    assert batches.answered("a", first) is batch
    assert batches.answered("a", first) is None, "it is in force once"


def test_an_empty_batch_goes_nowhere(wire: Wire) -> None:
    """And nobody waits for it."""
    assert Batches(wire.send, wire.ask).go(Batch(1, 0.0, 0.0), {}) == 0


def test_a_lost_switch_holds_no_batch_up(wire: Wire) -> None:
    """What waited for it alone is told; what waits for others still waits."""
    batches, both, alone = Batches(wire.send, wire.ask), Batch(1, 0.0, 0.0), Batch(2, 0.0, 0.0)
    batches.go(both, {"a": [RULE], "b": [RULE]})
    batches.go(alone, {"a": [RULE]})
    assert batches.lost("a") == [alone]
    assert batches.answered("b", wire.asked[1][1]) is both


def test_a_switch_that_is_not_there_is_not_waited_for(wire: Wire) -> None:
    """It gets all its rules when it comes back."""
    wire.cut = {"a"}
    batch = Batch(1, 0.0, 0.0)
    assert Batches(wire.send, wire.ask).go(batch, {"a": [RULE]}) == 0
    assert batch.switches == ()


def test_one_question_at_a_time(wire: Wire) -> None:
    """Ten wishes while an answer is under way are one more question, asked when it has come in full."""
    questions = Questions(wire.ask, object)
    for _ in range(10):
        questions.put("a")
    assert len(wire.asked) == 1
    number = wire.asked[0][1]
    questions.answered("a", number + 1, more=False)
    questions.answered("a", number, more=True)
    assert len(wire.asked) == 1
    questions.answered("a", number, more=False)
    assert len(wire.asked) == 2
    questions.answered("a", wire.asked[1][1], more=False)
    assert len(wire.asked) == 2, "nobody wished for a third"


def test_a_lost_switch_can_be_asked_again(wire: Wire) -> None:
    """Its answer will not come."""
    questions = Questions(wire.ask, object)
    questions.put("a")
    questions.lost("a")
    questions.put("a")
    assert len(wire.asked) == 2
