"""The rule table of FACTS 3.4: what a hand-built history may not be, with the exact error."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from perdure.testing import Provider

TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
USER = {"role": "user", "content": "Hello."}
CALL = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "seen"}
CALL_2 = CALL | {"call_id": "call_2"}
OUTPUT_2 = OUTPUT | {"call_id": "call_2"}
NO_OUTPUT = "No tool output found for function call call_1."
NO_OUTPUT_2 = "No tool output found for function call call_2."
NO_CALL = "No tool call found for function call output with call_id call_1."
UNSTORED = (
    " Items are not persisted when `store` is set to false. Try again with `store` set to true,"
    " or remove this item from your input."
)
ASKED = "'input_text', 'input_image', 'input_file', and 'input_audio'"


def said(part: str, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": [{"type": part, "text": "Hello."}], **more}


def refused(http: httpx2.Client, status: int = 400, **body: Any) -> dict[str, Any]:
    answer = http.post("/responses", json={"model": "gpt-4o", **body})
    assert status == answer.status_code, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert "invalid_request_error" == error.pop("type")
    return error


def accepted(http: httpx2.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/responses", json={"model": "gpt-4o", **body})
    assert 200 == answer.status_code, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


SHAPES: dict[str, tuple[Any, str | None, str, str | None]] = {
    "assistant_part": (
        said("input_text", "assistant"),
        "Invalid value: 'input_text'. Supported values are: 'output_text' and 'refusal'.",
        "input[0].content[0]",
        "invalid_value",
    ),
    "user_part": (
        said("output_text"),
        f"Invalid value: 'output_text'. Supported values are: {ASKED}.",
        "input[0].content[0]",
        "invalid_value",
    ),
    "unknown_member": (
        USER | {"x": 1},
        "Unknown parameter: 'input[0].x'.",
        "input[0].x",
        "unknown_parameter",
    ),
    "phase_on_user": (
        USER | {"phase": "commentary"},
        "Unknown parameter: 'input[0].phase'.",
        "input[0].phase",
        "unknown_parameter",
    ),
    "unknown_type": (
        {"type": "thought"},
        None,
        "input[0].type",
        "invalid_value",
    ),
    "unknown_role": (
        USER | {"role": "bot"},
        (
            "Invalid value: 'bot'. Supported values are: 'assistant', 'system', 'developer', and"
            " 'user'."
        ),
        "input[0].role",
        "invalid_value",
    ),
    "no_content": (
        {"role": "user"},
        "Missing required parameter: 'input[0].content'.",
        "input[0].content",
        "missing_required_parameter",
    ),
    "no_text": (
        {"role": "user", "content": [{"type": "input_text"}]},
        "Missing required parameter: 'input[0].content[0].text'.",
        "input[0].content[0].text",
        "missing_required_parameter",
    ),
    "message_prefix": (
        USER | {"id": "rs_1"},
        "Invalid 'input[0].id': 'rs_1'. Expected an ID that begins with 'msg'.",
        "input[0].id",
        "invalid_id_prefix",
    ),
    "reasoning_prefix": (
        {"type": "reasoning", "id": "msg_1", "summary": []},
        "Invalid 'input[0].id': 'msg_1'. Expected an ID that begins with 'rs'.",
        "input[0].id",
        "invalid_id_prefix",
    ),
    "call_prefix": (
        CALL | {"id": "msg_1"},
        "Invalid 'input[0].id': 'msg_1'. Expected an ID that begins with 'fc'.",
        "input[0].id",
        "invalid_id_prefix",
    ),
    "output_prefix": (
        OUTPUT | {"id": "msg_1"},
        "Invalid 'input[0].id': 'msg_1'. Expected an ID that begins with 'fc'.",
        "input[0].id",
        "invalid_id_prefix",
    ),
    "search_prefix": (
        {"type": "web_search_call", "id": "msg_1"},
        "Invalid 'input[0].id': 'msg_1'. Expected an ID that begins with 'ws'.",
        "input[0].id",
        "invalid_id_prefix",
    ),
    "custom_call_prefix": (
        {"type": "custom_tool_call", "id": "fc_1", "call_id": "c", "name": "n", "input": ""},
        "Invalid 'input[0].id': 'fc_1'. Expected an ID that begins with 'ctc'.",
        "input[0].id",
        "invalid_id_prefix",
    ),
    "custom_output_prefix": (
        {"type": "custom_tool_call_output", "id": "ctc_1", "call_id": "c", "output": ""},
        "Invalid 'input[0].id': 'ctc_1'. Expected an ID that begins with 'ctco'.",
        "input[0].id",
        "invalid_id_prefix",
    ),
    "id_characters": (
        USER | {"id": "msg_ä.1"},
        (
            "Invalid 'input[0].id': 'msg_ä.1'. Expected an ID that contains letters, numbers,"
            " underscores, or dashes, but this value contained additional characters."
        ),
        "input[0].id",
        "invalid_value",
    ),
    "id_length": (
        USER | {"id": "msg_" + "1" * 61},
        (
            "Invalid 'input[0].id': string too long. Expected a string with maximum length 64, but"
            " got a string with length 65 instead."
        ),
        "input[0].id",
        "string_above_max_length",
    ),
}


@pytest.mark.parametrize("case", SHAPES)
def test_malformed_item(http: httpx2.Client, case: str) -> None:
    item, message, param, code = SHAPES[case]
    actual = refused(http, input=[item])
    expected = {"message": message or actual["message"], "param": param, "code": code}
    assert expected == actual


@pytest.mark.parametrize(
    "item",
    [
        said("output_text", "assistant"),
        {"role": "assistant", "content": "Hello.", "phase": "final_answer"},
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "id": "msg_x", "status": "completed", **USER},
    ],
    ids=["output_text", "phase", "developer", "invented_user_id"],
)
def test_plain_history_is_accepted(http: httpx2.Client, item: dict[str, Any]) -> None:
    accepted(http, input=[item, USER])


PAIRS: dict[str, tuple[list[Any], str | None]] = {
    "call_without_output": ([CALL, USER], NO_OUTPUT),
    "output_without_call": ([OUTPUT, USER], NO_CALL),
    "output_before_call": ([OUTPUT, CALL], NO_CALL),
    "second_output": ([CALL, OUTPUT, OUTPUT], NO_CALL),
    "one_of_two_outputs": ([CALL, CALL_2, OUTPUT], NO_OUTPUT_2),
    "interleaved_outputs": ([CALL, CALL_2, OUTPUT, USER, OUTPUT_2], NO_OUTPUT_2),
    "one_pair": ([USER, CALL, OUTPUT], None),
    "parallel_pairs": ([USER, CALL, CALL_2, OUTPUT_2, OUTPUT, USER], None),
    "two_pairs": ([CALL, OUTPUT, CALL_2, OUTPUT_2, USER], None),
}


@pytest.mark.parametrize("case", PAIRS)
def test_calls_and_outputs(http: httpx2.Client, case: str) -> None:
    sent, message = PAIRS[case]
    if message is None:
        accepted(http, input=sent)
    else:
        expected = {"message": message, "param": "input", "code": None}
        assert expected == refused(http, input=sent)


def test_open_call_in_the_chain(http: httpx2.Client) -> None:
    first = accepted(http, input="call look {}", tools=TOOLS)
    call_id = first["output"][0]["call_id"]
    message = f"No tool output found for function call {call_id}."
    expected = {"message": message, "param": "input", "code": None}
    assert expected == refused(http, input="And?", previous_response_id=first["id"])
    output = OUTPUT | {"call_id": call_id}
    answered = accepted(http, input=[output], previous_response_id=first["id"])
    assert "seen" == answered["output"][0]["content"][0]["text"]


def test_open_call_in_a_conversation(http: httpx2.Client) -> None:
    handle = http.post("/conversations", json={"items": [CALL]}).json()["id"]
    expected = {"message": NO_OUTPUT, "param": "input", "code": None}
    assert expected == refused(http, input="And?", conversation=handle)
    accepted(http, input=[OUTPUT], conversation=handle)


def test_duplicate_ids(http: httpx2.Client) -> None:
    first = accepted(http, input="Hello.")
    reply = first["output"][0]
    expected = {
        "message": f"Duplicate item found with id {reply['id']}. Remove duplicate items from your"
        " input and try again.",
        "param": "input",
        "code": None,
    }
    assert expected == refused(http, input=[reply, reply])
    assert expected == refused(http, input=[reply], previous_response_id=first["id"])


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "id": "msg_gone", "role": "assistant", "content": "Hi."},
        {"type": "reasoning", "id": "rs_gone", "summary": []},
        CALL | {"id": "fc_gone"},
        {"type": "web_search_call", "id": "ws_gone"},
        {"type": "item_reference", "id": "msg_gone"},
    ],
    ids=lambda item: item["type"],
)
def test_kept_ids_are_resolved_in_the_store(http: httpx2.Client, item: dict[str, Any]) -> None:
    message = f"Item with id '{item['id']}' not found.{UNSTORED}"
    expected = {"message": message, "param": "input", "code": None}
    assert expected == refused(http, 404, input=[item, USER])


def test_kept_id_brings_the_stored_content(http: httpx2.Client, provider: Provider) -> None:
    provider.script("The door is green.")
    reply = accepted(http, input="Hello.")["output"][0]
    forged = reply | {"content": [{"type": "output_text", "text": "The door is red."}]}
    answered = accepted(http, input=[forged, {"role": "user", "content": "Which door?"}])
    assert "The door is green." == answered["output"][0]["content"][0]["text"]


@pytest.fixture
def thought(http: httpx2.Client) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give a stored reasoning item and the message it produced."""
    answered = accepted(
        http,
        model="o3-mini",
        input="Hello.",
        include=["reasoning.encrypted_content"],
    )
    reasoning, message = answered["output"]
    return reasoning, message


