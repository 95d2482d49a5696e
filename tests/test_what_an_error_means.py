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
from perdure.dialects.verdicts import (
    Rule,
    fault_in,
    fault_of,
    judge,
    judge_probed,
    learn,
    read_rules,
    rules,
)
from perdure.errors import ConfigurationError
from perdure.testing import Fault, Provider
from tests.world import MODEL, World, recovered

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
    ("responses", RESP, 404, {"error": {"code": "DeploymentNotFound", "message":
     "The API deployment for this resource does not exist. If you created the deployment within "
     "the last 5 minutes, please wait a moment and try again."}}),
    ("responses", RESP, 404, error("Deployment unavailable.", "DeploymentNotFound")),
    ("responses", RESP, 404, {"detail": "The API deployment for this resource does not exist."}),
    ("responses", RESP, 404, error("Unknown model: gpt-404")),
    ("responses", RESP, 404, {"error": 'model "gpt-404" not found, try pulling it first'}),
    ("responses", RESP, 404, error("x", "model_not_found")),
    ("responses", RESP, 404, error("litellm.NotFoundError: OpenAIException - The model `m` does "
     "not exist")),
    ("conversations", CONV, 404, error("The requested deployment could not be found.")),
    ("conversations", CONV, 404, error("Model gpt-5 is not supported in this region 'eastus2'.")),
    ("conversations", CONV, 404, error("Responses are not available in your region.")),
    ("conversations", CONV, 404, error("Region 'mars-1' not found.")),
    ("threads", THREAD, 404, error("Cannot find the assistant asst_1.")),
    ("threads", THREAD, 404, error("Invalid file: file-1")),
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

NAMED, GENERIC = f"no {RESP} here", "Not Found"
TOOL = "Tool 0 is bad."

#: What a call was answered, and then the reading of its handle (None: it is there).
PROBED: list[tuple[tuple[int, str], tuple[int, str] | None, str]] = [
    ((404, GENERIC), (404, GENERIC), "gone"),
    ((404, ""), (404, ""), "gone"),
    ((410, "expired"), (410, "expired"), "gone"),
    ((404, GENERIC), (404, f"Response with id '{RESP}' not found."), "gone"),
    ((400, TOOL), (404, NAMED), "gone"),
    ((400, TOOL), (410, NAMED), "gone"),
    ((400, TOOL), (404, GENERIC), "foreign"),  # a server without the route says this of anything
    ((400, TOOL), (404, f"Cannot GET /v1/responses/{RESP}"), "foreign"),
    ((400, TOOL), (404, f"no {RESP}2 here"), "foreign"),
    ((400, TOOL), (400, NAMED), "foreign"),
    ((404, GENERIC), (405, NAMED), "foreign"),
    ((404, GENERIC), (403, NAMED), "foreign"),
    ((404, GENERIC), (404, "Unknown model: m"), "foreign"),
    ((404, GENERIC), (404, "Invalid URL (GET /v1/responses)"), "foreign"),
    ((404, GENERIC), (500, NAMED), "foreign"),
    ((404, GENERIC), None, "foreign"),
    ((200, "failed"), (404, NAMED), "gone"),  # the first event of a stream
    ((200, "failed"), (404, GENERIC), "foreign"),
]


@pytest.mark.parametrize(("call", "probe", "verdict"), PROBED)
def test_reading_the_handle_decides(
    call: tuple[int, str], probe: tuple[int, str] | None, verdict: str
) -> None:
    answered = None if probe is None else fault_in(*probe)

    assert verdict == judge_probed(fault_in(*call), answered, "responses", RESP).verdict


