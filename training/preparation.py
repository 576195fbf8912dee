"""Everything that can be wrong with a job is found here, before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.files import FileStore
from local_llm.models import Model, ModelStore
from local_llm.permissions import Allow, local_admin
from local_llm.servable import refuse_unservable_plan
from local_llm.settings import Settings
from local_llm.state import File, Job, State
from training.audience import audience_of
from training.base_model import hidden_size
from training.examples.data import read_training_file
from training.examples.labels import build_preference_rows, build_rows, load_tokenizer
from training.hyperparameters import Hyperparameters, Method, Resolved
from training.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    base: Model
    data_sha256: str
    rows: Sequence[Any]  # labels.Row, or labels.PreferenceRow for method "dpo"
    validation_rows: Sequence[Any]
    tokenizer: Any
    resolved: Resolved
    recipe: Recipe
    notices: tuple[str, ...]  # what a person should know before the run
    allow: Allow = None  # who may see what is made of it; its files may be deleted meanwhile


def prepare(settings: Settings, state: State, job: Job) -> Prepared:
    """Checks files, model and hyperparameters, and builds the rows.

    Raises: TrainingDataError with all problems at once; InvalidInputError, NotFoundError, IntegrityError.
    """
    base = ModelStore(settings.place.models).get(job.model, "base")
    recipe_values = _lora_values(settings, job)
    refuse_unservable_plan(base.path, rank=recipe_values["rank"], max_rank=settings.engine.largest_lora_rank)
    tokenizer = load_tokenizer(base.path)
    method: Method = job.method["type"]
    rows, data_sha256, cut = _rows(settings, state, job, tokenizer, method, "training_file")
    validation_rows, _, validation_cut = _rows(settings, state, job, tokenizer, method, "validation_file")
    resolved = Hyperparameters.from_json(job.hyperparameters).resolve(len(rows), hidden_size(base.path))
    rate = settings.training.dpo_learning_rate if method == "dpo" else settings.training.learning_rate
    recipe = Recipe.build(
        resolved, learning_rate=rate, method=method, seed=job.seed, beta=resolved.beta, **recipe_values
    )
    _refuse_stopping_blindly(recipe, validation_rows)
    return Prepared(
        base=base,
        data_sha256=data_sha256,
        rows=rows,
        validation_rows=validation_rows,
        tokenizer=tokenizer,
        resolved=resolved,
        recipe=recipe,
        notices=tuple(notice for notice in (cut, validation_cut) if notice),
        allow=audience_of(state, job),
    )


def _lora_values(settings: Settings, job: Job) -> dict[str, Any]:
    training = settings.training
    asked = job.method.get("lora", {})
    values = {
        "rank": training.rank,
        "alpha": training.alpha,
        "rslora": training.rslora,
        "quantization": training.quantization,
        # The setting is for jobs that can be stopped by something; one that asks for it must have it.
        "early_stopping_epochs": training.early_stopping_epochs if job.validation_file else 0,
        **asked,
    }
    return values


def _rows(
    settings: Settings, state: State, job: Job, tokenizer: Any, method: Method, param: str
) -> tuple[Sequence[Any], str, str | None]:
    """Rows of one of the job's files, its hash, and what to tell of it; no rows where there is no such file."""
    identifier = getattr(job, param)
    if identifier is None:
        return (), "", None
    files = FileStore(settings, state)
    stored = _stored(files, identifier, job, param)
    minimum = {"minimum": 1} if param == "validation_file" else {}
    data = read_training_file(
        files.path(stored.id), method=method, shown_as=stored.filename, param=param, **minimum
    )
    build = build_preference_rows if method == "dpo" else build_rows
    training = settings.training
    rows = build(
        tokenizer,
        data.examples,
        max_tokens=training.max_tokens,
        shown_as=stored.filename,
        over_long=training.over_long,
        param=param,
    )
    return rows, data.sha256, _cut_notice(rows, stored.filename, training.max_tokens)


def _stored(files: FileStore, identifier: str, job: Job, param: str) -> File:
    try:
        return files.get(identifier, local_admin(job.project_id))
    except NotFoundError:
        raise InvalidInputError(
            f"{param} {identifier} was deleted", hint="upload it again and create a new job", param=param
        ) from None


def _cut_notice(rows: Sequence[Any], name: str, max_tokens: int) -> str | None:
    cut = [row.cut_tokens for row in rows if row.cut_tokens]
    if not cut:
        return None
    return (
        f"{len(cut)} of {len(rows)} examples of {name} are longer than {max_tokens} tokens (training.max_tokens): "
        f"{sum(cut)} tokens were cut off their ends"
    )


def _refuse_stopping_blindly(recipe: Recipe, validation_rows: Sequence[Any]) -> None:
    if recipe.early_stopping_epochs and not validation_rows:
        raise InvalidInputError(
            f"early_stopping_epochs is {recipe.early_stopping_epochs}, but there is no validation file to stop by",
            hint="give a validation_file",
            param="validation_file",
        )
