"""One call's dealings with the provider: sending, counting, judging, probing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from urllib.parse import urljoin

from perdure.dialects import verdicts
from perdure.dialects.routes import Route, path_to
from perdure.dialects.verdicts import Fault, Judgement, Rule
from perdure.engine.ops import (
    Answer,
    CallOff,
    Elapsed,
    Intend,
    NewId,
    Send,
    SendFailed,
    Sleep,
    Throttle,
    Throttled,
)
from perdure.engine.pacing import spread, wait_asked
from perdure.flow import Flow
from perdure.model import Dialect, Policy, TurnKey, value

RETIRED_HEADER: Final = "perdure-api-retired"
#: What a request gets where the deadline is over: the turn is not to end in the middle.
_LEAST_SECONDS: Final = 1.0
_TOO_MANY: Final = 429
_REDIRECTS: Final = range(300, 400)
_SAME_METHOD: Final = frozenset({307, 308})
_REDIRECTS_MOST: Final = 5
_LATER: Final = frozenset({425, _TOO_MANY})
_REFUSALS: Final = range(400, 500)
_UNCLEAR: Final = frozenset({408, 409})
_UNANSWERED_MOST: Final = 1024
#: The object is not there, or its whole route is not.
NOT_THERE: Final = frozenset({404, 405, 410, 501})
#: The headers of an answer that is made here.
JSON: Final = (("content-type", "application/json"),)


@value
class Call:
    """A request that carries a conversation, as the transport recognised it.

    ``path`` is relative to the upstream, without the query. ``own_headers`` are those meant for
    perdure alone; ``rules`` are the owner's verdict rules, ``learned`` what this process was taught
    of this upstream by probing; ``deadline_seconds`` bounds what this call may spend waiting.
    ``retry`` counts the SDK's own repeats of the call before this one; ``credentials`` tells whose
    it is, and ``unanswered`` is what this transport knows of calls without an answer.
    """

    tenant: str
    policy: Policy
    route: Route
    upstream: str
    method: str
    path: str
    query: str
    content: bytes
    turn_id: str | None
    subject: str | None
    own_headers: tuple[str, ...]
    rules: tuple[Rule, ...]
    learned: list[Rule]
    deadline_seconds: float
    began: float
    retry: int
    credentials: int
    unanswered: Unanswered

    @property
    def dialect(self) -> Dialect:
        """The API that was called."""
        return self.route.dialect


@value
class Created:
    """The answer to a create, and the intent under which it was sent."""

    answer: Answer
    intent: str


class Unanswered:
    """Calls without a handle that have got no answer, by which the SDK's repeats are known.

    Nothing on the wire ties a repeat to its first attempt. Only where one turn of this transport
    fits, by body, credentials and number, the repeat is taken for that turn.
    """

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: OrderedDict[tuple[object, ...], list[TurnKey]] = OrderedDict()

    def note(self, call: Call, body_hash: str, turn: TurnKey) -> None:
        """Remember a turn whose attempt ended without an answer."""
        self._turns.setdefault(_fingerprint(call, body_hash, call.retry), []).append(turn)
        while len(self._turns) > _UNANSWERED_MOST:
            self._turns.popitem(last=False)

    def match(self, call: Call, body_hash: str) -> TurnKey | None:
        """Return the turn that a repeat is of, and forget it; None where two would fit."""
        turns = self._turns.pop(_fingerprint(call, body_hash, call.retry - 1), [])
        return turns[0] if len(turns) == 1 else None


def _fingerprint(call: Call, body_hash: str, attempt: int) -> tuple[object, ...]:
    return (call.upstream, call.path, call.credentials, body_hash, attempt)


class Wire:
    """Sends for one call and counts; ``requests`` is what its recovery reports."""

    __slots__ = ("call", "has_waited", "requests")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.requests = 0
        self.has_waited = False

    def send(
        self, content: bytes, *, path: str | None = None, stream: bool = False
    ) -> Flow[Answer]:
        """Send the caller's request with another body or path, or as it is."""
        self.requests += 1
        call = self.call
        target = _with_query(call.path if path is None else path, call.query)
        # What a stream may take from one event to the next has nothing to do with the deadline.
        within = None if stream else (yield from self._within())
        return (yield from Send(call.method, target, content or None, stream, within=within))

    def own(self, method: str, path: str, body: bytes | None = None) -> Flow[Answer]:
        """Send a request that the app did not make; one that is one too many waits its turn.

        What a server asks for by a 429 counts for every worker: it is noted in the store. A
        redirect inside the same API is followed, as the app's own client follows one.
        """
        for _redirect in range(_REDIRECTS_MOST):
            answer = yield from self._own(method, path, body)
            moved = _moved(self.call, method, path, answer)
            if moved is None:
                break
            path = moved
        # An app that followed it would send its own request to where ours was to go.
        return _without_location(answer) if answer.status in _REDIRECTS else answer

    def _own(self, method: str, path: str, body: bytes | None) -> Flow[Answer]:
        while True:
            yield from self.hold()
            self.requests += 1
            within = yield from self._within()
            answer = yield from Send(method, path, body, own=True, within=within)
            if not (yield from self.waited_for(answer)):
                return answer

    def _within(self) -> Flow[float | None]:
        """Return how long a request may take; None: as long as the app says.

        A turn has one deadline, not one for each request of its recovery, nor one for waiting and
        another one for what it waited with.
        """
        if self.requests == 1 and not self.has_waited:
            return None
        return max((yield from self.left()), _LEAST_SECONDS)

    def creating(self, dialect: Dialect, conversation: int, send: Flow[Answer]) -> Flow[Created]:
        """Send a create with its intent written down first; a refusal takes the intent back.

        What is lost in between leaves a trace: a remote object of which nobody knows the id.
        """
        call, intent = self.call, (yield from NewId())
        yield from Intend(call.tenant, call.upstream, dialect, conversation, intent)
        try:
            answer = yield from send
        except SendFailed as failure:
            if failure.definite:
                yield from CallOff(call.tenant, intent)
            raise
        refused = _REFUSALS.start <= answer.status < _REFUSALS.stop
        if refused and answer.status not in _UNCLEAR:
            yield from CallOff(call.tenant, intent)
        return Created(answer, intent)

    def hold(self) -> Flow[None]:
        """Wait while some worker knows that the server wants to be left alone, and there is time.

        For what the app did not ask for: its own requests are its SDK's to repeat.
        """
        call = self.call
        while (held := (yield from Throttled(call.tenant, call.upstream))) > 0:
            if not (yield from self._wait(held)):
                return

    def waited_for(self, answer: Answer) -> Flow[bool]:
        """Note a 429, and wait as it asks; False where there is none, or no time for it."""
        yield from self.heed(answer)
        if answer.status != _TOO_MANY:
            return False
        return (yield from self._wait(wait_asked(answer)))

    def heed(self, answer: Answer) -> Flow[None]:
        """Note what a 429 asks for, so that no worker sends meanwhile what the app did not ask."""
        if answer.status == _TOO_MANY:
            yield from Throttle(self.call.tenant, self.call.upstream, wait_asked(answer))

    def _wait(self, seconds: float) -> Flow[bool]:
        """Wait a little longer than asked, so that not all come at once; False: no time for it."""
        seconds = spread(seconds, (yield from NewId()))
        if seconds > (yield from self.left()):
            return False
        yield from self._sleep(seconds)
        return True

    def judge(self, answer: Answer, dialect: Dialect, handle: str | None) -> Flow[Judgement]:
        """Return the verdict on a whole answer; an unrecognised 4xx is probed, never guessed."""
        if answer.ok:
            return Judgement("ok")
        return (
            yield from self.judge_fault(
                verdicts.fault_of(answer.status, answer.body), dialect, handle
            )
        )

    def judge_fault(self, fault: Fault, dialect: Dialect, handle: str | None) -> Flow[Judgement]:
        """Return the verdict on an error; an unrecognised 4xx is probed with one cheap read."""
        known = (*self.call.rules, *self.call.learned)
        judgement = verdicts.judge(fault, dialect, handle, known)
        if judgement.verdict != "unrecognised" or handle is None:
            return judgement
        answer = yield from self.own("GET", path_to(dialect, handle))
        probe = None if answer.ok else verdicts.fault_of(answer.status, answer.body)
        judgement = verdicts.judge_probed(fault, probe, dialect, handle, known)
        if judgement.verdict == "gone":
            verdicts.learn(self.call.learned, fault, dialect, handle)
        return judgement

    def left(self) -> Flow[float]:
        """Return the seconds that this call may still spend waiting."""
        now = yield from Elapsed()
        return self.call.deadline_seconds - (now - self.call.began)

    def pause(self, seconds: float) -> Flow[bool]:
        """Sleep inside the deadline; False where it has passed."""
        left = yield from self.left()
        if left <= 0:
            return False
        yield from self._sleep(min(seconds, left))
        return True

    def _sleep(self, seconds: float) -> Flow[None]:
        self.has_waited = True
        yield from Sleep(seconds)


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _moved(call: Call, method: str, path: str, answer: Answer) -> str | None:
    """Return the path on the same API to which a server leads a request of ours, if it does."""
    if answer.status not in (_REDIRECTS if method == "GET" else _SAME_METHOD):
        return None
    target = urljoin(call.upstream + path, answer.header("location") or "")
    moved = target.removeprefix(call.upstream)
    return moved if moved.startswith("/") and moved != path else None


def _without_location(answer: Answer) -> Answer:
    kept = tuple(one for one in answer.headers if one[0].lower() != "location")
    return Answer(answer.status, kept, answer.body)


def may_pass(answer: Answer, judgement: Judgement) -> bool:
    """Whether a refusal may be over soon: the server fails, is busy, or wants to be left alone."""
    return answer.status in _LATER or judgement.verdict in {"ambiguous", "locked"}


def final(answer: Answer) -> Answer:
    """Return an answer that the SDK is not to send again."""
    return answer.edited(headers=(("x-should-retry", "false"),))


def retired(answer: Answer) -> Answer:
    """Return the answer of an API that is gone for good, marked so that ``Chat`` can move on."""
    return final(answer).edited(headers=((RETIRED_HEADER, "true"),))


def refusal(call: Call, answer: Answer, dialect: Dialect) -> Answer:
    """Return a provider's refusal of a create, marked where the whole API is gone for good."""
    fault = verdicts.fault_of(answer.status, answer.body)
    judgement = verdicts.judge_refused(fault, dialect, call.rules)
    return retired(answer) if judgement.retired else answer
