"""local-llm evaluate: which model, adapter or strategy answers your own questions best, fastest and cheapest."""

import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from local_llm import ledger
from local_llm.cli import evaluate_freshness, evaluate_history
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.evaluate_options import (
    Asked,
    hour_price,
    judge_of,
    refuse_or_tell,
    seen_in_training,
    targets_of,
)
from local_llm.cli.output import emit_json, emit_table, progress_bar, talk
from local_llm.energy import EnergyMeter
from local_llm.errors import InvalidInputError
from local_llm.evaluation.asking import Asking, refuse_unreachable
from local_llm.evaluation.evaluate import Plan
from local_llm.evaluation.evaluate import evaluate as make_evaluation
from local_llm.evaluation.history import HTML, History
from local_llm.evaluation.question_set import read_question_set
from local_llm.evaluation.report_json import answer_rows, ledger_facts, report_of
from local_llm.evaluation.report_tables import differences, money, quality, speed
from local_llm.evaluation.rules import refuse_unjudgeable, rules_of
from local_llm.hardware import this_hardware
from local_llm.identifiers import new_ordered_id, now
from local_llm.locks import exclusive_lock

RUN = "run"
SERVE = "local-llm serve"


class EvaluateGroup(TyperGroup):
    """`local-llm evaluate QUESTIONS ...` is `local-llm evaluate run QUESTIONS ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=EvaluateGroup,
    no_args_is_help=True,
    help="Put your own questions to several models: quality, latency and cost. `evaluate QUESTIONS` runs one.",
)
app.command("freshness")(evaluate_freshness.freshness)
app.command("history")(evaluate_history.history)


@app.command(RUN)
def run(
    context: typer.Context,
    questions: Annotated[
        Path, typer.Argument(help="JSON lines: `question`, and `answer`, `schema` or `answerable`: false.")
    ],
    profiles: Annotated[
        str | None,
        typer.Option(
            help="Who is asked, with commas: profiles, `base`, `ft:` names, or strategies of one profile."
        ),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="NAME=MODEL@URL: a model of any OpenAI-compatible server, too. May be repeated."),
    ] = None,
    recorded: Annotated[
        list[str] | None,
        typer.Option(help="FILE or NAME=FILE: past answers of a model that is not asked. May be repeated."),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="NAME=INPUT/OUTPUT: dollars a million tokens, of endpoints and recorded answers."),
    ] = None,
    key_env: Annotated[
        list[str] | None, typer.Option(help="NAME=VARIABLE: which variable holds the API key of an endpoint.")
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(help="What is accepted (TOML); default: QUESTIONS.rules.toml beside the questions."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="A model that grades answers: a name of this box, or MODEL@URL.")
    ] = None,
    judge_key_env: Annotated[str | None, typer.Option(help="Which variable holds the judge's API key.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Questions asked at once.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 300,
    machine_usd_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of an hour of this machine; default: the setting's.")
    ] = None,
    training_file: Annotated[
        list[Path] | None,
        typer.Option(help="Also look the questions up in this training file. May be repeated."),
    ] = None,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Ask questions that were trained on, and mark them.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask again what earlier evaluations were answered.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to copy the report to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Asks all the same questions and reports quality, latency and cost. Stopped, it goes on when run again."""
    box: CommandContext = context.obj
    if out is not None and out.exists() and not out.is_dir():
        raise InvalidInputError(f"--out {out} is a file; expected a folder")
    read = read_question_set(questions)
    accepted = rules_of(questions, rules)
    refuse_unjudgeable(read.questions, accepted, judged=judge is not None)
    asked = Asked(profiles, endpoint or (), recorded or (), price or (), key_env or ())
    targets = targets_of(box, asked, read.questions)
    grading = judge_of(box, judge, judge_key_env)
    seen = seen_in_training(box, targets, read.questions, training_file or ())
    refuse_or_tell(seen, allowed=allow_seen)
    for each in {one.endpoint.url: one.endpoint for one in (*targets, grading) if one and one.endpoint}.values():
        refuse_unreachable(each, SERVE)
    timeout = box.settings.server.request_timeout_seconds
    hour = hour_price(box, machine_usd_per_hour)
    plan = Plan(read, accepted, targets, Asking(concurrency, max_tokens, timeout), hour, grading, seen, fresh)
    report, folder = _made(box, plan)
    if out is not None:
        shutil.copytree(folder, out, dirs_exist_ok=True)
    if as_json:
        emit_json(report | {"folder": folder})
    else:
        print_report(report)
        print(f"{(out or folder) / HTML}")  # noqa: T201


def print_report(report: dict[str, Any]) -> None:
    for table in (quality(report), speed(report), money(report), differences(report)):
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        if rows:
            emit_table(rows, table.columns, as_json=False, empty="")
            print()  # noqa: T201


def _made(box: CommandContext, plan: Plan) -> tuple[dict[str, Any], Path]:
    """One at a time in a home: two would slow one another down, and each take that for the models' speed."""
    place = box.settings.place.ensure()
    history = History(place.evaluations)
    with (
        exclusive_lock(place.run / "evaluate.lock", "an evaluation"),
        progress_bar("asking") as bar,
        EnergyMeter() as meter,
    ):
        began, cpu = time.monotonic(), time.process_time()
        found = make_evaluation(plan, history.answers(box.caller.project_id), bar, talk)
        # Of what was asked now: kept answers took their time before. The engine's work is in the serving hours.
        took = {"seconds": round(time.monotonic() - began, 3), "cpu_seconds": round(time.process_time() - cpu, 3)}
    report = report_of(
        found,
        run=new_ordered_id("eval_"),
        project=box.caller.project_id,
        created_at=now(),
        hardware=this_hardware().to_json(),
        engine={"gpus": box.settings.engine.all_gpus, "elsewhere": bool(box.settings.engine.urls)},
    )
    folder = history.write(report, answer_rows(found))
    ledger.record(box.state, box.caller.project_id, "evaluation", ledger_facts(report) | took | meter.facts())
    return report, folder
