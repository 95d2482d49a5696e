"""What of a history reaches the model: cut to fit, compacted, cached, and how it is counted."""

from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from perdure.testing import Provider
from perdure.testing.provider import text

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
LONG = "word " * 1_100


def tokens(response: Any) -> int:
    counted: int = response.usage.input_tokens
    return counted


def talked(client: OpenAI, **more: Any) -> Any:
    first = client.responses.create(model="gpt-4o", input=FACT)
    return client.responses.create(
        model="gpt-4o", input=LONG, previous_response_id=first.id, **more
    )


def test_an_input_that_does_not_fit_is_refused(client: OpenAI, provider: Provider) -> None:
    provider.state.max_context_tokens = 1_000
    with pytest.raises(BadRequestError, match="exceeds the context window") as refused:
        talked(client)
    assert ("context_length_exceeded", "input") == (refused.value.code, refused.value.param)


def test_truncation_drops_the_oldest_items(client: OpenAI, provider: Provider) -> None:
    head = talked(client)
    provider.state.max_context_tokens = 1_160

    answer = client.responses.create(
        model="gpt-4o", input=QUESTION, previous_response_id=head.id, truncation="auto"
    )

    assert "Rex" not in answer.output_text
    assert 1_100 < tokens(answer) <= 1_160
    whole = client.responses.create(
        model="gpt-4o", input="Hello.", previous_response_id=head.id, truncation="auto"
    )
    assert "auto" == whole.truncation


def test_a_history_over_its_threshold_is_compacted(client: OpenAI) -> None:
    head = talked(client)
    settings: Any = [{"type": "compaction", "compact_threshold": 1_000}]

    answer = client.responses.create(
        model="gpt-4o", input="Hello.", previous_response_id=head.id, context_management=settings
    )
    after = client.responses.create(model="gpt-4o", input=QUESTION, previous_response_id=answer.id)

    assert ["compaction", "message"] == [item.type for item in answer.output]
    assert "Rex" in after.output_text, "what was compacted is not forgotten"
    assert tokens(after) < 300
    assert ["message"] == [
        item.type
        for item in client.responses.create(
            model="gpt-4o", input="Hello.", context_management=settings
        ).output
    ]


@pytest.mark.parametrize("apart", [False, True])
def test_what_was_seen_before_is_cached(client: OpenAI, provider: Provider, apart: bool) -> None:
    head = talked(client)
    provider.state.counts_cached_apart = apart

    answer: Any = client.responses.create(
        model="gpt-4o", input=QUESTION, previous_response_id=head.id
    )

    cached = answer.usage.input_tokens_details.cached_tokens
    assert (1_152, 0) == (cached, cached % 128)
    assert (tokens(answer) < 100) == apart


def test_an_image_is_counted_by_its_detail(client: OpenAI) -> None:
    def asked(detail: str) -> int:
        part: Any = {"type": "input_image", "image_url": "https://a.example/a", "detail": detail}
        return tokens(
            client.responses.create(model="gpt-4o", input=[{"role": "user", "content": [part]}])
        )

    assert text.IMAGE_TOKENS - text.LOW_IMAGE_TOKENS == asked("high") - asked("low")


def test_another_tokenizer_counts_otherwise(client: OpenAI) -> None:
    counts = {
        model: tokens(client.responses.create(model=model, input=LONG))
        for model in ("gpt-5.6", "gpt-5.6-mini", "gpt-6")
    }
    assert {"gpt-5.6": 1_104, "gpt-5.6-mini": 1_435, "gpt-6": 883} == counts


def test_hidden_reasoning_is_in_the_input_until_the_run_of_calls_ends(
    client: OpenAI, provider: Provider
) -> None:
    provider.state.reasoning_tokens = 500
    asked: Any = client.responses.create(model="o3-mini", input="call look {}")
    call = next(item for item in asked.output if item.type == "function_call")
    provider.state.reasoning_tokens = 0
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "A star."}

    told = client.responses.create(model="o3-mini", input=[output], previous_response_id=asked.id)
    after = client.responses.create(model="o3-mini", input="Thanks.", previous_response_id=told.id)

    assert 504 == asked.usage.output_tokens_details.reasoning_tokens
    assert (True, True) == (tokens(told) > 500, tokens(after) < 100)
