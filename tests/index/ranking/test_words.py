"""Ranking by words: safe whatever is asked, and of nothing but what the asker may see."""

from math import log

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from index.collection.documents import Access
from index.collection.filters import Comparison
from index.collection.scope import EVERYTHING, Candidate, Scope
from index.collection.store import CollectionStore
from tests.index.ranking.conftest import Open, document

ANA = Scope(("user:ana",))


def texts(store: CollectionStore, found: list[Candidate]) -> list[str]:
    return [hit.text for hit in store.current("c", found, EVERYTHING)]


def test_bm25_is_the_formula(store: CollectionStore) -> None:
    store.write([document("a", ["toner toner cartridge"]), document("b", ["toner"]), document("c", ["paper tray"])])
    # 3 passages of 21, 5 and 10 characters: mean 12. "toner" is in 2: idf = ln(1 + (3 - 2 + .5) / (2 + .5)).
    # a: 2 * 2.2 / (2 + 1.2 * (.25 + .75 * 21 / 12)); b: 1 * 2.2 / (1 + 1.2 * (.25 + .75 * 5 / 12)).
    idf = log(1 + 1.5 / 2.5)
    first, second = store.matching("toner", 9, EVERYTHING)
    assert second.score == pytest.approx(idf * 4.4 / (2 + 1.2 * (0.25 + 0.75 * 21 / 12)), abs=1e-9)
    assert first.score == pytest.approx(idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 5 / 12)), abs=1e-9)
    assert texts(store, [first, second]) == ["toner", "toner toner cartridge"]


def test_words_match_in_other_forms_and_accents(store: CollectionStore) -> None:
    store.write([document("a", ["The cafés are charging."]), document("b", ["Something else."])])
    assert texts(store, store.matching("cafe charged", 9, EVERYTHING)) == ["The cafés are charging."]


@pytest.mark.parametrize(
    "asked",
    [
        '"', '""', "'", "toner AND", "AND OR NOT", "NEAR(a b)", "text:toner", "toner*", "^toner", "- toner",
        "toner \U0001f600", "\ud800", "a\0b", "{text} : toner", "%", "\\", ";DROP TABLE words", "   ",
        "\u202e\u0301", "(", "){}[]",
    ],
)  # fmt: skip
def test_any_text_is_words_and_no_query(store: CollectionStore, asked: str) -> None:
    store.write([document("a", ["toner cartridge"])])
    found = texts(store, store.matching(asked, 9, EVERYTHING))
    assert found == (["toner cartridge"] if "toner" in asked else [])


@hypothesis_settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=300))
def test_no_text_fails(store: CollectionStore, asked: str) -> None:
    store.matching(asked, 3, EVERYTHING)


def test_ten_thousand_words_are_answered(store: CollectionStore) -> None:
    store.write([document("a", ["toner cartridge"])])
    asked = " ".join(["toner", *(f"word{number}" for number in range(10_000))])
    assert texts(store, store.matching(asked, 3, EVERYTHING)) == ["toner cartridge"]


def test_stop_words_alone_are_looked_for(store: CollectionStore) -> None:
    store.write([document("a", ["The Who"]), document("b", ["Paper tray"])])
    assert texts(store, store.matching("the who", 3, EVERYTHING)) == ["The Who"]
    assert store.matching("who has the toner", 3, EVERYTHING) == []


def test_best_are_taken_among_the_allowed(store: CollectionStore) -> None:
    store.write([document(f"closed-{number}", ["toner toner toner"], allow=("user:bob",)) for number in range(200)])
    store.write([document("open", ["paper, tray, toner and much more of it"])])
    assert texts(store, store.matching("toner", 1, ANA)) == ["paper, tray, toner and much more of it"]


def test_documents_out_of_sight_change_neither_order_nor_scores(store: CollectionStore) -> None:
    """With the statistics of all passages toner would become the commoner word, and turn this round."""
    store.write(
        [
            document("a", ["toner one two"]),
            document("b", ["drum three four"]),
            document("c", ["drum five six"]),
        ]
    )
    before = store.matching("toner drum", 9, ANA)
    assert texts(store, before)[0] == "toner one two"
    store.write([document(f"closed-{number}", ["toner"], allow=("user:bob",)) for number in range(50)])
    assert store.matching("toner drum", 9, ANA) == before
    everything = store.matching("toner drum", 99, EVERYTHING)
    assert texts(store, everything)[0] in ("drum three four", "drum five six")


def test_filter_narrows_what_is_ranked(store: CollectionStore) -> None:
    store.write([document("a", ["toner"])])
    scope = Scope(None, Comparison("eq", "area", ("device",)))
    assert store.matching("toner", 9, scope) == []


def test_removed_and_replaced_words_are_gone_at_once(store: CollectionStore) -> None:
    store.write([document("a", ["toner"]), document("b", ["toner"])])
    assert len(store.matching("toner", 9, EVERYTHING)) == 2
    store.remove(["a"], None)
    store.write([document("b", ["drum"])])
    assert store.matching("toner", 9, EVERYTHING) == []
    assert texts(store, store.matching("drum", 9, EVERYTHING)) == ["drum"]


def test_scores_do_not_depend_on_what_was_before(store: CollectionStore, reopen: Open) -> None:
    store.write([document(f"{number}", ["toner drum", "tray"]) for number in range(20)])
    store.matching("toner", 9, EVERYTHING)
    store.remove([f"{number}" for number in range(0, 20, 2)], None)
    store.write([document("1", ["toner", "paper", "tray and tray"]), document("new", ["toner and more"])])
    opened_anew = reopen()
    for scope in (EVERYTHING, ANA):
        assert store.matching("toner tray", 99, scope) == opened_anew.matching("toner tray", 99, scope)


def test_narrowed_permission_holds_for_words(store: CollectionStore) -> None:
    store.write([document("a", ["toner"])])
    assert len(store.matching("toner", 9, ANA)) == 1
    store.set_access("a", Access(("user:bob",)), None)
    assert store.matching("toner", 9, ANA) == []


def test_thousands_that_went_leave_nothing_behind(store: CollectionStore, reopen: Open) -> None:
    store.write([document(f"{number}", ["toner drum"]) for number in range(1200)])
    store.matching("toner", 9, EVERYTHING)
    store.remove([f"{number}" for number in range(1150)], None)
    store.write([document("new", ["toner"])])
    assert store.matching("toner", 99, EVERYTHING) == reopen().matching("toner", 99, EVERYTHING)
