"""Threads: messages, runs by polling, by stream, with tools, and the errors of an active run."""

from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from perdure.testing import Clock, Provider
from perdure.testing.provider import KNOWS_NOTHING

pytestmark = pytest.mark.filterwarnings(
    "ignore:deprecated:DeprecationWarning", "ignore:The Assistants API is deprecated"
)
LOOK: Any = {"type": "function", "function": {"name": "look", "parameters": {}}}
MESSAGE_EVENTS = [
    "thread.run.step.created",
    "thread.run.step.in_progress",
    "thread.message.created",
    "thread.message.in_progress",
    "thread.message.delta",
    "thread.message.completed",
    "thread.run.step.completed",
    "thread.run.completed",
]


@pytest.fixture
def assistant(client: OpenAI) -> str:
    return client.beta.assistants.create(model="gpt-4o", tools=[LOOK]).id


@pytest.fixture
def thread(client: OpenAI) -> str:
    return client.beta.threads.create(messages=[{"role": "user", "content": "My dog is Rex."}]).id


def add(client: OpenAI, thread: str, said: str) -> None:
    client.beta.threads.messages.create(thread, role="user", content=said)


def texts(client: OpenAI, thread: str) -> list[str]:
    rows: Any = client.beta.threads.messages.list(thread, order="asc").data
    return [row.content[0].text.value for row in rows]


