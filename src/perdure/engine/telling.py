"""Telling the caller: the ``perdure`` member and headers of an answer, and nowhere else."""

from __future__ import annotations

from typing import Any

from perdure.dialects.body import with_members
from perdure.dialects.items import dumps
from perdure.engine.ops import Answer
from perdure.model import Recovery


def member(recovery: Recovery | None, *, stored: bool = True) -> str | None:
    """Return the JSON member that tells of a recovery, and of an answer that stands nowhere else.

    None where there is nothing to tell.
    """
    told: dict[str, Any] = recovery.as_member() if recovery is not None else {}
    if not stored:
        told["stored"] = False
    return f'"perdure":{dumps(told)}' if told else None


def marked(answer: Answer, recovery: Recovery | None, *, stored: bool = True) -> Answer:
    """Return an answer that says that the replica under it was rebuilt, or that it is not stored.

    One that is no JSON object says so in its headers only.
    """
    text = member(recovery, stored=stored)
    if text is None:
        return answer
    headers = recovery.as_headers() if recovery is not None else ()
    unstored = () if stored else (("perdure-stored", "false"),)
    if answer.body.rstrip().endswith(b"}"):
        answer = answer.edited(with_members(answer.body.decode(), text).encode())
    return answer.edited(headers=(*headers, *unstored))
