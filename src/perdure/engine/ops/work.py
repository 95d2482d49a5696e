"""What a driver does itself: the wire, and the worker that it runs in."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from perdure.flow import Flow, Handover, Op
from perdure.model import (
    Headers,
    Recovery,
    value,
)

_SUCCESS: Final = range(200, 300)


@value
class Answer:
    """A provider's answer, whole, or its head while the body is still streaming.

    ``body`` is decoded. ``original`` is the driver's own object for an answer that may be passed
    on untouched; :meth:`edited` drops it. ``stream`` is the driver's open body, if any.
    """

    status: int
    headers: Headers
    body: bytes
    original: Any = None
    stream: Any = None

    @property
    def ok(self) -> bool:
        """Whether the status is a 2xx."""
        return self.status in _SUCCESS

    def header(self, name: str) -> str | None:
        """Return a header's value; ``name`` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def edited(self, body: bytes | None = None, headers: Headers = ()) -> Answer:
        """Return the answer with another body or additional headers."""
        dropped = {"content-length", "content-encoding", "transfer-encoding"}
        kept = tuple((key, value) for key, value in self.headers if key.lower() not in dropped)
        new = self.body if body is None else body
        length = () if self.stream is not None else (("content-length", str(len(new))),)
        return Answer(self.status, (*kept, *headers, *length), new, None, self.stream)


@value
class Send(Op[Answer]):
    """Send a request to the provider: the caller's own with differences, or one of ours.

    ``path`` is relative to the upstream and carries the query. ``own`` marks a request that the
    app did not make (it creates, reads or deletes a replica): it gets the caller's credentials and
    timeouts, none of them longer than ``within`` seconds. Raises :class:`SendFailed`.
    """

    method: str
    path: str
    body: bytes | None
    stream: bool = False
    own: bool = False
    within: float | None = None


class SendFailed(Exception):
    """A request that got no answer; ``cause`` is what the inner transport raised.

    ``definite``: the provider cannot have seen the request. Otherwise it may have done the work.
    """

    def __init__(self, cause: BaseException, *, definite: bool) -> None:
        self.cause = cause
        self.definite = definite
        super().__init__(type(cause).__name__)

    def raise_cause(self) -> NoReturn:
        """Raise what the inner transport raised, with the cause that it had itself."""
        raise self.cause from self.cause.__cause__


@value
class Pull(Op[bytes | None]):
    """Read the next piece of an open body; None at its end, empty when ``seconds`` ran out."""

    stream: Any
    seconds: float | None = None


@value
class Release(Op[None]):
    """Close an open body that nobody will read to its end."""

    stream: Any


@value
class Start(Handover):
    """The head of a streamed answer: from here on the flow is the body."""

    answer: Answer


@value
class Emit(Handover):
    """The next piece of a streamed body."""

    data: bytes


class Closed(Exception):
    """Raised inside a streaming flow when its caller stops reading."""


@value
class Sleep(Op[None]):
    """Wait."""

    seconds: float


@value
class Elapsed(Op[float]):
    """Read a monotonic clock, in seconds; only differences mean anything."""


@value
class NewId(Op[str]):
    """Make an id that nobody else makes, 32 hex digits."""


@value
class Report(Op[None]):
    """Tell whoever listens (callback, log, trace) that a replica was rebuilt; never fails."""

    recovery: Recovery


@value
class Spawn(Op[None]):
    """Run a flow after this call, in the transport's background worker."""

    name: str
    flow: Flow[None]
