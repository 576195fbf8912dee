"""The thread that makes documents of attached uploads, and that clears away what has expired or lost its upload."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

from index.attached_files import OpenStore, access_to
from index.collection.attachments import WaitingAttachment
from index.collection.documents import Access, NewDocument, StoredDocument, Vectors
from index.collection.store import CollectionStore
from index.documents.parse import UnparsableDocument, media_type_of
from index.ingestion.ingest import Destination
from index.interface import IngestReport, Report, Source, Splitting
from index.open_stores import OpenStores
from index.registry import CollectionRegistry, is_expired
from local_llm.errors import LocalLLMError, OutOfSpaceError
from local_llm.files import FileStore
from local_llm.state import Collection

# So many are taken at once: their passages are encoded together, and one child process parses them.
GROUP_FILES = 64
IDLE_SECONDS = 5.0
RETRY_SECONDS = 5.0
SWEEP_SECONDS = 60.0
SWEPT_AT_ONCE = 100

UNSUPPORTED_FILE, INVALID_FILE, SERVER_ERROR = "unsupported_file", "invalid_file", "server_error"

Ingest = Callable[[Collection, CollectionStore, Destination, Sequence[Source], Splitting, Report], IngestReport]


class AttachmentWorker:
    """One thread for all collections, each in its turn."""

    def __init__(
        self,
        uploads: FileStore,
        registry: CollectionRegistry,
        stores: OpenStores,
        open_store: OpenStore,
        ingest: Ingest,
    ):
        self._uploads = uploads
        self._registry = registry
        self._stores = stores
        self._open = open_store
        self._ingest = ingest
        self._waiting: set[str] = set()  # ids of collections; a set's add and discard are atomic
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._swept = float("-inf")
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Goes on with what was left undone when the last process ended, however it did."""
        self._waiting |= {row.id for row in self._registry.here()}
        self._thread = threading.Thread(target=self._run, name="attachments", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def notice(self, collection_id: str) -> None:
        """Files wait in this collection."""
        self._waiting.add(collection_id)
        self._wake.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._turn()
            except _Ended:
                return
            except Exception as error:  # a state database that cannot be read now: what waits goes on waiting
                print(f"attachments: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
                self._ended.wait(RETRY_SECONDS)

    def _turn(self) -> None:
        self._wake.clear()
        if time.monotonic() - self._swept >= SWEEP_SECONDS:
            self.sweep()
        if not self.step():
            self._wake.wait(IDLE_SECONDS)

    def step(self) -> bool:
        """A group of each collection in which files wait. Returns: whether more may be left."""
        noticed = set(self._waiting)  # before looking: a collection is there before files wait in it
        rows = self._registry.here()
        self._waiting -= noticed - {row.id for row in rows}
        for row in rows:
            if row.id in self._waiting and not self._ended.is_set():
                self._guarded(row)
        return bool(self._waiting)

    def _guarded(self, row: Collection) -> None:
        try:
            self._work(row)
        except _Ended:
            pass
        except OutOfSpaceError as error:  # what waits goes on waiting
            print(f"attachments: {error.message}", file=sys.stderr)  # noqa: T201
            self._waiting.add(row.id)
            self._ended.wait(RETRY_SECONDS)
        except Exception as error:  # of a collection that was deleted meanwhile, and never the end of this thread
            if all(one.id != row.id for one in self._registry.all()):
                self._waiting.discard(row.id)
                return
            print(f"attachments of {row.id}: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
            self._waiting.add(row.id)
            self._ended.wait(RETRY_SECONDS)

    def _work(self, row: Collection) -> None:
        """One group of each way of splitting."""
        self._waiting.discard(row.id)  # before looking: what comes from now on is told
        with self._stores.attachments(row.id, self._registry.database(row.id)) as attachments:
            if is_expired(row) or not attachments.any_waiting():
                return
        self._waiting.add(row.id)
        store = self._open(row)
        taken = sorted(store.attachments.waiting(GROUP_FILES), key=_sizes)
        for _, group in groupby(taken, key=_sizes):
            self._index(row, store, list(group))

    def _index(self, row: Collection, store: CollectionStore, taken: Sequence[WaitingAttachment]) -> None:
        sources = [Source(self._uploads.path(one.file_id), one.file_id, one.filename, one.file_id) for one in taken]
        splitting = Splitting(taken[0].chunk_tokens, taken[0].overlap_tokens)
        by_id = {one.file_id: one for one in taken}
        generation = store.generation
        try:
            report = self._ingest(row, store, AttachedDocuments(store, taken), sources, splitting, self._go_on)
        except (_Ended, OutOfSpaceError):
            raise
        except Exception as error:  # each would meet it again
            if store.generation != generation:  # it moved to another encoder: what waits is encoded by that one
                return
            reason = error.message if isinstance(error, LocalLLMError) else f"{type(error).__name__}: {error}"
            for one in taken:
                store.attachments.fail(one, SERVER_ERROR, reason)
            return
        for skipped in report.skipped:
            one = by_id[skipped.document]
            store.attachments.fail(one, _code(one.filename), skipped.reason)

    def _go_on(self, _done: int, _total: int, _note: str) -> None:
        if self._ended.is_set():
            raise _Ended

    def sweep(self) -> None:
        """Removes the documents of collections that have expired, and of uploads that are deleted."""
        self._swept = time.monotonic()
        for row in self._registry.here():
            try:
                if is_expired(row):
                    self._empty(row)
                elif self._stores.is_open(row.id):
                    purge(self._open(row), self._uploads, row.project_id)
            except LocalLLMError as error:  # it is tried again
                print(f"upkeep of {row.id}: {error.message}", file=sys.stderr)  # noqa: T201

    def _empty(self, row: Collection) -> None:
        with self._stores.attachments(row.id, self._registry.database(row.id)) as attachments:
            if attachments.counts(None).total == 0:
                return
        store = self._open(row)
        # Asked again each time: meanwhile somebody may have let it live longer.
        if self._registry.has_expired(row.id):
            store.attachments.remove_all()
        while self._registry.has_expired(row.id) and (names := store.some_names(SWEPT_AT_ONCE)):
            self._go_on(0, 0, "")
            store.remove(names, None)


class AttachedDocuments:
    """A collection as the indexing of attachments sees it (a `Destination`).

    Each document gets the access that its attachment has by then. One that was cancelled or detached meanwhile
    stays out; the others are completed, once they are durable and found.
    """

    def __init__(self, store: CollectionStore, taken: Sequence[WaitingAttachment]):
        self._store = store
        self._attachments = store.attachments
        self._taken = {one.file_id: one for one in taken}

    def update_if_unchanged(self, name: str, sha256: str, splitting: dict[str, int], access: Access) -> bool:  # noqa: ARG002
        with self._attachments.lock:
            wanted = self._attachments.still_waiting(self._taken[name])
            if wanted is None:  # then it need not even be parsed
                return True
            own = access_to(wanted.allow, wanted.attributes)
            if not self._store.update_if_unchanged(name, sha256, splitting, own):
                return False
            self._attachments.finish([self._taken[name]])
        return True

    def write(self, documents: Sequence[NewDocument], fingerprint: str | None = None) -> list[bool]:
        with self._attachments.lock:
            admitted = []
            for document in documents:
                wanted = self._attachments.still_waiting(self._taken[document.name])
                if wanted is not None:
                    admitted.append(replace(document, access=access_to(wanted.allow, wanted.attributes)))
            replaced = self._store.write(admitted, fingerprint)
            self._attachments.finish([self._taken[document.name] for document in admitted])
        return replaced

    def find(self, name: str) -> StoredDocument | None:
        return self._store.find(name)

    def encoded(self, document: StoredDocument) -> dict[str, Vectors]:
        return self._store.encoded(document)


def purge(store: CollectionStore, uploads: FileStore, project_id: str) -> None:
    """Removes what was made of uploads that are deleted: nobody may have told this process."""
    made = store.attachments.file_ids()
    gone = made - uploads.known(project_id) if made else set()
    if gone:
        store.detach(sorted(gone))


class _Ended(Exception):  # noqa: N818 (tells the thread to stop, never told to anybody)
    pass


def _sizes(one: WaitingAttachment) -> tuple[int, int]:
    """-1 for those of the settings."""
    sizes = (one.chunk_tokens, one.overlap_tokens)
    return tuple(-1 if size is None else size for size in sizes)  # type: ignore[return-value]


def _code(filename: str) -> str:
    try:
        media_type_of(filename)
    except UnparsableDocument:
        return UNSUPPORTED_FILE
    return INVALID_FILE
