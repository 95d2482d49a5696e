"""Talkers that are killed, on a database that crashes, lose nothing that they were answered."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from difflib import ndiff
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from perdure.dialects.items import text_of
from perdure.stores.postgres.schema import script
from perdure.testing.provider.text import count_items
from tests.programs import program
from tests.servers import Postgres, postgres
from tests.talker import FASTER, Said, kind_of, read, turn_id
from tests.transcripts import spoken
from tests.worker import MODEL, TURNS, Control, message

KILLS = 200
CRASHES = 20
LOSSES = 50  # fewer would mean that nothing was put to the test
BETWEEN_CRASHES_SECONDS = (1.0, 2.6)
AWAY_SECONDS = (0.0, 0.6)
BETWEEN_LOSSES_SECONDS = 0.05
# A commit that was told of is in the kernel's hands, and so outlives the server's processes.
DURABLE = {"synchronous_commit": "on"}
FAST_CLOCK = """
CREATE OR REPLACE FUNCTION perdure.perdure_now() RETURNS double precision
LANGUAGE sql AS 'SELECT extract(epoch FROM clock_timestamp())::float8 * {FASTER}'
"""


class Journal:
    """The database as it stands after all of it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.turns: dict[str, tuple[int, str, bytes | None]] = {
            name: (conversation, state, body)
            for name, conversation, state, body in self.rows(
                "SELECT turn_id, conversation, state, answer_body FROM perdure.turn"
            )
        }
        self.items = self.rows(
            "SELECT i.conversation, turn_seq, position, i.role, i.wire, "
            "CASE t.kind WHEN 'respond' THEN t.input_tokens END "
            "FROM perdure.item i LEFT JOIN perdure.turn t "
            "ON (t.tenant, t.conversation, t.seq) = (i.tenant, i.conversation, i.turn_seq) "
            "WHERE NOT i.withdrawn AND i.kind <> '' ORDER BY i.conversation, i.position"
        )
        self.said: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for conversation, _, _, role, wire, _ in self.items:
            self.said[conversation].append((role, text_of(json.loads(wire))))

    def rows(self, query: str) -> list[Any]:
        return self._connection.execute(query.encode()).fetchall()


def problems(journal: Journal, said: list[Said]) -> Iterator[str]:
    """What somebody was answered and is not so."""
    answered = [one for one in said if one.turn >= 0]
    for one in answered:
        if problem := lost(journal, one):
            yield f"{problem}: {one}"
    talks: defaultdict[int, list[Said]] = defaultdict(list)
    for one in answered:
        talks[one.conversation].append(one)
    for conversation, told in talks.items():
        if [one.turn for one in told] != list(range(TURNS)):
            yield f"not all of it was said, once: {told}"
        expected = [
            line
            for one in told
            for line in (
                ("user", message(conversation, one.turn)[0]),
                ("assistant", one.reply),
            )
        ]
        names = {name for one in told for name in names_of(one)}
        places = {journal.turns[name][0] for name in names}
        if len(places) != 1:
            yield f"it stands in several places: {conversation} {places}"
        elif expected != (stands := journal.said[places.pop()]):
            yield "\n".join(
                [
                    "not what stands in the log:",
                    *ndiff(list(map(str, expected)), list(map(str, stands))),
                ]
            )


def lost(journal: Journal, said: Said) -> str | None:
    """What is not as a caller was told."""
    for name in names_of(said):
        if name not in journal.turns:
            return f"{name} was answered and is lost"
        _, state, body = journal.turns[name]
        if state != "answered" or body is None:
            return f"{name} was answered and is {state}"
    if said.answer != json.loads(body or b"{}")["id"]:
        return f"it has another answer, {body!r}"
    return None


def names_of(said: Said) -> list[str]:
    """The turns of what was said, the one that answers it last."""
    name = turn_id(said.conversation, said.turn)
    runs = [f"{name}.r{number}" for number in range(1, said.runs + 1)]
    return [f"{name}.m", *runs] if kind_of(said.conversation) == "thread" else [name]


