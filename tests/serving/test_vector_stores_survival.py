"""What was acknowledged holds, whatever was killed: attached files are indexed once, deleted ones never answer."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from index.client import IndexClient

from .vector_store_world import World, index_server, running_gateway

FILES = 40
LINES = 60
DEADLINE_SECONDS = 180
POLL = {"poll_interval_ms": 20}
TEXT = b"# Battery\n\nThe battery charges in four hours.\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_gateway(tmp_path) as made:
        yield made


def text_of(number: int) -> bytes:
    lines = (f"Drawer {number} of the cabinet holds {line} screws of size {number}." for line in range(LINES))
    return f"# Drawer {number}\n\n{chr(10).join(lines)}\n".encode()


@contextmanager
def index_process(world: World) -> Iterator["subprocess.Popen[bytes]"]:
    """Killed when the block ends: there is no other way out here."""
    process = subprocess.Popen(
        [sys.executable, "-m", "index"], env={**os.environ, "LOCAL_LLM_HOME": str(world.settings.home)}
    )
    try:
        with IndexClient(world.settings.place.socket("index")) as client:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not client.answers():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_completed(client: openai.OpenAI, store_id: str, batch_id: str, least: int) -> int:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        counts = client.vector_stores.file_batches.retrieve(batch_id, vector_store_id=store_id).file_counts
        assert (counts.failed, counts.cancelled, counts.total) == (0, 0, FILES)
        if counts.completed >= least:
            return counts.completed
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_every_attached_file_is_indexed_once_however_often_the_server_is_killed(world: World) -> None:
    client = world.client()
    ids = [client.files.create(file=(f"{n}.md", text_of(n)), purpose="assistants").id for n in range(FILES)]
    with index_process(world):  # killed right after it acknowledged, before its encoder is even loaded
        store = client.vector_stores.create()
        files: Any = [{"file_id": one, "attributes": {"n": n}} for n, one in enumerate(ids)]
        batch = client.vector_stores.file_batches.create(store.id, files=files)
    before = 0
    with index_process(world):  # killed on the way
        before = wait_for_completed(client, store.id, batch.id, 1)
    with index_process(world):
        # What was told to be completed still is, and is found, whatever is still waiting.
        assert wait_for_completed(client, store.id, batch.id, before) >= before
        wait_for_completed(client, store.id, batch.id, FILES)
        with IndexClient(world.settings.place.socket("index")) as index:
            documents = index.documents(world.admin, store.id)
        assert sorted(info.file_id or "" for info in documents) == sorted(ids)
        assert {info.version for info in documents} == {1}  # no document was written twice
        for number in (0, FILES // 2, FILES - 1):
            filters: Any = {"type": "eq", "key": "n", "value": number}
            hits = client.vector_stores.search(store.id, query="cabinet", filters=filters).data
            assert {hit.file_id for hit in hits} == {ids[number]}


def test_a_file_deleted_while_the_index_is_down_never_answers_again(world: World) -> None:
    client = world.client()
    with index_server(world):
        store = client.vector_stores.create()
        upload_and_poll = client.vector_stores.files.upload_and_poll
        gone, stays = (
            upload_and_poll(vector_store_id=store.id, file=(f"{n}.md", TEXT + text_of(n)), **POLL).id
            for n in range(2)
        )
    assert client.files.delete(gone).deleted
    with index_server(world) as service:
        hits = client.vector_stores.search(store.id, query="battery", max_num_results=50).data
        assert {hit.file_id for hit in hits} == {stays}
        assert [info.file_id for info in service.documents(world.admin, store.id)] == [stays]
        assert client.vector_stores.retrieve(store.id).file_counts.total == 1


def test_without_the_index_server_requests_are_told_to_come_back(world: World) -> None:
    for method, path in (("GET", ""), ("GET", "/vs_1"), ("POST", "/vs_1/search"), ("GET", "/vs_1/files")):
        answer = world.gateway.request(
            method,
            f"/v1/vector_stores{path}",
            headers={"authorization": f"Bearer {world.secrets['admin']}"},
            json={"query": "x"} if method == "POST" else None,
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
