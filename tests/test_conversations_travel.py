"""Conversations go out to files and come back in: whole, once, and alive under their old ids."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.cli import main
from perdure.engine import ops
from tests.world import World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    """Another store, in which nothing is."""
    return f"sqlite:///{tmp_path / 'elsewhere.db'}"


def run(*arguments: str | Path) -> int:
    """Run the command in this process."""
    try:
        return main([str(one) for one in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


def carried(store: str, subject: str | None = None) -> list[ops.Listed]:
    """List what is in a store."""
    with closing(perdure.open_store(store)) as opened:
        return list(opened.perform(ops.Conversations("default", subject, 0, 99)))


def log(store: str, conversation: int) -> list[tuple[str | None, str, float]]:
    """Read a log as (role, what was sent or received, when)."""
    with closing(perdure.open_store(store)) as opened:
        items = opened.perform(
            ops.Excerpts(
                "default", conversation, 10**6, ((-99, 10**6),), 10**6, oldest=True, wire=""
            )
        )
    return [(item.role, item.wire, item.created_at) for item in items]


def thread_export(handle: str, count: int, **more: Any) -> dict[str, Any]:
    """What people's export scripts have made of a thread, newest message first."""
    said = [FACT, "I will remember Rex."] + [f"Message {n}" for n in range(2, count)]
    return {
        "format": "assistants-thread-export/v1",
        "thread": {"id": handle, "object": "thread", "metadata": {}},
        "messages": [
            {
                "id": f"msg_{n}",
                "object": "thread.message",
                "thread_id": handle,
                "created_at": 1_700_000_000 + n,
                "role": "assistant" if n % 2 else "user",
                "content": [{"type": "text", "text": {"value": text, "annotations": []}}],
                "attachments": [{"file_id": "file-1", "tools": []}] if n == 4 else [],
            }
            for n, text in reversed(list(enumerate(said)))
        ],
        **more,
    }


