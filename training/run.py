"""One fine-tuning job from its file to a published adapter. The trainer's child and the command line run this."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm import ledger
from local_llm.adapters import AdapterRegistry
from local_llm.energy import EnergyMeter
from local_llm.errors import LocalLLMError, UnavailableError
from local_llm.files import FINE_TUNE_RESULTS, FileStore
from local_llm.locks import Lock
from local_llm.permissions import local_admin
from local_llm.settings import Settings
from local_llm.state import Adapter, Job, State
from training import batches, checkpoints, launch, leases, plan
from training.adapter import Outcome, train_adapter
from training.checkpoints import STEPS
from training.failures import StoppedError, in_our_words, is_busy, is_out_of_memory
from training.leases import Lease
from training.loops import Limits
from training.preparation import Prepared, prepare
from training.progress import EpochMetrics, RunLog, Silence
from training.publishing import Publisher, adapters_of, withdraw_ended
from training.recipe import Recipe
from training.reporting import TENSORBOARD, JobListener, Report
from training.results import FILENAME, TensorBoardLog, result_csv


def run_job(
    settings: Settings,
    state: State,
    lease: Lease,
    *,
    report: Report | None = None,
    stop: threading.Event | None = None,
) -> str:
    """Runs the job that `lease` holds, from its last step checkpoint if it has one; returns the model's name.

    `report(done, total, note)` is called after every step. Once `stop` is set the run ends after its step, which is
    in a checkpoint then. Any failure is written to the job and raised again; nothing of it stays published.

    Raises: StoppedError; LeaseLostError if the job was cancelled, paused or taken over; what prepare() and training
        raise, in our words.
    """
    if not launch.is_main_process():
        return _assist(settings, state, lease)
    stop = stop or threading.Event()
    try:
        with _alone(settings, state, lease, stop), EnergyMeter() as meter:
            return _run(settings, state, lease, report, stop, meter)
    except StoppedError:
        raise
    except leases.LeaseLostError:
        withdraw_ended(settings, state)  # it may have been cancelled after its model was published
        raise
    except Exception as error:
        if is_busy(error):
            raise UnavailableError(
                f"the state database was busy for too long: {error}", hint="the job goes on when it is taken again"
            ) from error
        ours = in_our_words(error)
        _withdraw(settings, state, lease, ours)
        raise ours from error


@contextmanager
def _alone(settings: Settings, state: State, lease: Lease, stop: threading.Event) -> Iterator[None]:
    """Waits for a process that has lost this job but is still in its folder: paused, it finishes its step.

    Raises: StoppedError, LeaseLostError.
    """
    # Hosts that share the state share this folder: the lock has to lie there, not where each has its own.
    folder = settings.place.job_locks if state.host else settings.place.run
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / f"{lease.job_id}.lock")
    try:
        while not lock.take(f"process {os.getpid()}"):
            if stop.is_set():
                raise StoppedError("the run was told to stop")
            leases.renew(state, lease)
            time.sleep(settings.training.poll_seconds)
        yield
    finally:
        lock.give_back()


@dataclass(frozen=True)
class _Run:
    """One attempt at a job: what its parts work with."""

    settings: Settings
    state: State
    lease: Lease
    job: Job
    prepared: Prepared
    recipe: Recipe
    folder: Path
    publisher: Publisher


def _run(
    settings: Settings,
    state: State,
    lease: Lease,
    report: Report | None,
    stop: threading.Event,
    meter: EnergyMeter,
) -> str:
    wall, cpu = time.monotonic(), time.process_time()
    run = _begin(settings, state, lease)
    finished = adapters_of(state, run.job.id).get(None)
    if finished is not None:  # an earlier attempt died between publishing and saying so
        for entry in RunLog(run.folder).epochs():
            if entry.step == _metrics(run, finished)["step"]:
                run.publisher.list_finished(entry)
        return _succeed(run, finished)
    outcome = _train(run, report, stop)
    _tell_of_forgetting(run, outcome)
    overhead = time.monotonic() - wall - outcome.seconds_here
    facts = _facts(run, outcome, seconds=outcome.seconds + overhead, cpu_seconds=time.process_time() - cpu)
    facts |= meter.facts()  # of the last attempt
    leases.renew(state, lease)  # the last look before something becomes visible
    adapter = run.publisher.publish_finished(outcome.adapter, _epoch(run, outcome.step), facts)
    ledger.record(
        state, run.job.project_id, "training", {**facts, "job_id": run.job.id, "fine_tuned_model": adapter.name}
    )
    return _succeed(run, adapter)


def _assist(settings: Settings, state: State, lease: Lease) -> str:
    """One of several processes that train together, but the first: it trains its share and tells nobody."""
    job = leases.load(state, lease)
    prepared = prepare(settings, state, job)
    folder = settings.place.jobs / job.id
    recipe = plan.await_begun(folder, _sources(prepared))
    tokens = job.micro_batch_tokens or settings.training.micro_batch_tokens
    train_adapter(
        base=prepared.base.path,
        base_name=prepared.base.name,
        tokenizer=prepared.tokenizer,
        rows=prepared.rows,
        validation_rows=prepared.validation_rows,
        recipe=recipe,
        limits=_limits(settings, tokens),
        output=folder,
        listener=Silence(),
    )
    return job.output_name or ""


def _sources(prepared: Prepared) -> plan.Sources:
    return plan.Sources.of(prepared.base.manifest.sha256, prepared.data_sha256, prepared.rows)


def _limits(settings: Settings, micro_batch_tokens: int) -> Limits:
    split = settings.gpu.sharing == "split"
    return Limits(
        micro_batch_tokens=micro_batch_tokens,
        checkpoint_seconds=settings.training.checkpoint_seconds,
        gpu_memory_share=settings.gpu.training_memory_share if split else None,
    )


def _begin(settings: Settings, state: State, lease: Lease) -> _Run:
    """Checks everything and settles what will be trained."""
    job = leases.load(state, lease)
    leases.report_event(state, lease, f"Validating training file: {job.training_file}")
    prepared = prepare(settings, state, job)
    leases.set_hyperparameters(state, lease, prepared.resolved.to_json())
    for notice in prepared.notices:
        leases.report_event(state, lease, notice, level="warn")
    if job.output_name is None:
        job.output_name = AdapterRegistry(settings, state).new_name(prepared.base.name, job.suffix)
        leases.set_output_name(state, lease, job.output_name)
    folder = settings.place.jobs / job.id
    sources = _sources(prepared)
    recipe = plan.begun(folder, sources) or prepared.recipe
    publisher = Publisher(settings, state, lease, job, prepared, recipe)
    if plan.begun(folder, sources) is None:
        publisher.withdraw_all()  # of an attempt at something else
        plan.begin(folder, sources, recipe)
    return _Run(settings, state, lease, job, prepared, recipe, folder, publisher)


def _train(run: _Run, report: Report | None, stop: threading.Event) -> Outcome:
    """Trains; where memory does not suffice, once more with micro-batches of half the size."""
    tokens = run.job.micro_batch_tokens or run.settings.training.micro_batch_tokens
    fewer = batches.smaller(tokens)
    try:
        return _attempt(run, tokens, report, stop)
    except Exception as error:
        if not is_out_of_memory(error) or fewer is None:
            raise
    # Here, after the handler, the traceback no longer holds the tensors of the failed attempt.
    leases.set_micro_batch_tokens(run.state, run.lease, fewer)
    message = f"Out of memory with micro-batches of {tokens} tokens; trying again with {fewer}"
    leases.report_event(run.state, run.lease, message, level="warn")
    if launch.is_launched():  # all processes must begin again: whoever launched them sees to that
        raise StoppedError(message)
    return _attempt(run, fewer, report, stop)


def _attempt(run: _Run, micro_batch_tokens: int, report: Report | None, stop: threading.Event) -> Outcome:
    checkpoint = checkpoints.newest(run.folder / STEPS)
    start = checkpoints.step_of(checkpoint) if checkpoint else 0
    message = f"Training goes on from step {start}" if start else "Files validated, training begins"
    leases.report_event(run.state, run.lease, message)
    tensorboard = TensorBoardLog(run.folder / TENSORBOARD, start=start)
    listener = JobListener(
        run.state,
        run.lease,
        run.publisher,
        recipe=run.recipe,
        tensorboard=tensorboard,
        report=report,
        stop=stop,
    )
    try:
        return train_adapter(
            base=run.prepared.base.path,
            base_name=run.prepared.base.name,
            tokenizer=run.prepared.tokenizer,
            rows=run.prepared.rows,
            validation_rows=run.prepared.validation_rows,
            recipe=run.recipe,
            limits=_limits(run.settings, micro_batch_tokens),
            output=run.folder,
            listener=listener,
        )
    finally:
        tensorboard.close()


def _tell_of_forgetting(run: _Run, outcome: Outcome) -> None:
    before, after = outcome.probe_loss_before, outcome.probe_loss_after
    message = f"Loss on a fixed general text: {before:.2f} before training, {after:.2f} after"
    data = {"probe_loss_before": before, "probe_loss_after": after}
    leases.report_event(run.state, run.lease, message, data=data)


def _epoch(run: _Run, step: int) -> EpochMetrics:
    return next(entry for entry in RunLog(run.folder).epochs() if entry.step == step)


def _facts(run: _Run, outcome: Outcome, *, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    """What the ledger keeps: all that a run cost, and what it did with it."""
    prepared = run.prepared
    return {
        "method": run.recipe.method,
        "quantization": run.recipe.quantization,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),  # of the last attempt
        "loop_seconds": outcome.seconds,
        "resumed_at_step": outcome.resumed_at_step,
        "examples": len(prepared.rows),
        "epochs": run.recipe.epochs,
        "steps": outcome.steps,
        "step": outcome.step,
        "tokens": outcome.tokens,
        "trained_tokens": outcome.trained_tokens,
        "first_loss": outcome.first_loss,
        "final_loss": outcome.final_loss,
        "probe_loss_before": outcome.probe_loss_before,
        "probe_loss_after": outcome.probe_loss_after,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "base": prepared.base.name,
        "base_sha256": prepared.base.manifest.sha256,
        "data_sha256": prepared.data_sha256,
        "device": outcome.device,
        "precision": outcome.precision,
    }


def _metrics(run: _Run, adapter: Adapter) -> dict[str, Any]:
    return AdapterRegistry(run.settings, run.state).manifest(adapter)["metrics"]


def _succeed(run: _Run, adapter: Adapter) -> str:
    _store_results(run)
    # The hosted API bills, and reports, every token of the file in every epoch.
    tokens = _metrics(run, adapter)["tokens"]
    leases.succeed(run.state, run.lease, fine_tuned_model=adapter.name, trained_tokens=tokens)
    checkpoints.discard(run.folder)
    return adapter.name


def _store_results(run: _Run) -> None:
    """Once: an earlier attempt may have done so. Raises: LeaseLostError, and no file is left then."""
    if leases.load(run.state, run.lease).result_files:
        return
    log = RunLog(run.folder)
    content = result_csv(log.steps(), log.epochs())
    files = FileStore(run.settings, run.state)
    row = files.add(
        iter([content]),
        filename=FILENAME,
        purpose=FINE_TUNE_RESULTS,
        project_id=run.job.project_id,
        key_id=run.job.key_id,
        max_bytes=len(content),  # the limit on uploads is none on what is written here
        allow=run.publisher.allow(),
    )
    try:
        leases.set_result_files(run.state, run.lease, [row.id])
    except leases.LeaseLostError:
        files.delete(row.id, local_admin(run.job.project_id))
        raise


def _withdraw(settings: Settings, state: State, lease: Lease, error: LocalLLMError) -> None:
    """Fails the job. What it wrote goes first: on a full disk that makes the room to say so.

    Raises: LeaseLostError if the job is another's by now: what lies there then is not ours to delete.
    """
    leases.load(state, lease)
    checkpoints.discard(settings.place.jobs / lease.job_id)
    registry = AdapterRegistry(settings, state)
    for adapter in adapters_of(state, lease.job_id).values():
        registry.delete(adapter)
    leases.fail(state, lease, error)
