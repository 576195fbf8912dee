"""local-llm index evaluate: which parts of ranking are worth it on the user's own questions."""

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llm import ledger
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit_json, emit_table, progress_bar, talk

if TYPE_CHECKING:
    from index.ranking.evaluation import Effect, Evaluation, Measured
    from local_llm.bootstrap import Interval
    from local_llm.questions import Question, Questions

HEADINGS = {"ndcg_10": "nDCG@10", "recall_5": "recall@5", "mrr_10": "MRR@10", "accuracy_1": "accuracy@1"}
SEED = 7


def evaluate(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(help="The collection's name or id.")],
    questions: Annotated[
        Path, typer.Argument(help="JSON lines: `question`, and `documents`, the names or ids of what answers it.")
    ],
    reranker: Annotated[str | None, typer.Option(help="Measure with this cross-encoder of the store, too.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Ask only so many of the questions, by chance.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Set the collection to the parts that certainly raise its scores.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measures what ranking by words, a reranker and merging do to the answers to your own questions."""
    from index.access import open_index
    from index.ranking.evaluation import evaluate as measure
    from local_llm.questions import read_questions

    box: CommandContext = context.obj
    with open_index(box.settings, box.state) as index, progress_bar("asking") as bar:
        info = index.get(box.caller, collection)
        read = read_questions(questions, index.documents(box.caller, collection))
        asked = _drawn(read.asked, sample)
        _tell_left_out(read, len(asked))
        found = measure(index, box.caller, collection, asked, reranker=reranker, report=bar)
        if apply:
            index.update(box.caller, collection, ranking=found.best)
    facts = facts_of(found, read) | {"collection": info.id, "encoder": info.encoder, "applied": apply}
    ledger.record(box.state, box.caller.project_id, "ranking", facts)
    if as_json:
        emit_json(facts)
    else:
        print_tables(found)
        print(_conclusion(found, info.name, applied=apply))  # noqa: T201


def facts_of(found: "Evaluation", read: "Questions") -> dict[str, Any]:
    """Everything that was measured, as JSON has it."""
    return {
        "questions": found.questions,
        "left_out": {
            "duplicates": read.duplicates,
            "without_document": read.without_document,
            "unknown_documents": read.unknown,
        },
        "rankings": [asdict(one) for one in found.rankings],
        "effects": [{**asdict(one), "verdict": one.verdict} for one in found.effects],
        "best": asdict(found.best),
    }


def print_tables(found: "Evaluation") -> None:
    rankings = [_ranking_row(one) for one in found.rankings]
    emit_table(rankings, ["ranking", *HEADINGS.values(), "ms a search"], as_json=False, empty="")
    print()  # noqa: T201
    effects = [_effect_row(one) for one in found.effects]
    emit_table(effects, ["part", "added to", *HEADINGS.values()], as_json=False, empty="")
    print()  # noqa: T201
    for one in found.effects:
        print(f"{one.part}, added to {one.beside}, {one.verdict}")  # noqa: T201


def _drawn(questions: "Sequence[Question]", sample: int | None) -> "Sequence[Question]":
    if sample is None or sample >= len(questions):
        return questions
    return random.Random(SEED).sample(questions, sample)


def _tell_left_out(read: "Questions", asked: int) -> None:
    for what, count in (
        ("questions asked", asked),
        ("questions left out, asked before", read.duplicates),
        ("questions left out, naming no document of the collection", read.without_document),
        ("questions left out, not drawn", len(read.asked) - asked),
        ("documents named that the collection does not have", read.unknown),
    ):
        if count:
            talk(f"{what}: {count}")


def _ranking_row(one: "Measured") -> dict[str, Any]:
    values = {heading: f"{getattr(one.means, name):.4f}" for name, heading in HEADINGS.items()}
    return {"ranking": one.name, **values, "ms a search": f"{one.median_milliseconds:.1f}"}


def _effect_row(one: "Effect") -> dict[str, Any]:
    values = {heading: _shown(one.difference[name]) for name, heading in HEADINGS.items()}
    return {"part": one.part, "added to": one.beside, **values}


def _shown(interval: "Interval") -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _conclusion(found: "Evaluation", collection: str, *, applied: bool) -> str:
    from index.ranking.evaluation import ALL_OFF, name_of

    best = name_of(found.best)
    if found.best == ALL_OFF:
        best = "dense alone: no part raises nDCG@10 with certainty"
    if applied:
        return f"{collection} is ranked by {best}"
    return f"best for {collection}: {best} (--apply sets it)"
