"""While a document is replaced, searches find the old version or the new one: never both, never neither."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handmade_stores import document, new_database, opened, unit_vectors

from index.collection.scope import EVERYTHING
from index.collection.store import CollectionStore
from index.interface import Hit

REPLACEMENTS = 150
PASSAGES = 3
VECTORS = unit_vectors(40, seed=8)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CollectionStore]:
    store = opened(new_database(tmp_path))
    store.write([document(f"{at}", VECTORS[at], text="other") for at in range(10, 40)])
    store.write([document("it", VECTORS[:PASSAGES], text="version0 sought")])
    yield store
    store.close(snapshot=False)


def by_vector(store: CollectionStore) -> list[Hit]:
    return store.search("c", VECTORS[0], 100, EVERYTHING)


def by_words(store: CollectionStore) -> list[Hit]:
    return store.consistent("c", EVERYTHING, lambda: store.matching("sought", 100, EVERYTHING))


@pytest.mark.parametrize("ask", [by_vector, by_words])
def test_always_one_version_and_all_of_it(store: CollectionStore, ask: Callable) -> None:
    done = threading.Event()
    seen: set[int] = set()
    faults: list[str] = []

    def search() -> None:
        while not done.is_set():
            hits = [hit for hit in ask(store) if hit.document == "it"]
            versions = {hit.version for hit in hits}
            seen.update(versions)
            texts = {hit.text.split()[0] for hit in hits}
            if len(hits) != PASSAGES or len(versions) != 1 or len(texts) != 1:
                faults.append(f"{len(hits)} passages of versions {versions}: {texts}")

    searchers = [threading.Thread(target=search) for _ in range(2)]
    for searcher in searchers:
        searcher.start()
    for at in range(1, REPLACEMENTS):
        # The nearest passages of one version are those of the next: nothing but the version tells them apart.
        store.write([document("it", VECTORS[:PASSAGES], text=f"version{at} sought")])
    done.set()
    for searcher in searchers:
        searcher.join()
    assert faults == []
    assert len(seen) > 3


def test_document_opened_at_a_citation_is_of_one_version(store: CollectionStore) -> None:
    """Text and pages are read one after the other: they have to be of the same commit."""
    identifier = store.find("it").id
    done = threading.Event()
    faults: list[str] = []

    def read() -> None:
        while not done.is_set():
            found = store.document(identifier, None, None)
            if f"version{found.version - 1} " not in found.text:
                faults.append(f"{found.version}: {found.text}")

    reader = threading.Thread(target=read)
    reader.start()
    for at in range(1, 50):
        store.write([document("it", VECTORS[:PASSAGES], text=f"version{at} sought")])
    done.set()
    reader.join()
    assert faults == []
