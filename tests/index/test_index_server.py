"""The index behind its socket: the same answers, one holder, nothing acknowledged ever lost."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from index.access import open_index
from index.client import AsyncIndexClient, IndexClient
from index.ingestion.ingest import find_sources
from index.interface import Index
from index.server import listening, make_server
from index.service import IndexService
from local_llm.errors import (
    ConflictError,
    InvalidInputError,
    LocalLLMError,
    LockedError,
    NotFoundError,
    UnavailableError,
)
from local_llm.identifiers import new_id
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import State

Write = Callable[[str, str], Path]

TEXT = "# Battery\n\nThe battery charges in four hours.\n"
DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def socket_path(service: IndexService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real server around the session's own service, in a thread."""
    path = tmp_path_factory.mktemp("run") / "index.sock"
    service.encoder()
    server = make_server(service)
    with listening(path) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield path
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(socket_path: Path) -> Iterator[IndexClient]:
    with IndexClient(socket_path) as made:
        yield made


def test_client_answers_as_the_service_does(
    client: IndexClient, service: IndexService, admin: Caller, member: Caller, collection: str, write: Write
) -> None:
    progress: list[tuple[int, int, str]] = []
    folder = write("battery.md", TEXT).parent
    write("none.xyz", "")
    report = client.add(
        admin,
        collection,
        find_sources([folder]),
        allow=["user:ana"],
        attributes={"area": "device"},
        report=lambda done, total, note: progress.append((done, total, note)),
    )
    assert (report.added, [skipped.document for skipped in report.skipped]) == (1, ["none.xyz"])
    assert progress[0] == (0, 2, "")
    assert progress[-1][:2] == (2, 2)
    for caller in (admin, member, replace(member, principals=("user:bob",))):
        for ask in (
            lambda index, who: index.search(who, collection, "charging", 3),
            lambda index, who: index.documents(who, collection),
            lambda index, who: index.passages(who, collection, after=0, limit=5),
            lambda index, who: index.stats(who, collection),
            lambda index, who: index.collections(who),
            lambda index, who: index.get(who, collection),
        ):
            assert ask(client, caller) == ask(service, caller)
    found = client.documents(admin, collection)[0]
    assert client.document(member, collection, found.id) == service.document(member, collection, found.id)
    asked = [(found.id, found.version), ("doc_x", 1)]
    assert client.current(member, collection, asked) == service.current(member, collection, asked) == asked[:1]
    assert client.remove(admin, collection, ["battery.md"]) == 1
    client.delete(admin, collection)
    name = new_id("test-")
    assert client.create(admin, name) == service.get(admin, name)


def error_of(index: Index, act: Callable[[Index], object]) -> LocalLLMError:
    with pytest.raises(LocalLLMError) as caught:
        act(index)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        (NotFoundError, lambda index, who, name: index.search(who, "nowhere", "x")),
        (NotFoundError, lambda index, who, name: index.add(who, "nowhere", [])),
        (ConflictError, lambda index, who, name: index.create(who, name)),
        (InvalidInputError, lambda index, who, name: index.search(who, name, " ")),
    ],
)
def test_errors_keep_their_class_and_hint(
    client: IndexClient, service: IndexService, admin: Caller, collection: str, kind: type, act: Callable
) -> None:
    far = error_of(client, lambda index: act(index, admin, collection))
    near = error_of(service, lambda index: act(index, admin, collection))
    assert type(far) is type(near) is kind
    assert (far.message, far.hint, far.param, far.status) == (near.message, near.hint, near.param, near.status)


def test_gateway_client_answers_as_the_service_does(
    socket_path: Path, service: IndexService, admin: Caller, collection: str, write: Write
) -> None:
    service.add(admin, collection, find_sources([write("battery.md", TEXT)]))

    async def ask() -> None:
        client = AsyncIndexClient(socket_path)
        assert await client.ready()
        hits = await client.search(admin, collection, "charging", 3)
        assert hits == service.search(admin, collection, "charging", 3)
        assert await client.collections(admin) == service.collections(admin)
        document = await client.document(admin, collection, hits[0].document_id, hits[0].version)
        assert document.text[hits[0].start : hits[0].end] == hits[0].text
        cited = [(hits[0].document_id, hits[0].version)]
        assert await client.current(admin, collection, cited) == cited
        with pytest.raises(NotFoundError):
            await client.get(admin, "nowhere")
        await client.close()

    asyncio.run(ask())


def test_no_server_is_a_clear_error(tmp_path: Path, admin: Caller) -> None:
    with IndexClient(tmp_path / "none.sock") as client:
        assert not client.answers()
        with pytest.raises(UnavailableError, match="does not answer"):
            client.collections(admin)

    async def ask() -> None:
        asynchronous = AsyncIndexClient(tmp_path / "none.sock")
        assert not await asynchronous.ready()
        with pytest.raises(UnavailableError):
            await asynchronous.collections(admin)
        await asynchronous.close()

    asyncio.run(ask())


def start_server(home: Path, *shell: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*shell, sys.executable, "-m", "index"],
        env={**os.environ, "LOCAL_LLM_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_acknowledged_documents_survive_a_killed_server(
    home: Path, settings: Settings, state: State, admin: Caller, collection: str, write: Write
) -> None:
    sources = find_sources([write("battery.md", TEXT)])
    server = start_server(home)
    client = IndexClient(settings.place.socket("index"))
    wait_until(client.answers, server)

    second = start_server(home)
    _, message = second.communicate(timeout=DEADLINE_SECONDS)
    assert second.returncode == 1
    assert f"held by process {server.pid}" in message

    with open_index(settings, state) as index:
        assert isinstance(index, IndexClient)
        assert index.add(admin, collection, sources).added == 1
    server.kill()
    server.communicate()
    with pytest.raises(UnavailableError):
        client.collections(admin)
    client.close()

    with open_index(settings, state) as index:
        assert isinstance(index, IndexService)
        assert [info.name for info in index.documents(admin, collection)] == ["battery.md"]
        assert index.stats(admin, collection).passages == 1
        with pytest.raises(LockedError, match=f"process {os.getpid()}"), open_index(settings, state):
            pass


def test_server_ends_cleanly_on_sigterm(home: Path, settings: Settings) -> None:
    server = start_server(home, "sh", "-c", 'ulimit -Sn 256; ulimit -Hn 900; exec "$@"', "sh")
    client = IndexClient(settings.place.socket("index"))
    wait_until(client.answers, server)
    assert (
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0] == 900
    )  # all that it may have: collections need it
    server.send_signal(signal.SIGTERM)
    _, message = server.communicate(timeout=DEADLINE_SECONDS)
    assert (server.returncode, message) == (0, "")
    assert not settings.place.socket("index").exists()
    client.close()
