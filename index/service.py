"""The index itself: collections of a box, opened as they are asked for. Only one process may hold it."""

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from index.collection.attributes import checked_allow, checked_attributes
from index.collection.documents import Access, Vectors
from index.collection.filters import parse_filter
from index.collection.scope import Scope
from index.collection.store import CollectionStore
from index.documents.parser_process import ParserProcess
from index.documents.split import Splitter
from index.encoding.encoder import Encoder, fingerprint_of
from index.ingestion.ingest import Ingestion, refuse_equal_names
from index.ingestion.records import as_documents, unit_vector
from index.ingestion.reembed import Reembedding
from index.ingestion.sync import plan_sync
from index.interface import (
    EXTERNAL,
    CollectionInfo,
    CollectionStats,
    DocumentInfo,
    DocumentText,
    Hit,
    IngestReport,
    Ranking,
    Record,
    ReembedReport,
    Report,
    SearchQuality,
    Source,
    Splitting,
    SyncReport,
    silent,
)
from index.open_stores import OpenStores, UpkeepPolicy
from index.registry import CollectionRegistry, info_of
from local_llm import ledger
from local_llm.errors import ConflictError, ForbiddenError, InvalidInputError
from local_llm.models import Model, ModelStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Collection, State

# A million such vectors are 256 GB: more is a slip of the pen.
MOST_DIMENSIONS = 2**16
# Queries made of passages, to measure with while nobody asked: so many, of the middle third of a passage's words.
SAMPLE_QUERIES = 200