SHAPES: dict[str, dict[str, Any]] = {
    "another text": error("Conversation 'HANDLE' not found"),
    "names it": error("session HANDLE does not exist", 404),
    "detail": {"detail": "Not Found"},
    "text": {"error": "not found"},
    "a code alone": error("nope", "conversation_not_found"),
    "a type alone": {"error": {"message": "Requested entity was not found.", "type": "not_found"}},
}


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["conversation", "previous_response_id"])
def test_a_loss_in_the_words_of_an_unknown_server(
    world: World, kind: str, shape: str, status: int
) -> None:
    app = world.app()
    handle = _begun(app, kind)
    body = json.loads(json.dumps(SHAPES[shape]).replace("HANDLE", handle))
    world.forgets()
    world.provider.order(Fault("status", status=status, body=body, match="POST /responses$"))
    path = f"GET /{'conversations' if kind == 'conversation' else 'responses'}/"
    world.provider.order(Fault("status", status=status, body=body, match=path))

    answer = app.respond(QUESTION, **{kind: handle})

    assert FACT in answer.output_text
    assert ["gone"] == [recovery.reason for recovery in world.recoveries]


def _begun(app: Any, kind: str) -> str:
    if kind == "previous_response_id":
        return str(app.respond(FACT).id)
    handle = str(app.call("conversations.create").id)
    app.respond(FACT, conversation=handle)
    return handle


@pytest.mark.parametrize("probe", ["names the handle", "does not"])
def test_a_loss_in_a_stream_in_the_words_of_an_unknown_server(world: World, probe: str) -> None:
    app = world.app()
    handle = app.respond(FACT).id
    world.forgets()
    world.provider.order(Fault("loss_in_200", form="erased"))
    words = f"session {handle} does not exist" if probe == "names the handle" else "Not Found"
    match = "GET /responses/"
    world.provider.order(Fault("status", status=404, body=error(words), match=match))

    events = app.events(
        "responses.create", model=MODEL, input=QUESTION, previous_response_id=handle
    )

    last = "response.completed" if probe == "names the handle" else "response.failed"
    assert last == events[-1].type


def test_a_mistake_of_the_apps_is_no_loss_where_handles_cannot_be_read(world: World) -> None:
    app = world.app()
    handle = _begun(app, "conversation")
    world.provider.order(Fault("status", status=400, body=error(TOOL), match="POST /responses$"))
    without_route = {"detail": "Not Found"}
    match = "GET /conversations/"
    world.provider.order(Fault("status", status=404, body=without_route, match=match))

    with pytest.raises(openai.BadRequestError, match=TOOL):
        app.respond(QUESTION, conversation=handle)

    assert [] == world.recoveries


def test_what_probes_teach_is_kept_once_and_not_without_bound() -> None:
    known: list[Rule] = []
    for number in (*range(100), 99, 99):
        learn(known, fault_in(400, f"request {number}: no {RESP}"), "responses", RESP)

    assert 64 == len(known)
    assert [True, False] == [
        "gone" == judge(fault_in(400, f"request {number}: no resp_2"), "responses", "resp_2",
                        tuple(known)).verdict
        for number in (99, 0)
    ]  # fmt: skip


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


def rule(**members: str) -> str:
    """A rule as TOML; without members there is nothing wrong with it."""
    sound = {"name": "'a'", "verdict": "'gone'", "status": "[400]"}
    return "\n".join(["[[rule]]", *(f"{key} = {text}" for key, text in (sound | members).items())])


