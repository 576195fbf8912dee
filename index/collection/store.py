"""One collection: its database of documents and passages, and the views of it that searches are made in.

The database is the truth. A document changes in one transaction, and the catalog and the vectors follow under the
same lock before the change is acknowledged. Searches take no lock: what they find in the views is looked up in the
database before it leaves, and a search that met a change in the making is made again.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from sqlite3 import Connection

import numpy as np

from index.collection import documents as rows
from index.collection.attachments import Attachments
from index.collection.attributes import Scalar, checked_text
from index.collection.catalog import Catalog
from index.collection.database import Database, to_json
from index.collection.documents import Access, Counts, Ids, NewDocument, StoredDocument, Vectors, Written
from index.collection.live_view import Generation, catch_up, snapshot_folder
from index.collection.next_generation import NextGeneration
from index.collection.scope import Candidate, Scope
from index.collection.storage_errors import of_disk, read_back
from index.collection.views import Views
from index.collection.words import Words
from index.interface import DocumentInfo, DocumentText, Hit, Record, StoredPassage
from index.vectors.interface import View
from index.vectors.rows import checked_vectors
from index.vectors.view import Built, ViewStats
from local_llm.errors import ConflictError, InvalidInputError, LocalLLMError
from local_llm.permissions import Principals

# A search that meets changes again and again is made while there can be none.
ATTEMPTS = 3
MOST_RECORDED_QUERIES = 1000

# The view is measured with recorded queries once there are so many, and again when they have grown by half.
ENOUGH_QUERIES = 50
GROWN = 1.5


@dataclass(frozen=True)
class SnapshotPolicy:
    """A snapshot is written anew once so many passages came or went since the last, and this share of them all."""

    passages: int = 2000
    share: float = 0.05


@dataclass(frozen=True)
class _Active:
    """What searches are made in. One object, as whoever sees the one half must see the other."""

    generation: Generation
    view: View | None  # None while there is no vector


Sample = Callable[["CollectionStore"], Vectors]
"""Queries made from what a collection stores: float32 [queries, dimension], rows of length 1."""


class CollectionStore:
    """An open collection. Its methods may be called from several threads at once."""

    def __init__(self, path: Path, views: Views, snapshots: SnapshotPolicy | None = None):
        self._database = Database(path)
        self.attachments = Attachments(self._database)
        self._views = views
        self._snapshots = snapshots or SnapshotPolicy()
        self._words = Words(self._database)
        self._upkeep = threading.Lock()  # held by whoever maintains, or closes
        self._moving = threading.Lock()
        try:
            with read_back(path):
                self._catalog = Catalog(self._database.iterate("SELECT number, allow FROM documents"), self._column)
                self._active = self._opened(self._active_generation())
        except BaseException:
            self._database.close()
            raise
        self._replacements = 0  # counted when new versions are in the view and before old ones leave it
        self._changed = 0  # passages that came or went since the last snapshot
        self._closed = False
        self._recorded = self._database.read("SELECT count(*) AS queries FROM recorded_queries")[0]["queries"]
        self._measured_queries = self._recorded  # recorded when the view was last measured with them
        self._asked: deque[tuple[Generation, Vectors]] = deque(maxlen=MOST_RECORDED_QUERIES)

    def close(self, *, snapshot: bool = True) -> None:
        """Leaves a snapshot behind if the last one is out of date, unless told not to."""
        self.leave()  # else a fill of Milvus would be waited for to its end
        with self._upkeep, self._database.lock:
            if self._closed:
                return
            self._closed = True
            try:
                if snapshot:
                    self._write_recorded()
                    if self._changed:
                        self.save_view()
            finally:
                self._database.close()

    def leave(self) -> None:
        """It is about to be closed: upkeep that can wait for the next opening ends soon. Waits for nobody."""
        self._views.leave(self._database)

    @property
    def generation(self) -> Generation:
        return self._active.generation

    # Writing

    def write(self, documents: Sequence[NewDocument], fingerprint: str | None = None) -> list[bool]:
        """Adds documents, or replaces those of their names: each new version whole, nothing of the old one left.

        `fingerprint`: of the encoder that made the vectors, unless the collection has none.

        Returns: for each, whether it replaced one.

        Raises: IntegrityError if a passage lies outside its text; InvalidInputError for vectors that are none of
        this collection; ConflictError if it has moved to another encoder; OutOfSpaceError. Nothing has changed
        then.
        """
        if not documents:
            return []
        with self._database.lock:
            self._refuse_other_encoder(fingerprint)
            dimension = self.generation.dimension or documents[0].vectors.shape[-1]
            documents = [_checked(document, dimension) for document in documents]
            with self._database.transaction() as connection:
                self._learn_dimension(connection, dimension)
                written = [self._write(connection, document) for document in documents]
            self._follow(written)
        return [one.replaced for one in written]

    def update_if_unchanged(self, name: str, sha256: str, splitting: dict[str, int], access: Access) -> bool:
        """If the document has this content, split like this, gives it this access and returns True."""
        with self._database.lock:
            old = rows.find(self._database, name)
            if old is None or (old.sha256, old.splitting) != (sha256, splitting):
                return False
            self._set_access(old, access)
            return True

    def set_access(self, name: str, access: Access, principals: Principals) -> None:
        """Raises: NotFoundError."""
        with self._database.lock:
            self._set_access(rows.find_visible(self._database, [name], principals)[0], access)

    def remove(self, names: Sequence[str], principals: Principals) -> int:
        """Removes documents, all or none.

        Raises: NotFoundError naming those that are not there or not visible.
        """
        with self._database.lock:
            gone = rows.find_visible(self._database, names, principals)
            with self._database.transaction() as connection:
                for document in gone:
                    rows.delete_document(connection, document)
            self._words.forget(document.number for document in gone)
            for document in gone:
                self._catalog.drop(document.number)
                self._forget(document.passage_ids)
        return len(gone)

    def remove_unchanged(self, found: Sequence[DocumentInfo], principals: Principals) -> int:
        """Removes those that are still there as they were found, all or none; returns how many."""
        with self._database.lock:
            there = {one.id: one.version for one in self.documents(principals)}
            return self.remove([one.name for one in found if there.get(one.id) == one.version], principals)

    def remove_matching(self, scope: Scope, names: Sequence[str] | None) -> int:
        """Removes what records() would return, and nothing that comes meanwhile."""
        with self._database.lock:
            found = rows.names(self._database, self._numbers(scope, names), scope)
            return self.remove(found, scope.principals)

    def detach(self, file_ids: Sequence[str]) -> None:
        """Removes uploads that were attached, and what was made of them."""
        with self._database.lock:
            self.attachments.remove(file_ids)
            made = [name for file_id in file_ids for name in self.names_of_file(file_id)]
            if made:
                self.remove(made, None)

    # Searching

    def nearest(self, query: Vectors, k: int, scope: Scope) -> list[Candidate]:
        """The k passages whose vectors are nearest to the query's (float32 [dimension]), by cosine, best first."""
        view = self._view
        if view is None or view.dimension != len(query):  # of a generation that was just left
            return []
        allowed = self._catalog.allowed(scope.principals, scope.filter)
        scores, ids = view.search(query.reshape(1, -1), k, allowed)
        return [
            Candidate(identifier, score)
            for identifier, score in zip(ids[0].tolist(), scores[0].tolist(), strict=True)
            if identifier >= 0
        ]

    def matching(self, text: str, k: int, scope: Scope) -> list[Candidate]:
        """The k passages that match the words of a text best, by BM25 among the passages within the scope."""
        return self._words.best(text, k, self._catalog.allowed(scope.principals, scope.filter))

    def search(self, collection: str, query: Vectors, k: int, scope: Scope) -> list[Hit]:
        """query: float32 [dimension]. Only passages within the scope are ranked."""
        return self.consistent(collection, scope, lambda: self.nearest(query, k, scope))

    def consistent(self, collection: str, scope: Scope, find: Callable[[], list[Candidate]]) -> list[Hit]:
        """What `find` finds, as the database has it. If it has something else by now, `find` is asked again."""
        for _ in range(ATTEMPTS):
            replacements = self._replacements
            candidates = find()
            hits = self.current(collection, candidates, scope)
            # A view that looked at what came before a replacement, and at what lives after it, saw neither version.
            if len(hits) == len(candidates) and replacements == self._replacements:
                return hits
        with self._database.lock:
            return self.current(collection, find(), scope)

    def current(self, collection: str, candidates: Sequence[Candidate], scope: Scope) -> list[Hit]:
        """Those of the candidates that the database has within the scope, as it has them, in their order."""
        found = rows.hit_rows(self._database, [one.passage_id for one in candidates], scope)
        return [
            Hit(collection=collection, score=one.score, **found[one.passage_id])
            for one in candidates
            if one.passage_id in found
        ]

    def text_between(self, passage_id: int, start: int, end: int) -> str | None:
        """Characters [start, end) of the text that this passage is of; None if there is no such passage."""
        return rows.text_between(self._database, passage_id, start, end)

    def record_query(self, query: Vectors, generation: Generation) -> None:
        """Remembers a question's vector for measuring; on the disk with the next maintenance.

        `generation`: the one that the vector was made for.
        """
        if query.shape == (generation.dimension,):
            self._asked.append((generation, query))

    # Reading

    def find(self, name: str) -> StoredDocument | None:
        return rows.find(self._database, name)

    def name_of(self, document_id: str) -> str | None:
        found = self._database.read("SELECT name FROM documents WHERE id = :id", id=document_id)
        return found[0]["name"] if found else None

    def file_id_of(self, name: str) -> str | None:
        found = self._database.read("SELECT file_id FROM documents WHERE name = :name", name=name)
        return found[0]["file_id"] if found else None

    def names_of_file(self, file_id: str) -> list[str]:
        """Of the document that was made of this upload, if there is one."""
        found = self._database.read("SELECT name FROM documents WHERE file_id = :file_id", file_id=file_id)
        return [row["name"] for row in found]

    def some_names(self, limit: int) -> list[str]:
        return [row["name"] for row in self._database.read("SELECT name FROM documents LIMIT :limit", limit=limit)]

    def documents(self, principals: Principals) -> list[DocumentInfo]:
        return rows.infos(self._database, principals)

    def document(self, identifier: str, version: int | None, principals: Principals) -> DocumentText:
        """Raises: NotFoundError if it is not there, not visible, or of another version."""
        return rows.text_of(self._database, identifier, version, principals)

    def current_versions(
        self, versions: Sequence[tuple[str, int]], principals: Principals
    ) -> list[tuple[str, int]]:
        """Those of the documents, as (id, version), that are there in that version and visible."""
        return rows.current_versions(self._database, versions, principals)

    def records(self, scope: Scope, names: Sequence[str] | None) -> list[Record]:
        """The documents of these names (None: of any) that are within the scope, in the order of their numbers."""
        return rows.records(self._database, self._numbers(scope, names), scope)

    def passages_after(self, passage_id: int, limit: int, principals: Principals) -> list[StoredPassage]:
        """Of visible documents, with ids above `passage_id`, by their ids: as they are encoded."""
        return rows.passages_after(self._database, passage_id, limit, principals)

    def encoded(self, document: StoredDocument) -> dict[str, Vectors]:
        """What was encoded of a document, with its vectors: equal text need not be encoded again.

        Nothing if another version has taken its place.
        """
        with self._database.one_commit():
            now = rows.find(self._database, document.name)
            if now is None or (now.id, now.version) != (document.id, document.version):
                return {}
            vectors = rows.vectors_of(self._database, self.generation.number, now.number, now.passages)
            if vectors is None:
                return {}
            return dict(zip(rows.encoded_passages(self._database, now.number), vectors, strict=True))

    def counts(self, principals: Principals) -> Counts:
        return rows.counts(self._database, principals)

    def view_stats(self) -> ViewStats | None:
        """None while there is no vector."""
        return None if self._view is None else self._view.stats()

    def bytes(self) -> int:
        """On the disk."""
        return self._database.bytes() + self._views.bytes(self._database, self.generation.number)

    # Upkeep

    def maintain(self, sample: Sample) -> bool:
        """One step of what can wait. Returns: whether more is left. Searches and changes go on meanwhile.

        `sample` makes queries from what is stored, to measure with as long as none were asked.
        """
        with self._upkeep:
            if self._closed:
                return False
            with self._database.lock:
                self._write_recorded()
            if self._view is not None and self._view.maintain():
                return True
            self._measure(sample)
            if self._snapshot_is_old():
                self.save_view()
            return False

    def take_built(self) -> list[Built]:
        """What maintain() and adopt() built since this was asked last."""
        return [] if self._view is None else self._view.take_built()

    def save_view(self) -> None:
        """Writes a snapshot: the next opening reads it instead of all vectors.

        Raises: OutOfSpaceError and whatever else the disk has to say; the snapshot before stays then.
        """
        with self._database.lock:  # else the view of one generation could become the snapshot of the next
            view, folder = self._view, snapshot_folder(self._database, self.generation.number)
            changed, self._changed = self._changed, 0
        if view is None:
            return
        try:
            view.save(folder)
        except BaseException as error:
            with self._database.lock:
                self._changed += max(1, changed)
            if isinstance(error, OSError):
                raise of_disk(error, folder) from error
            raise

    # Another encoder

    @contextmanager
    def moving(self) -> Iterator[None]:
        """For the block, nobody else moves the collection to another encoder. Raises: ConflictError."""
        if not self._moving.acquire(blocking=False):
            raise ConflictError(
                f"the collection {self._database.path.parent.name} is moving to another encoder already",
                hint="wait for it to finish",
            )
        try:
            yield
        finally:
            self._moving.release()

    def begin_generation(self, encoder: str, fingerprint: str) -> NextGeneration:
        return NextGeneration(self._database, encoder, fingerprint)

    def adopt(self, following: NextGeneration, complete: Callable[[], None]) -> None:
        """Has searches use another generation from now on, and drops the one before.

        Its vectors are read and its structure built beside the old ones, while searches go on; what changes
        meanwhile is encoded by `complete` while nothing can change.
        """
        view = self._view_of(following.number, following.dimension)
        while view is not None and view.maintain():
            pass
        with self._database.lock:
            complete()
            view = self._caught_up(view, following)
            with self._database.transaction() as connection:
                connection.execute("UPDATE generations SET active = 0 WHERE active")
                connection.execute("UPDATE generations SET active = 1 WHERE number = ?", (following.number,))
                connection.execute(f"DROP TABLE vectors_{self.generation.number}")
                connection.execute("DELETE FROM generations WHERE NOT active")
                connection.execute("DELETE FROM recorded_queries")
            self._asked.clear()
            self._active = _Active(self._active_generation(), view)
            self._recorded = self._measured_queries = 0
            with suppress(LocalLLMError):  # adopted it is; upkeep tries again to write the snapshot
                self.save_view()
            with suppress(LocalLLMError):  # out of reach: it is dropped with the next, or with the collection
                self._views.drop(self._database, but=self.generation.number)

    def _opened(self, generation: Generation) -> "_Active":
        return _Active(generation, self._view_of(generation.number, generation.dimension))

    def _caught_up(self, view: View | None, following: NextGeneration) -> View | None:
        dimension = following.dimension
        if view is None or dimension is None:
            return self._view_of(following.number, dimension)
        live = catch_up(view, self._database, following.number, dimension)
        # A document that was replaced while the others were encoded can have come behind what the view begins with.
        whole = np.array_equal(view.ids(), live.ids)
        return view if whole else self._view_of(following.number, dimension)

    def _view_of(self, generation: int, dimension: int | None) -> View | None:
        """None while there is no vector."""
        return None if dimension is None else self._views.open(self._database, generation, dimension)

    # Below the surface

    @property
    def _view(self) -> View | None:
        return self._active.view

    def _numbers(self, scope: Scope, names: Sequence[str] | None) -> list[int] | None:
        """Of the documents that may be within the scope; None: any."""
        if names is not None:
            return rows.named(self._database, names)
        mask = self._catalog.allowed(scope.principals, scope.filter)
        return None if mask is None else np.flatnonzero(mask).tolist()

    def _active_generation(self) -> Generation:
        found = self._database.read("SELECT number, encoder, fingerprint, dimension FROM generations WHERE active")
        return Generation(**found[0])

    def _column(self, key: str) -> Iterator[tuple[int, Scalar]]:
        # Read by Python, as hits are: SQLite rounds some numbers and cuts some texts differently.
        query = "SELECT number, attributes FROM documents WHERE instr(attributes, :key)"
        for number, attributes in self._database.iterate(query, key=f"{to_json(key)}: "):
            value = json.loads(attributes).get(key)
            if value is not None:
                yield number, value

    def _refuse_other_encoder(self, fingerprint: str | None) -> None:
        """A move to another encoder can end between encoding and writing; vectors do not tell whose they are."""
        if fingerprint is not None and fingerprint != self.generation.fingerprint:
            raise ConflictError(
                f"the collection {self._database.path.parent.name} has moved to the encoder "
                f"{self.generation.encoder!r} meanwhile",
                hint="try again",
            )

    def _learn_dimension(self, connection: Connection, dimension: int) -> None:
        if self.generation.dimension is None:
            values = (dimension, self.generation.number)
            connection.execute("UPDATE generations SET dimension = ? WHERE number = ?", values)

    def _write(self, connection: Connection, document: NewDocument) -> Written:
        old = rows.find(self._database, document.name)
        written = rows.write_document(connection, document, old, rows.next_passage(connection))
        rows.write_vectors(connection, self.generation.number, written.number, document.vectors)
        return written

    def _follow(self, written: Sequence[Written]) -> None:
        """Brings the views to where the database is. New passages come before old ones go."""
        for one in written:
            self._catalog.put(one.number, one.allow_json, one.attributes)
        if self._view is None:
            self._active = self._opened(self._active_generation())
            return
        self._view.add(
            np.concatenate([one.passages for one in written]),
            np.concatenate([np.full(len(one.passages), one.number) for one in written]),
            np.concatenate([one.vectors for one in written]),
        )
        self._changed += sum(len(one.passages) for one in written)
        self._replacements += any(one.replaced for one in written)
        self._forget(np.concatenate([one.old_passages for one in written]))

    def _forget(self, passages: Ids) -> None:
        if self._view is not None and len(passages):
            self._view.remove(passages)
            self._changed += len(passages)

    def _set_access(self, old: StoredDocument, access: Access) -> None:
        allow, attributes = access.over(old)
        values = to_json(allow), to_json(attributes)
        if values == (to_json(old.allow), to_json(old.attributes)):  # as JSON: to Python, True is 1
            return
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE documents SET allow = ?, attributes = ? WHERE number = ?",
                (*values, old.number),
            )
            connection.execute(
                """UPDATE attachments SET allow = ?, attributes = ?
                WHERE file_id = (SELECT file_id FROM documents WHERE number = ?)""",
                (*values, old.number),
            )
        self._catalog.put(old.number, values[0], attributes)

    def _write_recorded(self) -> None:
        waiting = [self._asked.popleft() for _ in range(len(self._asked))]
        asked = [vector for generation, vector in waiting if generation == self.generation]
        if not asked:
            return
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO recorded_queries (vector) VALUES (?)",
                [(np.ascontiguousarray(vector, "<f4").tobytes(),) for vector in asked],
            )
            connection.execute(
                "DELETE FROM recorded_queries WHERE id <= (SELECT max(id) FROM recorded_queries) - ?",
                (MOST_RECORDED_QUERIES,),
            )
        self._recorded = min(self._recorded + len(asked), MOST_RECORDED_QUERIES)

    def _measure(self, sample: Sample) -> None:
        """Gives a view that approximates queries to be tuned with: better ones as soon as there are."""
        view = self._view
        if view is None or view.stats().effort is None:  # exact: there is nothing to tune
            return
        if self._recorded >= ENOUGH_QUERIES and (
            view.questions_source != "queries" or self._recorded >= GROWN * self._measured_queries
        ):
            self._measured_queries = self._recorded
            view.measure(self._recorded_queries(), "queries")
        elif view.questions_source is None:
            view.measure(sample(self), "passages")
        else:
            return
        self._changed += 1  # the snapshot has another effort

    def _recorded_queries(self) -> Vectors:
        rows_ = self._database.read("SELECT vector FROM recorded_queries ORDER BY id DESC")
        return np.array([np.frombuffer(row["vector"], "<f4") for row in rows_], np.float32)

    def sample_passages(self, count: int) -> list[str]:
        """Texts of passages from all over the collection, the same each time."""
        return rows.spread_texts(self._database, count)

    def sample_vectors(self, count: int) -> Vectors:
        """float32 [<= count, dimension]: vectors from all over the collection, the same each time."""
        return rows.spread_vectors(self._database, self.generation.number, count)

    def _snapshot_is_old(self) -> bool:
        stats = self.view_stats()
        return stats is not None and self._changed > max(
            self._snapshots.passages, self._snapshots.share * stats.rows
        )


def _checked(document: NewDocument, dimension: int) -> NewDocument:
    """As it is to be stored: names that the database keeps, vectors of length 1 as exactly as numbers have it.

    Whatever is stored has to be taken by the view, which looks as closely: not even a rounding error may come
    between, or a document would be there and never be found.
    """
    for text, what in ((document.name, "the name"), (document.filename, "the file name")):
        checked_text(text, f"{what} of a document", "name")
    vectors = checked_vectors(document.vectors, dimension, f"vectors of {document.name}")
    if len(vectors) != len(document.passages):
        raise InvalidInputError(
            f"{document.name}: {len(vectors)} vectors for {len(document.passages)} passages", param="vector"
        )
    return replace(document, vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
