"""local-llm decide: fine-tune, retrieve, or both."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, talk
from local_llm.decision.questions import ASKED, ENOUGH_EXAMPLES, FIVE, Question
from local_llm.decision.told import Told, read_told
from local_llm.errors import InvalidInputError

if TYPE_CHECKING:
    from local_llm.decision.evidence import Evidence
    from local_llm.decision.report import Report

FLAGS: dict[Question, str] = {
    question: f"--{name} or --no-{name}" for question in FIVE for name in [question.replace("_", "-")]
} | {"examples": "--examples N"}

Need = bool | None


def decide(
    context: typer.Context,
    changes: Annotated[
        bool | None, typer.Option("--changes/--no-changes", help="The data changes weekly or faster.")
    ] = None,
    citations: Annotated[
        bool | None, typer.Option("--citations/--no-citations", help="Answers must name their sources.")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=0, help=f"How many good examples there are; {ENOUGH_EXAMPLES} are enough.")
    ] = None,
    low_latency: Annotated[
        bool | None, typer.Option("--low-latency/--no-low-latency", help="Answers must come very quickly.")
    ] = None,
    both_affordable: Annotated[
        bool | None,
        typer.Option("--both-affordable/--no-both-affordable", help="Tuning and retrieval can both be paid for."),
    ] = None,
    per_user_access: Annotated[
        Need, typer.Option("--per-user-access", help="Users see different documents; counts as --changes.")
    ] = None,
    too_many_documents: Annotated[
        Need, typer.Option("--too-many-documents", help="More than can be trained on; counts as --changes.")
    ] = None,
    add_remove_without_retraining: Annotated[
        Need,
        typer.Option(
            "--add-remove-without-retraining", help="Information comes and goes at once; counts as --changes."
        ),
    ] = None,
    consistent_times: Annotated[
        Need, typer.Option("--consistent-times", help="Response times vary little; counts as --low-latency.")
    ] = None,
    format_needed: Annotated[
        Need, typer.Option("--format-needed", help="An output format that the base model does not give.")
    ] = None,
    style_needed: Annotated[
        Need, typer.Option("--style-needed", help="A style that the base model does not have.")
    ] = None,
    terms_needed: Annotated[
        Need, typer.Option("--terms-needed", help="Terms or ways of reasoning of your domain.")
    ] = None,
    air_gapped: Annotated[Need, typer.Option("--air-gapped", help="Nothing outside can be reached.")] = None,
    residency: Annotated[str | None, typer.Option(help="Where data has to stay, as EU.")] = None,
    hosted_region: Annotated[
        list[str] | None, typer.Option(help="Where the vendor keeps data, by contract; may be repeated.")
    ] = None,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--no-gpu", help="What will serve has one; default: as this machine.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="Collection whose changes and answers count; default: the only one.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="TOML or JSON with these names as keys, - as _; flags beat it.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the tree into this file, .svg or .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune, RAG, or both: five questions, answered by you or by what was measured, and what would flip it.

    What is neither told nor measured is asked, if a person sits at the terminal.
    """
    said = {
        "changes": changes,
        "citations": citations,
        "examples": examples,
        "low_latency": low_latency,
        "both_affordable": both_affordable,
        "per_user_access": per_user_access,
        "too_many_documents": too_many_documents,
        "add_remove_without_retraining": add_remove_without_retraining,
        "consistent_times": consistent_times,
        "format_needed": format_needed,
        "style_needed": style_needed,
        "terms_needed": terms_needed,
        "air_gapped": air_gapped,
        "residency": residency,
        "hosted_region": hosted_region or None,
        "gpu": gpu,
        "collection": collection,
    }
    made = _decided(context, read_told(file, said))
    if plot is not None:
        _draw(made, plot)
    _show(made, as_json=as_json)


def _decided(context: typer.Context, told: Told) -> "Report":
    from local_llm.decision import evidence
    from local_llm.decision.gates import gates
    from local_llm.decision.report import report
    from local_llm.decision.settling import settle
    from local_llm.hardware import gpu_name
    from local_llm.identifiers import now

    box: CommandContext = context.obj
    place = evidence.Box(box.settings, box.state, box.caller, told.collection, now(), gpu=told.gpu is not False)
    found = evidence.collect(place)
    settled = settle(told, found)
    if settled.missing:
        settled = settle(_asked(context, told, settled.missing, found), found)
    return report(
        settled.answers(),
        gates=gates(
            air_gapped=bool(told.air_gapped),
            residency=told.residency,
            hosted_regions=tuple(told.hosted_region),
            gpu=gpu_name() is not None if told.gpu is None else told.gpu,
            gpu_told=told.gpu is not None,
        ),
        evidence=found,
        contradictions=settled.contradictions,
        latencies=evidence.gpu_latencies(place),
        collection=evidence.collection_name(place),
    )


def _asked(
    context: typer.Context, told: Told, missing: tuple[Question, ...], found: tuple["Evidence", ...]
) -> Told:
    """With what a person answers. Raises: typer.BadParameter where nobody sits there."""
    why = {one.question: one.figure for one in found}
    if not sys.stdin.isatty():
        lines = [_unanswered(question, why.get(question)) for question in missing]
        raise typer.BadParameter(
            "\n".join(["these questions were neither answered nor measured:", *lines]), ctx=context
        )
    answers: dict[str, Any] = {}
    for question in missing:
        if question in why:
            talk(f"({why[question]})")
        if question == "examples":
            answers[question] = typer.prompt("How many good examples are there?", type=int, err=True)
        else:
            answers[question] = typer.confirm(ASKED[question], err=True)
    return read_told(None, told.model_dump() | answers)


def _unanswered(question: Question, why: str | None) -> str:
    reason = f" ({why})" if why else ""
    return f"  {ASKED[question]} {FLAGS[question]}{reason}"


def _draw(made: "Report", plot: Path) -> None:
    from local_llm.decision.drawing import draw
    from local_llm.plots import save

    try:
        save(draw(made.decision), plot)
    except OSError as error:
        raise InvalidInputError(f"{plot} cannot be written: {error.strerror}", hint="give another --plot") from None
    talk(f"drawn: {plot}")


def _show(made: "Report", *, as_json: bool) -> None:
    from local_llm.decision.text import as_text

    emit(made.to_json(), as_text(made), as_json=as_json)