def error(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", "param": param, "code": code}


def names(events: Any) -> list[str]:
    found: list[str] = []
    for event in events:
        if not found or not (found[-1] == event.event and event.event.endswith("delta")):
            found.append(event.event)
    return found


def test_run_by_polling(client: OpenAI, thread: str, assistant: str) -> None:
    add(client, thread, "Who is my dog?")
    run = client.beta.threads.runs.create_and_poll(thread_id=thread, assistant_id=assistant)
    assert "completed" == run.status
    assert ["My dog is Rex.", "Who is my dog?", "My dog is Rex."] == texts(client, thread)
    reply = client.beta.threads.messages.list(thread, run_id=run.id).data
    assert [(run.id, assistant, "assistant")] == [
        (row.run_id, row.assistant_id, row.role) for row in reply
    ]
    steps: Any = client.beta.threads.runs.steps.list(run.id, thread_id=thread).data
    assert [reply[0].id] == [step.step_details.message_creation.message_id for step in steps]
    step = client.beta.threads.runs.steps.retrieve(steps[0].id, thread_id=thread, run_id=run.id)
    assert steps[0] == step
    assert run.usage is not None
    assert run.usage.total_tokens == run.usage.prompt_tokens + run.usage.completion_tokens


def test_each_read_moves_a_run_on(client: OpenAI, thread: str, assistant: str) -> None:
    runs = client.beta.threads.runs
    run = runs.create(thread, assistant_id=assistant)
    read = [runs.retrieve(run.id, thread_id=thread).status for _turn in range(3)]
    assert ["queued", "in_progress", "completed", "completed"] == [run.status, *read]
    assert [run.id] == [one.id for one in runs.list(thread)]


def test_run_by_stream(client: OpenAI, thread: str, assistant: str) -> None:
    with client.beta.threads.runs.stream(thread_id=thread, assistant_id=assistant) as stream:
        events = names(stream)
        messages: Any = stream.get_final_messages()
    opening = ["thread.run.created", "thread.run.queued", "thread.run.in_progress"]
    assert opening + MESSAGE_EVENTS == events
    assert ["Noted: My dog is Rex."] == [one.content[0].text.value for one in messages]


def test_create_and_run_by_stream(client: OpenAI, assistant: str) -> None:
    with client.beta.threads.create_and_run_stream(
        assistant_id=assistant, thread={"messages": [{"role": "user", "content": "Hello."}]}
    ) as stream:
        events = names(stream)
    assert ["thread.created", "thread.run.created"] == events[:2]


def test_stream_ends_with_done(http: httpx2.Client, thread: str, assistant: str) -> None:
    body = {"assistant_id": assistant, "stream": True}
    beta = {"openai-beta": "assistants=v2"}
    answer = http.post(f"/threads/{thread}/runs", json=body, headers=beta)
    assert answer.text.endswith("event: done\ndata: [DONE]\n\n")


def test_tools_by_polling(client: OpenAI, thread: str, assistant: str) -> None:
    add(client, thread, 'call look {"at": 1}\ncall look {"at": 2}')
    runs = client.beta.threads.runs
    run: Any = runs.create_and_poll(thread_id=thread, assistant_id=assistant)
    calls = run.required_action.submit_tool_outputs.tool_calls
    assert ("requires_action", ['{"at": 1}', '{"at": 2}']) == (
        run.status,
        [call.function.arguments for call in calls],
    )
    outputs: Any = [{"tool_call_id": call.id, "output": f"seen {call.id}"} for call in calls]
    run = runs.submit_tool_outputs_and_poll(run_id=run.id, thread_id=thread, tool_outputs=outputs)
    assert "completed" == run.status
    expected = "\n".join(one["output"] for one in outputs)
    assert expected == texts(client, thread)[-1]
    steps: Any = runs.steps.list(run.id, thread_id=thread, order="asc").data
    assert ["tool_calls", "message_creation"] == [step.type for step in steps]
    told = [call.function.output for call in steps[0].step_details.tool_calls]
    assert [one["output"] for one in outputs] == told


def test_tools_by_stream(client: OpenAI, thread: str, assistant: str) -> None:
    add(client, thread, "call look {}")
    with client.beta.threads.runs.stream(thread_id=thread, assistant_id=assistant) as stream:
        events = names(stream)
        run: Any = stream.current_run
    expected = [
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.run.step.delta",
        "thread.run.requires_action",
    ]
    assert expected == events[3:]
    call = run.required_action.submit_tool_outputs.tool_calls[0]
    with client.beta.threads.runs.submit_tool_outputs_stream(
        run_id=run.id,
        thread_id=thread,
        tool_outputs=[{"tool_call_id": call.id, "output": "seen"}],
    ) as stream:
        events = names(stream)
    opening = ["thread.run.step.completed", "thread.run.queued", "thread.run.in_progress"]
    assert opening + MESSAGE_EVENTS == events
    assert "seen" == texts(client, thread)[-1]


def test_active_run_refuses(client: OpenAI, thread: str, assistant: str) -> None:
    run = client.beta.threads.runs.create(thread, assistant_id=assistant)
    with pytest.raises(BadRequestError) as caught:
        add(client, thread, "Hello?")
    message = f"Can't add messages to {thread} while a run {run.id} is active."
    assert error(message) == caught.value.body
    with pytest.raises(BadRequestError) as caught:
        client.beta.threads.runs.create(thread, assistant_id=assistant)
    message = f"Thread {thread} already has an active run {run.id}."
    assert error(message) == caught.value.body


def test_cancel(client: OpenAI, thread: str, assistant: str) -> None:
    runs = client.beta.threads.runs
    run = runs.create(thread, assistant_id=assistant)
    assert "cancelling" == runs.cancel(run.id, thread_id=thread).status
    assert "cancelled" == runs.retrieve(run.id, thread_id=thread).status
    with pytest.raises(BadRequestError) as caught:
        runs.cancel(run.id, thread_id=thread)
    assert error("Cannot cancel run with status 'cancelled'.") == caught.value.body
    add(client, thread, "Hello?")


def test_wrong_tool_outputs(client: OpenAI, thread: str, assistant: str) -> None:
    add(client, thread, "call look {}")
    runs = client.beta.threads.runs
    run: Any = runs.create_and_poll(thread_id=thread, assistant_id=assistant)
    call = run.required_action.submit_tool_outputs.tool_calls[0].id
    with pytest.raises(BadRequestError) as caught:
        runs.submit_tool_outputs(run.id, thread_id=thread, tool_outputs=[])
    message = f"Expected tool outputs for call_ids ['{call}'], got []"
    assert error(message) == caught.value.body
    runs.cancel(run.id, thread_id=thread)
    runs.retrieve(run.id, thread_id=thread)
    with pytest.raises(BadRequestError) as caught:
        runs.submit_tool_outputs(run.id, thread_id=thread, tool_outputs=[])
    expected = error('Runs in status "cancelled" do not accept tool outputs.')
    assert expected == caught.value.body


def test_waiting_run_expires(client: OpenAI, clock: Clock, thread: str, assistant: str) -> None:
    add(client, thread, "call look {}")
    runs = client.beta.threads.runs
    run = runs.create_and_poll(thread_id=thread, assistant_id=assistant)
    assert run.expires_at is not None
    clock.advance(run.expires_at - clock.now())
    assert "expired" == runs.retrieve(run.id, thread_id=thread).status
    add(client, thread, "Hello?")


def test_run_is_done_by_the_clock(
    client: OpenAI, clock: Clock, thread: str, assistant: str
) -> None:
    client.beta.threads.runs.create(thread, assistant_id=assistant)
    clock.advance(60)
    assert ["My dog is Rex.", "Noted: My dog is Rex."] == texts(client, thread)


def test_run_settings(client: OpenAI, thread: str, assistant: str) -> None:
    runs = client.beta.threads.runs
    run = runs.create_and_poll(
        thread_id=thread,
        assistant_id=assistant,
        instructions="Be kind.",
        additional_instructions="The code is 42.",
        additional_messages=[{"role": "user", "content": "What is the code?"}],
        metadata={"a": "1"},
    )
    assert ("Be kind.\nThe code is 42.", {"a": "1"}) == (run.instructions, run.metadata)
    assert "The code is 42." == texts(client, thread)[-1]
    assert {"b": "2"} == runs.update(run.id, thread_id=thread, metadata={"b": "2"}).metadata
    add(client, thread, "Who is my dog?")
    runs.create_and_poll(
        thread_id=thread,
        assistant_id=assistant,
        truncation_strategy={"type": "last_messages", "last_messages": 1},
    )
    assert KNOWS_NOTHING == texts(client, thread)[-1]


def test_cut_run(client: OpenAI, thread: str, assistant: str) -> None:
    run = client.beta.threads.runs.create_and_poll(
        thread_id=thread, assistant_id=assistant, max_completion_tokens=3
    )
    assert ("incomplete", "Noted: My") == (run.status, texts(client, thread)[-1])


def test_message_life(client: OpenAI, thread: str) -> None:
    messages = client.beta.threads.messages
    made = messages.create(thread, role="assistant", content="Hi.", metadata={"turn": "1"})
    assert made == messages.retrieve(made.id, thread_id=thread)
    assert {"turn": "2"} == messages.update(
        made.id, thread_id=thread, metadata={"turn": "2"}
    ).metadata
    assert messages.delete(made.id, thread_id=thread).deleted
    with pytest.raises(NotFoundError) as caught:
        messages.retrieve(made.id, thread_id=thread)
    assert error(f"No message found with id '{made.id}'.") == caught.value.body


def test_thread_life(client: OpenAI, thread: str) -> None:
    assert {"a": "1"} == client.beta.threads.update(thread, metadata={"a": "1"}).metadata
    assert {"a": "1"} == client.beta.threads.retrieve(thread).metadata
    assert "thread.deleted" == client.beta.threads.delete(thread).object
    with pytest.raises(NotFoundError) as caught:
        client.beta.threads.retrieve(thread)
    assert error(f"No thread found with id '{thread}'.") == caught.value.body
    with pytest.raises(BadRequestError) as refused:
        client.beta.threads.retrieve("undefined")
    message = "Invalid 'thread_id': 'undefined'. Expected an ID that begins with 'thread'."
    assert error(message, "thread_id", "invalid_value") == refused.value.body


@pytest.mark.parametrize(
    ("raw", "param", "code"),
    [
        ({"content": "x"}, "role", "missing_required_parameter"),
        ({"role": "user"}, "content", "missing_required_parameter"),
        ({"role": "system", "content": "x"}, "role", "invalid_value"),
        ({"role": "user", "content": "x", "id": "msg_1"}, "id", "unknown_parameter"),
    ],
    ids=["role", "content", "system", "id"],
)
def test_bad_message(http: httpx2.Client, thread: str, raw: Any, param: str, code: str) -> None:
    headers = {"openai-beta": "assistants=v2"}
    answer = http.post(f"/threads/{thread}/messages", json=raw, headers=headers)
    found = answer.json()["error"]
    assert (400, param, code) == (answer.status_code, found["param"], found["code"])
    answer = http.post("/threads", json={"messages": [raw]}, headers=headers)
    assert f"messages[0].{param}" == answer.json()["error"]["param"]


def test_unknown_assistant(client: OpenAI, thread: str, assistant: str) -> None:
    client.beta.assistants.update(assistant, name="Ann")
    assert ["Ann"] == [one.name for one in client.beta.assistants.list()]
    client.beta.assistants.delete(assistant)
    for use in (
        lambda: client.beta.assistants.retrieve(assistant),
        lambda: client.beta.threads.runs.create(thread, assistant_id=assistant),
    ):
        with pytest.raises(NotFoundError) as caught:
            use()
        assert error(f"No assistant found with id '{assistant}'.") == caught.value.body


def test_beta_header_is_required(http: httpx2.Client, provider: Provider) -> None:
    message = (
        "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again"
        " by setting the header 'OpenAI-Beta: assistants=v2'."
    )
    for path in ("/threads", "/assistants"):
        answer = http.post(path, json={})
        expected = {"error": error(message, None, "invalid_beta")}
        assert (400, expected) == (answer.status_code, answer.json())
    assert {} == provider.state.threads
