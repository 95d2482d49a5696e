"""The response object, member by member as recorded."""

from __future__ import annotations

from typing import Any

from perdure.testing.provider.wire import Json

SNAPSHOTS = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "o3-mini": "o3-mini-2025-01-31",
}
"""What a model's short name is answered as."""


def skeleton(body: Json, handle: str, created: float, status: str) -> Json:
    """Return the response object before its first token, echoing what was asked."""
    conversation = conversation_id(body)
    response: Json = {
        "id": handle,
        "object": "response",
        "created_at": int(created),
        "status": status,
        "background": bool(body.get("background")),
    }
    if conversation is not None:
        response["conversation"] = {"id": conversation}
    model = str(body["model"])
    return response | {
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "model": SNAPSHOTS.get(model, model),
        "output": [],
        "parallel_tool_calls": _or(body.get("parallel_tool_calls"), default=True),
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None} | (body.get("reasoning") or {}),
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": body.get("service_tier") or "auto",
        "store": _or(body.get("store"), default=True),
        "temperature": _or(body.get("temperature"), default=1.0),
        "text": text_settings(body.get("text")),
        "tool_choice": _or(body.get("tool_choice"), default="auto"),
        "tools": [tool_settings(tool) for tool in body.get("tools") or []],
        "top_logprobs": body.get("top_logprobs") or 0,
        "top_p": _or(body.get("top_p"), default=1.0),
        "truncation": body.get("truncation") or "disabled",
        "usage": None,
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }


def _or(value: Any, *, default: Any) -> Any:
    return default if value is None else value


def conversation_id(body: Json) -> str | None:
    """Return the conversation a request names, in either form."""
    named = body.get("conversation")
    return named.get("id") if isinstance(named, dict) else named


def finished(response: Json, output: list[Json], status: str, usage: Json) -> Json:
    """Return the response object at its end."""
    incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
    tier = "default" if response["service_tier"] == "auto" else response["service_tier"]
    return response | {
        "status": status,
        "incomplete_details": incomplete,
        "output": output,
        "service_tier": tier,
        "usage": usage,
    }


def billed(response: Json) -> Json:
    """Return the object with the member that only plain JSON answers carry, in its place."""
    answered: Json = {}
    for name, value in response.items():
        answered[name] = value
        if name == "background":
            answered["billing"] = {"payer": "developer"}
    return answered


def usage(
    input_tokens: int, output_tokens: int, reasoning_tokens: int = 0, cached_tokens: int = 0
) -> Json:
    """Return the usage object."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }


def text_settings(text: Json | None) -> Json:
    """Return the text settings with their defaults."""
    given = text or {}
    asked = given.get("format") or {"type": "text"}
    form = asked
    if asked.get("type") == "json_schema":
        form = {
            "type": "json_schema",
            "description": asked.get("description"),
            "name": asked.get("name"),
            "schema": asked.get("schema"),
            "strict": bool(asked.get("strict")),
        }
    return {"format": form, "verbosity": given.get("verbosity") or "medium"}


def tool_settings(tool: Json) -> Json:
    """Return a tool as answered: functions are strict unless told otherwise."""
    if tool.get("type") != "function":
        return tool
    strict = _or(tool.get("strict"), default=True)
    parameters = tool.get("parameters")
    return {
        "type": "function",
        "description": tool.get("description"),
        "name": tool.get("name"),
        "parameters": _strict(parameters) if strict else parameters,
        "strict": strict,
    }


def _strict(schema: Any) -> Any:
    """Return a schema in strict form: all properties required, no others allowed."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    form = {name: _strict(value) for name, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        properties = schema["properties"]
        form["properties"] = {name: _strict(value) for name, value in properties.items()}
        form["required"] = list(properties)
        form["additionalProperties"] = False
    return form
