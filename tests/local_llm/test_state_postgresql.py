"""What only PostgreSQL does. What holds on either database is tested where the stores are (BOTH_DATABASES)."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from index.registry import CollectionRegistry
from local_llm import ledger
from local_llm.adapters import AdapterRegistry
from local_llm.errors import ConflictError, InvalidInputError, SettingsError
from local_llm.garbage import find_garbage
from local_llm.home import Home
from local_llm.permissions import local_admin
from local_llm.postgresql import StateUnavailableError
from local_llm.settings import Settings, load_settings
from local_llm.state import BatchRow, ChatRow, Job, LedgerEntry, Project, State, open_empty_state, open_state
from local_llm.state_copy import copy_state
from local_llm.state_mark import MARK
from serving.chats.rows import Filter, list_chats
from tests.postgresql import PASSWORD, Cluster
from training import leases

REPOSITORY = Path(__file__).parent.parent.parent


def box(cluster: Cluster, database: str, home: Path, **more: str) -> Settings:
    return load_settings(environment={"LOCAL_LLM_HOME": str(home), **cluster.environment(database), **more})


@pytest.fixture
def settings(postgresql: Cluster, tmp_path: Path) -> Settings:
    return box(postgresql, postgresql.create_state(), tmp_path / "home")


@pytest.fixture
def other(settings: Settings, tmp_path: Path) -> Iterator[State]:
    """Another host, with a home of its own, that shares the state."""
    with closing(open_state(settings.model_copy(update={"home": tmp_path / "other"}).place)) as opened:
        yield opened


def run_both(program: str, homes: list[Path], environment: dict[str, str]) -> list[str]:
    """What two processes print that begin at once, each in its own home."""
    line = [sys.executable, "-c", program]
    started = [
        subprocess.Popen(
            line,
            env={**os.environ, **environment, "LOCAL_LLM_HOME": str(home)},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for home in homes
    ]
    printed = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return printed


OPEN = """
from local_llm.settings import load_settings
from local_llm.state import open_state
state = open_state(load_settings().place)
"""


def test_hosts_that_start_at_once_migrate_once(postgresql: Cluster, tmp_path: Path) -> None:
    database = postgresql.create_database()
    program = OPEN + "print(state.local_project_id())"
    first, second = run_both(program, [tmp_path / "a", tmp_path / "b"], postgresql.environment(database))
    assert first == second
    assert postgresql.execute(database, "SELECT count(*) FROM projects") == [(1,)]
    assert postgresql.execute(database, "SELECT version_num FROM alembic_version") == [("0012",)]


CLAIM_ALL = (
    OPEN
    + """
from serving.batches.leases import claim_next as claim_batch
from training.leases import claim_next as claim_job
for claim in (claim_batch, claim_job):
    while (lease := claim(state)) is not None:
        print(vars(lease).get("batch_id") or vars(lease)["job_id"])
