"""local-llm train retriever: a collection's encoder fine-tuned on the team's own questions."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from local_llm import ledger
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.option_groups import with_option_groups
from local_llm.cli.output import emit, talk
from local_llm.errors import ConflictError, InvalidInputError, NotFoundError
from local_llm.fileio import read_json, write_json
from local_llm.identifiers import is_name, new_ordered_id
from local_llm.locks import exclusive_lock
from local_llm.models import ModelStore
from local_llm.relevance import NAMES
from local_llm.run_folders import PUBLISHED, REQUEST, RUN_LOCK

if TYPE_CHECKING:
    from training.retriever.run import Outcome
    from training.retriever.settings import RetrieverSettings

LossName = Literal["multiple-negatives", "cached", "cosine"]
GIVEN = "given.jsonl"


@dataclass(frozen=True)
class TrainingOptions:
    """Fields of RetrieverSettings."""

    loss: Annotated[LossName, typer.Option(help="cached: large batches in little memory.")] = "multiple-negatives"
    temperature: Annotated[float | None, typer.Option(help="Divides the cosines; default: 0.02.")] = None
    lora_rank: Annotated[int, typer.Option(help="Train a LoRA of this rank; 0: all weights.")] = 0
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs; default: by their number.")] = None
    batch_size: Annotated[int, typer.Option(help="Pairs a step.")] = 32
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: 1e-5 for BGE, else 2e-5; ten times that for LoRA.")
    ] = None
    negatives: Annotated[int, typer.Option(help="Hard negatives mined for each question.")] = 1
    margin: Annotated[
        float, typer.Option(help="A negative scores below the right passage by this share of its score.")
    ] = 0.05
    max_tokens: Annotated[int, typer.Option(help="Tokens of a passage that are read while training.")] = 128
    max_seconds: Annotated[float | None, typer.Option(help="End training after so many seconds.")] = None
    seed: Annotated[int, typer.Option(help="Of the split, the batches and the draws.")] = 7
    force: Annotated[bool, typer.Option("--force", help="Train with fewer than 100 questions, too.")] = False


@dataclass(frozen=True)
class Request:
    """What was asked for, as the run's folder keeps it. `name`: of the model to publish; `project`: an id."""

    collection: str
    title: str
    name: str
    synthesise: int
    settings: dict[str, Any]
    project: str


