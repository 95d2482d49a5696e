"""Silent amnesia: an answer of 200 that was made from an empty conversation.

No status tells of it. What tells is the provider's own count: a turn cannot have been answered from
a history of thousands of tokens if its whole input was counted as a few hundred. Both sides of the
comparison are the provider's numbers. As long as instructions and tools stay the same they are in
both, so that they need not be known: an input only grows. What has to be estimated (the size of
this call's own input, and of instructions and tools where they change) is bounded on the safe side,
and where the bounds do not decide, nothing is concluded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, TypeAlias

from perdure.dialects import upstreams
from perdure.dialects.body import Body, object_of
from perdure.dialects.items import CALL_KINDS
from perdure.model import OnAmnesia, Remembered, value

Finding: TypeAlias = Literal["remembers", "forgot", "unjudged"]

_LEAST_TOKENS: Final = 200  # below that a history cannot be told from an instruction
_MISSING: Final = 0.5
_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LETTERS_PER_TOKEN: Final = 2  # at least; any other byte may be a token, as digits are
_MOST_BYTES_PER_TOKEN: Final = 8  # of instructions and tools
_REWRITING: Final = ("context_management", "compaction")
_FIXED: Final = ("instructions", "tools", "tool_choice", "text", "prompt")
_FUNCTIONS: Final = {"function", "custom"}
_HIDDEN: Final = "?"  # begins the mark of what is larger than the call shows
# What a provider's own tools find is counted as input while they are at work, and never again.
_PLAIN_OUTPUT: Final = CALL_KINDS | {"message", "reasoning"}


@value
class Counts:
    """What a response says of its own size; None where it says nothing."""

    model: str | None
    input_tokens: int | None
    cached_tokens: int
    visible_tokens: int
    reasoning_tokens: int
    calls: bool
    whole: bool


def counts_of(response: dict[str, Any], output: list[dict[str, Any]], upstream: str = "") -> Counts:
    """Read a response's counts; ``whole``: nothing was cut from or withheld in its input.

    ``cached_tokens`` are those that an upstream may have left out of its input.
    """
    usage, model = object_of(response.get("usage")), response.get("model")
    cached = _number(object_of(usage.get("input_tokens_details")).get("cached_tokens")) or 0
    reasoning = _number(object_of(usage.get("output_tokens_details")).get("reasoning_tokens")) or 0
    return Counts(
        model=model if isinstance(model, str) else None,
        input_tokens=_number(usage.get("input_tokens")),
        cached_tokens=0 if upstreams.counts_cached(upstream) else cached,
        visible_tokens=max(0, (_number(usage.get("output_tokens")) or 0) - reasoning),
        reasoning_tokens=reasoning,
        calls=any(str(item.get("type")).endswith("_call") for item in output),
        whole=response.get("truncation") in {None, "disabled"}
        and not response.get("input_transformations")
        and is_plain(output),
    )


def _number(member: object) -> int | None:
    return member if isinstance(member, int) else None


def is_plain(output: Iterable[dict[str, Any]]) -> bool:
    """Whether all of an output is counted in the next input as it was in this one."""
    return all(item.get("type", "message") in _PLAIN_OUTPUT for item in output)


@value
class Brought:
    """What a call itself adds to the input of its answer, as far as it need be known.

    ``fixed`` marks what is no history (instructions, tools), which has ``fixed_least`` to
    ``fixed_most`` tokens, as far as the call shows it; with all else that the call brings it has
    ``most``, and of that its own items have ``least`` at least. ``rewrites``: what it continues may
    be shortened. ``varies``: its count says nothing of another call's. ``returns``: it has outputs
    of calls.
    """

    fixed: str
    fixed_least: int
    fixed_most: int
    least: int
    most: int
    rewrites: bool
    varies: bool
    returns: bool


def brought_by(body: Body) -> Brought:
    """Measure a call."""
    members = body.members
    texts = [f"{key}:{body.raw(key)}" for key in _FIXED if members.get(key)]
    fixed = "\n".join(texts).encode()
    mark = hashlib.sha256(fixed).hexdigest()[:16] if texts else ""
    tools = _kinds_of_tools(members.get("tools"))
    prompt = members.get("prompt")
    return Brought(
        fixed=f"{_HIDDEN}{mark}" if prompt or tools - _FUNCTIONS else mark,
        fixed_least=len(fixed) // _MOST_BYTES_PER_TOKEN,
        fixed_most=_tokens_at_most(fixed),
        least=sum(len(text.split()) for text in _said_in(members.get("input"))),
        most=_own_tokens_at_most(body),
        rewrites=any(key in members for key in _REWRITING)
        or _has_parts_of_unknown_size(members.get("input")),
        varies=members.get("truncation") not in {None, "disabled"}
        or "mcp" in tools
        or (bool(prompt) and not (isinstance(prompt, dict) and prompt.get("version"))),
        returns='_call_output"' in body.text or '"mcp_approval_response"' in body.text,
    )


def _kinds_of_tools(tools: Any) -> set[str]:
    """Return the types of a call's tools; a server's own are described where nobody sees it."""
    if not isinstance(tools, list):
        return set()
    return {str(tool.get("type")) for tool in tools if isinstance(tool, dict)}


def _said_in(sent: Any) -> Iterator[str]:
    """Yield the texts of a call's input: each word of them is a token, or more than one."""
    if isinstance(sent, str):
        yield sent
    elif isinstance(sent, list):
        for item in sent:
            if isinstance(item, dict) and item.get("type") != "reasoning":
                yield from _said_in(item.get("content") or item.get("output") or item.get("text"))


