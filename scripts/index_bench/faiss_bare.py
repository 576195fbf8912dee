"""Bare FAISS: nothing durable, no filter, no text. The floor of latency for a structure.

"ivf" is the structure that ours uses (index/vectors/inverted_lists.py): inverted lists with 4-bit codes of four
dimensions, and candidates re-scored on the whole vectors; "hnsw" is what most of the peers use.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index_bench.dataset import Dataset, K, Window
from index_bench.engine import LADDER, NPROBES, Efforts, folder_bytes

# Candidates that are re-scored, as a multiple of the ten wanted.
REFINE = (2, 4, 8, 16)
TRAINING_ROWS_A_LIST = 64


class BareFaiss:
    def __init__(self, folder: Path, kind: str):
        import faiss

        self._faiss = faiss
        self._folder = folder
        self._kind = kind
        faiss.omp_set_num_threads(1)

    def build(self, data: Dataset) -> None:
        rows, dimension = data.vectors.shape
        lists = 2 ** round(np.log2(4 * rows**0.5))
        factory = {"ivf": f"IVF{lists},PQ{dimension // 4}x4fs,RFlat", "hnsw": "HNSW32"}[self._kind]
        index = self._faiss.index_factory(dimension, factory, self._faiss.METRIC_INNER_PRODUCT)
        if self._kind == "hnsw":
            index.hnsw.efConstruction = 100
        else:
            sample = np.random.default_rng(0).permutation(rows)[: lists * TRAINING_ROWS_A_LIST]
            index.train(data.vectors[np.sort(sample)])
        for part in data.batches(10_000):
            index.add(np.ascontiguousarray(data.vectors[part]))
        self._faiss.write_index(index, str(self._folder / "index.faiss"))

    def open(self) -> None:
        self._index = self._faiss.read_index(str(self._folder / "index.faiss"))

    def strategies(self, column: str | None) -> dict[str, Efforts]:
        if column:
            return {}
        return {"hnsw": LADDER} if self._kind == "hnsw" else {f"ivf refined {n}": NPROBES for n in REFINE}

    def prepare(self, strategy: str, effort: int) -> None:
        self._parameters: Any
        if strategy == "hnsw":
            self._parameters = self._faiss.SearchParametersHNSW(efSearch=effort)
        else:
            self._parameters = self._faiss.IndexRefineSearchParameters(
                k_factor=int(strategy.rpartition(" ")[2]),
                base_index_params=self._faiss.SearchParametersIVF(nprobe=effort),
            )

    def search(self, query: np.ndarray, window: Window | None) -> tuple[Sequence[int], Sequence[float]]:
        scores, rows = self._index.search(query[np.newaxis], K, params=self._parameters)
        return rows[0], scores[0]

    def texts(self, rows: Sequence[int]) -> list[str]:
        return []

    def close(self) -> None:
        pass

    def processes(self) -> list[int]:
        return []

    def disk_bytes(self) -> int:
        return folder_bytes(self._folder)

    def versions(self) -> dict[str, str]:
        return {"faiss": self._faiss.__version__}
