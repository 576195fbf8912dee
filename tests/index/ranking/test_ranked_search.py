"""Hits fused, ranked anew and merged: exact, within the scope, and there when they leave."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from index.collection.documents import Access
from index.collection.scope import EVERYTHING, Candidate, Scope
from index.collection.store import CollectionStore
from index.interface import Hit, Page, Ranking
from index.ranking.fusion import fuse
from index.ranking.search import RankedSearch, Scores, in_unit
from tests.index.ranking.conftest import document

QUERY = np.array([1, 0, 0, 0], np.float32)
ANA = Scope(("user:ana",))


def search(
    store: CollectionStore,
    text: str,
    k: int,
    ranking: Ranking,
    *,
    scope: Scope = EVERYTHING,
    scores: Scores | None = None,
) -> list[Hit]:
    return RankedSearch(store, "c", scope, ranking, text, QUERY, scores).run(k)


def by_length(_query: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """A reranker that prefers the longer text."""
    return np.array([len(text) for text in texts], np.float32)


# Fusion


def test_fused_score_is_the_weighted_mean() -> None:
    # 1: .9 * .8 + .1 * 0; 2: .9 * .5 + .1 * 4/4; 3 is not among the nearest: .9 * .5, the farthest's, + .1 * 2/4.
    found = fuse([Candidate(1, 0.8), Candidate(2, 0.5)], [Candidate(2, 4.0), Candidate(3, 2.0)])
    assert [one.passage_id for one in found] == [1, 2, 3]
    assert [one.score for one in found] == pytest.approx([0.72, 0.55, 0.5], abs=1e-9)


def test_fused_scores_lie_between_nought_and_one() -> None:
    found = fuse([Candidate(1, 1.0000001), Candidate(2, -0.5)], [Candidate(1, 9.0)])
    assert [one.score for one in found] == pytest.approx([1, 0], abs=1e-9)


def test_fusion_of_nothing_is_nothing() -> None:
    assert fuse([], []) == []
    assert [one.score for one in fuse([], [Candidate(1, 3.0)])] == pytest.approx([0.1])


def test_words_decide_where_vectors_are_equal(store: CollectionStore) -> None:
    store.write([document("a", ["paper tray"]), document("b", ["error E-417 of the drum"])])
    hits = search(store, "E-417", 2, Ranking(lexical=True))
    assert [hit.document for hit in hits] == ["b", "a"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.9])


# Merging


def test_neighbours_become_the_exact_union(store: CollectionStore) -> None:
    pages = (Page(1, 0, 20), Page(2, 20, 99))
    store.write(
        [document("a", ["first sentence", "second sentence", "third sentence"], pages=pages, between="\n\n")]
    )
    hits = search(store, "", 5, Ranking(merged=True))
    assert len(hits) == 1
    assert hits[0].text == "first sentence\n\nsecond sentence\n\nthird sentence"
    text = store.document(hits[0].document_id, hits[0].version, None).text
    assert text[hits[0].start : hits[0].end] == hits[0].text
    assert hits[0].page == 1


def test_passages_of_other_sections_stay_apart(store: CollectionStore) -> None:
    store.write([document("a", ["first", "second"], headings=["One", "Two"])])
    assert [hit.text for hit in search(store, "", 5, Ranking(merged=True))] == ["first", "second"]


def test_passages_that_leave_one_out_stay_apart(store: CollectionStore) -> None:
    store.write([document("a", ["toner first", "paper", "toner third"])])
    hits = search(store, "toner", 2, Ranking(lexical=True, merged=True))
    assert {hit.text for hit in hits} == {"toner first", "toner third"}


def test_merged_hit_has_the_score_of_its_best(store: CollectionStore) -> None:
    store.write([document("a", ["paper", "toner toner"])])
    merged = search(store, "toner", 5, Ranking(lexical=True, merged=True))
    best = search(store, "toner", 1, Ranking(lexical=True))
    assert [hit.score for hit in merged] == [best[0].score]


def test_equal_passages_of_two_documents_are_one_hit(store: CollectionStore) -> None:
    store.write([document("a", ["same words"]), document("b", ["same  words"]), document("c", ["other"])])
    assert len(search(store, "", 5, Ranking())) == 3
    assert [hit.document for hit in search(store, "", 5, Ranking(merged=True))] == ["a", "c"]


def test_copied_document_is_one_hit_whatever_the_order_of_its_passages(store: CollectionStore) -> None:
    copies = ["toner toner", "drum toner"]
    store.write([document("a", copies), document("b", copies), document("c", ["toner in another place"])])
    hits = search(store, "toner", 5, Ranking(lexical=True, merged=True))
    assert sorted(hit.document for hit in hits) == ["a", "c"]


def test_k_hits_remain(store: CollectionStore) -> None:
    same = [document(f"same-{number}", ["same words"]) for number in range(60)]
    store.write([*same, *(document(f"{number}", [f"text {number}"], vector=(9, 1, 0, 0)) for number in range(5))])
    hits = search(store, "", 4, Ranking(merged=True))
    assert len(hits) == 4
    assert len({hit.text for hit in hits}) == 4


def test_hidden_copy_does_not_stand_for_a_visible_one(store: CollectionStore) -> None:
    store.write([document("closed", ["same words"], allow=("user:bob",)), document("open", ["same words"])])
    assert [hit.document for hit in search(store, "", 5, Ranking(merged=True), scope=ANA)] == ["open"]


# Reranking


def test_reranker_decides_on_the_order(store: CollectionStore) -> None:
    store.write(
        [document("a", ["short"]), document("b", ["a little longer"]), document("c", ["the longest of them"])]
    )
    hits = search(store, "q", 2, Ranking(reranker="r"), scores=by_length)
    assert [hit.document for hit in hits] == ["c", "b"]


@pytest.mark.parametrize("score", [-1e4, -3.0, 0.0, 2.0, 1e4])
def test_reranked_scores_lie_between_nought_and_one(score: float) -> None:
    assert 0 <= in_unit(score) <= 1
    assert in_unit(score) <= in_unit(score + 1)


def test_document_deleted_while_it_is_reranked_does_not_leave(store: CollectionStore) -> None:
    store.write(
        [document("gone", ["the longest of them all"]), document("b", ["longer"]), document("c", ["short"])]
    )

    def delete_meanwhile(query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        if store.find("gone"):
            store.remove(["gone"], None)
        return by_length(query, texts)

    hits = search(store, "q", 2, Ranking(reranker="r"), scores=delete_meanwhile)
    assert [hit.document for hit in hits] == ["b", "c"]  # another took its place


def test_document_forbidden_while_it_is_reranked_does_not_leave(store: CollectionStore) -> None:
    store.write([document("closed", ["the longest of all", "and more"]), document("b", ["short"])])

    def forbid_meanwhile(query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        store.set_access("closed", Access(("user:bob",)), None)
        return by_length(query, texts)

    ranking = Ranking(reranker="r", merged=True)
    assert [hit.document for hit in search(store, "q", 2, ranking, scope=ANA, scores=forbid_meanwhile)] == ["b"]


def test_reranker_reads_more_passages_than_are_asked_for(store: CollectionStore) -> None:
    near = [document(f"{number}", ["near"]) for number in range(10)]
    store.write([*near, document("far", ["far, but what is wanted"], vector=(1, 1, 0, 0))])
    assert search(store, "q", 1, Ranking(reranker="r"), scores=by_length)[0].document == "far"


@pytest.mark.parametrize(
    "ranking", [Ranking(True), Ranking(True, "r"), Ranking(True, "r", True), Ranking(merged=True)]
)
def test_no_hit_is_outside_the_scope(store: CollectionStore, ranking: Ranking) -> None:
    names = ["user:ana", "user:bob", "group:x"]
    store.write(
        [
            document(f"{number}", [f"toner text {number}", f"drum text {number}"], allow=(names[number % 3],))
            for number in range(30)
        ]
    )
    scores = by_length if ranking.reranker else None
    for at, name in enumerate(names):
        hits = search(store, "toner text", 40, ranking, scope=Scope((name,)), scores=scores)
        assert {int(hit.document) % 3 for hit in hits} == {at}
        assert len({hit.document for hit in hits}) == 10
