"""Whatever is asked while everything changes: nothing forbidden is found, and nothing allowed is missing."""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade_stores import document, in_memory, new_database, opened_on, unit_vectors

from index.collection.documents import Access
from index.collection.filters import parse_filter
from index.collection.scope import Scope
from index.collection.store import CollectionStore
from index.interface import EVERYONE, Hit

SEARCHES = 10_000
SEARCHES_ON_MILVUS = 300  # Milvus Lite takes a hundred times as long for one
SEARCHERS = 2
DOCUMENTS = 120
PRINCIPALS = ("user:ana", "user:ben", "user:eve", "group:support", "group:sales")
VALUES: dict[str, tuple[Any, ...]] = {
    "area": ("device", "law", "", "1"),
    "year": (1, 2020, 2021.5, -3),
    "open": (True, False, 1),
}
FOREVER = float("inf")


@dataclass(frozen=True)
class Version:
    """What a document is between two changes; vector None: it is not there.

    It can be met from the moment the change began until the next one was acknowledged.
    """

    began: float
    allow: tuple[str, ...] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    vector: np.ndarray | None = None


class Life:
    """All versions of one document, changed by one thread only."""

    def __init__(self, name: str, first: Version):
        self.name = name
        self.versions = [first]
        self.acknowledged = [0.0]

    def possible(self, start: float, end: float) -> list[Version]:
        """What a search that began and ended then may have met."""
        versions, acknowledged = self.versions, list(self.acknowledged)
        ends = [*acknowledged[1:], FOREVER]
        ends += [FOREVER] * (len(versions) - len(ends))
        return [one for one, over in zip(list(versions), ends, strict=False) if one.began <= end and over >= start]


class Changer(threading.Thread):
    """Goes through its own documents again and again, and changes each in some way."""

    def __init__(self, store: CollectionStore, lives: list[Life], seed: int, done: threading.Event):
        super().__init__()
        self._store, self._lives, self._random, self._done = store, lives, random.Random(seed), done
        self.changes = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._done.is_set():
                self._change(self._random.choice(self._lives))
                self.changes += 1
                time.sleep(0.001)
        except BaseException as error:
            self.error = error

    def _change(self, life: Life) -> None:
        old = life.versions[-1]
        kind = (
            "add"
            if old.vector is None
            else self._random.choice(["access", "access", "attributes", "replace", "remove"])
        )
        allow, attributes = some_allow(self._random), some_attributes(self._random)
        vector = random_vector(self._random)
        began = time.monotonic()
        if kind == "access":
            life.versions.append(Version(began, allow, old.attributes, old.vector))
            self._store.set_access(life.name, Access(as_asked(allow), None), None)
        elif kind == "attributes":
            life.versions.append(Version(began, old.allow, attributes, old.vector))
            self._store.set_access(life.name, Access(None, attributes), None)
        elif kind == "remove":
            life.versions.append(Version(began))
            self._store.remove([life.name], None)
        else:
            life.versions.append(Version(began, allow, attributes, vector))
            self._store.write([document(life.name, vector, allow=as_asked(allow), attributes=attributes)])
        life.acknowledged.append(time.monotonic())


def some_allow(rng: random.Random) -> tuple[str, ...] | None:
    return None if rng.random() < 0.3 else tuple(rng.sample(PRINCIPALS, rng.choice([0, 1, 1, 2])))


def as_asked(allow: tuple[str, ...] | None) -> tuple[str, ...]:
    return (EVERYONE,) if allow is None else allow


def some_attributes(rng: random.Random) -> dict[str, Any]:
    return {key: rng.choice(values) for key, values in VALUES.items() if rng.random() < 0.8}


