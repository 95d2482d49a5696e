"""Items of every type that the SDK knows: which members they have, what must pair off, how long."""

from typing import Any

import httpx2
import pytest

from perdure.testing import Provider
from perdure.testing.provider import items, schema
from tests import replay_rules as rules
from tests.histories import ANSWERED, SAMPLES, TOOL, Json, call, output

USER = {"role": "user", "content": "Hello."}
MODEL = "gpt-5.6"


def post(http: httpx2.Client, **body: Any) -> Any:
    return http.post("/responses", json={"model": MODEL, **body})


def error(answer: Any) -> tuple[str, str | None, str | None]:
    assert 400 == answer.status_code, answer.text
    told = answer.json()["error"]
    return told["message"], told["param"], told["code"]


def test_every_type_and_its_members_are_those_of_the_sdk() -> None:
    assert set(rules.TYPES) == set(schema.REQUIRED) == set(SAMPLES)
    for kind in sorted(set(schema.REQUIRED) - schema.BUILT_IN):
        members = {name for form in rules.TYPES[kind] for name in form}
        known = {"type", *schema.REQUIRED[kind], *schema.OPTIONAL[kind]}
        known |= {"phase"} if kind == "message" else set()
        # What a provider lists may be sent back: a status, and who made an item.
        assert members - known == set(), kind
        assert known - members <= {"status", "created_by"}, kind


def test_the_items_that_need_no_more_than_their_id_are_those_of_the_sdk() -> None:
    # A reasoning item without an id is refused elsewhere, and only if it says nothing; the output
    # of a local shell has its call's id.
    assert rules.BY_ID - {"reasoning", "local_shell_call_output"} == schema.BUILT_IN


def test_every_call_that_the_sdk_knows_has_its_output() -> None:
    # A program is run by the server, which lists both.
    assert rules.OUTPUT_OF.items() - {("program", "program_output")} == items.CALLS.items()


@pytest.mark.parametrize("kind", ANSWERED)
def test_a_call_needs_its_output(http: httpx2.Client, kind: str) -> None:
    words = kind.replace("_", " ")
    expected = (f"No tool output found for {words} call_a.", "input", None)

    assert expected == error(post(http, input=[call(kind, "call_a"), USER]))


@pytest.mark.parametrize("kind", ANSWERED)
def test_an_output_needs_its_call(http: httpx2.Client, kind: str) -> None:
    words = rules.OUTPUT_OF[kind].replace("_", " ")
    expected = (f"No tool call found for {words} with call_id call_a.", "input", None)

    assert expected == error(post(http, input=[output(kind, "call_a"), USER]))
    other = call("function_call" if kind != "function_call" else "shell_call", "call_a")
    assert expected == error(post(http, input=[other, output(kind, "call_a"), USER]))


@pytest.mark.parametrize("kind", ANSWERED)
def test_a_pair_is_taken(http: httpx2.Client, kind: str) -> None:
    pair = [call(kind, "call_a"), output(kind, "call_a")]

    assert 200 == post(http, input=[*pair, USER]).status_code


@pytest.mark.parametrize("kind", ["computer_call", "local_shell_call"])
def test_a_call_that_is_built_in_needs_its_output_too(
    http: httpx2.Client, provider: Provider, kind: str
) -> None:
    provider.script(SAMPLES[kind].said)
    made = post(http, input=[USER]).json()
    called = made["output"][0]["call_id"]
    expected = (f"No tool output found for {kind.replace('_', ' ')} {called}.", "input", None)

    assert expected == error(post(http, input=[USER], previous_response_id=made["id"]))


def test_the_output_of_a_local_shell_has_the_id_of_its_call(
    http: httpx2.Client, provider: Provider
) -> None:
    provider.script(SAMPLES["local_shell_call"].said)
    handle = http.post("/conversations", json={}).json()["id"]
    post(http, input=[USER], conversation=handle)
    done = {"type": "local_shell_call_output", "id": "call_sh", "output": "{}"}
    listed = http.post(f"/conversations/{handle}/items", json={"items": [done]}).json()["data"]

    assert [done | {"status": "completed"}] == listed
    assert 200 == post(http, input=[USER], conversation=handle).status_code


def test_a_search_by_the_server_needs_no_answer(http: httpx2.Client) -> None:
    search = {"type": "tool_search_call", "arguments": {}, "execution": "server"}
    found = {"type": "tool_search_output", "tools": [TOOL], "execution": "server"}

    assert 200 == post(http, input=[search, found, USER]).status_code


def test_an_approval_needs_its_request(http: httpx2.Client) -> None:
    approval = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    expected = ("No approval request found with id 'mcpr_1'.", "input", None)

    assert expected == error(post(http, input=[approval, USER]))


