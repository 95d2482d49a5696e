"""The ways in which the frameworks keep their place in a conversation at OpenAI.

Each class is an app as that framework's manual writes it. What perdure needs of it is the client
that comes from ``site``; nothing else here knows about perdure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import agent_framework
import agent_framework_openai
import agents
import langchain_openai
import pydantic_ai
from agents.models.openai_responses import OpenAIResponsesModel
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponsesModel
from pydantic_ai.models.openai import OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

from tests.frameworks.site import MODEL, Site

Tool = Callable[[], str]
SYNC, ASYNC, STREAM, SYNC_STREAM = "sync", "async", "stream", "sync stream"


class Way(ABC):
    """An app that talks through a framework."""

    styles: tuple[str, ...]
    keeps: str  # what the app stores: a conversation, or the last response
    raises: type[Exception] | None = None  # on a loss, without perdure; None: the SDK's own

    def __init__(self, site: Site, style: str, *, tool: Tool | None = None) -> None:
        self.site = site
        self.style = style
        self.tools = [tool] if tool else []
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Build what the framework needs."""

    @abstractmethod
    def say(self, message: str) -> str:
        """Say one message and return the reply."""

    @property
    @abstractmethod
    def handle(self) -> str:
        """The provider's id that the conversation now hangs on."""


# -- openai-agents --------------------------------------------------------------------------------


class _Agents(Way):
    styles = (SYNC, ASYNC, STREAM)

    def prepare(self) -> None:
        self.sdk = self.site.sdk
        self.agent = agents.Agent(
            name="Assistant",
            model=OpenAIResponsesModel(model=MODEL, openai_client=self.sdk),
            tools=[agents.function_tool(tool) for tool in self.tools],
        )
        self.start()

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def place(self) -> dict[str, Any]:
        """The argument by which a run is told which conversation it continues."""

    def say(self, message: str) -> str:
        if self.style == SYNC:
            result: Any = agents.Runner.run_sync(self.agent, message, **self.place())
        elif self.style == ASYNC:
            result = self.site.wait(agents.Runner.run(self.agent, message, **self.place()))
        else:
            result = self.site.wait(self._streamed(message))
        self.after(result)
        return str(result.final_output)

    async def _streamed(self, message: str) -> Any:
        result = agents.Runner.run_streamed(self.agent, message, **self.place())
        self.pieces = [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]
        assert "".join(self.pieces) == result.final_output
        return result

    def after(self, result: Any) -> None:
        """Remember what the next run needs."""


class AgentsConversation(_Agents):
    """``Runner.run(…, conversation_id=)``."""

    keeps = "conversation"

    def start(self) -> None:
        self._id = self.site.conversation()

    def place(self) -> dict[str, Any]:
        return {"conversation_id": self._id}

    @property
    def handle(self) -> str:
        return self._id


class AgentsResponse(_Agents):
    """``Runner.run(…, previous_response_id=result.last_response_id)``."""

    keeps = "response"

    def start(self) -> None:
        self._id: str | None = None

    def place(self) -> dict[str, Any]:
        return {"previous_response_id": self._id}

    def after(self, result: Any) -> None:
        self._id = result.last_response_id

    @property
    def handle(self) -> str:
        assert self._id
        return self._id


class AgentsSession(_Agents):
    """``OpenAIConversationsSession``: the session reads the history and sends all of it."""

    keeps = "conversation"

    def start(self) -> None:
        self.session = agents.OpenAIConversationsSession(openai_client=self.sdk)

    def place(self) -> dict[str, Any]:
        return {"session": self.session}

    @property
    def handle(self) -> str:
        return self.session.session_id


# -- langchain-openai -----------------------------------------------------------------------------


