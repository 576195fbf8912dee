"""Documents by their best passage, exactly."""

import numpy as np
import pytest

from training.retriever.ranking import rank_vectors


def by_hand(vectors: np.ndarray, documents: list[str], query: np.ndarray) -> list[str]:
    best: dict[str, float] = {}
    for vector, document in zip(vectors, documents, strict=True):
        best[document] = max(best.get(document, -np.inf), float(vector @ query))
    return sorted(best, key=lambda one: -best[one])


@pytest.mark.parametrize("depth", [1, 7, 40, 100])
def test_a_ranking_is_that_of_each_documents_best_passage(depth: int) -> None:
    draw = np.random.default_rng(3)
    documents = [f"d{number}" for number in draw.integers(0, 40, 200)]  # their passages lie scattered
    vectors, queries = (draw.normal(size=(count, 16)).astype(np.float32) for count in (200, 9))
    found = rank_vectors(vectors, documents, queries, depth=depth, block_scores=500)  # several blocks
    expected = [by_hand(vectors, documents, query)[:depth] for query in queries]
    assert found == expected
