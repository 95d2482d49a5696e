"""The model knows what its context says and nothing else; what it forgets, it says so."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

from perdure.testing import Provider
from perdure.testing.provider import KNOWS_NOTHING, text
from perdure.testing.provider.model import Prompt, reply

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer"},
        },
    },
}


def user(said: str) -> dict[str, Any]:
    return {"role": "user", "content": said}


def answer(*items: Any, **more: Any) -> str:
    return text.text_of_item(reply(Prompt(items=items, **more))[0])


def test_quotes_what_bears_on_the_question() -> None:
    history = [
        user("I live in Lyon. My dog is called Rex."),
        {"role": "assistant", "content": "Noted: I live in Lyon. My dog is called Rex."},
        {"role": "developer", "content": "Dogs are welcome here."},
        user("I like chess."),
    ]
    assert "My dog is called Rex." == answer(*history, user("What is my pet called?"))
    assert "I live in Lyon." == answer(*history, user("Where do I live?"))
    both = "My dog is called Rex. Dogs are welcome here."
    assert both == answer(*history, user("Is my dog welcome somewhere, and what is he called?"))


def test_best_match_comes_first() -> None:
    history = [user("I have a red car."), user("I have a red bicycle from Oslo.")]
    expected = "I have a red bicycle from Oslo. I have a red car."
    assert expected == answer(*history, user("Which red bicycle?"))


def test_says_that_it_knows_nothing() -> None:
    assert KNOWS_NOTHING == answer(user("What is my dog called?"))
    again = [user("What is my dog called?"), {"role": "assistant", "content": KNOWS_NOTHING}]
    assert KNOWS_NOTHING == answer(*again, user("What is my dog called?"))
    assert KNOWS_NOTHING == answer(user("I like chess."), user("What is my dog called?"))


def test_instructions_and_outputs_are_context() -> None:
    assert "The code is 42." == answer(user("What is the code?"), instructions="The code is 42.")
    history = [
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "The code is 42."},
        {"role": "assistant", "content": "Done."},
    ]
    assert "The code is 42." == answer(*history, user("What is the code?"))


def test_a_statement_is_acknowledged() -> None:
    assert "Noted: My dog is Rex." == answer(user("My dog is Rex."))
    assert 130 > len(answer(user("word " * 1000)))


def test_function_is_called_when_it_bears_on_the_message() -> None:
    asked = user("What's the weather like in San Francisco today?")
    expected = {
        "type": "function_call",
        "name": "get_weather",
        "arguments": '{"location":"San Francisco","unit":"celsius","days":1}',
    }
    assert [expected] == reply(Prompt(items=[asked], tools=[WEATHER]))
    assert KNOWS_NOTHING == answer(asked, tools=[WEATHER], tool_choice="none")
    assert KNOWS_NOTHING == answer(user("Who am I?"), tools=[WEATHER])
    output = {"type": "function_call_output", "call_id": "c", "output": "Fog, 12 degrees."}
    assert "Fog, 12 degrees." == answer(asked, output, tools=[WEATHER])


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "get_weather"},
        {"type": "function", "function": {"name": "get_weather"}},
    ],
    ids=["required", "named", "nested"],
)
def test_function_is_called_when_forced(choice: Any) -> None:
    said = reply(Prompt(items=[user("Hello.")], tools=[WEATHER], tool_choice=choice))
    assert ["get_weather"] == [item["name"] for item in said]


def test_explicit_calls() -> None:
    said = reply(Prompt(items=[user('call look {"at": 1}\ncall wait')]))
    assert [("look", '{"at": 1}'), ("wait", "{}")] == [
        (item["name"], item["arguments"]) for item in said
    ]


def test_ten_thousand_items_stay_quick() -> None:
    items = [user(f"Fact {number} is about topic {number * 7}.") for number in range(10_000)]
    prompt = Prompt(items=[*items, user("Which fact is about topic 42?")])
    reply(prompt)
    start = time.process_time()
    said = text.text_of_item(reply(prompt)[0])
    prompt.tokens()
    assert said.startswith("Fact 6 is about topic 42.")
    assert 0.5 > time.process_time() - start


@given(st.text())
def test_pieces_join_to_the_text(said: str) -> None:
    assert said == "".join(text.pieces(said))


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_cut_text_is_a_prefix_within_the_limit(said: str, limit: int) -> None:
    cut = text.cut_tokens(said, limit)
    assert said.startswith(cut)
    assert min(limit, text.count_tokens(said)) == text.count_tokens(cut)


@given(st.text())
def test_a_question_is_never_quoted_back(asked: str) -> None:
    assert KNOWS_NOTHING == answer(user(f"{text.WORD.findall(asked)} where?"))


def test_chain_remembers_and_a_missing_link_forgets(client: OpenAI, provider: Provider) -> None:
    def say(said: str, previous: str | None = None) -> Any:
        return client.responses.create(model="gpt-4o", input=said, previous_response_id=previous)

    first = say("My dog is Rex.")
    second = say("I like chess.", first.id)
    third = say("Who is my dog?", second.id)
    assert "My dog is Rex." == third.output_text
    client.responses.delete(first.id)
    assert "I like chess." == say("What do I like?", third.id).output_text
    provider.forget(second.id)
    assert KNOWS_NOTHING == say("What about chess?", third.id).output_text


def test_instructions_are_not_inherited(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-4o", input="Hello.", instructions="The code is 42.")
    second = client.responses.create(
        model="gpt-4o", input="What is the code?", previous_response_id=first.id
    )
    assert KNOWS_NOTHING == second.output_text
    assert second.instructions is None


def test_usage_counts_the_whole_context(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-4o", input="My dog is Rex.")
    second = client.responses.create(model="gpt-4o", input="Who?", previous_response_id=first.id)
    assert first.usage is not None
    assert second.usage is not None
    own = text.count_items([user("Who?")])
    expected = first.usage.input_tokens + first.usage.output_tokens + own
    assert expected == second.usage.input_tokens
    assert 9 == first.usage.input_tokens
    counted = client.responses.input_tokens.count(
        model="gpt-4o", input="Who?", previous_response_id=first.id
    )
    assert expected == counted.input_tokens


def test_output_is_cut_at_its_limit(client: OpenAI) -> None:
    response = client.responses.create(
        model="gpt-4o", input="Well. " + "word " * 40, max_output_tokens=16
    )
    assert "incomplete" == response.status
    assert response.incomplete_details is not None
    assert "max_output_tokens" == response.incomplete_details.reason
    assert 16 == text.count_tokens(response.output_text)


def test_scripted_outputs_come_first(client: OpenAI, provider: Provider) -> None:
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    call = {"type": "function_call", "name": "look", "arguments": {"at": 1}}
    provider.script("One.", [refusal], [call])
    said: list[Any] = [
        client.responses.create(model="gpt-4o", input="Hello.") for _turn in range(4)
    ]
    assert ["One.", "", "", "Noted: Hello."] == [response.output_text for response in said]
    assert "No." == said[1].output[0].content[0].refusal
    assert ("look", '{"at": 1}') == (
        said[2].output[0].name,
        said[2].output[0].arguments,
    )


def test_compaction_is_remembered(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-4o", input="My dog is Rex.")
    compacted = client.responses.compact(model="gpt-4o", previous_response_id=first.id)
    assert ["message", "compaction"] == [item.type for item in compacted.output]
    sealed: Any = compacted.output[1].model_dump(exclude_none=True)
    sent: Any = [sealed, user("Who is my dog?")]
    response = client.responses.create(model="gpt-4o", input=sent)
    assert "My dog is Rex." == response.output_text
