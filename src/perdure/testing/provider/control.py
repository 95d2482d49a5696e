"""The provider's own controls over HTTP, under /_provider, for other processes and languages."""

from __future__ import annotations

import base64
from typing import Any

from perdure.testing.provider import errors
from perdure.testing.provider.faults import Fault
from perdure.testing.provider.state import Recorded, State
from perdure.testing.provider.wire import Answer, Json, Request

BASE = "/_provider"


def answer(state: State, request: Request) -> Answer:
    """Answer one control request; a wrong order is 400, an unknown id is 404."""
    try:
        return Answer(_answer(state, request))
    except errors.ApiError as error:
        return Answer.of_error(error)
    except LookupError as error:
        return Answer({"error": {"message": str(error)}}, 404)
    except (TypeError, ValueError) as error:
        return Answer({"error": {"message": str(error)}}, 400)


def _answer(state: State, request: Request) -> Json:
    body = request.json()
    match request.method, request.path:
        case "POST", "/forget":
            state.forget(body.get("handle"))
        case "POST", "/clock":
            return {"now": state.clock.advance(float(body["advance_seconds"]))}
        case "POST", "/faults":
            state.order(Fault.from_json(body))
        case "DELETE", "/faults":
            state.faults.clear()
        case "GET", "/faults":
            return {"faults": [fault.to_json() for fault in state.faults.orders]}
        case "POST", "/expire":
            state.expire_after(str(body.get("kind")), body.get("seconds"))
        case "POST", "/script":
            state.scripted.extend(body["outputs"])
        case "GET", "/requests":
            return {"requests": [_recorded(one) for one in state.requests]}
        case "DELETE", "/requests":
            state.requests.clear()
        case _:
            raise errors.INVALID_URL.error(method=request.method, path=BASE + request.path)
    return {"ok": True}


def _recorded(one: Recorded) -> Json:
    shown: dict[str, Any] = {
        "method": one.method,
        "path": one.path,
        "query": one.query,
        "headers": one.headers,
        "status": one.status,
        "at": one.at,
    }
    try:
        shown["body"] = one.body.decode()
    except UnicodeDecodeError:
        shown["body_base64"] = base64.b64encode(one.body).decode()
    return shown
