"""The index itself: collections of a box, opened as they are asked for. Only one process may hold it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from index.admission import access_of, refuse_beyond_own, refuse_unseen
from index.attached_files import AttachedFiles
from index.attachment_worker import AttachmentWorker, purge
from index.bulk.encoded import EncodedTexts
from index.collection.documents import Access, Vectors
from index.collection.filters import parse_filter
from index.collection.live_view import Generation
from index.collection.scope import Scope
from index.collection.store import CollectionStore
from index.documents.parser_process import ParserProcess
from index.documents.split import Splitter
from index.embedding import embed
from index.encoders import Encoders
from index.encoding.encoder import Encoder
from index.ingestion.ingest import Destination, EncodedAhead, Ingestion, refuse_equal_names
from index.ingestion.records import as_documents, unit_vector
from index.ingestion.reembed import Reembedding
from index.ingestion.sync import plan_sync
from index.interface import (
    EXTERNAL,
    PASSAGE_PAGE,
    CollectionInfo,
    CollectionStats,
    DocumentInfo,
    DocumentText,
    Embeddings,
    Found,
    Hit,
    IngestReport,
    Ranking,
    Record,
    ReembedReport,
    Report,
    SearchQuality,
    Source,
    Splitting,
    StoredPassage,
    SyncReport,
    silent,
)
from index.measured import Measured
from index.open_stores import OpenStores, UpkeepPolicy
from index.ranking.rerankers import Load as LoadReranker
from index.ranking.rerankers import Rerankers, load_reranker
from index.ranking.search import RankedSearch
from index.registry import CollectionRegistry, ExpiredError, info_of
from local_llm.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from local_llm.files import FileStore
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Collection, State

# A million such vectors are 256 GB: more is a slip of the pen.
MOST_DIMENSIONS = 2**16
# Queries made of passages, to measure with while nobody asked: so many, of the middle third of a passage's words.
SAMPLE_QUERIES = 200


class IndexService:
    """See `index.interface.Index` for what each method promises. Methods may be called from several threads."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        upkeep: UpkeepPolicy | None = None,
        load_reranker: LoadReranker = load_reranker,
    ):
        self._settings = settings
        self._state = state
        self._registry = CollectionRegistry(settings, state)
        self._measured = Measured(state)
        self._stores = OpenStores(settings.index, self._sample_queries, upkeep, built=self._measured.built)
        self._encoders = Encoders(settings)
        self._rerankers = Rerankers(ModelStore(settings.place.models), settings.index.device, load_reranker)
        self._uploads = FileStore(settings, state)
        self._worker = AttachmentWorker(
            self._uploads, self._registry, self._stores, self._store, self._ingest_attached
        )
        self.files = AttachedFiles(
            settings.index,
            self._uploads,
            self._registry,
            self._stores,
            self._store,
            self.encoder,
            self._encoder_of,
            self._worker.notice,
        )

    def close(self) -> None:
        self._worker.close()
        self._stores.close_all()

    def start_upkeep(self) -> None:
        """For a process that stays: a thread does what can wait from now on, another indexes what is attached."""
        self._registry.remove_abandoned(self._stores.forget)
        self._stores.start_upkeep()
        self._worker.start()

    def work_off(self) -> None:
        """Indexes all that is attached. The thread does so by itself."""
        while self._worker.step():
            pass

    def sweep(self) -> None:
        """Removes what has expired, and what was made of deleted uploads. The thread does so every minute."""
        self._worker.sweep()

    def settle(self) -> None:
        """For a process that ends soon: does what can wait before it does."""
        self._stores.settle()

    def encoder(self, name: str | None = None) -> Encoder:
        """The encoder of that name (None: that of the settings), loaded by the first who needs it.

        Raises: ModelNotFoundError, IntegrityError.
        """
        return self._encoders.get(name)

    @property
    def ready(self) -> bool:
        """Whether an encoder is loaded."""
        return self._encoders.any_loaded

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
            encoder, fingerprint = self._encoders.fingerprint(encoder)
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
        if not caller.administers and (expires_after_days is not None or never_expires or ranking is not None):
            # What expires is removed, which is an admin's to decide as deleting is.
            raise ForbiddenError("only an admin may change when a collection expires, or how it ranks")
        if ranking is not None and ranking.reranker:
            self._rerankers.check(ranking.reranker)
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
        return [info_of(row) for row in self._registry.reachable(caller)]

    def get(self, caller: Caller, collection: str) -> CollectionInfo:
        return info_of(self._registry.get(caller, collection))

    def delete(self, caller: Caller, collection: str) -> None:
        row = self._registry.delete(caller, collection)
        folder = self._registry.database(row.id).parent
        # Out of the way first: another thread that is about to open it finds nothing, and leaves nothing behind.
        gone = folder.rename(folder.with_name(f".gone-{row.id}"))
        self._stores.close(row.id, gone=True)
        self._registry.remove_folder(gone, self._stores.forget)

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
            # It speaks of all passages and everybody's questions.
            search=_quality(store) if caller.administers else None,
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
        encoded: Path | None = None,
        report: Report = silent,
    ) -> IngestReport:
        row = self._registry.usable(caller, collection)
        store = self._store(row)
        self._registry.refuse_full(row)
        # Before files are looked at: whether it is here as it was, and the folder of it.
        ahead = _encoded_ahead(encoded, self._encoder_of(row, store))
        refuse_equal_names(sources)
        refuse_beyond_own(caller, allow)
        refuse_unseen(caller, store, [source.name for source in sources])
        access = access_of(allow, attributes)
        return self._ingest(row, store, store, sources, access, splitting or Splitting(), report, ahead)

    def put(
        self, caller: Caller, collection: str, records: Sequence[Record], *, allow: Sequence[str] | None = None
    ) -> IngestReport:
        row = self._registry.usable(caller, collection)
        store = self._store(row)
        encoder = None if row.encoder == EXTERNAL else self._encoder_of(row, store)
        self._registry.refuse_full(row)
        refuse_beyond_own(caller, allow)
        refuse_unseen(caller, store, [record.name for record in records])
        return as_documents(records, access_of(allow, None), encoder).into(store)

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
        self,
        caller: Caller,
        collection: str,
        *,
        encoder: str | None = None,
        encoded: Path | None = None,
        report: Report = silent,
    ) -> ReembedReport:
        if not caller.administers:
            raise ForbiddenError("only an admin may move a collection to another encoder")
        row = self._registry.usable(caller, collection)
        if row.encoder == EXTERNAL:
            raise ConflictError(f"the collection {row.name!r} has no encoder: its records bring their vectors")
        store, following = self._store(row), self.encoder(encoder)
        moved = store.generation.fingerprint != following.fingerprint
        outcome = ReembedReport(following.name, 0, 0.0)
        if moved:
            run = Reembedding(store, following, report, _encoded_ahead(encoded, following))
            with self._measured.reembedding(row, run):
                outcome = run.run()
        # Also where nothing moved: a run that was killed may not have come to this.
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
        refuse_beyond_own(caller, allow)
        store = self._store(self._registry.usable(caller, collection))
        store.set_access(name, access_of(allow, attributes), caller.sees)
        if allow is not None:
            self.files.follow_access(caller, store, name)

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
        ranking: Ranking | None = None,
    ) -> list[Hit]:
        return self.find(caller, collection, query, k, filters=filters, ranking=ranking).hits

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
        if k < 1:
            raise InvalidInputError(f"k = {k}; expected 1 or more", param="k")
        scope = _scope(caller, filters)
        row = self._registry.usable(caller, collection)
        store = self._store(row)
        chosen = Ranking(**row.ranking) if ranking is None else ranking
        text = query if isinstance(query, str) else ""
        if not text and (chosen.lexical or chosen.reranker):
            raise InvalidInputError(
                "a vector has no words: it cannot be ranked by them or a reranker", param="query"
            )
        scores = self._rerankers.get(chosen.reranker) if chosen.reranker else None
        while True:
            generation = store.generation
            began = time.perf_counter()
            vector = self._query_vector(row, generation, query)
            encoded = time.perf_counter()
            if self._settings.index.record_queries:
                store.record_query(vector, generation)
            hits = RankedSearch(store, row.name, scope, chosen, text, vector, scores).run(k)
            # Else it was encoded for vectors that others took the place of: asked again, it is encoded for these.
            if store.generation is generation:
                return Found(hits, encoded - began, time.perf_counter() - encoded)

    def documents(self, caller: Caller, collection: str) -> list[DocumentInfo]:
        return self._store(self._registry.get(caller, collection)).documents(caller.sees)

    def document(
        self, caller: Caller, collection: str, document_id: str, version: int | None = None
    ) -> DocumentText:
        return self._store(self._registry.get(caller, collection)).document(document_id, version, caller.sees)

    def current(
        self, caller: Caller, collection: str, versions: Sequence[tuple[str, int]]
    ) -> list[tuple[str, int]]:
        try:
            store = self._store(self._registry.usable(caller, collection))
        except (NotFoundError, ExpiredError):
            return []
        return store.current_versions([(one[0], one[1]) for one in versions], caller.sees)

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

    def passages(
        self, caller: Caller, collection: str, *, after: int = 0, limit: int = 1000
    ) -> list[StoredPassage]:
        if not 1 <= limit <= PASSAGE_PAGE:
            raise InvalidInputError(f"limit is {limit}; expected 1 to {PASSAGE_PAGE}", param="limit")
        return self._store(self._registry.get(caller, collection)).passages_after(after, limit, caller.sees)

    # Vectors for whoever wants them

    def embed(
        self,
        caller: Caller,  # noqa: ARG002
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        model: str | None = None,
        kind: str = "document",
    ) -> Embeddings:
        name = model or self._settings.index.encoder
        return embed(self.encoder(name), name, inputs, kind)

    # Below the surface

    def _store(self, row: Collection) -> CollectionStore:
        """What was made of uploads that are deleted is gone before anybody can ask."""
        return self._stores.open(
            row.id, self._registry.database(row.id), lambda store: purge(store, self._uploads, row.project_id)
        )

    def _ingest(
        self,
        row: Collection,
        store: CollectionStore,
        destination: Destination,
        sources: Sequence[Source],
        access: Access,
        splitting: Splitting,
        report: Report,
        ahead: EncodedAhead | None = None,
    ) -> IngestReport:
        encoder = self._encoder_of(row, store)
        splitter = self._splitter(encoder, splitting)
        limits = self._settings.index
        with (
            self._measured.ingestion(row) as note,
            ParserProcess(limits.parse_timeout_seconds, limits.parse_memory_bytes) as parser,
        ):
            outcome = Ingestion(destination, encoder, splitter, access, report, parser, ahead).run(sources)
            note(outcome)
        return outcome

    def _ingest_attached(
        self,
        row: Collection,
        store: CollectionStore,
        destination: Destination,
        sources: Sequence[Source],
        splitting: Splitting,
        report: Report,
    ) -> IngestReport:
        return self._ingest(row, store, destination, sources, Access(), splitting, report)

    def _encoder_of(self, row: Collection, store: CollectionStore) -> Encoder:
        return self._encoders.of(store.generation, row.name)

    def _query_vector(self, row: Collection, generation: Generation, query: str | Sequence[float]) -> Vectors:
        if isinstance(query, str):
            if not query.strip():
                raise InvalidInputError("the query is empty", param="query")
            return self._encoders.of(generation, row.name).encode_queries([query])[0]
        if row.encoder != EXTERNAL:
            raise InvalidInputError(
                f"the collection {row.name!r} is asked with text: {row.encoder} makes its vectors", param="query"
            )
        vector = unit_vector(query, "query", "query")
        if generation.dimension not in (None, len(vector)):
            raise InvalidInputError(
                f"the query has {len(vector)} numbers; the collection {row.name!r} holds vectors of "
                f"{generation.dimension}",
                param="query",
            )
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
        return self._encoders.of(store.generation, "the collection").encode_queries(spans)


def _encoded_ahead(folder: Path | None, encoder: Encoder) -> EncodedTexts | None:
    return None if folder is None else EncodedTexts(folder, encoder.name, encoder.fingerprint)


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
