"""The pure parts: splicing bodies, splitting streams, items that a provider takes back."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.dialects import items as forms
from perdure.dialects.body import object_in, read_body, with_members
from perdure.dialects.replay import response_events
from perdure.dialects.routes import route
from perdure.dialects.sse import Parser, encode
from perdure.dialects.streams import ResponseReader
from perdure.dialects.verdicts import fault_in, fault_of, judge, rules
from perdure.errors import BadInput
from perdure.model import StoredItem
from perdure.testing.provider import State, errors, items, schema

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_OBJECTS = st.dictionaries(st.text(max_size=8), _JSON, max_size=6)
_LAYOUTS = st.sampled_from(
    [{}, {"indent": 2}, {"separators": (",", ":")}, {"indent": "\t", "ensure_ascii": False}]
)


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[1]", b"\xff", b""])
def test_an_answer_that_is_no_object_says_nothing(body: bytes) -> None:
    assert {} == object_in(body)
    assert {"said": 1} == object_in(b'{"said": 1}')


@given(_OBJECTS, _LAYOUTS, st.data())
def test_a_change_touches_only_what_it_names(
    value: dict[str, Any], layout: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(value, **layout)
    keys = data.draw(st.sets(st.sampled_from([*value, "added", "absent"]), max_size=4))
    changes = {key: data.draw(st.none() | _JSON.map(json.dumps), label=key) for key in sorted(keys)}

    changed = read_body(text.encode()).changed(changes)

    expected = {key: inner for key, inner in value.items() if key not in changes} | {
        key: json.loads(new) for key, new in changes.items() if new is not None
    }
    assert expected == json.loads(changed)
    untouched = read_body(text.encode())
    for key in value.keys() - changes.keys():
        assert untouched.raw(key) == read_body(changed).raw(key)


@given(_OBJECTS, _LAYOUTS)
def test_each_member_keeps_its_own_text(value: dict[str, Any], layout: dict[str, Any]) -> None:
    body = read_body(json.dumps(value, **layout).encode())

    assert value == body.members
    assert value == {key: json.loads(body.raw(key)) for key in value}


@given(st.binary(max_size=60))
def test_no_body_breaks_the_reader(content: bytes) -> None:
    try:
        body = read_body(content)
    except BadInput:
        return
    assert json.loads(content) == body.members


def test_members_are_added_to_any_object() -> None:
    assert '{"a":1}' == with_members("{}", '"a":1')
    assert '{"b":2,"a":1}' == with_members('{"b":2}', '"a":1')
    assert {"b": 2, "a": 1} == json.loads(with_members('{\n "b": 2\n}\n', '"a":1'))


@given(
    st.lists(st.tuples(st.sampled_from(["a", "response.created"]), _OBJECTS), max_size=6),
    st.integers(1, 40),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_stream_is_split_the_same_however_it_arrives(
    events: list[tuple[str, dict[str, Any]]], step: int, ending: str
) -> None:
    content = b"".join(encode(name, json.dumps(value)) for name, value in events)
    content = content.replace(b"\n", ending.encode())
    parser = Parser()

    read = [
        event
        for at in range(0, len(content), step)
        for event in parser.feed(content[at : at + step])
    ]

    assert [(name, value) for name, value in events] == [
        (event.name, event.json()) for event in read
    ]
    assert content == b"".join(event.raw for event in read) + parser.rest


def test_an_event_keeps_its_other_fields_when_its_data_changes() -> None:
    (event,) = Parser().feed(b": note\nid: 7\nevent: a\ndata: {}\n\n")

    assert b': note\nid: 7\nevent: a\ndata: {"b":1}\n\n' == event.replaced('{"b":1}')


def test_recorded_streams_are_read_to_their_end(repo: Path) -> None:
    found = sorted((repo / "tests/provider/data/openai").rglob("*response.txt"))
    assert found
    for path in found:
        reader, parser = ResponseReader(), Parser()
        for event in parser.feed(path.read_bytes()):
            reader.observe(event)
        assert reader.terminal
        assert b"" == parser.rest
        assert reader.response["output"] == reader.items
        replayed = ResponseReader()
        for event in Parser().feed(response_events(json.dumps(reader.response).encode())):
            replayed.observe(event)
        assert reader.response == replayed.response


_TEXT = st.text(min_size=1, max_size=12)
_CALL_IDS = st.sampled_from(["call_a", "call_b", "call_c"])
_ITEMS = st.one_of(
    st.builds(lambda t: {"role": "user", "content": t}, _TEXT),
    st.builds(
        lambda t: {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "phase": "final_answer",
            "content": [{"type": "output_text", "text": t, "annotations": [], "logprobs": []}],
        },
        _TEXT,
    ),
    st.builds(
        lambda t: {
            "id": "msg_2",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": t}, {"type": "output_text", "text": t}],
        },
        _TEXT,
    ),
    st.builds(
        lambda c: {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": c,
            "name": "get_weather",
            "arguments": "{}",
        },
        _CALL_IDS,
    ),
    st.builds(
        lambda c, t: {"type": "function_call_output", "call_id": c, "output": t}, _CALL_IDS, _TEXT
    ),
    st.just({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}),
    st.just({"id": "ws_1", "type": "web_search_call", "status": "completed"}),
    st.just({"type": "item_reference", "id": "msg_9"}),
    st.builds(
        lambda t: {
            "role": "user",
            "content": [
                {"type": "input_text", "text": t},
                {"type": "input_image", "image_url": "https://example.com/a.png", "file_id": None},
            ],
        },
        _TEXT,
    ),
)


def stored(wires: list[dict[str, Any]]) -> list[StoredItem]:
    return [
        StoredItem(
            position=position,
            kind=item.kind,
            role=item.role,
            call_id=item.call_id,
            provider_id=item.provider_id,
            wire=item.wire,
            input=item.wire if item.input is None else item.input,
            created_at=0.0,
        )
        for position, item in enumerate(forms.new_items(wires), start=1)
    ]


@given(st.lists(_ITEMS, max_size=14))
def test_no_journalled_history_yields_an_invalid_prime(wires: list[dict[str, Any]]) -> None:
    """The embedded provider enforces the rules with the real error texts; it must take this."""
    kept = [json.loads(item.input) for item in forms.replayable(stored(wires))]

    answer = provider_takes([*kept, {"role": "user", "content": "Hello."}])

    assert answer is None
    messages = sum(wire.get("type", "message") == "message" for wire in wires)
    assert messages == sum(item["type"] == "message" for item in kept)


@given(st.lists(_ITEMS, max_size=10), st.sets(_CALL_IDS))
def test_calls_that_the_caller_answers_now_are_kept(
    wires: list[dict[str, Any]], answered: set[str]
) -> None:
    now = [
        {"type": "function_call_output", "call_id": call_id, "output": "done"}
        for call_id in sorted(answered)
    ]
    chosen = forms.replayable(stored(wires), now)
    calls = Counter(item.call_id for item in chosen if item.kind == "function_call")
    calls.subtract(item.call_id for item in chosen if item.kind == "function_call_output")
    sent = [item for item in now if calls[item["call_id"]]]

    assert provider_takes([*(json.loads(item.input) for item in chosen), *sent]) is None


def provider_takes(sent: list[dict[str, Any]]) -> str | None:
    """The embedded provider's objection to a list of input items, or None."""
    state = State()
    try:
        checked = schema.check_items(sent, "input", errors.INPUT_ID_PREFIX)
        items.check_calls(items.resolve(state, "project", checked, [], store=True))
    except errors.ApiError as error:
        return str(error.__dict__)
    return None


