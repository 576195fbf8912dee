"""Instants at which another process may have been faster than a job's own, or that one may have been killed."""

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from local_llm.adapters import AdapterRegistry
from local_llm.files import FINE_TUNE, FileStore
from local_llm.models import Model
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Job, State
from training import checkpoints, jobs
from training.checkpoints import STEPS
from training.hyperparameters import Hyperparameters
from training.jobs import JobRequest, Lease, LeaseLostError
from training.publishing import withdraw_ended
from training.run import run_job

from .conftest import TINY


@pytest.fixture
def lease(settings: Settings, state: State, admin: Caller, tiny_model: Model, training_file: Path) -> Lease:
    return _queued(settings, state, admin, training_file, n_epochs=2)


def _queued(settings: Settings, state: State, admin: Caller, file: Path, **values: Any) -> Lease:
    store = FileStore(settings, state)
    stored = store.add(file, filename=file.name, purpose=FINE_TUNE, project_id=admin.project_id)
    asked = Hyperparameters(**{"batch_size": 8, **values})
    return jobs.create_claimed_job(state, admin, JobRequest(TINY, stored.id, seed=3, hyperparameters=asked), "cli")


def _taken_over(state: State, admin: Caller, lease: Lease) -> Lease:
    with state.session() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(lease_until=time.time() - 1))
    return jobs.claim(state, lease.job_id, admin, "trainer")


def test_a_process_that_lost_its_job_and_then_fails_deletes_nothing_of_its_successors(
    settings: Settings, state: State, admin: Caller, lease: Lease
) -> None:
    def report(done: int, _total: int, _note: str) -> None:
        if done == 3:  # the checkpoint of the first epoch is published
            _taken_over(state, admin, lease)
            raise RuntimeError("something else")

    with pytest.raises(LeaseLostError):
        run_job(settings, state, lease, report=report)
    assert len(AdapterRegistry(settings, state).list(admin)) == 1
    assert checkpoints.newest(settings.place.jobs / lease.job_id / STEPS) is not None


def test_of_a_job_cancelled_just_after_its_model_was_published_none_stays(
    settings: Settings, state: State, admin: Caller, lease: Lease
) -> None:
    run_job(settings, state, lease)
    with state.session() as session:  # as if it had been cancelled before the last write, and the process killed
        session.execute(update(Job).where(Job.id == lease.job_id).values(status="cancelled"))
    withdraw_ended(settings, state)
    names = [row.name for row in AdapterRegistry(settings, state).list(admin)]
    assert all(":ckpt-step-" in name for name in names)
    assert len(names) == 1
