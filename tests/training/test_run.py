"""A job ends as a whole adapter with its history, or as a failure that leaves nothing."""

import errno
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_llm import ledger
from local_llm.adapters import AdapterRegistry
from local_llm.cli.app import run
from local_llm.errors import (
    InsufficientMemoryError,
    InvalidInputError,
    LocalLLMError,
    ModelNotFoundError,
    NotFoundError,
    TrainingDataError,
)
from local_llm.fileio import sha256_of
from local_llm.files import FINE_TUNE, FileStore
from local_llm.models import Model
from local_llm.permissions import Caller, shared
from local_llm.settings import Settings
from local_llm.state import Job, JobEvent, State
from training import jobs, leases
from training.failures import LossError, StoppedError
from training.hyperparameters import Hyperparameters
from training.job_request import JobRequest
from training.leases import Lease, LeaseLostError
from training.run import run_job

from .conftest import TINY, good_lines, write_lines

ONE_EPOCH = Hyperparameters(n_epochs=1, batch_size=8)


@pytest.fixture
def queue(settings: Settings, state: State, admin: Caller, tiny_model: Model, training_file: Path):  # type: ignore[no-untyped-def]
    """Stores a file, queues a job for it and claims the job."""

    def put(
        file: Path = training_file,
        model: str = TINY,
        validation: Path | None = None,
        caller: Caller = admin,
        **values: Any,
    ) -> tuple[Job, Lease]:
        def stored(path: Path) -> str:
            store = FileStore(settings, state)
            owner = {"project_id": caller.project_id, "key_id": caller.key_id}
            return store.add(path, filename=path.name, purpose=FINE_TUNE, **owner).id

        asked = {"suffix": "s", "seed": 3, "hyperparameters": ONE_EPOCH, **values}
        if validation is not None:
            asked["validation_file"] = stored(validation)
        job = jobs.create_job(state, caller, JobRequest(model, stored(file), **asked))
        return job, leases.claim(state, job.id, admin, "cli")

    return put


def nothing_published(settings: Settings, state: State, admin: Caller) -> bool:
    listed = AdapterRegistry(settings, state).list(admin)
    return not listed and list(settings.place.adapters.iterdir()) == []


def test_a_finished_job_has_an_adapter_with_manifest_ledger_record_and_events(
    settings: Settings, state: State, admin: Caller, tiny_model: Model, training_file: Path, queue
) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue()
    reports: list[tuple[int, int, str]] = []
    name = run_job(settings, state, lease, report=lambda *report: reports.append(report))

    registry = AdapterRegistry(settings, state)
    adapter = registry.get(name, admin)
    registry.verify(adapter)
    manifest = registry.manifest(adapter)
    assert name.startswith("ft:tiny:local:s:")
    assert manifest["base_sha256"] == tiny_model.manifest.sha256
    assert manifest["data_sha256"] == sha256_of(training_file)
    assert manifest["settings"]["seed"] == 3
    assert manifest["settings"]["rank"] == settings.training.rank
    assert set(manifest["versions"]) == {"torch", "transformers", "trl", "peft", "bitsandbytes"}
    assert set(manifest["files"]) == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert {path.name for path in registry.path(adapter.id).iterdir()} == {*manifest["files"], "manifest.json"}
    assert manifest["metrics"]["probe_loss_before"] > 0

    done = jobs.get_job(state, job.id, admin)
    assert (done.status, done.fine_tuned_model, done.error) == ("succeeded", name, None)
    # 4,096 / 64 to the power of 0.781
    assert done.hyperparameters == {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 25.74}
    entry = ledger.latest(state, admin.project_id, "training")
    assert entry is not None
    assert entry.facts["tokens"] == done.trained_tokens == manifest["metrics"]["tokens"]
    assert (entry.facts["examples"], entry.facts["steps"], entry.facts["base"]) == (16, 2, TINY)
    assert entry.facts["seconds"] >= entry.facts["loop_seconds"] > 0

    events = [event.message for event in reversed(jobs.list_events(state, job.id, admin)[0])]
    assert events[:4] == [
        f"Created fine-tuning job: {job.id}", "Fine-tuning job started",
        f"Validating training file: {job.training_file}", "Files validated, training begins",
    ]  # fmt: skip
    assert events[-5].startswith("Step 2/2: training loss=")
    assert events[-4].startswith("Epoch 1/1 completed: training loss=")
    assert events[-3].startswith("Loss on a fixed general text: ")
    assert events[-2:] == [f"New fine-tuned model created: {name}", "The job has successfully completed"]
    assert [report[:2] for report in reports] == [(1, 2), (2, 2)]
    left = {path.name for path in (settings.place.jobs / job.id).iterdir()}
    assert left == {"plan.json", "steps.jsonl", "epochs.jsonl", "tensorboard"}

    # The result file, in the API's columns.
    assert len(done.result_files) == 1
    text = FileStore(settings, state).path(done.result_files[0]).read_text()
    header, first, second = text.splitlines()
    assert header == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert first.startswith("1,1")
    assert second.endswith(",,")
    assert second.startswith("2,")
    # The only epoch's checkpoint is the finished model.
    checkpoints = jobs.checkpoints_of(state, job.id)
    assert [(row.step_number, row.model_name) for row in checkpoints] == [(2, name)]
    assert len(registry.list(admin)) == 1