def test_a_code_may_be_a_number() -> None:
    own = read_rules(rule(code="1042"))

    for code in (1042, "1042"):
        assert "a" == judge(fault_in(400, error("x", code)), "threads", THREAD, own).rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]]\nname = 'a'", "'a': status is missing; verdict is missing"),
        ("[[rule]]\nstatus = [4]", "rule 1: name is missing; verdict is missing; status is"),
        (rule(verdict="'dead'"), "verdict is 'dead', and has to be one of gone, item_gone"),
        (rule(mesage="'x'"), "mesage is unknown"),
        (rule(message="'('"), "message: "),
        (rule(message="3"), "message is 3, and has to be a regular expression"),
        (rule(status="404"), r"status is 404, and has to be a list of HTTP statuses"),
        (rule(status="'404'"), r"status is '404', and has to be a list of HTTP statuses"),
        (rule(status="['404']"), r"status is \['404'\], and has to be a list"),
        (rule(status="[]"), r"status is \[\], and has to be a list"),
        (rule(status="[true]"), r"status is \[True\], and has to be a list"),
        (rule(status="[4040]"), r"status is \[4040\], and has to be a list"),
        (rule(dialects="'threads'"), "dialects is 'threads', and has to be a list of resp"),
        (rule(dialects="['thread']"), r"dialects is \['thread'\], and has to be a list"),
        (rule(code="true"), "code is True, and has to be a text or a whole number"),
        (rule(type="3"), "type is 3, and has to be a text"),
        (rule(param="['x']"), r"param is \['x'\], and has to be a text"),
        (rule(retired="'yes'"), "retired is 'yes', and has to be true or false"),
        (rule(date="2026"), "date is 2026, and has to be a date"),
        (rule(verdict="'item_gone'", message="'x'"), r"a group \(\?P<id>"),
        ("[[rules]]\nname = 'a'", r"have 'rules': only \[\[rule\]\] is read"),
        ("[rule]\nname = 'a'", r"no table: write \[\[rule\]\]"),
        ("rule = 'x'", r"no table: write \[\[rule\]\]"),
        ("rule = ['x']", r"no table: write \[\[rule\]\]"),
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
    assert "7 of these would be taken for something else than a loss" in done.stdout


def test_doctor_reads_the_handle_where_no_rule_knows_the_answer() -> None:
    body = {"detail": "Not [Found]"}
    with Provider() as provider:
        provider.order(Fault("status", status=404, body=body, match="* /", times=None))
        done = doctor(provider.base_url, "--api-key", "k")

    assert (0, "") == (done.returncode, done.stderr)
    assert 7 == done.stdout.count('  answer   404 {"detail": "Not [Found]"}')
    assert 7 == done.stdout.count('  read     404 {"detail": "Not [Found]"}')
    assert 7 == done.stdout.count("  verdict  gone (no rule; reading the handle tells: 404)")


def test_doctor_tells_of_losses_that_neither_a_rule_nor_reading_shows() -> None:
    body = {"detail": "unknown previous turn"}
    with Provider() as provider:
        provider.order(Fault("status", status=400, body=body, match="POST /", times=None))
        wrong = Fault("status", status=404, body={"detail": "No."}, match="GET /", times=None)
        provider.order(wrong)
        done = doctor(provider.base_url, "--api-key", "k")

    assert 1 == done.returncode
    assert 4 == done.stdout.count("  verdict  foreign (no rule; reading the handle does not tell)")
    assert "4 of these would be taken for something else than a loss" in done.stdout


@pytest.mark.parametrize("known", [True, False])
def test_doctor_asks_for_a_stream_which_may_tell_a_loss_by_its_first_event(*, known: bool) -> None:
    with Provider() as provider:
        if known:
            provider.order(Fault("loss_in_200", form="error"))
        else:
            provider.order(Fault("loss_in_200", form="erased", times=2))
            wrong = {"detail": "Not Found"}
            provider.order(
                Fault("status", status=404, body=wrong, match="GET /responses", times=None)
            )
        done = doctor(provider.base_url, "--api-key", "k")

    streamed = done.stdout.partition("POST /responses, streamed\n")[2].partition("\n\n")[0]
    assert f'answer   200 {{"type": "{"error" if known else "response.failed"}"' in streamed
    assert ("verdict  gone (rule " in streamed) == known
    assert int(not known) == done.returncode


def test_doctor_is_told_of_a_rule_with_a_mistake(tmp_path: Path) -> None:
    own = tmp_path / "rules.toml"
    own.write_text(rule(status="404"))

    done = doctor("http://127.0.0.1:9/v1", "--rules", str(own))

    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("perdure: Verdict rule 'a': status is 404, and has to be a list")


def test_doctor_says_when_nobody_is_there() -> None:
    done = doctor("http://127.0.0.1:9/v1")

    assert done.returncode != 0
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
