"""Telling the caller: the ``perdure`` member and headers of an answer, and nowhere else."""

from __future__ import annotations

from perdure.dialects.body import with_members
from perdure.dialects.items import dumps
from perdure.engine.ops import Answer
from perdure.model import Recovery


def member(recovery: Recovery) -> str:
    """Return the JSON member that tells of a recovery."""
    return f'"perdure":{dumps(recovery.as_member())}'


def marked(answer: Answer, recovery: Recovery) -> Answer:
    """Return an answer that says that the replica under it was rebuilt."""
    return _with(answer, member(recovery)).edited(headers=recovery.as_headers())


def not_stored(answer: Answer) -> Answer:
    """Return an answer that says that it stands nowhere but here."""
    return _with(answer, '"perdure":{"stored":false}').edited(
        headers=(("perdure-stored", "false"),)
    )


def _with(answer: Answer, text: str) -> Answer:
    """Return an answer with one more member; one that is no JSON object is left as it is."""
    if not answer.body.rstrip().endswith(b"}"):
        return answer
    return answer.edited(with_members(answer.body.decode(), text).encode())
