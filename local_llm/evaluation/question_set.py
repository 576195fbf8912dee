"""The questions of an evaluation: JSON lines, read strictly.

Each row has `question` (a text) or `messages` (a chat), and of the following what it can be judged by:
`answer` or `answers` (right ones), `evidence` (what a citation should point at), `documents` (where it stands),
`schema` (JSON Schema of the answer), `answerable` (false: the right answer is a refusal). `id` and `tags` are for
people. Other fields are passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.evaluation.fingerprint import fingerprint
from local_llm.json_lines import LineError, numbered_lines, parse_line, refuse_other_files
from local_llm.prompts import Message, last_user_position, text_of

ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True)
class Evidence:
    """Where the answer stands: in one of `documents` (names or ids; none: in any), at characters [start, end) of
    it or where `text` stands. With neither, anywhere in it."""

    documents: frozenset[str] = frozenset()
    start: int | None = None
    end: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class Question:
    """`answers`: any of them is right. `answerable` False: it should be refused."""

    id: str
    messages: tuple[Message, ...]
    answers: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    schema: Any = None
    answerable: bool = True
    tags: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What its user asks last."""
        return text_of(self.messages[last_user_position(self.messages)].get("content"))

    @cached_property
    def asked_sha256(self) -> str:
        """Of what a model reads: an answer to the same words is an answer to this question."""
        return fingerprint(list(self.messages))


@dataclass(frozen=True)
class QuestionSet:
    """`sha256` is of all that was read: two runs on equal sets can be compared."""

    path: Path
    questions: tuple[Question, ...]
    sha256: str


def read_question_set(path: Path) -> QuestionSet:
    """Raises: InvalidInputError naming the first line that is wrong, or if there is no question at all."""
    questions, rows = list[Question](), list[Any]()
    ids, texts = dict[str, str](), dict[str, str]()
    for where, number, row in _rows(path):
        question = _question(row, where, number)
        _refuse_again(ids, question.id, where, "the `id`")
        _refuse_again(texts, question.asked_sha256, where, "the question")
        questions.append(question)
        rows.append(row)
    if not questions:
        raise InvalidInputError(
            f"{path} holds no question", hint='write lines such as {"question": "...", "answer": "..."}'
        )
    return QuestionSet(path, tuple(questions), fingerprint(rows))


def _rows(path: Path) -> Iterator[tuple[str, int, Any]]:
    try:
        with path.open("rb") as handle:
            for number, line in numbered_lines(handle):
                other = refuse_other_files(line) if number == 1 else None
                if other:
                    raise InvalidInputError(f"{path} is {other}", param="questions")
                if line is None or line.strip():
                    yield f"{path}, line {number}", number, _parsed(line, f"{path}, line {number}")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", param="questions") from None


def _parsed(line: bytes | None, where: str) -> dict[str, Any]:
    try:
        row = parse_line(line)
    except LineError as error:
        raise InvalidInputError(f"{where} is {error}", param="questions") from None
    if not isinstance(row, dict):
        raise InvalidInputError(f"{where} is no object", param="questions")
    return row


def _question(row: dict[str, Any], where: str, number: int) -> Question:
    answerable = row.get("answerable", True)
    if not isinstance(answerable, bool):
        raise _wrong(where, "answerable", "true or false", answerable)
    identifier = row.get("id", f"line-{number}")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == "":
        raise _wrong(where, "id", "a text", identifier)
    return Question(
        id=str(identifier),
        messages=_messages(row, where),
        answers=_answers(row, where),
        evidence=_evidence(row, where),
        schema=_schema(row, where),
        answerable=answerable,
        tags=tuple(_texts(row, "tags", where)),
    )


def _messages(row: dict[str, Any], where: str) -> tuple[Message, ...]:
    if ("question" in row) == ("messages" in row):
        raise InvalidInputError(f"{where}: expected either `question` or `messages`", param="questions")
    if "question" in row:
        text = row["question"]
        if not isinstance(text, str) or not text.strip():
            raise _wrong(where, "question", "a text", text)
        return ({"role": "user", "content": text},)
    messages = row["messages"]
    if not isinstance(messages, list) or not messages or not all(_is_message(one) for one in messages):
        raise _wrong(where, "messages", "a chat of `role` and `content`", messages)
    if messages[-1]["role"] != "user":
        raise InvalidInputError(
            f"{where}: the last of `messages` is not a user's; what is right goes into `answer`", param="questions"
        )
    return tuple(messages)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("role") in ROLES
        and isinstance(value.get("content"), str)
        and bool(value["content"].strip())
    )


def _answers(row: dict[str, Any], where: str) -> tuple[str, ...]:
    if "answer" in row and "answers" in row:
        raise InvalidInputError(f"{where}: expected `answer` or `answers`, not both", param="questions")
    if row.get("answer") is not None:
        if not isinstance(row["answer"], str) or not row["answer"].strip():
            raise _wrong(where, "answer", "a text", row["answer"])
        return (row["answer"],)
    return tuple(_texts(row, "answers", where))


def _evidence(row: dict[str, Any], where: str) -> tuple[Evidence, ...]:
    documents = frozenset(_texts(row, "documents", where))
    given = row.get("evidence")
    if given is None:
        return (Evidence(documents),) if documents else ()
    listed = given if isinstance(given, list) else [given]
    return tuple(_one_evidence(one, documents, where) for one in listed)


def _one_evidence(value: Any, documents: frozenset[str], where: str) -> Evidence:
    if isinstance(value, str) and value.strip():
        return Evidence(documents, text=value)
    if not isinstance(value, dict):
        raise _wrong(where, "evidence", "texts, or objects with `document` and `text` or `start` and `end`", value)
    document, text, start, end = (value.get(name) for name in ("document", "text", "start", "end"))
    spanned = type(start) is int and type(end) is int and 0 <= start < end
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise _wrong(where, "evidence.text", "a text", text)
    if not spanned and (start is not None or end is not None or text is None):
        raise _wrong(where, "evidence", "a `text`, or `start` before `end`", value)
    if document is not None and not isinstance(document, str):
        raise _wrong(where, "evidence.document", "a name or an id", document)
    named = frozenset((document,)) if document else documents
    if spanned and not named:
        raise InvalidInputError(f"{where}: characters of which document? `evidence` needs `document`")
    return Evidence(named, start, end, text)


def _schema(row: dict[str, Any], where: str) -> Any:
    schema = row.get("schema")
    if schema is None:
        return None
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    if not isinstance(schema, dict):
        raise _wrong(where, "schema", "a JSON Schema", schema)
    try:
        kind = validator_for(schema)
        kind.check_schema(schema, format_checker=kind.FORMAT_CHECKER)  # that looks at regular expressions, too
    except SchemaError as error:
        raise InvalidInputError(
            f"{where}: `schema` is no JSON Schema: {error.message}", param="questions"
        ) from None
    return schema


def _texts(row: dict[str, Any], field: str, where: str) -> list[str]:
    values = row.get(field)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(one, str) and one.strip() for one in values):
        raise _wrong(where, field, "a list of texts", values)
    return values


def _refuse_again(known: dict[str, str], key: str, where: str, what: str) -> None:
    if key in known:
        raise InvalidInputError(f"{where}: {what} stands in {known[key]} already", param="questions")
    known[key] = where


def _wrong(where: str, field: str, expected: str, value: Any) -> InvalidInputError:
    return InvalidInputError(f"{where}: `{field}` is {value!r:.60}; expected {expected}", param="questions")
