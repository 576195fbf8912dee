"""local-llm evaluate freshness: what it takes until a changed fact is answered, for each strategy."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from local_llm import ledger
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.evaluate_options import hour_price, served_targets
from local_llm.cli.evaluate_retraining import folded, refuse_without, trained_before, trainings
from local_llm.cli.output import emit_json, emit_table, talk
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.evaluation.asking import Asking, ask_once, refuse_unreachable
from local_llm.evaluation.costs import UNPRICED, dollars
from local_llm.evaluation.freshness import Fact, Outcome, Strategies, Work, ledger_facts, measure
from local_llm.evaluation.question_set import Question
from local_llm.evaluation.targets import refuse_equal_names

SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Document:
    """`name` is that of the document in the collection; `path` its file, `changed` that with the new fact."""

    collection: str
    name: str
    path: Path
    changed: Path


def freshness(
    context: typer.Context,
    document: Annotated[Path, typer.Argument(help="The file of the document, as it was added to the collection.")],
    collection: Annotated[str, typer.Option(help="The collection's name or id.")],
    question: Annotated[str, typer.Option(help="Asks for the fact.")],
    old: Annotated[str, typer.Option(help="The fact as it is, in the document's words.")],
    new: Annotated[str, typer.Option(help="What it becomes.")],
    profiles: Annotated[
        str, typer.Option(help="Who is asked, with commas, as by evaluate.")
    ] = "base,fine_tuned,rag,hybrid",
    changed: Annotated[
        Path | None, typer.Option(help="The document with the new fact; default: OLD replaced in its text.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The document's name; default: its file's.")] = None,
    retrain: Annotated[
        Path | None, typer.Option(help="Train what needs it on this file, which holds the new fact.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 300,
    machine_usd_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of an hour of this machine; default: the setting's.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the changed document in the collection.")] = False,
    as_json: AsJson = False,
) -> None:
    """Changes a fact in a document and measures time, work and dollars until each strategy answers it.

    Afterwards the document is put back as it was. Adapters trained for this stay.
    """
    box: CommandContext = context.obj
    served = served_targets(box)
    targets = [served.target(one.strip()) for one in profiles.split(",") if one.strip()]
    refuse_equal_names(targets)
    asking = Asking(1, max_tokens, box.settings.server.request_timeout_seconds)
    for target in targets[:1]:
        assert target.endpoint is not None
        refuse_unreachable(target.endpoint, "local-llm serve")
    fact = Fact(question, old, new)
    if retrain is not None:
        refuse_without(retrain, fact)
    hour = hour_price(box, machine_usd_per_hour)
    with TemporaryDirectory() as folder:
        file = _document(box, document, collection, name or document.name, changed, fact, Path(folder))
        with trainings(box, served, retrain) as train, _putting_back(box, file, keep=keep):
            world = Strategies(
                targets,
                ask=lambda target, text: ask_once(target, _question(text), asking),
                reindex=lambda: _reindex(box, file),
                retrain=train,
                trained_before=lambda target: trained_before(box, target),
            )
            found = measure(world, fact, hour.usd)
    told = {
        "collection": collection,
        "machine_usd_per_hour": hour.usd,
        "machine_price_assumed": hour.assumed,
        "retrained": retrain is not None,
    }
    ledger.record(box.state, box.caller.project_id, "freshness", told | {"profiles": ledger_facts(found)})
    if as_json:
        emit_json(told | {"profiles": {one.name: asdict(one) | {"told": one.told} for one in found}})
        return
    columns = ("model", "strategy", "outcome", "seconds", "work", "dollars", "last answer")
    emit_table([_row(one) for one in found], columns, as_json=False, empty="")
    if hour.assumed and any(one.usd for one in found):
        talk(f"dollars at ${hour.usd:g} an hour{hour.note}")


def _question(text: str) -> Question:
    return Question(id="freshness", messages=({"role": "user", "content": text},))


def _document(
    box: CommandContext, path: Path, collection: str, name: str, changed: Path | None, fact: Fact, folder: Path
) -> Document:
    """Raises: NotFoundError, InvalidInputError unless the collection holds the file, which is put back afterwards,
    and in it the old fact and not the new one."""
    from index.access import open_index
    from index.interface import Source

    with open_index(box.settings, box.state) as index:
        listed = {one.name: one.id for one in index.documents(box.caller, collection)}
        if name not in listed:
            raise NotFoundError(
                f"{collection} has no document {name!r}", hint="--name says what it is called there", param="name"
            )
        text = index.document(box.caller, collection, listed[name]).text
        source = Source(path.absolute(), name, path.name)
        if not path.is_file() or index.sync(box.caller, collection, [source], scope="", dry_run=True).to_replace:
            raise InvalidInputError(
                f"{path} is not what {collection} holds as {name}: the document could not be put back afterwards",
                hint="give the file as it was added, or add it first: local-llm index add",
            )
    if folded(fact.old) not in folded(text):
        raise InvalidInputError(f"{fact.old!r} does not stand in {name} as {collection} has it", param="old")
    if folded(fact.new) in folded(text):
        raise InvalidInputError(f"{fact.new!r} stands in {name} already", param="new")
    return Document(collection, name, path, changed or _with_new_fact(path, fact, folder))


def _with_new_fact(path: Path, fact: Fact, folder: Path) -> Path:
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{path} cannot be changed here: {error}", hint="give the changed document: --changed FILE"
        ) from None
    if fact.old not in text:
        raise InvalidInputError(
            f"{fact.old!r} does not stand in {path} word for word", hint="give the changed document: --changed FILE"
        )
    changed = folder / path.name
    changed.write_bytes(text.replace(fact.old, fact.new).encode())
    return changed


def _reindex(box: CommandContext, file: Document) -> Work:
    began = time.perf_counter()
    report = _add(box, file, file.changed)
    done = {"documents": 1, "passages": report.passages, "tokens": report.tokens}
    return Work(time.perf_counter() - began, done)


def _add(box: CommandContext, file: Document, path: Path) -> Any:
    """Raises: InvalidInputError if the file is not read."""
    from index.access import open_index
    from index.interface import Source

    with open_index(box.settings, box.state) as index:
        report = index.add(box.caller, file.collection, [Source(path.absolute(), file.name, path.name)])
    if report.skipped:
        raise InvalidInputError(f"{path} was not indexed: {report.skipped[0].reason}")
    return report


@contextmanager
def _putting_back(box: CommandContext, file: Document, *, keep: bool) -> Iterator[None]:
    try:
        yield
    finally:
        if keep:
            talk(f"{file.collection} holds the changed {file.name}")
        else:
            _add(box, file, file.path)


def _row(one: Outcome) -> dict[str, Any]:
    after = one.after_reindex if one.after_retrain is None else one.after_retrain
    work = (
        ", ".join(f"{count:,} {unit.replace('_', ' ')}" for unit, count in one.work.done.items())
        if one.work
        else "-"
    )
    return {
        "model": one.name,
        "strategy": one.strategy,
        "outcome": one.told,
        "seconds": "-" if one.seconds is None else f"{one.seconds:.2f}",
        "work": work or "-",
        "dollars": ("-" if one.seconds is None else UNPRICED) if not one.usd else dollars(one.usd),
        "last answer": _shortened(after),
    }


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"
