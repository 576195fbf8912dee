"""A collection on Milvus finds what NumPy finds, whatever befalls Milvus; what it cannot take is not lost."""

import importlib.util
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade_stores import document, in_memory, new_database, opened_on, unit_vectors
from milvus_server import ENVIRONMENT, REPOSITORY, MilvusLite

from index.collection.documents import Access
from index.collection.filters import parse_filter
from index.collection.scope import EVERYTHING, Scope
from index.collection.store import CollectionStore
from index.collection.views import Views
from index.interface import EVERYONE, Record
from index.milvus.client import INDEXED, Milvus, MilvusOptions
from index.milvus.expressions import expressions
from index.milvus.views import OnMilvus
from index.registry import CollectionRegistry
from index.service import IndexService
from local_llm.errors import SettingsError, UnavailableError
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import State

VECTORS = unit_vectors(60)
SUPPORT = Scope(("group:support",))
DEVICES = Scope(None, parse_filter({"type": "eq", "key": "area", "value": "device"}))
NOT_DEVICES = Scope(("group:sales",), parse_filter({"type": "ne", "key": "area", "value": "device"}))
SCOPES = (EVERYTHING, SUPPORT, DEVICES, NOT_DEVICES)


def no_sample(_store: CollectionStore) -> np.ndarray:
    raise AssertionError("Milvus tunes itself")


class Twin:
    """A collection, and beside it what it should hold, searched by NumPy."""

    def __init__(self, store: CollectionStore, seed: int = 0):
        self.store = store
        self.kept: dict[str, tuple[Any, dict[str, Any], np.ndarray]] = {}
        self._random = random.Random(seed)

    def write(self, names: Sequence[str]) -> None:
        """Adds or replaces, each with another vector than any before."""
        new = []
        for name in names:
            allow = self._random.choice([None, (), ("group:support",), ("group:support", "group:sales")])
            attributes = self._random.choice([{}, {"area": "device"}, {"area": "law"}])
            vectors = unit_vectors(self._random.choice([1, 2, 3]), seed=self._random.randrange(2**32))
            self.kept[name] = (allow, attributes, vectors)
            asked = (EVERYONE,) if allow is None else allow
            new.append(document(name, vectors, allow=asked, attributes=attributes))
        self.store.write(new)

    def remove(self, name: str) -> None:
        self.store.remove([name], None)
        del self.kept[name]

    def restrict(self, name: str, allow: tuple[str, ...]) -> None:
        self.store.set_access(name, Access(allow), None)
        self.kept[name] = (allow, *self.kept[name][1:])

    def some_changes(self, count: int) -> None:
        for _ in range(count):
            name = self._random.choice(sorted(self.kept))
            change = self._random.choice(["write", "remove", "restrict", "new"])
            if change == "remove" and len(self.kept) > 3:
                self.remove(name)
            elif change == "restrict":
                self.restrict(name, self._random.choice([(), ("group:sales",), ("group:support",)]))
            else:
                self.write([name if change == "write" else f"new{self._random.randrange(10**6)}"])

    def move(self, encoder: str, dimension: int) -> None:
        """To vectors that another encoder makes of the same passages."""
        following = self.store.begin_generation(encoder, encoder)
        names = {self.store.find(name).number: name for name in self.kept}
        for lacking in following.lacking(1000, after=0):
            vectors = unit_vectors(len(lacking.texts), dimension, seed=self._random.randrange(2**32))
            following.write([lacking], [vectors])
            self.kept[names[lacking.number]] = (*self.kept[names[lacking.number]][:2], vectors)
        self.store.adopt(following, lambda: None)

    def assert_same(self, dimension: int = 16) -> None:
        for scope in SCOPES:
            for k in (1, 4, 500):
                query = unit_vectors(1, dimension, seed=self._random.randrange(2**32))[0]
                hits = self.store.search("c", query, k, scope)
                expected = sorted(
                    ((float(vector @ query), name) for name, (allow, attributes, vectors) in self.kept.items()
                     for vector in vectors if scope.admits(allow, attributes)),
                    reverse=True,
                )[:k]  # fmt: skip
                assert [hit.document for hit in hits] == [name for _, name in expected]
                np.testing.assert_allclose([hit.score for hit in hits], [score for score, _ in expected], atol=1e-5)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return new_database(tmp_path)


