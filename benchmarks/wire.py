"""The provider's side of a turn: answers of constant size and realistic shape, each id new."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from typing import Final

REPLY: Final = (
    "A conversation is kept by the provider under an id, and the id stops working when the copy "
    "behind it is gone. Whoever holds only the id then holds nothing. The way out is to keep the "
    "items yourself, as they were sent and received, and to give them to a new conversation when "
    "the old one cannot be found. What has to be decided is when that is certain, what may be "
    "given again, and who does it when several workers notice the loss at the same time."
)
_CONVERSATION: Final = re.compile(rb'"conversation":\s*"([^"]+)"')
_PREVIOUS: Final = re.compile(rb'"previous_response_id":\s*"([^"]+)"')
_HOLE: Final = "%s"
_RESPONSE: Final = {
    "id": _HOLE,
    "object": "response",
    "created_at": 1760000000,
    "status": "completed",
    "background": False,
    "billing": {"payer": "developer"},
    "completed_at": 1760000001,
    "conversation": _HOLE,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "gpt-5.1-2025-11-13",
    "output": [
        {
            "id": _HOLE,
            "type": "message",
            "status": "completed",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": REPLY}],
            "role": "assistant",
        }
    ],
    "parallel_tool_calls": True,
    "previous_response_id": _HOLE,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": {
        "input_tokens": 1200,
        "input_tokens_details": {"cached_tokens": 1024},
        "output_tokens": 96,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 1296,
    },
    "user": None,
    "metadata": {},
}
# Written with an indent of two, as OpenAI's own servers write it.
_TEMPLATE: Final = (
    json.dumps(_RESPONSE, indent=2)
    .replace(f'"conversation": "{_HOLE}"', f'"conversation": {_HOLE}')
    .replace(f'"previous_response_id": "{_HOLE}"', f'"previous_response_id": {_HOLE}')
    .encode()
)


class Provider:
    """Answers requests; remembers nothing."""

    def __init__(self) -> None:
        self._prefix = uuid.uuid4().hex
        self._numbers = itertools.count()

    def new_id(self, kind: str) -> str:
        """Return an id of the provider's form that nobody else gives out."""
        return f"{kind}_{self._prefix}{next(self._numbers):016x}"

    def response(self, request: bytes) -> bytes:
        """Answer ``POST /responses``; the handle that was sent is named in the answer."""
        conversation = _CONVERSATION.search(request)
        previous = _PREVIOUS.search(request)
        return _TEMPLATE % (
            self.new_id("resp").encode(),
            b'{"id": "%s"}' % conversation[1] if conversation else b"null",
            self.new_id("msg").encode(),
            b'"%s"' % previous[1] if previous else b"null",
        )

    def conversation(self) -> bytes:
        """Answer ``POST /conversations``."""
        value = {
            "id": self.new_id("conv"),
            "object": "conversation",
            "created_at": 1760000000,
            "metadata": {},
        }
        return json.dumps(value, indent=2).encode()
