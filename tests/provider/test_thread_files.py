"""Files, vector stores, and what of threads may name them; every refusal with its words."""

from datetime import timedelta
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from perdure.testing import Provider

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

BETA = {"openai-beta": "assistants=v2"}
SEARCH = [{"type": "file_search"}]
CODE = [{"type": "code_interpreter"}]


def upload(client: OpenAI, purpose: Any = "assistants") -> str:
    return client.files.create(file=("notes.txt", b"My dog is Rex."), purpose=purpose).id


def said(**more: Any) -> Any:
    return {"role": "user", "content": "Look.", **more}


def test_a_file_is_there_until_it_is_deleted(client: OpenAI) -> None:
    made = client.files.create(file=("notes.txt", b"My dog is Rex."), purpose="assistants")

    assert ("notes.txt", 14, "assistants") == (made.filename, made.bytes, made.purpose)
    assert made == client.files.retrieve(made.id)
    assert client.files.delete(made.id).deleted
    with pytest.raises(NotFoundError, match=f"No such File object: {made.id}"):
        client.files.retrieve(made.id)


def test_a_file_belongs_to_its_project(client: OpenAI, client_for: Any) -> None:
    file_id = upload(client)
    with pytest.raises(NotFoundError, match=f"No file found with id '{file_id}'."):
        client_for("key-two").beta.threads.create(
            messages=[said(attachments=[{"file_id": file_id, "tools": SEARCH}])]
        )


def test_a_vector_store_is_gone_once_idle_for_so_long(client: OpenAI, provider: Provider) -> None:
    provider.expire_after("vector_stores", timedelta(days=7))
    store = client.vector_stores.create(name="notes", file_ids=[upload(client)])
    provider.clock.advance(timedelta(days=6))
    assert 1 == client.vector_stores.retrieve(store.id).file_counts.completed
    provider.clock.advance(timedelta(days=8))

    with pytest.raises(NotFoundError, match=f"No vector store found with id '{store.id}'."):
        client.beta.threads.create(tool_resources={"file_search": {"vector_store_ids": [store.id]}})


def test_a_deleted_vector_store_is_gone(client: OpenAI) -> None:
    store = client.vector_stores.create()
    client.vector_stores.delete(store.id)
    with pytest.raises(NotFoundError, match="No vector store found"):
        client.vector_stores.retrieve(store.id)
    with pytest.raises(NotFoundError, match="No file found with id 'file-0'"):
        client.vector_stores.create(file_ids=["file-0"])


def test_attachments_are_added_to_what_the_threads_tools_may_use(client: OpenAI) -> None:
    files = [upload(client) for _ in range(3)]
    thread = client.beta.threads.create(
        messages=[said(attachments=[{"file_id": files[0], "tools": SEARCH}])]
    )
    client.beta.threads.messages.create(
        thread.id,
        role="user",
        content="And this.",
        attachments=[
            {"file_id": files[1], "tools": [*SEARCH, *CODE]},  # type: ignore[list-item]
            {"file_id": files[2], "tools": CODE},  # type: ignore[typeddict-item]
        ],
    )

    shown = client.beta.threads.retrieve(thread.id).tool_resources
    assert shown is not None
    assert shown.code_interpreter is not None
    assert shown.file_search is not None
    assert files[1:] == shown.code_interpreter.file_ids
    (store,) = shown.file_search.vector_store_ids or [""]
    assert 2 == client.vector_stores.retrieve(store).file_counts.total


def test_a_store_is_made_along_with_a_thread(client: OpenAI) -> None:
    thread = client.beta.threads.create(
        tool_resources={"file_search": {"vector_stores": [{"file_ids": [upload(client)]}]}}
    )
    assert thread.tool_resources is not None
    assert thread.tool_resources.file_search is not None
    (store,) = thread.tool_resources.file_search.vector_store_ids or [""]
    assert 1 == client.vector_stores.retrieve(store).file_counts.total


def test_an_update_replaces_the_resources_of_a_tool(client: OpenAI) -> None:
    file_id, store = upload(client), client.vector_stores.create().id
    thread = client.beta.threads.create(
        tool_resources={"code_interpreter": {"file_ids": [file_id]}}
    ).id
    updated = client.beta.threads.update(
        thread, tool_resources={"file_search": {"vector_store_ids": [store]}}
    )
    assert {
        "code_interpreter": {"file_ids": [file_id]},
        "file_search": {"vector_store_ids": [store]},
    } == updated.to_dict()["tool_resources"]
    with pytest.raises(NotFoundError, match="No vector store found"):
        client.beta.threads.update(
            thread, tool_resources={"file_search": {"vector_store_ids": ["vs_0"]}}
        )


