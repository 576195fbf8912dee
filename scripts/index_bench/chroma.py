"""Chroma: a persistent client in the process, one collection with documents and metadata. Telemetry off."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index_bench.dataset import Dataset, K, Window
from index_bench.engine import LADDER, Efforts, folder_bytes


class Chroma:
    def __init__(self, folder: Path, m: int | None = None, ef_construction: int | None = None):
        import chromadb

        self._chromadb = chromadb
        self._folder = folder
        chosen = {"max_neighbors": m, "ef_construction": ef_construction}
        self._options = {name: value for name, value in chosen.items() if value is not None}

    def _client(self) -> Any:
        settings = self._chromadb.Settings(anonymized_telemetry=False)
        return self._chromadb.PersistentClient(str(self._folder), settings=settings)

    def build(self, data: Dataset) -> None:
        self._open_client = client = self._client()
        hnsw = {"space": "ip", "num_threads": 1, **self._options}
        collection = client.create_collection("rows", configuration={"hnsw": hnsw}, embedding_function=None)
        texts, bucket, topic = data.texts(), data.attributes["bucket"].tolist(), data.attributes["topic"].tolist()
        for part in data.batches(min(5000, client.get_max_batch_size())):
            collection.add(
                ids=[str(row) for row in range(part.start, part.stop)],
                embeddings=np.ascontiguousarray(data.vectors[part]),
                documents=texts[part],
                metadatas=[{"bucket": b, "topic": t} for b, t in zip(bucket[part], topic[part], strict=True)],
            )

    def open(self) -> None:
        self._open_client = self._client()
        self._collection = self._open_client.get_collection("rows", embedding_function=None)

    def strategies(self, column: str | None) -> dict[str, Efforts]:
        """A range is asked for as one, and as a list of the values in it."""
        return {"hnsw": LADDER, "hnsw, $in": LADDER} if column == "bucket" else {"hnsw": LADDER}

    def prepare(self, strategy: str, effort: int) -> None:
        """An index that is loaded keeps its ef_search: the client is opened anew."""
        self._as_list = strategy.endswith("$in")
        self._collection.modify(configuration={"hnsw": {"ef_search": effort}})
        self.close()
        self.open()

    def search(self, query: np.ndarray, window: Window | None) -> tuple[Sequence[int], Sequence[float]]:
        found = self._collection.query(
            query_embeddings=query[np.newaxis],
            n_results=K,
            where=None if window is None else _condition(window, self._as_list),
            include=["distances"],
        )
        return [int(row) for row in found["ids"][0]], [1 - distance for distance in found["distances"][0]]

    def texts(self, rows: Sequence[int]) -> list[str]:
        return list(self._collection.get(ids=[str(int(row)) for row in rows], include=["documents"])["documents"])

    def close(self) -> None:
        self._open_client.close()

    def processes(self) -> list[int]:
        return []

    def disk_bytes(self) -> int:
        return folder_bytes(self._folder)

    def versions(self) -> dict[str, str]:
        return {"chromadb": self._chromadb.__version__}


def _condition(window: Window, as_list: bool) -> dict[str, Any]:
    if window.high == window.low + 1:
        return {window.column: window.low}
    if as_list:
        return {window.column: {"$in": list(range(window.low, window.high))}}
    return {"$and": [{window.column: {"$gte": window.low}}, {window.column: {"$lt": window.high}}]}
