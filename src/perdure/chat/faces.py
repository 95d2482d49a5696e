"""``Chat`` and ``AsyncChat``: a user id in, a reply out, no handle in sight."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from json import JSONDecodeError
from operator import attrgetter
from typing import Any

from perdure.chat.talk import Ask, Deltas, Sent, Talk
from perdure.chat.values import Check, Hit, Message, Receipt, Reply, Via
from perdure.engine.ops import Entry
from perdure.errors import ConfigurationError, NoAnswer, PerdureError, RemoteError
from perdure.flow import Done, Flow, Op, run, run_async
from perdure.model import Policy, Recovery
from perdure.stores import Store
from perdure.transport import AsyncTransport, Transport


class ReplyStream:
    """A reply as it is written: iterate over its text, then read ``reply``."""

    def __init__(self, chat: Chat, sent: Sent) -> None:
        self._chat = chat
        self._sent = sent
        self._reply: Reply | None = None

    def __iter__(self) -> Iterator[str]:
        deltas = Deltas()
        with self._sent.answer as events:
            for event in events:
                text = deltas.text(event)
                if text:
                    yield text
        self._reply = self._chat.run(self._chat.talk.reply(self._sent, _whole(deltas)))

    @property
    def reply(self) -> Reply:
        """The finished reply; raises before the stream has been read to its end."""
        return _finished(self._reply)


class AsyncReplyStream:
    """:class:`ReplyStream` for ``async for``."""

    def __init__(self, chat: AsyncChat, sent: Sent) -> None:
        self._chat = chat
        self._sent = sent
        self._reply: Reply | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        deltas = Deltas()
        async with self._sent.answer as events:
            async for event in events:
                text = deltas.text(event)
                if text:
                    yield text
        self._reply = await self._chat.run(self._chat.talk.reply(self._sent, _whole(deltas)))

    @property
    def reply(self) -> Reply:
        """The finished reply; raises before the stream has been read to its end."""
        return _finished(self._reply)


def _whole(deltas: Deltas) -> Any:
    if not deltas.heard:
        raise NoAnswer("a stream of events", "something else")
    if deltas.answer is None:
        raise RemoteError(
            "The stream ended before its answer was complete. What arrived is stored."
        )
    return deltas.answer


def _finished(reply: Reply | None) -> Reply:
    if reply is None:
        raise RemoteError("The stream has not been read to its end: there is no reply yet.")
    return reply


class Chat:
    """Conversations by user id, on the sync SDK.

    ``client`` is an ``OpenAI`` client; its own HTTP client (proxies, hooks, certificates) goes on
    sending, under a transport on ``store``. One that has a perdure transport already is used as
    it is. ``via`` chooses the provider's API. ``fallback`` (``model``, ``instructions`` …) lets a
    chat on threads go on with Responses, history included, once threads are switched off for good;
    without it the provider's error is raised. Everything else (``model``, ``instructions``,
    ``tools``, ``assistant_id`` …) is passed to the SDK's ``create`` with every message.
    """

    def __init__(
        self,
        client: Any,
        store: str | Store | None = None,
        *,
        via: Via = "responses",
        tenant: str = "default",
        policy: Policy | None = None,
        on_recovery: Callable[[Recovery], object] | None = None,
        fallback: dict[str, Any] | None = None,
        **defaults: Any,
    ) -> None:
        self.client, self.transport = _attached(
            client, Transport, store, tenant=tenant, policy=policy, on_recovery=on_recovery
        )
        tenant = self.transport.core.tenant
        self.talk = Talk(tenant, _upstream(self.client), via, defaults, fallback)

    def run(self, flow: Flow[Any]) -> Any:
        """Carry out a flow of this chat."""
        outcome = run(flow, self._perform)
        assert isinstance(outcome, Done)
        return outcome.value

    def _perform(self, op: Op[Any]) -> Any:
        if not isinstance(op, Ask):
            return self.transport.perform(op)
        try:
            return attrgetter(op.method)(self.client)(**op.values)
        except Exception as error:
            raise _own_fault(error) from error

    def send(self, subject: str, message: Message, /, **options: Any) -> Reply:
        """Send a user's message and return the reply; stored before it is sent.

        One provider call (threads: message, run, polls, one list); a lost replica costs one more
        (responses) or two. Raises the SDK's errors for the provider's, and
        :class:`~perdure.errors.PerdureError` for ours.
        """
        reply: Reply = self.run(self.talk.send(subject, message, options))
        return reply

    def stream(self, subject: str, message: Message, /, **options: Any) -> ReplyStream:
        """Send a user's message and return the reply as a stream of text."""
        return ReplyStream(self, self.run(self.talk.begin(subject, message, options, stream=True)))

    def check(self, subject: str) -> Check:
        """Ask the provider whether it still has this user's replica, before costly work.

        One retrieve. A lost conversation or thread is replaced at once (one more call), a lost
        chain of responses by the next ``send``.
        """
        checked: Check = self.run(self.talk.check(subject))
        return checked

    def pin(self, subject: str, text: str) -> int:
        """Keep a fact that every rebuilt replica is told first; returns how many are kept."""
        count: int = self.run(self.talk.pin(subject, text))
        return count

    def history(
        self,
        subject: str,
        *,
        limit: int = 50,
        before: int | None = None,
        after: int | None = None,
    ) -> tuple[Entry, ...]:
        """Return the newest entries, oldest first.

        Page back with ``before=entries[0].position``, forth with ``after=entries[-1].position``.
        An entry has its time, its tokens, and the recovery where its turn met one.
        """
        entries: tuple[Entry, ...] = self.run(self.talk.history(subject, limit, before, after))
        return entries

    def search(self, subject: str, query: str, *, limit: int = 10) -> tuple[Hit, ...]:
        """Return what a user and the model said about something, best first; no provider call."""
        hits: tuple[Hit, ...] = self.run(self.talk.search(subject, query, limit))
        return hits

    def forget(self, subject: str) -> Receipt:
        """Erase a user's conversations here and at the provider.

        One delete for each live handle, and for each item of a conversation, which deleting the
        conversation would leave behind.
        """
        receipt: Receipt = self.run(self.talk.forget(subject))
        return receipt

    def close(self) -> None:
        """Finish background work and close connections."""
        self.transport.close()


