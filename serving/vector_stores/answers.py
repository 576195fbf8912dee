"""Collections, their files and what is found in them, as the API shows them. Our own fields stand beside."""

from collections.abc import Sequence
from typing import Any

from openai.types import VectorStore
from openai.types.vector_stores import VectorStoreFile, VectorStoreFileBatch

from index.interface import AttachedBatch, AttachedFile, CollectionInfo, CollectionUsage, FileCounts, Hit
from local_llm.index_settings import IndexSettings
from local_llm.permissions import Caller

DAY_SECONDS = 24 * 3600

Json = dict[str, Any]


def store_as_json(info: CollectionInfo, usage: CollectionUsage) -> Json:
    days = info.expires_after_days
    answer = VectorStore.model_validate(
        {
            "id": info.id,
            "object": "vector_store",
            "created_at": info.created_at,
            "name": name_of(info),
            "file_counts": _counts(usage.files),
            "usage_bytes": usage.bytes,
            "status": _store_status(usage),
            "metadata": info.metadata,
            "last_active_at": info.last_active_at,
            "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
            "expires_at": None if days is None else info.last_active_at + days * DAY_SECONDS,
        }
    ).model_dump()
    return answer if usage.damage is None else {**answer, "last_error": usage.damage}


def name_of(info: CollectionInfo) -> str:
    """As the client gave it; "" where it gave none."""
    if info.title is not None:
        return info.title
    return "" if info.name == info.id else info.name


def _store_status(usage: CollectionUsage) -> str:
    if usage.expired:
        return "expired"
    return "in_progress" if usage.files.in_progress else "completed"


def file_as_json(store_id: str, file: AttachedFile, caller: Caller, settings: IndexSettings) -> Json:
    """`allow` is shown to admins."""
    error = None if file.error_code is None else {"code": file.error_code, "message": file.error_message}
    sizes = {
        "max_chunk_size_tokens": settings.chunk_tokens if file.chunk_tokens is None else file.chunk_tokens,
        "chunk_overlap_tokens": settings.overlap_tokens if file.overlap_tokens is None else file.overlap_tokens,
    }
    answer = VectorStoreFile.model_validate(
        {
            "id": file.id,
            "object": "vector_store.file",
            "created_at": file.created_at,
            "vector_store_id": store_id,
            "status": file.status,
            "last_error": error,
            "usage_bytes": file.bytes,
            "chunking_strategy": {"type": "static", "static": sizes},
        }
    ).model_dump()
    ours: Json = {"attributes": file.attributes, "filename": file.filename, "document_id": file.document_id}
    if caller.administers:
        ours["allow"] = None if file.allow is None else list(file.allow)
    return {**answer, **ours}


def batch_as_json(store_id: str, batch: AttachedBatch) -> Json:
    return VectorStoreFileBatch.model_validate(
        {
            "id": batch.id,
            "object": "vector_store.files_batch",
            "created_at": batch.created_at,
            "vector_store_id": store_id,
            "status": _batch_status(batch),
            "file_counts": _counts(batch.files),
        }
    ).model_dump()


def _batch_status(batch: AttachedBatch) -> str:
    counts = batch.files
    if counts.in_progress:
        return "in_progress"
    if batch.cancelled:
        return "cancelled"
    return "failed" if counts.failed and counts.failed == counts.total else "completed"


def _counts(counts: FileCounts) -> Json:
    return {
        "in_progress": counts.in_progress,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "total": counts.total,
    }


def score_of(hit: Hit) -> float:
    """In 0..1, in the order of the ranking."""
    return min(1.0, max(0.0, hit.score))


def hit_as_json(hit: Hit) -> Json:
    return {
        "file_id": hit.file_id or hit.document_id,
        "filename": hit.filename,
        "score": score_of(hit),
        "attributes": hit.attributes,
        "content": [{"type": "text", "text": hit.text}],
        "document_id": hit.document_id,
        "title": hit.title,
        "version": hit.version,
        "page": hit.page,
        "start": hit.start,
        "end": hit.end,
    }


def page_as_json(data: Sequence[Json], has_more: bool) -> Json:
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def single_page(kind: str, data: Sequence[Json], **more: Any) -> Json:
    """Of what comes all at once."""
    return {"object": kind, **more, "data": list(data), "has_more": False, "next_page": None}
