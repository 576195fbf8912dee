"""Uploaded files are whole or not there."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.files import (
    ABANDONED_AFTER_SECONDS,
    FINE_TUNE_RESULTS,
    FileStore,
    QuotaExceededError,
    clean_filename,
)
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings
from local_llm.state import File, Project, State, open_state


@pytest.fixture
def store(settings: Settings, state: State) -> FileStore:
    return FileStore(settings, state)


def stored(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.place.files.iterdir())


def test_a_file_comes_back_as_it_went_in(store: FileStore, admin: Caller) -> None:
    chunks = [b"one\n", b"", b"two\n"]
    row = store.add(chunks, filename="a.jsonl", purpose="fine-tune", project_id=admin.project_id)
    assert store.path(row.id).read_bytes() == b"one\ntwo\n"
    assert (row.bytes, row.sha256) == (8, hashlib.sha256(b"one\ntwo\n").hexdigest())
    assert store.get(row.id, admin).filename == "a.jsonl"


def test_an_upload_over_the_limit_leaves_no_file_and_no_row(
    settings: Settings, store: FileStore, admin: Caller
) -> None:
    with pytest.raises(InvalidInputError, match="larger than 5 bytes"):
        store.add([b"123", b"456"], filename="a", purpose="fine-tune", project_id=admin.project_id, max_bytes=5)
    assert stored(settings) == []
    assert store.list(admin) == []


def test_an_upload_that_breaks_off_leaves_nothing(settings: Settings, store: FileStore, admin: Caller) -> None:
    writer = store.begin(filename="a", purpose="fine-tune", project_id=admin.project_id)
    writer.write(b"half")
    writer.discard()
    assert stored(settings) == []
    assert store.list(admin) == []


@pytest.mark.parametrize("moment", ["rename", "link", "unlink", "fsync_path", "session"])
def test_a_kill_at_any_moment_of_commit_leaves_no_row_without_its_file(
    settings: Settings, state: State, admin: Caller, moment: str
) -> None:
    """The process kills itself as it is about to take the step; what a reader sees then is consistent."""
    store = FileStore(settings, state)
    if moment in ("link", "unlink"):  # steps that are taken only where equal bytes are there
        store.add([b"x" * 100], filename="twin", purpose="batch", project_id=admin.project_id)
    before = [row.id for row in store.list(admin)]
    program = f"""
import os, signal, sys
from pathlib import Path
from local_llm import files
from local_llm.settings import load_settings
from local_llm.state import State, open_state
settings = load_settings()
state = open_state(settings.place)
writer = files.FileStore(settings, state).begin(filename="a", purpose="fine-tune", project_id={admin.project_id!r})
writer.write(b"x" * 100)
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if {moment!r} == "rename":
    Path.rename = die
elif {moment!r} == "link":
    os.link = die
elif {moment!r} == "unlink":
    Path.unlink = die
elif {moment!r} == "fsync_path":
    files.fsync_path = die
else:
    State.session = die