class AsyncChat:
    """:class:`Chat` on the async SDK: the same methods, awaited."""

    def __init__(
        self,
        client: Any,
        store: str | Store | None = None,
        *,
        via: Via = "responses",
        tenant: str = "default",
        policy: Policy | None = None,
        on_recovery: Callable[[Recovery], object] | None = None,
        fallback: dict[str, Any] | None = None,
        **defaults: Any,
    ) -> None:
        self.client, self.transport = _attached(
            client, AsyncTransport, store, tenant=tenant, policy=policy, on_recovery=on_recovery
        )
        tenant = self.transport.core.tenant
        self.talk = Talk(tenant, _upstream(self.client), via, defaults, fallback)

    async def run(self, flow: Flow[Any]) -> Any:
        """Carry out a flow of this chat."""
        outcome = await run_async(flow, self._perform)
        assert isinstance(outcome, Done)
        return outcome.value

    async def _perform(self, op: Op[Any]) -> Any:
        if not isinstance(op, Ask):
            return await self.transport.perform(op)
        try:
            return await attrgetter(op.method)(self.client)(**op.values)
        except Exception as error:
            raise _own_fault(error) from error

    async def send(self, subject: str, message: Message, /, **options: Any) -> Reply:
        """:meth:`Chat.send`, awaited."""
        reply: Reply = await self.run(self.talk.send(subject, message, options))
        return reply

    async def stream(self, subject: str, message: Message, /, **options: Any) -> AsyncReplyStream:
        """:meth:`Chat.stream`, awaited."""
        sent = await self.run(self.talk.begin(subject, message, options, stream=True))
        return AsyncReplyStream(self, sent)

    async def check(self, subject: str) -> Check:
        """:meth:`Chat.check`, awaited."""
        checked: Check = await self.run(self.talk.check(subject))
        return checked

    async def pin(self, subject: str, text: str) -> int:
        """:meth:`Chat.pin`, awaited."""
        count: int = await self.run(self.talk.pin(subject, text))
        return count

    async def history(
        self,
        subject: str,
        *,
        limit: int = 50,
        before: int | None = None,
        after: int | None = None,
    ) -> tuple[Entry, ...]:
        """:meth:`Chat.history`, awaited."""
        flow = self.talk.history(subject, limit, before, after)
        entries: tuple[Entry, ...] = await self.run(flow)
        return entries

    async def search(self, subject: str, query: str, *, limit: int = 10) -> tuple[Hit, ...]:
        """:meth:`Chat.search`, awaited."""
        hits: tuple[Hit, ...] = await self.run(self.talk.search(subject, query, limit))
        return hits

    async def forget(self, subject: str) -> Receipt:
        """:meth:`Chat.forget`, awaited."""
        receipt: Receipt = await self.run(self.talk.forget(subject))
        return receipt

    async def aclose(self) -> None:
        """Finish background work and close connections."""
        await self.transport.aclose()


def _attached(client: Any, kind: Any, store: str | Store | None, **options: Any) -> Any:
    """Return the client with a perdure transport under it, and that transport.

    The SDK offers no public way to its HTTP client; ``_client`` has been its name since 1.0.
    """
    http = getattr(client, "_client", None)
    if http is None:
        raise ConfigurationError("Chat needs an OpenAI client (AsyncChat an AsyncOpenAI one).")
    mounted = getattr(http, "_transport", None)
    if isinstance(mounted, kind):
        return client, mounted
    if store is None:
        raise ConfigurationError("Chat needs a store, for example 'sqlite:///chat.db'.")
    family = sys.modules[_family_name(http)]
    is_async = kind is AsyncTransport
    wanted = family.AsyncClient if is_async else family.Client
    if not isinstance(http, wanted):
        raise ConfigurationError(
            "Chat works on OpenAI, AsyncChat on AsyncOpenAI: this client is of the other kind."
        )
    transport = kind(store, inner=http, **options)
    outer = wanted(transport=transport, timeout=http.timeout)
    return client.with_options(http_client=outer), transport


def _upstream(client: Any) -> str:
    """Return where a client's calls go, as the transport names it."""
    url = client.base_url
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.path.rstrip('/')}"


def _family_name(http: object) -> str:
    """Return the HTTP library under a client, through the SDK's own subclasses of it."""
    for base in type(http).__mro__:
        name = base.__module__.partition(".")[0]
        if name in {"httpx", "httpx2"}:
            return name
    raise ConfigurationError(f"{type(http).__name__} is neither an httpx2 nor an httpx client.")


def _own_fault(error: Exception) -> Exception:
    """Return our fault as the exception that it is; the SDK saw an HTTP answer.

    What the SDK cannot even decode is no answer either.
    """
    if isinstance(error, JSONDecodeError | UnicodeDecodeError):
        return NoAnswer("JSON", "something else")
    body = getattr(error, "body", None)
    if not isinstance(body, dict) or body.get("type") != "perdure_error":
        return error
    fault = PerdureError(body.get("message") or str(error))
    fault.code = str(body.get("code") or fault.code)
    fault.status = getattr(error, "status_code", fault.status)
    return fault
