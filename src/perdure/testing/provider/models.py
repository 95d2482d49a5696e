"""The models the provider claims to have, which is nearly all of them."""

from __future__ import annotations

from perdure.testing.provider import errors
from perdure.testing.provider.state import State
from perdure.testing.provider.wire import Answer, Json, Request

LISTED = ("gpt-4o", "gpt-4o-mini", "gpt-5.6", "o3-mini")
MISSING_MODEL = "gpt-404"
MISSING_PREFIX = "missing-"
CREATED = 1_715_367_049
WEIGHTS = {"gpt-5.6-mini": 1.3, "gpt-6": 0.8}
"""What a token of ours counts under a model whose tokenizer is another one; 1 if not named."""


def require(name: str) -> None:
    """Refuse a model that does not exist: `gpt-404` and everything called `missing-…`."""
    if name == MISSING_MODEL or name.startswith(MISSING_PREFIX):
        raise errors.MODEL_NOT_FOUND.error(model=name)


def weigh(name: str, tokens: int) -> int:
    """Return what a model counts some of our tokens as."""
    return round(tokens * WEIGHTS.get(name, 1.0))


def _wire(name: str) -> Json:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "system"}


def list_all(_state: State, _request: Request) -> Answer:
    """Answer GET /models."""
    return Answer({"object": "list", "data": [_wire(name) for name in LISTED]})


def retrieve(_state: State, _request: Request, name: str) -> Answer:
    """Answer GET /models/{id}."""
    require(name)
    return Answer(_wire(name))