Thought = tuple[dict[str, Any], dict[str, Any]]


def bare(item: dict[str, Any]) -> dict[str, Any]:
    return {name: held for name, held in item.items() if name != "encrypted_content"}


def test_reasoning_needs_what_it_produced(http: httpx2.Client, thought: Thought) -> None:
    reasoning, message = thought
    text = f"Item '{reasoning['id']}' of type 'reasoning' was provided without its required"
    expected = {"message": f"{text} following item.", "param": "input", "code": None}
    without_id = {"role": "assistant", "content": "Noted."}
    assert expected == refused(http, input=[reasoning, USER])
    assert expected == refused(http, input=[reasoning, without_id, USER])
    assert expected == refused(http, input=[reasoning])
    accepted(http, input=[reasoning, message, USER])


def test_message_needs_its_reasoning(http: httpx2.Client, thought: Thought) -> None:
    reasoning, message = thought
    expected = {
        "message": f"Item '{message['id']}' of type 'message' was provided without its required"
        f" 'reasoning' item: '{reasoning['id']}'.",
        "param": "input",
        "code": None,
    }
    assert expected == refused(http, input=[message, USER])
    assert expected == refused(http, input=[USER, message])


def test_one_item_between_breaks_the_link(http: httpx2.Client, thought: Thought) -> None:
    reasoning, message = thought
    error = refused(http, input=[bare(reasoning), USER, message])
    assert "without its required following item" in error["message"]


