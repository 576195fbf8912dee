"""A disk that is full, read-only or damaged: told clearly, nothing half done, everything else goes on."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from handmade_stores import DIMENSION, document, new_database, opened, unit_vectors

from index.collection.database import Database
from index.collection.scope import EVERYTHING
from index.interface import Record
from index.service import IndexService
from local_llm.errors import IntegrityError, LocalLLMError, NotFoundError, OutOfSpaceError
from local_llm.permissions import Caller

VECTORS = unit_vectors(400, seed=2)
DEADLINE_SECONDS = 30


def record(at: int, text: str = "words") -> Record:
    return Record(f"{at}", f"{text} {at}", vector=VECTORS[at].tolist())


def found(service: IndexService, caller: Caller, at: int, k: int = 1) -> list[str]:
    return [hit.document for hit in service.search(caller, "c", VECTORS[at].tolist(), k)]


def fill(disk: Path) -> Path:
    """Every last byte of it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as handle:
        for size in (1 << 16, 1 << 12):
            try:
                while handle.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return filler


def put_until_full(service: IndexService, caller: Caller) -> int:
    """Returns: how many were acknowledged."""
    for at in range(100, 400):
        before = len(service.documents(caller, "c"))
        with suppress(OutOfSpaceError):
            service.put(caller, "c", [record(at, "long " * 2000)])
        if len(service.documents(caller, "c")) == before:
            return at
    raise AssertionError("the disk was never full")


def test_full_disk_refuses_writes_changes_nothing_and_searches_go_on(
    small_disk: Path, open_box: Callable, capfd: pytest.CaptureFixture[str]
) -> None:
    service, caller = open_box(small_disk / "home", upkeep=True)
    service.create(caller, "c", dimension=DIMENSION)
    service.put(caller, "c", [record(at) for at in range(10)])
    filler = fill(small_disk)
    full_at = put_until_full(service, caller)
    before = [info.name for info in service.documents(caller, "c")]
    assert f"{full_at}" not in before
    assert found(service, caller, full_at)[0] != f"{full_at}"
    for act in (
        lambda: service.put(caller, "c", [record(at, "long " * 2000) for at in range(50, 80)]),
        lambda: service.create(caller, "another", dimension=3),
    ):
        with pytest.raises(LocalLLMError):
            act()
    assert [info.name for info in service.documents(caller, "c")] == before
    assert [info.name for info in service.collections(caller)] == ["c"]
    for at in (*range(10), *range(100, full_at)):
        assert found(service, caller, at) == [f"{at}"]
    filler.unlink()
    service.put(caller, "c", [record(full_at)])
    assert service.remove(caller, "c", ["3"]) == 1
    assert found(service, caller, full_at) == [f"{full_at}"]
    service.close()
    service, caller = open_box(small_disk / "home")
    assert sorted(found(service, caller, 0, 10**6)) == sorted({*before, f"{full_at}"} - {"3"})


def test_snapshot_that_finds_no_room_is_told_and_written_later(
    small_disk: Path, open_box: Callable, capfd: pytest.CaptureFixture[str]
) -> None:
    store = opened(new_database(small_disk))
    store.write([document("a", unit_vectors(200))])
    store.save_view()
    filler = fill(small_disk)
    with pytest.raises(OutOfSpaceError, match="view-1"):
        store.save_view()
    with pytest.raises(OutOfSpaceError):
        store.close()
    filler.unlink()
    store = opened(small_disk / "vs_handmade" / "collection.db")
    assert store.nearest(unit_vectors(200)[7], 1, EVERYTHING)[0].passage_id == 8
    store.write([document("b", unit_vectors(3, seed=1))])
    store.close()
    assert len(list((small_disk / "vs_handmade" / "view-1").glob("snapshot-*"))) == 1
    assert not list((small_disk / "vs_handmade" / "view-1").glob(".*"))


def grow_beyond_its_limit(database: Database) -> None:
    with database.transaction() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 2}")
        for number in range(2, 100):
            connection.execute("INSERT INTO generations VALUES (?, ?, '', 1, 0)", (number, "x" * 5000))


def test_commit_that_finds_no_room_leaves_the_version_before(tmp_path: Path) -> None:
    """Without a small disk: SQLite itself refuses to grow."""
    path = new_database(tmp_path)
    store = opened(path)
    store.write([document("a", VECTORS[:2], text="first")])
    database = Database(path)
    with pytest.raises(OutOfSpaceError):
        grow_beyond_its_limit(database)
    assert database.read("SELECT count(*) AS n FROM generations")[0]["n"] == 1
    with database.transaction() as connection:
        connection.execute("DELETE FROM pages")
    database.close()
    assert [info.name for info in store.documents(None)] == ["a"]
    store.close()


def test_read_only_disk_says_what_it_is(small_disk: Path) -> None:
    path = new_database(small_disk)
    store = opened(path)
    store.write([document("a", VECTORS[0])])
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for act in (lambda: opened(path), lambda: new_database(small_disk / "other")):
        with pytest.raises(LocalLLMError) as caught:
            act()
        assert "vs_handmade" in caught.value.message
        assert "read" in caught.value.message.lower() or "unable to open" in caught.value.message
        assert "ls -ld" in (caught.value.hint or "")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    store = opened(path)
    store.write([document("b", VECTORS[1])])
    assert store.nearest(VECTORS[1], 1, EVERYTHING)[0].passage_id == 2
    store.close()


def test_damaged_collection_is_named_while_others_are_searched(tmp_path: Path, open_box: Callable) -> None:
    service, caller = open_box(tmp_path / "home")
    damaged = service.create(caller, "damaged", dimension=DIMENSION).id
    for name in ("damaged", "c"):
        service.create(caller, "c", dimension=DIMENSION) if name == "c" else None
        service.put(caller, name, [record(at) for at in range(20)])
    service.close()
    database = tmp_path / "home" / "collections" / damaged / "collection.db"
    database.write_bytes(b"x" * 5000)
    service, caller = open_box(tmp_path / "home", upkeep=True)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=damaged):
            service.search(caller, "damaged", VECTORS[0].tolist(), 1)
    assert found(service, caller, 4) == ["4"]
    service.put(caller, "c", [record(30)])
    database.unlink()
    with pytest.raises(NotFoundError, match=damaged):
        service.documents(caller, "damaged")
    service.delete(caller, "damaged")
    assert [info.name for info in service.collections(caller)] == ["c"]


def test_upkeep_outlives_a_collection_that_is_deleted_under_it(tmp_path: Path, open_box: Callable) -> None:
    service, caller = open_box(tmp_path / "home", upkeep=True)
    service.create(caller, "c", dimension=DIMENSION)
    for round_ in range(4):
        name = f"short-lived{round_}"
        service.create(caller, name, dimension=DIMENSION)
        vectors = unit_vectors(2100, seed=round_)  # enough for upkeep to write a snapshot
        service.put(caller, name, [Record(f"{at}", "text", vector=one.tolist()) for at, one in enumerate(vectors)])
        time.sleep(0.02 * round_)
        service.delete(caller, name)
    identifier = service.get(caller, "c").id
    assert [path.name for path in (tmp_path / "home" / "collections").iterdir()] == [identifier]
    vectors = unit_vectors(2100)
    service.put(caller, "c", [Record("0", "text", vector=vectors[0].tolist())])
    service.put(caller, "c", [Record(f"{at}", "text", vector=one.tolist()) for at, one in enumerate(vectors)])
    snapshot = tmp_path / "home" / "collections" / identifier / "view-1" / "current.json"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not snapshot.exists():
        assert time.monotonic() < deadline, "upkeep is no more"
        time.sleep(0.02)
