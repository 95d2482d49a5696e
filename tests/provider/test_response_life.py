"""A response's life: read, stream again, delete, cancel, and what each refuses."""

from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from perdure.testing import Provider


def test_retrieve_gives_what_create_gave(http: httpx2.Client) -> None:
    created = http.post("/responses", json={"model": "gpt-4o", "input": "Hello."}).json()
    assert created == http.get(f"/responses/{created['id']}").json()


def test_delete(client: OpenAI, http: httpx2.Client) -> None:
    response = client.responses.create(model="gpt-4o", input="Hello.")
    answer = http.delete(f"/responses/{response.id}").json()
    assert {"id": response.id, "object": "response", "deleted": True} == answer
    for again in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(NotFoundError) as caught:
            again(response.id)
        expected = {
            "message": f"Response with id '{response.id}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        assert expected == caught.value.body


def test_only_background_responses_are_cancelled(client: OpenAI) -> None:
    response = client.responses.create(model="gpt-4o", input="Hello.")
    with pytest.raises(BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(response.id)
    running = client.responses.create(model="gpt-4o", input="Hello.", background=True)
    assert "cancelled" == client.responses.cancel(running.id).status
    assert "cancelled" == client.responses.retrieve(running.id).status


def test_background_needs_store(client: OpenAI) -> None:
    with pytest.raises(BadRequestError):
        client.responses.create(model="gpt-4o", input="Hello.", background=True, store=False)


def test_background_stream_is_resumed(client: OpenAI) -> None:
    events = list(
        client.responses.create(model="gpt-4o", input="Hello.", background=True, stream=True)
    )
    assert ["response.created", "response.queued"] == [event.type for event in events[:2]]
    handle = events[0].response.id  # type: ignore[union-attr]
    later = list(client.responses.retrieve(handle, stream=True, starting_after=3))
    assert [event.model_dump() for event in events[4:]] == [one.model_dump() for one in later]
    assert "completed" == client.responses.retrieve(handle).status


def test_input_items_are_the_requests_own(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-4o", input="One.")
    second = client.responses.create(model="gpt-4o", input="Two.", previous_response_id=first.id)
    items: list[Any] = client.responses.input_items.list(second.id).data
    assert ["Two."] == [item.content[0].text for item in items]


def test_obfuscation_can_be_left_out(http: httpx2.Client) -> None:
    body = {"model": "gpt-4o", "input": "Hello.", "stream": True}
    assert '"obfuscation"' in http.post("/responses", json=body).text
    plain = body | {"stream_options": {"include_obfuscation": False}}
    assert '"obfuscation"' not in http.post("/responses", json=plain).text


def test_sdk_stream_adds_up(client: OpenAI) -> None:
    with client.responses.stream(model="gpt-4o", input="My dog is Rex.") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert ("Noted: My dog is Rex.", "Noted: My dog is Rex.") == (
        "".join(deltas),
        final.output_text,
    )


def test_chat_completions(client: OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "The code is 42."},
        {"role": "user", "content": "What is the code?"},
    ]
    plain = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert ("The code is 42.", "stop") == (
        plain.choices[0].message.content,
        plain.choices[0].finish_reason,
    )
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o-mini",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "The code is 42." == "".join(said)
    assert plain.usage == chunks[-1].usage


def test_chat_tool_calls(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    messages: Any = [{"role": "user", "content": "call look {}"}]
    first = client.chat.completions.create(model="gpt-4o", messages=messages, tools=tools)
    calls: Any = first.choices[0].message.tool_calls
    assert ["look"] == [call.function.name for call in calls]
    told = {"role": "tool", "tool_call_id": calls[0].id, "content": "seen"}
    messages += [first.choices[0].message.model_dump(exclude_none=True), told]
    second = client.chat.completions.create(model="gpt-4o", messages=messages, tools=tools)
    assert "seen" == second.choices[0].message.content


def test_models(client: OpenAI) -> None:
    assert "gpt-5.6" in [model.id for model in client.models.list()]
    assert "anything" == client.models.retrieve("anything").id


def test_ids_look_like_the_recorded_ones(client: OpenAI, provider: Provider) -> None:
    response = client.responses.create(model="gpt-4o", input="call look {}")
    call: Any = response.output[0]
    expected = [("resp_", 55), ("fc_", 53), ("call_", 29), ("conv_", 53)]
    ids = [response.id, call.id, call.call_id, client.conversations.create().id]
    assert expected == [(one.split("_")[0] + "_", len(one)) for one in ids]
    assert provider.state.responses[response.id].id == response.id
