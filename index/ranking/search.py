"""A search with more than the nearest vectors: words fused in, a reranker, neighbours and duplicates merged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.collection.documents import Vectors
from index.collection.scope import Candidate, Scope
from index.collection.store import ATTEMPTS, CollectionStore
from index.interface import Hit, Ranking
from index.ranking.fusion import DEPTH, fuse
from index.ranking.merging import Group, merge

Scores = Callable[[str, Sequence[str]], NDArray[np.float32]]
"""A cross-encoder: for a question and texts, how well each answers it, the higher the better. float32 [texts]."""

# A reranker reads so many passages at least, and merging looks at so many times k, and more if it needs them.
RERANKED = 30
MERGED_FACTOR = 3
# Beyond, fewer hits than asked for are told: where all that is near is one passage, looking further is of no use.
MOST_MERGED = 500


@dataclass(frozen=True)
class RankedSearch:
    """`text` may be empty if neither words nor a reranker rank. query: float32 [dimension].

    `collection` is the name that hits tell; `scores` those of the ranking's reranker, if it has one.
    """

    store: CollectionStore
    collection: str
    scope: Scope
    ranking: Ranking
    text: str
    query: Vectors
    scores: Scores | None = None

    def run(self, k: int) -> list[Hit]:
        """The k best hits, each as the database has it when they leave."""
        if self.scores is None and not self.ranking.merged:
            return self._found(k)
        hits: list[Hit] = []
        for _ in range(ATTEMPTS):
            groups = self._groups(k)
            hits = self._leaving(groups)
            if len(hits) == len(groups):
                break  # else documents changed while they were ranked
        return hits

    def _found(self, k: int) -> list[Hit]:
        return self.store.consistent(self.collection, self.scope, lambda: self._candidates(k))

    def _candidates(self, k: int) -> list[Candidate]:
        """Called again where the first call met a change."""
        if not self.ranking.lexical:
            return self.store.nearest(self.query, k, self.scope)
        depth = max(DEPTH, k)
        dense = self.store.nearest(self.query, depth, self.scope)
        return fuse(dense, self.store.matching(self.text, depth, self.scope))[:k]

    def _groups(self, k: int) -> list[Group]:
        """k of them, from as many passages as it takes."""
        depth = k * MERGED_FACTOR if self.ranking.merged else k
        depth = max(RERANKED, depth) if self.scores else depth
        while True:
            found = self._found(depth)
            hits = self._reranked(found)
            groups = merge(hits, k) if self.ranking.merged else [Group([hit]) for hit in hits[:k]]
            if len(groups) == k or len(found) < depth or depth >= MOST_MERGED:
                return groups
            depth *= 2

    def _reranked(self, hits: list[Hit]) -> list[Hit]:
        """Without those that went while the reranker read them, so that others take their places."""
        if self.scores is None or not hits:
            return hits
        scores = self.scores(self.text, [_read_by_reranker(hit) for hit in hits]).tolist()
        there = self._there(hits)
        ranked = sorted(zip(scores, hits, strict=True), key=lambda pair: -pair[0])
        return [replace(hit, score=in_unit(score)) for score, hit in ranked if hit.passage_id in there]

    def _leaving(self, groups: Sequence[Group]) -> list[Hit]:
        """The groups as hits: those of which all is there, by a look at the database after everything else."""
        whole = [(group, self._as_hit(group)) for group in groups]
        there = self._there([hit for group in groups for hit in group.hits])
        return [
            hit
            for group, hit in whole
            if hit is not None and all(member.passage_id in there for member in group.hits)
        ]

    def _as_hit(self, group: Group) -> Hit | None:
        """None: the document is another by now."""
        first, end = group.first, group.end
        if len(group.hits) == 1:
            return first
        text = self.store.text_between(first.passage_id, first.start, end)
        return None if text is None else replace(first, end=end, text=text, score=group.best.score)

    def _there(self, hits: Sequence[Hit]) -> set[int]:
        candidates = [Candidate(hit.passage_id, hit.score) for hit in hits]
        return {hit.passage_id for hit in self.store.current(self.collection, candidates, self.scope)}


def _read_by_reranker(hit: Hit) -> str:
    return "\n".join(part for part in (hit.heading, hit.text) if part)


def in_unit(score: float) -> float:
    """Rerankers tell logits or probabilities: the logistic function brings both into [0, 1] in the same order."""
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
