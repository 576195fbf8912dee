"""How batches end that others got in the way of: their time, another holder."""

import openai
import pytest
from starlette.testclient import TestClient

from local_llm.files import FileStore
from local_llm.settings import Settings
from local_llm.state import BatchRow, State
from serving.batches.leases import Lease, LeaseLostError
from serving.batches.outputs import withdraw

from .recording_engine import running
from .telling_engine import TellingEngine
from .test_batches import create, line, read, wait


def test_a_batch_that_expires_before_its_turn_is_expired_and_says_so(
    client: openai.OpenAI, settings: Settings, state: State
) -> None:
    """It ended `completed` with no answer at all."""
    slow = TellingEngine()
    slow.pause_seconds = 30
    with running(slow, settings.place.socket("engine")):  # type: ignore[arg-type]
        busy = [create(client, [line("a", "slow")]) for _ in range(2)]
        for one in busy:
            wait(client, one, lambda batch: batch.status == "in_progress")
        third = create(client, [line("a", "never")])
        with state.session() as session:
            session.get_one(BatchRow, third.id).expires_at = 1
        ended = wait(client, third)
        for one in busy:
            assert client.batches.cancel(one.id).status == "cancelling"
            assert wait(client, one).status == "cancelled"
    assert (ended.status, ended.completed_at, ended.output_file_id) == ("expired", None, None)
    assert ended.errors is not None
    assert [one.code for one in ended.errors.data or ()] == ["batch_expired"]


def test_a_cancelled_batch_does_not_wait_for_its_keys_others(
    client: openai.OpenAI, settings: Settings, state: State
) -> None:
    slow = TellingEngine()
    slow.pause_seconds = 30
    with running(slow, settings.place.socket("engine")):  # type: ignore[arg-type]
        busy = [create(client, [line("a", "slow")]) for _ in range(2)]
        for one in busy:
            wait(client, one, lambda batch: batch.status == "in_progress")
        third = create(client, [line("a", "never")])
        for one in (third, *busy):
            client.batches.cancel(one.id)
            assert wait(client, one).status == "cancelled"


def test_who_lost_a_batch_deletes_none_of_its_answers(
    gateway: TestClient, client: openai.OpenAI, settings: Settings, state: State
) -> None:
    with running(TellingEngine(), settings.place.socket("engine")):  # type: ignore[arg-type]
        batch = wait(client, create(client, [line("a", "hello")]))
    files = FileStore(settings, state)
    with pytest.raises(LeaseLostError):
        withdraw(state, files, Lease(batch.id, "lease_of_before"))
    assert len(read(client, batch.output_file_id)) == 1


def test_what_a_row_names_is_not_withdrawn_by_its_holder_either(
    client: openai.OpenAI, settings: Settings, state: State
) -> None:
    with running(TellingEngine(), settings.place.socket("engine")):  # type: ignore[arg-type]
        batch = wait(client, create(client, [line("a", "hello")]))
    files = FileStore(settings, state)
    with state.session() as session:
        row = session.get_one(BatchRow, batch.id)
        row.status, row.lease = "finalizing", "mine"
        row.lease_until = 1e12  # the gateway leaves it alone
        project_id = row.project_id
    earlier = files.add(
        [b"{}\n"], filename=f"{batch.id}_output.jsonl", purpose="batch_output", project_id=project_id
    )
    withdraw(state, files, Lease(batch.id, "mine"))
    assert len(read(client, batch.output_file_id)) == 1
    assert not files.exists(earlier.id)
    assert not files.path(earlier.id).exists()
