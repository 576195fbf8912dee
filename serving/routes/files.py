"""/v1/files: uploads, streamed to disk."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from openai.types import FileDeleted, FileObject
from starlette.datastructures import UploadFile

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.fileio import CHUNK_BYTES
from local_llm.state import File
from serving.bodies import limited
from serving.services import caller_of, services_of

router = APIRouter()

# What a form holds besides its file: boundaries, headers, the purpose.
FORM_BYTES = 1 << 20
PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")


@router.post("/v1/files")
async def create_file(request: Request) -> dict[str, Any]:
    """Who asks is known before the body is read. The form parser puts the upload into a temporary file; from
    there it is copied in blocks."""
    services = services_of(request)
    caller = caller_of(request)
    async with limited(request, services.settings.server.max_upload_bytes + FORM_BYTES).form() as form:
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise InvalidInputError("file: expected an uploaded file", param="file")
        if purpose not in PURPOSES:
            raise InvalidInputError(f"purpose {purpose!r}: expected one of {', '.join(PURPOSES)}", param="purpose")
        stored = await run_in_threadpool(
            services.files.add,
            iter(lambda: file.file.read(CHUNK_BYTES), b""),
            filename=file.filename or "upload",
            purpose=str(purpose),
            project_id=caller.project_id,
        )
    return _as_json(stored)


@router.get("/v1/files")
def list_files(
    request: Request,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
) -> dict[str, Any]:
    files = services_of(request).files
    rows = files.list(caller_of(request), purpose=purpose, after=after, limit=limit + 1, order=order)  # type: ignore[arg-type]
    data = [_as_json(row) for row in rows[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }


@router.get("/v1/files/{file_id}")
def retrieve_file(request: Request, file_id: str) -> dict[str, Any]:
    return _as_json(services_of(request).files.get(file_id, caller_of(request)))


@router.get("/v1/files/{file_id}/content")
def file_content(request: Request, file_id: str) -> StreamingResponse:
    files = services_of(request).files
    row = files.get(file_id, caller_of(request))
    try:
        handle = files.path(row.id).open("rb")
    except FileNotFoundError:  # deleted since
        raise NotFoundError(f"No such File object: {file_id}", param="id") from None

    def blocks() -> Iterator[bytes]:
        with handle:
            while block := handle.read(CHUNK_BYTES):
                yield block

    headers = {"content-length": str(row.bytes)}
    return StreamingResponse(blocks(), media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}")
def delete_file(request: Request, file_id: str) -> dict[str, Any]:
    services_of(request).files.delete(file_id, caller_of(request))
    return FileDeleted(id=file_id, deleted=True, object="file").model_dump()


def _as_json(row: File) -> dict[str, Any]:
    # Built without checks: the API takes purposes that the type of its answers does not know.
    return FileObject.model_construct(
        id=row.id,
        bytes=row.bytes,
        created_at=row.created_at,
        filename=row.filename,
        object="file",
        purpose=row.purpose,
        status="processed",
    ).model_dump(warnings=False)