def test_an_export_comes_back_as_it_was_and_only_once(
    world: World, elsewhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = world.chat("conversations")
    chat.send("ann", FACT)
    chat.pin("ann", "Allergic to cats")
    chat.send("bob", "Bob was here.")
    source, folder = f"sqlite:///{world.database}", tmp_path / "out"

    assert 0 == run("export", "--store", source, "--to", folder)
    files = sorted(folder.iterdir())
    for _ in range(2):
        assert 0 == run(
            "import", "--store", elsewhere, "--upstream", world.provider.base_url, folder
        )

    assert 2 == len(files)
    assert "perdure-conversation/v1" == json.loads(files[0].read_text().splitlines()[0])["format"]
    before, after = carried(source), carried(elsewhere)
    assert [(one.subject, one.handle) for one in before] == [
        (one.subject, one.handle) for one in after
    ]
    for old, new in zip(before, after, strict=True):
        assert log(source, old.conversation) == log(elsewhere, new.conversation)
    told = capsys.readouterr().out
    assert "2 conversations: 4 items imported, 0 known before." in told
    assert "2 conversations: 0 items imported, 4 known before." in told


def test_an_imported_conversation_is_live_under_its_old_id(
    world: World, elsewhere: str, tmp_path: Path
) -> None:
    chat = world.chat("conversations")
    handle = chat.send("ann", FACT).response.conversation.id
    chat.pin("ann", "Allergic to cats")
    run("export", "--store", f"sqlite:///{world.database}", "--to", tmp_path / "out")
    run("import", "--store", elsewhere, "--upstream", world.provider.base_url, tmp_path / "out")
    world.forgets()

    app = world.app(store=perdure.open_store(elsewhere, clock=world.clock.now))
    answered = app.respond(QUESTION, conversation=handle)

    assert FACT in answered.output_text
    assert {"memory": "full", "reason": "known"}.items() <= (recovered(answered) or {}).items()


@pytest.mark.parametrize("via", ["threads", "conversations", "responses"])
def test_a_dead_thread_goes_on_under_its_old_id_on_any_dialect(
    world: World, elsewhere: str, tmp_path: Path, via: str
) -> None:
    handle = "thread_abcDEF123"
    file = tmp_path / "thread.json"
    file.write_text(json.dumps(thread_export(handle, 30)))
    run(
        "import", "--store", elsewhere, "--upstream", world.provider.base_url, file,
        "--subject", "ann",
    )  # fmt: skip

    store = perdure.open_store(elsewhere, clock=world.clock.now)
    app = world.app(store=store)
    if via == "threads":
        assistant = world.plain().call("beta.assistants.create", model="gpt-5.6")
        app.call("beta.threads.messages.create", thread_id=handle, role="user", content=QUESTION)
        done = app.call(
            "beta.threads.runs.create_and_poll", thread_id=handle, assistant_id=assistant.id
        )
        listed = app.call("beta.threads.messages.list", thread_id=handle, run_id=done.id)
        text = listed.data[0].content[0].text.value
    elif via == "conversations":
        text = app.respond(QUESTION, conversation=handle).output_text
    else:
        chat = perdure.Chat if world.colour == "sync" else perdure.AsyncChat
        text = world.wait(chat(app.sdk, model="gpt-5.6").send("ann", QUESTION)).text

    assert FACT in text
    (one,) = carried(elsewhere)
    times = [at for _, _, at in log(elsewhere, one.conversation)]
    assert [1_700_000_000.0, 1_700_000_001.0] == times[:2]


def test_what_could_not_be_carried_is_told(
    elsewhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "thread.json"
    file.write_text(json.dumps(thread_export("thread_1", 6, runs=[{"id": "run_1"}])))

    assert 0 == run("import", "--store", elsewhere, file)

    told = capsys.readouterr().out
    assert "thread_1: not carried: 1 messages' files themselves" in told
    assert "thread_1: not carried: 1 list of runs and their steps" in told


def test_an_import_that_was_broken_off_goes_on(
    elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "long.json"
    file.write_text(json.dumps(thread_export("thread_1", 1_000)))
    perform = perdure.stores.SQLiteStore.perform
    done: list[Any] = []

    def broken(self: Any, op: Any) -> Any:
        if isinstance(op, ops.BringIn):  # not what the thread does that writes the index
            done.append(op)
            if len(done) == 4:
                raise KeyboardInterrupt
        return perform(self, op)

    with monkeypatch.context() as patch:
        patch.setattr(perdure.stores.SQLiteStore, "perform", broken)
        assert 130 == run("import", "--store", elsewhere, file)
    (half,) = carried(elsewhere)
    assert 0 == run("import", "--store", elsewhere, file)

    assert 600 == half.last_position
    (whole,) = carried(elsewhere)
    said = [
        json.loads(wire)["content"][0]["text"]["value"]
        for _, wire, _ in log(elsewhere, whole.conversation)
    ]
    assert [FACT, "I will remember Rex.", *(f"Message {n}" for n in range(2, 1_000))] == said


def test_chat_completions_lists_become_items(elsewhere: str, tmp_path: Path) -> None:
    file = tmp_path / "completions.json"
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": FACT}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
        {"role": "assistant", "content": "Rex it is."},
        {"role": "ghost"},
    ]
    file.write_text(json.dumps(messages))

    assert 0 == run("import", "--store", elsewhere, "--subject", "ann", file)

    (one,) = carried(elsewhere, "ann")
    wires = [json.loads(wire) for _, wire, _ in log(elsewhere, one.conversation)]
    assert ["message", "message", "function_call", "function_call_output", "message"] == [
        wire["type"] for wire in wires
    ]
    assert ["call_1", "call_1"] == [wire["call_id"] for wire in wires[2:4]]


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """A database as openai-agents' SQLiteSession makes it."""
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE agent_sessions (session_id TEXT PRIMARY KEY, created_at TIMESTAMP);"
            "CREATE TABLE agent_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT,"
            " message_data TEXT, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);"
            "INSERT INTO agent_sessions VALUES ('user-7', '2026-01-01 00:00:00');"
        )
        for item in ({"role": "user", "content": FACT}, {"role": "assistant", "content": "Hi!"}):
            database.execute(
                "INSERT INTO agent_messages (session_id, message_data, created_at) "
                "VALUES ('user-7', ?, '2026-01-02 03:04:05')",
                (json.dumps(item),),
            )
        database.commit()
    return path


def test_sessions_of_openai_agents_become_conversations_of_their_users(
    world: World, elsewhere: str, sessions: Path
) -> None:
    assert 0 == run("import", "--store", elsewhere, "--upstream", world.provider.base_url, sessions)

    app = world.app(store=perdure.open_store(elsewhere, clock=world.clock.now))
    kind = perdure.Chat if world.colour == "sync" else perdure.AsyncChat
    reply = world.wait(kind(app.sdk, model="gpt-5.6").send("user-7", QUESTION))

    assert FACT in reply.text
    (one,) = carried(elsewhere, "user-7")
    assert 1767323045.0 == log(elsewhere, one.conversation)[0][2]


def test_a_file_that_is_none_of_these_is_refused_and_the_others_are_imported(
    elsewhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "broken.json": "{",
        "odd.json": '{"a": 1}',
        "cut.jsonl": '{"format": "perdure-conversation/v1", "handle": "conv_1"}\n',
        "short.jsonl": '{"format": "perdure-conversation/v1", "handle": "conv_2"}\n{"end": 3}\n',
        "other.db": "SQLite format 3\0",
    }
    for name, content in bad.items():
        (tmp_path / name).write_text(content)
    good = tmp_path / "good.json"
    good.write_text(json.dumps(thread_export("thread_1", 2)))

    assert 1 == run("import", "--store", elsewhere, *(tmp_path / name for name in bad), good)

    told = capsys.readouterr().out
    assert ["thread_1"] == [one.handle for one in carried(elsewhere)]
    assert all(name.partition(".")[0] in told for name in bad)
    assert "interrupted" in told


def test_two_people_of_one_name_are_kept_apart(
    elsewhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(thread_export(f"thread_{number}", 2)))
        assert 0 == run("import", "--store", elsewhere, "--subject", "ann", file)

    assert [("ann", "thread_1"), (None, "thread_2")] == [
        (one.subject, one.handle) for one in carried(elsewhere)
    ]
    assert "kept apart, under thread_2" in capsys.readouterr().out
