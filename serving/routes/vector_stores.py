"""/v1/vector_stores: collections, their files and searches in them. The index server does the work."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from openai.types import VectorStoreDeleted
from openai.types.vector_stores import VectorStoreFileDeleted

from index.interface import FileQuery, Hit
from local_llm.audit import READ, SEARCHED, Seen
from local_llm.errors import ConflictError
from local_llm.permissions import Caller
from serving.bodies import read_json_object
from serving.services import Services, caller_of, note, services_of
from serving.vector_stores import answers, requests, stores
from serving.vector_stores.stores import named

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]
Status = Literal["in_progress", "completed", "failed", "cancelled"]

# What the client's polling helpers wait between two looks, unless told otherwise by their caller.
POLL_MILLISECONDS = "200"

Json = dict[str, Any]


async def _store_id(request: Request, store_id: str) -> str:
    return await stores.id_of(services_of(request), caller_of(request), store_id)


StoreId = Annotated[str, Depends(_store_id)]


@router.post("/v1/vector_stores")
async def create_store(request: Request) -> Json:
    services, caller = services_of(request), caller_of(request)
    asked = requests.read(requests.CreateStore, await _body(request, services))
    info = await stores.create(services, caller, asked)
    note(request, caller, "vector_store.created", info.id, name=info.name)
    return (await stores.shown(services, caller, [info]))[0]


@router.get("/v1/vector_stores")
async def list_stores(
    request: Request,
    after: str | None = None,
    before: str | None = None,
    limit: Limit = 20,
    order: Order = "desc",
) -> Json:
    services, caller = services_of(request), caller_of(request)
    infos = await services.index.collections(caller)
    page, has_more = stores.page_of(infos, stores.Listing(after, before, limit, order))
    return answers.page_as_json(await stores.shown(services, caller, page), has_more)


@router.get("/v1/vector_stores/{store_id}")
async def retrieve_store(request: Request, store_id: StoreId) -> Json:
    services, caller = services_of(request), caller_of(request)
    with named(store_id):
        info = await services.index.get(caller, store_id)
        return (await stores.shown(services, caller, [info]))[0]


@router.post("/v1/vector_stores/{store_id}")
async def update_store(request: Request, store_id: StoreId) -> Json:
    services, caller = services_of(request), caller_of(request)
    asked = requests.read(requests.UpdateStore, await _body(request, services))
    with named(store_id):
        info = await stores.update(services, caller, store_id, asked)
        note(request, caller, "vector_store.updated", info.id)
        return (await stores.shown(services, caller, [info]))[0]


@router.delete("/v1/vector_stores/{store_id}")
async def delete_store(request: Request, store_id: StoreId) -> Json:
    services, caller = services_of(request), caller_of(request)
    with named(store_id):
        await services.index.delete(caller, store_id)
    note(request, caller, "vector_store.deleted", store_id)
    return VectorStoreDeleted(id=store_id, deleted=True, object="vector_store.deleted").model_dump()


@router.post("/v1/vector_stores/{store_id}/search")
async def search_store(request: Request, store_id: StoreId) -> Json:
    services, caller = services_of(request), caller_of(request)
    asked = requests.read(requests.Search, await _body(request, services))
    with named(store_id):
        hits = await stores.search(services, caller, store_id, asked)
    _note_search(services, caller, store_id, asked, hits)
    found = [answers.hit_as_json(hit) for hit in hits]
    return answers.single_page("vector_store.search_results.page", found, search_query=asked.queries)


# Files


@router.post("/v1/vector_stores/{store_id}/files")
async def attach_file(request: Request, response: Response, store_id: StoreId) -> Json:
    services, caller = services_of(request), caller_of(request)
    asked = requests.read(requests.CreateFile, await _body(request, services))
    response.headers["openai-poll-after-ms"] = POLL_MILLISECONDS
    with named(store_id):
        files = await services.index.files.attach(caller, store_id, [asked.attachment()])
    note(request, caller, "vector_store.file.created", store_id, file_ids=[files[0].id])
    return answers.file_as_json(store_id, files[0], caller, services.settings.index)


@router.get("/v1/vector_stores/{store_id}/files")
async def list_files(
    request: Request,
    store_id: StoreId,
    after: str | None = None,
    before: str | None = None,
    status: Annotated[Status | None, Query(alias="filter")] = None,
    limit: Limit = 20,
    order: Order = "desc",
) -> Json:
    listing = FileQuery(None, status, after, before, limit, order)
    return await _files(services_of(request), caller_of(request), store_id, listing)


@router.get("/v1/vector_stores/{store_id}/files/{file_id}")
async def retrieve_file(request: Request, response: Response, store_id: StoreId, file_id: str) -> Json:
    services, caller = services_of(request), caller_of(request)
    response.headers["openai-poll-after-ms"] = POLL_MILLISECONDS
    with named(store_id):
        file = await services.index.files.file(caller, store_id, file_id)
    return answers.file_as_json(store_id, file, caller, services.settings.index)


@router.post("/v1/vector_stores/{store_id}/files/{file_id}")
async def update_file(request: Request, store_id: StoreId, file_id: str) -> Json:
    services, caller = services_of(request), caller_of(request)
    asked = requests.read(requests.UpdateFile, await _body(request, services))
    attributes = (asked.attributes or {}) if "attributes" in asked.model_fields_set else None
    with named(store_id):
        file = await services.index.files.update(
            caller, store_id, file_id, allow=asked.allow, attributes=attributes
        )
    note(request, caller, "vector_store.file.updated", store_id, file_ids=[file_id], allow=asked.allow)
    return answers.file_as_json(store_id, file, caller, services.settings.index)


@router.delete("/v1/vector_stores/{store_id}/files/{file_id}")
async def detach_file(request: Request, store_id: StoreId, file_id: str) -> Json:
    """The upload itself stays; no search finds what was made of it from here on."""
    services, caller = services_of(request), caller_of(request)
    with named(store_id):
        await services.index.files.detach(caller, store_id, file_id)
    note(request, caller, "vector_store.file.deleted", store_id, file_ids=[file_id])
    return VectorStoreFileDeleted(id=file_id, deleted=True, object="vector_store.file.deleted").model_dump()


@router.get("/v1/vector_stores/{store_id}/files/{file_id}/content")
async def file_content(request: Request, store_id: StoreId, file_id: str) -> Json:
    """The text as it was parsed, that offsets of passages count in."""
    services, caller = services_of(request), caller_of(request)
    with named(store_id):
        file = await services.index.files.file(caller, store_id, file_id)
        if file.document_id is None:
            raise ConflictError(f"the file {file.id} has no text here: it is {file.status}", param="file_id")
        document = await services.index.document(caller, store_id, file.document_id)
    note(request, caller, READ, document.id, vector_store_id=store_id, version=document.version)
    text = [{"type": "text", "text": document.text}]
    return answers.single_page("vector_store.file_content.page", text)


# File batches


@router.post("/v1/vector_stores/{store_id}/file_batches")
async def create_batch(request: Request, response: Response, store_id: StoreId) -> Json:
    services, caller = services_of(request), caller_of(request)
    asked = requests.read(requests.CreateFileBatch, await _body(request, services))
    response.headers["openai-poll-after-ms"] = POLL_MILLISECONDS
    with named(store_id):
        batch = await services.index.files.attach_batch(caller, store_id, asked.attachments())
    ids = [one.file_id for one in asked.attachments()]
    note(request, caller, "vector_store.file.created", store_id, file_ids=ids, batch=batch.id)
    return answers.batch_as_json(store_id, batch)


@router.get("/v1/vector_stores/{store_id}/file_batches/{batch_id}")
async def retrieve_batch(request: Request, response: Response, store_id: StoreId, batch_id: str) -> Json:
    services, caller = services_of(request), caller_of(request)
    response.headers["openai-poll-after-ms"] = POLL_MILLISECONDS
    with named(store_id):
        return answers.batch_as_json(store_id, await services.index.files.batch(caller, store_id, batch_id))


@router.post("/v1/vector_stores/{store_id}/file_batches/{batch_id}/cancel")
async def cancel_batch(request: Request, store_id: StoreId, batch_id: str) -> Json:
    services, caller = services_of(request), caller_of(request)
    with named(store_id):
        batch = await services.index.files.cancel_batch(caller, store_id, batch_id)
    note(request, caller, "vector_store.batch.cancelled", store_id, batch=batch_id)
    return answers.batch_as_json(store_id, batch)


@router.get("/v1/vector_stores/{store_id}/file_batches/{batch_id}/files")
async def list_batch_files(
    request: Request,
    store_id: StoreId,
    batch_id: str,
    after: str | None = None,
    before: str | None = None,
    status: Annotated[Status | None, Query(alias="filter")] = None,
    limit: Limit = 20,
    order: Order = "desc",
) -> Json:
    listing = FileQuery(batch_id, status, after, before, limit, order)
    return await _files(services_of(request), caller_of(request), store_id, listing)


def _note_search(
    services: Services, caller: Caller, store_id: str, asked: requests.Search, hits: list[Hit]
) -> None:
    services.usage.count(caller, store_id, "file_search", requests=len(asked.queries), passages=len(hits))
    seen = [Seen(hit.document_id, hit.version) for hit in hits]
    question = "\n".join(asked.queries)
    services.audit.answered(caller, None, store_id, seen, object_id=store_id, question=question, action=SEARCHED)


async def _files(services: Services, caller: Caller, store_id: str, listing: FileQuery) -> Json:
    with named(store_id):
        page = await services.index.files.files(caller, store_id, listing)
    data = [answers.file_as_json(store_id, file, caller, services.settings.index) for file in page.files]
    return answers.page_as_json(data, page.has_more)


async def _body(request: Request, services: Services) -> Json:
    return await read_json_object(request, services.settings.server.max_body_bytes)