class _LangChain(Way):
    styles = (SYNC, ASYNC, SYNC_STREAM, STREAM)

    def prepare(self) -> None:
        model = langchain_openai.ChatOpenAI(
            model=MODEL,
            base_url=self.site.provider.base_url,
            api_key="sk-test",
            http_client=self.site.http_client(),
            http_async_client=self.site.async_http_client(),
            use_responses_api=True,
            **self.options(),
        )
        self.model = model.bind_tools(self.tools) if self.tools else model
        self.start()

    def options(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def start(self) -> None: ...

    def ask(self, messages: list[AnyMessage], **place: Any) -> Any:
        if self.style == SYNC:
            return self.model.invoke(messages, **place)
        if self.style == ASYNC:
            return self.site.wait(self.model.ainvoke(messages, **place))
        if self.style == SYNC_STREAM:
            chunks = list(self.model.stream(messages, **place))
        else:
            chunks = self.site.wait(self._streamed(messages, place))
        return sum(chunks[1:], start=chunks[0])

    def outputs(self, answer: Any) -> list[AnyMessage]:
        """Call the tools that the model asked for."""
        tools = {tool.__name__: tool for tool in self.tools}
        return [
            ToolMessage(tools[call["name"]](), tool_call_id=call["id"])
            for call in answer.tool_calls
        ]

    async def _streamed(self, messages: list[AnyMessage], place: dict[str, Any]) -> list[Any]:
        return [chunk async for chunk in self.model.astream(messages, **place)]


class LangChainResponse(_LangChain):
    """``ChatOpenAI(use_previous_response_id=True)`` with the app's list of messages."""

    keeps = "response"

    def options(self) -> dict[str, Any]:
        return {"use_previous_response_id": True}

    def start(self) -> None:
        self.messages: list[AnyMessage] = []

    def say(self, message: str) -> str:
        self.messages.append(HumanMessage(message))
        while True:
            answer = self.ask(self.messages)
            self.messages.append(answer)
            if not answer.tool_calls:
                return str(answer.text)
            self.messages += self.outputs(answer)

    @property
    def handle(self) -> str:
        return str(self.messages[-1].response_metadata["id"])


class LangChainConversation(_LangChain):
    """``model.invoke(…, conversation=)``: ChatOpenAI passes it on to the Responses API."""

    keeps = "conversation"

    def start(self) -> None:
        self._id = self.site.conversation()

    def say(self, message: str) -> str:
        messages: list[AnyMessage] = [HumanMessage(message)]
        while True:
            answer = self.ask(messages, conversation=self._id)
            if not answer.tool_calls:
                return str(answer.text)
            messages = self.outputs(answer)

    @property
    def handle(self) -> str:
        return self._id


# -- pydantic-ai ----------------------------------------------------------------------------------


class _PydanticAI(Way):
    styles = (SYNC, ASYNC, SYNC_STREAM, STREAM)
    raises = pydantic_ai.ModelHTTPError

    def prepare(self) -> None:
        provider = OpenAIProvider(openai_client=self.site.sdk)
        model = PydanticResponsesModel(MODEL, provider=provider)
        self.agent = pydantic_ai.Agent(model, tools=self.tools)
        self.messages: list[Any] = []
        self.start()

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def settings(self) -> OpenAIResponsesModelSettings: ...

    def say(self, message: str) -> str:
        values: dict[str, Any] = {
            "message_history": self.messages,
            "model_settings": self.settings(),
        }
        if self.style == SYNC:
            result: Any = self.agent.run_sync(message, **values)
            said = result.output
        elif self.style == ASYNC:
            result = self.site.wait(self.agent.run(message, **values))
            said = result.output
        elif self.style == SYNC_STREAM:
            result = self.agent.run_stream_sync(message, **values)
            said = "".join(result.stream_text(delta=True))
        else:
            result, said = self.site.wait(self._streamed(message, values))
        self.after(result)
        return str(said)

    async def _streamed(self, message: str, values: dict[str, Any]) -> tuple[Any, str]:
        async with self.agent.run_stream(message, **values) as result:
            return result, "".join([piece async for piece in result.stream_text(delta=True)])

    def after(self, result: Any) -> None:
        self.messages = result.all_messages()


class PydanticAIResponse(_PydanticAI):
    """``openai_previous_response_id="auto"`` with the app's list of messages."""

    keeps = "response"

    def start(self) -> None: ...

    def settings(self) -> OpenAIResponsesModelSettings:
        return OpenAIResponsesModelSettings(openai_previous_response_id="auto")

    @property
    def handle(self) -> str:
        return str(self.messages[-1].provider_response_id)


class PydanticAIConversation(_PydanticAI):
    """``openai_conversation_id=`` an id that the app has stored; no list of messages."""

    keeps = "conversation"

    def start(self) -> None:
        self._id = self.site.conversation()

    def settings(self) -> OpenAIResponsesModelSettings:
        return OpenAIResponsesModelSettings(openai_conversation_id=self._id)

    def after(self, result: Any) -> None: ...

    @property
    def handle(self) -> str:
        return self._id


class PydanticAIConversationAndMessages(PydanticAIConversation):
    """The same, with the app's list of messages, of which pydantic-ai sends the new ones only."""

    def after(self, result: Any) -> None:
        self.messages = result.all_messages()


class PydanticAIConversationAuto(PydanticAIConversationAndMessages):
    """``openai_conversation_id="auto"``: the id is taken from the last reply that names one."""

    def settings(self) -> OpenAIResponsesModelSettings:
        started = bool(self.messages)
        return OpenAIResponsesModelSettings(openai_conversation_id="auto" if started else self._id)


# -- agent-framework ------------------------------------------------------------------------------


class _AgentFramework(Way):
    styles = (ASYNC, STREAM)
    raises = agent_framework.exceptions.ChatClientException

    def prepare(self) -> None:
        client = agent_framework_openai.OpenAIChatClient(model=MODEL, async_client=self.site.sdk)
        self.agent = agent_framework.Agent(client=client, tools=self.tools)
        self.start()

    @abstractmethod
    def start(self) -> None: ...

    def say(self, message: str) -> str:
        return self.site.wait(self._said(message))

    async def _said(self, message: str) -> str:
        if self.style == ASYNC:
            return str((await self.agent.run(message, session=self.session)).text)
        stream = self.agent.run(message, session=self.session, stream=True)
        assert [update async for update in stream]
        return str((await stream.get_final_response()).text)

    @property
    def handle(self) -> str:
        return str(self.session.service_session_id)


class AgentFrameworkConversation(_AgentFramework):
    """``agent.get_session(service_session_id="conv_…")``."""

    keeps = "conversation"

    def start(self) -> None:
        self.session = self.agent.get_session(self.site.conversation())


class AgentFrameworkResponse(_AgentFramework):
    """``agent.create_session()``: the session follows the last response."""

    keeps = "response"

    def start(self) -> None:
        self.session = self.agent.create_session()


WAYS: dict[str, type[Way]] = {
    "openai-agents conversation_id": AgentsConversation,
    "openai-agents previous_response_id": AgentsResponse,
    "openai-agents OpenAIConversationsSession": AgentsSession,
    "langchain-openai conversation": LangChainConversation,
    "langchain-openai use_previous_response_id": LangChainResponse,
    "pydantic-ai openai_conversation_id": PydanticAIConversation,
    "pydantic-ai openai_conversation_id and messages": PydanticAIConversationAndMessages,
    "pydantic-ai openai_conversation_id auto": PydanticAIConversationAuto,
    "pydantic-ai openai_previous_response_id": PydanticAIResponse,
    "agent-framework conversation": AgentFrameworkConversation,
    "agent-framework response": AgentFrameworkResponse,
}
EACH = [(name, style) for name, way in WAYS.items() for style in way.styles]
