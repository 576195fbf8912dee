"""The FAISS view against NumPy brute force."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.vectors.exact import VectorIndex

DIMENSION = 8


def unit_rows(seed: int, count: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_force(
    vectors: dict[int, NDArray[np.float32]], query: NDArray[np.float32], k: int, allowed: set[int]
) -> list[tuple[float, int]]:
    scored = [
        (float(query @ vector), identifier) for identifier, vector in vectors.items() if identifier in allowed
    ]
    return sorted(scored, reverse=True)[:k]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    k=st.integers(1, 70),
    removed=st.sets(st.integers(0, 80)),
    allowed=st.none() | st.sets(st.integers(0, 80)),
)
def test_search_equals_brute_force_with_and_without_filter(
    seed: int, count: int, k: int, removed: set[int], allowed: set[int] | None
) -> None:
    rows = unit_rows(seed, count + 2)
    vectors = {7 * number + 3: row for number, row in enumerate(rows[:count])}
    index = VectorIndex("cpu")
    for identifier, row in vectors.items():
        index.add(np.array([identifier], np.int64), row[None])
    gone = np.array([7 * number + 3 for number in removed], np.int64)
    index.remove(gone)
    left = {identifier: row for identifier, row in vectors.items() if identifier not in gone}
    # Only ids that are there are ever allowed: the database that names them is what the view is made from.
    visible = set(left) if allowed is None else {7 * number + 3 for number in allowed} & set(left)
    filtered = None if allowed is None else np.array(sorted(visible), np.int64)
    scores, ids = index.search(rows[count:], k, filtered)
    assert len(index) == len(left)
    assert scores.shape == ids.shape == (2, min(k, len(visible)))
    for query, found_scores, found_ids in zip(rows[count:], scores, ids, strict=True):
        expected = brute_force(left, query, k, visible)
        np.testing.assert_allclose(found_scores, [score for score, _ in expected], atol=1e-6)
        assert set(found_ids.tolist()) <= visible
        np.testing.assert_allclose([query @ left[identifier] for identifier in found_ids], found_scores, atol=1e-6)
        assert len(set(found_ids.tolist())) == len(found_ids)


def test_empty_index_finds_nothing() -> None:
    scores, ids = VectorIndex("cpu").search(unit_rows(0, 3), 5)
    assert scores.shape == ids.shape == (3, 0)
