"""Uploads as files of collections: attached, looked at, changed and detached. `attachment_worker` indexes them.

Who may see an upload's own bytes follows from its documents: they are for those only who may see each document that
was made of it with `allow`.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from index.admission import access_of, refuse_beyond_own
from index.collection.attachments import NewAttachment
from index.collection.documents import Access
from index.collection.store import CollectionStore
from index.encoding.encoder import Encoder
from index.interface import (
    EVERYONE,
    EXTERNAL,
    AttachedBatch,
    AttachedFile,
    Attachment,
    CollectionUsage,
    FileCounts,
    FilePage,
    FileQuery,
    Splitting,
)
from index.open_stores import OpenStores
from index.registry import CollectionRegistry, is_expired
from local_llm.errors import ConflictError, InvalidInputError, LocalLLMError, NotFoundError
from local_llm.fileio import bytes_below
from local_llm.files import FileStore
from local_llm.index_settings import IndexSettings
from local_llm.permissions import Caller, Principals
from local_llm.state import Collection, File

SMALLEST_CHUNK_TOKENS = 16

OpenStore = Callable[[Collection], CollectionStore]
EncoderOf = Callable[[Collection, CollectionStore], Encoder]


class AttachedFiles:
    """Every method sees only the caller's project, and of its files only those the caller may see.

    Raises: NotFoundError for anything beyond the caller's sight.
    """

    def __init__(
        self,
        settings: IndexSettings,
        uploads: FileStore,
        registry: CollectionRegistry,
        stores: OpenStores,
        open_store: OpenStore,
        encoder: Callable[[str | None], Encoder],
        encoder_of: EncoderOf,
        notice: Callable[[str], None],
    ):
        """`notice` is told the id of a collection in which files wait."""
        self._settings = settings
        self._uploads = uploads
        self._registry = registry
        self._stores = stores
        self._open = open_store
        self._encoder = encoder
        self._encoder_of = encoder_of
        self._notice = notice
        self._sharing = threading.Lock()

    # Attaching

    def check(self, caller: Caller, attachments: Sequence[Attachment], *, encoder: str | None = None) -> None:
        """Raises: what attach() would, to a collection of this encoder that is still to be made."""
        self._check_files(caller, attachments)
        for splitting in {one.splitting for one in attachments} - {Splitting()}:
            _check_sizes(self._settings, self._encoder(encoder), splitting)

    def attach(self, caller: Caller, collection: str, attachments: Sequence[Attachment]) -> list[AttachedFile]:
        """Acknowledged: the files will be indexed, whatever is killed when. Their access holds from now on.

        Raises: ForbiddenError if a member's `allow` names others than itself; InvalidInputError; ConflictError if
        the collection has no encoder.
        """
        row, store = self._usable(caller, collection)
        self._add(caller, row, store, attachments, as_batch=False)
        return [store.attachments.file(one.file_id, caller.sees) for one in attachments]

    def attach_batch(self, caller: Caller, collection: str, attachments: Sequence[Attachment]) -> AttachedBatch:
        row, store = self._usable(caller, collection)
        batch = self._add(caller, row, store, attachments, as_batch=True)
        assert batch is not None
        return _batch(store, batch, caller)

    def _add(
        self,
        caller: Caller,
        row: Collection,
        store: CollectionStore,
        attachments: Sequence[Attachment],
        *,
        as_batch: bool,
    ) -> str | None:
        uploads = self._check_files(caller, attachments)
        self._registry.refuse_full(row)
        self._check_splittings(row, store, {one.splitting for one in attachments})
        with store.attachments.lock:
            new = [_queued(caller, store, one, uploads[one.file_id]) for one in attachments]
            for queued in new:
                if store.find(queued.file_id) is not None:
                    store.set_access(queued.file_id, access_to(queued.allow, queued.attributes), None)
            batch = store.attachments.add(new, as_batch=as_batch)
        try:
            self._share(caller, [one.file_id for one in attachments if one.allow is not None])
        finally:  # attached they are, whatever the state database has to say
            self._notice(row.id)
        return batch

    def _check_files(self, caller: Caller, attachments: Sequence[Attachment]) -> dict[str, File]:
        """Returns: the uploads, by their ids."""
        identifiers = [one.file_id for one in attachments]
        if len(set(identifiers)) < len(identifiers):
            raise InvalidInputError("file_ids: a file is named twice", param="file_ids")
        for one in attachments:
            refuse_beyond_own(caller, one.allow)
        return self._uploads.get_all(identifiers, caller, "file_id")

    def _check_splittings(self, row: Collection, store: CollectionStore, splittings: Iterable[Splitting]) -> None:
        if row.encoder == EXTERNAL:
            raise ConflictError(f"the collection {row.name!r} has no encoder: files cannot be attached to it")
        for splitting in splittings:
            if splitting != Splitting():
                _check_sizes(self._settings, self._encoder_of(row, store), splitting)

    # Looking

    def files(self, caller: Caller, collection: str, listing: FileQuery) -> FilePage:
        store = self._open(self._registry.get(caller, collection))
        if listing.batch is not None:
            store.attachments.visible_batch(listing.batch, caller.sees)
        return store.attachments.files(listing, caller.sees)

    def file(self, caller: Caller, collection: str, file_id: str) -> AttachedFile:
        return self._open(self._registry.get(caller, collection)).attachments.file(file_id, caller.sees)

    def batch(self, caller: Caller, collection: str, batch_id: str) -> AttachedBatch:
        return _batch(self._open(self._registry.get(caller, collection)), batch_id, caller)

    def usage(self, caller: Caller, collections: Sequence[str]) -> list[CollectionUsage]:
        """Of several collections at once, without opening them for searches; one that is damaged says so."""
        return [self._usage(caller, self._registry.get(caller, one)) for one in collections]

    def _usage(self, caller: Caller, row: Collection) -> CollectionUsage:
        database = self._registry.database(row.id)
        counts, damage = FileCounts(), None
        try:
            with self._stores.attachments(row.id, database) as attachments:
                counts = attachments.counts(caller.sees)
        except LocalLLMError as error:
            damage = error.message
        return CollectionUsage(row.id, counts, bytes_below(database.parent), is_expired(row), damage)

    # Changing

    def update(
        self,
        caller: Caller,
        collection: str,
        file_id: str,
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> AttachedFile:
        """Changes who sees a file, or its attributes; nothing is encoded. Holds when it returns."""
        refuse_beyond_own(caller, allow)
        access = access_of(allow, attributes)
        _, store = self._usable(caller, collection)
        with store.attachments.lock:
            found = store.attachments.file(file_id, caller.sees)
            name = store.name_of(found.document_id) if found.document_id else None
            if name is not None:
                store.set_access(name, access, caller.sees)
            else:
                store.attachments.set_access(file_id, *_merged(access, found.allow, found.attributes))
        if allow is not None:
            self._share(caller, [found.id])
        return store.attachments.file(file_id, caller.sees)

    def detach(self, caller: Caller, collection: str, file_id: str) -> None:
        """No search finds it from now on. The upload itself stays, and who may see that does not change."""
        _, store = self._usable(caller, collection)
        with store.attachments.lock:
            found = store.attachments.file(file_id, caller.sees)
            store.detach([found.id])
            name = store.name_of(found.document_id) if found.document_id else None
            if name is not None:  # a document that came in another way
                store.remove([name], caller.sees)

    def cancel_batch(self, caller: Caller, collection: str, batch_id: str) -> AttachedBatch:
        """Files that are no document yet never become one."""
        store = self._open(self._registry.get(caller, collection))
        store.attachments.visible_batch(batch_id, caller.sees)
        store.attachments.cancel(batch_id, caller.sees)
        return _batch(store, batch_id, caller)

    def forget(self, caller: Caller, file_id: str) -> int:
        """Removes what was made of an upload that is deleted. Returns: in how many collections it was.

        Raises: ConflictError if the upload is still there; what the first collection had to say that could not
        do it, when all others have.
        """
        if self._uploads.exists(file_id):
            raise ConflictError(f"the file {file_id} is still there", hint="delete it first", param="file_id")
        held, failed = 0, None
        for row in self._registry.of_project(caller):
            try:
                held += self._forget(row, file_id)
            except LocalLLMError as error:
                # One that cannot be opened answers nobody, and looks for deleted uploads before it does.
                if self._stores.is_open(row.id):
                    failed = failed or error
        if failed is not None:
            raise failed
        return held

    def follow_access(self, caller: Caller, store: CollectionStore, name: str) -> None:
        """Call it when a document's `allow` was changed by its name."""
        file_id = store.file_id_of(name)
        if file_id is not None:
            self._share(caller, [file_id])

    # Below the surface

    def _usable(self, caller: Caller, collection: str) -> tuple[Collection, CollectionStore]:
        row = self._registry.usable(caller, collection)
        return row, self._open(row)

    def _forget(self, row: Collection, file_id: str) -> bool:
        """Returns: whether it was in this collection."""
        with self._stores.attachments(row.id, self._registry.database(row.id)) as attachments:
            held = attachments.holds(file_id)
        if held:
            self._open(row).detach([file_id])
        return held

    def _share(self, caller: Caller, file_ids: Sequence[str]) -> None:
        """Lets uploads be read by those who may see all that was made of them, and nobody else."""
        if not file_ids:
            return
        with self._sharing:
            allows: dict[str, list[Principals]] = {one: [] for one in file_ids}
            for row in self._registry.of_project(caller):
                with self._stores.attachments(row.id, self._registry.database(row.id)) as attachments:
                    for file_id in file_ids:
                        allows[file_id] += attachments.allows(file_id)
            self._uploads.set_allows({file_id: intersection(found) for file_id, found in allows.items()})


