"""The view against NumPy brute force, and what it promises while it changes and when it is opened again."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.vectors.rows import RowStore
from index.vectors.view import VectorView, ViewOptions
from local_llm.errors import InvalidInputError

DIMENSION = 8
OPTIONS = ViewOptions(dimension=DIMENSION, device="cpu")


def unit_rows(seed: int, count: int, dimension: int = DIMENSION) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Reference:
    """The same promises in the plainest way."""

    def __init__(self) -> None:
        self.vectors: dict[int, tuple[int, NDArray[np.float32]]] = {}

    def add(self, ids: NDArray[np.int64], groups: NDArray[np.int32], vectors: NDArray[np.float32]) -> None:
        for identifier, group, vector in zip(ids, groups, vectors, strict=True):
            self.vectors[int(identifier)] = (int(group), vector)

    def remove(self, ids: NDArray[np.int64]) -> None:
        for identifier in ids:
            self.vectors.pop(int(identifier), None)

    def visible(self, allowed: NDArray[np.bool_] | None) -> dict[int, NDArray[np.float32]]:
        return {
            identifier: vector
            for identifier, (group, vector) in self.vectors.items()
            if allowed is None or (group < len(allowed) and allowed[group])
        }


def assert_same(
    found: tuple[NDArray[np.float32], NDArray[np.int64]],
    queries: NDArray[np.float32],
    k: int,
    visible: dict[int, NDArray[np.float32]],
) -> None:
    """Every id visible, none twice, the scores theirs, and no better one left out."""
    scores, ids = found
    assert scores.shape == ids.shape == (len(queries), min(k, len(visible)))
    for query, found_scores, found_ids in zip(queries, scores, ids, strict=True):
        best = sorted((float(query @ vector) for vector in visible.values()), reverse=True)[:k]
        np.testing.assert_allclose(found_scores, best, atol=1e-6)
        np.testing.assert_allclose([query @ visible[i] for i in found_ids.tolist()], found_scores, atol=1e-6)
        assert len(set(found_ids.tolist())) == len(found_ids)


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 30), st.integers(0, 5)),
        st.tuples(st.just("remove"), st.sets(st.integers(0, 300), max_size=20), st.just(0)),
        st.tuples(st.just("maintain"), st.just(0), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=12,
)
FILTERS = st.none() | st.lists(st.booleans(), max_size=7).map(lambda bits: np.array(bits, np.bool_))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), changes=CHANGES, k=st.integers(1, 40), count=st.integers(1, 6), allowed=FILTERS
)
def test_search_equals_brute_force_after_any_changes(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    changes: list,
    k: int,
    count: int,
    allowed: NDArray[np.bool_] | None,
) -> None:
    view, reference = VectorView(OPTIONS), Reference()
    random = np.random.default_rng(seed)
    for number, (change, what, group) in enumerate(changes):
        if change == "add":
            ids = view.max_id + np.cumsum(random.integers(1, 4, what))
            groups = np.full(what, group, np.int32)
            vectors = unit_rows(seed + number, what)
            view.add(ids, groups, vectors)
            reference.add(ids, groups, vectors)
        elif change == "remove":
            gone = np.array(sorted(what), np.int64)
            view.remove(gone)
            reference.remove(gone)
        elif change == "maintain":
            view.maintain()
        else:
            folder = tmp_path_factory.mktemp("view")
            view.save(folder)
            reopened = VectorView.open(folder, OPTIONS)
            assert reopened is not None
            assert reopened.max_id == view.max_id
            view = reopened
    queries = unit_rows(seed + 99, count)
    assert_same(view.search(queries, k, allowed), queries, k, reference.visible(allowed))
    assert_same(view.search_exact(queries, k, allowed), queries, k, reference.visible(allowed))
    assert view.ids().tolist() == sorted(reference.vectors)
    assert view.stats().rows == len(reference.vectors)


def filled(count: int, options: ViewOptions = OPTIONS) -> VectorView:
    view = VectorView(options)
    view.add(np.arange(count), np.arange(count, dtype=np.int32) // 5, unit_rows(1, count, options.dimension))
    return view


def test_an_empty_view_finds_nothing() -> None:
    scores, ids = VectorView(OPTIONS).search(unit_rows(0, 3), 5)
    assert scores.shape == ids.shape == (3, 0)


@pytest.mark.parametrize(
    ("ids", "groups", "vectors", "message"),
    [
        ([10, 11], [0, 0], np.zeros((2, DIMENSION)), "length 0"),
        ([10, 11], [0, 0], np.full((2, DIMENSION), np.nan), "NaN or infinity"),
        ([10, 11], [0, 0], np.full((2, DIMENSION), np.inf), "NaN or infinity"),
        ([10, 11], [0, 0], 1.01 * unit_rows(0, 2), "length 1.01"),
        ([10, 11], [0, 0], unit_rows(0, 2, 9), "dimension 8"),
        ([10, 11], [0, 0], unit_rows(0, 1)[0], "dimension 8"),
        ([10, 10], [0, 0], unit_rows(0, 2), "id 10 follows id 10"),
        ([9, 11], [0, 0], unit_rows(0, 2), "id 9 follows id 9"),
        ([10, 11, 12], [0, 0], unit_rows(0, 2), r"ids of shape \[3\]"),
        ([10, 11], [0], unit_rows(0, 2), r"groups of shape \[1\]"),
        ([10, 11], [0, -1], unit_rows(0, 2), "group -1"),
    ],
)
def test_what_cannot_be_right_is_refused_and_nothing_is_added(
    ids: list[int], groups: list[int], vectors: NDArray, message: str
) -> None:
    view = filled(10)
    with pytest.raises(InvalidInputError, match=message):
        view.add(np.array(ids), np.array(groups, np.int32), vectors.astype(np.float32))
    assert view.stats().rows == 10
    assert view.max_id == 9


@pytest.mark.parametrize(
    "query", [np.zeros((1, 8)), np.full((1, 8), np.nan), unit_rows(0, 1, 4), 2 * unit_rows(0, 1)]
)
def test_a_query_that_cannot_be_right_is_refused(query: NDArray) -> None:
    with pytest.raises(InvalidInputError):
        filled(10).search(query.astype(np.float32), 3)


def test_a_filter_of_numbers_is_refused() -> None:
    """As positions, [0, 1] would show documents 0 and 1 where document 0 was to be hidden."""
    with pytest.raises(InvalidInputError, match="expected bool"):
        filled(10).search(unit_rows(0, 1), 3, np.array([0, 1], np.int8))  # type: ignore[arg-type]


def test_fewer_than_one_result_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="k = 0"):
        filled(10).search(unit_rows(0, 1), 0)


def test_a_removed_id_is_never_returned_by_a_search_begun_afterwards() -> None:
    view, gone, broken = filled(2000), [], []
    queries = unit_rows(7, 4)

    def search() -> None:
        while not done.is_set():
            removed = set(gone[: len(gone)])
            _, ids = view.search(queries, 50)
            broken.extend(removed & set(ids.ravel().tolist()))

    done = threading.Event()
    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for identifier in np.random.default_rng(0).permutation(2000)[:1500]:
        view.remove(np.array([identifier]))
        gone.append(int(identifier))
        if identifier % 100 == 0:
            view.maintain()
    done.set()
    for thread in threads:
        thread.join()
    assert broken == []
    assert view.stats().rows == 500


def test_rows_that_die_while_they_are_listed_leave_no_numbers_of_nothing() -> None:
    count, wrong, done = 2000, [], threading.Event()
    store = RowStore(1, count)
    store.append(np.arange(1, count + 1), np.zeros(count, np.int32), np.ones((count, 1), np.float32))

    def look() -> None:
        while not done.is_set():
            living = store.rows.living()
            if len(living) and not (living[0] >= 0 and living[-1] < count and np.all(np.diff(living) > 0)):
                wrong.append(living)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(1000):
        for row in range(count):
            store.rows.live[row] = False
        store.rows.live[:] = True
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_snapshot_of_other_options_is_not_opened(tmp_path: Path) -> None:
    filled(10).save(tmp_path)
    assert VectorView.open(tmp_path, ViewOptions(dimension=DIMENSION, device="cpu", target_recall=0.9)) is None
    assert VectorView.open(tmp_path, OPTIONS) is not None


def test_where_nothing_was_saved_nothing_is_opened(tmp_path: Path) -> None:
    assert VectorView.open(tmp_path / "none", OPTIONS) is None


def damage_to(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("how", ["delete", "truncate", "empty", "flip"])
def test_a_damaged_snapshot_is_not_opened(tmp_path: Path, how: str) -> None:
    filled(50).save(tmp_path / "0")
    count = len(damage_to(tmp_path / "0"))
    assert count >= 2
    for number in range(count):
        folder = tmp_path / f"{how}-{number}"
        filled(50).save(folder)
        path = damage_to(folder)[number]
        content = path.read_bytes()
        if how == "delete":
            path.unlink()
        elif how == "truncate":
            path.write_bytes(content[:-1] if path.suffix != ".json" else content[:-3])
        elif how == "empty":
            path.write_bytes(b"")
        else:
            path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
        assert VectorView.open(folder, OPTIONS) is None, path


def test_a_save_cut_off_leaves_the_snapshot_before(tmp_path: Path) -> None:
    """What a killed save leaves: a folder that no pointer names. The next save sweeps it."""
    view = filled(10)
    view.save(tmp_path)
    (tmp_path / ".staging-cut").mkdir()
    (tmp_path / "snapshot-cut").mkdir()
    (tmp_path / "snapshot-cut" / "vectors.npy").write_bytes(b"half")
    opened = VectorView.open(tmp_path, OPTIONS)
    assert opened is not None
    assert opened.ids().tolist() == list(range(10))
    view.remove(np.array([3]))
    view.save(tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    again = VectorView.open(tmp_path, OPTIONS)
    assert again is not None
    assert 3 not in again.ids()
