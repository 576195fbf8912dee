"""local-llm train dataset raft: a training file for answers with retrieved context, out of questions."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, progress_bar, talk
from local_llm.errors import InvalidInputError

if TYPE_CHECKING:
    from local_llm.questions import Questions
    from serving.raft.build import RaftReport

WithoutGold = Literal["answer", "refusal"]


def raft(
    context: typer.Context,
    questions: Annotated[
        Path,
        typer.Argument(help="JSON lines: `question`, `answer`, and `documents`, names or ids of what answers it."),
    ],
    collection: Annotated[str, typer.Option(help="The collection's name or id: passages are retrieved from it.")],
    out: Annotated[Path, typer.Option(help="Training file to write: JSONL in the chat format of OpenAI.")],
    passages: Annotated[int, typer.Option(min=1, help="Passages a row: the k of the profile it is for.")] = 5,
    gold_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the rows whose passages include the one with the answer.")
    ] = 0.8,
    without_gold: Annotated[
        WithoutGold, typer.Option(help="What is learned in the other rows: still the answer, or to refuse.")
    ] = "answer",
    citations: Annotated[
        bool, typer.Option("--citations/--no-citations", help="Answers with the markers that the server shows.")
    ] = True,
    prompt: Annotated[str | None, typer.Option(help="The profile's own words before the passages.")] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="For a profile that may answer from what the model knows as well.")
    ] = False,
    refusal: Annotated[str | None, typer.Option(help="The words of a refusal; default: answering.refusal.")] = None,
    seed: Annotated[int, typer.Option(help="Another one: other rows without gold, other orders.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Writes a training file for hybrid answers: each question with passages as a profile puts them before it.

    One passage holds the answer, the others are what the search finds beside it. RAFT, arXiv:2403.10131.
    """
    from index.access import open_index
    from local_llm.questions import read_questions
    from serving.raft.build import build
    from serving.raft.rows import RaftSettings
    from training.examples.data import MINIMUM_EXAMPLES

    box: CommandContext = context.obj
    if out.exists() and not force:
        raise InvalidInputError(f"{out} exists already", hint="give another --out, or --force")
    settings = RaftSettings(
        passages=passages,
        gold_share=gold_share,
        without_gold=without_gold,
        citations=citations,
        prompt=prompt,
        only_from_context=not open_,
        seed=seed,
        refusal=refusal or box.settings.answering.refusal,
    )
    with open_index(box.settings, box.state) as index, progress_bar("searching") as bar:
        read = read_questions(questions, index.documents(box.caller, collection))
        done = build(index, box.caller, collection, read.asked, out, settings, bar, state=box.state)
    _tell(read, done)
    if done.rows < MINIMUM_EXAMPLES:
        talk(f"a training file needs at least {MINIMUM_EXAMPLES} examples; this one has {done.rows}")
    questions_left_out = {
        "duplicates": read.duplicates,
        "without_document": read.without_document,
        "unknown_documents": read.unknown,
    }
    value = {"output": out, "seed": seed, **asdict(done), **questions_left_out}
    emit(value, f"{out}: {done.rows} examples, {done.with_gold} with the gold passage", as_json=as_json)


def _tell(read: "Questions", done: "RaftReport") -> None:
    for what, count in (
        ("questions left out, asked before", read.duplicates),
        ("questions left out, nearly the same as one before, with its answer", done.near_duplicates),
        ("questions left out, naming no document of the collection", read.without_document),
        ("questions left out, without an answer", done.without_answer),
        ("questions left out, no passage of their documents is found", done.without_passage),
        ("documents named that the collection does not have", read.unknown),
        ("rows with fewer passages than asked for", done.fewer_passages),
        ("rows whose gold passage does not hold the answer word by word", done.gold_without_answer),
        (
            "rows with passages that not everyone may see: what is trained from them is for those who may",
            done.restricted,
        ),
        ("passages passed over, nearly the same as another", done.near_equal_passages),
    ):
        if count:
            talk(f"{what}: {count}")
