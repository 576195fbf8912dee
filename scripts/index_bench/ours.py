"""Ours: the view of a collection's vectors, opened from its snapshot, with filters as a mask over documents."""

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index_bench.dataset import WORKLOADS, Dataset, K, Window
from index_bench.engine import Efforts, folder_bytes


class Ours:
    def __init__(self, folder: Path):
        import faiss
        from index.vectors.view import VectorView, ViewOptions

        faiss.omp_set_num_threads(1)
        self._folder = folder
        self._view_of, self._options_of = VectorView, ViewOptions

    def build(self, data: Dataset) -> None:
        options = self._options_of(data.vectors.shape[1], device="cpu")
        view = self._view_of(options)
        documents = data.attributes["document"]
        for part in data.batches(10_000):
            ids = np.arange(part.start, part.stop)
            view.add(ids, documents[part].astype(np.int32), np.ascontiguousarray(data.vectors[part]))
        while view.maintain():
            pass
        view.measure(data.queries(WORKLOADS[0], "tuning").vectors, "queries")
        view.save(self._folder / "view")
        _, firsts = np.unique(documents, return_index=True)
        columns = {name: data.attributes[name][firsts] for name in ("bucket", "topic")}
        np.savez(self._folder / "documents.npz", dimension=data.vectors.shape[1], **columns)

    def open(self) -> None:
        with np.load(self._folder / "documents.npz") as arrays:
            self._columns = {name: arrays[name] for name in ("bucket", "topic")}
            options = self._options_of(int(arrays["dimension"]), device="cpu")
        self._view = self._view_of.open(self._folder / "view", options)
        assert self._view is not None

    def strategies(self, column: str | None) -> dict[str, Efforts]:
        return {"tuned by itself": (0,)}

    def prepare(self, strategy: str, effort: int) -> None:
        pass

    def search(self, query: np.ndarray, window: Window | None) -> tuple[Sequence[int], Sequence[float]]:
        allowed = None
        if window is not None:
            values = self._columns[window.column]
            allowed = (values >= window.low) & (values < window.high)
        scores, ids = self._view.search(query[np.newaxis], K, allowed)
        return ids[0], scores[0]

    def texts(self, rows: Sequence[int]) -> list[str]:
        return []

    def close(self) -> None:
        pass

    def processes(self) -> list[int]:
        return []

    def disk_bytes(self) -> int:
        return folder_bytes(self._folder)

    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version()}
