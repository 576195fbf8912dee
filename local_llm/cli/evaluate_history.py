"""local-llm evaluate history: how the answers to the same questions have changed."""

from pathlib import Path
from typing import Annotated

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit_json, emit_table
from local_llm.errors import NotFoundError
from local_llm.evaluation.history import History
from local_llm.evaluation.question_set import read_question_set
from local_llm.evaluation.report_html import history_html
from local_llm.evaluation.report_tables import over_time
from local_llm.fileio import write_file


def history(
    context: typer.Context,
    questions: Annotated[
        Path | None, typer.Argument(help="The questions; default: those of the newest evaluation.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the comparison, with a plot, to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compares the evaluations that were made of the same questions, the oldest first."""
    box: CommandContext = context.obj
    kept, project = History(box.settings.place.evaluations), box.caller.project_id
    newest = kept.latest(project)
    sha256 = read_question_set(questions).sha256 if questions else str(newest["questions"]["sha256"])
    reports = kept.of_questions(sha256, project)
    if not reports:
        raise NotFoundError(
            f"no evaluation of {questions} as it is now", hint=f"local-llm evaluate {questions} --profiles ..."
        )
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        write_file(html, history_html(reports).encode("utf-8", "replace"))
    if as_json:
        emit_json(reports)
        return
    table = over_time(reports)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    emit_table(rows, table.columns, as_json=False, empty="")
