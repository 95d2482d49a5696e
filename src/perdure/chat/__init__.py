"""Chat: the article's own function. A user id and a message in, a reply out."""

from perdure.chat.faces import AsyncChat, AsyncReplyStream, Chat, ReplyStream
from perdure.chat.values import Check, Hit, Receipt, Reply, ToolCall

__all__ = [
    "AsyncChat",
    "AsyncReplyStream",
    "Chat",
    "Check",
    "Hit",
    "Receipt",
    "Reply",
    "ReplyStream",
    "ToolCall",
]
