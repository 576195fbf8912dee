"""The rows of a view: vectors with their ids and documents, appended and struck out, never moved."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from local_llm.errors import InvalidInputError

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
Groups = NDArray[np.int32]
Mask = NDArray[np.bool_]

# How far the squared length of a row may be from 1: twice the 1e-3 that its length may.
SQUARED_LENGTH_TOLERANCE = 2e-3
SMALLEST_CAPACITY = 1024


@dataclass(frozen=True)
class Rows:
    """Rows 0..n-1 as they stood at one moment; only `live` changes afterwards, and only from True to False.

    vectors: float32 [n, dimension]; ids: int64 [n], ascending; groups: int32 [n]; live: bool [n].
    """

    vectors: Vectors
    ids: Ids
    groups: Groups
    live: Mask

    def __len__(self) -> int:
        return len(self.ids)

    def living(self, start: int = 0) -> NDArray[np.int64]:
        """The rows from `start` on that live now, ascending.

        NumPy counts them first and lists them then: of an array in which some die between the two, what it returns
        ends in numbers that were in memory before.
        """
        return np.flatnonzero(self.live[start:].copy()) + start

    @property
    def nbytes(self) -> int:
        return self.vectors.nbytes + self.ids.nbytes + self.groups.nbytes + self.live.nbytes


class RowStore:
    """Grows by appending. One thread at a time may change it; `rows` may be read by any at any time."""

    def __init__(self, dimension: int, capacity: int = SMALLEST_CAPACITY):
        self._buffers = _buffers(dimension, capacity)
        self.rows = _first(self._buffers, 0)
        self.dead = 0

    @classmethod
    def of(cls, rows: Rows) -> "RowStore":
        """A copy, live or not."""
        store = cls(rows.vectors.shape[1], capacity_for(len(rows)))
        store.append(rows.ids, rows.groups, rows.vectors)
        store.rows.live[:] = rows.live
        store.dead = len(rows) - int(np.count_nonzero(rows.live))
        return store

    def append(self, ids: Ids, groups: Groups, vectors: Vectors) -> None:
        """What is appended is written first and shown then: `rows` of a moment ago stays as it was."""
        start, end = len(self.rows), len(self.rows) + len(ids)
        if end > len(self._buffers):
            self._grow(end)
        buffers = self._buffers
        buffers.vectors[start:end] = vectors
        buffers.ids[start:end] = ids
        buffers.groups[start:end] = groups
        buffers.live[start:end] = True
        self.rows = _first(buffers, end)

    def strike_out(self, ids: Ids) -> NDArray[np.int64]:
        """Ids that are not there are passed over. Returns: the rows that were live until now."""
        rows = self.rows
        if not len(rows) or not len(ids):
            return np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(rows.ids, ids), len(rows) - 1)
        places = np.unique(places[(rows.ids[places] == ids) & rows.live[places]])
        rows.live[places] = False
        self.dead += len(places)
        return places

    def _grow(self, needed: int) -> None:
        rows = self.rows
        capacity = max(capacity_for(needed), 2 * len(self._buffers))
        grown = _buffers(rows.vectors.shape[1], capacity)
        for old, new in zip(_arrays(rows), _arrays(grown), strict=True):
            new[: len(rows)] = old
        self._buffers = grown
        self.rows = _first(grown, len(rows))


def capacity_for(rows: int) -> int:
    """With room to grow before anything must be copied; what is not written to takes no memory."""
    return rows + rows // 4 + SMALLEST_CAPACITY


def _buffers(dimension: int, capacity: int) -> Rows:
    # Memory that np.empty hands out is taken from the machine page by page, as rows are written.
    return Rows(
        np.empty((capacity, dimension), np.float32),
        np.empty(capacity, np.int64),
        np.empty(capacity, np.int32),
        np.zeros(capacity, np.bool_),
    )


def _arrays(rows: Rows) -> tuple[NDArray, ...]:
    return rows.vectors, rows.ids, rows.groups, rows.live


def _first(rows: Rows, count: int) -> Rows:
    return Rows(*(array[:count] for array in _arrays(rows)))


def checked_vectors(vectors: NDArray, dimension: int, what: str) -> Vectors:
    """As contiguous float32 [n, dimension].

    Raises: InvalidInputError for another shape, NaN or infinity, or a row whose length is not 1.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise InvalidInputError(
            f"{what} of shape {list(vectors.shape)}; this index holds vectors of dimension {dimension}",
            hint="encode with the collection's own encoder, or: local-llm index reembed",
        )
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    squared = np.einsum("ij,ij->i", vectors, vectors)
    wrong = ~(np.abs(squared - 1) <= SQUARED_LENGTH_TOLERANCE)  # also true of NaN
    if wrong.any():
        raise _not_of_length_one(vectors, squared, int(np.argmax(wrong)), what)
    return vectors


def _not_of_length_one(vectors: Vectors, squared: Vectors, row: int, what: str) -> InvalidInputError:
    finite = bool(np.isfinite(vectors[row]).all())
    problem = f"has length {float(squared[row]) ** 0.5:.4g}" if finite else "holds NaN or infinity"
    return InvalidInputError(
        f"row {row} of the {what} {problem}; expected a vector of length 1",
        hint="the encoder must normalise its vectors; check its precision with: local-llm doctor",
    )


def checked_queries(queries: NDArray, k: int, allowed: Mask | None, dimension: int) -> Vectors:
    """What every search looks at first. Returns: the queries, contiguous float32 [queries, dimension].

    Raises: InvalidInputError for vectors, a k or a filter that cannot be right.
    """
    if k < 1:
        raise InvalidInputError(f"k = {k}; expected 1 or more", param="k")
    # Numbers would be taken for positions, and show what they should hide.
    if allowed is not None and (allowed.dtype != np.bool_ or allowed.ndim != 1):
        raise InvalidInputError(f"a filter of {allowed.dtype} {list(allowed.shape)}; expected bool [documents]")
    return checked_vectors(queries, dimension, "queries")


def checked_ids(ids: NDArray, after: int, count: int) -> Ids:
    """As int64 [count].

    Raises: InvalidInputError unless they ascend and the first is above `after`.
    """
    ids = np.ascontiguousarray(ids, dtype=np.int64)
    if ids.shape != (count,):
        raise InvalidInputError(f"ids of shape {list(ids.shape)} for {count} vectors; expected [{count}]")
    steps = np.diff(ids, prepend=after)
    if count and int(steps.min()) <= 0:
        place = int(np.argmin(steps))
        before = after if place == 0 else int(ids[place - 1])
        raise InvalidInputError(f"id {int(ids[place])} follows id {before}; ids of a view only ever ascend")
    return ids


def checked_groups(groups: NDArray, count: int) -> Groups:
    """As int32 [count].

    Raises: InvalidInputError for another shape or a negative number.
    """
    groups = np.ascontiguousarray(groups, dtype=np.int32)
    if groups.shape != (count,):
        raise InvalidInputError(f"groups of shape {list(groups.shape)} for {count} vectors; expected [{count}]")
    if count and int(groups.min()) < 0:
        raise InvalidInputError(f"group {int(groups.min())}; expected numbers from 0")
    return groups
