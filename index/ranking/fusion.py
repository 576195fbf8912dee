"""The nearest vectors and the best matches of words into one ranking."""

from collections.abc import Sequence

from index.collection.scope import Candidate

# How far down both rankings are read at least; what neither has within it does not come up.
DEPTH = 100
# The share of the cosine; the words have the rest. Source: the best of both training sets, docs/retrieval.md.
DENSE_WEIGHT = 0.9


def fuse(dense: Sequence[Candidate], lexical: Sequence[Candidate]) -> list[Candidate]:
    """Weighted mean of the cosine and of BM25 as a share of the question's best BM25. Best first.

    Scores are in [0, 1]: a negative cosine counts as 0. A passage that is not among the nearest is given the cosine
    of the farthest of them, the most it can have; one that is not among the matches has BM25 of 0.

    Source: Bruch, Gai and Ingber 2023, "An Analysis of Fusion Functions for Hybrid Retrieval": a convex combination
    ranked better than reciprocal ranks, as it did here.
    """
    cosines = {one.passage_id: min(1.0, max(0.0, one.score)) for one in dense}
    shares = {one.passage_id: one.score / lexical[0].score for one in lexical}
    farthest = min(cosines.values(), default=0.0)
    scores = {
        passage: DENSE_WEIGHT * cosines.get(passage, farthest) + (1 - DENSE_WEIGHT) * shares.get(passage, 0.0)
        for passage in {**cosines, **shares}
    }
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Candidate(passage, score) for passage, score in ranked]
