"""What each part of ranking brings on real questions, and what it costs.

    python scripts/bench_ranking.py DATA --work FOLDER --documents 4000

DATA holds documents.jsonl (id, title, text) and questions.test.jsonl (question, and document_ids or document_id),
as our cuts of MedQuAD and XQuAD do. Documents become Markdown files, `# title` before the text, and go in as a
user's would; FOLDER keeps the collection for the next run. `--documents N`: the test questions' own documents, and
others drawn at random up to N. Only test questions are asked. Prints what `local-llm index evaluate` prints, and a
line of JSON. Times are those of single searches one after the other, the question's encoding included.

    python scripts/bench_ranking.py DATA --work FOLDER --words 70000

times the ranking by words alone instead, on so many passages of 80 words (the documents', again and again where
they are too few), seen by everybody, by half and by one in a hundred: processor time of single searches.
"""

import argparse
import json
import random
import shutil
import sys
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from index.collection.database import create_database
from index.collection.documents import Access, NewDocument
from index.collection.live_view import InMemory
from index.collection.scope import Scope
from index.collection.store import CollectionStore
from index.documents.parse import PLAIN, ParsedDocument
from index.documents.split import Passage
from index.ingestion.sync import find_scoped
from index.ranking.evaluation import evaluate
from index.ranking.fusion import DEPTH
from index.service import IndexService
from index.vectors.view import ViewOptions
from local_llm import offline
from local_llm.cli.index_evaluate import facts_of, print_tables
from local_llm.cli.output import progress_bar
from local_llm.embedded import ENCODER, locate
from local_llm.hardware import this_hardware
from local_llm.models import ModelStore
from local_llm.permissions import Caller, local_admin
from local_llm.questions import read_questions
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


def passages_of(documents: list[dict[str, Any]], count: int) -> list[str]:
    made: list[str] = []
    while len(made) < count:
        for one in documents:
            words = one["text"].split()
            made += [f"{one['title']}\n{' '.join(words[at : at + 80])}" for at in range(0, len(words), 70)]
    return made[:count]


def new_document(number: int, text: str) -> NewDocument:
    """Everybody's, every second one of group:half, every hundredth one of group:few."""
    groups = [
        "group:all",
        *(["group:half"] if number % 2 == 0 else []),
        *(["group:few"] if number % 100 == 0 else []),
    ]
    passage = Passage(0, len(text), None, "", text, 1)
    parsed = ParsedDocument(str(number), text, (), PLAIN)
    vectors = np.array([[1.0, 0.0]], np.float32)
    return NewDocument(str(number), str(number), "", parsed, [passage], vectors, Access(tuple(groups)), {})


def time_words(data: Path, folder: Path, count: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    create_database(folder / "collection.db", "none", "none", 2)
    store = CollectionStore(
        folder / "collection.db", InMemory(lambda dimension: ViewOptions(dimension=dimension, device="cpu"))
    )
    texts = passages_of(rows(data / "documents.jsonl"), count)
    for start in range(0, count, 5000):
        store.write([new_document(at, text) for at, text in enumerate(texts[start : start + 5000], start)])
    asked = [one["question"] for one in rows(data / "questions.test.jsonl")]
    random.Random(SEED).shuffle(asked)
    facts: dict[str, Any] = {"data": data.name, "passages": count}
    for name, principals in {"everything": None, "half": ("group:half",), "1 %": ("group:few",)}.items():
        store.matching("first", 1, Scope(principals))
        milliseconds = [cpu_milliseconds(store, text, Scope(principals)) for text in asked[:300]]
        low, high = np.quantile(milliseconds, (0.5, 0.95))
        facts[name] = {"p50_ms": round(low, 2), "p95_ms": round(high, 2)}
        print(f"{name:12} p50 {low:.2f} ms, p95 {high:.2f} ms")
    print(json.dumps(facts))
    store.close(snapshot=False)


def cpu_milliseconds(store: CollectionStore, text: str, scope: Scope) -> float:
    started = process_time()
    store.matching(text, DEPTH, scope)
    return 1000 * (process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--reranker", help="name of a cross-encoder in FOLDER/home/models")
    parser.add_argument("--words", type=int, help="time the ranking by words on so many passages, and nothing else")
    options = parser.parse_args()
    if options.words:
        time_words(options.data, options.work / "words", options.words)
        return
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