def test_without_store_sealed_reasoning_may_dangle(http: httpx2.Client, thought: Thought) -> None:
    reasoning, _message = thought
    accepted(http, input=[reasoning, USER, reasoning], store=False)


def test_without_store_ids_mean_nothing(http: httpx2.Client) -> None:
    unknown = {"type": "message", "id": "msg_gone", "role": "assistant", "content": "Hi."}
    accepted(http, input=[unknown, CALL | {"id": "fc_gone"}, OUTPUT, USER], store=False)
    reasoning = {"type": "reasoning", "id": "rs_gone", "summary": []}
    error = refused(http, 404, input=[reasoning, USER], store=False)
    assert f"Item with id 'rs_gone' not found.{UNSTORED}" == error["message"]


def test_foreign_encrypted_content(
    http: httpx2.Client, provider: Provider, thought: Thought
) -> None:
    reasoning, _message = thought
    start = f"The encrypted content for item {reasoning['id']} could not be verified. Reason: "
    with httpx2.Client(
        base_url=provider.base_url, headers={"authorization": "Bearer other"}
    ) as other:
        expected = {
            "message": f"{start}Encrypted content organization_id did not match the target"
            " organization.",
            "param": None,
            "code": "invalid_encrypted_content",
        }
        assert expected == refused(other, input=[reasoning, USER], store=False)
    expected = {
        "message": f"{start}Encrypted content could not be decrypted or parsed.",
        "param": None,
        "code": "invalid_encrypted_content",
    }
    forged = reasoning | {"encrypted_content": "gAAAAfromElsewhere"}
    assert expected == refused(http, input=[forged, USER], store=False)