"""
)


def test_two_processes_claim_nothing_twice(
    settings: Settings, state: State, postgresql: Cluster, tmp_path: Path
) -> None:
    project_id = state.local_project_id()
    with state.session() as session:
        session.add_all(batch(project_id, number) for number in range(20))
        session.add_all(job(project_id, f"job_{number:02}") for number in range(20))
    environment = {**postgresql.environment("postgres"), "LOCAL_LLM_STATE__URL": str(settings.state.url)}
    printed = run_both(CLAIM_ALL, [tmp_path / "a", tmp_path / "b"], environment)
    claimed = [identifier for text in printed for identifier in text.split()]
    assert sorted(claimed) == sorted(
        [f"batch_{number:02}" for number in range(20)] + [f"job_{number:02}" for number in range(20)]
    )


def batch(project_id: str, number: int) -> BatchRow:
    return BatchRow(
        id=f"batch_{number:02}",
        project_id=project_id,
        key_id=f"key_{number}",
        endpoint="/v1/embeddings",
        input_file_id="file-none",
        server_url="",
        labels={},
        status="validating",
        created_at=0,
        expires_at=2**40,
    )


def job(project_id: str, identifier: str) -> Job:
    return Job(
        id=identifier,
        project_id=project_id,
        model="tiny",
        training_file="file-none",
        seed=1,
        method={},
        hyperparameters={},
        job_metadata={},
        status="queued",
        created_at=0,
    )


def test_a_trainer_puts_back_what_it_had_itself_only(state: State, other: State) -> None:
    with state.session() as session:
        session.add_all(job(state.local_project_id(), name) for name in ("job_1", "job_2"))
    for host in (state, other):
        assert leases.claim_next(host) is not None
    assert leases.put_back_all(state, "trainer") == ["job_1"]
    assert leases.put_back_all(other, "trainer") == ["job_2"]


def test_hosts_wait_for_each_other_where_a_file_lock_would_not_reach(
    state: State, other: State, tmp_path: Path
) -> None:
    order = []

    def second() -> None:
        with other.exclusive(tmp_path / "adapters.lock", "the test"):
            order.append("second")

    thread = threading.Thread(target=second)
    with state.exclusive(tmp_path / "adapters.lock", "the test"):
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_crash_of_the_server_loses_nothing_that_was_acknowledged(state: State, postgresql: Cluster) -> None:
    project_id, kept, refused = state.local_project_id(), list[str](), list[StateUnavailableError]()
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            try:
                kept.append(ledger.record(state, project_id, "answers", {"number": len(kept)}))
            except StateUnavailableError as error:
                refused.append(error)
                time.sleep(0.02)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        wait_until(lambda: len(kept) >= 10)
        postgresql.stop("immediate")
        wait_until(lambda: refused)
        postgresql.start()
        before = len(kept)
        wait_until(lambda: len(kept) >= before + 10)
    finally:
        ended.set()
        for writer in writers:
            writer.join()
    with state.reading() as session:
        assert set(kept) <= set(session.scalars(select(LedgerEntry.id)))
    assert refused[0].status == 503
    assert refused[0].retry_after_seconds


def wait_until(holds: object, seconds: float = 60) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_connections_that_were_cut_while_idle_are_nobodys_trouble(state: State, postgresql: Cluster) -> None:
    before = state.version()
    postgresql.execute(
        "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    )
    assert state.version() != before  # what was kept is read again: it may be another server
    state.local_project_id()
    with state.session() as session:
        session.add(Project(id="p", name="new", created_at=0, archived_at=None))


def test_while_the_server_is_away_that_is_told_at_once(state: State, postgresql: Cluster) -> None:
    state.version()
    postgresql.stop("fast")
    try:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(StateUnavailableError) as told:
                state.version()
            assert time.monotonic() - began < 2
            assert str(postgresql.folder) not in told.value.message
        with pytest.raises(StateUnavailableError):
            state.local_project_id()
    finally:
        postgresql.start()

    def is_back() -> bool:
        try:
            return bool(state.version())
        except StateUnavailableError:
            return False

    wait_until(is_back)


def test_what_another_host_commits_is_seen_at_once(state: State, other: State) -> None:
    before = state.version()
    assert state.version() == before
    with other.session() as session:
        session.add(Project(id="p", name="new", created_at=0, archived_at=None))
        session.flush()
        with state.reading() as reading:
            assert reading.get(Project, "p") is None
    assert state.version() != before
    with state.reading() as reading:
        assert reading.get(Project, "p") is not None


def test_a_password_is_shown_nowhere(settings: Settings, postgresql: Cluster, tmp_path: Path) -> None:
    url = postgresql.url("any").replace("llm@", "llm:geheim@")
    for wrong in (url, postgresql.url("any") + "&password=geheim", "mysql://llm:geheim@host/any", "geheim"):
        with pytest.raises(SettingsError) as told:
            load_settings(environment={"LOCAL_LLM_HOME": str(tmp_path), "LOCAL_LLM_STATE__URL": wrong})
        assert "geheim" not in str(told.value)
        assert "state.url" in str(told.value)
    wrong_file = tmp_path / "password"
    wrong_file.write_text("geheim")
    refused = box(postgresql, "postgres", tmp_path, LOCAL_LLM_STATE__PASSWORD_FILE=str(wrong_file))
    with pytest.raises(StateUnavailableError, match="password authentication failed") as unopened:
        open_state(refused.place)
    assert "geheim" not in str(unopened.value)
    assert PASSWORD not in repr(settings)


def test_a_password_file_is_read_at_each_connection(settings: Settings, tmp_path: Path) -> None:
    gone = settings.state.model_copy(update={"password_file": tmp_path / "none"})
    with pytest.raises(SettingsError, match="cannot be read"):
        open_state(settings.model_copy(update={"state": gone}).place)


def test_a_database_that_would_not_hold_all_texts_is_refused(postgresql: Cluster, tmp_path: Path) -> None:
    database = postgresql.create_database("TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(SettingsError, match="LATIN1"):
        open_state(box(postgresql, database, tmp_path).place)


def test_a_database_that_forgets_is_refused(postgresql: Cluster, tmp_path: Path) -> None:
    database = postgresql.create_database()
    postgresql.execute("postgres", f"ALTER DATABASE {database} SET synchronous_commit = off")
    with pytest.raises(SettingsError, match="synchronous_commit"):
        open_state(box(postgresql, database, tmp_path).place)


def test_a_text_that_postgresql_cannot_hold_is_the_askers_mistake(state: State) -> None:
    with pytest.raises(InvalidInputError, match="NUL"), state.session() as session:
        session.add(Project(id="p", name="a\0b", created_at=0, archived_at=None))


def test_a_nul_in_what_was_kept_does_not_spoil_the_lists_of_all_others(state: State) -> None:
    project = state.local_project_id()
    with state.session() as session:
        for name, text_ in (("a", "one\0two"), ("b", "\\u0000, typed by hand")):
            session.add(
                ChatRow(id=name, project_id=project, key_id=None, created_at=0, model="m", labels={"k": text_},
                        request={"model": name, "text": text_}, answer={}, prompt=None, size=0)
            )  # fmt: skip
    caller = local_admin(project)
    for wanted, found in (
        (Filter("b", {}), "b"),
        (Filter(None, {"k": "\\u0000, typed by hand"}), "b"),
        (Filter(None, {"k": "one\ufffdtwo"}), "a"),
    ):
        rows, _ = list_chats(state, caller, wanted, after=None, limit=9, order="asc")
        assert [row.id for row in rows] == [found]


def test_a_home_starts_with_no_other_database(
    settings: Settings, state: State, postgresql: Cluster, tmp_path: Path
) -> None:
    """What has no row is deleted by a start: with an empty database that would be everything."""
    empty = postgresql.create_database()
    with pytest.raises(ConflictError, match="belongs to another state database"):
        open_state(box(postgresql, empty, settings.home).place)
    open_state(settings.place).close()
    for mark in (settings.place.adapters / MARK, settings.home / MARK):
        os.utime(mark, (0, 0))
    settings.place.job_locks.mkdir()
    os.utime(settings.place.job_locks, (0, 0))
    assert find_garbage(settings.place, state, lambda name: True) == []
    AdapterRegistry(settings, state).remove_abandoned()
    assert (settings.place.adapters / MARK).exists()
    with pytest.raises(ConflictError, match="was moved to PostgreSQL"):
        open_state(load_settings(environment={"LOCAL_LLM_HOME": str(settings.home)}).place)
    shared = tmp_path / "joining" / "adapters"
    shared.parent.mkdir()
    shared.symlink_to(settings.place.adapters)
    with pytest.raises(ConflictError, match="adapters belongs to another"):
        open_state(box(postgresql, empty, shared.parent).place)


def test_a_state_that_was_not_copied_is_not_given_up(postgresql: Cluster, tmp_path: Path) -> None:
    before = load_settings(environment={"LOCAL_LLM_HOME": str(tmp_path)})
    open_state(before.place).close()
    settings = box(postgresql, postgresql.create_database(), tmp_path)
    with pytest.raises(ConflictError, match=r"was not copied") as caught:
        open_state(settings.place)
    assert "local-llm state copy" in str(caught.value.hint)
    with closing(open_empty_state(Home(tmp_path))) as here, closing(open_empty_state(settings.place)) as there:
        copy_state(here, there)
    open_state(settings.place).close()
    open_state(settings.place).close()


def test_a_password_file_that_is_gone_for_a_moment_is_no_mistake_of_the_asker(
    settings: Settings, state: State, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    moved = settings.state.model_copy(update={"password_file": password})
    with closing(open_state(replace(settings.place, state=moved))) as opened:
        opened._engine.dispose()
        opened._watch.close()
        password.unlink()
        with pytest.raises(StateUnavailableError) as caught:
            opened.local_project_id()
        assert str(password) not in caught.value.message
        password.write_text(PASSWORD)
        assert opened.local_project_id() == state.local_project_id()


def test_a_host_is_known_by_what_it_chose_once(settings: Settings, tmp_path: Path) -> None:
    host = settings.place.host
    assert host == settings.place.host
    assert settings.model_copy(update={"home": tmp_path / "other"}).place.host != host


def test_who_reads_cannot_write(state: State) -> None:
    with pytest.raises(StateUnavailableError), state.reading() as session:
        session.execute(insert(Project).values(id="p", name="p", created_at=0))


def test_sums_are_whole_numbers(state: State) -> None:
    with state.reading() as session:
        assert type(session.scalar(select(func.sum(Project.created_at)))) is int


def test_a_connection_that_is_waited_for_too_long_is_told(settings: Settings, state: State) -> None:
    """Nobody waits for ever behind a writer that hangs."""
    with state.session() as session:
        assert session.scalar(text("SELECT current_setting('lock_timeout')")) == "10s"
        assert session.scalar(text("SELECT current_setting('idle_in_transaction_session_timeout')")) == "1min"


def test_a_caller_of_any_host_is_of_the_same_project(state: State, other: State) -> None:
    assert local_admin(state.local_project_id()) == local_admin(other.local_project_id())


def test_collections_are_made_on_one_host_only(
    settings: Settings, state: State, other: State, tmp_path: Path
) -> None:
    """Who may read an upload hangs on all collections that it is in: a host must be able to look there."""
    elsewhere = settings.model_copy(update={"home": tmp_path / "other"})
    first, second = CollectionRegistry(settings, state), CollectionRegistry(elsewhere, other)
    caller = local_admin(state.local_project_id())
    made = first.create(caller, "docs", encoder="tiny", fingerprint="f", dimension=4)
    with pytest.raises(ConflictError, match="another of the hosts"):
        second.create(caller, "more", encoder="tiny", fingerprint="f", dimension=4)
    assert [row.id for row in first.here()] == [made.id]
    assert second.here() == []
    assert second.get(caller, "docs").id == made.id
    with pytest.raises(ConflictError, match="another of the hosts"):
        second.delete(caller, "docs")
    assert first.get(caller, "docs").id == made.id
    first.create(caller, "more", encoder="tiny", fingerprint="f", dimension=4)
