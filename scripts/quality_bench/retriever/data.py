"""What a retriever is measured on: documents, questions with those that answer them, and what questions share."""

from dataclasses import dataclass
from pathlib import Path

from quality_bench.lines import Row, read_rows


@dataclass(frozen=True)
class Question:
    """`group`: what the bootstrap draws whole: the questions on one focus, or of one article."""

    text: str
    gold: frozenset[str]
    group: str


@dataclass(frozen=True)
class TestSet:
    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]  # one passage a document, its title before it; as long as the ids
    questions: tuple[Question, ...]


def medquad(folder: Path, limit: int | None = None) -> TestSet:
    """The test questions among all documents. `limit`: so many questions, their documents, as many others."""
    documents, rows = read_rows(folder / "documents.jsonl"), read_rows(folder / "questions.test.jsonl")
    questions = [
        Question(row["question"], frozenset(row["document_ids"]), " ".join(row["focus"].casefold().split()))
        for row in rows[:limit]
    ]
    return _test_set("medquad", documents, questions, limit)


def xquad(folder: Path, limit: int | None = None) -> TestSet:
    """All questions of both parts: nothing is ever trained on them."""
    documents = read_rows(folder / "documents.jsonl")
    titles = {row["id"]: row["title"] for row in documents}
    rows = [row for part in ("train", "test") for row in read_rows(folder / f"questions.{part}.jsonl")]
    questions = [
        Question(row["question"], frozenset([row["document_id"]]), titles[row["document_id"]])
        for row in rows[:limit]
    ]
    return _test_set("xquad", documents, questions, limit)


def _test_set(name: str, documents: list[Row], questions: list[Question], limit: int | None) -> TestSet:
    if limit is not None:
        gold = frozenset[str]().union(*(one.gold for one in questions))
        others = [row for row in documents if row["id"] not in gold][:limit]
        documents = [row for row in documents if row["id"] in gold] + others
    texts = tuple(passage_text(row) for row in documents)
    return TestSet(name, tuple(row["id"] for row in documents), texts, tuple(questions))


def passage_text(row: Row) -> str:
    """What is encoded of a document, to train and to measure."""
    return f"{row['title']}. {row['text']}"
