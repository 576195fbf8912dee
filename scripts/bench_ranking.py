"""What each part of ranking brings on real questions, and what it costs.

    python scripts/bench_ranking.py DATA --work FOLDER --documents 4000

DATA holds documents.jsonl (id, title, text) and questions.test.jsonl (question, and document_ids or document_id), as
MedQuAD and XQuAD do in our shape. Documents become Markdown files, `# title` before the text, and go through `index add`
as a user's would; FOLDER keeps the collection for the next run. `--documents N`: all gold documents of the test
questions, and others drawn at random up to N. Questions of the test split only; nothing is tuned on them.
Prints the tables of `local-llm index evaluate`, latencies, and one line of JSON.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from index.ingestion.ingest import find_sources
from index.service import IndexService
from local_llm import offline
from local_llm.embedded import ENCODER, locate
from local_llm.errors import NotFoundError
from local_llm.models import ModelStore
from local_llm.permissions import local_admin
from local_llm.settings import load_settings
from local_llm.state import open_state

SEED = 7


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def gold(question: dict[str, Any]) -> list[str]:
    return question.get("document_ids") or [question["document_id"]]


def chosen(documents: list[dict[str, Any]], questions: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The questions' gold documents and others drawn at random, `count` in all."""
    needed = {identifier for question in questions for identifier in gold(question)}
    others = [one for one in documents if one["id"] not in needed]
    random.Random(SEED).shuffle(others)
    return [one for one in documents if one["id"] in needed] + others[: max(0, count - len(needed))]


def write_files(documents: list[dict[str, Any]], folder: Path) -> None:
    for one in documents:
        path = folder / f"{one['id']}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {one['title']}\n\n{one['text']}\n", encoding="utf-8")


def write_questions(questions: list[dict[str, Any]], path: Path) -> None:
    lines = [
        json.dumps({"question": one["question"], "documents": [f"{name}.md" for name in gold(one)]})
        for one in questions
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
