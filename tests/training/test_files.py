"""Uploaded files are whole or not there."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.files import ABANDONED_AFTER_SECONDS, FileStore
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings
from local_llm.state import State, open_state


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


@pytest.mark.parametrize("moment", ["rename", "fsync_path", "session"])
def test_a_kill_at_any_moment_of_commit_leaves_no_row_without_its_file(
    settings: Settings, state: State, admin: Caller, moment: str
) -> None:
    """The process kills itself as it is about to take the step; what a reader sees then is consistent."""
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
elif {moment!r} == "fsync_path":
    files.fsync_path = die
else:
    State.session = die
writer.commit()
"""
    environment = {**os.environ, "LOCAL_LLM_HOME": str(settings.home)}
    died = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    store = FileStore(settings, state)
    assert all(store.path(row.id).exists() for row in store.list(admin))
    assert store.list(admin) == []


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


def test_rows_survive_closing(settings: Settings, store: FileStore, admin: Caller, tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(b"abc")
    row = store.add(source, filename="x", purpose="fine-tune", project_id=admin.project_id)
    again = open_state(settings.place)
    try:
        assert FileStore(settings, again).get(row.id, admin).sha256 == row.sha256
    finally:
        again.close()
