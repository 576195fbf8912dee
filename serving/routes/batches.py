"""/v1/batches: taken here, worked on by the worker of any gateway."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from openai.types import Batch

from local_llm.state import BatchRow
from serving.batches.requests import CreateBatch
from serving.batches.rows import cancel_batch, create_batch, get_batch, list_batches
from serving.batches.worker import BatchWorker
from serving.bodies import read_json_object
from serving.services import caller_of, note, services_of
from serving.vector_stores.requests import read

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=100)]
MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@router.post("/v1/batches")
async def create(request: Request) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    asked = read(CreateBatch, await read_json_object(request, services.settings.server.max_body_bytes))
    url = str(request.base_url).rstrip("/")
    row = await run_in_threadpool(create_batch, services.state, caller, asked, url)
    note(request, caller, "batch.created", row.id, endpoint=row.endpoint, input_file=row.input_file_id)
    _worker(request).wake()
    return _as_json(row)


@router.get("/v1/batches")
def list_all(request: Request, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    rows, has_more = list_batches(services_of(request).state, caller_of(request), after=after, limit=limit)
    return {
        "object": "list",
        "data": [_as_json(row) for row in rows],
        "first_id": rows[0].id if rows else None,
        "last_id": rows[-1].id if rows else None,
        "has_more": has_more,
    }


@router.get("/v1/batches/{batch_id}")
def retrieve(request: Request, batch_id: str) -> dict[str, Any]:
    return _as_json(get_batch(services_of(request).state, batch_id, caller_of(request)))


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel(request: Request, batch_id: str) -> dict[str, Any]:
    services, caller = services_of(request), caller_of(request)
    row = await run_in_threadpool(cancel_batch, services.state, batch_id, caller)
    note(request, caller, "batch.cancelled", batch_id)
    _worker(request).wake()
    return _as_json(row)


def _worker(request: Request) -> BatchWorker:
    return request.app.state.batches


def _as_json(row: BatchRow) -> dict[str, Any]:
    tokens = {
        "input_tokens": row.input_tokens,
        "input_tokens_details": {"cached_tokens": row.cached_tokens},
        "output_tokens": row.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},  # not counted apart by the engine
        "total_tokens": row.input_tokens + row.output_tokens,
    }
    return Batch.model_validate(
        {
            "id": row.id,
            "object": "batch",
            "endpoint": row.endpoint,
            "errors": None if row.problems is None else {"object": "list", **row.problems},
            "input_file_id": row.input_file_id,
            "completion_window": "24h",
            "status": row.status,
            "model": row.model,
            "output_file_id": row.output_file_id,
            "error_file_id": row.error_file_id,
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            **{f"{moment}_at": getattr(row, f"{moment}_at") for moment in MOMENTS},
            "request_counts": {"total": row.total, "completed": row.completed, "failed": row.failed},
            "usage": tokens,
            "metadata": row.labels or None,
        }
    ).model_dump()