writer.commit()
"""
    environment = {**os.environ, "LOCAL_LLM_HOME": str(settings.home)}
    died = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    assert all(store.path(row.id).read_bytes() == b"x" * 100 for row in store.list(admin))
    assert [row.id for row in store.list(admin)] == before


def test_a_deleted_file_is_gone_and_a_strangers_was_never_there(
    settings: Settings, store: FileStore, admin: Caller
) -> None:
    row = store.add([b"x"], filename="a", purpose="fine-tune", project_id=admin.project_id)
    stranger = local_admin("proj_other")
    for refused in (store.get, store.delete):
        with pytest.raises(NotFoundError):
            refused(row.id, stranger)
    store.delete(row.id, admin)
    assert stored(settings) == []
    with pytest.raises(NotFoundError):
        store.get(row.id, admin)


def test_lists_are_filtered_and_paged(store: FileStore, admin: Caller) -> None:
    for number in range(4):
        purpose = "fine-tune" if number % 2 else "batch"
        store.add([b"x"], filename=str(number), purpose=purpose, project_id=admin.project_id)
    assert {row.filename for row in store.list(admin, purpose="fine-tune")} == {"1", "3"}
    first = store.list(admin, limit=3)
    rest = store.list(admin, after=first[-1].id)
    assert len(rest) == 1
    assert {row.id for row in first + rest} == {row.id for row in store.list(admin, order="asc")}
    with pytest.raises(NotFoundError):
        store.list(admin, after="file-none")


def test_only_what_was_abandoned_long_ago_is_removed(settings: Settings, store: FileStore, admin: Caller) -> None:
    row = store.add([b"x"], filename="a", purpose="fine-tune", project_id=admin.project_id)
    store.begin(filename="b", purpose="fine-tune", project_id=admin.project_id).write(b"now")
    old = settings.place.files / ".upload-old"
    old.write_bytes(b"x")
    long_ago = time.time() - 2 * ABANDONED_AFTER_SECONDS
    for path in (old, store.path(row.id)):
        os.utime(path, (long_ago, long_ago))
    store.remove_abandoned()
    assert not old.exists()
    assert store.path(row.id).exists()
    assert len(stored(settings)) == 2


def put(store: FileStore, caller: Caller, data: bytes, *, purpose: str = "batch") -> File:
    return store.add([data], filename="a", purpose=purpose, project_id=caller.project_id)


def limited(settings: Settings, state: State, quota_bytes: int) -> FileStore:
    server = settings.server.model_copy(update={"project_quota_bytes": quota_bytes})
    return FileStore(settings.model_copy(update={"server": server}), state)


@pytest.fixture
def stranger(state: State) -> Caller:
    with state.session() as session:
        session.add(Project(id="proj_other", name="other", created_at=1, archived_at=None))
    return local_admin("proj_other")


def test_equal_files_of_a_project_share_their_bytes_until_the_last_is_deleted(
    settings: Settings, store: FileStore, admin: Caller, stranger: Caller
) -> None:
    first, second = put(store, admin, b"same"), put(store, admin, b"same", purpose="fine-tune")
    theirs = put(store, stranger, b"same")
    assert store.path(first.id).samefile(store.path(second.id))
    assert not store.path(first.id).samefile(store.path(theirs.id))
    store.delete(first.id, admin)
    assert store.path(second.id).read_bytes() == b"same"
    third = put(store, admin, b"same")
    assert store.path(third.id).samefile(store.path(second.id))
    for row in (second, third):
        store.delete(row.id, admin)
    assert stored(settings) == [theirs.id]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"sa")])
def test_what_was_uploaded_is_kept_where_the_equal_file_is_no_longer_whole(
    store: FileStore, admin: Caller, damage
) -> None:
    first = put(store, admin, b"same")
    damage(store.path(first.id))
    second = put(store, admin, b"same")
    assert store.path(second.id).read_bytes() == b"same"


def test_a_name_linked_to_old_bytes_is_not_taken_for_abandoned(store: FileStore, admin: Caller) -> None:
    """Between its link and its row, a new name would have looked a day old."""
    old = store.path(put(store, admin, b"same").id)
    os.utime(old, (0, 0))
    put(store, admin, b"same")
    assert time.time() - old.stat().st_mtime < 60


def test_a_project_over_its_quota_is_told_what_to_do_and_keeps_what_it_has(
    settings: Settings, state: State, admin: Caller, stranger: Caller
) -> None:
    store = limited(settings, state, 1000)
    row = put(store, admin, b"x" * 600)
    with pytest.raises(QuotaExceededError) as caught:
        put(store, admin, b"y" * 401)
    assert (caught.value.code, caught.value.param) == ("quota_exceeded", "file")
    for part in ("401", "600", "1,000"):
        assert part in caught.value.message
    assert "server.project_quota_bytes" in str(caught.value.hint)
    assert stored(settings) == [row.id]
    assert [found.id for found in store.list(admin)] == [row.id]

    put(store, admin, b"y" * 400)  # to the last byte
    put(store, admin, b"x" * 600)  # what is there already takes no more space
    put(store, admin, b"z" * 5000, purpose=FINE_TUNE_RESULTS)  # ours, whatever the user may store
    put(store, stranger, b"z" * 1000)  # each project has its own
    store.delete(row.id, admin)
    with pytest.raises(QuotaExceededError):  # the equal file still holds the bytes
        put(store, admin, b"w")


def test_of_uploads_at_once_only_those_within_the_quota_are_stored(
    settings: Settings, state: State, admin: Caller
) -> None:
    store = limited(settings, state, 350)

    def upload(number: int) -> bool:
        try:
            put(store, admin, str(number).encode() * 100)
        except QuotaExceededError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(upload, range(8))) == 3
    assert sorted(row.id for row in store.list(admin)) == stored(settings)


def test_a_file_that_its_check_refuses_was_never_there(settings: Settings, store: FileStore, admin: Caller) -> None:
    seen: list[bytes] = []

    def refuse(path: Path) -> None:
        seen.append(path.read_bytes())
        raise InvalidInputError("no")

    with pytest.raises(InvalidInputError, match="no"):
        store.add([b"a", b"b"], filename="a", purpose="batch", project_id=admin.project_id, check=refuse)
    assert seen == [b"ab"]
    assert stored(settings) == []
    assert store.list(admin) == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("train.jsonl", "train.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\train.jsonl", "train.jsonl"),
        ("a\x00b\r\nc\u202ed.jsonl", "abcd.jsonl"),
        ("Übung 1.jsonl", "Übung 1.jsonl"),
        ("x" * 10_000, "x" * 255),
        ("..", "upload"),
        ("folder/", "upload"),
        ("", "upload"),
    ],
)
def test_a_file_is_listed_under_a_name_that_it_can_be_saved_under(given: str, kept: str) -> None:
    assert clean_filename(given) == kept


def test_rows_survive_closing(settings: Settings, store: FileStore, admin: Caller, tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(b"abc")
    row = store.add(source, filename="x", purpose="fine-tune", project_id=admin.project_id)
    again = open_state(settings.place)
    try:
        assert FileStore(settings, again).get(row.id, admin).sha256 == row.sha256
    finally:
        again.close()
