"""The trainer as a process: killed, restarted, told to stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_llm.device import EngineTurn
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
from training.job_request import JobRequest
from training.progress import RunLog
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


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(settings: Settings, tiny_model: Model) -> Iterator[Start]:
    """Starts a trainer; its arguments are settings, as variables without their prefix."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **os.environ, "LOCAL_LLM_HOME": str(settings.home), "LOCAL_LLM_TRAINING__POLL_SECONDS": "0.05",
    }  # fmt: skip

    def start_trainer(**variables: str) -> subprocess.Popen[bytes]:
        chosen = {f"LOCAL_LLM_{name}": value for name, value in variables.items()}
        started.append(subprocess.Popen([sys.executable, "-m", "training"], env={**environment, **chosen}))
        return started[-1]

    yield start_trainer
    for process in started:
        process.kill()
        process.wait()


def queue(
    settings: Settings, state: State, admin: Caller, file: Path, hyperparameters: Hyperparameters = SLOW
) -> Job:
    row = FileStore(settings, state).add(file, filename=file.name, purpose=FINE_TUNE, project_id=admin.project_id)
    return jobs.create_job(state, admin, JobRequest(TINY, row.id, seed=1, hyperparameters=hyperparameters))


def messages(state: State, job: Job, admin: Caller) -> list[str]:
    return [event.message for event in jobs.list_events(state, job.id, admin)[0]]


@pytest.fixture
def engine(settings: Settings) -> Iterator[EngineTurn]:
    """An engine has the device; it goes when the fixture's `end` is called."""
    turn = EngineTurn(settings.place.ensure())
    assert turn.begin()
    yield turn
    turn.end()


def child_of(settings: Settings, job: Job) -> ProcessRecord:
    return ProcessRecord(**read_json(settings.place.run / RECORDS / f"{job.id}.process.json"))


