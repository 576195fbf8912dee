"""A job ends as a whole adapter with its history, or as a failure that leaves nothing."""

import json
from pathlib import Path

import pytest

from local_llm import ledger
from local_llm.adapters import AdapterRegistry
from local_llm.cli.app import run
from local_llm.errors import InvalidInputError, LocalLLMError, ModelNotFoundError, TrainingDataError
from local_llm.fileio import sha256_of
from local_llm.files import FINE_TUNE, FileStore
from local_llm.models import Model
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import Job, State
from training import jobs
from training.hyperparameters import Hyperparameters
from training.jobs import JobRequest, Lease, LeaseLostError
from training.run import run_job

from .conftest import TINY, good_lines, write_lines

ONE_EPOCH = Hyperparameters(n_epochs=1, batch_size=8)


@pytest.fixture
def queue(settings: Settings, state: State, admin: Caller, tiny_model: Model, training_file: Path):  # type: ignore[no-untyped-def]
    """Stores a file, queues a job for it and claims the job."""

    def put(file: Path = training_file, model: str = TINY, rank: int | None = None) -> tuple[Job, Lease]:
        row = FileStore(settings, state).add(
            file, filename=file.name, purpose=FINE_TUNE, project_id=admin.project_id
        )
        request = JobRequest(model, row.id, suffix="s", seed=3, hyperparameters=ONE_EPOCH, rank=rank)
        job = jobs.create_job(state, admin, request)
        return job, jobs.claim(state, job.id, "cli")

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
    assert set(manifest["files"]) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert sorted(path.name for path in registry.path(adapter.id).iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json",
    ]  # fmt: skip

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
    assert events[-3].startswith("Step 2/2: training loss=")
    assert events[-2:] == [f"New fine-tuned model created: {name}", "The job has successfully completed"]
    assert [report[:2] for report in reports] == [(1, 2), (2, 2)]
    assert [path.name for path in (settings.place.jobs / job.id).iterdir()] == ["loss.jsonl"]


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


def test_a_run_that_breaks_off_publishes_nothing(settings: Settings, state: State, admin: Caller, queue) -> None:  # type: ignore[no-untyped-def]
    job, lease = queue()

    def report(done: int, total: int, note: str) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_job(settings, state, lease, report=report)
    failed = jobs.get_job(state, job.id, admin)
    assert failed.error == {"code": "server_error", "message": "unexpected OSError: disk full", "param": None}
    assert nothing_published(settings, state, admin)
    assert ledger.latest(state, admin.project_id, "training") is None


def test_a_model_that_is_not_there_or_a_rank_that_cannot_be_served_fails_the_job(
    settings: Settings, state: State, admin: Caller, queue
) -> None:  # type: ignore[no-untyped-def]
    for values, error in (({"model": "none"}, ModelNotFoundError), ({"rank": 512}, InvalidInputError)):
        job, lease = queue(**values)
        with pytest.raises(error):
            run_job(settings, state, lease)
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
    again = jobs.claim(state, job.id, "cli")
    assert run_job(settings, state, again, report=lambda *_: pytest.fail("trained again")) == name
    assert len(AdapterRegistry(settings, state).list(admin)) == 1


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
