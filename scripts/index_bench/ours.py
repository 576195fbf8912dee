"""Ours: a collection's durable store, on which searches, permissions and filters are asked as the server asks them.

Documents of up to ten passages are written with text, words, attributes and vectors; upkeep runs until nothing
waits. The store tunes itself, on the training questions, recorded as if they had been asked. A search for ids
and scores is `CollectionStore.nearest`, which applies permissions and filters; looking the hits up in the
database, with the second check of permissions, is timed as the text fetch.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index_bench.dataset import WORKLOADS, Dataset, K, Window
from index_bench.engine import Efforts, folder_bytes

ENCODER = "all-MiniLM-L6-v2"
GROUP = 100  # documents a transaction: the ingestion writes as many as fill its batches


class Ours:
    def __init__(self, folder: Path):
        import faiss

        self._faiss = faiss.__version__
        self._path = folder / "collection" / "collection.db"
        self._store: Any = None

    def build(self, data: Dataset) -> None:
        from index.collection.database import create_database

        create_database(self._path, ENCODER, "benchmark", data.vectors.shape[1])
        self.open()
        group = []
        for document in documents(data):
            group.append(document)
            if len(group) == GROUP:
                self._store.write(group)
                group = []
        self._store.write(group)
        for question in data.queries(WORKLOADS[0], "tuning").vectors:
            self._store.record_query(question, self._store.generation)
        while self._store.maintain(lambda store: store.sample_vectors(200)):
            pass
        self._store.save_view()

    def open(self) -> None:
        from index.collection.live_view import InMemory
        from index.collection.store import CollectionStore
        from index.vectors.view import ViewOptions

        views = InMemory(lambda dimension: ViewOptions(dimension, device="cpu"))
        self._store = CollectionStore(self._path, views)

    @property
    def store(self) -> Any:
        """The `CollectionStore`, once it is open."""
        return self._store

    def strategies(self, column: str | None) -> dict[str, Efforts]:
        return {"tuned by itself": (0,)}

    def prepare(self, strategy: str, effort: int) -> None:
        pass

    def search(self, query: np.ndarray, window: Window | None) -> tuple[Sequence[int], Sequence[float]]:
        found = self._store.nearest(query, K, scope(window))
        return [one.passage_id - 1 for one in found], [one.score for one in found]

    def texts(self, rows: Sequence[int]) -> list[str]:
        from index.collection.scope import Candidate

        candidates = [Candidate(int(row) + 1, 0.0) for row in rows]
        return [hit.text for hit in self._store.consistent("benchmark", scope(None), lambda: candidates)]

    def close(self) -> None:
        if self._store is not None:
            self._store.close(snapshot=False)

    def processes(self) -> list[int]:
        return []

    def disk_bytes(self) -> int:
        return folder_bytes(self._path.parent)

    def versions(self) -> dict[str, str]:
        return {"local-llm": importlib.metadata.version("local-llm"), "faiss": self._faiss}


def scope(window: Window | None) -> Any:
    """The filter as the vector-store API has it, for an admin: no permission is asked of the others either."""
    from index.collection.filters import parse_filter
    from index.collection.scope import EVERYTHING, Scope

    if window is None:
        return EVERYTHING
    if window.high == window.low + 1:
        return Scope(None, parse_filter({"type": "eq", "key": window.column, "value": window.low}))
    bounds = (("gte", window.low), ("lt", window.high))
    filters = [{"type": kind, "key": window.column, "value": value} for kind, value in bounds]
    return Scope(None, parse_filter({"type": "and", "filters": filters}))


def documents(data: Dataset) -> Iterator[Any]:
    """The rows as documents, in order: the id of a passage is its row + 1."""
    texts, columns = data.texts(), data.attributes
    starts = np.flatnonzero(np.diff(columns["document"], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(texts)], strict=True):
        attributes = {name: int(columns[name][start]) for name in ("bucket", "topic")}
        vectors = np.ascontiguousarray(data.vectors[start:end])
        yield document(f"document-{start}", texts[start:end], vectors, attributes)


def document(name: str, sentences: list[str], vectors: np.ndarray, attributes: dict[str, int]) -> Any:
    """One passage for each sentence."""
    from index.collection.documents import Access, NewDocument
    from index.documents.parse import ParsedDocument
    from index.documents.split import Passage

    text = "\n".join(sentences)
    ends = np.cumsum([len(sentence) + 1 for sentence in sentences]) - 1
    return NewDocument(
        name=name,
        filename=name,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        parsed=ParsedDocument(name, text, (), "text/plain"),
        passages=[
            Passage(int(end) - len(sentence), int(end), None, "", sentence, len(sentence) // 5)
            for end, sentence in zip(ends, sentences, strict=True)
        ],
        vectors=vectors,
        access=Access(None, attributes),
        splitting={},
    )
