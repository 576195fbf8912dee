"""local-llm evaluate freshness: what it takes until a changed fact is answered, for each strategy."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from local_llm import ledger
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.evaluate_document import changing, document_of, putting_back, reindex
from local_llm.cli.evaluate_options import hour_price, served_targets
from local_llm.cli.evaluate_retraining import refuse_without, trained_before, trainings
from local_llm.cli.output import emit_json, emit_table, talk
from local_llm.evaluation.asking import Asking, ask_once, refuse_unreachable
from local_llm.evaluation.costs import UNPRICED, dollars
from local_llm.evaluation.freshness import Fact, Outcome, Strategies, ledger_facts, measure
from local_llm.evaluation.question_set import Question
from local_llm.evaluation.targets import refuse_equal_names

SHOWN_CHARACTERS = 60


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
    with changing(box) as folder:
        file = document_of(box, document, collection, name or document.name, changed, fact, folder)
        with trainings(box, served, retrain) as train, putting_back(box, file, keep=keep):
            world = Strategies(
                targets,
                ask=lambda target, text: ask_once(target, _question(text), asking),
                reindex=lambda: reindex(box, file),
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
