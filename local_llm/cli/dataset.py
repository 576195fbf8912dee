"""local-llm train dataset: training files out of other data sets, of reviewed answers, and of documents."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from local_llm.cli import raft
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, progress_bar, talk
from local_llm.errors import InvalidInputError, TrainingDataError
from local_llm.fileio import staged_file

if TYPE_CHECKING:
    from serving.chats.audiences import Restricted

app = typer.Typer(
    no_args_is_help=True,
    help="Training files: make them from other data sets, from reviewed chats, and from documents.",
)
app.command("raft")(raft.raft)

Rated = Literal["good", "corrected", "any"]
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


@app.command("chats")
def chats(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Training file to write: JSONL in the chat format of OpenAI.")],
    rated: Annotated[
        Rated, typer.Option(help="Chats that were rated good, those that were corrected, or both.")
    ] = "any",
    with_context: Annotated[
        bool, typer.Option("--with-context", help="Questions with the passages that were retrieved for them.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Only chats with this model or profile.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Writes reviewed chats as a training file. A correction takes the answer's place.

    A file with chats that were answered from restricted documents is for those who may see these, once it is used.
    """
    from index.access import open_index
    from serving.chats.audiences import Audiences
    from serving.chats.export import export
    from serving.chats.rows import Filter, reviewed_chats
    from training.examples.data import MINIMUM_EXAMPLES, check_training_file

    box: CommandContext = context.obj
    if out.exists() and not force:
        raise InvalidInputError(f"{out} exists already", hint="give another --out, or --force")
    audiences = Audiences()
    written = left_out = 0
    with staged_file(out) as file:
        for chat in export(reviewed_chats(box.state, box.caller, Filter(model), rated), with_context=with_context):
            written += chat.line is not None
            left_out += chat.line is None
            file.write(chat.line or b"")
            audiences.add(chat.origin)
            if chat.line is None:
                talk(f"{chat.chat_id} is left out: {chat.reason}")
        if not written:
            raise InvalidInputError(
                f"no chat can be exported ({left_out} left out); nothing was written",
                hint="rate them: POST /v1/chat/completions/ID/rating",
            )
        # Before anybody can take the file.
        opened = partial(open_index, box.settings, box.state)
        restricted = audiences.remember(box.state, box.caller.project_id, opened)
    _tell(restricted)
    check_training_file(out, method="supervised", minimum=1)
    if written < MINIMUM_EXAMPLES:
        talk(f"a training file needs at least {MINIMUM_EXAMPLES} examples; this one has {written}")
    text = f"{out}: {written} examples"
    value = {"output": out, "examples": written, "left_out": left_out, "restricted": restricted.examples}
    emit(value, text, as_json=as_json)


def _tell(restricted: "Restricted") -> None:
    for what, count in (
        (
            "examples made from passages that not everyone may see: what is trained from them is for those who may",
            restricted.examples,
        ),
        (
            "of these kept before documents were noted with a chat: what is trained from them is for admins only",
            restricted.unnoted,
        ),
        (
            "of these with an answer too short to be known again: see to it yourself whose the file is",
            restricted.unknowable,
        ),
    ):
        if count:
            talk(f"{what}: {count}")