def some_filter(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    if depth < 2 and rng.random() < 0.3:
        inner = [some_filter(rng, depth + 1) for _ in range(rng.choice([1, 2, 3]))]
        return {"type": rng.choice(["and", "or"]), "filters": inner}
    key = rng.choice([*VALUES, "missing"])
    values = VALUES.get(key, (1,))
    kind = rng.choice(["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"])
    asked: Any = list(rng.sample(values, rng.choice([0, 1, 2]) % (len(values) + 1)))
    return {"type": kind, "key": key, "value": asked if kind in ("in", "nin") else rng.choice(values)}


def some_scope(rng: random.Random) -> Scope:
    principals = None if rng.random() < 0.1 else tuple(rng.sample(PRINCIPALS, rng.choice([0, 1, 1, 2])))
    return Scope(principals, parse_filter(some_filter(rng)) if rng.random() < 0.6 else None)


def random_vector(rng: random.Random) -> np.ndarray:
    return unit_vectors(1, seed=rng.randrange(2**32))[0]


def faults(
    hits: list[Hit], lives: list[Life], scope: Scope, query: np.ndarray, k: int, span: tuple[float, float]
) -> list[str]:
    """What no order of changes and searches could explain."""
    found = {hit.document: hit for hit in hits}
    wrong = ["the same twice"] if len(found) < len(hits) else []
    wrong += ["out of order"] if any(a.score < b.score for a, b in pairwise(hits)) else []
    worst = hits[-1].score if len(hits) == k else -FOREVER
    for life in lives:
        versions = life.possible(*span)
        hit = found.get(life.name)
        if hit is None:
            vector = versions[0].vector
            sure = all(
                one.vector is vector and vector is not None and scope.admits(one.allow, one.attributes)
                for one in versions
            )
            if sure and vector is not None and float(vector @ query) > worst + 1e-5:
                wrong.append(f"{life.name} is missing")
        elif not any(
            one.vector is not None
            and scope.admits(one.allow, one.attributes)
            and repr(one.attributes)
            == repr({key: hit.attributes[key] for key in one.attributes if key in hit.attributes})
            and len(one.attributes) == len(hit.attributes)
            for one in versions
        ):
            wrong.append(f"{hit.document} is forbidden: {hit.attributes} {versions}")
    return wrong


@pytest.fixture(params=["exact", "ivf", "milvus"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[CollectionStore, list[Life]]]:
    rng = random.Random(11)
    views = request.getfixturevalue("on_milvus") if request.param == "milvus" else in_memory(request.param)
    store = opened_on(new_database(tmp_path), views)
    lives = [
        Life(f"doc{at}", Version(0.0, some_allow(rng), some_attributes(rng), random_vector(rng)))
        for at in range(DOCUMENTS)
    ]
    # Those before them stay as they are: enough for a structure, if there is to be one.
    ballast = unit_vectors(2000, seed=9)
    store.write([document("ballast", ballast, allow=["user:nobody"])])
    for life in lives:
        first = life.versions[0]
        store.write([document(life.name, first.vector, allow=as_asked(first.allow), attributes=first.attributes)])
    while store.maintain(lambda store: store.sample_vectors(50)):
        pass
    assert store.view_stats().structure == request.param
    yield store, lives
    store.close(snapshot=False)


def search(store: CollectionStore, lives: list[Life], rng: random.Random) -> list[str]:
    scope = some_scope(rng)
    k = rng.choice([1, 5, 5, 4000])
    if scope.principals is None:  # the ballast would be in the way
        scope = Scope(PRINCIPALS, scope.filter)
    query = random_vector(rng)
    start = time.monotonic()
    hits = store.search("c", query, k, scope)
    return faults(hits, lives, scope, query, k, (start, time.monotonic()))


def test_ten_thousand_searches_while_everything_changes(filled: tuple[CollectionStore, list[Life]]) -> None:
    store, lives = filled
    slow = store.view_stats().structure == "milvus"
    searches = SEARCHES_ON_MILVUS if slow else SEARCHES
    done = threading.Event()
    changers = [Changer(store, lives[at::3], at, done) for at in range(3)]
    wrong: list[str] = []
    asked = [0]

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(searches // (2 * SEARCHERS)):
            wrong.extend(search(store, lives, rng))
            asked[0] += 1

    def keep_up() -> None:
        while not done.wait(0.05):
            store.maintain(lambda store: store.sample_vectors(50))

    searchers = [threading.Thread(target=ask, args=(seed,)) for seed in range(SEARCHERS)]
    upkeep = threading.Thread(target=keep_up)
    for thread in (*changers, *searchers, upkeep):
        thread.start()
    for thread in searchers:
        thread.join()
    done.set()
    for thread in (*changers, upkeep):
        thread.join()
    assert [changer.error for changer in changers] == [None] * 3
    assert min(changer.changes for changer in changers) > (5 if slow else 50)
    assert wrong[:5] == []
    assert asked[0] > searches // 2 - SEARCHERS
    rng = random.Random(77)  # and once all is quiet, what is found is exactly what is allowed
    for _ in range(30 if slow else 300):
        assert search(store, lives, rng) == []


def test_the_watcher_sees_a_leak_and_a_loss() -> None:
    """What the test above relies on."""
    vector = unit_vectors(1)[0]
    life = Life("a", Version(0.0, ("user:ana",), {}, vector))
    life.versions.append(Version(5.0, (), {}, vector))
    life.acknowledged.append(6.0)
    hit = Hit("c", "a", "id", "a", None, {}, "a", 1, None, 0, 1, "a", "", 1.0, 1)
    scope = Scope(("user:ana",))
    assert faults([hit], [life], scope, vector, 5, (1.0, 2.0)) == []
    assert faults([hit], [life], scope, vector, 5, (5.5, 7.0)) == []
    assert faults([hit], [life], scope, vector, 5, (6.5, 7.0)) != []
    assert faults([], [life], scope, vector, 5, (6.5, 7.0)) == []
    assert faults([], [life], scope, vector, 5, (5.5, 7.0)) == []
    assert faults([], [life], scope, vector, 5, (1.0, 2.0)) == ["a is missing"]
    assert faults([hit, hit], [life], scope, vector, 5, (1.0, 2.0)) != []