@pytest.fixture
def twin(database: Path, views: Views) -> Iterator[Twin]:
    twin = Twin(opened_on(database, views))
    twin.write([f"d{at}" for at in range(20)])
    yield twin
    twin.store.close(snapshot=False)


@pytest.fixture
def milvus_twin(database: Path, on_milvus: OnMilvus) -> Iterator[Twin]:
    twin = Twin(opened_on(database, on_milvus))
    twin.write([f"d{at}" for at in range(20)])
    twin.assert_same()
    yield twin
    twin.store.close(snapshot=False)


def test_search_equals_brute_force_after_any_changes(twin: Twin) -> None:
    twin.assert_same()
    for _ in range(3):
        twin.some_changes(12)
        twin.assert_same()


def test_a_filter_in_several_expressions_finds_the_same(milvus_twin: Twin, on_milvus: OnMilvus) -> None:
    view = milvus_twin.store._view
    allowed = np.random.default_rng(1).random(21) < 0.5
    assert len(list(expressions(allowed, 3))) > 2
    query = VECTORS[:1]
    whole = view.search(query, 7, allowed)[1]
    parts = np.concatenate([view._collection.search(query, 50, one)[0].ids for one in expressions(allowed, 3)])
    assert set(whole[0].tolist()) <= set(parts.tolist())
    assert len(parts) == view.search(query, 500, allowed)[1].shape[1]


def test_what_milvus_lost_is_filled_from_the_database(
    milvus_twin: Twin, milvus_lite: MilvusLite, on_milvus: OnMilvus
) -> None:
    """A collection dropped behind our back, under a view that knows nothing of it."""
    (name,) = on_milvus._milvus.names(on_milvus._milvus.options.prefix)
    on_milvus._milvus.drop(name)
    milvus_twin.assert_same()
    on_milvus._milvus.drop(name)
    milvus_twin.write(["after"])
    assert milvus_twin.store.maintain(no_sample) is False
    milvus_twin.assert_same()


def test_a_collection_half_made_in_milvus_is_made_anew(milvus_twin: Twin, on_milvus: OnMilvus) -> None:
    """Whoever made it was cut off before its indexes, without which it cannot be loaded."""
    milvus = on_milvus._milvus
    for field in INDEXED:
        (name,) = milvus.names(milvus.options.prefix)
        with milvus.asked() as client:
            client.release_collection(name)
            client.drop_index(name, field)
        milvus_twin.store._view._miss()
        milvus_twin.assert_same()
        with milvus.asked() as client:
            assert sorted(client.list_indexes(name)) == sorted(INDEXED)


@pytest.mark.parametrize("made_exact", [True, False])
def test_exact_is_what_the_index_there_is_whatever_the_settings_say_by_now(
    database: Path, on_milvus: OnMilvus, made_exact: bool
) -> None:
    options = on_milvus._milvus.options
    for exact in (made_exact, not made_exact):
        views = OnMilvus(replace(options, exact=exact))
        store = opened_on(database, views)
        store.write([document("a", VECTORS[:2])])
        store.maintain(no_sample)
        stats = store.view_stats()
        assert stats is not None
        assert stats.recall == (1.0 if made_exact else None)
        store.close(snapshot=False)
        views.close()


def test_opened_again_it_takes_what_it_lacks_and_loses_what_is_gone(
    database: Path, milvus_twin: Twin, on_milvus: OnMilvus
) -> None:
    """What came while the collection was held in memory, the last opening of Milvus being long ago."""
    milvus_twin.store.close(snapshot=False)
    milvus_twin.store = opened_on(database, in_memory())
    milvus_twin.some_changes(15)
    milvus_twin.store.close(snapshot=False)
    milvus_twin.store = opened_on(database, on_milvus)
    milvus_twin.assert_same()
    held = on_milvus.open(milvus_twin.store._database, 1, 16).ids()
    assert held.tolist() == milvus_twin.store._view.ids().tolist()
    assert len(held) == sum(len(vectors) for _, _, vectors in milvus_twin.kept.values())


