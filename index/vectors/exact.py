"""Which passages are nearest: the home of FAISS.

An exact view over normalised vectors, made from a collection's database when it is opened. Nothing is saved
here: FAISS never calls fsync, and a view that can be rebuilt need not be repaired.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Ids = NDArray[np.int64]

# Source: GpuIndex's limit on k, faiss/gpu/utils/DeviceDefs.cuh.
GPU_MAX_K = 2048


class VectorIndex:
    """Vectors of one dimension under integer ids. `device` "cpu" keeps searches off a GPU that is there."""

    def __init__(self, device: str):
        import faiss

        self._faiss = faiss
        self._index: Any = None  # made by the first vectors, which bring the dimension
        self._gpu = _gpu_resources(faiss) if device != "cpu" else None
        self._gpu_copy: Any = None

    def __len__(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    def add(self, ids: Ids, vectors: Rows) -> None:
        """vectors: float32 [ids, dimension], rows of length 1; no id is there yet."""
        if self._index is None:
            self._index = self._faiss.IndexIDMap2(self._faiss.IndexFlatIP(vectors.shape[1]))
        self._index.add_with_ids(np.ascontiguousarray(vectors), ids)
        self._gpu_copy = None

    def remove(self, ids: Ids) -> None:
        """Ids that are not there are passed over."""
        if len(ids) and len(self):
            self._index.remove_ids(ids)
            self._gpu_copy = None

    def search(self, queries: Rows, k: int, allowed: Ids | None = None) -> tuple[Rows, Ids]:
        """The k nearest of the ids that are `allowed` (None: of all), best first.

        Returns: scores float32 [queries, found] and ids int64 [queries, found], found <= k.
        """
        visible = len(self) if allowed is None else len(allowed)
        if min(visible, k) == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self._gpu is not None:
            return self._search_gpu(queries, min(k, visible, GPU_MAX_K), allowed)
        selector = None if allowed is None else self._faiss.IDSelectorBatch(allowed)
        parameters = self._faiss.SearchParameters(sel=selector) if selector else None
        return self._index.search(queries, min(k, visible), params=parameters)

    def _search_gpu(self, queries: Rows, k: int, allowed: Ids | None) -> tuple[Rows, Ids]:
        # GPU indexes ignore an IDSelector without a word (faiss wiki, "Setting search parameters for one
        # query"): the allowed rows are gathered and searched by themselves.
        if allowed is not None:
            rows = self._index.reconstruct_batch(allowed)
            metric = self._faiss.METRIC_INNER_PRODUCT
            scores, positions = self._faiss.knn_gpu(self._gpu, queries, rows, k, metric=metric)
            return scores, allowed[positions]
        if self._gpu_copy is None:
            self._gpu_copy = self._faiss.index_cpu_to_gpu(self._gpu, 0, self._index.index)
        scores, positions = self._gpu_copy.search(queries, k)
        return scores, self._faiss.vector_to_array(self._index.id_map)[positions]


def _gpu_resources(faiss: Any) -> Any:
    """None where this build of FAISS sees no GPU."""
    return faiss.StandardGpuResources() if faiss.get_num_gpus() > 0 else None
