"""Conversations: batches, ids that exist already, atomic turns, the lock, what deletion leaves."""

from typing import Any

import httpx2
import pytest

from perdure.testing import Provider

USER = {"role": "user", "content": "My dog is Rex."}


def post(http: httpx2.Client, path: str, body: Any, status: int = 200) -> Any:
    answer = http.post(path, json=body)
    assert status == answer.status_code, answer.text
    return answer.json() if status == 200 else answer.json()["error"]


@pytest.fixture
def handle(http: httpx2.Client) -> str:
    return str(post(http, "/conversations", {})["id"])


def error(message: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", "param": param, "code": code}


TOO_LONG = (
    "Invalid 'items': array too long. Expected an array with maximum length 20, but got an array"
    " with length 21 instead."
)
EMPTY = (
    "Invalid 'items': empty array. Expected an array with minimum length 1, but got an empty array"
    " instead."
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"items": [USER] * 21}, error(TOO_LONG, "items", "array_above_max_length")),
        ({"items": []}, error(EMPTY, "items", "empty_array")),
        (
            {},
            error("Missing required parameter: 'items'.", "items", "missing_required_parameter"),
        ),
        (
            {"items": [USER | {"id": "fc_1"}]},
            error(
                "Invalid 'items[0].id': 'fc_1'. Expected an ID that begins with 'msg'.",
                "items[0].id",
                "invalid_value",
            ),
        ),
        (
            {"items": [{"type": "reasoning", "summary": []}]},
            error("Invalid item", "item", "invalid_item"),
        ),
    ],
    ids=["too_long", "empty", "missing", "prefix", "empty_reasoning"],
)
def test_bad_batch(http: httpx2.Client, handle: str, body: Any, expected: Any) -> None:
    assert expected == post(http, f"/conversations/{handle}/items", body, 400)
    assert [] == http.get(f"/conversations/{handle}/items").json()["data"]


def test_create_takes_twenty_items(http: httpx2.Client) -> None:
    post(http, "/conversations", {"items": [USER] * 20})
    expected = error(TOO_LONG, "items", "array_above_max_length")
    assert expected == post(http, "/conversations", {"items": [USER] * 21}, 400)


@pytest.mark.parametrize("path", ["", "/items"])
def test_malformed_handle(http: httpx2.Client, path: str) -> None:
    message = "Invalid 'conversation_id': 'chat_1'. Expected an ID that begins with 'conv'."
    expected = error(message, "conversation_id", "invalid_value")
    assert expected == http.get(f"/conversations/chat_1{path}").json()["error"]
    long = http.get(f"/conversations/conv_{'1' * 60}{path}").json()["error"]
    assert ("conversation_id", "string_above_max_length") == (long["param"], long["code"])


def test_known_item_is_refused_with_its_batch(http: httpx2.Client, handle: str) -> None:
    added = post(http, f"/conversations/{handle}/items", {"items": [USER]})["data"][0]
    body = {"items": [USER, added]}
    expected = error("Item already in conversation", "items", "item_already_in_conversation")
    assert expected == post(http, f"/conversations/{handle}/items", body, 400)
    assert 1 == len(http.get(f"/conversations/{handle}/items").json()["data"])


def test_unknown_reference_wins_over_a_known_one(http: httpx2.Client, handle: str) -> None:
    added = post(http, f"/conversations/{handle}/items", {"items": [USER]})["data"][0]
    references = [{"type": "item_reference", "id": one} for one in (added["id"], "msg_gone")]
    expected = error("Item with id 'msg_gone' not found.", None, None)
    body = {"items": references}
    assert expected == post(http, f"/conversations/{handle}/items", body, 404)


def test_item_of_another_conversation_keeps_its_content(http: httpx2.Client, handle: str) -> None:
    added = post(http, f"/conversations/{handle}/items", {"items": [USER]})["data"][0]
    other = post(http, "/conversations", {})["id"]
    changed = added | {"content": [{"type": "input_text", "text": "My cat is Tom."}]}
    listed = post(http, f"/conversations/{other}/items", {"items": [changed, changed]})
    assert [added, added] == listed["data"]