def intersection(allows: Iterable[Principals]) -> Principals:
    """Those whom all of them name; None if none names anybody."""
    named = [set(allow) for allow in allows if allow is not None]
    return tuple(sorted(set.intersection(*named))) if named else None


def access_to(allow: Principals, attributes: Mapping[str, Any]) -> Access:
    """What makes a document's access this one, whatever it was."""
    return Access((EVERYONE,) if allow is None else allow, dict(attributes))


def _queued(caller: Caller, store: CollectionStore, asked: Attachment, upload: File) -> NewAttachment:
    kept = store.find(upload.id) or store.attachments.newest(upload.id)
    shared = None if upload.allow is None else tuple(upload.allow)
    kept_allow, kept_attributes = (kept.allow, kept.attributes) if kept else (shared, {})
    if not caller.may_see(kept_allow):
        raise NotFoundError(f"No such File object: {upload.id}", param="file_id")
    allow, attributes = _merged(access_of(asked.allow, asked.attributes), kept_allow, kept_attributes)
    return NewAttachment(
        file_id=upload.id,
        filename=upload.filename,
        allow=allow,
        attributes=attributes,
        chunk_tokens=asked.splitting.chunk_tokens,
        overlap_tokens=asked.splitting.overlap_tokens,
    )


def _merged(access: Access, allow: Principals, attributes: dict[str, Any]) -> tuple[Principals, dict[str, Any]]:
    """What was asked for, over what is there."""
    wanted = allow if access.allow is None else access.allow
    opened = wanted is not None and EVERYONE in wanted
    return None if opened else wanted, attributes if access.attributes is None else access.attributes