class IndexService:
    """See `index.interface.Index` for what each method promises. Methods may be called from several threads."""

    def __init__(self, settings: Settings, state: State, upkeep: UpkeepPolicy | None = None):
        self._settings = settings
        self._state = state
        self._registry = CollectionRegistry(settings, state)
        self._stores = OpenStores(settings.index, self._sample_queries, upkeep)
        self._encoders: dict[str, Encoder] = {}
        self._encoder_lock = threading.Lock()

    def close(self) -> None:
        self._stores.close_all()

    def start_upkeep(self) -> None:
        """For a process that stays: from now on a thread does what can wait."""
        self._registry.remove_abandoned()
        self._stores.start_upkeep()

    def settle(self) -> None:
        """For a process that ends soon: does what can wait before it does."""
        self._stores.settle()

    def encoder(self, name: str | None = None) -> Encoder:
        """The encoder of that name (None: that of the settings), loaded by the first who needs it.

        Raises: ModelNotFoundError, IntegrityError.
        """
        name = name or self._settings.index.encoder
        with self._encoder_lock:
            if name not in self._encoders:
                self._encoders[name] = Encoder(self._encoder_model(name).path, self._settings.index.device)
            return self._encoders[name]

    @property
    def ready(self) -> bool:
        """Whether the encoder of the settings is loaded."""
        return self._settings.index.encoder in self._encoders

    # Collections

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
        if dimension is None:
            model = self._encoder_model(encoder or self._settings.index.encoder)
            encoder, fingerprint = model.name, fingerprint_of(model.path)
        elif encoder is None and 0 < dimension <= MOST_DIMENSIONS:
            encoder = fingerprint = EXTERNAL
        else:
            raise InvalidInputError(
                f"give an encoder, or the dimension of vectors of your own: 1 to {MOST_DIMENSIONS}",
                param="dimension",
            )
        row = self._registry.create(
            caller,
            name,
            encoder=encoder,
            fingerprint=fingerprint,
            dimension=dimension,
            title=title,
            labels=dict(metadata or {}),
            expires_after_days=expires_after_days,
        )
        return info_of(row)

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
        row = self._registry.get(caller, collection)
        values: dict[str, Any] = {
            "title": title,
            "labels": None if metadata is None else dict(metadata),
            "expires_after_days": expires_after_days,
            "ranking": None if ranking is None else asdict(ranking),
        }
        given = {column: value for column, value in values.items() if value is not None}
        if never_expires:
            given["expires_after_days"] = None
        return info_of(self._registry.update(row.id, given))

    def collections(self, caller: Caller) -> list[CollectionInfo]:
        return [info_of(row) for row in self._registry.of_project(caller)]

    def get(self, caller: Caller, collection: str) -> CollectionInfo:
        return info_of(self._registry.get(caller, collection))

    def delete(self, caller: Caller, collection: str) -> None:
        row = self._registry.delete(caller, collection)
        self._stores.close(row.id, gone=True)
        shutil.rmtree(self._registry.database(row.id).parent)

    def stats(self, caller: Caller, collection: str) -> CollectionStats:
        row = self._registry.get(caller, collection)
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
            search=_quality(store),
        )

    # Documents in

    def add(
        self,
        caller: Caller,
        collection: str,
        sources: Sequence[Source],
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        splitting: Splitting | None = None,
        report: Report = silent,
    ) -> IngestReport:
        row = self._registry.usable(caller, collection)
        store = self._store(row)
        encoder = self._encoder_of(row, store)
        refuse_equal_names(sources)
        _refuse_beyond_own(caller, allow)
        _refuse_unseen(caller, store, [source.name for source in sources])
        cpu_started = _cpu_seconds()
        with ParserProcess(self._settings.index.parse_timeout_seconds) as parser:
            ingestion = Ingestion(
                store,
                encoder,
                self._splitter(encoder, splitting or Splitting()),
                _access(allow, attributes),
                report,
                parser,
            )
            outcome = ingestion.run(sources)
        if outcome.passages:
            self._record(caller, row, outcome, _cpu_seconds() - cpu_started)
        return outcome

    def put(
        self, caller: Caller, collection: str, records: Sequence[Record], *, allow: Sequence[str] | None = None
    ) -> IngestReport:
        row = self._registry.usable(caller, collection)
        store = self._store(row)
        encoder = None if row.encoder == EXTERNAL else self._encoder_of(row, store)
        _refuse_beyond_own(caller, allow)
        _refuse_unseen(caller, store, [record.name for record in records])
        return as_documents(records, _access(allow, None), encoder).into(store)

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
        store = self._store(self._registry.get(caller, collection))
        present = store.documents(caller.sees)
        plan = plan_sync(sources, present, store, scope)
        if dry_run:
            return plan
        ingest = self.add(caller, collection, sources, allow=allow, attributes=attributes, report=report)
        gone = set(plan.to_remove)
        store.remove_unchanged([one for one in present if one.name in gone], caller.sees)
        return replace(plan, ingest=ingest)

    def reembed(
        self, caller: Caller, collection: str, *, encoder: str | None = None, report: Report = silent
    ) -> ReembedReport:
        if caller.role != "admin":
            raise ForbiddenError("only an admin may move a collection to another encoder")
        row = self._registry.usable(caller, collection)
        if row.encoder == EXTERNAL:
            raise ConflictError(f"the collection {row.name!r} has no encoder: its records bring their vectors")
        store, following = self._store(row), self.encoder(encoder)
        if store.generation.fingerprint == following.fingerprint:
            return ReembedReport(following.name, 0, 0.0)
        outcome = Reembedding(store, following, report).run()
        self._registry.update(row.id, {"encoder": following.name, "encoder_fingerprint": following.fingerprint})
        return outcome

    def set_access(
        self,
        caller: Caller,
        collection: str,
        name: str,
        *,
        allow: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        _refuse_beyond_own(caller, allow)
        store = self._store(self._registry.usable(caller, collection))
        store.set_access(name, _access(allow, attributes), caller.sees)

    def remove(self, caller: Caller, collection: str, names: Sequence[str]) -> int:
        return self._store(self._registry.usable(caller, collection)).remove(names, caller.sees)

    def remove_matching(
        self,
        caller: Caller,
        collection: str,
        *,
        names: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        scope = _scope(caller, filters)
        return self._store(self._registry.usable(caller, collection)).remove_matching(scope, names)

    # Passages out

    def search(
        self,
        caller: Caller,
        collection: str,
        query: str | Sequence[float],
        k: int = 5,
        *,
        filters: Mapping[str, Any] | None = None,
        ranking: Ranking | None = None,  # noqa: ARG002
    ) -> list[Hit]:
        if k < 1:
            raise InvalidInputError(f"k = {k}; expected 1 or more", param="k")
        scope = _scope(caller, filters)
        row = self._registry.usable(caller, collection)
        store = self._store(row)
        while True:
            generation = store.generation
            vector = self._query_vector(row, store, query)
            hits = store.search(row.name, vector, k, scope)
            # Else it was encoded for vectors that others took the place of: asked again, it is encoded for these.
            if store.generation is generation:
                return hits

    def documents(self, caller: Caller, collection: str) -> list[DocumentInfo]:
        return self._store(self._registry.get(caller, collection)).documents(caller.sees)

    def document(
        self, caller: Caller, collection: str, document_id: str, version: int | None = None
    ) -> DocumentText:
        return self._store(self._registry.get(caller, collection)).document(document_id, version, caller.sees)

    def records(
        self,
        caller: Caller,
        collection: str,
        *,
        names: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[Record]:
        scope = _scope(caller, filters)
        return self._store(self._registry.get(caller, collection)).records(scope, names)

    # Below the surface

    def _store(self, row: Collection) -> CollectionStore:
        return self._stores.open(row.id, self._registry.database(row.id))

    def _encoder_model(self, name: str) -> Model:
        return ModelStore(self._settings.place.models).get(name, "encoder")

    def _encoder_of(self, row: Collection, store: CollectionStore) -> Encoder:
        """Raises: ConflictError if the collection is bound to none, or to one that is here no longer as it was."""
        generation = store.generation
        if generation.encoder == EXTERNAL:
            raise ConflictError(
                f"the collection {row.name!r} has no encoder: its records and queries bring vectors",
                hint="send vectors, or create a collection with an encoder",
            )
        encoder = self.encoder(generation.encoder)
        if encoder.fingerprint != generation.fingerprint:
            raise ConflictError(
                f"the collection {row.name!r} was built with another encoder than the {generation.encoder!r} that "
                "is here now: weights, pooling, prompts or precision differ",
                hint=f"local-llm index reembed {row.name}",
            )
        return encoder

    def _query_vector(self, row: Collection, store: CollectionStore, query: str | Sequence[float]) -> Vectors:
        if isinstance(query, str):
            if not query.strip():
                raise InvalidInputError("the query is empty", param="query")
            vector = self._encoder_of(row, store).encode_queries([query])[0]
        elif row.encoder != EXTERNAL:
            raise InvalidInputError(
                f"the collection {row.name!r} is asked with text: {row.encoder} makes its vectors", param="query"
            )
        else:
            vector = unit_vector(query, "query", "query")
            if store.generation.dimension not in (None, len(vector)):
                raise InvalidInputError(
                    f"the query has {len(vector)} numbers; the collection {row.name!r} holds vectors of "
                    f"{store.generation.dimension}",
                    param="query",
                )
        if self._settings.index.record_queries:
            store.record_query(vector)
        return vector

    def _splitter(self, encoder: Encoder, asked: Splitting) -> Splitter:
        default = self._settings.index
        return Splitter(
            encoder.token_ends,
            chunk_tokens=default.chunk_tokens if asked.chunk_tokens is None else asked.chunk_tokens,
            overlap_tokens=default.overlap_tokens if asked.overlap_tokens is None else asked.overlap_tokens,
            max_tokens=encoder.max_tokens,
        )

    def _sample_queries(self, store: CollectionStore) -> Vectors:
        """Queries for a collection that nobody asked yet: parts of its passages, encoded as questions are."""
        if store.generation.encoder == EXTERNAL:
            return store.sample_vectors(SAMPLE_QUERIES)
        spans = [_middle_third(text) for text in store.sample_passages(SAMPLE_QUERIES)]
        return self.encoder(store.generation.encoder).encode_queries(spans)

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


def _quality(store: CollectionStore) -> SearchQuality | None:
    found = store.view_stats()
    if found is None:
        return None
    return SearchQuality(
        structure=found.structure,
        recall=found.recall,
        queries=found.recall_queries,
        source=found.recall_source,
        target_recall=found.target_recall,
        below_target=found.below_target,
        waiting=found.tail,
    )


def _middle_third(text: str) -> str:
    words = text.split()
    third = len(words) // 3
    return " ".join(words[third : 2 * third] or words)


def _scope(caller: Caller, filters: Mapping[str, Any] | None) -> Scope:
    """Raises: InvalidInputError for a filter that is none."""
    return Scope(caller.sees, None if filters is None else parse_filter(filters))


def _access(allow: Sequence[str] | None, attributes: Mapping[str, Any] | None) -> Access:
    """Raises: InvalidInputError for an attribute that is neither text nor number nor true nor false."""
    return Access(
        None if allow is None else checked_allow(allow),
        None if attributes is None else checked_attributes(attributes, "attributes"),
    )


def _refuse_beyond_own(caller: Caller, allow: Sequence[str] | None) -> None:
    foreign = set(allow or ()) - set(caller.principals)
    if caller.role != "admin" and foreign:
        raise ForbiddenError(
            f"a member may only name its own principals; {', '.join(sorted(foreign))} are not among them",
            param="allow",
        )


def _refuse_unseen(caller: Caller, store: CollectionStore, names: Sequence[str]) -> None:
    """A member must not replace what it may not see."""
    for name in names if caller.role != "admin" else ():
        found = store.find(name)
        if found is not None and not caller.may_see(found.allow):
            raise ForbiddenError(f"you may not replace the document {name}", param="name")


def _cpu_seconds() -> float:
    """Processor time of this process and of the children it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
