"""The /files routes, as far as threads need them: what is uploaded can be named, and deleted."""

from __future__ import annotations

from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP

from perdure.testing.provider import errors
from perdure.testing.provider.state import State, StoredFile
from perdure.testing.provider.wire import Answer, Json, Request

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")


def create(state: State, request: Request) -> Answer:
    """Answer POST /files, which is a form."""
    fields = _form(request)
    for name in ("file", "purpose"):
        if name not in fields:
            raise errors.MISSING.error(param=name)
    purpose = fields["purpose"].get_content().strip()
    if purpose not in PURPOSES:
        supported = ", ".join(f"'{one}'" for one in PURPOSES)
        raise errors.INVALID_VALUE.error(param="purpose", value=purpose, supported=supported)
    content = fields["file"].get_payload(decode=True)
    size = len(content) if isinstance(content, bytes) else 0
    name = fields["file"].get_filename() or "upload"
    return Answer(keep(state, request.project, name, purpose, size).body)


def keep(
    state: State,
    project: str,
    filename: str,
    purpose: str = "assistants",
    size: int = 0,
    handle: str | None = None,
) -> StoredFile:
    """Make a file that can be named."""
    handle = handle or state.ids.short("file").replace("_", "-", 1)
    now = state.clock.now()
    body: Json = {
        "id": handle,
        "object": "file",
        "bytes": size,
        "created_at": int(now),
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "expires_at": None,
        "status_details": None,
    }
    state.files[handle] = StoredFile(handle, project, body, now)
    return state.files[handle]


def _form(request: Request) -> dict[str, EmailMessage]:
    head = f"content-type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    return {
        str(part.get_param("name", header="content-disposition")): part
        for part in message.iter_parts()
        if isinstance(part, EmailMessage)
    }


def _find(state: State, request: Request, handle: str) -> StoredFile:
    found = state.find_file(handle, request.project)
    if found is None:
        raise errors.NO_SUCH_FILE.error(id=handle)
    return found


def retrieve(state: State, request: Request, handle: str) -> Answer:
    """Answer GET /files/{id}."""
    return Answer(_find(state, request, handle).body)


def delete(state: State, request: Request, handle: str) -> Answer:
    """Answer DELETE /files/{id}."""
    found = _find(state, request, handle)
    del state.files[found.id]
    return Answer({"id": found.id, "object": "file", "deleted": True})
