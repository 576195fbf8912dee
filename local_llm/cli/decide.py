"""local-llm decide: fine-tune, retrieve, or both."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.decide_options import Said
from local_llm.cli.option_groups import with_option_groups
from local_llm.cli.output import emit, talk
from local_llm.decision.questions import ASKED, FIVE, Question
from local_llm.decision.told import Told, read_told
from local_llm.errors import InvalidInputError

if TYPE_CHECKING:
    from local_llm.decision.evidence import Evidence
    from local_llm.decision.report import Report

FLAGS: dict[Question, str] = {
    question: f"--{name} or --no-{name}" for question in FIVE for name in [question.replace("_", "-")]
} | {"examples": "--examples N"}


@with_option_groups
def decide(
    context: typer.Context,
    said: Said,
    file: Annotated[
        Path | None, typer.Option(help="TOML or JSON with these names as keys, - as _; flags beat it.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the tree into this file, .svg or .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune, RAG, or both: five questions, answered by you or by what was measured, and what would flip it.

    What is neither told nor measured is asked, if a person sits at the terminal.
    """
    told = read_told(file, {name: None if value == [] else value for name, value in asdict(said).items()})
    made = _decided(context, told)
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
