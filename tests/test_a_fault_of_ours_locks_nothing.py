"""A fault that nobody foresaw ends the turn that it meets: its outcome is unknown, at once."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.engine import ops
from tests.world import World

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"


class Faulty:
    """A store whose completions fail in a way that no store should."""

    fast = True

    def __init__(self, store: Any) -> None:
        self._store = store
        self.broken = True

    def perform(self, op: Any) -> Any:
        """Perform an op, unless it completes a turn."""
        if self.broken and isinstance(op, ops.Complete):
            message = "unhashable"
            raise TypeError(message)
        return self._store.perform(op)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_fault_of_ours_does_not_lock_a_conversation(world: World, *, streamed: bool) -> None:
    store = Faulty(world.store())
    app = world.app(store=store)
    conversation = app.call("conversations.create").id

    with pytest.raises(Exception, match=r"unhashable|Connection error"):
        (app.stream if streamed else app.respond)(FACT, conversation=conversation)

    assert [("unknown", "unforeseen: TypeError")] == world.rows(
        "SELECT state, reason FROM perdure_turn"
    )
    store.broken = False
    began = world.clock.now()
    assert FACT in app.respond(QUESTION, conversation=conversation).output_text
    assert began == world.clock.now()
