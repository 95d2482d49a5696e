"""Which function answers which path."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from perdure.testing.provider import (
    assistants,
    chat,
    conversations,
    errors,
    files,
    models,
    response_routes,
    responses,
    runs,
    threads,
    vector_stores,
)
from perdure.testing.provider.state import State
from perdure.testing.provider.wire import Answer, Request

logger = logging.getLogger(__name__)

Route = Callable[..., Answer]
"""Takes the state, the request, and one string for each `{}` of its path."""

TABLE: dict[str, dict[str, Route]] = {
    "/responses": {"POST": responses.create},
    "/responses/input_tokens": {"POST": response_routes.input_tokens},
    "/responses/compact": {"POST": response_routes.compact},
    "/responses/{}": {"GET": response_routes.retrieve, "DELETE": response_routes.delete},
    "/responses/{}/cancel": {"POST": response_routes.cancel},
    "/responses/{}/input_items": {"GET": response_routes.input_items},
    "/conversations": {"POST": conversations.create},
    "/conversations/{}": {
        "GET": conversations.retrieve,
        "POST": conversations.update,
        "DELETE": conversations.delete,
    },
    "/conversations/{}/items": {
        "GET": conversations.list_items,
        "POST": conversations.add_items,
    },
    "/conversations/{}/items/{}": {
        "GET": conversations.retrieve_item,
        "DELETE": conversations.delete_item,
    },
    "/assistants": {"POST": assistants.create, "GET": assistants.list_all},
    "/assistants/{}": {
        "GET": assistants.retrieve,
        "POST": assistants.update,
        "DELETE": assistants.delete,
    },
    "/threads": {"POST": threads.create},
    "/threads/runs": {"POST": runs.create_with_thread},
    "/threads/{}": {
        "GET": threads.retrieve,
        "POST": threads.update,
        "DELETE": threads.delete,
    },
    "/threads/{}/messages": {"POST": threads.create_message, "GET": threads.list_messages},
    "/threads/{}/messages/{}": {
        "GET": threads.retrieve_message,
        "POST": threads.update_message,
        "DELETE": threads.delete_message,
    },
    "/threads/{}/runs": {"POST": runs.create, "GET": runs.list_all},
    "/threads/{}/runs/{}": {"GET": runs.retrieve, "POST": runs.update},
    "/threads/{}/runs/{}/cancel": {"POST": runs.cancel},
    "/threads/{}/runs/{}/submit_tool_outputs": {"POST": runs.submit},
    "/threads/{}/runs/{}/steps": {"GET": runs.list_steps},
    "/threads/{}/runs/{}/steps/{}": {"GET": runs.retrieve_step},
    "/files": {"POST": files.create},
    "/files/{}": {"GET": files.retrieve, "DELETE": files.delete},
    "/vector_stores": {"POST": vector_stores.create},
    "/vector_stores/{}": {"GET": vector_stores.retrieve, "DELETE": vector_stores.delete},
    "/chat/completions": {"POST": chat.create},
    "/models": {"GET": models.list_all},
    "/models/{}": {"GET": models.retrieve},
}
PATTERNS = [
    (re.compile(path.replace("{}", "([^/]+)") + r"\Z"), methods) for path, methods in TABLE.items()
]
BETA_PREFIXES = ("/threads", "/assistants")
BETA = "assistants=v2"


def answer(state: State, request: Request) -> Answer:
    """Answer one request; every refusal becomes an answer too."""
    try:
        return _answer(state, request)
    except errors.ApiError as error:
        return Answer.of_error(error)
    except Exception:
        # A request nobody foresaw: the caller gets what a provider would say, the log the rest.
        logger.exception("the provider failed on %s %s", request.method, request.path)
        return Answer.of_error(errors.SERVER_ERROR.error())


def _answer(state: State, request: Request) -> Answer:
    if not request.project:
        raise errors.NO_KEY.error()
    route, arguments = _find(request)
    has_beta = BETA in request.headers.get("openai-beta", "")
    if request.path.startswith(BETA_PREFIXES) and not has_beta:
        raise errors.NO_BETA.error()
    return route(state, request, *arguments)


def _find(request: Request) -> tuple[Route, tuple[str, ...]]:
    full = request.base + request.path
    for pattern, methods in PATTERNS:
        match = pattern.match(request.path)
        if match is None:
            continue
        route = methods.get(request.method)
        if route is None:
            raise errors.METHOD_NOT_ALLOWED.error(method=request.method, path=full)
        return route, match.groups()
    raise errors.INVALID_URL.error(method=request.method, path=full)