def crash_and_vanish(
    server: Postgres, url: str, control: Control, talkers: subprocess.Popen[str], seed: int
) -> tuple[int, int]:
    """Let the database crash and replicas vanish; how often."""
    chance = random.Random(seed)
    crashes = losses = 0
    while crashes < CRASHES and talkers.poll() is None:
        until = time.monotonic() + chance.uniform(*BETWEEN_CRASHES_SECONDS)
        with psycopg.connect(url, autocommit=True) as connection:
            while time.monotonic() < until:
                time.sleep(BETWEEN_LOSSES_SECONDS)
                live = connection.execute(
                    "SELECT replica_handle FROM perdure.conversation WHERE replica_state = 'live' "
                    "AND dialect <> 'responses' ORDER BY conversation DESC LIMIT 20"
                ).fetchall()
                if live:
                    losses += control.forgets(chance.choice(live)[0])
        server.crash(away_seconds=chance.uniform(*AWAY_SECONDS))
        crashes += 1
    return crashes, losses


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_talkers_were_answered_is_so(tmp_path: Path) -> None:
    seed = int(os.environ.get("PERDURE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"PERDURE_SEED={seed}")  # noqa: T201
    server, began = postgres(**DURABLE), time.monotonic()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        server.empty_database() as url,
        program("worker", "provider", **pipes) as provider,
    ):
        assert provider.stdout is not None
        base_url = provider.stdout.readline().strip()
        server.run(
            script(), FAST_CLOCK.format(FASTER=FASTER), database=url.split("/")[3].split("?")[0]
        )
        with openai.OpenAI(api_key="sk-test", base_url=base_url) as sdk:
            assistant = sdk.beta.assistants.create(model=MODEL).id
        where = (url, base_url, assistant, str(seed), str(KILLS))
        with (
            closing(Control(base_url)) as control,
            (tmp_path / "told.json").open("w+") as out,
            program("talker", *where, stdin=subprocess.PIPE, stdout=out) as talkers,
        ):
            crashes, losses = crash_and_vanish(server, url, control, talkers, seed)
            talkers.communicate(timeout=100)
            out.seek(0)
            told = json.load(out)
            said = read(told["lines"])
            print(  # noqa: T201
                f"{told['kills']} kills, {crashes} crashes, {losses} losses, "
                f"{len(said)} answers, repeated: {repeated(told['lines'])}, "
                f"{time.monotonic() - began:.1f} s"
            )
            assert [] == told["failures"]
            assert (0, True, True) == (
                talkers.returncode,
                told["kills"] >= KILLS,
                crashes >= CRASHES,
            )
            assert losses >= LOSSES
            with psycopg.connect(url) as connection:
                journal = Journal(connection)
                assert [] == list(problems(journal, said))[:5]
                check_the_whole(journal, control, said)


def repeated(lines: list[str]) -> dict[str, int]:
    """How often a talker had to ask again, and why."""
    return Counter(line.partition(" ")[2] for line in lines if line.startswith("again"))


def check_the_whole(journal: Journal, control: Control, said: list[Said]) -> None:
    """What must hold for all turns and replicas, told of or not."""
    assert [] == left_open(journal, said)
    turns = [turn for turn in spoken(journal.items) if turn.tokens is not None]
    assert [] == [turn for turn in turns if turn.tokens != count_items(turn.context)][:3]
    assert [] == journal.rows(
        "SELECT conversation FROM perdure.handle WHERE kind IN ('conversation', 'thread') "
        "AND state = 'live' GROUP BY conversation HAVING count(*) > 1"
    )
    assert [] == journal.rows(
        "SELECT c.conversation, generation, count(*) FROM perdure.conversation c "
        "JOIN perdure.handle h USING (tenant, conversation) WHERE dialect <> 'responses' "
        "AND kind IN ('conversation', 'thread') GROUP BY 1, 2 HAVING count(*) <> generation + 1"
    )
    known = journal.rows(
        "SELECT handle FROM perdure.handle WHERE kind IN ('conversation', 'thread') "
        "UNION SELECT handle FROM perdure.orphan "
        "WHERE handle IS NOT NULL AND dialect <> 'responses'"
    )
    ((intents,),) = journal.rows("SELECT count(*) FROM perdure.orphan WHERE handle IS NULL")
    assert 0 <= created(control) - len(known) <= intents


def left_open(journal: Journal, said: list[Said]) -> list[str]:
    """The turns without an answer, but for runs that nobody asks about any more.

    Who began such a one was killed. Whoever came after looked for the reply of the run before it,
    and found that of this one.
    """
    runs = {turn_id(one.conversation, one.turn): one.runs for one in said}
    open_ones = [name for name, (_, state, _) in journal.turns.items() if state != "answered"]
    return [name for name in open_ones if not _is_of_nobody(name, runs)]


def _is_of_nobody(name: str, runs: dict[str, int]) -> bool:
    turn, _, number = name.rpartition(".r")
    return turn in runs and int(number) > runs[turn]


def created(control: Control) -> int:
    """How many conversations and threads there have been at the provider."""
    requests = control.ask("GET", "/_provider/requests")[1]["requests"]
    return sum(
        (one["method"], one["status"]) in {("POST", 200), ("POST", None)}
        and one["path"] in {"/v1/conversations", "/v1/threads"}
        for one in requests
    )