def _check_sizes(settings: IndexSettings, encoder: Encoder, asked: Splitting) -> None:
    chunk = settings.chunk_tokens if asked.chunk_tokens is None else asked.chunk_tokens
    overlap = settings.overlap_tokens if asked.overlap_tokens is None else asked.overlap_tokens
    if not SMALLEST_CHUNK_TOKENS <= chunk <= encoder.max_tokens:
        raise InvalidInputError(
            f"max_chunk_size_tokens = {chunk}: the collection's encoder reads {encoder.max_tokens} tokens at once; "
            f"expected {SMALLEST_CHUNK_TOKENS} to {encoder.max_tokens}",
            hint="leave chunking_strategy out for sizes that fit",
            param="chunking_strategy.static.max_chunk_size_tokens",
        )
    if not 0 <= overlap <= chunk // 2:
        raise InvalidInputError(
            f"chunk_overlap_tokens = {overlap}: expected 0 to {chunk // 2}, half of max_chunk_size_tokens",
            param="chunking_strategy.static.chunk_overlap_tokens",
        )


def _batch(store: CollectionStore, batch_id: str, caller: Caller) -> AttachedBatch:
    row, counts = store.attachments.visible_batch(batch_id, caller.sees)
    return AttachedBatch(row["id"], row["created_at"], bool(row["cancelled"]), counts)
