"""Keys are kept in memory, and still a revocation holds from the very next request."""

import os
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from local_llm.errors import AuthenticationError, ForbiddenError
from local_llm.keys import KeyStore
from local_llm.permissions import Caller, Keeps
from local_llm.projects import ProjectStore
from local_llm.settings import Settings
from local_llm.state import State, open_state
from serving.access import Access
from tests.postgresql import environment_of

BOTH_DATABASES = True

HOST = b"127.0.0.1:8000"
CALLS = 20_000


@pytest.fixture
def keys(state: State) -> KeyStore:
    return KeyStore(state)


@pytest.fixture
def access(state: State, keys: KeyStore) -> Access:
    return Access(state, keys)


def bearer(secret: str) -> bytes:
    return f"Bearer {secret}".encode()


def test_a_kept_call_reads_no_row(access: Access, keys: KeyStore, admin: Caller, state: State, figures) -> None:
    header = bearer(keys.create(admin.project_id, "ana", principals=["user:ana"]).secret)
    access.caller(header, host=HOST)
    statements: list[str] = []
    event.listen(state._engine, "before_cursor_execute", lambda *about: statements.append(about[2]))
    started = time.thread_time()  # processor time: others work on this machine too
    for _ in range(CALLS):
        access.caller(header, host=HOST)
    figures["key check, kept, µs"] = round((time.thread_time() - started) / CALLS * 1e6, 2)
    assert statements == []
    keys.create(admin.project_id, "bob")
    assert statements, "they would have been seen"


def test_a_key_revoked_by_another_process_opens_nothing_from_the_next_call(
    access: Access, keys: KeyStore, admin: Caller, settings: Settings
) -> None:
    new = keys.create(admin.project_id, "ana")
    assert access.caller(bearer(new.secret)).key_id == new.key.id
    environment = {**os.environ, **environment_of(settings)}
    line = [sys.executable, "-m", "local_llm", "keys", "revoke", new.key.id]
    subprocess.run(line, env=environment, check=True, capture_output=True)
    with pytest.raises(AuthenticationError):
        access.caller(bearer(new.secret))


def test_a_running_gateway_refuses_it_too(gateway: TestClient, state: State, admin: Caller, settings) -> None:
    """The same through the whole gateway, whose writer commits by itself meanwhile."""
    new = KeyStore(state).create(admin.project_id, "ana")
    headers = {"authorization": f"Bearer {new.secret}"}
    assert gateway.get("/v1/models", headers=headers).status_code == 200
    environment = {**os.environ, **environment_of(settings)}
    line = [sys.executable, "-m", "local_llm", "keys", "revoke", new.key.id]
    subprocess.run(line, env=environment, check=True, capture_output=True)
    assert gateway.get("/v1/models", headers=headers).status_code == 401


def test_commits_of_the_same_process_are_seen(access: Access, keys: KeyStore, admin: Caller) -> None:
    new = keys.create(admin.project_id, "ana")
    access.caller(bearer(new.secret))
    keys.revoke(admin.project_id, new.key.id)
    with pytest.raises(AuthenticationError):
        access.caller(bearer(new.secret))


def test_the_clock_ends_a_kept_key(access: Access, keys: KeyStore, admin: Caller) -> None:
    new = keys.create(admin.project_id, "ana", expires_at=int(time.time()) + 4)
    access.caller(bearer(new.secret))
    time.sleep(4.1)
    with pytest.raises(AuthenticationError):
        access.caller(bearer(new.secret))


def test_an_archived_projects_keys_are_refused_at_once(state: State, access: Access, keys: KeyStore, admin) -> None:
    projects = ProjectStore(state)
    support = projects.create("support")
    header = bearer(keys.create(support.id, "ana").secret)
    assert access.caller(header).project_id == support.id
    projects.archive(admin, support.id)
    with pytest.raises(AuthenticationError):
        access.caller(header)


def test_what_a_project_keeps_comes_with_its_callers(state: State, access: Access, keys: KeyStore, admin) -> None:
    projects = ProjectStore(state)
    assert access.caller(None, host=HOST).keeps == Keeps(store_responses=True)
    projects.update("local", log_content=True)
    assert access.caller(None, host=HOST).keeps == Keeps(log_content=True, store_responses=True)
    assert keys.local_owner(admin.project_id).keeps == Keeps(log_content=True, store_responses=True)
    header = bearer(keys.create(admin.project_id, "ana").secret)
    projects.update("local", store_chats=True, store_responses=False)
    assert access.caller(header).keeps == Keeps(log_content=True, store_chats=True)


def test_without_keys_only_this_machine_is_an_owner(access: Access, keys: KeyStore, admin: Caller) -> None:
    assert access.caller(None, host=HOST).role == "owner"
    assert access.caller(b"Bearer none", host=b"[::1]:8000", origin=b"http://localhost:3000").owns
    for host, origin in ((b"evil.example", None), (None, None), (b"[", None), (HOST, b"null")):
        with pytest.raises(ForbiddenError):
            access.caller(None, host=host, origin=origin)
    keys.create(admin.project_id, "ana")
    for authorization in (None, b"", b"Bearer", b"Bearer ", b"Basic x", b"Bearer none", b"Bearer \xff"):
        with pytest.raises(AuthenticationError):
            access.caller(authorization, host=HOST)


def test_a_slow_reader_puts_no_revoked_key_back(settings: Settings, state: State, admin: Caller) -> None:
    """Threads ask while another revokes: after the revocation returned, nobody is let in."""
    keys = KeyStore(state)
    access = Access(state, keys)
    for _ in range(10):
        new = keys.create(admin.project_id, "ana")
        stop = threading.Event()

        def ask(secret: str = new.secret, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                try:
                    access.caller(bearer(secret))
                except AuthenticationError:
                    return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        keys.revoke(admin.project_id, new.key.id)
        with pytest.raises(AuthenticationError):
            access.caller(bearer(new.secret))
        stop.set()
        for thread in threads:
            thread.join()


def test_the_version_stays_until_somebody_commits(settings: Settings, state: State, admin: Caller) -> None:
    other = open_state(settings.place)
    before = state.version()
    with other.reading() as session:
        session.connection()
    assert state.version() == before
    KeyStore(other).create(admin.project_id, "ana")
    assert state.version() != before
    other.close()