def test_recorded_errors_meet_their_rules() -> None:
    gone = b'{"error": {"message": "Conversation with id \'conv_1\' not found.", "code": null}}'
    assert "gone" == judge(fault_of(404, gone), "conversations", "conv_1").verdict
    assert "unrecognised" == judge(fault_of(404, gone), "conversations", "conv_2").verdict
    assert len(rules()) == len({rule.name for rule in rules()})


@pytest.mark.parametrize(
    ("value", "message", "code"),
    [
        ({"error": {"message": "a", "code": 5}}, "a", "5"),
        ({"error": "a"}, "a", None),
        ({"detail": "a"}, "a", None),
        ({"message": "a", "code": "b"}, "a", "b"),
        ({"detail": [{"msg": "a"}]}, '[{"msg": "a"}]', None),
        ("a", "a", None),
    ],
)
def test_an_error_has_many_shapes(value: Any, message: str, code: str | None) -> None:
    fault = fault_in(404, value)

    assert (message, code) == (fault.message, fault.code)


def test_a_body_that_is_no_json_is_its_own_message() -> None:
    assert "not found" == fault_of(404, b"not found").message


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/responses", ("responses", "respond", "/v1", None)),
        ("POST", "/openai/v1/responses", ("responses", "respond", "/openai/v1", None)),
        ("GET", "/v1/responses/resp_1", ("responses", "read", "/v1", "resp_1")),
        ("POST", "/v1/conversations/conv_1/items", ("conversations", "append", "/v1", "conv_1")),
        ("POST", "/v1/threads/runs", ("threads", "create_run", "/v1", None)),
        ("POST", "/openai/threads/thread_1/runs", ("threads", "run", "/openai", "thread_1")),
        ("POST", "/responses", ("responses", "respond", "", None)),
    ],
)
def test_routes(method: str, path: str, expected: tuple[str | None, ...]) -> None:
    found = route(method, path)

    assert found is not None
    assert expected == (found.dialect, found.action, found.base, found.handle)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/responses"),
        ("GET", "/v1/assistants/asst_1"),
        ("POST", "/v1/embeddings"),
    ],
)
def test_what_carries_no_conversation_is_not_ours(method: str, path: str) -> None:
    assert route(method, path) is None
