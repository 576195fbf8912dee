"""Questions with the documents that answer them: ranking is measured with them, retrievers and adapters trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from local_llm.errors import InvalidInputError
from local_llm.json_lines import LineError, numbered_lines, parse_line

LIST_FIELDS = ("documents", "document_ids")


class Named(Protocol):
    """A document that questions may name, by either."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Question:
    """`documents`: ids of those that answer it, one at least. `answer`: the right one, where it is given."""

    text: str
    documents: frozenset[str]
    answer: str | None = None


@dataclass(frozen=True)
class Questions:
    """What can be asked, and how many were left out and why. `unknown`: documents named that are not there."""

    asked: tuple[Question, ...]
    duplicates: int
    without_document: int
    unknown: int


def read_questions(path: Path, present: Sequence[Named]) -> Questions:
    """Reads JSON lines with `question` and `documents`, by name or id (also `document_ids` or `document_id`), and
    an `answer` where there is one. A question that stands there again adds its documents to the first.

    Raises: InvalidInputError naming the line that is wrong; also if nothing is left to ask.
    """
    known = {info.name: info.id for info in present} | {info.id: info.id for info in present}
    asked: dict[str, Question] = {}
    duplicates = without = unknown = 0
    for text, named, answer in _lines(path):
        found = frozenset(known[name] for name in named if name in known)
        unknown += sum(name not in known for name in named)
        folded = " ".join(text.casefold().split())
        first = asked.get(folded)
        if not found:
            without += 1
        elif first is not None:
            duplicates += 1
            asked[folded] = Question(first.text, first.documents | found, first.answer or answer)
        else:
            asked[folded] = Question(text, found, answer)
    if not asked:
        raise InvalidInputError(
            f"{path} holds no question whose documents are in the collection ({without} name others only)",
            hint="a document is named by its file's name, or by its path below the folder that was added",
        )
    return Questions(tuple(asked.values()), duplicates, without, unknown)


def _lines(path: Path) -> Iterator[tuple[str, list[str], str | None]]:
    try:
        with path.open("rb") as handle:
            for number, line in numbered_lines(handle):
                if line is None or line.strip():
                    yield _parsed(line, f"{path}, line {number}")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", param="questions") from None


def _parsed(line: bytes | None, where: str) -> tuple[str, list[str], str | None]:
    try:
        row = parse_line(line)
    except LineError as error:
        raise InvalidInputError(f"{where} is {error}", param="questions") from None
    text = row.get("question") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(f"{where} has no `question`", param="questions")
    return text, _documents(row, where), _answer(row, where)


def _documents(row: dict[str, Any], where: str) -> list[str]:
    given = next((row[field] for field in LIST_FIELDS if field in row), None)
    named = [row["document_id"]] if given is None and "document_id" in row else given
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise InvalidInputError(
            f"{where} has no `documents`: expected a list of names or ids of documents", param="questions"
        )
    return named


def _answer(row: dict[str, Any], where: str) -> str | None:
    answer = row.get("answer")
    if answer is not None and (not isinstance(answer, str) or not answer.strip()):
        raise InvalidInputError(f"{where} has an `answer` that is no text", param="questions")
    return answer
