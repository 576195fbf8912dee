"""What a collection takes is there and found; what it refuses changes nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade_stores import DIMENSION, document, new_database, opened, opened_on, unit_vectors

from index.collection.documents import Access
from index.collection.filters import parse_filter
from index.collection.scope import EVERYTHING, Scope
from index.collection.store import CollectionStore
from index.collection.views import Views
from local_llm.errors import ConflictError, IntegrityError, InvalidInputError, LocalLLMError, NotFoundError

VECTORS = unit_vectors(50)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return new_database(tmp_path)


@pytest.fixture
def store(database: Path, views: Views) -> Iterator[CollectionStore]:
    store = opened_on(database, views)
    yield store
    store.close(snapshot=False)


def no_sample(_store: CollectionStore) -> np.ndarray:
    return np.empty((0, DIMENSION), np.float32)


def found(store: CollectionStore, query: np.ndarray, k: int = 100, scope: Scope = EVERYTHING) -> list[str]:
    return [hit.document for hit in store.search("c", query, k, scope)]


def with_row(at: int, row: Any) -> np.ndarray:
    vectors = VECTORS[:3].copy()
    vectors[at] = row
    return vectors


@pytest.mark.parametrize(
    "wrong",
    [
        with_row(1, np.nan),
        with_row(2, np.inf),
        with_row(0, 0),
        VECTORS[:3] * 1.01,
        VECTORS[:3] * 0.99,
        VECTORS[:3] * 1e30,
        unit_vectors(3, DIMENSION + 1),
        unit_vectors(3, 1),
        VECTORS[:2],
        VECTORS[:4],
        np.empty((0, DIMENSION), np.float32),
        VECTORS[0],
        VECTORS[:3].reshape(1, 3, DIMENSION),
    ],
    ids=range(13),
)
@pytest.mark.parametrize("first", [True, False])
def test_wrong_vectors_are_refused_with_all_that_came_with_them(
    store: CollectionStore, wrong: np.ndarray, first: bool
) -> None:
    if not first:
        store.write([document("here", VECTORS[10])])
    bad = replace(document("bad", VECTORS[:3]), vectors=wrong)
    with pytest.raises(InvalidInputError, match="bad"):
        store.write([document("good", VECTORS[11]), bad])
    assert [info.name for info in store.documents(None)] == ([] if first else ["here"])
    assert found(store, VECTORS[11]) == ([] if first else ["here"])
    store.write([document("good", VECTORS[11])])
    assert found(store, VECTORS[11])[0] == "good"


def test_whatever_length_is_let_in_is_found_now_and_after_opening_anew(database: Path) -> None:
    """Lengths that the store took and the view refused left a collection that could not be opened."""
    store = opened(database)
    taken = []
    for at, length in enumerate(np.linspace(0.9985, 1.0015, 61)):
        vector = unit_vectors(1, seed=100 + at) * np.float32(length)
        try:
            store.write([document(f"{at}", vector)])
        except InvalidInputError:
            continue
        taken.append((f"{at}", vector[0] / np.linalg.norm(vector)))
    assert len(taken) > 20
    for _ in range(2):
        assert [found(store, vector, 1) for _, vector in taken] == [[name] for name, _ in taken]
        store.close(snapshot=False)
        store = opened(database)
    store.close(snapshot=False)


@pytest.mark.parametrize("name", ["nul\0", "half\ud83d", ""])
def test_names_that_no_database_keeps_are_refused_and_are_nowhere(store: CollectionStore, name: str) -> None:
    store.write([document("nul", VECTORS[0], allow=["user:ana"])])
    with pytest.raises(InvalidInputError):
        store.write([document(name, VECTORS[1])])
    assert store.find(name) is None
    for ask in (store.remove, lambda names, who: store.set_access(names[0], Access(("a",)), who)):
        with pytest.raises(NotFoundError) as caught:
            ask([name], None)
        caught.value.message.encode()
    with pytest.raises(NotFoundError):
        store.document(name, None, None)
    assert store.records(EVERYTHING, [name]) == []
    assert store.remove_matching(EVERYTHING, [name]) == 0
    assert store.counts(("user:ana\0",)).documents == 0
    assert store.counts(("user:ana",)).documents == 1


def test_attribute_that_python_holds_for_equal_is_changed(store: CollectionStore) -> None:
    store.write([document("a", VECTORS[0], attributes={"done": 1})])
    store.set_access("a", Access(None, {"done": True}), None)
    asked = parse_filter({"type": "eq", "key": "done", "value": True})
    assert found(store, VECTORS[0], scope=Scope(None, asked)) == ["a"]
    assert store.documents(None)[0].attributes["done"] is True


def test_large_attribute_and_large_k_are_borne(store: CollectionStore) -> None:
    long = "x" * 1_000_000
    store.write([document(f"{at}", VECTORS[at], attributes={"long": long + str(at)}) for at in range(5)])
    one = parse_filter({"type": "eq", "key": "long", "value": long + "3"})
    assert found(store, VECTORS[0], 10**9, Scope(None, one)) == ["3"]
    assert sorted(found(store, VECTORS[0], 10**9)) == ["0", "1", "2", "3", "4"]
    none = parse_filter({"type": "in", "key": "long", "value": []})
    assert found(store, VECTORS[0], 10**9, Scope(None, none)) == []


def test_numbers_filter_as_they_were_given(store: CollectionStore) -> None:
    """SQLite's own reading of JSON differs from Python's in the last digit of some."""
    numbers = [*np.random.default_rng(1).uniform(-1, 1, 40).tolist(), 5e-324, 2.2250738585072014e-308, 0.1 + 0.2]
    store.write([document(f"{at}", VECTORS[0], attributes={"n": n}) for at, n in enumerate(numbers)])
    for at, number in enumerate(numbers):
        scope = Scope(None, parse_filter({"type": "eq", "key": "n", "value": number}))
        assert found(store, VECTORS[0], 5, scope) == [str(at)]


def test_file_of_another_document_is_a_conflict(store: CollectionStore) -> None:
    store.write([replace(document("a", VECTORS[0]), file_id="file-1")])
    with pytest.raises(ConflictError, match="vs_handmade"):
        store.write([document("c", VECTORS[2]), replace(document("b", VECTORS[1]), file_id="file-1")])
    assert [info.name for info in store.documents(None)] == ["a"]
    assert found(store, VECTORS[2]) == ["a"]


def test_vectors_of_an_encoder_that_was_left_are_refused(store: CollectionStore) -> None:
    """A move to another encoder that ends while documents are encoded must not mix the two."""
    store.write([document("a", VECTORS[0])], "external")
    with pytest.raises(ConflictError, match="encoder"):
        store.write([document("b", VECTORS[1])], "another")
    assert found(store, VECTORS[1]) == ["a"]


def test_query_of_another_dimension_is_refused_and_harms_no_later_upkeep(database: Path) -> None:
    store = opened(database)
    store.record_query(unit_vectors(1, 3)[0], store.generation)
    store.write([document("a", VECTORS[0])])
    store.record_query(unit_vectors(1, 5)[0], store.generation)
    store.record_query(VECTORS[1], store.generation)
    assert store.maintain(no_sample) is False
    store.close()
    store = opened(database)
    assert store.maintain(no_sample) is False
    store.close()


def test_question_asked_of_vectors_that_were_left_is_not_measured_with(store: CollectionStore) -> None:
    store.write([document("a", VECTORS[0])])
    store.record_query(VECTORS[1], replace(store.generation, number=store.generation.number + 1))
    store.record_query(VECTORS[2], store.generation)
    store.maintain(no_sample)
    assert len(store._recorded_queries()) == 1


def test_equal_text_of_a_version_that_was_replaced_gives_no_vectors(store: CollectionStore) -> None:
    store.write([document("a", VECTORS[:3])])
    old = store.find("a")
    assert len(store.encoded(old)) == 3
    store.write([document("a", VECTORS[5:7], text="new")])
    assert store.encoded(old) == {}


def test_store_that_was_closed_says_so(database: Path) -> None:
    store = opened(database)
    store.write([document("a", VECTORS[0])])
    store.close()
    store.close()
    assert store.maintain(no_sample) is False
    for ask in (
        lambda: store.search("c", VECTORS[0], 1, EVERYTHING),
        lambda: store.documents(None),
        lambda: store.write([document("b", VECTORS[1])]),
        lambda: store.remove(["a"], None),
    ):
        with pytest.raises(NotFoundError, match="vs_handmade"):
            ask()


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, 20_000])
def test_database_cut_short_is_told_with_its_name(database: Path, keep: int) -> None:
    store = opened(database)
    store.write([document(f"{at}", VECTORS[at]) for at in range(50)])
    store.close()
    database.write_bytes(database.read_bytes()[:keep])
    with pytest.raises(IntegrityError, match="vs_handmade"):
        opened(database).documents(None)


def test_database_damaged_anywhere_raises_nothing_but_our_errors(database: Path) -> None:
    store = opened(database)
    store.write([document(f"{at}", VECTORS[at], allow=["user:ana"], attributes={"n": at}) for at in range(50)])
    store.close()
    whole, random = database.read_bytes(), np.random.default_rng(3)
    told = 0
    for _ in range(40):
        damaged = np.frombuffer(whole, np.uint8).copy()
        start = int(random.integers(0, len(damaged) - 600))
        damaged[start : start + 600] = random.integers(0, 256, 600)
        database.write_bytes(damaged.tobytes())
        database.with_name("collection.db-wal").unlink(missing_ok=True)
        try:
            store = opened(database)
        except LocalLLMError as error:
            told += "vs_handmade" in error.message
            continue
        for act in (
            lambda store: store.search("c", VECTORS[0], 50, EVERYTHING),
            lambda store: store.search("c", VECTORS[0], 50, Scope(("user:ana",))),
            lambda store: store.write([document("0", VECTORS[0])]),
            lambda store: store.remove(["1"], None),
        ):
            try:
                act(store)
            except LocalLLMError:
                told += 1
        store.close(snapshot=False)
    assert told


def test_snapshot_damaged_anywhere_costs_no_passage(database: Path) -> None:
    store = opened(database)
    store.write([document(f"{at}", VECTORS[at]) for at in range(40)])
    store.save_view()
    store.write([document(f"{at}", VECTORS[at]) for at in range(40, 50)])
    store.remove(["7"], None)
    store.close(snapshot=False)
    random = np.random.default_rng(5)
    everything = sorted(str(at) for at in range(50) if at != 7)
    files = [path for path in (database.parent / "view-1").rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in [*files, *files, None]:
        whole = b"" if path is None else path.read_bytes()
        for harm in (lambda data: data[: random.integers(0, len(data))], flipped, lambda _: None):
            if path is not None:
                damage(path, harm(whole))
            store = opened(database)
            assert sorted(found(store, VECTORS[0])) == everything
            assert [found(store, VECTORS[at], 1) for at in (0, 39, 40, 49)] == [["0"], ["39"], ["40"], ["49"]]
            store.close(snapshot=False)
            if path is not None:
                path.write_bytes(whole)


def flipped(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def damage(path: Path, left: bytes | None) -> None:
    if left is None:
        path.unlink()
    else:
        path.write_bytes(left)


def test_database_put_back_from_a_backup_is_searched_as_it_is(database: Path) -> None:
    """The snapshot beside it then tells of passages that never were, under ids that others have by now."""
    store = opened(database)
    store.write([document(f"{at}", VECTORS[at]) for at in range(10)])
    store.close()
    backup = database.read_bytes()
    store = opened(database)
    store.write([document(f"{at}", VECTORS[at]) for at in range(10, 20)])
    store.remove(["3"], None)
    store.close()
    for put_back in (True, False):
        if put_back:
            database.write_bytes(backup)
        store = opened(database)
        assert sorted(found(store, VECTORS[0])) == sorted(str(at) for at in range(10 if put_back else 11))
        if put_back:
            store.write([document("10", VECTORS[30])])
        assert found(store, VECTORS[30], 1) == ["10"]
        store.close(snapshot=False)


def test_number_and_passages_of_what_is_gone_never_become_anothers(store: CollectionStore) -> None:
    store.write([document("a", VECTORS[:3])])
    first = store.find("a")
    store.remove(["a"], None)
    store.write([document("b", VECTORS[:3])])
    second = store.find("b")
    assert second.number > first.number
    assert second.first_passage > first.passage_ids.max()
    store.write([document("b", VECTORS[5:6])])
    assert store.find("b").number == second.number
    assert store.find("b").first_passage > second.passage_ids.max()