def test_items_of_a_deleted_conversation_are_readable_by_reference(
    http: httpx2.Client, handle: str
) -> None:
    added = post(http, f"/conversations/{handle}/items", {"items": [USER]})["data"][0]
    http.delete(f"/conversations/{handle}")
    answer = http.get(f"/conversations/{handle}/items/{added['id']}")
    assert 404 == answer.status_code
    expected = error(f"Conversation with id '{handle}' not found.", None, None)
    assert expected == answer.json()["error"]
    reference = {"type": "item_reference", "id": added["id"]}
    asked = {"role": "user", "content": "Who is my dog?"}
    body = {"model": "gpt-4o", "input": [reference, asked]}
    said = post(http, "/responses", body)["output"][0]["content"][0]["text"]
    assert "My dog is Rex." == said


def test_turn_without_store_leaves_nothing(http: httpx2.Client, handle: str) -> None:
    post(http, f"/conversations/{handle}/items", {"items": [USER]})
    body = {"model": "gpt-4o", "conversation": handle, "input": "Who is my dog?", "store": False}
    response = post(http, "/responses", body)
    assert "My dog is Rex." == response["output"][0]["content"][0]["text"]
    assert 1 == len(http.get(f"/conversations/{handle}/items").json()["data"])
    answer = http.get(f"/responses/{response['id']}")
    assert 404 == answer.status_code
    expected = error(f"Response with id '{response['id']}' not found.", None, None)
    assert expected == answer.json()["error"]


def test_branch_from_a_conversation_is_not_added_to_it(
    http: httpx2.Client, provider: Provider, handle: str
) -> None:
    post(http, f"/conversations/{handle}/items", {"items": [USER]})
    body = {"model": "gpt-4o", "conversation": handle, "input": "Hello."}
    first = post(http, "/responses", body)
    post(http, "/responses", body | {"input": "My cat is Tom."})
    branch = {"model": "gpt-4o", "previous_response_id": first["id"], "input": "Who is my dog?"}
    response = post(http, "/responses", branch)
    assert "My dog is Rex." == response["output"][0]["content"][0]["text"]
    assert "conversation" not in response
    assert 5 == len(provider.items(handle))
    assert 5 == len(provider.items(response["id"]))


def test_conversation_is_locked_while_a_turn_streams(
    http: httpx2.Client, provider: Provider, handle: str
) -> None:
    body = {"model": "gpt-4o", "conversation": handle, "input": "Hello.", "background": True}
    running = post(http, "/responses", body)
    message = (
        "Another process is currently operating on this conversation. Please retry in a few"
        " seconds."
    )
    expected = error(message, "conversation", "conversation_locked")
    plain = {"model": "gpt-4o", "conversation": handle, "input": "Again."}
    assert expected == post(http, "/responses", plain, 400)
    assert expected == post(http, f"/conversations/{handle}/items", {"items": [USER]}, 400)
    assert [] == provider.items(handle)
    statuses = [http.get(f"/responses/{running['id']}").json()["status"] for _turn in range(2)]
    assert ["in_progress", "completed"] == statuses
    assert 2 == len(provider.items(handle))
    post(http, "/responses", plain)


def test_background_turn_is_done_by_the_clock(
    http: httpx2.Client, provider: Provider, handle: str
) -> None:
    body = {"model": "gpt-4o", "conversation": handle, "input": "Hello.", "background": True}
    assert "queued" == post(http, "/responses", body)["status"]
    provider.clock.advance(60)
    post(http, "/responses", {"model": "gpt-4o", "conversation": handle, "input": "Again."})
    assert 4 == len(provider.items(handle))


def test_cancelled_background_turn_leaves_nothing(
    http: httpx2.Client, provider: Provider, handle: str
) -> None:
    body = {"model": "gpt-4o", "conversation": handle, "input": "Hello.", "background": True}
    running = post(http, "/responses", body)
    assert "cancelled" == post(http, f"/responses/{running['id']}/cancel", {})["status"]
    assert [] == provider.items(handle)
    post(http, "/responses", {"model": "gpt-4o", "conversation": handle, "input": "Again."})


def test_metadata_is_replaced(http: httpx2.Client, handle: str) -> None:
    post(http, f"/conversations/{handle}", {"metadata": {"a": "1"}})
    updated = post(http, f"/conversations/{handle}", {"metadata": {"b": "2"}})
    assert {"b": "2"} == updated["metadata"]
    expected = error(
        "Missing required parameter: 'metadata'.", "metadata", "missing_required_parameter"
    )
    assert expected == post(http, f"/conversations/{handle}", {}, 400)