def test_ids_given_again_after_a_backup_bring_back_no_old_vector(
    database: Path, milvus_twin: Twin, on_milvus: OnMilvus
) -> None:
    milvus_twin.store.close(snapshot=False)
    backup, kept = database.read_bytes(), dict(milvus_twin.kept)
    milvus_twin.store = opened_on(database, on_milvus)
    milvus_twin.write(["d3", "lost"])
    milvus_twin.assert_same()
    milvus_twin.store.close(snapshot=False)
    database.write_bytes(backup)
    milvus_twin.kept = kept
    milvus_twin.store = opened_on(database, in_memory())  # so that the ids are given before Milvus is asked
    milvus_twin.write(["d3", "found"])
    milvus_twin.store.close(snapshot=False)
    milvus_twin.store = opened_on(database, on_milvus)
    milvus_twin.assert_same()


def maintained_at_last(store: CollectionStore) -> None:
    """As upkeep does it: tried again until it succeeds."""
    given_up = time.monotonic() + 120
    while True:
        try:
            assert store.maintain(no_sample) is False
            return
        except UnavailableError:
            assert time.monotonic() < given_up
            time.sleep(0.5)


def test_an_outage_costs_searches_and_no_change(
    milvus_twin: Twin, milvus_lite: MilvusLite, on_milvus: OnMilvus, database: Path
) -> None:
    options = MilvusOptions(milvus_lite.uri, prefix=on_milvus._milvus.options.prefix, timeout_seconds=3, exact=True)
    impatient = OnMilvus(options)
    milvus_twin.store.close(snapshot=False)
    milvus_twin.store = opened_on(database, impatient)
    milvus_twin.assert_same()
    milvus_lite.kill()
    try:
        milvus_twin.some_changes(10)
        milvus_twin.remove(sorted(milvus_twin.kept)[0])
        with pytest.raises(UnavailableError, match="Milvus at http://127") as caught:
            milvus_twin.store.search("c", VECTORS[0], 3, EVERYTHING)
        assert "milvus_uri" in str(caught.value.hint)
        with pytest.raises(UnavailableError):
            milvus_twin.store.maintain(no_sample)
        milvus_twin.store.close(snapshot=False)
        milvus_twin.store = opened_on(database, impatient)  # opened, and written to, without Milvus
        milvus_twin.write(["during"])
        assert milvus_twin.store.documents(None)
    finally:
        milvus_lite.start()
    maintained_at_last(milvus_twin.store)
    milvus_twin.assert_same()
    impatient.close()


def test_a_milvus_that_hangs_holds_up_one_search_a_second(
    milvus_twin: Twin, milvus_lite: MilvusLite, on_milvus: OnMilvus, database: Path
) -> None:
    impatient = OnMilvus(replace(on_milvus._milvus.options, timeout_seconds=3))
    milvus_twin.store.close(snapshot=False)
    milvus_twin.store = opened_on(database, impatient)
    maintained_at_last(milvus_twin.store)

    def failed() -> tuple[float, str]:
        began = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            milvus_twin.store.search("c", VECTORS[0], 3, EVERYTHING)
        return time.monotonic() - began, caught.value.message

    def maintain_in_vain() -> None:
        with suppress(UnavailableError):
            milvus_twin.store.maintain(no_sample)

    with milvus_lite.hanging():
        waited, message = failed()
        assert 2.5 < waited < 5.5  # and it does not try again
        following = [failed() for _ in range(10)]
        assert sum(waited for waited, _ in following) < 5
        assert following[0][1] == message
        milvus_twin.write(["meanwhile"])  # of which Milvus is not told: somebody has to bring it up to date
        upkeep = threading.Thread(target=maintain_in_vain, daemon=True)
        upkeep.start()
        time.sleep(1)
        waited, message = failed()
        assert waited < 2
        assert "is being filled" in message
        upkeep.join()
    time.sleep(1)
    milvus_twin.assert_same()
    impatient.close()


