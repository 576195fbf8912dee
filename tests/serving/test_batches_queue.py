"""Whose batch is taken next, and how many may wait."""

import time

import openai
import pytest
from starlette.testclient import TestClient

from local_llm.errors import RateLimitError
from local_llm.identifiers import now
from local_llm.permissions import local_admin
from local_llm.state import BatchRow, State
from serving.batches import rows
from serving.batches.leases import MOST_OF_A_KEY, Lease, claim_next
from serving.batches.requests import CreateBatch

from .test_batches import create, upload

BOTH_DATABASES = True


@pytest.fixture
def project_id(state: State) -> str:
    return state.local_project_id()


def queue(state: State, project_id: str, key_id: str | None, count: int = 1, **changes: object) -> list[str]:
    start, window = now(), 3600
    made = [
        BatchRow(
            id=f"batch_{key_id}_{time.monotonic_ns()}_{n:05}",
            project_id=project_id,
            key_id=key_id,
            endpoint="/v1/chat/completions",
            input_file_id="file-none",
            server_url="",
            labels={},
            created_at=start,
            expires_at=start + window,
            **{"status": "validating", **changes},
        )
        for n in range(count)
    ]
    ids = [row.id for row in made]
    with state.session() as session:
        session.add_all(made)
    return ids


def claimed(lease: Lease | None) -> str | None:
    return None if lease is None else lease.batch_id


@pytest.mark.parametrize("busy_key", ["key_busy", None])
def test_a_key_with_several_in_work_leaves_others_their_turn(
    state: State, project_id: str, busy_key: str | None
) -> None:
    mine = queue(state, project_id, busy_key, 4)
    assert [claimed(claim_next(state)) for _ in range(MOST_OF_A_KEY)] == mine[:MOST_OF_A_KEY]
    assert claim_next(state) is None
    (theirs,) = queue(state, project_id, "key_other")
    assert claimed(claim_next(state)) == theirs


def test_what_only_has_to_end_waits_for_nobody_and_holds_nobody_up(state: State, project_id: str) -> None:
    first, _, third, fourth, fifth = queue(state, project_id, "key_busy", 5)
    for _ in range(MOST_OF_A_KEY):
        claim_next(state)
    with state.session() as session:
        session.get_one(BatchRow, fourth).status = "cancelling"
        session.get_one(BatchRow, fifth).expires_at = 1
    assert [claimed(claim_next(state, ending_only=True)) for _ in range(2)] == [fourth, fifth]
    assert claim_next(state) is None
    with state.session() as session:
        session.get_one(BatchRow, first).status = "cancelling"
    assert claim_next(state, ending_only=True) is None
    assert claimed(claim_next(state)) == third


def test_looking_past_a_busy_keys_queue_takes_no_time(state: State, project_id: str) -> None:
    """All rows were loaded, with the lock for writing held: 0.56 s a second for 20,000."""
    queue(state, project_id, "key_busy", 20_000)
    for _ in range(MOST_OF_A_KEY):
        claim_next(state)
    with state.session() as writer:
        writer.get(BatchRow, "none")  # it has the lock from here on: who finds nothing need not wait for it
        began = time.thread_time()
        assert claim_next(state) is None
    assert time.thread_time() - began < 0.2  # of this thread's work: the machine may be busy


def test_a_key_has_so_many_at_once(client: openai.OpenAI, state: State, project_id: str) -> None:
    queue(state, project_id, None, rows.MOST_OF_A_KEY, lease_until=1e12)
    with pytest.raises(openai.RateLimitError, match="100 batches that have not ended") as told:
        create(client, ["{}"])
    assert told.value.response.headers["retry-after"] == "60"


def test_a_project_has_so_many_at_once_whatever_its_keys(
    gateway: TestClient, client: openai.OpenAI, state: State, project_id: str
) -> None:
    file_id = upload(client, ["{}"])
    for key in range(rows.MOST_OF_A_PROJECT // 50):
        ids = queue(state, project_id, f"key_{key}", 50, lease_until=1e12)
    asked = CreateBatch(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    admin = local_admin(project_id)
    with pytest.raises(RateLimitError, match="the project has 1,000"):
        rows.create_batch(state, admin, asked, "")
    with state.session() as session:
        session.get_one(BatchRow, ids[0]).status = "completed"
    assert rows.create_batch(state, admin, asked, "").status == "validating"
