"""Whoever fills Milvus holds up nobody: filling a large collection takes hours."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from handmade_stores import document, in_memory, new_database, opened_on, unit_vectors
from milvus_server import MilvusLite

from index.collection.database import Database
from index.collection.store import CollectionStore
from index.milvus.client import Milvus, MilvusCollection
from index.milvus.truth import Block
from index.milvus.view import MilvusView
from index.milvus.views import OnMilvus
from index.open_stores import OpenStores
from local_llm.index_settings import IndexSettings

SOON_SECONDS = 20.0


class Endless(MilvusCollection):
    """Filled again and again."""

    def __init__(self, milvus: Milvus, name: str, dimension: int, begun: threading.Event):
        super().__init__(milvus, name, dimension)
        self._begun = begun

    def upsert(self, block: Block) -> None:
        while True:
            super().upsert(block)
            self._begun.set()


class EndlesslyFilled(OnMilvus):
    """So is the first generation of a collection."""

    def __init__(self, like: OnMilvus):
        super().__init__(like._milvus.options)
        self.begun = threading.Event()

    def open(self, database: Database, generation: int, dimension: int) -> MilvusView:
        view = super().open(database, generation, dimension)
        if generation == 1:
            view._collection = Endless(self._milvus, view.name, dimension, self.begun)
        return view

    def held(self) -> list[str]:
        return self._milvus.names(self._milvus.options.prefix)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = new_database(tmp_path)
    store = opened_on(path, in_memory())
    store.write([document(f"d{at}", vector) for at, vector in enumerate(unit_vectors(10))])
    store.close(snapshot=False)
    return path


@pytest.fixture
def views(on_milvus: OnMilvus) -> Iterator[EndlesslyFilled]:
    views = EndlesslyFilled(on_milvus)
    yield views
    views.close()


@pytest.fixture
def filled(database: Path, views: EndlesslyFilled) -> Iterator[CollectionStore]:
    """By upkeep, from now on; it must have ended when the test has."""
    store = opened_on(database, views)
    upkeep = threading.Thread(target=store.maintain, args=(lambda _store: np.empty((0, 16)),), daemon=True)
    upkeep.start()
    assert views.begun.wait(SOON_SECONDS)
    yield store
    upkeep.join(SOON_SECONDS)
    assert not upkeep.is_alive()
    store.close(snapshot=False)


def soon(do: Callable[[], None]) -> None:
    doing = threading.Thread(target=do, daemon=True)
    doing.start()
    doing.join(SOON_SECONDS)
    assert not doing.is_alive()


def test_closing_does_not_wait_for_a_fill(filled: CollectionStore) -> None:
    soon(filled.close)


def test_a_collection_deleted_while_it_is_filled_is_gone_from_milvus(
    filled: CollectionStore, database: Path, views: EndlesslyFilled
) -> None:
    soon(lambda: views.forget(database))
    assert views.held() == []


def test_another_encoder_does_not_wait_for_a_fill(filled: CollectionStore, views: EndlesslyFilled) -> None:
    following = filled.begin_generation("another", "another")
    for lacking in following.lacking(100, after=0):
        following.write([lacking], [unit_vectors(len(lacking.texts))])
    soon(lambda: filled.adopt(following, lambda: None))
    (name,) = views.held()
    assert "_2_" in name


def test_a_server_that_ends_does_not_wait_for_a_fill(
    milvus_lite: MilvusLite, database: Path, views: EndlesslyFilled
) -> None:
    stores = OpenStores(IndexSettings(milvus_uri=milvus_lite.uri), lambda _store: np.empty((0, 16)), built=print)
    stores._views._on_milvus = views
    stores.open(database.parent.name, database, lambda _store: None)
    stores.start_upkeep()
    assert views.begun.wait(SOON_SECONDS)
    soon(stores.close_all)


def test_a_fill_that_finds_its_collection_dropped_leaves_none_behind(database: Path, on_milvus: OnMilvus) -> None:
    """It was dropped after the fill had looked whether it is there."""

    class DroppedBefore(MilvusCollection):
        def ensure(self) -> None:
            super().ensure()
            on_milvus.forget(database)
            self.ended.clear()
            super().ensure()
            self.ended.set()

    store = opened_on(database, on_milvus)
    view = store._view
    assert isinstance(view, MilvusView)
    view._collection = DroppedBefore(on_milvus._milvus, view.name, 16)
    view.maintain()
    assert on_milvus._milvus.names(on_milvus._milvus.options.prefix) == []
    store.close(snapshot=False)
