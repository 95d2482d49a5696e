"""Faults that can be ordered: what a provider does on a bad day, as data."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.testing.provider.wire import Request

STANDING = frozenset({"api_off", "not_visible", "expire", "window", "rate_limit"})
"""Kinds that hold until `clear`, whatever `times` says."""
_MILLISECONDS = 1000
BEFORE = "before"
AFTER = "after"
TIMING = {"forget": BEFORE, "status": BEFORE}
"""When a fault strikes if the order does not say; AFTER for every kind not named here."""

KINDS = frozenset(
    {
        "forget",
        "expire",
        "answer_lost",
        "status",
        "rate_limit",
        "cut_stream",
        "conversation_locked",
        "not_visible",
        "api_off",
        "amnesia",
        "loss_in_200",
        "delay",
        "slow_events",
        "window",
    }
)


@dataclass
class Fault:
    """Order one misfortune for the next requests it applies to.

    `kind` is one of KINDS:

    - `forget`: what `handle` names (or everything) is gone before the request is carried out;
      with `timing="after"` once it has been.
    - `expire`: `what` ("responses", "conversations", "threads", "vector_stores") is gone after
      `seconds` idle.
    - `answer_lost`: the work is done and the connection drops unanswered; with
      `timing="before"` it is reset before any work.
    - `status`: answers `status` with `body`; with `timing="after"` the work is done first.
      429 carries `retry_after` seconds.
    - `rate_limit`: of each `seconds`, `requests` are carried out, the others answered 429;
      Retry-After is what is left of them.
    - `cut_stream`: the connection closes after `events` events; the turn still completes unless
      `timing="before"`.
    - `conversation_locked`: 400, another process is operating on the conversation.
    - `not_visible`: a response cannot be read or continued for `seconds` after it was made.
    - `api_off`: every route under `prefix` is gone, 410 `assistants_api_deprecated` (`status=410`,
      the default) or 404 "Invalid URL" (`status=404`).
    - `amnesia`: 200, but the model is shown only this request's own input.
    - `loss_in_200`: a 200 that tells the loss: in a stream `form="error"` as its first event; in a
      stream or a body `form="failed"` as a failed response, `form="erased"` without its cause.
    - `delay`: real `seconds` of thinking; `slow_events`: real `seconds` between events.
    - `window`: the model reads no more than `tokens`; a call that amounts to more is refused.

    A fault is used up after `times` requests (None: never), and `api_off`, `not_visible`,
    `expire`, `window` and `rate_limit` stand until cleared. `match` is "METHOD /path-regex" on
    the path below the base, anchored at its start, `*` for any method. `handle` narrows to
    requests that name that id in their path or body.
    """

    kind: str
    times: int | None = 1
    match: str | None = None
    handle: str | None = None
    timing: str | None = None
    status: int | None = None
    body: dict[str, Any] | None = None
    retry_after: float | None = None
    events: int = 3
    seconds: float = 0.0
    tokens: int = 0
    requests: int = 0
    prefix: str = ""
    form: str = "error"
    what: str = "responses"

    def __post_init__(self) -> None:
        """Refuse an order that could never be carried out."""
        if self.kind not in KINDS:
            message = f"no fault is called {self.kind!r}; there are {', '.join(sorted(KINDS))}"
            raise ValueError(message)
        if self.timing not in {None, BEFORE, AFTER}:
            message = f"a fault strikes 'before' or 'after' the work, not {self.timing!r}"
            raise ValueError(message)
        if self.kind == "rate_limit" and not (self.seconds > 0 and self.requests > 0):
            message = "a rate_limit needs `requests` and `seconds`"
            raise ValueError(message)
        if self.match is not None:
            _method, _, pattern = self.match.partition(" ")
            re.compile(pattern)

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> Fault:
        """Build a fault from its JSON form; ValueError names an unknown member."""
        known = {member.name for member in dataclasses.fields(cls)}
        unknown = set(members) - known
        if unknown or "kind" not in members:
            message = f"a fault has a kind and any of {sorted(known)}, not {sorted(unknown)}"
            raise ValueError(message)
        return cls(**members)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return dataclasses.asdict(self)

    @property
    def strikes(self) -> str:
        """Return "before" or "after" the work."""
        return self.timing or TIMING.get(self.kind, AFTER)

    def applies(self, request: Request) -> bool:
        """Tell whether this request meets the fault."""
        return self._matches(request) and self._names(request) and self._fits(request)

    def _matches(self, request: Request) -> bool:
        if self.match is None:
            return True
        method, _, pattern = self.match.partition(" ")
        right_method = method in {"*", request.method}
        return right_method and re.match(pattern, request.path) is not None

    def _names(self, request: Request) -> bool:
        # For `forget` the handle says what to forget, not which request to strike.
        if self.handle is None or self.kind == "forget":
            return True
        return self.handle in request.path or self.handle.encode() in request.body

    def _fits(self, request: Request) -> bool:
        if self.kind == "api_off":
            return request.path.startswith(self.prefix)
        if self.kind in {"cut_stream", "slow_events"}:
            return request.peeked.get("stream") is True or request.asked("stream") == "true"
        if self.kind == "loss_in_200":
            return _can_lose(self, request)
        if self.kind in _FITS:
            return _FITS[self.kind](request)
        return True


def _is_turn(request: Request) -> bool:
    creates_run = request.path.startswith("/threads") and request.path.endswith("/runs")
    return request.method == "POST" and (request.path == "/responses" or creates_run)


def _has_handle(request: Request) -> bool:
    body = request.peeked
    return bool(body.get("previous_response_id") or body.get("conversation"))


def _can_lose(fault: Fault, request: Request) -> bool:
    possible = fault.form != "error" or request.peeked.get("stream") is True
    return request.path == "/responses" and possible and _has_handle(request)


def _can_lock(request: Request) -> bool:
    if request.method != "POST":
        return False
    if request.path == "/responses":
        return bool(request.peeked.get("conversation"))
    return request.path.startswith("/conversations/") and request.path.endswith("/items")


_FITS = {
    "amnesia": _is_turn,
    "conversation_locked": _can_lock,
    "window": _is_turn,
}


class FaultBook:
    """The orders not yet carried out, first come first served within one kind."""

    def __init__(self) -> None:
        self.orders: list[Fault] = []
        self._admitted: dict[int, tuple[float, int]] = {}

    def order(self, fault: Fault) -> None:
        """Write an order down; the book counts on its own copy."""
        self.orders.append(dataclasses.replace(fault))

    def clear(self) -> None:
        """Forget every order."""
        self.orders.clear()
        self._admitted.clear()

    def over_limit(self, limit: Fault, now: float) -> float:
        """Count a request under a `rate_limit`; the seconds it has to wait, 0 if it may pass."""
        stretch = now // limit.seconds
        counted, admitted = self._admitted.get(id(limit), (stretch, 0))
        if counted != stretch:
            admitted = 0
        if admitted >= limit.requests:
            left = (stretch + 1) * limit.seconds - now
            return math.ceil(left * _MILLISECONDS) / _MILLISECONDS
        self._admitted[id(limit)] = (stretch, admitted + 1)
        return 0.0

    def take(self, request: Request) -> list[Fault]:
        """Return what this request meets, at most one of each kind, and use it up."""
        taken: dict[str, Fault] = {}
        for fault in list(self.orders):
            if fault.kind not in taken and fault.applies(request):
                taken[fault.kind] = fault
                self._use(fault)
        return list(taken.values())

    def _use(self, fault: Fault) -> None:
        if fault.kind in STANDING or fault.times is None:
            return
        fault.times -= 1
        if fault.times <= 0:
            self.orders.remove(fault)
