"""What an item counts for: what the provider said, what a counter says, else an upper estimate."""

from __future__ import annotations

import json

import perdure
from perdure.counting import openai_tokens
from perdure.dialects.items import new_item
from perdure.dialects.tokens import message_tokens, tokens_of
from tests.world import World

WORDS = "My dog is called Rex and he likes long walks."


def test_an_answer_counts_for_what_the_provider_counted(world: World) -> None:
    answered = world.app().respond(WORDS)

    rows = world.rows("SELECT role, tokens FROM perdure_item ORDER BY key")
    assert [
        ("user", message_tokens(WORDS)),
        ("assistant", answered.usage.output_tokens + 4),
    ] == rows


def test_a_counter_of_the_callers_counts_what_is_sent(world: World) -> None:
    world.app(policy=perdure.Policy(count_tokens=openai_tokens("gpt-4o"))).respond(WORDS)

    assert [(len(WORDS.split()) + 1 + 4,)] == world.rows(
        "SELECT tokens FROM perdure_item WHERE role = 'user'"
    )


def test_the_estimate_is_of_what_is_said_and_never_too_low() -> None:
    exact = openai_tokens()
    for text in (WORDS, "Größenwahn, überall!", "日本語の文章です。", "x" * 4_000, ""):
        item = new_item({"type": "message", "role": "user", "content": text or " "})
        assert exact(text) <= tokens_of(item)
        assert message_tokens(text or " ") >= tokens_of(item) - len(json.dumps(text))


def test_a_picture_does_not_count_for_its_bytes() -> None:
    url = f"data:image/png;base64,{'A' * 400_000}"
    content = [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": url}]

    assert 1_500 < tokens_of(new_item({"role": "user", "content": content})) < 1_700
