"""Questions of an evaluation: what is read, and what is refused with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from local_llm.errors import InvalidInputError
from local_llm.evaluation.question_set import Evidence, read_question_set

from ...conftest import WORLD


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_row_holds_what_an_answer_is_judged_by(tmp_path: Path) -> None:
    row = {
        "id": 7,
        "question": "How long?",
        "answers": ["four hours", "4 h"],
        "documents": ["battery.md"],
        "evidence": ["charges in four hours", {"document": "x.md", "start": 3, "end": 9}],
        "schema": {"type": "object"},
        "tags": ["device"],
        "topic": "passed over",
    }
    (question,) = read_question_set(written(tmp_path / "q.jsonl", row)).questions
    assert (question.id, question.text, question.answerable) == ("7", "How long?", True)
    assert question.answers == ("four hours", "4 h")
    assert question.evidence == (
        Evidence(frozenset({"battery.md"}), text="charges in four hours"),
        Evidence(frozenset({"x.md"}), 3, 9),
    )


def test_documents_alone_are_evidence_wherever_in_them(tmp_path: Path) -> None:
    row = {"question": "How long?", "documents": ["a.md", "b.md"]}
    (question,) = read_question_set(written(tmp_path / "q.jsonl", row)).questions
    assert question.evidence == (Evidence(frozenset({"a.md", "b.md"})),)


def test_a_chat_can_be_a_question(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "How long?"}]
    read = read_question_set(written(tmp_path / "q.jsonl", {"messages": chat}))
    assert (read.questions[0].text, read.questions[0].id) == ("How long?", "line-1")


def test_equal_sets_have_equal_hashes_whatever_they_are_called(tmp_path: Path) -> None:
    one = read_question_set(written(tmp_path / "a.jsonl", {"question": "A?", "answer": "b"}))
    same = read_question_set(written(tmp_path / "b.jsonl", {"answer": "b", "question": "A?"}))
    other = read_question_set(written(tmp_path / "c.jsonl", {"question": "A?", "answer": "c"}))
    assert one.sha256 == same.sha256 != other.sha256
    # Answers are kept by what was asked: another right answer needs no new one.
    assert one.questions[0].asked_sha256 == other.questions[0].asked_sha256


def test_the_sample_worlds_questions_are_read() -> None:
    assert len(read_question_set(WORLD / "questions.jsonl").questions) == 60


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, "either `question` or `messages`"),
        ({"question": " "}, "`question` is ' '"),
        ({"question": "A?", "answerable": "no"}, "`answerable` is 'no'; expected true or false"),
        ({"question": "A?", "answer": 4}, "`answer` is 4"),
        ({"question": "A?", "answer": "a", "answers": ["a"]}, "not both"),
        ({"question": "A?", "schema": {"type": "thing"}}, "`schema` is no JSON Schema"),
        ({"question": "A?", "evidence": {"start": 3, "end": 3, "document": "d"}}, "`start` before `end`"),
        ({"question": "A?", "evidence": {"start": 0, "end": 3}}, "characters of which document"),
        ({"messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "b"}]}, "not a user's"),
        (["A?"], "is no object"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, row: Any, told: str) -> None:
    path = written(tmp_path / "q.jsonl", {"question": "First?"}, row)
    with pytest.raises(InvalidInputError, match=rf"q\.jsonl, line 2.*{told}"):
        read_question_set(path)


@pytest.mark.parametrize("again", [{"question": "A?"}, {"id": "line-1", "question": "B?"}])
def test_nothing_is_asked_twice(tmp_path: Path, again: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"line 2.*stands in .*line 1 already"):
        read_question_set(written(tmp_path / "q.jsonl", {"question": "A?"}, again))


def test_an_empty_file_is_told_with_a_line_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no question") as told:
        read_question_set(written(tmp_path / "q.jsonl"))
    assert '"question"' in str(told.value.hint)