@pytest.mark.slow
def test_a_killed_trainer_is_succeeded_by_one_that_completes_its_job_and_obeys(
    settings: Settings,
    state: State,
    admin: Caller,
    training_file: Path,
    start: Start,
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
    assert (done.status, done.error, done.attempts) == ("succeeded", None, 0)
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


@pytest.mark.slow
def test_a_child_that_the_kernel_killed_is_tried_again_with_less_memory(
    settings: Settings, state: State, admin: Caller, training_file: Path, start: Start
) -> None:
    job = queue(settings, state, admin, training_file)
    trainer = start()
    attempts: list[ProcessRecord] = []

    def begun_again() -> bool:
        """Between two attempts there is no record."""
        try:
            child = child_of(settings, job)
        except FileNotFoundError:
            return False
        if child not in attempts:
            attempts.append(child)
            return True
        return False

    for _ in range(2):
        wait_until(begun_again)
        os.kill(attempts[-1].pid, signal.SIGKILL)
    wait_until(lambda: any("instead of 1024" in message for message in messages(state, job, admin)))
    assert jobs.get_job(state, job.id, admin).micro_batch_tokens == 512
    told = messages(state, job, admin)
    assert sum("instead of 2048" in message for message in told) == 1
    assert sum("passes 512 tokens through the model at once instead of 1024" in message for message in told) == 1
    jobs.cancel_job(state, job.id, admin)
    trainer.terminate()
    assert trainer.wait(PATIENCE_SECONDS) == 0


def test_a_job_waits_for_the_engine_and_is_kept_meanwhile(
    settings: Settings, state: State, admin: Caller, training_file: Path, start: Start, engine: EngineTurn
) -> None:
    """gpu.sharing = "stop": told in its events; cancelled, it makes way; with the trainer stopped, it waits on."""
    queued = [queue(settings, state, admin, training_file) for _ in range(2)]
    cancelled, kept = sorted(queued, key=lambda job: (job.created_at, job.id))  # as the queue is taken
    trainer = start(GPU__SHARING="stop")

    wait_until(lambda: engine.wanted_by() == f"job {cancelled.id}")
    wait_until(lambda: messages(state, cancelled, admin)[0].startswith("Waiting for the engine to stop"))
    until = jobs.get_job(state, cancelled.id, admin).lease_until
    assert until is not None
    wait_until(lambda: (jobs.get_job(state, cancelled.id, admin).lease_until or 0) > until)
    jobs.cancel_job(state, cancelled.id, admin)

    wait_until(lambda: engine.wanted_by() == f"job {kept.id}")
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(PATIENCE_SECONDS) == 0
    row = jobs.get_job(state, kept.id, admin)
    assert (row.status, row.attempts, row.lease) == ("queued", 0, None)
    assert engine.wanted_by() is None
    assert not list((settings.place.run / RECORDS).glob("*")), "no child was started"


@pytest.mark.slow
def test_once_the_engine_has_gone_the_child_has_the_device_and_keeps_it(
    settings: Settings, state: State, admin: Caller, training_file: Path, start: Start, engine: EngineTurn
) -> None:
    job = queue(settings, state, admin, training_file)
    trainer = start(GPU__SHARING="stop")
    wait_until(lambda: engine.wanted_by() == f"job {job.id}")
    engine.end()
    wait_until((settings.place.run / RECORDS / f"{job.id}.process.json").exists)
    child = child_of(settings, job)
    assert not engine.begin()

    # Stopped, so that it cannot even hear that its trainer was killed, it has the device still.
    os.kill(child.pid, signal.SIGSTOP)
    trainer.kill()
    trainer.wait()
    assert engine.wanted_by() == f"job {job.id}"

    # The next trainer ends it; once nobody wants it any more, the device is the engine's.
    jobs.cancel_job(state, job.id, admin)
    second = start(GPU__SHARING="stop")
    wait_until(engine.begin)
    assert start_time(child.pid) != child.started
    second.terminate()
    assert second.wait(PATIENCE_SECONDS) == 0


def test_steps_of_jobs_that_have_ended_are_removed_and_the_rest_is_kept(
    settings: Settings, state: State, admin: Caller, training_file: Path, start: Start
) -> None:
    expected = {"cancelled": False, "failed": False, "succeeded": False, "paused": True}
    ended = {status: queue(settings, state, admin, training_file) for status in expected}
    with state.session() as session:
        for status, job in ended.items():
            session.get_one(Job, job.id).status = status
            steps = settings.place.jobs / job.id / "steps" / "000010"
            steps.mkdir(parents=True)
            (steps / "weights").write_bytes(b"w")
            (steps.parent.parent / "loss.jsonl").write_text("{}\n")
    trainer = start()
    wait_until(lambda: not (settings.place.jobs / ended["cancelled"].id / "steps").exists())
    wait_until(lambda: not (settings.place.jobs / ended["failed"].id / "steps").exists())
    # Its process may have been killed after it had said so, and before it had cleaned up.
    wait_until(lambda: not (settings.place.jobs / ended["succeeded"].id / "steps").exists())
    trainer.terminate()
    assert trainer.wait(PATIENCE_SECONDS) == 0
    for status, job in ended.items():
        assert (settings.place.jobs / job.id / "steps" / "000010" / "weights").exists() is expected[status]
        assert (settings.place.jobs / job.id / "loss.jsonl").exists()


def test_a_device_that_cannot_be_shared_as_asked_is_refused(start: Start) -> None:
    assert start(GPU__SHARING="separate").wait(PATIENCE_SECONDS) == 1


def test_there_is_one_trainer_at_a_time(settings: Settings, state: State) -> None:
    with exclusive_lock(settings.place.run / LOCK, "the trainer"), pytest.raises(LockedError):
        Trainer(settings, state).serve()


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_train_one_adapter(
    settings: Settings, state: State, admin: Caller, training_file: Path, start: Start, sharding: str
) -> None:
    """With a copy of the model each (DDP) or a shard of it (FSDP2), over gloo; the losses are those of one process,
    rounding apart."""

    def trained(**variables: str) -> Job:
        # Small micro-batches: the processes' shares of a batch differ in how many they need.
        trainer = start(TRAINING__MICRO_BATCH_TOKENS="64", **variables)
        job = queue(settings, state, admin, training_file, Hyperparameters(n_epochs=2, batch_size=4))
        wait_until(lambda: jobs.get_job(state, job.id, admin).status not in ("queued", "running"))
        trainer.terminate()
        assert trainer.wait(PATIENCE_SECONDS) == 0
        return jobs.get_job(state, job.id, admin)

    def losses(job: Job) -> list[float]:
        return [entry.loss for entry in RunLog(settings.place.jobs / job.id).steps()]

    together, alone = trained(TRAINING__PROCESSES="2", TRAINING__SHARDING=sharding), trained()
    assert (together.status, together.error) == ("succeeded", None)
    assert losses(together) == pytest.approx(losses(alone), rel=0.02)
    assert len(jobs.checkpoints_of(state, together.id)) == 2
    assert {path.name for path in (settings.place.jobs / together.id).iterdir()} == {
        path.name for path in (settings.place.jobs / alone.id).iterdir()
    }
