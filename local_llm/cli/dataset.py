"""local-llm train dataset: training files out of other people's data sets."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from local_llm.cli.context import AsJson
from local_llm.cli.output import emit, progress_bar, talk
from local_llm.errors import InvalidInputError, TrainingDataError

app = typer.Typer(no_args_is_help=True, help="Training files: make them from other data sets.")

Format = Literal["auto", "prompt-completion", "alpaca", "sharegpt", "chat"]


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Data set: JSONL, a JSON array, or Parquet.")],
    output: Annotated[Path, typer.Argument(help="Training file to write: JSONL in the chat format of OpenAI.")],
    format: Annotated[
        Format, typer.Option(help="Format of the rows; auto tells it from the first one's columns.")
    ] = "auto",
    system: Annotated[str | None, typer.Option(help="System message for rows that have none.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUTPUT if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turns a data set into a training file. If any row is bad nothing is written, and all such rows are named."""
    from training.examples.data import MINIMUM_EXAMPLES
    from training.examples.importers import import_data_set

    try:
        with progress_bar("importing") as bar:
            done = import_data_set(source, output, format=format, system=system, force=force, report=bar)
    except TrainingDataError as error:
        for problem in error.problems:
            talk(str(problem))
        count = f"{len(error.problems)} problem{'' if len(error.problems) == 1 else 's'}"
        raise InvalidInputError(f"{source} has {count}; nothing was written", hint=error.hint) from None
    if done.left_out:
        talk(f"left out: {', '.join(done.left_out)}")
    if done.rows < MINIMUM_EXAMPLES:
        talk(f"a training file needs at least {MINIMUM_EXAMPLES} examples; this one has {done.rows}")
    text = f"{output}: {done.rows} rows from {done.format}"
    emit({"output": output, **asdict(done)}, text, as_json=as_json)
