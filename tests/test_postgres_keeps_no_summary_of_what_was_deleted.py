"""PostgreSQL: a branch that is summarised while what it summarises is deleted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

import perdure
from perdure.engine import ops
from perdure.testing.conformance.bench import Bench, Site
from tests.servers import postgres


@pytest.mark.parametrize("how", ["response", "item"])
def test_a_summary_that_is_written_just_now_goes_as_well(how: str) -> None:
    with (
        postgres().database() as url,
        closing(Bench(Site(lambda: perdure.open_store(url), lambda _: None))) as bench,
        closing(psycopg.connect(url)) as writer,
    ):
        first = bench.exchange("My PIN is 1234.", "Noted.", "resp_1")
        bench.exchange("Left.", "l", "resp_2", handle="resp_1")
        branch = bench.exchange("Right.", "r", "resp_3", handle="resp_1").conversation
        writer.execute(
            "SELECT perdure.keep_snapshot(p_tenant => %s, p_conversation => %s, p_through => 4, "
            "p_items => 4, p_text => 'PIN 1234', p_maker => 'm')",
            (bench.tenant, branch),
        )
        deletes: dict[str, Callable[[], object]] = {
            "response": lambda: bench.ask(ops.Retire(bench.tenant, bench.upstream, "resp_1")),
            "item": lambda: bench.removed(first.conversation, "resp_1-0"),
        }
        deleting = threading.Thread(target=deletes[how])
        deleting.start()
        deleting.join(0.3)  # it has to wait for the writer, or has not seen it
        writer.commit()
        deleting.join()

        assert None is bench.history(branch, 1, 4).snapshot