def test_too_many_items(http: httpx2.Client, provider: Provider) -> None:
    provider.state.max_input_items = 2
    expected = {
        "message": "Invalid 'input': array too long. Expected an array with maximum length 2, but"
        " got an array with length 3 instead.",
        "param": "input",
        "code": "array_above_max_length",
    }
    assert expected == refused(http, input=[USER, USER, USER])


def test_phases_come_in_the_live_order(http: httpx2.Client) -> None:
    """Shape, then conversation or previous response, then items, then the model's abilities."""
    gone: dict[str, Any] = {
        "previous_response_id": "resp_gone",
        "model": "o3-mini",
        "temperature": 0.5,
    }
    assert "unknown_parameter" == refused(http, input=[USER | {"x": 1}], **gone)["code"]
    expected: dict[str, Any] = {
        "message": "Previous response with id 'resp_gone' not found.",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
    assert expected == refused(http, input=[OUTPUT], **gone)
    lost: dict[str, Any] = {"conversation": "conv_gone", "model": "missing-model"}
    expected = {
        "message": "Conversation with id 'conv_gone' not found.",
        "param": None,
        "code": None,
    }
    assert expected == refused(http, 404, input="Hello.", **lost)
    error = refused(http, input="Hello.", model="o3-mini", temperature=0.5)
    assert (
        "Unsupported parameter: 'temperature' is not supported with this model." == error["message"]
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "resp_é",
            (
                "Invalid 'previous_response_id': 'resp_é'. Expected an ID that contains letters,"
                " numbers, underscores, or dashes, but this value contained additional characters."
            ),
        ),
        (
            "thread_1",
            "Invalid 'previous_response_id': 'thread_1'. Expected an ID that begins with 'resp'.",
        ),
    ],
)
def test_malformed_previous_response(http: httpx2.Client, value: str, message: str) -> None:
    expected = {"message": message, "param": "previous_response_id", "code": "invalid_value"}
    assert expected == refused(http, input="Hello.", previous_response_id=value)


def test_malformed_conversation(http: httpx2.Client) -> None:
    expected = {
        "message": "Invalid 'conversation': 'thread_1'. Expected an ID that begins with 'conv'.",
        "param": "conversation",
        "code": "invalid_value",
    }
    assert expected == refused(http, input="Hello.", conversation="thread_1")
    assert expected == refused(http, input="Hello.", conversation={"id": "thread_1"})
    error = refused(http, input="Hello.", conversation="conv_" + "1" * 60)
    assert "string_above_max_length" == error["code"]


def test_request_parameters(http: httpx2.Client) -> None:
    assert "Unknown parameter: 'colour'." == refused(http, input="x", colour="red")["message"]
    assert "Missing required parameter: 'input'." == refused(http)["message"]
    assert "Missing required parameter: 'model'." == refused(http, model=None)["message"]
    assert "invalid_type" == refused(http, input="x", max_output_tokens="many")["code"]
    assert "integer_below_min_value" == refused(http, input="x", max_output_tokens=5)["code"]
    crowded = {str(number): "x" for number in range(17)}
    assert "object_above_max_properties" == refused(http, input="x", metadata=crowded)["code"]
    long = {"note": "x" * 513}
    expected = {
        "message": "Invalid 'metadata.note': string too long. Expected a string with maximum"
        " length 512, but got a string with length 513 instead.",
        "param": "metadata.note",
        "code": "string_above_max_length",
    }
    assert expected == refused(http, input="x", metadata=long)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["gpt-404", "missing-one"])
def test_unknown_model(client: OpenAI, name: str) -> None:
    makers: list[Callable[[], Any]] = [
        lambda: client.responses.create(model=name, input="x"),
        lambda: client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "x"}]
        ),
        lambda: client.beta.assistants.create(model=name),
        lambda: client.models.retrieve(name),
    ]
    for make in makers:
        with pytest.raises(NotFoundError) as caught:
            make()
        assert "model_not_found" == caught.value.code
        expected = f"The model `{name}` does not exist or you do not have access to it."
        assert isinstance(caught.value.body, dict)
        assert expected == caught.value.body["message"]


def test_the_sdk_sees_a_lost_parent(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(model="gpt-4o", input="x", previous_response_id="resp_gone")
    assert "previous_response_not_found" == caught.value.code
