"""Exact scoring: the reference, the search of small collections, of small filters and of the newest rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.vectors.rows import Vectors

RowNumbers = NDArray[np.int64]
Found = tuple[Vectors, RowNumbers]
"""scores float32 [queries, found] and rows int64 [queries, found], best first; -inf and -1 where there is none."""

# Up to here each query is scored by itself; above, blocks of rows are multiplied with all queries at once.
FEW_QUERIES = 3
BLOCK_ROWS = 8192


def nearest(queries: Vectors, vectors: Vectors, k: int, rows: RowNumbers | None = None) -> Found:
    """The k best of `vectors`, or of these `rows` of it, by inner product.

    queries: float32 [queries, dimension]; vectors: float32 [n, dimension], contiguous; rows: int64 [chosen].
    """
    k = min(k, len(vectors) if rows is None else len(rows))
    if k == 0:
        return nothing(len(queries))
    if len(queries) > FEW_QUERIES:
        return _by_blocks(queries, vectors, k, rows)
    scores = _all_scores(queries, vectors) if rows is None else scores_of(queries, vectors, rows)
    best, places = top_k(scores, k)
    return best, places if rows is None else rows[places]


def nothing(queries: int) -> Found:
    return np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64)


def scores_of(queries: Vectors, vectors: Vectors, rows: RowNumbers) -> Vectors:
    """Inner products with these rows only, read where they lie. Returns: float32 [queries, chosen]."""
    import faiss

    pointer: Any = faiss.swig_ptr
    rows = np.ascontiguousarray(rows)
    scores = np.empty((len(queries), len(rows)), np.float32)
    for query, row_scores in zip(queries, scores, strict=True):
        faiss.fvec_inner_products_by_idx(
            pointer(row_scores), pointer(query), pointer(vectors), pointer(rows), vectors.shape[1], 1, len(rows)
        )
    return scores


def _all_scores(queries: Vectors, vectors: Vectors) -> Vectors:
    import faiss

    pointer: Any = faiss.swig_ptr
    count, dimension = vectors.shape
    scores = np.empty((len(queries), count), np.float32)
    for query, row_scores in zip(queries, scores, strict=True):
        faiss.fvec_inner_products_ny(pointer(row_scores), pointer(query), pointer(vectors), dimension, count)
    return scores


def _by_blocks(queries: Vectors, vectors: Vectors, k: int, rows: RowNumbers | None) -> Found:
    found = nothing(len(queries))
    for start in range(0, len(vectors) if rows is None else len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        chosen = vectors[block] if rows is None else vectors[rows[block]]
        best, places = top_k(queries @ chosen.T, k)
        found = merged(found, (best, places + start if rows is None else rows[block][places]), k)
    return found


def stacked(lines: list[Found]) -> Found:
    """One line for each; -inf and -1 fill the shorter ones."""
    width = max(scores.shape[1] for scores, _ in lines)
    scores = np.full((len(lines), width), -np.inf, np.float32)
    rows = np.full((len(lines), width), -1, np.int64)
    for number, (line_scores, line_rows) in enumerate(lines):
        scores[number, : line_scores.shape[1]] = line_scores[0]
        rows[number, : line_rows.shape[1]] = line_rows[0]
    return scores, rows


def merged(one: Found, other: Found, k: int) -> Found:
    """The k best of both."""
    scores = np.concatenate((one[0], other[0]), axis=1)
    rows = np.concatenate((one[1], other[1]), axis=1)
    best, places = top_k(scores, k)
    return best, np.take_along_axis(rows, places, axis=1)


def top_k(scores: Vectors, k: int) -> Found:
    """Each line's k best, best first, and their places; fewer where there are fewer."""
    if len(scores) == 1:  # plain indexing: take_along_axis costs more than the rest of a small search
        best = _top_places(scores[0], k)
        return scores[:, best], best[None]
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k] if k >= scores.shape[1] else _partition(scores, k)
    return np.take_along_axis(scores, places, axis=1), places


def _top_places(scores: Vectors, k: int) -> RowNumbers:
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    places = np.argpartition(scores, -k)[-k:]
    return places[np.argsort(-scores[places], kind="stable")]


def _partition(scores: Vectors, k: int) -> RowNumbers:
    places = np.argpartition(scores, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)
