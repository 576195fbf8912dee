"""The index itself: collections of a box, opened as they are asked for. Only one process may hold it."""

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select

from index.collection.store import Access, CollectionStore, create_database
from index.documents.parser_process import ParserProcess
from index.documents.split import Splitter
from index.encoding.encoder import Encoder, fingerprint_of
from index.ingestion.ingest import Ingestion, refuse_equal_names
from index.interface import (
    CollectionInfo,
    CollectionStats,
    DocumentInfo,
    DocumentText,
    Hit,
    IngestReport,
    Report,
    Source,
    silent,
)
from local_llm import ledger
from local_llm.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from local_llm.identifiers import is_name, new_id, now
from local_llm.models import Model, ModelStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Collection, ProfileRow, State

DATABASE = "collection.db"


class IndexService:
    """See `index.interface.Index` for what each method promises. Methods may be called from several threads."""

    def __init__(self, settings: Settings, state: State):
        self._settings = settings
        self._state = state
        self._stores: dict[str, CollectionStore] = {}
        self._stores_lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._encoder_lock = threading.Lock()

    def close(self) -> None:
        with self._stores_lock:
            for store in self._stores.values():
                store.close()
            self._stores.clear()

    def encoder(self) -> Encoder:
        """The encoder of the settings, loaded by the first who needs it.

        Raises: ModelNotFoundError, IntegrityError.
        """
        with self._encoder_lock:
            if self._encoder is None:
                self._encoder = Encoder(self._encoder_model().path, self._settings.index.device)
            return self._encoder

    @property
    def ready(self) -> bool:
        """Whether the encoder is loaded."""
        return self._encoder is not None

    # Collections

    def create(self, caller: Caller, name: str) -> CollectionInfo:
        if not is_name(name):
            raise InvalidInputError(
                f"{name!r} cannot name a collection; expected letters, digits, '.', '_' and '-'", param="name"
            )
        model = self._encoder_model()
        row = Collection(
            id=new_id("vs_"),
            project_id=caller.project_id,
            name=name,
            encoder=model.name,
            encoder_fingerprint=fingerprint_of(model.path),
            created_at=now(),
        )
        create_database(self._database(row.id))
        with self._state.session() as session:
            query = select(Collection.id).where(Collection.project_id == caller.project_id, Collection.name == name)
            if session.scalars(query).first() is None:
                session.add(row)
                return _info(row)
        shutil.rmtree(self._database(row.id).parent)
        raise ConflictError(f"a collection {name!r} is already there", hint="choose another name", param="name")

    def collections(self, caller: Caller) -> list[CollectionInfo]:
        with self._state.session() as session:
            query = select(Collection).where(Collection.project_id == caller.project_id).order_by(Collection.name)
            return [_info(row) for row in session.scalars(query)]

    def get(self, caller: Caller, collection: str) -> CollectionInfo:
        return _info(self._row(caller, collection))

    def delete(self, caller: Caller, collection: str) -> None:
        if caller.role != "admin":
            raise ForbiddenError("only an admin may delete a collection")
        row = self._row(caller, collection)
        with self._state.session() as session:
            users = session.scalars(select(ProfileRow.name).where(ProfileRow.collection_id == row.id)).all()
            if users:
                raise ConflictError(
                    f"the collection {row.name!r} is used by the profile {', '.join(users)}",
                    hint=f"local-llm profiles remove {users[0]}",
                )
            session.delete(row)
        with self._stores_lock:
            store = self._stores.pop(row.id, None)
            if store:
                store.close()
        shutil.rmtree(self._database(row.id).parent)

    def stats(self, caller: Caller, collection: str) -> CollectionStats:
        row = self._row(caller, collection)
        store = self._store(row)
        counts = store.counts(caller.sees)
        return CollectionStats(
            id=row.id,
            name=row.name,
            encoder=row.encoder,
            documents=counts.documents,
            passages=counts.passages,
            characters=counts.characters,
            bytes=store.bytes(),
        )

    # Documents

    def add(
        self,
        caller: Caller,
        collection: str,
        sources: Sequence[Source],
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        report: Report = silent,
    ) -> IngestReport:
        row = self._row(caller, collection)
        self._refuse_other_encoder(row)
        store = self._store(row)
        refuse_equal_names(sources)
        _refuse_beyond_own(caller, allow)
        _refuse_unseen(caller, store, sources)
        encoder, cpu_started = self.encoder(), _cpu_seconds()
        access = Access(_as_tuple(allow), None if attributes is None else dict(attributes))
        limits = self._settings.index
        with ParserProcess(limits.parse_timeout_seconds, limits.parse_memory_bytes) as parser:
            ingestion = Ingestion(store, encoder, self._splitter(encoder), access, report, parser)
            outcome = ingestion.run(sources)
        if outcome.passages:
            self._record(caller, row, outcome, _cpu_seconds() - cpu_started)
        return outcome

    def remove(self, caller: Caller, collection: str, names: Sequence[str]) -> int:
        return self._store(self._row(caller, collection)).remove(names, caller.sees)

    def search(self, caller: Caller, collection: str, query: str, k: int = 5) -> list[Hit]:
        if not query.strip():
            raise InvalidInputError("the query is empty", param="query")
        if k < 1:
            raise InvalidInputError(f"k = {k}; expected 1 or more", param="k")
        row = self._row(caller, collection)
        self._refuse_other_encoder(row)
        vector = self.encoder().encode_queries([query])
        return self._store(row).search(row.name, vector, k, caller.sees)

    def documents(self, caller: Caller, collection: str) -> list[DocumentInfo]:
        return self._store(self._row(caller, collection)).documents(caller.sees)

    def document(
        self, caller: Caller, collection: str, document_id: str, version: int | None = None
    ) -> DocumentText:
        return self._store(self._row(caller, collection)).document(document_id, version, caller.sees)

    # Below the surface

    def _row(self, caller: Caller, collection: str) -> Collection:
        with self._state.session() as session:
            query = select(Collection).where(
                Collection.project_id == caller.project_id,
                or_(Collection.id == collection, Collection.name == collection),
            )
            row = session.scalars(query).first()
        if row is None:
            raise NotFoundError(
                f"there is no collection {collection!r}",
                hint=f"local-llm index create {collection}, or: local-llm index list",
                param="collection",
            )
        return row

    def _database(self, identifier: str) -> Path:
        return self._settings.place.collections / identifier / DATABASE

    def _store(self, row: Collection) -> CollectionStore:
        with self._stores_lock:
            if row.id not in self._stores:
                self._stores[row.id] = CollectionStore(self._database(row.id), self._settings.index.device)
            return self._stores[row.id]

    def _encoder_model(self) -> Model:
        return ModelStore(self._settings.place.models).get(self._settings.index.encoder, "encoder")

    def _refuse_other_encoder(self, row: Collection) -> None:
        model = self._encoder_model()
        if fingerprint_of(model.path) != row.encoder_fingerprint:
            raise ConflictError(
                f"the collection {row.name!r} was built with another encoder ({row.encoder}) "
                f"than index.encoder = {model.name!r}",
                hint=f"set index.encoder to the one it was built with, or build it anew: "
                f"local-llm index create {row.name}-2",
            )

    def _splitter(self, encoder: Encoder) -> Splitter:
        return Splitter(
            encoder.token_ends,
            chunk_tokens=self._settings.index.chunk_tokens,
            overlap_tokens=self._settings.index.overlap_tokens,
            max_tokens=encoder.max_tokens,
        )

    def _record(self, caller: Caller, row: Collection, outcome: IngestReport, cpu_seconds: float) -> None:
        facts = {
            "collection": row.id,
            "documents": outcome.added + outcome.replaced,
            "passages": outcome.passages,
            "tokens": outcome.tokens,
            "seconds": round(outcome.seconds, 3),
            "cpu_seconds": round(cpu_seconds, 3),
            "encoder": row.encoder,
        }
        ledger.record(self._state, caller.project_id, "ingestion", facts)


def _info(row: Collection) -> CollectionInfo:
    return CollectionInfo(row.id, row.name, row.encoder, row.created_at)


def _as_tuple(allow: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if allow is None else tuple(allow)


def _refuse_beyond_own(caller: Caller, allow: Sequence[str] | None) -> None:
    foreign = set(allow or ()) - set(caller.principals)
    if caller.role != "admin" and foreign:
        raise ForbiddenError(
            f"a member may only name its own principals; {', '.join(sorted(foreign))} are not among them",
            param="allow",
        )


def _refuse_unseen(caller: Caller, store: CollectionStore, sources: Sequence[Source]) -> None:
    """A member must not replace what it may not see."""
    if caller.role == "admin":
        return
    hidden = {info.name for info in store.documents(None)} - {info.name for info in store.documents(caller.sees)}
    for source in sources:
        if source.name in hidden:
            raise ForbiddenError(f"you may not replace the document {source.name}", param="name")


def _cpu_seconds() -> float:
    """Processor time of this process and of the children it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
