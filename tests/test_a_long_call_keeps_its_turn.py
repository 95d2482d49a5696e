"""A model call may take longer than a lease: who is at it puts the end of the lease off."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest

from perdure.engine.ops import Renew, Underway
from perdure.model import TurnKey
from perdure.transport import renewal
from tests.test_an_answer_outlives_its_store import Refusing
from tests.world import LONG, World

DOG = "My dog is called Rex."


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals come every few milliseconds, so that a test need not wait for one."""
    monkeypatch.setattr(renewal, "_EVERY_SECONDS", 0.005)


def leases(world: World) -> list[float]:
    """For how many more seconds each turn is leased."""
    now = world.clock.now()
    return [until - now for (until,) in world.rows(
        "SELECT lease_until FROM perdure_turn WHERE lease_until IS NOT NULL")]  # fmt: skip


def renewed(world: World, least: float) -> bool:
    """Wait until a lease reaches that far; False if it does not come to that."""
    for _ in range(400):
        if world.colour == "async":
            world.wait(_turn_of_the_loop())
        else:
            _pause()
        if any(left >= least for left in leases(world)):
            return True
    return False


async def _turn_of_the_loop() -> None:
    await asyncio.sleep(0.005)


def _pause() -> None:
    time.sleep(0.005)


def test_a_stream_that_goes_on_keeps_its_lease(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    stream: Any = app.call(
        "responses.create", model="gpt-5.6", input=DOG, conversation=conversation, stream=True
    )
    assert all(left < LONG.total_seconds() for left in leases(world)), "it is over by then"

    world.clock.advance(LONG)
    assert renewed(world, renewal.LEASE_SECONDS - 1)

    world.wait(stream.close())
    assert [] == leases(world)


@pytest.mark.slow
def test_a_stream_that_was_dropped_lets_its_lease_run_out(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    stream: Any = app.call(
        "responses.create", model="gpt-5.6", input=DOG, conversation=conversation, stream=True
    )
    assert renewed(world, renewal.LEASE_SECONDS - 1)

    del stream
    gc.collect()
    world.clock.advance(LONG)

    assert not renewed(world, 0)


def test_a_run_that_could_not_be_noted_keeps_its_lease(world: World) -> None:
    """Nobody but its stream knows its id: another worker would begin a second one."""
    store = Refusing(world.store())
    app = world.app(store=store)
    thread, assistant = app.thread()
    store.refused, store.recovers = {Underway}, True
    stream: Any = app.call(
        "beta.threads.runs.create", thread_id=thread, assistant_id=assistant, stream=True
    )
    world.wait(one_event(stream))

    world.clock.advance(LONG)
    assert renewed(world, renewal.LEASE_SECONDS - 1)

    world.wait(stream.close())


def one_event(stream: Any) -> Any:
    """Read one event; the sync SDK gives it at once."""
    return stream.__anext__() if hasattr(stream, "__anext__") else next(stream)


def test_a_turn_that_has_ended_is_not_renewed(world: World) -> None:
    transport = world.transport()
    app = world.app_on(transport)

    app.respond(DOG)

    assert transport.renewal.due() is None


def test_a_renewal_for_an_older_epoch_changes_nothing(sync_world: World) -> None:
    world = sync_world
    app = world.app()
    conversation = app.call("conversations.create").id
    stream = app.call(
        "responses.create", model="gpt-5.6", input=DOG, conversation=conversation, stream=True
    )
    world.store().perform(Renew("default", (TurnKey(1, 1, 0, "1.1"),), 5000.0))

    assert all(left < 1000 for left in leases(world))
    stream.close()