def test_the_result_file_is_for_the_key_that_made_the_job(
    settings: Settings, state: State, admin: Caller, queue
) -> None:  # type: ignore[no-untyped-def]
    """It was nobody's: a key held to some collections, which sees its own uploads only, did not find it."""
    ana = Caller(admin.project_id, "member", key_id="key_ana", collections=("vs_1",))
    ben = replace(ana, key_id="key_ben")
    job, lease = queue(caller=ana)
    run_job(settings, state, lease)
    (result,) = jobs.get_job(state, job.id, ana).result_files
    files = FileStore(settings, state)
    assert files.get(result, ana).key_id == "key_ana"
    assert files.get(result, admin).id == result
    with pytest.raises(NotFoundError):
        files.get(result, ben)


def test_what_was_trained_on_restricted_files_is_for_those_who_may_see_all_of_them(
    settings: Settings, state: State, admin: Caller, training_file: Path, queue
) -> None:  # type: ignore[no-untyped-def]
    """The whole project was answered by a model that had learned what only some may read."""
    job, lease = queue(validation=training_file)
    files, registry = FileStore(settings, state), AdapterRegistry(settings, state)
    files.set_allows({job.training_file: ["user:ana", "group:support"], job.validation_file: ["group:support"]})
    name = run_job(settings, state, lease)
    ana = Caller(admin.project_id, "member", principals=("user:ana",), key_id="key_ana")
    ben = replace(ana, principals=("group:support",), key_id="key_ben")
    for caller in (ben, admin):
        assert registry.get(name, caller).allow == ["group:support"]
        assert registry.hidden(caller, [job.id]) == set()
    with pytest.raises(ModelNotFoundError):
        registry.get(name, ana)
    assert registry.list(ana) == []
    assert registry.hidden(ana, [job.id]) == {name}
    (result,) = jobs.get_job(state, job.id, admin).result_files
    assert files.get(result, ben).allow == ["group:support"]
    with pytest.raises(NotFoundError):
        files.get(result, ana)


@pytest.mark.parametrize(
    ("allows", "allow"),
    [
        ([], None), ([None, None], None), ([["a"], None], ["a"]), ([["b", "a"], ["a", "b", "c"]], ["a", "b"]),
        ([["a"], ["b"]], []), ([[], None], []),
    ],
)  # fmt: skip
def test_an_audience_is_within_each_of_those_it_is_made_from(allows: list[Any], allow: list[str] | None) -> None:
    assert shared(*allows) == allow


def test_a_file_with_mistakes_fails_the_job_and_publishes_nothing(
    settings: Settings, state: State, admin: Caller, tmp_path: Path, queue
) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue(write_lines(tmp_path / "bad.jsonl", [*good_lines(), {"messages": 1}]))
    with pytest.raises(TrainingDataError):
        run_job(settings, state, lease)
    failed = jobs.get_job(state, job.id, admin)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error["code"], failed.error["param"]) == ("invalid_training_file", "training_file")
    assert "line 17" in failed.error["message"]
    assert nothing_published(settings, state, admin)


