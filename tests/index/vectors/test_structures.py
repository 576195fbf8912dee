"""Views large enough for a structure: what it finds against exact search, and that changes never wait for it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.vectors.view import VectorView, ViewOptions

DIMENSION = 48
ROWS = 20_000
ROWS_A_DOCUMENT = 10
STRUCTURES = ("ivf", "flat16")


def on_unit_sphere(rows: NDArray) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def documents(seed: int, rows: int) -> NDArray[np.float32]:
    """Documents of ten rows about one of two hundred subjects, as sentences lie."""
    random_ = np.random.default_rng(seed)
    subjects = np.random.default_rng(0).normal(size=(200, DIMENSION))
    about = subjects[np.repeat(random_.integers(0, 200, -(-rows // ROWS_A_DOCUMENT)), ROWS_A_DOCUMENT)[:rows]]
    return on_unit_sphere(about + 0.7 * random_.normal(size=(rows, DIMENSION)))


def numbers_of_documents(rows: int) -> NDArray[np.int32]:
    return (np.arange(rows) // ROWS_A_DOCUMENT).astype(np.int32)


def maintained(view: VectorView) -> VectorView:
    while view.maintain():
        pass
    return view


def filled(structure: str, rows: int) -> VectorView:
    view = VectorView(ViewOptions(DIMENSION, "cpu", structure))  # type: ignore[arg-type]
    view.add(np.arange(rows), numbers_of_documents(rows), documents(1, rows))
    return maintained(view)


def recall(view: VectorView, queries: NDArray[np.float32], allowed: NDArray[np.bool_] | None) -> float:
    _, true = view.search_exact(queries, 10, allowed)
    found = [view.search(query[None], 10, allowed)[1][0] for query in queries]
    return sum(len(set(line) & set(goal)) for line, goal in zip(found, true.tolist(), strict=True)) / true.size


QUERIES = documents(2, 100)
CENTRES = documents(1, ROWS).reshape(-1, ROWS_A_DOCUMENT, DIMENSION).mean(axis=1)


def at_random(share: float) -> NDArray[np.bool_]:
    return np.random.default_rng(3).random(len(CENTRES)) < share


def near_a_subject(share: float) -> NDArray[np.bool_]:
    nearness = CENTRES @ CENTRES[17]
    return nearness >= np.quantile(nearness, 1 - share)


def far_from_the_queries(share: float) -> NDArray[np.bool_]:
    nearness = (CENTRES @ QUERIES.T).max(axis=1)
    return nearness <= np.quantile(nearness, share)


@pytest.fixture(scope="module", params=STRUCTURES)
def large(request: pytest.FixtureRequest) -> VectorView:
    view = filled(request.param, ROWS)
    view.measure(documents(4, 200), "queries")
    return view


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("kind", [at_random, near_a_subject, far_from_the_queries])
def test_a_filter_loses_no_recall(large: VectorView, kind: Callable, share: float) -> None:
    allowed = kind(share)
    allowed.setflags(write=False)
    assert recall(large, QUERIES, allowed) >= 0.95
    _, found = large.search(QUERIES, 10, allowed)
    assert allowed[found[found >= 0] // ROWS_A_DOCUMENT].all()


def test_the_effort_reaches_the_target_and_stats_tell(large: VectorView) -> None:
    stats = large.stats()
    assert recall(large, QUERIES, None) >= 0.94  # other questions than those it was tuned on
    assert stats.rows == ROWS
    assert stats.recall is not None
    assert stats.recall >= 0.95
    assert (stats.recall_queries, stats.recall_source) == (200, "queries")
    assert not stats.below_target
    assert stats.structure in STRUCTURES


def test_less_is_looked_at_for_a_lower_target() -> None:
    efforts = []
    for target in (0.8, 0.99):
        view = VectorView(ViewOptions(DIMENSION, "cpu", "ivf", target_recall=target))
        view.add(np.arange(ROWS), numbers_of_documents(ROWS), documents(1, ROWS))
        maintained(view)
        assert view.stats().recall_source == "passages"
        view.measure(documents(4, 200), "queries")
        assert view.stats().recall >= target
        efforts.append(view.stats().effort)
    assert efforts[0] < efforts[1]


def test_small_views_are_exact_and_large_ones_are_not() -> None:
    view = VectorView(ViewOptions(DIMENSION, "cpu"))
    view.add(np.arange(1000), numbers_of_documents(1000), documents(1, 1000))
    assert maintained(view).stats().structure == "exact"
    more = np.arange(1000, 12_000)
    view.add(more, numbers_of_documents(len(more)), documents(5, len(more)))
    assert maintained(view).stats().structure == "ivf"


@settings(max_examples=15, deadline=None)
@given(
    structure=st.sampled_from(STRUCTURES),
    seed=st.integers(0, 2**32 - 1),
    changes=st.lists(st.sampled_from(["add", "remove", "forget", "step", "reopen"]), max_size=10),
    k=st.integers(1, 30),
)
def test_whatever_is_found_is_there_allowed_and_scored_right(
    tmp_path_factory: pytest.TempPathFactory, structure: str, seed: int, changes: list[str], k: int
) -> None:
    """In the midst of upkeep too, which a step leaves anywhere: as many as there are, none twice, none else."""
    view, random_ = filled(structure, 1500), np.random.default_rng(seed)
    vectors = dict(enumerate(documents(1, 1500)))
    group_of = dict(enumerate(numbers_of_documents(1500).tolist()))
    for change in changes:
        if change == "add":
            count = int(random_.integers(1, 600))
            ids, rows = view.max_id + 1 + np.arange(count), documents(int(random_.integers(99)), count)
            groups = random_.integers(0, 160, count).astype(np.int32)
            view.add(ids, groups, rows)
            vectors |= dict(zip(ids.tolist(), rows, strict=True))
            group_of |= dict(zip(ids.tolist(), groups.tolist(), strict=True))
        elif change in {"remove", "forget"}:
            gone = random_.integers(0, view.max_id + 1, 700 if change == "forget" else 20)
            view.remove(gone)
            for identifier in gone.tolist():
                vectors.pop(identifier, None)
        elif change == "step":
            view.maintain()
        else:
            folder = tmp_path_factory.mktemp("view")
            view.save(folder)
            view = VectorView.open(folder, view.options) or pytest.fail("not opened")
    for allowed in (None, random_.random(120) < 0.5):
        visible = {i for i in vectors if allowed is None or (group_of[i] < 120 and allowed[group_of[i]])}
        scores, ids = view.search(QUERIES[:3], k, allowed)
        assert ids.shape == (3, min(k, len(visible)))
        for query, line, found in zip(QUERIES, scores, ids.tolist(), strict=False):
            assert set(found) <= visible
            assert len(set(found)) == len(found)
            np.testing.assert_allclose(line, [query @ vectors[i] for i in found], atol=1e-5)
            assert (np.diff(line) <= 0).all()
    assert view.ids().tolist() == sorted(vectors)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_when_too_many_are_dead_they_leave_memory_and_changes_meanwhile_hold(structure: str) -> None:
    view = filled(structure, 4000)
    before = view.stats().bytes
    view.remove(np.arange(0, 4000, 2))
    assert view.stats().tombstones == 2000
    view.maintain()  # the copy has begun
    view.remove(np.arange(1, 100))
    view.add(np.arange(4000, 4050), np.full(50, 400, np.int32), documents(9, 50))
    maintained(view)
    stats = view.stats()
    assert (stats.tombstones, stats.rows) == (50, 2000)
    assert stats.bytes < before
    expected = [*range(101, 4000, 2), *range(4000, 4050)]
    assert view.ids().tolist() == expected
    assert recall(view, QUERIES, None) >= 0.9


def test_what_is_added_is_found_before_and_after_it_is_folded() -> None:
    view = filled("ivf", 2000)
    new = documents(8, 300)
    view.add(np.arange(2000, 2300), np.full(300, 200, np.int32), new)
    assert view.stats().tail == 300
    assert (view.search(new, 1)[1][:, 0] == np.arange(2000, 2300)).all()
    maintained(view)
    assert view.stats().tail < 256
    assert (view.search(new, 1)[1][:, 0] == np.arange(2000, 2300)).mean() >= 0.95


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_removed_id_is_never_returned_while_upkeep_goes_on(structure: str) -> None:
    view, gone, broken = filled(structure, 3000), [], []
    allowed = np.ones(300, np.bool_)
    allowed.setflags(write=False)
    done = threading.Event()

    def search(filter_: NDArray[np.bool_] | None) -> None:
        while not done.is_set():
            removed = set(gone[: len(gone)])
            _, ids = view.search(QUERIES[:1], 60, filter_)
            broken.extend(removed & set(ids.ravel().tolist()))

    def keep_up() -> None:
        while not done.is_set():
            view.maintain()

    threads = [threading.Thread(target=search, args=(filter_,)) for filter_ in (None, allowed)]
    threads.append(threading.Thread(target=keep_up))
    for thread in threads:
        thread.start()
    order = view.search_exact(QUERIES[:1], 3000)[1][0]  # the nearest first, those that searches return
    for number, identifier in enumerate(order[:1500].tolist()):
        view.remove(np.array([identifier]))
        gone.append(identifier)
        if number % 50 == 0:
            view.add(np.array([view.max_id + 1]), np.array([0], np.int32), documents(number, 1))
    done.set()
    for thread in threads:
        thread.join()
    assert broken == []
    assert view.stats().rows == 1530


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_filter_kept_by_its_identity_forgets_nothing(structure: str) -> None:
    """A filter that may be written to is read anew; one that may not still sees what was added and removed."""
    view = filled(structure, 4000)
    allowed = np.zeros(500, np.bool_)
    allowed[:300] = True
    assert (view.search(QUERIES, 10, allowed)[1] < 3000).all()
    allowed[:300], allowed[300:] = False, True
    assert (view.search(QUERIES, 10, allowed)[1] >= 3000).all()
    allowed.setflags(write=False)
    first = view.search(QUERIES, 10, allowed)[1]
    view.remove(np.unique(first))
    assert not set(view.search(QUERIES, 10, allowed)[1].ravel()) & set(first.ravel())
    view.add(np.arange(4000, 4100), np.full(100, 450, np.int32), QUERIES)
    assert (view.search(QUERIES, 1, allowed)[1][:, 0] == np.arange(4000, 4100)).all()
    maintained(view)
    view.add(np.arange(4100, 4500), np.full(400, 450, np.int32), documents(77, 400))
    maintained(view)
    assert (view.search(QUERIES, 1, allowed)[1][:, 0] >= 4000).mean() >= 0.95


def test_a_view_opened_again_finds_the_same_with_the_same_effort(tmp_path: Path) -> None:
    view = filled("ivf", 3000)
    view.measure(QUERIES, "queries")
    view.remove(np.arange(50))
    view.add(np.arange(3000, 3010), np.zeros(10, np.int32), documents(6, 10))
    view.save(tmp_path)
    opened = VectorView.open(tmp_path, view.options)
    assert opened is not None
    assert opened.stats() == replace(view.stats(), bytes=opened.stats().bytes)
    for found, again in zip(view.search(QUERIES, 10), opened.search(QUERIES, 10), strict=True):
        np.testing.assert_array_equal(found, again)
    assert opened.max_id == 3009


def test_a_damaged_snapshot_of_a_structure_is_not_opened(tmp_path: Path) -> None:
    view = filled("ivf", 1000)
    view.measure(QUERIES, "queries")
    view.save(tmp_path / "0")
    count = len([path for path in (tmp_path / "0").rglob("*") if path.is_file()])
    assert count == 8
    for number in range(count):
        folder = tmp_path / f"cut-{number}"
        view.save(folder)
        path = sorted(path for path in folder.rglob("*") if path.is_file())[number]
        path.write_bytes(path.read_bytes()[:-8])
        assert VectorView.open(folder, view.options) is None, path


SAVING = """
import sys, numpy as np
from pathlib import Path
from index.vectors.view import VectorView, ViewOptions
view = VectorView(ViewOptions(8, "cpu", "ivf"))
rows = np.random.default_rng(0).normal(size=(100_000, 8))
rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
count = 1000
view.add(np.arange(count), np.zeros(count, np.int32), rows[:count])
while view.maintain(): pass
while True:
    view.save(Path(sys.argv[1]))
    print(count, flush=True)
    view.add(np.arange(count, count + 100), np.zeros(100, np.int32), rows[count : count + 100])
    count += 100
"""


def test_a_save_killed_at_any_instant_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    repository = Path(__file__).parents[3]
    random_ = random.Random(5)
    for number in range(3):
        folder = tmp_path / str(number)
        with subprocess.Popen(
            [sys.executable, "-c", SAVING, str(folder)], cwd=repository, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random_.uniform(0.05, 0.5))
            os.kill(process.pid, signal.SIGKILL)
            acknowledged = [1000, *map(int, process.stdout.read().split())][-1]
        opened = VectorView.open(folder, ViewOptions(8, "cpu", "ivf"))
        assert opened is not None
        assert opened.stats().rows in {acknowledged, acknowledged + 100}
        assert opened.ids().tolist() == list(range(opened.stats().rows))
