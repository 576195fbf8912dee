"""The training files, one an adapter, of the same questions. None holds a passage of an article asked about."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from local_llm.cli.output import talk
from local_llm.questions import read_questions
from quality_bench.lines import read_rows, write_rows
from quality_bench.strategies.box import Box
from quality_bench.strategies.data import SEED, Question, name_of
from quality_bench.strategies.prompts import plain_rows
from quality_bench.strategies.settings import PASSAGES, Adapter

if TYPE_CHECKING:
    from serving.raft.rows import WithoutGold

GOLD_SHARE = 0.8


def write_raft(
    box: Box, collection: str, questions: Sequence[Question], file: Path, without_gold: "WithoutGold" = "answer"
) -> Path:
    """As `local-llm train dataset raft` would, for the profile `hybrid`. Raises: LocalLLMError."""
    from index.access import open_index
    from serving.raft.build import build
    from serving.raft.rows import RaftSettings

    if file.exists():  # the same questions of the same collection give the same bytes
        return file
    asked = file.with_suffix(".questions")
    write_rows(
        asked,
        ({"question": one.text, "documents": [name_of(one.document)], "answer": one.answer} for one in questions),
    )
    settings = RaftSettings(passages=PASSAGES, gold_share=GOLD_SHARE, without_gold=without_gold, seed=SEED)
    with open_index(box.settings, box.state) as index:
        known = read_questions(asked, index.documents(box.caller, collection)).asked
        done = build(index, box.caller, collection, known, file, settings, state=box.state)
    talk(f"{file.name}: {done.rows} rows, {done.with_gold} with the gold passage, {done.cited} cited")
    return file


def write_all(
    box: Box, collection: str, questions: Sequence[Question], folder: Path, *, refusals: bool
) -> dict[Adapter, Path]:
    """By adapter. What RAFT leaves out (questions that nearly repeat others) the plain file leaves out, too."""
    count = len(questions)
    raft = write_raft(box, collection, questions, folder / f"raft-{count}.jsonl")
    made: dict[Adapter, Path] = {"plain": folder / f"plain-{count}.jsonl", "raft": raft}
    write_rows(made["plain"], plain_rows(trained_on(raft, questions)))
    if refusals:
        file = folder / f"raft-refusal-{count}.jsonl"
        made["raft-refusal"] = write_raft(box, collection, questions, file, "refusal")
    return made


def trained_on(file: Path, questions: Sequence[Question]) -> list[Question]:
    """Those that the file's prompts end with, each once."""
    asked = {row["messages"][0]["content"].rpartition("\n\nQuestion: ")[2] for row in read_rows(file)}
    return list({one.text: one for one in questions if one.text in asked}.values())
