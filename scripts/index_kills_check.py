"""What has to be true of a collection whose server was killed: counted, fault by fault."""

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from index_kills_load import PRINCIPALS, Journal, Stored

from index.collection.filters import parse_filter
from index.collection.live_view import InMemory
from index.collection.scope import EVERYTHING, Scope
from index.collection.store import CollectionStore
from index.interface import DocumentInfo
from index.vectors.view import ViewOptions

EVERY = 10**6
QUERIES = 50
LEAST_RECALL = 0.9


class Check:
    """One look at a collection. `faults` counts what is wrong, `notes` says the first of each kind."""

    def __init__(self, database: Path, structure: Any, journals: list[Journal], rng: random.Random):
        self._database, self._journals, self._random = database, journals, rng
        self._structure = structure
        self.faults: Counter[str] = Counter()
        self.notes: dict[str, str] = {}
        self.documents = self.unacknowledged_kept = 0
        self.recall = 1.0
        self.structure = ""
        self.opening_seconds = 0.0

    def run(self) -> None:
        views = InMemory(lambda dimension: ViewOptions(dimension, device="cpu", structure=self._structure))
        started = time.monotonic()
        store = CollectionStore(self._database, views)
        self.opening_seconds = time.monotonic() - started
        try:
            if self._random.random() < 0.3:  # else the next server has to build what this one would find built
                while store.maintain(lambda store: store.sample_vectors(QUERIES)):
                    pass
                store.save_view()
            there = self._settled(store)
            ids = self._passages()
            self._views(store, ids)
            self._permissions(store, there)
            self._words(there)
        finally:
            store.close(snapshot=False)

    def _fault(self, kind: str, note: str) -> None:
        self.faults[kind] += 1
        self.notes.setdefault(kind, note)

    # Documents

    def _settled(self, store: CollectionStore) -> dict[str, tuple[Stored, DocumentInfo]]:
        """Every document against what was acknowledged; a change in flight has happened or has not."""
        infos = {info.name: info for info in store.documents(None)}
        texts = {name: store.document(info.id, None, None).text for name, info in infos.items()}
        there: dict[str, tuple[Stored, DocumentInfo]] = {}
        expected: set[str] = set()
        for journal in self._journals:
            happened = [
                same(texts.get(name), infos.get(name), stored) for name, stored in journal.in_flight.items()
            ]
            if journal.whole and any(happened) and not all(happened):
                self._fault("torn", f"of {list(journal.in_flight)} only some: {happened}")
            for (name, stored), did in zip(list(journal.in_flight.items()), happened, strict=True):
                if did:
                    journal.learn(name, stored)
                    self.unacknowledged_kept += 1
            journal.in_flight = {}
            for name, stored in journal.acknowledged.items():
                if not same(texts.get(name), infos.get(name), stored):
                    kind = "lost" if stored is not None else "phantom"
                    self._fault(kind, f"{name}: expected {stored}, found {infos.get(name)}")
                elif stored is not None:
                    there[name] = (stored, infos[name])
                expected.add(name)
        for name in infos.keys() - expected:
            self._fault("phantom", name)
        self.documents = len(infos)
        return there

    # Passages and vectors

    def _passages(self) -> dict[int, str]:
        with self._sqlite() as connection:
            for check in ("PRAGMA integrity_check", "PRAGMA foreign_key_check"):
                for row in connection.execute(check):
                    if row[0] != "ok":
                        self._fault("database", str(row))
            connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
            rows = connection.execute("SELECT p.id, name FROM passages AS p JOIN documents ON number = document")
            return dict(rows.fetchall())

    def _views(self, store: CollectionStore, passages: dict[int, str]) -> None:
        if store.generation.dimension is None:
            return
        ids, vectors = self._vectors(store.generation.number)
        if sorted(ids) != sorted(passages):
            self._fault("lost", "passages without vectors, or vectors without passages")
        found = [one.passage_id for one in store.nearest(vectors[0], EVERY, EVERYTHING)] if ids else []
        if len(found) != len(set(found)):
            self._fault("duplicate", f"{len(found)} candidates of {len(set(found))} passages")
        for identifier in set(found) ^ set(ids):
            self._fault("phantom" if identifier in found else "lost", f"passage {identifier} in the view")
        for identifier, vector in zip(ids, vectors, strict=True):
            best = store.nearest(vector, 1, EVERYTHING)
            if [one.passage_id for one in best] != [identifier]:
                self._fault("not itself", f"passage {identifier} of {passages.get(identifier)} finds {best}")
        self.recall = recall_of(store, np.array(ids), vectors)
        if self.recall < LEAST_RECALL:
            self._fault("recall", f"{self.recall}")
        stats = store.view_stats()
        self.structure = stats.structure if stats else ""

    def _vectors(self, generation: int) -> tuple[list[int], np.ndarray]:
        with self._sqlite() as connection:
            rows = connection.execute(
                f"""SELECT first_passage, passages, vectors FROM documents
                JOIN vectors_{generation} ON document = number ORDER BY first_passage"""
            ).fetchall()
        ids = [first + at for first, count, _ in rows for at in range(count)]
        joined = np.frombuffer(b"".join(row[2] for row in rows), "<f4")
        return ids, joined.reshape(len(ids), -1) if ids else joined.reshape(0, 1)

    # Permissions and words

    def _permissions(self, store: CollectionStore, there: dict[str, tuple[Stored, DocumentInfo]]) -> None:
        if store.generation.dimension is None:
            return
        query = np.eye(1, store.generation.dimension, dtype=np.float32)[0]
        for _ in range(8):
            principals = tuple(self._random.sample(PRINCIPALS, self._random.choice([0, 1, 2])))
            key, value = self._random.choice([("year", 1), ("open", True), ("open", 1), ("year", 2021.5)])
            scope = Scope(principals, parse_filter({"type": "eq", "key": key, "value": value}))
            found = {hit.document for hit in store.search("c", query, EVERY, scope)}
            allowed = {name for name, (stored, _) in there.items() if scope.admits(stored.allow, stored.attributes)}
            for name in found ^ allowed:
                self._fault("permission", f"{name} for {scope}: found {name in found}")

    def _words(self, there: dict[str, tuple[Stored, DocumentInfo]]) -> None:
        """The full-text table has no content of its own: a word left behind would be a passage that never goes."""
        with self._sqlite() as connection:
            rows = {row[0] for row in connection.execute("SELECT id FROM words_docsize")}
            passages = {row[0] for row in connection.execute("SELECT id FROM passages")}
            for identifier in rows ^ passages:
                self._fault("words", f"passage {identifier}: with words {identifier in rows}")
            for name, (stored, info) in self._random.sample(sorted(there.items()), min(200, len(there))):
                found = [
                    row[0]
                    for row in connection.execute(
                        """SELECT name FROM words JOIN passages AS p ON p.id = words.rowid
                    JOIN documents ON number = document WHERE words MATCH ?""",
                        (stored.serial,),
                    )
                ]
                if set(found) != {info.name} or len(found) > info.passages:
                    self._fault("words", f"{stored.serial} of {name} finds {found}")
            for serial in [serial for journal in self._journals for serial in journal.gone[-50:]]:
                if connection.execute("SELECT 1 FROM words WHERE words MATCH ?", (serial,)).fetchall():
                    self._fault("words", f"{serial} of a version that is gone is found")

    @contextmanager
    def _sqlite(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._database)) as connection:
            yield connection


def same(text: str | None, info: DocumentInfo | None, stored: Stored | None) -> bool:
    if stored is None or info is None or text is None:
        return stored is None and info is None
    return (text, info.allow, repr(sorted(info.attributes.items()))) == (
        stored.text,
        stored.allow,
        repr(sorted(stored.attributes.items())),
    )


def recall_of(store: CollectionStore, ids: np.ndarray, vectors: np.ndarray) -> float:
    """recall@10 of searches against scoring every stored vector here."""
    if not len(ids):
        return 1.0
    queries = np.random.default_rng(len(ids)).standard_normal((QUERIES, vectors.shape[1])).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    shares = []
    for query, scores in zip(queries, queries @ vectors.T, strict=True):
        best = set(ids[np.argsort(-scores)[:10]].tolist())
        found = {one.passage_id for one in store.nearest(query, 10, EVERYTHING)}
        shares.append(len(best & found) / len(best))
    return float(np.mean(shares))
