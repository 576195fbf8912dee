"""Instants at which another process may have been faster than a job's own, or that one may have been killed."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from local_llm.adapters import AdapterRegistry
from local_llm.files import FINE_TUNE, FINE_TUNE_RESULTS, FileStore
from local_llm.models import Model
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Job, JobCheckpoint, State
from training import checkpoints, jobs, leases
from training.checkpoints import STEPS
from training.hyperparameters import Hyperparameters
from training.job_request import JobRequest
from training.leases import Lease, LeaseLostError
from training.progress import EpochMetrics
from training.publishing import withdraw_ended
from training.reporting import JobListener
from training.run import run_job

from .conftest import TINY, good_lines, write_lines
from .runs import RECIPE


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
    return leases.claim(state, lease.job_id, admin, "trainer")


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


def test_an_attempt_killed_between_publishing_and_listing_is_listed_by_the_next(
    settings: Settings, state: State, admin: Caller, lease: Lease
) -> None:
    name = run_job(settings, state, lease)
    with state.session() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(status="queued", fine_tuned_model=None))
        session.execute(delete(JobCheckpoint).where(JobCheckpoint.model_name == name))
    assert run_job(settings, state, leases.claim(state, lease.job_id, admin, "cli")) == name
    assert [row.model_name for row in jobs.checkpoints_of(state, lease.job_id)][1:] == [name]
    assert len(FileStore(settings, state).list(admin, purpose=FINE_TUNE_RESULTS)) == 1


def test_a_checkpoint_that_was_unlisted_by_a_killed_attempt_does_not_stay_served(
    settings: Settings, state: State, admin: Caller, tiny_model: Model, training_file: Path
) -> None:
    lease = _queued(settings, state, admin, training_file, n_epochs=5)

    def report(done: int, _total: int, _note: str) -> None:
        if done == 3:
            leases.remove_checkpoint(state, lease, 2)

    run_job(settings, state, lease, report=report)
    listed = {row.model_name for row in jobs.checkpoints_of(state, lease.job_id)}
    assert {row.name for row in AdapterRegistry(settings, state).list(admin)} == listed
    assert len(listed) == 3


def test_with_early_stopping_each_epoch_is_served_once_whichever_is_the_model(
    settings: Settings, state: State, admin: Caller, tiny_model: Model, training_file: Path, tmp_path: Path
) -> None:
    store = FileStore(settings, state)
    other = write_lines(tmp_path / "other.jsonl", good_lines(4))
    files = [
        store.add(file, filename=file.name, purpose=FINE_TUNE, project_id=admin.project_id).id
        for file in (training_file, other)
    ]
    asked = Hyperparameters(n_epochs=3, batch_size=8, learning_rate_multiplier=5000.0)
    request = JobRequest(TINY, *files, seed=3, hyperparameters=asked, early_stopping_epochs=3)
    lease = jobs.create_claimed_job(state, admin, request, "cli")
    name = run_job(settings, state, lease)
    listed = [(row.step_number, row.model_name) for row in jobs.checkpoints_of(state, lease.job_id)]
    assert [step for step, _ in listed] == [2, 4, 6]
    assert name in dict(listed).values()
    assert {row.name for row in AdapterRegistry(settings, state).list(admin)} == {model for _, model in listed}


class Published:
    """In place of a publisher and of TensorBoard."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def publish_checkpoint(self, metrics: EpochMetrics, _adapter: Path) -> None:
        self.steps.append(metrics.step)

    def add_epoch(self, _metrics: EpochMetrics) -> None:
        pass


@pytest.mark.parametrize(("patience", "steps"), [(0, [3]), (2, [3, 6])])
def test_the_last_epoch_is_published_as_a_checkpoint_where_another_may_be_the_model(
    state: State, tmp_path: Path, lease: Lease, patience: int, steps: list[int]
) -> None:
    publisher: Any = Published()
    listener = JobListener(
        state, lease, publisher, recipe=replace(RECIPE, epochs=2, early_stopping_epochs=patience),
        tensorboard=publisher, report=None, stop=threading.Event(),
    )  # fmt: skip
    for epoch, valid_loss in ((1, 1.0), (2, 2.0)):
        listener.on_epoch(EpochMetrics(epoch, 3 * epoch, 0.5, 0.5, valid_loss, 0.5), tmp_path)
    assert publisher.steps == steps