UNKNOWN = "unknown_parameter"
REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no text": (said(content=[{"type": "text"}]), "messages[0].content[0].text", None),
    "a listed text": (
        said(content=[{"type": "text", "text": {"value": "Hi."}}]),
        "messages[0].content[0].text",
        "invalid_type",
    ),
    "another part": (
        said(content=[{"type": "input_text", "text": "Hi."}]),
        "messages[0].content[0].type",
        "invalid_value",
    ),
    "no url": (
        said(content=[{"type": "image_url", "image_url": {"detail": "low"}}]),
        "messages[0].content[0].image_url.url",
        None,
    ),
    "another detail": (
        said(content=[{"type": "image_url", "image_url": {"url": "https://a", "detail": "x"}}]),
        "messages[0].content[0].image_url.detail",
        "invalid_value",
    ),
    "a number for content": (said(content=1), "messages[0].content", "invalid_type"),
    "another member": (said(id="msg_1"), "messages[0].id", UNKNOWN),
    "a tool by its name": (
        said(attachments=[{"file_id": "file-1", "tools": ["file_search"]}]),
        "messages[0].attachments[0].tools[0]",
        "invalid_type",
    ),
    "another tool": (
        said(attachments=[{"file_id": "file-1", "tools": [{"type": "function"}]}]),
        "messages[0].attachments[0].tools[0].type",
        "invalid_value",
    ),
    "no file": (
        said(attachments=[{"tools": SEARCH}]),
        "messages[0].attachments[0].file_id",
        None,
    ),
    "17 pairs": (
        said(metadata={str(n): "" for n in range(17)}),
        "messages[0].metadata",
        "object_above_max_properties",
    ),
    "a long value": (
        said(metadata={"a": "x" * 513}),
        "messages[0].metadata.a",
        "string_above_max_length",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_message_is_refused(http: httpx2.Client, case: str) -> None:
    message, param, code = REFUSED[case]
    answer = http.post("/threads", json={"messages": [message]}, headers=BETA)
    assert (400, param) == (answer.status_code, answer.json()["error"]["param"])
    assert (code or "missing_required_parameter") == answer.json()["error"]["code"]


RESOURCES: dict[str, tuple[Any, str, str]] = {
    "21 files": (
        {"code_interpreter": {"file_ids": [f"file-{n}" for n in range(21)]}},
        "tool_resources.code_interpreter.file_ids",
        "array_above_max_length",
    ),
    "two stores": (
        {"file_search": {"vector_store_ids": ["vs_1", "vs_2"]}},
        "tool_resources.file_search.vector_store_ids",
        "array_above_max_length",
    ),
    "another tool": ({"function": {}}, "tool_resources.function", UNKNOWN),
    "a store by its name": (
        {"file_search": {"vector_stores": ["notes"]}},
        "tool_resources.file_search.vector_stores[0]",
        "invalid_type",
    ),
}


@pytest.mark.parametrize("case", RESOURCES)
def test_malformed_tool_resources_are_refused(http: httpx2.Client, case: str) -> None:
    resources, param, code = RESOURCES[case]
    answer = http.post("/threads", json={"tool_resources": resources}, headers=BETA)
    error = answer.json()["error"]
    assert (400, param, code) == (answer.status_code, error["param"], error["code"])


def test_an_image_must_be_there(client: OpenAI) -> None:
    part: Any = {"type": "image_file", "image_file": {"file_id": "file-0"}}
    with pytest.raises(NotFoundError, match="No file found with id 'file-0'."):
        client.beta.threads.create(messages=[{"role": "user", "content": [part]}])


def test_stores_are_made_only_along_with_a_thread(http: httpx2.Client, client: OpenAI) -> None:
    thread = client.beta.threads.create().id
    answer = http.post(
        f"/threads/{thread}",
        json={"tool_resources": {"file_search": {"vector_stores": []}}},
        headers=BETA,
    )
    assert UNKNOWN == answer.json()["error"]["code"]


def test_a_purpose_is_asked_for(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="Supported values are: 'assistants'"):
        upload(client, "nothing")
