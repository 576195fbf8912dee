"""Clients of the index server: one for commands and the trainer, one for the gateway's event loop."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from index import wire
from index.interface import (
    AttachedBatch,
    AttachedFile,
    Attachment,
    CollectionInfo,
    CollectionStats,
    CollectionUsage,
    DocumentInfo,
    DocumentText,
    Embeddings,
    FilePage,
    FileQuery,
    Found,
    Hit,
    IngestReport,
    Ranking,
    Record,
    ReembedReport,
    Report,
    Source,
    Splitting,
    StoredPassage,
    SyncReport,
    silent,
)
from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.permissions import Caller

BASE_URL = "http://index"  # a name for the header: the socket decides where it goes
CONNECT_SECONDS = 5
READY_SECONDS = 2
# The server closes a connection that was idle for 5 s: whoever then asks on it fails.
IDLE_SECONDS = 2


class IndexClient:
    """See `index.interface.Index` for what each method promises."""

    def __init__(self, socket_path: Path):
        self._socket = socket_path
        # Without a limit on the answer: the first search waits for the encoder, `add` for its documents.
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket_path)),
            base_url=BASE_URL,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        )

    def __enter__(self) -> "IndexClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def answers(self) -> bool:
        """Whether a server listens, be its encoder loaded or not."""
        try:
            self._http.get("/")
        except httpx.TransportError:
            return False
        return True

    def create(
        self,
        caller: Caller,
        name: str | None = None,
        *,
        title: str | None = None,
        encoder: str | None = None,
        dimension: int | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
    ) -> CollectionInfo:
        made = self._call(
            "create",
            caller,
            name=name,
            title=title,
            encoder=encoder,
            dimension=dimension,
            metadata=metadata,
            expires_after_days=expires_after_days,
        )
        return wire.collection_info(made)

    def update(
        self,
        caller: Caller,
        collection: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
        never_expires: bool = False,
        ranking: Ranking | None = None,
    ) -> CollectionInfo:
        changed = self._call(
            "update",
            caller,
            collection=collection,
            title=title,
            metadata=metadata,
            expires_after_days=expires_after_days,
            never_expires=never_expires,
            ranking=ranking,
        )
        return wire.collection_info(changed)

    def collections(self, caller: Caller) -> list[CollectionInfo]:
        return [wire.collection_info(one) for one in self._call("collections", caller)]

    def get(self, caller: Caller, collection: str) -> CollectionInfo:
        return wire.collection_info(self._call("get", caller, collection=collection))

    def delete(self, caller: Caller, collection: str) -> None:
        self._call("delete", caller, collection=collection)

    def add(
        self,
        caller: Caller,
        collection: str,
        sources: Sequence[Source],
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        splitting: Splitting | None = None,
        encoded: Path | None = None,
        report: Report = silent,
    ) -> IngestReport:
        found = self._call_long(
            "add",
            caller,
            report,
            collection=collection,
            sources=sources,
            allow=allow,
            attributes=attributes,
            splitting=splitting,
            encoded=encoded,
        )
        return wire.ingest_report(found)

    def put(
        self, caller: Caller, collection: str, records: Sequence[Record], *, allow: Sequence[str] | None = None
    ) -> IngestReport:
        return wire.ingest_report(self._call("put", caller, collection=collection, records=records, allow=allow))

    def sync(
        self,
        caller: Caller,
        collection: str,
        sources: Sequence[Source],
        *,
        scope: str,
        dry_run: bool = False,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        report: Report = silent,
    ) -> SyncReport:
        found = self._call_long(
            "sync",
            caller,
            report,
            collection=collection,
            sources=sources,
            scope=scope,
            dry_run=dry_run,
            allow=allow,
            attributes=attributes,
        )
        return wire.sync_report(found)

    def reembed(
        self,
        caller: Caller,
        collection: str,
        *,
        encoder: str | None = None,
        encoded: Path | None = None,
        report: Report = silent,
    ) -> ReembedReport:
        asked = {"collection": collection, "encoder": encoder, "encoded": encoded}
        return ReembedReport(**self._call_long("reembed", caller, report, **asked))

    def set_access(
        self,
        caller: Caller,
        collection: str,
        name: str,
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self._call("set_access", caller, collection=collection, name=name, allow=allow, attributes=attributes)

    def remove(self, caller: Caller, collection: str, names: Sequence[str]) -> int:
        return int(self._call("remove", caller, collection=collection, names=names))

    def remove_matching(
        self,
        caller: Caller,
        collection: str,
        *,
        names: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        return int(self._call("remove_matching", caller, collection=collection, names=names, filters=filters))

    def search(
        self,
        caller: Caller,
        collection: str,
        query: str | Sequence[float],
        k: int = 5,
        *,
        filters: Mapping[str, Any] | None = None,
        ranking: Ranking | None = None,
    ) -> list[Hit]:
        found = self._call(
            "search", caller, collection=collection, query=query, k=k, filters=filters, ranking=ranking
        )
        return wire.hits(found)

    def find(
        self,
        caller: Caller,
        collection: str,
        query: str | Sequence[float],
        k: int = 5,
        *,
        filters: Mapping[str, Any] | None = None,
        ranking: Ranking | None = None,
    ) -> Found:
        found = self._call(
            "find", caller, collection=collection, query=query, k=k, filters=filters, ranking=ranking
        )
        return wire.found(found)

    def stats(self, caller: Caller, collection: str) -> CollectionStats:
        return wire.collection_stats(self._call("stats", caller, collection=collection))

    def documents(self, caller: Caller, collection: str) -> list[DocumentInfo]:
        return wire.document_infos(self._call("documents", caller, collection=collection))

    def document(
        self, caller: Caller, collection: str, document_id: str, version: int | None = None
    ) -> DocumentText:
        found = self._call("document", caller, collection=collection, document_id=document_id, version=version)
        return wire.document_text(found)

    def current(
        self, caller: Caller, collection: str, versions: Sequence[tuple[str, int]]
    ) -> list[tuple[str, int]]:
        found = self._call("current", caller, collection=collection, versions=versions)
        return [(identifier, version) for identifier, version in found]

    def records(
        self,
        caller: Caller,
        collection: str,
        *,
        names: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[Record]:
        return wire.records(self._call("records", caller, collection=collection, names=names, filters=filters))

    def passages(
        self, caller: Caller, collection: str, *, after: int = 0, limit: int = 1000
    ) -> list[StoredPassage]:
        found = self._call("passages", caller, collection=collection, after=after, limit=limit)
        return wire.stored_passages(found)

    def embed(
        self,
        caller: Caller,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        model: str | None = None,
        kind: str = "document",
    ) -> Embeddings:
        return wire.embeddings(self._call("embed", caller, inputs=inputs, model=model, kind=kind))

    def _call(self, method: str, caller: Caller, **arguments: Any) -> Any:
        with self._reaching():
            response = self._http.post(f"/{method}", content=wire.call_to_bytes(caller, arguments))
        return _result(response.status_code, response.text)

    def _call_long(self, method: str, caller: Caller, report: Report, **arguments: Any) -> Any:
        body = wire.call_to_bytes(caller, arguments)
        with self._reaching(), self._http.stream("POST", f"/{method}", content=body) as response:
            for text in response.iter_lines():
                line = json.loads(text)
                if "result" in line:
                    return line["result"]
                if "error" in line:
                    raise wire.error_from_json(line["error"])
                report(line["done"], line["total"], line["note"])
        raise self._gone("it ended before the work was acknowledged")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise self._gone(str(error)) from None

    def _gone(self, reason: str) -> UnavailableError:
        return _unavailable(self._socket, reason)


class AsyncIndexClient:
    """What the gateway asks of the index server. To be used, and closed, in one event loop."""

    def __init__(self, socket_path: Path, timeout_seconds: float | None = None):
        self._socket = socket_path
        self._timeout_seconds = timeout_seconds
        self._http: aiohttp.ClientSession | None = None  # made in the loop that uses it
        self.files = AsyncFilesClient(self._call)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def ready(self) -> bool:
        """Whether searches would be answered now: the server is up and its encoder loaded."""
        try:
            timeout = aiohttp.ClientTimeout(total=READY_SECONDS)
            async with self._session().get(f"{BASE_URL}/ready", timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def answers(self) -> bool:
        """Whether a server listens, be its encoder loaded or not."""
        try:
            async with self._session().get(BASE_URL):
                return True
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return False

    async def collections(self, caller: Caller) -> list[CollectionInfo]:
        return [wire.collection_info(one) for one in await self._call("collections", caller)]

    async def get(self, caller: Caller, collection: str) -> CollectionInfo:
        return wire.collection_info(await self._call("get", caller, collection=collection))

    async def search(
        self,
        caller: Caller,
        collection: str,
        query: str,
        k: int = 5,
        *,
        filters: Mapping[str, Any] | None = None,
        ranking: Ranking | None = None,
    ) -> list[Hit]:
        found = await self._call(
            "search", caller, collection=collection, query=query, k=k, filters=filters, ranking=ranking
        )
        return wire.hits(found)

    async def find(
        self,
        caller: Caller,
        collection: str,
        query: str,
        k: int = 5,
        *,
        filters: Mapping[str, Any] | None = None,
        ranking: Ranking | None = None,
    ) -> Found:
        found = await self._call(
            "find", caller, collection=collection, query=query, k=k, filters=filters, ranking=ranking
        )
        return wire.found(found)

    async def documents(self, caller: Caller, collection: str) -> list[DocumentInfo]:
        return wire.document_infos(await self._call("documents", caller, collection=collection))

    async def document(
        self, caller: Caller, collection: str, document_id: str, version: int | None = None
    ) -> DocumentText:
        found = await self._call(
            "document", caller, collection=collection, document_id=document_id, version=version
        )
        return wire.document_text(found)

    async def current(
        self, caller: Caller, collection: str, versions: Sequence[tuple[str, int]]
    ) -> list[tuple[str, int]]:
        found = await self._call("current", caller, collection=collection, versions=versions)
        return [(identifier, version) for identifier, version in found]

    async def embed(
        self,
        caller: Caller,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        model: str | None = None,
        kind: str = "document",
    ) -> Embeddings:
        return wire.embeddings(await self._call("embed", caller, inputs=inputs, model=model, kind=kind))

    async def create(
        self,
        caller: Caller,
        name: str | None = None,
        *,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
    ) -> CollectionInfo:
        made = await self._call(
            "create", caller, name=name, title=title, metadata=metadata, expires_after_days=expires_after_days
        )
        return wire.collection_info(made)

    async def update(
        self,
        caller: Caller,
        collection: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
        never_expires: bool = False,
    ) -> CollectionInfo:
        changed = await self._call(
            "update",
            caller,
            collection=collection,
            title=title,
            metadata=metadata,
            expires_after_days=expires_after_days,
            never_expires=never_expires,
        )
        return wire.collection_info(changed)

    async def delete(self, caller: Caller, collection: str) -> None:
        await self._call("delete", caller, collection=collection)

    async def _call(self, method: str, caller: Caller, **arguments: Any) -> Any:
        body = wire.call_to_bytes(caller, arguments)
        try:
            async with self._session().post(f"{BASE_URL}/{method}", data=body) as response:
                return _result(response.status, await response.text())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unavailable(self._socket, str(error)) from None

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_seconds, sock_connect=CONNECT_SECONDS)
            connector = aiohttp.UnixConnector(path=str(self._socket), keepalive_timeout=IDLE_SECONDS)
            self._http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._http


class AsyncFilesClient:
    """See `index.attached_files.AttachedFiles` for what each method promises."""

    def __init__(self, call: Callable[..., Awaitable[Any]]):
        self._call = call

    async def check(self, caller: Caller, attachments: Sequence[Attachment]) -> None:
        await self._call("files/check", caller, attachments=attachments)

    async def attach(
        self, caller: Caller, collection: str, attachments: Sequence[Attachment]
    ) -> list[AttachedFile]:
        made = await self._call("files/attach", caller, collection=collection, attachments=attachments)
        return [wire.attached_file(one) for one in made]

    async def attach_batch(
        self, caller: Caller, collection: str, attachments: Sequence[Attachment]
    ) -> AttachedBatch:
        made = await self._call("files/attach_batch", caller, collection=collection, attachments=attachments)
        return wire.attached_batch(made)

    async def files(self, caller: Caller, collection: str, listing: FileQuery) -> FilePage:
        return wire.file_page(await self._call("files/files", caller, collection=collection, listing=listing))

    async def file(self, caller: Caller, collection: str, file_id: str) -> AttachedFile:
        found = await self._call("files/file", caller, collection=collection, file_id=file_id)
        return wire.attached_file(found)

    async def batch(self, caller: Caller, collection: str, batch_id: str) -> AttachedBatch:
        found = await self._call("files/batch", caller, collection=collection, batch_id=batch_id)
        return wire.attached_batch(found)

    async def usage(self, caller: Caller, collections: Sequence[str]) -> list[CollectionUsage]:
        found = await self._call("files/usage", caller, collections=collections)
        return [wire.collection_usage(one) for one in found]

    async def update(
        self,
        caller: Caller,
        collection: str,
        file_id: str,
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> AttachedFile:
        changed = await self._call(
            "files/update", caller, collection=collection, file_id=file_id, allow=allow, attributes=attributes
        )
        return wire.attached_file(changed)

    async def detach(self, caller: Caller, collection: str, file_id: str) -> None:
        await self._call("files/detach", caller, collection=collection, file_id=file_id)

    async def cancel_batch(self, caller: Caller, collection: str, batch_id: str) -> AttachedBatch:
        left = await self._call("files/cancel_batch", caller, collection=collection, batch_id=batch_id)
        return wire.attached_batch(left)

    async def forget(self, caller: Caller, file_id: str) -> int:
        return int(await self._call("files/forget", caller, file_id=file_id))


def _result(status: int, text: str) -> Any:
    if status == 200:
        return json.loads(text)
    try:
        error = wire.error_from_json(json.loads(text)["error"])
    except (json.JSONDecodeError, KeyError, TypeError):
        error = LocalLLMError(f"the index server answered with status {status}: {text[:200]}")
    raise error


def _unavailable(socket_path: Path, reason: str) -> UnavailableError:
    return UnavailableError(
        f"the index server does not answer on {socket_path}: {reason}",
        hint="python -m serving, or: python -m index",
    )
