"""/v1/chat/completions/…: chats that were kept. Asking one is the relay's."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError

from index.client import IndexClient
from local_llm.errors import InvalidInputError, NotFoundError, UnavailableError
from local_llm.fileio import CHUNK_BYTES
from serving.bodies import read_json_object
from serving.chats.audiences import Audiences
from serving.chats.export import export
from serving.chats.rows import (
    Filter,
    Order,
    Rating,
    Review,
    Reviewed,
    as_json,
    delete_chat,
    get_chat,
    list_chats,
    messages_of,
    rate_chat,
    reviewed_chats,
    set_metadata,
)
from serving.queries import metadata_filter
from serving.services import Services, caller_of, note, services_of
from serving.vector_stores.requests import Body, Metadata, read

router = APIRouter()

CHATS = "/v1/chat/completions"
LONGEST_CORRECTION = 1 << 20
IN_MEMORY_BYTES = 8 << 20

Limit = Annotated[int, Query(ge=1, le=100)]
InOrder = Annotated[Order, Query()]
Model = Annotated[str | None, Query(max_length=512)]


class UpdateChat(Body):
    metadata: Metadata | None


class RateChat(Body):
    rating: Rating
    correction: Annotated[str, Field(pattern=r"\S", max_length=LONGEST_CORRECTION)] | None = None
    reviewer_note: Annotated[str, Field(max_length=4096)] | None = None


@router.get(CHATS)
def list_all(
    request: Request, after: str | None = None, limit: Limit = 20, model: Model = None, order: InOrder = "asc"
) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    _write(services)
    wanted = Filter(model, metadata_filter(request))
    rows, has_more = list_chats(services.state, caller, wanted, after=after, limit=limit, order=order)
    return _page([as_json(row) for row in rows], has_more)


@router.get(f"{CHATS}/export")
def export_all(
    request: Request, rated: Reviewed = "any", with_context: bool = False, model: Model = None
) -> StreamingResponse:
    """A training file. The headers count its examples, the chats that can be none, and the examples that were made
    from passages that not everyone may see."""
    services, caller = services_of(request), caller_of(request)
    _write(services)
    rows = reviewed_chats(services.state, caller, Filter(model, metadata_filter(request)), rated)
    counts, audiences = {True: 0, False: 0}, Audiences()
    # Counted before the first byte goes out, and not all in memory.
    file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
    for exported in export(rows, with_context=with_context):
        counts[exported.line is not None] += 1
        file.write(exported.line or b"")
        audiences.add(exported.origin)
    socket = services.settings.place.socket("index")
    restricted = audiences.remember(services.state, caller.project_id, lambda: IndexClient(socket))
    file.seek(0)

    def blocks() -> Iterator[bytes]:
        with file:
            while block := file.read(CHUNK_BYTES):
                yield block

    note(request, caller, "chat.exported", None, examples=counts[True], with_context=with_context)
    headers = {
        "x-examples": str(counts[True]),
        "x-left-out": str(counts[False]),
        "x-restricted": str(restricted.examples),
    }
    return StreamingResponse(blocks(), media_type="application/jsonl", headers=headers)


@router.get(f"{CHATS}/{{completion_id}}")
def retrieve(request: Request, completion_id: str) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    with _writing(services):
        return as_json(get_chat(services.state, completion_id, caller))


@router.post(f"{CHATS}/{{completion_id}}")
async def update(request: Request, completion_id: str) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    asked = read(UpdateChat, await read_json_object(request, services.settings.server.max_body_bytes))

    def change() -> dict[str, Any]:
        with _writing(services):
            return as_json(set_metadata(services.state, completion_id, caller, asked.metadata or {}))

    changed = await run_in_threadpool(change)
    note(request, caller, "chat.updated", completion_id)
    return changed


@router.delete(f"{CHATS}/{{completion_id}}")
def delete(request: Request, completion_id: str) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    with _writing(services):
        delete_chat(services.state, completion_id, caller)
    note(request, caller, "chat.deleted", completion_id)
    return {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}


@router.get(f"{CHATS}/{{completion_id}}/messages")
def list_messages(
    request: Request, completion_id: str, after: str | None = None, limit: Limit = 20, order: InOrder = "asc"
) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    with _writing(services):
        messages = messages_of(get_chat(services.state, completion_id, caller))
    if order == "desc":
        messages.reverse()
    if after is not None:
        seen = [number for number, message in enumerate(messages) if message["id"] == after]
        if not seen:
            raise InvalidInputError(f"after: {completion_id:.80} has no message {after:.80}", param="after")
        messages = messages[seen[0] + 1 :]
    return _page(messages[:limit], len(messages) > limit)


@router.post(f"{CHATS}/{{completion_id}}/rating")
async def rate(request: Request, completion_id: str) -> dict[str, Any]:
    """Ours: what a reviewer says of the answer."""
    services, caller = services_of(request), caller_of(request)
    asked = read(RateChat, await read_json_object(request, services.settings.server.max_body_bytes))
    review = Review(asked.rating, asked.correction, asked.reviewer_note)

    def change() -> dict[str, Any]:
        with _writing(services):
            return as_json(rate_chat(services.state, completion_id, caller, review))

    rated = await run_in_threadpool(change)
    note(request, caller, "chat.rated", completion_id, rating=asked.rating)
    return rated


def _write(services: Services) -> bool:
    """Who asks for chats finds them, even right after their answers. Returns whether all that waited is written."""
    try:
        services.chats.write()
    except (SQLAlchemyError, UnavailableError):  # it waits, and is told in the log
        return False
    return True


@contextmanager
def _writing(services: Services) -> Iterator[None]:
    """What is not found while some wait may be one of them.

    Raises: UnavailableError for NotFoundError then.
    """
    written = _write(services)
    try:
        yield
    except NotFoundError as missing:
        if written:
            raise
        raise UnavailableError(
            f"{missing.message}; chats of the last seconds could not be written yet",
            hint="ask again; gateway.log says what holds the database up",
        ) from None


def _page(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