def test_a_request_to_compact_is_the_last_item(http: httpx2.Client) -> None:
    trigger = {"type": "compaction_trigger"}
    message = "Invalid 'input[0]': 'compaction_trigger' must be the final input item."

    assert (message, "input[0]", None) == error(post(http, input=[trigger, USER]))
    assert 200 == post(http, input=[USER, trigger]).status_code


def test_a_call_comes_back_in_its_namespace(http: httpx2.Client) -> None:
    tools = [{"type": "namespace", "name": "sky", "description": "The sky.", "tools": [TOOL]}]
    pair = [call("function_call", "call_a"), output("function_call", "call_a")]
    message = (
        "Missing namespace for function_call 'look'. It does not exist in the default namespace."
        " Round-trip the model's function_call item with its namespace field included."
    )

    assert (message, "input[0].namespace", None) == error(post(http, input=pair, tools=tools))
    assert 200 == post(http, input=pair, tools=[*tools, TOOL]).status_code
    spaced = [pair[0] | {"namespace": "sky"}, pair[1]]
    assert 200 == post(http, input=spaced, tools=tools).status_code


@pytest.mark.parametrize("kind", ["function_call", "web_search_call"])
def test_what_is_kept_with_its_id_needs_its_reasoning(
    http: httpx2.Client, provider: Provider, kind: str
) -> None:
    provider.script([{"type": "reasoning"}, *SAMPLES[kind].said[:1]])
    reasoning, made = post(http, input=[USER]).json()["output"]
    message = (
        f"Item '{made['id']}' of type '{kind}' was provided without its required 'reasoning'"
        f" item: '{reasoning['id']}'."
    )

    assert (message, "input", None) == error(post(http, input=[made, USER]))


TEXT = "x" * (schema.MAX_TEXT_CHARS + 1)
LONG: dict[str, tuple[Any, str, int]] = {
    "input": (TEXT, "input", schema.MAX_TEXT_CHARS),
    "content": ([USER | {"content": TEXT}], "input[0].content", schema.MAX_TEXT_CHARS),
    "part": (
        [USER | {"content": [{"type": "input_text", "text": TEXT}]}],
        "input[0].content[0].text",
        schema.MAX_TEXT_CHARS,
    ),
    "output": (
        [output("function_call", "call_a", TEXT)],
        "input[0].output",
        schema.MAX_TEXT_CHARS,
    ),
    "output_part": (
        [output("custom_tool_call", "call_a", TEXT)],
        "input[0].output[0].text",
        schema.MAX_TEXT_CHARS,
    ),
    "stdout": (
        [output("shell_call", "call_a", TEXT)],
        "input[0].output[0].stdout",
        schema.MAX_TEXT_CHARS,
    ),
    "arguments": (
        [call("function_call", "call_a") | {"arguments": "x" * 1_048_577}],
        "input[0].arguments",
        1_048_576,
    ),
}


@pytest.mark.parametrize("case", LONG)
def test_a_text_is_too_long(http: httpx2.Client, case: str) -> None:
    sent, param, limit = LONG[case]
    message = (
        f"Invalid '{param}': string too long. Expected a string with maximum length {limit}, but"
        f" got a string with length {limit + 1} instead."
    )

    assert (message, param, "string_above_max_length") == error(post(http, input=sent))


WRONG: dict[str, tuple[Json, str, str]] = {
    "text": (call("function_call", "call_a") | {"arguments": {}}, "arguments", "invalid_type"),
    "call_id": (call("shell_call", "call_a") | {"call_id": 5}, "call_id", "invalid_type"),
    "output": (output("function_call", "call_a") | {"output": 5}, "output", "invalid_type"),
    "part": (
        output("function_call", "call_a") | {"output": [{"type": "output_text", "text": "a"}]},
        "output[0]",
        "invalid_value",
    ),
    "chunk": (
        output("shell_call", "call_a") | {"output": [{"stdout": "a"}]},
        "output[0].stderr",
        "missing_required_parameter",
    ),
    "unknown": (
        call("shell_call", "call_a") | {"created_by": "me"},
        "created_by",
        "unknown_parameter",
    ),
    "status": (
        {"type": "apply_patch_call", "call_id": "call_a", "operation": {}},
        "status",
        "missing_required_parameter",
    ),
    "role": (
        {"type": "additional_tools", "role": "user", "tools": []},
        "role",
        "invalid_value",
    ),
    "phase": (
        {"role": "assistant", "content": "Hi.", "phase": "thinking"},
        "phase",
        "invalid_value",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_member_is_wrong(http: httpx2.Client, case: str) -> None:
    item, member, code = WRONG[case]

    assert (f"input[0].{member}", code) == error(post(http, input=[item]))[1:]
