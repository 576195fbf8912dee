"""The trainer as a process: killed, restarted, told to stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_llm.errors import LockedError
from local_llm.fileio import read_json
from local_llm.files import FINE_TUNE, FileStore
from local_llm.locks import exclusive_lock
from local_llm.models import Model
from local_llm.permissions import Caller
from local_llm.processes import ProcessRecord, start_time
from local_llm.settings import Settings
from local_llm.state import Job, State
from training import jobs
from training.hyperparameters import Hyperparameters
from training.trainer import LOCK, RECORDS, Trainer

from .conftest import TINY

PATIENCE_SECONDS = 180
# Long enough to be interrupted, short enough to be finished: 160 steps of a tiny model.
SLOW = Hyperparameters(n_epochs=10, batch_size=1)


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def start(settings: Settings, tiny_model: Model) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **os.environ, "LOCAL_LLM_HOME": str(settings.home), "LOCAL_LLM_TRAINING__POLL_SECONDS": "0.05",
    }  # fmt: skip

    def start_trainer() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-m", "training"], env=environment))
        return started[-1]

    yield start_trainer
    for process in started:
        process.kill()
        process.wait()


def queue(settings: Settings, state: State, admin: Caller, file: Path) -> Job:
    row = FileStore(settings, state).add(file, filename=file.name, purpose=FINE_TUNE, project_id=admin.project_id)
    return jobs.create_job(state, admin, jobs.JobRequest(TINY, row.id, seed=1, hyperparameters=SLOW))


def child_of(settings: Settings, job: Job) -> ProcessRecord:
    return ProcessRecord(**read_json(settings.place.run / RECORDS / f"{job.id}.process.json"))


@pytest.mark.slow
def test_a_killed_trainer_is_succeeded_by_one_that_completes_its_job_and_obeys(
    settings: Settings,
    state: State,
    admin: Caller,
    training_file: Path,
    start: Callable[[], subprocess.Popen[bytes]],
) -> None:
    """One story, because every start of a child costs the import of torch."""

    def status(job: Job) -> str:
        return jobs.get_job(state, job.id, admin).status

    def training(job: Job) -> bool:
        return any(event.type == "metrics" for event in jobs.list_events(state, job.id, admin)[0])

    job = queue(settings, state, admin, training_file)

    # Killed in the middle of training, it takes its child along.
    first = start()
    wait_until(lambda: training(job))
    child = child_of(settings, job)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert status(job) == "running"
    wait_until(lambda: start_time(child.pid) != child.started)

    # The next one starts the job again and finishes it.
    second = start()
    wait_until(lambda: status(job) not in ("queued", "running"))
    done = jobs.get_job(state, job.id, admin)
    assert (done.status, done.error, done.attempts) == ("succeeded", None, 2)
    assert done.fine_tuned_model is not None

    # A cancelled job's child is ended.
    cancelled = queue(settings, state, admin, training_file)
    wait_until(lambda: status(cancelled) == "running")
    wait_until((settings.place.run / RECORDS / f"{cancelled.id}.process.json").exists)
    child = child_of(settings, cancelled)
    jobs.cancel_job(state, cancelled.id, admin)
    wait_until(lambda: start_time(child.pid) != child.started)

    # Told to stop, it puts its job back and goes.
    waiting = queue(settings, state, admin, training_file)
    wait_until(lambda: status(waiting) == "running")
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE_SECONDS) == 0
    stopped = jobs.get_job(state, waiting.id, admin)
    assert (stopped.status, stopped.attempts) == ("queued", 0)


def test_there_is_one_trainer_at_a_time(settings: Settings, state: State) -> None:
    with exclusive_lock(settings.place.run / LOCK, "the trainer"), pytest.raises(LockedError):
        Trainer(settings, state).serve()