FAULTS = [
    (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    (ValueError("no idea"), None),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS)
def test_of_a_run_that_breaks_off_nothing_stays_published(
    settings: Settings, state: State, admin: Caller, queue, fault: Exception, code: str | None
) -> None:  # type: ignore[no-untyped-def]
    """In the second epoch, when the first one's checkpoint has been published."""
    job, lease = queue(hyperparameters=Hyperparameters(n_epochs=2, batch_size=8))

    def report(done: int, total: int, note: str) -> None:
        if done == 3:
            assert len(jobs.checkpoints_of(state, job.id)) == 1
            raise fault

    with pytest.raises(LocalLLMError) as raised:
        run_job(settings, state, lease, report=report)
    failed = jobs.get_job(state, job.id, admin)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["code"] == (code or "server_error")
    assert failed.error["message"] == raised.value.message
    assert nothing_published(settings, state, admin)
    assert jobs.checkpoints_of(state, job.id) == []
    assert not (settings.place.jobs / job.id / "steps").exists()
    assert ledger.latest(state, admin.project_id, "training") is None


class MemoryEnds:
    """A report that fails as torch does where memory ends, so many times."""

    def __init__(self, times: int):
        self.left = times

    def __call__(self, done: int, total: int, note: str) -> None:
        if done >= 2 and self.left > 0:
            self.left -= 1
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


def test_where_memory_ends_the_run_goes_on_once_with_smaller_micro_batches(
    settings: Settings, state: State, admin: Caller, queue
) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue(hyperparameters=Hyperparameters(n_epochs=2, batch_size=4))
    run_job(settings, state, lease, report=MemoryEnds(1))
    done = jobs.get_job(state, job.id, admin)
    assert (done.status, done.micro_batch_tokens) == ("succeeded", settings.training.micro_batch_tokens // 2)
    events = [event.message for event in reversed(jobs.list_events(state, job.id, admin, limit=100)[0])]
    assert "Out of memory with micro-batches of 2048 tokens; trying again with 1024" in events
    assert "Training goes on from step 2" in events

    job, lease = queue(hyperparameters=Hyperparameters(n_epochs=2, batch_size=4))
    with pytest.raises(InsufficientMemoryError):
        run_job(settings, state, lease, report=MemoryEnds(2))
    failed = jobs.get_job(state, job.id, admin)
    assert failed.error is not None
    assert (failed.status, failed.error["code"]) == ("failed", "out_of_memory")


def test_a_loss_that_is_no_number_fails_the_job(settings: Settings, state: State, admin: Caller, queue) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue(hyperparameters=Hyperparameters(n_epochs=2, batch_size=4))
    training = settings.training.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(LossError):
        run_job(settings.model_copy(update={"training": training}), state, lease)
    failed = jobs.get_job(state, job.id, admin)
    assert failed.error is not None
    assert failed.error["code"] == "loss_not_finite"
    assert failed.error["param"] == "hyperparameters.learning_rate_multiplier"
    assert nothing_published(settings, state, admin)


def test_the_last_three_epochs_are_served_under_names_of_their_own(
    settings: Settings, state: State, admin: Caller, queue, training_file: Path
) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue(hyperparameters=Hyperparameters(n_epochs=5, batch_size=8), validation=training_file)
    name = run_job(settings, state, lease)
    assert [(row.step_number, row.model_name) for row in jobs.checkpoints_of(state, job.id)] == [
        (6, f"{name}:ckpt-step-6"), (8, f"{name}:ckpt-step-8"), (10, name),
    ]  # fmt: skip
    registry = AdapterRegistry(settings, state)
    assert {row.name for row in registry.list(admin)} == {f"{name}:ckpt-step-6", f"{name}:ckpt-step-8", name}
    for row in registry.list(admin):
        registry.verify(row)
    metrics = jobs.checkpoints_of(state, job.id)[-1].metrics
    assert metrics["step"] == 10
    assert metrics["full_valid_loss"] == metrics["valid_loss"] > 0
    assert 0 <= metrics["full_valid_mean_token_accuracy"] <= 1
    results = FileStore(settings, state).path(jobs.get_job(state, job.id, admin).result_files[0]).read_text()
    validated = [line.split(",")[0] for line in results.splitlines()[1:] if not line.endswith(",,")]
    assert validated == ["2", "4", "6", "8", "10"]


def test_a_paused_job_goes_on_where_it_stopped_with_the_settings_it_began_with(
    settings: Settings, state: State, admin: Caller, queue
) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue(hyperparameters=Hyperparameters(n_epochs=2, batch_size=4))
    with pytest.raises(LeaseLostError):
        run_job(settings, state, lease, report=lambda done, *_: done == 3 and jobs.pause_job(state, job.id, admin))
    assert jobs.get_job(state, job.id, admin).status == "paused"
    assert leases.claim_next(state) is None

    jobs.resume_job(state, job.id, admin)
    lease = leases.claim(state, job.id, admin, "cli")
    training = settings.training.model_copy(update={"rank": 4})
    steps: list[int] = []
    name = run_job(
        settings.model_copy(update={"training": training}), state, lease, report=lambda done, *_: steps.append(done)
    )
    # The pause is noticed with the next event, at the end of the epoch at the latest.
    assert steps in ([4, 5, 6, 7, 8], [5, 6, 7, 8])
    registry = AdapterRegistry(settings, state)
    assert registry.get(name, admin).rank == settings.training.rank == 16
    assert registry.manifest(registry.get(name, admin))["metrics"]["resumed_at_step"] == 8 - len(steps)


def test_told_to_stop_a_run_ends_after_its_step_and_the_job_is_still_held(
    settings: Settings, state: State, admin: Caller, queue
) -> None:  # type: ignore[no-untyped-def]
    _, lease = queue()
    stop = threading.Event()
    with pytest.raises(StoppedError):
        run_job(settings, state, lease, report=lambda *_: stop.set(), stop=stop)
    assert leases.load(state, lease).status == "running"
    steps: list[int] = []
    run_job(settings, state, lease, report=lambda done, *_: steps.append(done))
    assert steps == [2]


def test_preferences_become_an_adapter(
    settings: Settings, state: State, admin: Caller, queue, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    pairs = [
        {
            "input": {"messages": [{"role": "user", "content": f"Question {n}?"}]},
            "preferred_output": [{"role": "assistant", "content": "Aye. " * (n % 3 + 1)}],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        }
        for n in range(12)
    ]
    file = write_lines(tmp_path / "pairs.jsonl", pairs)
    asked = Hyperparameters(n_epochs=1, batch_size=4, learning_rate_multiplier=1000.0)
    job, lease = queue(file, method="dpo", hyperparameters=asked)
    name = run_job(settings, state, lease)
    done = jobs.get_job(state, job.id, admin)
    assert done.hyperparameters["beta"] == 0.1
    manifest = AdapterRegistry(settings, state).manifest(AdapterRegistry(settings, state).get(name, admin))
    assert manifest["metrics"]["final_loss"] < manifest["metrics"]["first_loss"]
    assert manifest["settings"]["method"] == "dpo"


def test_a_model_that_is_not_there_or_a_rank_that_cannot_be_served_fails_the_job(
    settings: Settings, state: State, admin: Caller, queue
) -> None:  # type: ignore[no-untyped-def]
    engine = settings.engine.model_copy(update={"max_lora_rank": 16})
    small = settings.model_copy(update={"engine": engine})
    for values, error in (
        ({"model": "none"}, ModelNotFoundError), ({"rank": 32}, InvalidInputError),
    ):  # fmt: skip
        job, lease = queue(**values)
        with pytest.raises(error):
            run_job(small, state, lease)
        assert jobs.get_job(state, job.id, admin).status == "failed"
    assert nothing_published(settings, state, admin)


def test_a_job_cancelled_while_it_trains_publishes_nothing(
    settings: Settings, state: State, admin: Caller, queue
) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue()
    with pytest.raises(LeaseLostError):
        run_job(settings, state, lease, report=lambda *_: jobs.cancel_job(state, job.id, admin))
    assert jobs.get_job(state, job.id, admin).status == "cancelled"
    assert nothing_published(settings, state, admin)


def test_an_attempt_that_died_after_publishing_is_finished_and_not_trained_twice(
    settings: Settings, state: State, admin: Caller, queue
) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue()
    name = run_job(settings, state, lease)
    with state.session() as session:  # as if the process had died before its last write
        row = session.get_one(Job, job.id)
        row.status, row.fine_tuned_model = "queued", None
    again = leases.claim(state, job.id, admin, "cli")
    assert run_job(settings, state, again, report=lambda *_: pytest.fail("trained again")) == name
    assert len(AdapterRegistry(settings, state).list(admin)) == 1


def _events(state: State, admin: Caller) -> list[JobEvent]:
    found = jobs.list_jobs(state, admin)[0]
    return jobs.list_events(state, found[0].id, admin, limit=100)[0] if found else []


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def home(self, settings: Settings, tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCAL_LLM_HOME", str(settings.home))
        monkeypatch.setenv("LOCAL_LLM_ENGINE__MODEL", TINY)

    def test_train_adapter_prints_the_name_and_leaves_a_job(
        self, state: State, admin: Caller, training_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ["--suffix", "cli", "--epochs", "1", "--batch-size", "8", "--seed", "1", "--rank", "4", "--json"]
        assert run(["train", "adapter", str(training_file), *options]) == 0
        result = json.loads(capsys.readouterr().out)
        job = jobs.get_job(state, result["job"], admin)
        assert (job.status, job.fine_tuned_model) == ("succeeded", result["fine_tuned_model"])
        assert result["fine_tuned_model"].startswith("ft:tiny:local:cli:")
        assert job.method["lora"] == {"rank": 4}

    def test_every_mistake_is_told_at_once_and_no_job_is_made(
        self, state: State, admin: Caller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bad = write_lines(tmp_path / "bad.jsonl", [1, {"messages": 2}])
        assert run(["train", "adapter", str(bad)]) == 1
        assert capsys.readouterr().err.startswith("error: bad.jsonl has 2 problems: line 1: ")
        assert jobs.list_jobs(state, admin) == ([], False)

    def test_a_request_that_is_refused_leaves_no_files(
        self, settings: Settings, state: State, admin: Caller, training_file: Path, tmp_path: Path
    ) -> None:
        options = ["--early-stopping-epochs", "2"]  # by what, without a validation file?
        assert run(["train", "adapter", str(training_file), *options]) == 1
        assert FileStore(settings, state).list(admin) == []
        assert list(settings.place.files.iterdir()) == []

    def test_control_c_pauses_and_the_job_goes_on_later(
        self, state: State, admin: Caller, training_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ["--epochs", "3", "--batch-size", "2", "--seed", "1"]

        def interrupt() -> None:
            while not any(row.type == "metrics" for row in _events(state, admin)):
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Thread(target=interrupt)
        timer.start()
        assert run(["train", "adapter", str(training_file), *options]) == 1
        timer.join()
        job = jobs.list_jobs(state, admin)[0][0]
        assert job.status == "paused"
        assert f"--resume {job.id}" in capsys.readouterr().err
        assert run(["train", "adapter", "--resume", job.id]) == 0
        done = jobs.get_job(state, job.id, admin)
        assert (done.status, capsys.readouterr().out.strip()) == ("succeeded", done.fine_tuned_model)
        assert any(row.message.startswith("Training goes on from step") for row in _events(state, admin))
        assert run(["train", "adapter", "--resume", job.id]) == 1
        assert "has succeeded" in capsys.readouterr().err

    @pytest.mark.slow
    def test_several_processes_train_together_from_the_command_line(
        self,
        state: State,
        admin: Caller,
        training_file: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("LOCAL_LLM_TRAINING__PROCESSES", "2")
        assert run(["train", "adapter", str(training_file), "--epochs", "1", "--batch-size", "4"]) == 0
        job = jobs.list_jobs(state, admin)[0][0]
        assert (job.status, job.fine_tuned_model) == ("succeeded", capsys.readouterr().out.strip())
        assert run(["train", "adapter", str(training_file), "--epochs", "1", "--batch-size", "3"]) == 1
        assert "expected a multiple of the 2 processes" in capsys.readouterr().err

    def test_preview_shows_what_is_trained(self, training_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["train", "preview", str(training_file), "--count", "2", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert [row["line"] for row in shown["rows"]] == [1, 2]
        trained = [piece["text"] for piece in shown["rows"][0]["pieces"] if piece["trained"]]
        assert trained == ["Aye. Answer 0.<|im_end|>"]
        assert run(["train", "preview", str(training_file)]) == 0
        assert "16 examples" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "option", ["--epochs=0", "--epochs=x", "--batch-size=999", "--learning-rate-multiplier=0"]
    )
    def test_numbers_out_of_their_limits_are_refused(self, training_file: Path, option: str) -> None:
        assert run(["train", "adapter", str(training_file), option]) == 1


def test_errors_of_a_run_are_ours() -> None:
    assert issubclass(LeaseLostError, LocalLLMError)
