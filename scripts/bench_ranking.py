"""What each part of ranking brings on real questions, and what it costs.

    python scripts/bench_ranking.py DATA --work FOLDER --documents 4000

DATA holds documents.jsonl (id, title, text) and questions.test.jsonl (question, and document_ids or document_id),
as our cuts of MedQuAD and XQuAD do. Documents become Markdown files, `# title` before the text, and go in as a user's
would; FOLDER keeps the collection for the next run. `--documents N`: the test questions' own documents, and others
drawn at random up to N. Only test questions are asked. Prints what `local-llm index evaluate` prints, and a line of
JSON. Times are those of single searches one after the other, the question's encoding included.
"""

import argparse
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from index.ingestion.sync import find_scoped
from index.ranking.evaluation import evaluate
from index.ranking.questions import read_questions
from index.service import IndexService
from local_llm import offline
from local_llm.cli.index_evaluate import facts_of, print_tables
from local_llm.cli.output import progress_bar
from local_llm.embedded import ENCODER, locate
from local_llm.hardware import this_hardware
from local_llm.models import ModelStore
from local_llm.permissions import Caller, local_admin
from local_llm.settings import load_settings
from local_llm.state import open_state

COLLECTION = "bench-ranking"
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
    shutil.rmtree(folder, ignore_errors=True)
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


def fill(index: IndexService, caller: Caller, folder: Path) -> None:
    """Makes the collection what the folder holds: nothing is encoded that was before."""
    if COLLECTION not in {info.name for info in index.collections(caller)}:
        index.create(caller, COLLECTION)
    with progress_bar("encoding") as bar:
        done = index.sync(caller, COLLECTION, find_scoped(folder, ""), scope="", report=bar)
    assert done.ingest is not None
    print(f"{done.ingest.passages} passages encoded in {done.ingest.seconds:.0f} s", file=sys.stderr)
    index.settle()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--reranker", help="name of a cross-encoder in FOLDER/home/models")
    options = parser.parse_args()
    offline.apply()
    questions = rows(options.data / "questions.test.jsonl")
    write_files(
        chosen(rows(options.data / "documents.jsonl"), questions, options.documents), options.work / "documents"
    )
    write_questions(questions, options.work / "questions.jsonl")
    settings = load_settings(environment={"LOCAL_LLM_HOME": str(options.work / "home")})
    state = open_state(settings.place)
    models = ModelStore(settings.place.models)
    if models.find(ENCODER.name) is None:
        models.import_folder(locate(ENCODER), name=ENCODER.name, licence=ENCODER.licence)
    index, caller = IndexService(settings, state), local_admin(state.local_project_id())
    fill(index, caller, options.work / "documents")
    read = read_questions(options.work / "questions.jsonl", index.documents(caller, COLLECTION))
    with progress_bar("asking") as bar:
        found = evaluate(index, caller, COLLECTION, read.asked, reranker=options.reranker, report=bar)
    stats = index.stats(caller, COLLECTION)
    index.close()
    state.close()
    print(f"{stats.documents} documents, {stats.passages} passages, {found.questions} questions")
    print_tables(found)
    facts = {"data": options.data.name, "documents": stats.documents, "passages": stats.passages}
    print(json.dumps(facts | facts_of(found, read) | {"hardware": this_hardware().to_json()}))


if __name__ == "__main__":
    main()
