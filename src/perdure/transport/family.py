"""The two families of HTTP library, httpx2 (openai 3) and httpx (openai 2): their shapes are one.

Requests and responses are made of whatever family the SDK's own request is, so one transport
serves both.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from perdure.dialects.routes import THREADS_HEADER
from perdure.dialects.streams import is_event_stream
from perdure.engine import ops
from perdure.engine.ops import Answer, SendFailed
from perdure.engine.wire import Call
from perdure.errors import CutStream

_NOT_COPIED: Final = frozenset(
    {
        "content-length",
        "content-type",
        "transfer-encoding",
        "x-stainless-retry-count",
        "x-stainless-raw-response",
        "x-stainless-read-timeout",
        "x-stainless-timeout",
    }
)
# The encodings that nearly every provider uses; building a response to decode costs ten times more.
_ZLIB: Final = frozenset({"gzip", "x-gzip"})
_ANY_HEADER: Final = 47  # zlib: detect gzip or zlib by its header
#: Members of a query that say which API is called and not what is asked of it: our own requests
#: need them too. Azure's dated paths answer 404 without theirs.
_OF_THE_API: Final = frozenset({"api-version"})
_OF_THE_ENCODING: Final = frozenset({"content-encoding", "content-length"})
_OF_THE_BODY: Final = frozenset({"content-length", "transfer-encoding"})
# Raised before a byte of the request can have reached the provider.
_DEFINITE: Final = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "LocalProtocolError",
    }
)

_TIMEOUTS: Final = ("connect", "read", "write", "pool")


def family_of(message: object) -> Any:
    """Return the HTTP library that a request or response belongs to."""
    return sys.modules[type(message).__module__.partition(".")[0]]


def outgoing(request: Any, call: Call, op: ops.Send, family: Any) -> Any:
    """Return the request to send for an op: the app's own where nothing differs, else a clone."""
    target = call.route.base + (_addressed(op.path, call.query) if op.own else op.path)
    headers = request.headers
    same_body = op.body is call.content or op.body == (call.content or None)
    if not op.own and op.within is None and same_body and target.encode() == request.url.raw_path:
        for key in call.own_headers:
            del headers[key]
        return request
    dropped = (_NOT_COPIED if op.own else _OF_THE_BODY).union(call.own_headers)
    kept = [(key, value) for key, value in headers.multi_items() if key not in dropped]
    if op.own and op.path.startswith("/threads") and THREADS_HEADER[0] not in headers:
        kept.append(THREADS_HEADER)
    if op.own and op.body is not None:
        kept.append(("content-type", "application/json"))
    return family.Request(
        op.method,
        request.url.copy_with(raw_path=target.encode()),
        headers=kept,
        content=op.body,
        extensions=_extensions(request, op.within),
    )


def _extensions(request: Any, within: float | None) -> dict[str, Any]:
    """Return a request's extensions, with timeouts that are no longer than some seconds."""
    extensions = dict(request.extensions)
    if within is not None:
        given = extensions.get("timeout") or dict.fromkeys(_TIMEOUTS)
        extensions["timeout"] = {
            key: within if limit is None else min(limit, within) for key, limit in given.items()
        }
    return extensions


def _addressed(path: str, query: str) -> str:
    """Return the path of a request of ours with what the caller's query says of the API."""
    members = [one for one in query.split("&") if one.partition("=")[0] in _OF_THE_API]
    if not members:
        return path
    return f"{path}{'&' if '?' in path else '?'}{'&'.join(members)}"


def answer_of(response: Any, raw: bytes | None, stream: Any) -> Answer:
    """Return a response as the engine sees it."""
    body = b"" if raw is None else raw
    encoding = response.headers.get("content-encoding") if raw else None
    if encoding in _ZLIB:
        body = zlib.decompress(body, _ANY_HEADER)
    elif encoding is not None:
        family = family_of(response)
        body = family.Response(response.status_code, headers=response.headers, content=raw).content
    original = None if raw is None else (response, raw)
    headers: Iterable[tuple[str, str]] = _Items(response.headers)
    if stream is not None and "content-encoding" in response.headers:
        # A stream is read decoded, and passed on as it was read.
        headers = tuple(one for one in headers if one[0] not in _OF_THE_ENCODING)
    return Answer(response.status_code, headers, body, original, stream)


class _Items(Iterable[tuple[str, str]]):
    """A response's headers, decoded when somebody asks: an answer that passes needs none."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._headers.multi_items())


def opens_stream(response: Any) -> bool:
    """Whether a response is a stream of events to be passed on as it comes."""
    return response.is_success and is_event_stream(response.headers.get("content-type"))


def failed(error: BaseException) -> SendFailed:
    """Return an inner transport's exception as a fact about the request."""
    return SendFailed(error, definite=type(error).__name__ in _DEFINITE)


def whole_response(answer: Answer, request: Any, family: Any) -> Any:
    """Return a whole answer as a response; one that was not changed is the very one received."""
    if answer.original is not None:
        response, raw = answer.original
        response.stream = family.ByteStream(raw)
        return response
    return family.Response(
        answer.status, headers=list(answer.headers), content=answer.body, request=request
    )


def cut_error(error: CutStream, request: Any, family: Any) -> BaseException:
    """Return the error that a stream cut short raises in a family."""
    failure: BaseException = family.RemoteProtocolError(str(error), request=request)
    return failure


def body_stream(
    family: Any, iterate: Callable[[], Any], close: Callable[[], Any], *, is_async: bool
) -> Any:
    """Return a body of a family's own type around two functions."""
    if is_async:
        names = {"__aiter__": lambda _self: iterate(), "aclose": lambda _self: close()}
        return type("Body", (family.AsyncByteStream,), names)()
    names = {"__iter__": lambda _self: iterate(), "close": lambda _self: close()}
    return type("Body", (family.SyncByteStream,), names)()
