"""What an error means for the replica: every shape that servers were seen to answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

import perdure
from perdure.dialects.verdicts import fault_in, fault_of, judge, read_rules, rules
from perdure.errors import ConfigurationError
from perdure.testing import Fault, Provider
from tests.world import World, recovered

FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
RESP, CONV, THREAD = "resp_1", "conv_1", "thread_1"


def error(message: str, code: str | int | None = None, param: str | None = None) -> dict[str, Any]:
    return {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": param,
            "code": code,
        }
    }


GONE: list[tuple[str, str, int, Any]] = [
    ("responses", RESP, 400, error(f"Previous response with id '{RESP}' not found.",
     "previous_response_not_found", "previous_response_id")),
    ("responses", RESP, 404, error(f"Response with id '{RESP}' not found.")),
    ("responses", RESP, 400, error("Invalid `previous_response_id`.")),
    ("responses", RESP, 400, error("Container is expired.")),
    ("responses", RESP, 404, {"error": f"Response {RESP} not found"}),
    ("responses", RESP, 404, {"detail": f"Response with id '{RESP}' not found."}),
    ("responses", RESP, 404, {"message": f"Previous response '{RESP}' was not found"}),
    ("conversations", CONV, 404, error(f"Conversation with id '{CONV}' not found.")),
    ("conversations", CONV, 404, error(f"Conversation with id '{CONV}' not found.", 404)),
    ("threads", THREAD, 404, error(f"No thread found with id '{THREAD}'.")),
]  # fmt: skip

FOREIGN: list[tuple[str, str, int, Any]] = [
    ("conversations", CONV, 404, error("Prompt with id 'pmpt_x' not found.")),
    ("responses", RESP, 404, error("The model `gpt-404` does not exist or you do not have access.",
     "model_not_found")),
    ("threads", THREAD, 404, error("No assistant found with id 'asst_1'.")),
    ("threads", THREAD, 404, error("No run found with id 'run_1'.")),
    ("threads", THREAD, 400, error(f"Can't add messages to {THREAD} while a run run_1 is active.")),
    ("threads", THREAD, 410, error("The Assistants API has been retired",
     "assistants_api_deprecated")),
    ("conversations", CONV, 404, error("Invalid URL (POST /v1/conversations)")),
    ("responses", RESP, 401, error("Incorrect API key provided.", "invalid_api_key")),
    ("responses", RESP, 429, error("You exceeded your current quota.", "insufficient_quota")),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "handle", "status", "body"), GONE)
def test_a_loss_is_recognised(dialect: str, handle: str, status: int, body: Any) -> None:
    assert "gone" == judge(fault_of(status, json.dumps(body).encode()), dialect, handle).verdict


@pytest.mark.parametrize(("dialect", "handle", "status", "body"), FOREIGN)
def test_what_only_seems_a_loss(dialect: str, handle: str, status: int, body: Any) -> None:
    assert "foreign" == judge(fault_of(status, json.dumps(body).encode()), dialect, handle).verdict


def test_a_loss_inside_a_stream_is_recognised_by_the_same_rules() -> None:
    event = {"type": "error", **error("x", "previous_response_not_found")["error"]}

    assert "gone" == judge(fault_in(200, event), "responses", RESP).verdict


def test_every_rule_names_its_source_and_date() -> None:
    assert [] == [rule.name for rule in rules() if not rule.source or not rule.date]


# -- what no rule knows -----------------------------------------------------------------------


def odd(handle: str | None) -> dict[str, Any]:
    """An error in words that no rule knows."""
    about = f" ({handle})" if handle else ""
    return {"error": {"message": f"Session state unavailable{about}", "code": "E1042"}}


@pytest.mark.parametrize("named", [True, False], ids=["names the handle", "does not"])
def test_an_unknown_error_is_probed_and_then_known(world: World, *, named: bool) -> None:
    app = world.app()
    conversations = [app.call("conversations.create").id for _ in range(2)]
    for handle in conversations:
        app.respond(FACT, conversation=handle)
    world.forgets()
    asked = []
    for handle in conversations:
        body = odd(handle if named else None)
        world.provider.order(Fault("status", status=400, body=body, match="POST /responses$"))
        assert FACT in app.respond(QUESTION, conversation=handle).output_text
        asked.append(len(world.asked()))
        world.provider.clear_requests()

    # Only an error that names its handle can be told from others the next time.
    assert [4, 3 if named else 4] == asked


def test_an_unknown_error_about_something_else_is_passed_on(world: World) -> None:
    app = world.app()
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.provider.clear_requests()
    fault = Fault("status", status=400, body=odd(conversation), match="POST /responses$")
    world.provider.order(fault)

    with pytest.raises(openai.BadRequestError, match="Session state unavailable"):
        app.respond(QUESTION, conversation=conversation)

    assert [("POST responses", 400), ("GET conversations/conv", 200)] == world.asked()
    assert [] == world.recoveries


def test_a_rule_of_ones_own_is_asked_first(world: World) -> None:
    own = """
    [[rule]]
    name = "our-gateway"
    verdict = "gone"
    status = [400]
    code = "E1042"
    """
    app = world.app(policy=perdure.Policy(verdict_rules=own))
    conversation = app.call("conversations.create").id
    app.respond(FACT, conversation=conversation)
    world.provider.clear_requests()
    fault = Fault("status", status=400, body=odd(None), match="POST /responses$")
    world.provider.order(fault)

    answer = app.respond(QUESTION, conversation=conversation)

    assert FACT in answer.output_text
    assert 3 == (recovered(answer) or {})["requests"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]]\nname = 'a'", "status is missing, verdict is missing"),
        ("[[rule]]\nname = 'a'\nverdict = 'dead'\nstatus = [400]", "'dead' is none of gone"),
        ("[[rule]]\nname = 'a'\nverdict = 'gone'\nstatus = [400]\nmesage = 'x'", "mesage is u"),
        ("[[rule]]\nname = 'a'\nverdict = 'gone'\nstatus = [400]\nmessage = '('", "message: "),
        ("not toml", "not TOML"),
    ],
)  # fmt: skip
def test_a_rule_with_a_mistake_is_refused_at_construction(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        perdure.http_client("sqlite://", policy=perdure.Policy(verdict_rules=text))
    with pytest.raises(ConfigurationError):
        read_rules(text)


# -- perdure doctor ---------------------------------------------------------------------------


def doctor(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    start = "import sys; from perdure.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "doctor", "--base-url", url, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_doctor_shows_the_answers_and_the_rules_that_catch_them() -> None:
    with Provider() as provider:
        done = doctor(provider.base_url, "--api-key", "k")

    assert (0, "") == (done.returncode, done.stderr)
    for rule in ("response-not-found", "conversation-not-found", "thread-not-found"):
        assert f"verdict  gone (rule {rule})" in done.stdout


def test_doctor_tells_of_a_server_whose_losses_would_be_missed(tmp_path: Path) -> None:
    own = tmp_path / "rules.toml"
    own.write_text("[[rule]]\nname = 'wrong'\nverdict = 'foreign'\nstatus = [400, 404]\n")
    with Provider() as provider:
        done = doctor(provider.base_url, "--api-key", "k", "--rules", str(own))

    assert 1 == done.returncode
    assert "6 of these would be taken for something else than a loss" in done.stdout


def test_doctor_says_when_nobody_is_there() -> None:
    done = doctor("http://127.0.0.1:9/v1")

    assert done.returncode != 0
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
