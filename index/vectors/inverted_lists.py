"""Rows grouped around centroids, with 4-bit codes that are scanned in registers; scores are made exact afterwards.

Of what FAISS offers this was the fastest at recall 0.95 on one thread, and nearly the smallest: docs/benchmarks.md.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.vectors.brute_force import RowNumbers
from index.vectors.rows import Vectors

Lists = NDArray[np.int64]
Bits = NDArray[np.uint8]

# Source: docs/benchmarks.md. Between 512 and 2,048 lists for 200,000 rows nothing was gained or lost beyond noise.
LISTS_PER_ROOT = 4
# Source: the same; codes of 8 and 6 dimensions a symbol lost recall that no number of candidates gave back cheaply.
DIMENSIONS_A_SYMBOL = 4
# Source: faiss/Clustering.h warns below 39 points a centroid; more than 64 change the centroids little.
TRAINING_ROWS_A_LIST = 64
# Fewer train no 4-bit codes: 16 symbols of 39 points each.
FEWEST_ROWS = 640
MOST_LISTS = 2**16  # their numbers have 16 bits; reached at 268 million rows
CODE_BITS = 4
ITERATIONS = 10


class InvertedLists:
    """Covers rows 0..count-1. One thread may append while no other searches; see `by_nearness` for the rest."""

    def __init__(self, index: Any):
        self._index = index
        self.centroids: Vectors = index.quantizer.reconstruct_n(0, index.nlist)
        self.list_of_row = np.empty(0, np.uint16)  # replaced, never written to, once it can be seen
        self._parameters: dict[int, Any] = {}  # by number of probes: making them costs 8 microseconds

    @classmethod
    def trained(cls, sample: Vectors) -> "InvertedLists":
        """Empty, for about as many rows as `sample_size` made this sample from. sample: float32 [n, dimension]."""
        import faiss

        dimension = sample.shape[1]
        lists = max(1, len(sample) // TRAINING_ROWS_A_LIST)
        coarse = faiss.IndexFlatIP(dimension)
        clustering = faiss.Clustering(dimension, lists)
        clustering.niter, clustering.spherical = ITERATIONS, True
        clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, TRAINING_ROWS_A_LIST
        clustering.train(sample, coarse)
        index = faiss.IndexIVFPQFastScan(
            coarse, dimension, lists, _symbols(dimension), CODE_BITS, faiss.METRIC_INNER_PRODUCT
        )
        index.train(sample)
        return cls(_owning(index, coarse))

    def emptied(self) -> "InvertedLists":
        """The same centroids and codes with no row."""
        import faiss

        index = faiss.clone_index(self._index)
        index.reset()
        return InvertedLists(index)

    @property
    def count(self) -> int:
        return len(self.list_of_row)

    @property
    def lists(self) -> int:
        return int(self._index.nlist)

    @property
    def nbytes(self) -> int:
        """Codes, row numbers, list numbers and centroids."""
        a_row = _symbols(self._index.d) * CODE_BITS // 8 + 8 + self.list_of_row.itemsize
        return self.count * a_row + 2 * self.centroids.nbytes

    def append(self, vectors: Vectors) -> None:
        """Rows count..count+n-1. vectors: float32 [n, dimension]."""
        assigned = self._index.quantizer.assign(vectors, 1)[:, 0].astype(np.uint16)
        self._index.add(vectors)
        self.list_of_row = np.concatenate((self.list_of_row, assigned))

    def scan(self, queries: Vectors, wanted: int, probes: int, bits: Bits | None = None) -> RowNumbers:
        """Rows that are probably among the nearest, of the `probes` nearest lists.

        bits: which rows are admitted, `np.packbits(mask of rows, bitorder="little")`; None: all.

        Returns: int64 [queries, wanted], in no particular order, -1 where there is none.
        """
        import faiss

        parameters = self._parameters.get(probes)
        if bits is not None:
            selector = faiss.IDSelectorBitmap(bits)
            parameters = faiss.SearchParametersIVF(nprobe=min(probes, self.lists), sel=selector)
        elif parameters is None:
            parameters = self._parameters[probes] = faiss.SearchParametersIVF(nprobe=min(probes, self.lists))
        return self._index.search(queries, wanted, params=parameters)[1]

    def scan_lists(self, query: Vectors, wanted: int, lists: Lists, bits: Bits) -> RowNumbers:
        """The same of these lists only, and of the rows that are admitted.

        query: float32 [1, dimension]; bits: as of `scan`.

        Returns: int64 [1, wanted].
        """
        import faiss

        # FAISS's own wrapper of this call takes no parameters (faiss/class_wrappers.py).
        pointer: Any = faiss.swig_ptr
        parameters = faiss.SearchParametersIVF(nprobe=len(lists), sel=faiss.IDSelectorBitmap(bits))
        lists = np.ascontiguousarray(lists)
        nearness = np.zeros(len(lists), np.float32)  # codes hold whole vectors: it adds nothing
        scores, rows = np.empty((1, wanted), np.float32), np.empty((1, wanted), np.int64)
        arrays = [pointer(array) for array in (lists, nearness, scores, rows)]
        self._index.search_preassigned_c(1, pointer(query), wanted, *arrays, False, parameters)
        return rows

    def by_nearness(self, query: Vectors, occupied: NDArray[np.bool_]) -> Lists:
        """The lists that are occupied, nearest first. query: float32 [dimension].

        Needs no lock: centroids do not change.
        """
        lists = np.flatnonzero(occupied)
        return lists[np.argsort(-(self.centroids @ query)[lists])]

    def save(self, folder: Path) -> None:
        import faiss

        faiss.write_index(self._index, str(folder / "lists.faiss"))
        np.save(folder / "list_of_row.npy", self.list_of_row, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> "InvertedLists":
        import faiss

        loaded = cls(faiss.read_index(str(folder / "lists.faiss")))
        loaded.list_of_row = np.load(folder / "list_of_row.npy", allow_pickle=False)
        return loaded


def sample_size(rows: int) -> int:
    """Rows to train on for a collection of this size."""
    lists = 2 ** round(np.log2(max(1.0, LISTS_PER_ROOT * rows**0.5)))
    return min(rows, min(lists, MOST_LISTS) * TRAINING_ROWS_A_LIST)


def _symbols(dimension: int) -> int:
    per_symbol = next(size for size in (DIMENSIONS_A_SYMBOL, 3, 2, 1) if dimension % size == 0)
    return dimension // per_symbol


def _owning(index: Any, coarse: Any) -> Any:
    index.own_fields = True  # frees the centroids with the index: they must not be freed by Python as well
    coarse.this.disown()
    return index
