"""How often silent amnesia is missed, and how often a healthy answer is taken for it.

Live turns: the SDK's requests go through the production transport, flows and store to the embedded
provider's own routes, state, model and counts; only the socket between them is left out.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import httpx2
import pytest

import perdure
from perdure.engine import amnesia
from perdure.testing import Clock, Fault, State
from tests.in_process import InProcess

SEED = 20_261_128
CONVERSATIONS = 2_000
FACT = "My dog is called Rex."
QUESTION = "What is my dog called?"
URL = "https://provider.example/v1"
HEADERS = {"authorization": "Bearer sk-test"}
WORDS = ["the", "a", "cat", "runs", "over", "bridges", "Tuesday", "Łódź", "猫", "сегодня", "rain;"]
MODELS = ["gpt-5.6", "gpt-4o", "gpt-6", "gpt-5.6-mini", "o3-mini"]
LOOK = {
    "type": "function",
    "name": "look",
    "description": "Look at something far away.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
}
PICTURE = {"type": "input_image", "image_url": "https://example.com/a.png"}
CHANGES = ["image", "model", "truncation", "compaction", "instructions", "tools"]
LOSSES = [*CHANGES, *["lost"] * 6]
HOW_OFTEN = 0.35
BUDGET_TOKENS = 600  # what is rebuilt has less than there was
NOT_FRESH_SECONDS = 90
MANNERS = ["waiting", "stream", "background"]


class Talk:
    """One conversation of an app with its model; everything in it follows from its seed."""

    def __init__(self, site: Site, seed: int, *, forgets: bool) -> None:
        self.site = site
        self.chance = random.Random(seed)
        self.forgets = forgets
        self.via = self.chance.choice(["conversation", "response", "subject"])
        self.turns = self.chance.randint(2, 9)
        self.model = self.chance.choice(MODELS)
        self.short = self.chance.random() < 0.2
        self.instructions = self.chance.choice([None, None, self.words(80), self.words(600)])
        self.reasoning = self.chance.choice([0, 0, 200, 3_000])
        self.user = f"user-{seed}"
        self.at: dict[str, str] = {}
        self.calls: list[str] = []
        self.whole = True  # nothing of the history was cut away on purpose

    def words(self, number: int) -> str:
        return " ".join(self.chance.choice(WORDS) for _ in range(number))

    def run(self) -> None:
        if self.via == "conversation":
            self.at = {"conversation": self.site.send("/conversations", {})["id"]}
        for number in range(self.turns + 1):
            self.turn(number)

    def turn(self, number: int) -> None:
        """Say something; the last turn asks for what was said first."""
        site, chance = self.site, self.chance
        last = number == self.turns
        body: dict[str, Any] = {"model": self.model, **self.at, "input": self.said(number)}
        if self.instructions:
            body["instructions"] = self.instructions
        change = chance.choice(site.changes) if number and chance.random() < HOW_OFTEN else "none"
        self.changed(change, body)
        site.state.reasoning_tokens = self.reasoning
        site.state.counts_cached_apart = self.apart
        forgot = last and self.forgets
        if forgot:
            site.state.order(Fault("amnesia", match="POST /responses$"))
        manner = chance.choices(MANNERS, weights=[6, 2, 2])[0]
        response = site.respond(body, manner, subject=self.user if self.via == "subject" else None)
        if number:
            site.note(forgot=forgot, change=change, talk=self)
        site.state.faults.clear()
        site.state.max_context_tokens = 400_000
        self.calls = [
            one["call_id"] for one in response["output"] if one["type"] == "function_call"
        ]
        if self.via == "response":
            self.at = {"previous_response_id": response["id"]}
        if QUESTION in str(body["input"]) and not self.calls:
            self.check(response, forgot=forgot)

    @property
    def apart(self) -> bool:
        """Whether the server leaves cached tokens out of its count, as some do."""
        return self.user.endswith("7")

    def said(self, number: int) -> list[dict[str, Any]]:
        answers = [
            {"type": "function_call_output", "call_id": one, "output": self.words(30)}
            for one in self.calls
        ]
        if answers:
            return answers
        if number == self.turns:
            words = QUESTION
        elif self.short:
            words = FACT if number == 0 else self.words(3)
        else:
            size = self.chance.choice([3, 12, 60, 400])
            words = f"{FACT if number == 0 else ''} {self.words(size)}."
            if number and self.chance.random() < 0.15:
                words = "call look {}"
        return [{"type": "message", "role": "user", "content": words}]

    def changed(self, change: str, body: dict[str, Any]) -> None:
        """Let something happen after which the counts of two turns are not what they were."""
        chance, state = self.chance, self.site.state
        match change:
            case "image" if not self.calls:
                detail = {"detail": chance.choice(["low", "high"])}
                parts = [{"type": "input_text", "text": body["input"][0]["content"]}]
                body["input"][0]["content"] = parts + [PICTURE | detail] * chance.randint(1, 3)
            case "model":
                body["model"] = self.model = chance.choice(MODELS)
            case "truncation" if not self.calls:
                body["truncation"] = "auto"
                state.max_context_tokens = chance.choice([2_200, 3_000, 6_000])
                self.whole = False
            case "compaction":
                limit = chance.choice([300, 1_000])
                body["context_management"] = [{"type": "compaction", "compact_threshold": limit}]
            case "instructions":
                body["instructions"] = self.words(chance.choice([5, 900]))
            case "tools":
                body["tools"] = [LOOK | {"description": self.words(chance.choice([10, 300]))}]
            case "lost":
                state.forget()
                self.site.clock.advance(NOT_FRESH_SECONDS)
                self.whole = False

    def check(self, response: dict[str, Any], *, forgot: bool) -> None:
        """An answer that was judged to come from nothing has been made again, from everything."""
        told = (response.get("perdure") or {}).get("reason")
        text = json.dumps(response["output"])
        if forgot and told == "forgot" and response["perdure"]["memory"] != "none":
            assert "Rex" in text, self.user
        if not forgot and self.whole and told is None:
            assert "Rex" in text, self.user


class Site:
    """An app over perdure over a provider, all in this thread, and what was judged."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        changes: list[str],
        policy: perdure.Policy | None = None,
    ) -> None:
        self.changes = changes
        self.clock = clock = Clock()
        self.state = State(clock, seed="rates")
        self.transport = perdure.Transport(
            perdure.open_store("sqlite://", clock=clock.now),
            inner=InProcess(self.state),
            policy=policy,
            sleep=clock.sleep,
            monotonic=clock.monotonic,
        )
        self.client = httpx2.Client(transport=self.transport, base_url=URL, headers=HEADERS)
        self.findings: list[str] = []
        self.found: Counter[tuple[bool, str]] = Counter()
        self.wrong: list[str] = []
        judge = amnesia.judge

        def noted(*args: Any) -> amnesia.Finding:
            finding = judge(*args)
            self.findings.append(finding)
            return finding

        monkeypatch.setattr(amnesia, "judge", noted)

    def send(self, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        answer = self.client.post(URL + path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        if answer.headers["content-type"].startswith("text/event-stream"):
            events = [line for line in answer.text.splitlines() if line.startswith("data: {")]
            response: dict[str, Any] = json.loads(events[-1].removeprefix("data: "))["response"]
            return response
        whole: dict[str, Any] = answer.json()
        return whole

    def respond(self, body: dict[str, Any], manner: str, subject: str | None) -> dict[str, Any]:
        self.findings.clear()
        headers = {"perdure-subject": subject} if subject else {}
        more = {} if manner == "waiting" else {manner: True}
        response = self.send("/responses", body | more, **headers)
        while response["status"] in {"queued", "in_progress"}:
            response = self.client.get(f"{URL}/responses/{response['id']}").json()
        return response

    def note(self, *, forgot: bool, change: str, talk: Talk) -> None:
        """Count what was concluded of a turn that had a history."""
        finding = next((one for one in self.findings if one != "unjudged"), "unjudged")
        self.found[forgot, finding] += 1
        if finding == ("remembers" if forgot else "forgot"):
            self.wrong.append(f"{talk.user} ({talk.via}, {talk.model}, {change})")


@pytest.mark.slow
def test_the_rates_over_many_live_conversations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(monkeypatch, CHANGES)
    for number in range(CONVERSATIONS):
        Talk(site, SEED + number, forgets=number % 2 == 1).run()

    found = site.found
    missed, caught = found[True, "remembers"], found[True, "forgot"]
    alarms, right = found[False, "forgot"], found[False, "remembers"]
    healthy = sum(count for (forgot, _), count in found.items() if not forgot)
    forgetful = sum(count for (forgot, _), count in found.items() if forgot)
    with capsys.disabled():
        print(  # noqa: T201  # the rates are what this is about
            f"\nseed {SEED}: {CONVERSATIONS} conversations, {healthy + forgetful} live turns\n"
            f"forgot:  {forgetful}, of them judged {caught + missed}, missed {missed}, "
            f"not judged {found[True, 'unjudged'] / forgetful:.1%}\n"
            f"healthy: {healthy}, of them judged {alarms + right}, false alarms {alarms}, "
            f"not judged {found[False, 'unjudged'] / healthy:.1%}"
        )
    said = f"seed {SEED}: {found}, {site.wrong}"
    assert 0 == missed, said
    assert alarms <= 0.001 * (alarms + right), said
    assert caught > 0.4 * forgetful, said
    assert right > 1_000, said
    site.client.close()


@pytest.mark.slow
def test_what_was_rebuilt_with_less_is_not_taken_for_forgetful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(monkeypatch, LOSSES, perdure.Policy(budget_tokens=BUDGET_TOKENS))
    for number in range(CONVERSATIONS // 5):
        Talk(site, SEED + number, forgets=False).run()

    found = site.found
    assert not found[False, "forgot"], f"seed {SEED}: {found}, {site.wrong}"
    assert found[False, "remembers"] > 100, f"seed {SEED}: {found}"
    site.client.close()