@with_option_groups
def retriever(
    context: typer.Context,
    options: TrainingOptions,
    collection: Annotated[str | None, typer.Argument(help="The collection's name or id.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="JSON lines: `question`, and `documents`, names or ids of what answers it.")
    ] = None,
    synthesise: Annotated[
        int, typer.Option(min=0, help="Have the served model write so many questions; no new ones if 0.")
    ] = 0,
    name: Annotated[
        str | None, typer.Option(help="Name of the trained encoder; default: ENCODER-COLLECTION-N.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Instead of COLLECTION: a run to go on with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tunes COLLECTION's encoder on your own questions, and publishes it if it is certainly better.

    Control-C ends it; --resume goes on.
    """
    from training.failures import StoppedError
    from training.retriever.settings import RetrieverSettings

    box: CommandContext = context.obj
    if (collection is None) == (resume is None):
        raise InvalidInputError("expected either COLLECTION or --resume RUN")
    if resume is None:
        assert collection is not None
        if questions is None and not synthesise:
            raise InvalidInputError(
                "there is nothing to train with: no questions were given",
                hint="--questions FILE, or --synthesise 500 to have the served model write some",
            )
        settings = RetrieverSettings(**asdict(options))
        folder = _begin(box, collection, questions, synthesise, name, settings)
    else:
        folder = _find(box, resume, name)
    talk(f"{folder.name}: Control-C ends it; go on with: local-llm train retriever --resume {folder.name}")
    try:
        with exclusive_lock(folder / RUN_LOCK, f"the run {folder.name}"):
            result = _carry_out(box, folder)
    except KeyboardInterrupt:
        raise StoppedError(
            f"{folder.name} was ended", hint=f"local-llm train retriever --resume {folder.name}"
        ) from None
    emit(result, _text(result), as_json=as_json)


def _begin(
    box: CommandContext,
    collection: str,
    questions: Path | None,
    synthesise: int,
    name: str | None,
    settings: "RetrieverSettings",
) -> Path:
    """Writes down what was asked for, in a folder of its own. Nothing is left of what cannot be done."""
    from index.access import open_index
    from index.interface import EXTERNAL
    from local_llm.questions import read_questions
    from training.retriever.data import refuse_few

    with open_index(box.settings, box.state) as index:
        info = index.get(box.caller, collection)
        if info.encoder == EXTERNAL:
            raise ConflictError(
                f"the collection {info.name!r} has no encoder: its records bring vectors",
                hint="a collection with an encoder: local-llm index create NAME",
            )
        if questions is not None:
            asked = read_questions(questions, index.documents(box.caller, collection)).asked
            if not synthesise:
                refuse_few(len(asked), settings)
    chosen = _name(box, name, info.encoder, info.name)
    folder = box.settings.place.ensure().retrievers / new_ordered_id("ret-")
    folder.mkdir(mode=0o700)
    if questions is not None:
        shutil.copyfile(questions, folder / GIVEN)
    request = Request(info.id, info.name, chosen, synthesise, settings.to_json(), box.caller.project_id)
    write_json(folder / REQUEST, vars(request))
    return folder


def _carry_out(box: CommandContext, folder: Path) -> dict[str, Any]:
    from local_llm.cli.retriever_run import gather, train
    from training.retriever import publishing
    from training.retriever.guard import NotBetterError
    from training.retriever.run import outcome_of

    request = Request(**read_json(folder / REQUEST))
    published = folder / PUBLISHED
    if published.exists():
        raise ConflictError(
            f"the run {folder.name} is finished: it was published as {read_json(published)['name']}",
            hint=_next(request),
        )
    gather(box, folder, request)
    known = outcome_of(folder)
    outcome = known or train(box, folder)
    for note in outcome.facts["notes"]:
        talk(note)
    try:
        publishing.publish(ModelStore(box.settings.place.models), folder, request.name)
    except NotBetterError:
        if known is None:
            _record(box, request, outcome, published=False)
        raise
    write_json(published, {"name": request.name})
    shutil.rmtree(outcome.model, ignore_errors=True)  # the store has it
    _record(box, request, outcome, published=True)
    return {
        "encoder": request.name,
        "run": folder.name,
        "report": str(folder / publishing.REPORT),
        "reason": outcome.reason,
        "metrics": outcome.facts["metrics"],
        "next": _next(request),
    }


def _record(box: CommandContext, request: Request, outcome: "Outcome", *, published: bool) -> None:
    facts, dev = outcome.facts, outcome.facts["metrics"]["dev"]
    measured = {
        "collection": request.collection,
        "encoder": facts["provenance"]["base"]["name"],
        "trained": request.name if published else None,
        "published": published,
        "seconds": facts["took"]["wall_seconds"],
        "cpu_seconds": facts["took"]["cpu_seconds"],
        "energy_joules": facts["took"].get("energy_joules"),
        "energy_of": facts["took"].get("energy_of", []),
        "device": facts["trained"]["device"],
        "questions": facts["data"]["questions"],
        "passages": facts["data"]["passages"],
        "tokens": facts["data"]["tokens"],
        "pairs": facts["data"]["pairs"],
        "steps": facts["trained"]["steps"],
        "dev_questions": dev["questions"],
        **{f"{name}_before": dev["before"][name] for name in NAMES},
        **{f"{name}_after": dev["after"][name] for name in NAMES},
        "ndcg_10_change": dev["differences"]["ndcg_10"],
    }
    ledger.record(box.state, box.caller.project_id, "retriever", measured)


def _name(box: CommandContext, given: str | None, encoder: str, collection: str) -> str:
    """Raises: InvalidInputError, ConflictError: told before anything is trained."""
    store = ModelStore(box.settings.place.models)
    if given is None:
        stem = f"{encoder}-{collection}"[:110]
        return next(f"{stem}-{n}" for n in range(1, 10**6) if store.find(f"{stem}-{n}") is None)
    if not is_name(given):
        raise InvalidInputError(f"{given!r} cannot name a model; expected letters, digits, '.', '_' and '-'")
    if store.find(given) is not None:
        raise ConflictError(f"a model {given!r} is already there", hint="choose another --name", param="name")
    return given


def _find(box: CommandContext, run: str, name: str | None) -> Path:
    """The run's folder. A `name` takes the place of the one that it was to publish under."""
    folder = box.settings.place.retrievers / run
    asked = read_json(folder / REQUEST) if is_name(run) and (folder / REQUEST).exists() else {}
    if asked.get("project") != box.caller.project_id:
        raise NotFoundError(f"there is no run {run!r} to go on with", hint=f"ls {box.settings.place.retrievers}")
    if name is not None:
        write_json(folder / REQUEST, {**asked, "name": _name(box, name, "", "")})
    return folder


def _next(request: Request) -> str:
    return f"local-llm index reembed {request.title} --encoder {request.name}"


def _text(result: dict[str, Any]) -> str:
    return (
        f"{result['encoder']}: {result['reason']}\nreport: {result['report']}\nto search with it: {result['next']}"
    )