def judge(before: Remembered | None, brought: Brought, counts: Counts) -> Finding:
    """Say whether an answer can have been made from the history that it continues."""
    if before is None or not _comparable(before, brought, counts):
        return "unjudged"
    seen = counts.input_tokens or 0
    # OpenAI counts cached tokens in; a server that leaves them out has not forgotten them.
    shown = seen + counts.cached_tokens
    if brought.fixed == before.fixed:
        # The input was so large before, and is larger by this call's own: what lacks is history.
        expected = before.tokens + brought.fixed_most
        own = brought.most - brought.fixed_most
        lacks, history = expected + brought.least - shown, expected - brought.fixed_least
        if lacks >= max(history, _LEAST_TOKENS) * _MISSING:
            return "forgot"
        remembers = expected - (seen - own) <= before.tokens * _MISSING
        return "remembers" if remembers else "unjudged"
    needed = before.tokens * _MISSING
    if before.tokens < _LEAST_TOKENS or _HIDDEN in before.fixed + brought.fixed:
        return "unjudged"
    if shown - brought.least < needed:
        return "forgot"
    return "remembers" if seen - brought.most >= needed else "unjudged"


def _comparable(before: Remembered, brought: Brought, counts: Counts) -> bool:
    return (
        before.model == counts.model
        and bool(counts.input_tokens)
        and counts.whole
        and not brought.rewrites
        and not brought.varies
    )


def _has_parts_of_unknown_size(sent: Any) -> bool:
    """Whether the call compacts: such items stand for a history that is not sent any more."""
    return isinstance(sent, list) and any(
        isinstance(item, dict) and item.get("type") == "compaction" for item in sent
    )


def _own_tokens_at_most(body: Body) -> int:
    """Return more tokens than this call's own members can have; images have no such bound."""
    if '"input_image"' in body.text or '"input_file"' in body.text or '"input_audio"' in body.text:
        return 2**31
    return _tokens_at_most(body.text.encode())


def _tokens_at_most(text: bytes) -> int:
    """Return more tokens than any usual tokenizer makes of a text, in any script."""
    others = len(text.translate(None, _LETTERS))
    return others + (len(text) - others) // _LETTERS_PER_TOKEN


def remembered(before: Remembered | None, brought: Brought, counts: Counts) -> Remembered | None:
    """Return what the next turn must at least see of the history: a lower bound, or None.

    Reasoning of a run of tool calls is in the input until the run ends, and then never again.
    """
    if not counts.input_tokens or counts.model is None or not counts.whole or brought.varies:
        return None
    known = before is not None and (not before.reasoning_tokens or before.model == counts.model)
    if not known and brought.returns:
        return None  # a run of calls goes on: how much of its input is reasoning is not known
    carried = before.reasoning_tokens if before is not None else 0
    return Remembered(
        tokens=counts.input_tokens - carried - brought.fixed_most + counts.visible_tokens,
        reasoning_tokens=carried + counts.reasoning_tokens if counts.calls else 0,
        model=counts.model,
        fixed=brought.fixed,
    )


@value
class Conclusion:
    """Whether an answer was made without the history, and what the next one must be made from.

    ``given_up``: what made it is not gone on from.
    """

    forgot: bool
    given_up: bool
    remembered: Remembered | None


def conclude(
    before: Remembered | None, brought: Brought, counts: Counts, on_amnesia: OnAmnesia
) -> Conclusion:
    """Judge an answer by a policy.

    What has forgotten is given up under `rebuild`. Should nobody come to do that, the next answer
    from it is judged by the same bound.
    """
    forgot = on_amnesia != "off" and judge(before, brought, counts) == "forgot"
    given_up = forgot and on_amnesia == "rebuild"
    return Conclusion(forgot, given_up, before if given_up else remembered(before, brought, counts))
