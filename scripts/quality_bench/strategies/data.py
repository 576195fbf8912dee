"""XQuAD as the four strategies meet it: documents, questions to train on, questions of other articles to ask."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quality_bench.lines import Row, read_rows

SEED = 7
SUFFIX = ".md"


@dataclass(frozen=True)
class Question:
    """`document`: id of the one that answers it; `start`: where the answer stands there; `article`: what is drawn
    whole by the bootstrap, for questions of one article are alike."""

    id: str
    text: str
    answer: str
    document: str
    start: int
    article: str


@dataclass(frozen=True)
class Xquad:
    documents: dict[str, Row]  # id, title and text by id
    train: tuple[Question, ...]
    test: tuple[Question, ...]

    @property
    def train_documents(self) -> list[Row]:
        asked_about = {one.article for one in self.test}
        return [row for row in self.documents.values() if row["title"] not in asked_about]


def read(folder: Path) -> Xquad:
    """Questions in an order drawn once: the first so many are a sample."""
    documents = {row["id"]: row for row in read_rows(folder / "documents.jsonl")}
    train, test = (_questions(folder / f"questions.{part}.jsonl", documents) for part in ("train", "test"))
    shared = {one.article for one in train} & {one.article for one in test}
    if shared:
        raise ValueError(f"articles are both trained on and asked about: {', '.join(sorted(shared))}")
    return Xquad(documents, train, test)


def _questions(path: Path, documents: dict[str, Row]) -> tuple[Question, ...]:
    found = [
        Question(
            row["id"], row["question"], row["answer"], row["document_id"], row["answer_start"],
            documents[row["document_id"]]["title"],
        )
        for row in read_rows(path)
    ]  # fmt: skip
    random.Random(SEED).shuffle(found)
    return tuple(found)


def write_documents(documents: Sequence[Row], folder: Path) -> None:
    """As a user's files: `# title` before the text."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for one in documents:
        path = folder / f"{one['id']}{SUFFIX}"
        path.write_text(f"# {one['title']}\n\n{one['text']}\n", encoding="utf-8")


def name_of(document: str) -> str:
    """The document's name in the collection."""
    return f"{document}{SUFFIX}"
