"""/v1/files: uploads, streamed to disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from openai.types import FileDeleted, FileObject
from starlette.datastructures import FormData, UploadFile

from index.registry import require_all_here
from local_llm.errors import InvalidInputError, NotFoundError, UnavailableError
from local_llm.fileio import CHUNK_BYTES
from local_llm.files import FINE_TUNE, Check, clean_filename
from local_llm.permissions import Caller
from local_llm.state import File
from serving.bodies import BodyTooLargeError, limited
from serving.services import Services, caller_of, note, services_of
from training.examples.data import check_training_file

router = APIRouter()

# What a form holds besides its file: boundaries, headers, the purpose.
FORM_BYTES = 1 << 20
FORM_FIELDS = 16
PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")


@router.post("/v1/files")
async def create_file(request: Request) -> dict[str, Any]:
    """Who asks is known before the body is read. The form parser puts the upload into a temporary file; from
    there it is copied in blocks."""
    services = services_of(request)
    caller = caller_of(request)
    max_bytes = services.settings.server.max_upload_bytes
    body = limited(request, max_bytes + FORM_BYTES)
    try:
        async with body.form(max_files=FORM_FIELDS, max_fields=FORM_FIELDS) as form:
            file, purpose = _file_and_purpose(form)
            name = clean_filename(file.filename or "")
            stored = await run_in_threadpool(
                services.files.add,
                iter(lambda: file.file.read(CHUNK_BYTES), b""),
                filename=name,
                purpose=purpose,
                project_id=caller.project_id,
                key_id=caller.key_id,
                check=_check_of_upload(name) if purpose == FINE_TUNE else None,
            )
    except BodyTooLargeError:
        raise BodyTooLargeError(
            f"the file is larger than {max_bytes:,} bytes",
            hint="split it, or raise server.max_upload_bytes",
            param="file",
        ) from None
    note(request, caller, "file.created", stored.id, filename=stored.filename, purpose=purpose, bytes=stored.bytes)
    return _as_json(stored)


def _check_of_upload(name: str) -> Check:
    # A validation file may be small: whether there are enough examples to train on is asked of a job.
    def check(path: Path) -> None:
        check_training_file(path, shown_as=name, param="file", minimum=1)

    return check


def _file_and_purpose(form: FormData) -> tuple[UploadFile, str]:
    """The two fields of the form. Raises: InvalidInputError for one that is missing, given twice, or unknown."""
    for name in form:
        if name not in ("file", "purpose"):
            reason = "files are kept until they are deleted" if name.startswith("expires_after") else "unknown"
            raise InvalidInputError(f"{name[:60]}: {reason}; expected file and purpose", param=name[:60])
    files, purposes = form.getlist("file"), form.getlist("purpose")
    if len(files) != 1 or not isinstance(files[0], UploadFile):
        found = "none" if not files else "a text" if len(files) == 1 else f"{len(files)} of them"
        raise InvalidInputError(f"file: expected one uploaded file, found {found}", param="file")
    if files[0].size == 0:
        raise InvalidInputError("file: the uploaded file is empty", param="file")
    if len(purposes) != 1 or purposes[0] not in PURPOSES:
        found = f"{purposes[0]!r:.60}" if len(purposes) == 1 else f"{len(purposes)} of them"
        raise InvalidInputError(f"purpose: expected one of {', '.join(PURPOSES)}; found {found}", param="purpose")
    return files[0], str(purposes[0])


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
    files, caller = services_of(request).files, caller_of(request)
    row = files.get(file_id, caller)
    try:
        handle = files.path(row.id).open("rb")
    except FileNotFoundError:  # deleted since
        raise NotFoundError(f"No such File object: {file_id}", param="id") from None

    def blocks() -> Iterator[bytes]:
        with handle:
            while block := handle.read(CHUNK_BYTES):
                yield block

    note(request, caller, "file.downloaded", row.id)
    headers = {"content-length": str(row.bytes)}
    return StreamingResponse(blocks(), media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}")
async def delete_file(request: Request, file_id: str) -> dict[str, Any]:
    """Gone with all that was made of it in the project's collections."""
    services, caller = services_of(request), caller_of(request)
    # What was made of it has to be gone with it.
    await run_in_threadpool(require_all_here, services.state, services.settings.place.collections)
    await run_in_threadpool(services.files.delete, file_id, caller)
    note(request, caller, "file.deleted", file_id)
    await _forget(services, caller, file_id)
    return FileDeleted(id=file_id, deleted=True, object="file").model_dump()


async def _forget(services: Services, caller: Caller, file_id: str) -> None:
    """An index server that is down removes what was made of deleted files before it answers anybody."""
    try:
        await services.index.files.forget(caller, file_id)
    except UnavailableError:
        if await services.index.answers():  # it came up just now, or was too slow
            await services.index.files.forget(caller, file_id)


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
