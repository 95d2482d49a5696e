"""Every recorded request is answered as the live API answered it."""

from typing import Any

import httpx2
import pytest

from perdure.testing import Provider
from tests.provider.recorded import (
    DATA,
    collapsed,
    events_of,
    load,
    load_events,
    settled,
    spoken,
)

PLAIN = ["basic", "image_input", "json_output", "metadata", "reasoning", "refusal", "tool_call"]
STREAMED = [
    "image_input_streaming",
    "json_output_streaming",
    "reasoning_streaming",
    "refusal_streaming",
    "streaming",
]
NOT_ASKED = {"model": "gpt-4o-mini", "input": "Tell me a story.", "stream": True}


def ask(http: httpx2.Client, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    answer = http.request(method, path, json=body)
    assert status == answer.status_code, answer.text
    assert "application/json" == answer.headers["content-type"]
    return answer.json()


def new_conversation(http: httpx2.Client, folder: str = "basic") -> str:
    body = load(f"Conversations/{folder}/create_conversation_request.json")
    return str(ask(http, "POST", "/conversations", body)["id"])


def replay(
    http: httpx2.Client, provider: Provider, request: dict[str, Any], expected: dict[str, Any]
) -> dict[str, Any]:
    provider.script(spoken(expected["output"]))
    actual: dict[str, Any] = ask(http, "POST", "/responses", request)
    assert settled(expected) == settled(actual)
    assert list(expected) == list(actual)
    return actual


def replay_stream(
    http: httpx2.Client, provider: Provider, request: dict[str, Any], path: str
) -> None:
    expected = load_events(path)
    provider.script(spoken(expected[-1][1]["response"]["output"]))
    answer = http.post("/responses", json=request)
    assert (200, "text/event-stream; charset=utf-8") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    assert collapsed(expected) == collapsed(events_of(answer.text))


@pytest.mark.parametrize("folder", PLAIN)
def test_response(http: httpx2.Client, provider: Provider, folder: str) -> None:
    request = load(f"Responses/{folder}/request.json")
    replay(http, provider, request, load(f"Responses/{folder}/response.json"))


@pytest.mark.parametrize("folder", STREAMED)
def test_streamed_response(http: httpx2.Client, provider: Provider, folder: str) -> None:
    request = load(f"Responses/{folder}/request.json")
    replay_stream(http, provider, request, f"Responses/{folder}/response.txt")


def test_continued_response(http: httpx2.Client, provider: Provider) -> None:
    first = ask(http, "POST", "/responses", load("Responses/basic/request.json"))
    request = load("Responses/conversation/request.json")
    request["previous_response_id"] = first["id"]
    replay(http, provider, request, load("Responses/conversation/response.json"))


def test_two_handles_at_once(http: httpx2.Client) -> None:
    request = load("Responses/mutual_exclusive_error/request.json")
    actual = ask(http, "POST", "/responses", request, status=400)
    assert load("Responses/mutual_exclusive_error/response.json") == actual


@pytest.mark.parametrize("folder", ["basic", "image_input"])
def test_conversation_is_created(http: httpx2.Client, folder: str) -> None:
    request = load(f"Conversations/{folder}/create_conversation_request.json")
    expected = load(f"Conversations/{folder}/create_conversation_response.json")
    assert settled(expected) == settled(ask(http, "POST", "/conversations", request))


@pytest.mark.parametrize(
    "folder", ["image_input_streaming", "tool_call"], ids=["image_input_streaming", "tool_call"]
)
def test_conversation_is_created_without_a_recorded_answer(
    http: httpx2.Client, folder: str
) -> None:
    request = load(f"Conversations/{folder}/create_conversation_request.json")
    answer = ask(http, "POST", "/conversations", request)
    assert {"id": "conv_*", "object": "conversation", "created_at": 0, **request} == settled(answer)


def test_refusal_conversation_is_created(http: httpx2.Client) -> None:
    expected = load("Conversations/refusal/create_conversation_response.json")
    actual = ask(http, "POST", "/conversations", {"metadata": expected["metadata"]})
    assert settled(expected) == settled(actual)


def test_conversation_is_created_with_items(http: httpx2.Client) -> None:
    request = load("Conversations/create_with_items/create_request.json")
    expected = load("Conversations/create_with_items/create_response.json")
    assert settled(expected) == settled(ask(http, "POST", "/conversations", request))


def test_two_turns_and_their_items(http: httpx2.Client, provider: Provider) -> None:
    handle = new_conversation(http)
    for turn in ("first", "first", "second"):
        request = load(f"Conversations/basic/{turn}_message_request.json")
        expected = load(f"Conversations/basic/{turn}_message_response.json")
        replay(http, provider, request | {"conversation": handle}, expected)
    listed = ask(http, "GET", f"/conversations/{handle}/items?order=asc")
    assert settled(load("Conversations/list_items/response.json")) == settled(listed)
    item = ask(http, "GET", f"/conversations/{handle}/items/{listed['data'][1]['id']}")
    assert settled(load("Conversations/retrieve_item/response.json")) == settled(item)


@pytest.mark.parametrize("folder", ["image_input", "refusal", "tool_call"])
def test_turn_in_a_conversation(http: httpx2.Client, provider: Provider, folder: str) -> None:
    request = load(f"Conversations/{folder}/first_message_request.json")
    request["conversation"] = new_conversation(http)
    expected = load(f"Conversations/{folder}/first_message_response.json")
    replay(http, provider, request, expected)


@pytest.mark.parametrize(
    "folder", ["basic_streaming", "image_input_streaming", "refusal_streaming"]
)
def test_streamed_turn_in_a_conversation(
    http: httpx2.Client, provider: Provider, folder: str
) -> None:
    path = f"Conversations/{folder}/first_message_request.json"
    request = load(path) if (DATA / path).exists() else NOT_ASKED | {"max_output_tokens": 200}
    request |= {"conversation": new_conversation(http)}
    replay_stream(http, provider, request, f"Conversations/{folder}/first_message_response.txt")


def test_streamed_tool_call(http: httpx2.Client) -> None:
    request = load("Conversations/tool_call_streaming/first_message_request.json")
    request["conversation"] = new_conversation(http)
    answer = http.post("/responses", json=request)
    events = collapsed(events_of(answer.text))
    expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert expected == [name for name, _data in events]
    assert '{"location":"San Francisco","unit":"celsius"}' == events[3][1]["delta"]


def test_items_are_added(http: httpx2.Client) -> None:
    handle = new_conversation(http)
    request = load("Conversations/add_items/request.json")
    actual = ask(http, "POST", f"/conversations/{handle}/items", request)
    assert settled(load("Conversations/add_items/response.json")) == settled(actual)
    listed = [one["id"] for one in actual["data"]]
    assert (listed[0], listed[-1]) == (actual["first_id"], actual["last_id"])


def test_conversation_is_read_updated_and_deleted(http: httpx2.Client) -> None:
    handle = new_conversation(http)
    path = f"/conversations/{handle}"
    expected = load("Conversations/retrieve_conversation/response.json")
    assert settled(expected) == settled(ask(http, "GET", path))
    request = load("Conversations/update_conversation/request.json")
    expected = load("Conversations/update_conversation/response.json")
    assert settled(expected) == settled(ask(http, "POST", path, request))
    expected = load("Conversations/delete_conversation/response.json")
    assert settled(expected) == settled(ask(http, "DELETE", path))
    expected = load("Conversations/error_delete_already_deleted/response.json")
    assert settled(expected) == settled(ask(http, "DELETE", path, status=404))


def test_deleting_an_item_returns_the_conversation(http: httpx2.Client) -> None:
    """The one answer that has changed since the recording, as its README says."""
    handle = new_conversation(http)
    request = load("Conversations/add_items/request.json")
    added = ask(http, "POST", f"/conversations/{handle}/items", request)
    actual = ask(http, "DELETE", f"/conversations/{handle}/items/{added['first_id']}")
    assert ask(http, "GET", f"/conversations/{handle}") == actual
    recorded = load("Conversations/delete_item/response.json")
    assert "conversation.item.deleted" == recorded["object"]


def test_errors(http: httpx2.Client) -> None:
    handle = new_conversation(http)
    unknown = "conv_nonexistent123"
    expected = load("Conversations/error_conversation_not_found/response.json")
    assert expected == ask(http, "GET", f"/conversations/{unknown}", status=404)
    expected = load("Conversations/error_invalid_limit/response.json")
    assert expected == ask(http, "GET", f"/conversations/{handle}/items?limit=1000", status=400)
    expected = load("Conversations/error_item_not_found/response.json")
    item = "msg_msg_nonexistent123nonexistent123"
    assert expected == ask(http, "GET", f"/conversations/{handle}/items/{item}", status=404)


def test_broken_json(http: httpx2.Client) -> None:
    body = (DATA / "Conversations/error_invalid_json/request.txt").read_bytes()
    answer = http.post("/conversations", content=body)
    assert 400 == answer.status_code
    assert load("Conversations/error_invalid_json/response.json") == answer.json()


def test_missing_role(http: httpx2.Client) -> None:
    """No answer was recorded for this request; the words are those of its kind of error."""
    request = load("Conversations/error_missing_required_field/request.json")
    expected = {
        "error": {
            "message": "Missing required parameter: 'items[0].role'.",
            "type": "invalid_request_error",
            "param": "items[0].role",
            "code": "missing_required_parameter",
        }
    }
    assert expected == ask(http, "POST", "/conversations", request, status=400)


def test_every_recording_is_used() -> None:
    """A recording nobody replays proves nothing."""
    used = {f"Responses/{one}" for one in (*PLAIN, *STREAMED, "conversation")}
    used.add("Responses/mutual_exclusive_error")
    source = (DATA.parent.parent / "test_recorded_traffic.py").read_text()
    folders = {str(one.parent.relative_to(DATA)) for one in DATA.glob("*/*/*")}
    unused = {
        one
        for one in folders - used
        if one not in source and f'"{one.split("/")[1]}"' not in source
    }
    assert set() == unused
