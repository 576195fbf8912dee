"""The folder that a retriever is trained from: ordinary files, so that training need not know the index.

passages.jsonl      {"id", "document", "text"}: all of the collection, the text as it is encoded
questions.jsonl     {"question", "documents"}: asked by people
synthesised.jsonl   the same, written by a model; may be missing
settings.json       how to train, and the encoder's folder; written last: it makes the folder whole
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.fileio import read_json, sha256_of, staged_file, write_json
from local_llm.json_lines import LineError, numbered_lines, parse_line
from local_llm.questions import Question
from training.retriever.settings import FEWEST_QUESTIONS, RetrieverSettings, from_json

PASSAGES, QUESTIONS, SYNTHESISED, SETTINGS = (
    "passages.jsonl",
    "questions.jsonl",
    "synthesised.jsonl",
    "settings.json",
)


@dataclass(frozen=True)
class Passage:
    """`text`: what the encoder is to read of it, without prompts. `document`: the id that questions name."""

    id: str
    document: str
    text: str


@dataclass(frozen=True)
class Data:
    """`questions`: the asked ones first, `synthesised` of them at the end. `without_passages`: questions left out,
    because no document of theirs has a passage."""

    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    synthesised: int
    without_passages: int
    encoder: Path
    settings: RetrieverSettings

    @property
    def asked(self) -> int:
        return len(self.questions) - self.synthesised


def write(
    folder: Path,
    passages: Sequence[Passage],
    questions: Sequence[Question],
    encoder_path: Path,
    settings: RetrieverSettings,
    *,
    synthesised: Sequence[Question] = (),
) -> None:
    """Fills `folder`, which is made if it is not there. `documents` of the questions are `document` of passages."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_lines(folder / PASSAGES, (vars(one) for one in passages))
    _write_lines(folder / QUESTIONS, map(_question_line, questions))
    _write_lines(folder / SYNTHESISED, map(_question_line, synthesised))
    write_json(folder / SETTINGS, {"encoder": str(encoder_path.resolve()), "settings": settings.to_json()})


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """As files of questions are read."""
    _write_lines(path, map(_question_line, questions))


def is_whole(folder: Path) -> bool:
    return (folder / SETTINGS).exists()


def read(folder: Path) -> Data:
    """Raises: InvalidInputError if it holds nothing to train with, or fewer questions than it takes."""
    if not is_whole(folder):
        raise InvalidInputError(f"{folder} is not whole: {SETTINGS} is missing")
    head = read_json(folder / SETTINGS)
    settings = from_json(head["settings"])
    passages = tuple(Passage(**row) for row in _rows(folder / PASSAGES))
    present = {one.document for one in passages}
    asked, empty = _questions(folder / QUESTIONS, present)
    written, _ = _questions(folder / SYNTHESISED, present)
    known = {folded(one.text) for one in asked}
    written = [one for one in written if folded(one.text) not in known]
    data = Data(passages, (*asked, *written), len(written), empty, Path(head["encoder"]), settings)
    _refuse_too_little(data)
    return data


def sha256(folder: Path) -> str:
    """Of passages and questions: what the model learnt from."""
    names = [name for name in (PASSAGES, QUESTIONS, SYNTHESISED) if (folder / name).exists()]
    return hashlib.sha256("".join(sha256_of(folder / name) for name in names).encode()).hexdigest()


def folded(text: str) -> str:
    """Equal for questions that differ in case and blanks only."""
    return " ".join(text.casefold().split())


def refuse_few(questions: int, settings: RetrieverSettings) -> None:
    """Raises: InvalidInputError if they are fewer than it takes, and that was not forced."""
    if questions < FEWEST_QUESTIONS and not settings.force:
        raise InvalidInputError(
            f"there are {questions} questions; expected {FEWEST_QUESTIONS} or more: fewer teach little, and cannot "
            "show whether it helped",
            hint="--synthesise N writes more, --force trains all the same",
        )


def _refuse_too_little(data: Data) -> None:
    if not data.passages:
        raise InvalidInputError("there are no passages: the collection is empty", hint="local-llm index add")
    if not data.questions:
        raise InvalidInputError(
            "there is no question whose documents have passages", hint="--questions FILE, or --synthesise N"
        )
    refuse_few(len(data.questions), data.settings)


def _questions(path: Path, present: set[str]) -> tuple[list[Question], int]:
    """Those with a document that is present, and how many have none. Equal ones are one question."""
    found: dict[str, Question] = {}
    empty = 0
    for row in _rows(path) if path.exists() else ():
        documents = frozenset(row["documents"]) & present
        key = folded(row["question"])
        if not documents:
            empty += 1
        elif key in found:
            found[key] = Question(found[key].text, found[key].documents | documents)
        else:
            found[key] = Question(row["question"], documents)
    return list(found.values()), empty


def _question_line(question: Question) -> dict[str, Any]:
    return {"question": question.text, "documents": sorted(question.documents)}


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with staged_file(path) as handle:
        for row in rows:
            handle.write((json.dumps(row, ensure_ascii=True) + "\n").encode("ascii"))


def _rows(path: Path) -> list[Any]:
    with path.open("rb") as handle:
        return [_row(line, path, number) for number, line in numbered_lines(handle)]


def _row(line: bytes | None, path: Path, number: int) -> Any:
    try:
        return parse_line(line)
    except LineError as error:
        raise InvalidInputError(f"{path}, line {number} is {error}") from None
