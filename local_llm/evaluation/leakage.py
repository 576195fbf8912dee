"""Questions that a model was trained on: what it says to them tells nothing of what it learnt.

A question is seen if a user's turn of the training file is the same but for case and white space, or nearly the
same (local_llm/near_duplicates.py). Of a turn with context only the question counts. Files that retrievers
are trained on hold a `question` in each row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.evaluation.question_set import Question
from local_llm.json_lines import LineError, numbered_lines, parse_line
from local_llm.near_duplicates import NearDuplicates
from local_llm.prompts import text_of

CONTEXT, QUESTION = "\n\nContext:\n", "\n\nQuestion: "
SHOWN = 5


@dataclass(frozen=True)
class Seen:
    """`same`: word for word; else nearly."""

    question_id: str
    file: str
    line: int
    same: bool

    def __str__(self) -> str:
        return f"{self.question_id} {'is' if self.same else 'is nearly'} line {self.line} of {self.file}"


def seen_questions(questions: Sequence[Question], path: Path, shown_as: str) -> list[Seen]:
    """Those of the questions that the training file holds. Rows that cannot be read train nothing.

    Raises: InvalidInputError if there is no such file.
    """
    asked = NearDuplicates(question.text for question in questions)
    words = {_folded(question.text): number for number, question in enumerate(questions)}
    found: dict[int, Seen] = {}
    for line, text in _trained(path):
        same = words.get(_folded(text))
        near = asked.of(text) if same is None else [same]
        for number in near:
            earlier = found.get(number)
            if earlier is None or (same is not None and not earlier.same):
                found[number] = Seen(questions[number].id, shown_as, line, same is not None)
    return [found[number] for number in sorted(found)]


def refuse_seen(seen: Sequence[Seen]) -> None:
    """Raises: InvalidInputError naming the first of them."""
    if seen:
        shown = "; ".join(str(one) for one in seen[:SHOWN])
        more = f"; and {len(seen) - SHOWN} more" if len(seen) > SHOWN else ""
        raise InvalidInputError(
            f"{len(seen)} questions were trained on: {shown}{more}",
            hint="take them out, or give --allow-seen to have them asked and marked",
            param="questions",
        )


def _trained(path: Path) -> Iterator[tuple[int, str]]:
    """Line and words of each user's turn."""
    try:
        with path.open("rb") as handle:
            for number, line in numbered_lines(handle):
                try:
                    row = parse_line(line)
                except LineError:
                    continue
                if isinstance(row, dict) and isinstance(row.get("question"), str):
                    yield number, row["question"]
                for message in _messages(row):
                    text = text_of(message.get("content")) if message.get("role") == "user" else ""
                    if text.strip():
                        yield number, _asked(text)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", param="training_file") from None


def _messages(row: Any) -> list[dict[str, Any]]:
    """Of a conversation, or of what a preference is about."""
    if not isinstance(row, dict):
        return []
    inner = row.get("input")
    messages = row.get("messages") or (inner.get("messages") if isinstance(inner, dict) else None)
    return [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []


def _asked(text: str) -> str:
    return text.rpartition(QUESTION)[2] if CONTEXT in text and QUESTION in text else text


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