def test_another_encoder_leaves_nothing_of_the_one_before(milvus_twin: Twin, on_milvus: OnMilvus) -> None:
    milvus_twin.move("another", dimension=8)
    milvus = on_milvus._milvus
    assert len(milvus.names(milvus.options.prefix)) == 1
    milvus_twin.assert_same(dimension=8)


def test_a_generation_number_given_again_after_a_backup_brings_back_no_other_encoder(
    database: Path, milvus_twin: Twin, on_milvus: OnMilvus
) -> None:
    """Ids, stamps and dimension of both are the same."""
    milvus_twin.store.close(snapshot=False)
    backup = database.read_bytes()
    for encoder in ("one", "two"):
        database.write_bytes(backup)
        milvus_twin.store = opened_on(database, on_milvus)
        milvus_twin.move(encoder, dimension=16)
        assert milvus_twin.store.generation.number == 2
        milvus_twin.assert_same()
        milvus_twin.store.close(snapshot=False)
    milvus = on_milvus._milvus
    assert len(milvus.names(milvus.options.prefix)) == 1


def test_a_deleted_collection_leaves_nothing_in_milvus(
    settings: Settings, state: State, admin: Caller, milvus_lite: MilvusLite
) -> None:
    chosen = settings.index.model_copy(
        update={"milvus_uri": milvus_lite.uri, "milvus_prefix": "deleted", "milvus_timeout_seconds": 60}
    )
    service = IndexService(settings.model_copy(update={"index": chosen}), state)
    milvus = Milvus(MilvusOptions(milvus_lite.uri, timeout_seconds=60))
    made = service.create(admin, None, dimension=16)
    service.put(admin, made.id, [Record("a", "text", vector=VECTORS[0].tolist())])
    assert [hit.document for hit in service.search(admin, made.id, VECTORS[0].tolist())] == ["a"]
    assert service.stats(admin, made.id).search.structure == "milvus"
    (name,) = milvus.names("deleted")
    assert name.startswith(f"deleted_{made.id}_1_")
    service.delete(admin, made.id)
    assert milvus.names("deleted") == []
    service.close()
    milvus.close()


def test_a_collection_deleted_while_milvus_is_away_is_dropped_at_the_next_start(
    settings: Settings, state: State, admin: Caller
) -> None:
    registry = CollectionRegistry(settings, state)
    made = registry.create(admin, None, encoder="external", fingerprint="external", dimension=16)
    folder = registry.database(made.id).parent
    (folder / "view-1").mkdir()
    registry.delete(admin, made.id)
    asked: list[Path] = []

    def away(database: Path) -> None:
        asked.append(database)
        raise UnavailableError("away")

    registry.remove_folder(folder, away)
    assert list(folder.iterdir()) == []
    registry.remove_abandoned(asked.append)
    assert asked == [folder / "collection.db"] * 2
    assert not folder.exists()


def test_without_its_client_milvus_is_refused_at_the_start() -> None:
    if importlib.util.find_spec("pymilvus") and str(ENVIRONMENT) not in str(importlib.util.find_spec("pymilvus")):
        pytest.skip("pymilvus is installed here")
    program = "from index.milvus.client import *; Milvus(MilvusOptions('http://127.0.0.1:1'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert "SettingsError: index.milvus_uri is 'http://127.0.0.1:1', and there is no pymilvus" in done.stderr


def test_a_token_file_that_cannot_be_read_is_named(on_milvus: OnMilvus, tmp_path: Path) -> None:
    options = MilvusOptions(on_milvus._milvus.options.uri, token_file=tmp_path / "none")
    with pytest.raises(SettingsError, match="milvus_token_file"):
        Milvus(options)
