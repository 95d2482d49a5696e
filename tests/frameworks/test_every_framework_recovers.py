"""Whoever sits on the OpenAI SDK recovers without a change of theirs."""

from __future__ import annotations

import pytest

from tests.frameworks.site import Site
from tests.frameworks.ways import EACH, WAYS

FACT = "My dog is called Rex."
OTHER_FACT = "My cat is called Tom."
QUESTION = "What is my dog called?"
OTHER_QUESTION = "What is my cat called?"

every_way = pytest.mark.parametrize(("name", "style"), EACH, ids=[", ".join(each) for each in EACH])
bare = pytest.mark.parametrize("site", [False], ids=["bare"], indirect=True)


@bare
@every_way
def test_before_the_same_code_raises(site: Site, name: str, style: str) -> None:
    app = WAYS[name](site, style)
    app.say(FACT)
    assert FACT in app.say(QUESTION)
    site.loses(app.handle)

    with pytest.raises(Exception, match="not found") as caught:
        app.say(QUESTION)

    assert 0 == site.answers()
    print(name, style, type(caught.value).__mro__, caught.value)


@every_way
def test_a_loss_ends_in_one_answered_turn_that_knows_everything(
    site: Site, name: str, style: str
) -> None:
    app = WAYS[name](site, style)
    replies = {message: app.say(message) for message in (FACT, OTHER_FACT)}
    handle = app.handle
    assert handle.startswith({"conversation": "conv_", "response": "resp_"}[app.keeps])
    site.loses(handle)

    replies[QUESTION] = app.say(QUESTION)

    assert FACT in replies[QUESTION]
    assert 1 == site.answers()
    assert [("gone", "full", handle)] == [
        (told.reason, told.memory, told.lost_handle) for told in site.recoveries
    ]
    assert [] == site.unanswered()

    replies[OTHER_QUESTION] = app.say(OTHER_QUESTION)

    assert OTHER_FACT in replies[OTHER_QUESTION]
    assert 2 == site.answers()
    assert 1 == len(site.recoveries)
    assert [
        line for said, reply in replies.items() for line in (("user", said), ("assistant", reply))
    ] == site.transcript(handle)
