"""List pages: order, cursors, limits, and what a cursor that is gone answers."""

from typing import Any

import httpx2
import pytest
from openai import NotFoundError, OpenAI


@pytest.fixture
def conversation(client: OpenAI) -> str:
    handle = client.conversations.create().id
    for start in (0, 20):
        client.conversations.items.create(
            handle,
            items=[
                {"type": "message", "role": "user", "content": f"Item {number}"}
                for number in range(start, start + 20)
            ],
        )
    return handle


def words(page: Any) -> list[int]:
    return [int(item.content[0].text.removeprefix("Item ")) for item in page]


def test_newest_first_and_twenty(client: OpenAI, conversation: str) -> None:
    page = client.conversations.items.list(conversation)
    assert list(range(39, 19, -1)) == words(page.data)
    assert page.has_more


def test_every_item_comes_once(client: OpenAI, conversation: str) -> None:
    oldest_first = client.conversations.items.list(conversation, order="asc", limit=7)
    assert list(range(40)) == words(oldest_first)
    newest_first = client.conversations.items.list(conversation, limit=100)
    assert list(range(39, -1, -1)) == words(newest_first)


def test_after(client: OpenAI, conversation: str) -> None:
    first = client.conversations.items.list(conversation, order="asc", limit=3)
    assert first.last_id is not None
    page = client.conversations.items.list(conversation, order="asc", limit=3, after=first.last_id)
    assert [3, 4, 5] == words(page.data)
    last = client.conversations.items.list(conversation, limit=1).data[0]
    assert last.id is not None
    page = client.conversations.items.list(conversation, order="asc", after=last.id)
    assert ([], False) == (page.data, page.has_more)


def test_deleted_cursor(client: OpenAI, conversation: str) -> None:
    cursor = client.conversations.items.list(conversation, limit=1).data[0].id
    assert cursor is not None
    client.conversations.items.delete(cursor, conversation_id=conversation)
    with pytest.raises(NotFoundError) as caught:
        client.conversations.items.list(conversation, after=cursor)
    expected = {
        "message": f"No item found with id '{cursor}'",
        "type": "invalid_request_error",
        "param": "after",
        "code": None,
    }
    assert expected == caught.value.body


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=many", "limit", "invalid_type"),
        ("order=up", "order", "invalid_value"),
    ],
)
def test_bad_page(
    http: httpx2.Client, conversation: str, query: str, param: str, code: str
) -> None:
    answer = http.get(f"/conversations/{conversation}/items?{query}")
    error = answer.json()["error"]
    assert (400, param, code) == (answer.status_code, error["param"], error["code"])


def test_messages_before_and_after(client: OpenAI) -> None:
    thread = client.beta.threads.create(
        messages=[{"role": "user", "content": str(number)} for number in range(5)]
    )
    rows = client.beta.threads.messages.list(thread.id, order="asc").data
    before = client.beta.threads.messages.list(thread.id, order="asc", before=rows[3].id, limit=2)
    assert [rows[1].id, rows[2].id] == [row.id for row in before.data]
    assert before.has_more
    after = client.beta.threads.messages.list(thread.id, after=rows[1].id)
    assert [rows[0].id] == [row.id for row in after.data]


def test_input_items(client: OpenAI) -> None:
    response = client.responses.create(
        model="gpt-4o",
        input=[{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}],
    )
    page: Any = client.responses.input_items.list(response.id, order="asc", limit=1)
    assert ["One.", "Two."] == [item.content[0].text for item in page]
