"""local-llm train: fine-tuning on this box, and a look at what would be trained."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llm.cli import dataset, estimate, export
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_json, progress_bar, talk
from local_llm.cli.retriever import retriever
from local_llm.errors import InvalidInputError
from local_llm.settings import OverLong, Quantization

if TYPE_CHECKING:
    from local_llm.state import State
    from training.hyperparameters import Hyperparameters, Method
    from training.leases import Lease
    from training.reporting import Report

app = typer.Typer(no_args_is_help=True, help="Fine-tune models on your own examples.")
app.add_typer(dataset.app, name="dataset")
app.command("estimate")(estimate.estimate)
app.command("export")(export.export)
app.command("retriever")(retriever)

TrainingFile = Annotated[Path, typer.Argument(help="Examples: a JSONL file in the chat format of OpenAI.")]
ModelName = Annotated[str | None, typer.Option("--model", help="Base model; default: the engine's.")]


@app.command("adapter")
def train_adapter(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Examples or preferences: a JSONL file in a format of OpenAI.")
    ] = None,
    model: ModelName = None,
    validation_file: Annotated[
        Path | None, typer.Option(help="Examples that are not trained: the model is measured on them.")
    ] = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the model's name, up to 64 characters.")] = None,
    epochs: Annotated[str, typer.Option(help="Passes over the file, 1 to 50, or auto.")] = "auto",
    batch_size: Annotated[str, typer.Option(help="Examples a step, 1 to 256, or auto.")] = "auto",
    learning_rate_multiplier: Annotated[
        str, typer.Option(help="Multiplies training.learning_rate; a number above 0, or auto.")
    ] = "auto",
    beta: Annotated[
        str, typer.Option(help="For preferences: how closely to stay by the base; a number, or auto.")
    ] = "auto",
    seed: Annotated[int | None, typer.Option(help="For a run that can be repeated; default: random.")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank; default: training.rank.")] = None,
    alpha: Annotated[int | None, typer.Option(help="LoRA alpha; default: training.alpha.")] = None,
    rslora: Annotated[
        bool | None, typer.Option(help="Scale by alpha / √rank; default: training.rslora.", show_default=False)
    ] = None,
    quantization: Annotated[
        Quantization | None, typer.Option(help="4bit: QLoRA, in less memory; default: training.quantization.")
    ] = None,
    early_stopping_epochs: Annotated[
        int | None, typer.Option(help="Epochs without progress to end after; default: the setting's.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Instead of FILE: a job that was paused or interrupted, to go on with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Trains an adapter on FILE in this process and prints its name.

    Control-C pauses it: what was trained is kept.
    """
    from training.leases import claim

    box: CommandContext = context.obj
    if (file is None) == (resume is None):
        raise InvalidInputError("expected either FILE or --resume JOB")
    if resume is not None:
        lease = claim(box.state, resume, box.caller, "cli")
    else:
        assert file is not None
        lease = _create_job(
            box,
            file,
            validation_file,
            lambda method: {
                "model": model or box.settings.engine.model,
                "suffix": suffix,
                "seed": seed,
                "rank": rank,
                "alpha": alpha,
                "rslora": rslora,
                "quantization": quantization,
                "early_stopping_epochs": early_stopping_epochs,
                "hyperparameters": _hyperparameters(
                    epochs, batch_size, learning_rate_multiplier, beta if method == "dpo" else None
                ),
            },
        )
    talk(f"{lease.job_id}: the first step takes a while; Control-C pauses")
    result = _train_here(box, lease)
    emit(result, result["fine_tuned_model"], as_json=as_json)


