"""One fine-tuning job from its file to a published adapter. The trainer's child and the command line run this."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import select

from local_llm import ledger
from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.errors import InvalidInputError, LocalLLMError
from local_llm.files import FileStore
from local_llm.models import Model, ModelStore
from local_llm.permissions import local_admin
from local_llm.settings import Settings
from local_llm.state import Adapter, Job, State
from training import jobs
from training.adapter import LOSS_LOG, Outcome, Recipe, StepReport, hidden_size, train_adapter
from training.data import TrainingData, read_training_file
from training.hyperparameters import Hyperparameters, Resolved
from training.jobs import Lease
from training.labels import Row, build_rows, load_tokenizer

Report = Callable[[int, int, str], None]  # done and total steps, and a note for people

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")
# Events are rows on disk: one a second tells enough of a run of thousands of steps.
SECONDS_BETWEEN_EVENTS = 1.0


@dataclass(frozen=True)
class Prepared:
    """Everything that can be wrong with a job is found before this exists."""

    base: Model
    data: TrainingData
    rows: list[Row]
    tokenizer: Any
    resolved: Resolved
    recipe: Recipe


def prepare(settings: Settings, job: Job, training_file: Path, shown_as: str) -> Prepared:
    """Checks file, model and hyperparameters, and builds the rows.

    Raises: TrainingDataError with all problems at once; InvalidInputError, NotFoundError, IntegrityError.
    """
    training = settings.training
    ours = job.method.get("lora", {})
    rank = ours.get("rank", training.rank)
    if rank > settings.engine.max_lora_rank:
        raise InvalidInputError(
            f"rank is {rank}; the engine serves up to {settings.engine.max_lora_rank}",
            hint="use a smaller rank, or raise engine.max_lora_rank",
            param="rank",
        )
    data = read_training_file(training_file, shown_as=shown_as)
    base = ModelStore(settings.place.models).get(job.model, "base")
    tokenizer = load_tokenizer(base.path)
    rows = build_rows(tokenizer, data.examples, max_tokens=training.max_tokens, shown_as=shown_as)
    resolved = Hyperparameters.from_json(job.hyperparameters).resolve(len(rows), hidden_size(base.path))
    recipe = Recipe.build(
        resolved,
        rank=rank,
        alpha=training.alpha,
        learning_rate=training.learning_rate,
        seed=job.seed,
        quantization=ours.get("quantization", training.quantization),
    )
    return Prepared(base, data, rows, tokenizer, resolved, recipe)


def run_job(settings: Settings, state: State, lease: Lease, *, report: Report | None = None) -> str:
    """Runs the job that `lease` holds and returns the name of the fine-tuned model.

    Any failure is written to the job and raised again; nothing is published then.

    Raises: LeaseLostError if the job was cancelled or taken over meanwhile; what prepare() and training raise.
    """
    try:
        return _run(settings, state, lease, report)
    except jobs.LeaseLostError:
        raise
    except LocalLLMError as error:
        jobs.fail(state, lease, error)
        raise
    except Exception as error:
        jobs.fail(state, lease, LocalLLMError(f"unexpected {type(error).__name__}: {error}"))
        raise


def _run(settings: Settings, state: State, lease: Lease, report: Report | None) -> str:
    wall, cpu = time.monotonic(), time.process_time()
    job = jobs.load(state, lease)
    published = _published_by(state, job.id)
    if published is not None:  # an earlier attempt died between publishing and saying so
        return _succeed(settings, state, lease, published)
    jobs.report_event(state, lease, f"Validating training file: {job.training_file}")
    prepared = _prepare_stored(settings, state, job)
    jobs.set_hyperparameters(state, lease, prepared.resolved.to_json())
    jobs.report_event(state, lease, "Files validated, training begins")
    folder = _fresh_folder(settings.place.jobs / job.id)
    try:
        outcome = train_adapter(
            base=prepared.base.path,
            base_name=prepared.base.name,
            tokenizer=prepared.tokenizer,
            rows=prepared.rows,
            recipe=prepared.recipe,
            output=folder,
            report=_reporting(state, lease, report),
        )
        facts = _facts(prepared, outcome, seconds=time.monotonic() - wall, cpu_seconds=time.process_time() - cpu)
        jobs.renew(state, lease)  # the last look before something becomes visible
        adapter = _publish(settings, state, job, prepared, folder, facts)
    finally:
        _keep_only_log(folder)
    ledger.record(state, job.project_id, "training", {**facts, "job_id": job.id, "fine_tuned_model": adapter.name})
    return _succeed(settings, state, lease, adapter)


def _prepare_stored(settings: Settings, state: State, job: Job) -> Prepared:
    files = FileStore(settings, state)
    row = files.get(job.training_file, local_admin(job.project_id))
    return prepare(settings, job, files.path(row.id), row.filename)


def _fresh_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
    folder.mkdir(parents=True)
    return folder


def _keep_only_log(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOSS_LOG:
            path.unlink()


def _reporting(state: State, lease: Lease, report: Report | None) -> StepReport:
    """Passes each step on, as an event at most once a second; raises LeaseLostError once we are fenced out."""
    last = -math.inf

    def step(done: int, total: int, loss: float) -> None:
        nonlocal last
        if report is not None:
            report(done, total, f"loss {loss:.3f}")
        if done == total or time.monotonic() - last >= SECONDS_BETWEEN_EVENTS:
            last = time.monotonic()
            data = {"step": done, "total_steps": total, "train_loss": loss}
            jobs.report_event(state, lease, f"Step {done}/{total}: training loss={loss:.2f}", data=data)

    return step


def _facts(prepared: Prepared, outcome: Outcome, *, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    """What the ledger keeps: all that a run cost, and what it did with it."""
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "loop_seconds": outcome.seconds,
        "examples": len(prepared.rows),
        "epochs": prepared.recipe.epochs,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "trained_tokens": outcome.trained_tokens,
        "first_loss": outcome.first_loss,
        "final_loss": outcome.final_loss,
        "base": prepared.base.name,
        "base_sha256": prepared.base.manifest.sha256,
        "data_sha256": prepared.data.sha256,
        "device": outcome.device,
        "precision": outcome.precision,
    }


def _publish(
    settings: Settings, state: State, job: Job, prepared: Prepared, folder: Path, facts: dict[str, Any]
) -> Adapter:
    run = AdapterRun(
        data_sha256=prepared.data.sha256,
        settings={**asdict(prepared.recipe), **prepared.resolved.to_json()},
        metrics=facts,
        versions={name: version(name) for name in LIBRARIES},
        job_id=job.id,
    )
    registry = AdapterRegistry(settings, state)
    name = registry.new_name(prepared.base.name, job.suffix)
    return registry.publish(folder, base=prepared.base, name=name, project_id=job.project_id, run=run)


def _succeed(settings: Settings, state: State, lease: Lease, adapter: Adapter) -> str:
    registry = AdapterRegistry(settings, state)
    metrics = registry.manifest(adapter)["metrics"]
    try:
        # The hosted API bills, and reports, every token of the file in every epoch.
        jobs.succeed(state, lease, fine_tuned_model=adapter.name, trained_tokens=metrics["tokens"])
    except jobs.LeaseLostError:
        registry.delete(adapter)  # cancelled at the last moment
        raise
    return adapter.name


def _published_by(state: State, job_id: str) -> Adapter | None:
    with state.session() as session:
        return session.scalars(select(Adapter).where(Adapter.job_id == job_id)).first()
