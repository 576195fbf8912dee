"""The questions that a collection's ranking is measured with, each with the documents that answer it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.interface import DocumentInfo
from local_llm.errors import InvalidInputError

LIST_FIELDS = ("documents", "document_ids")


@dataclass(frozen=True)
class Question:
    """`documents`: ids of those that answer it, one at least."""

    text: str
    documents: frozenset[str]


@dataclass(frozen=True)
class Questions:
    """What can be asked, and how many were left out and why. `unknown`: documents named that are not there."""

    asked: tuple[Question, ...]
    duplicates: int
    without_document: int
    unknown: int


def read_questions(path: Path, present: Sequence[DocumentInfo]) -> Questions:
    """Reads JSON lines with `question` and `documents`, by name or id (also `document_ids` or `document_id`).

    Raises: InvalidInputError naming the line that is wrong; also if nothing is left to ask.
    """
    known = {info.name: info.id for info in present} | {info.id: info.id for info in present}
    asked: list[Question] = []
    seen: set[str] = set()
    duplicates = without = unknown = 0
    for text, named in _lines(path):
        found = frozenset(known[name] for name in named if name in known)
        unknown += sum(name not in known for name in named)
        folded = " ".join(text.casefold().split())
        if folded in seen:
            duplicates += 1
        elif not found:
            without += 1
        else:
            asked.append(Question(text, found))
        seen.add(folded)
    if not asked:
        raise InvalidInputError(
            f"{path} holds no question whose documents are in the collection ({without} name others only)",
            hint="a document is named by its file's name, or by its path below the folder that was added",
        )
    return Questions(tuple(asked), duplicates, without, unknown)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", param="questions") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _parsed(line, f"{path}, line {number}")


def _parsed(line: str, where: str) -> tuple[str, list[str]]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{where} is not JSON: {error}", param="questions") from None
    text = row.get("question") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(f"{where} has no `question`", param="questions")
    return text, _documents(row, where)


def _documents(row: dict[str, Any], where: str) -> list[str]:
    given = next((row[field] for field in LIST_FIELDS if field in row), None)
    named = [row["document_id"]] if given is None and "document_id" in row else given
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise InvalidInputError(
            f"{where} has no `documents`: expected a list of names or ids of documents", param="questions"
        )
    return named