@app.command("preview")
def preview(
    context: typer.Context,
    file: TrainingFile,
    model: ModelName = None,
    count: Annotated[int, typer.Option(min=1, help="How many examples to show.")] = 3,
    over_long: Annotated[
        OverLong | None, typer.Option(help="What to do with longer examples; default: training.over_long.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Shows examples as the model sees them: what is trained is green, what is rejected red, the rest dim."""
    from local_llm.models import ModelStore
    from training.examples.data import read_training_file
    from training.examples.labels import build_preference_rows, build_rows, load_tokenizer
    from training.examples.preview import describe, draw

    box: CommandContext = context.obj
    training = box.settings.training
    data = read_training_file(file, method=None)
    base = ModelStore(box.settings.place.models).get(model or box.settings.engine.model, "base")
    tokenizer = load_tokenizer(base.path)
    build: Any = build_preference_rows if data.method == "dpo" else build_rows
    rows = build(
        tokenizer,
        data.examples,
        max_tokens=training.max_tokens,
        over_long=over_long or training.over_long,
        shown_as=file.name,
    )
    if as_json:
        emit_json({"method": data.method, **describe(tokenizer, rows, count)})
    else:
        draw(tokenizer, rows, count)


def _create_job(
    box: CommandContext, file: Path, validation_file: Path | None, asked: Callable[["Method"], dict[str, Any]]
) -> "Lease":
    """A file with mistakes is neither stored nor made a job of."""
    from training.examples.data import check_training_file
    from training.job_request import JobRequest
    from training.jobs import create_claimed_job

    method = check_training_file(file).method
    if validation_file is not None:
        check_training_file(validation_file, method=method, minimum=1, param="validation_file")
    request = JobRequest(training_file="", method=method, **asked(method))
    with ExitStack() as undo:
        stored = replace(
            request,
            training_file=_store(box, file, undo),
            validation_file=_store(box, validation_file, undo) if validation_file else None,
        )
        lease = create_claimed_job(box.state, box.caller, stored, "cli")
        undo.pop_all()
    return lease


def _store(box: CommandContext, file: Path, undo: ExitStack) -> str:
    from local_llm.files import FINE_TUNE, FileStore

    store = FileStore(box.settings, box.state)
    row = store.add(file, filename=file.name, purpose=FINE_TUNE, project_id=box.caller.project_id)
    undo.callback(store.delete, row.id, box.caller)
    return row.id


def _train_here(box: CommandContext, lease: "Lease") -> dict[str, Any]:
    """Runs the job with the code that the trainer's child runs."""
    from local_llm.device import training_device
    from training import jobs, leases
    from training.failures import StoppedError

    stop = threading.Event()

    def waited() -> None:
        if stop.is_set():
            raise StoppedError("the run was told to stop")
        leases.renew(box.state, lease)

    try:
        with (
            _renewing(box.state, lease),
            _pausing(stop),
            training_device(box.settings, lease.job_id, talk=talk, meanwhile=waited),
            progress_bar("training") as report,
        ):
            name = _run(box, lease, report, stop)
    except (StoppedError, KeyboardInterrupt):
        jobs.pause_job(box.state, lease.job_id, box.caller)
        raise StoppedError(
            f"{lease.job_id} is paused", hint=f"local-llm train adapter --resume {lease.job_id}"
        ) from None
    job = jobs.get_job(box.state, lease.job_id, box.caller)
    return {
        "fine_tuned_model": name,
        "job": job.id,
        "trained_tokens": job.trained_tokens,
        "hyperparameters": job.hyperparameters,
        "seed": job.seed,
    }


def _run(box: CommandContext, lease: "Lease", report: "Report", stop: threading.Event) -> str:
    """In this process, or in as many as training.processes says."""
    from local_llm.device import training_environment
    from training.run import run_job
    from training.together import run_together

    if box.settings.training.processes > 1:
        options = ["--settings", str(box.settings_file)] if box.settings_file else []
        return run_together(box.settings, box.state, lease, box.caller, options=options, report=report, stop=stop)
    os.environ.update(training_environment(box.settings))  # torch, not yet imported, sees these devices alone
    return run_job(box.settings, box.state, lease, report=report, stop=stop)


@contextmanager
def _pausing(stop: threading.Event) -> Iterator[None]:
    """During the block the first Control-C sets `stop`; a second one interrupts at once."""

    def pause(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop.set()
        talk("pausing after this step ...")

    before = signal.signal(signal.SIGINT, pause)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _renewing(state: "State", lease: "Lease") -> Iterator[None]:
    """Keeps a lease alive during the block. If it is lost, the work notices at its next report."""
    from training import leases

    done = threading.Event()

    def renew() -> None:
        with suppress(leases.LeaseLostError):
            while not done.wait(leases.LEASE_SECONDS / 4):
                leases.renew(state, lease)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _hyperparameters(epochs: str, batch_size: str, multiplier: str, beta: str | None) -> "Hyperparameters":
    from training.hyperparameters import Hyperparameters

    return Hyperparameters(
        beta=None if beta is None else _number(beta, "--beta", float),
        n_epochs=_number(epochs, "--epochs", int),
        batch_size=_number(batch_size, "--batch-size", int),
        learning_rate_multiplier=_number(multiplier, "--learning-rate-multiplier", float),
    )


def _number(text: str, option: str, kind: type) -> Any:
    if text == "auto":
        return "auto"
    try:
        return kind(text)
    except ValueError:
        raise InvalidInputError(f"{option} is {text!r}; expected a number or auto") from None
