"""One phase of one size, in a process of its own, on the collection's own store.

    python -m growth_bench.measure PHASE --passages N --dimension D --store FOLDER --result FILE [--questions N]

write   stores the corpus in transactions of one block each, builds the structure, saves the snapshot
read    opens what is there, and searches it: by the structure, exactly, by words, with filters

Times are processor seconds of this process and its threads: other work on the machine hardly changes them. What a
disk is waited for is not in them. `opening_seconds` alone is by the clock as well.
"""

import argparse
import json
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from index_bench.dataset import K, Window
from index_bench.measure import resident_bytes
from index_bench.ours import ENCODER, Ours, scope

from growth_bench.corpus import BUCKETS, Corpus
from index.collection.database import create_database
from index.ranking.fusion import DEPTH
from index.vectors.view import VectorView, ViewOptions
from local_llm.fileio import bytes_below

FILTERS = {"10 %": 10, "1 %": 1}  # buckets of a hundred that it admits
TUNING_QUESTIONS = 100
WINDOWS = 20  # distinct filters asked of each kind: each is asked for the first time once
GENERATION = 1
NOWHERE = "qqqq"  # no text holds it: what is left of a search by words is what any costs

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=("write", "read"))
    parser.add_argument("--passages", type=int, required=True)
    parser.add_argument("--dimension", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    options = parser.parse_args()
    figures = {"write": write, "read": read}[options.phase](options)
    partial = options.result.with_suffix(".partial")
    partial.write_text(json.dumps(figures))
    partial.rename(options.result)


# Writing


def write(options: argparse.Namespace) -> Figures:
    corpus, engine = Corpus(options.dimension), Ours(options.store)
    database = database_of(options.store)
    create_database(database, ENCODER, "benchmark", options.dimension)
    engine.open()
    store = engine.store
    writing = sum(cpu_seconds(lambda block=block: store.write(block)) for block in corpus.blocks(options.passages))
    for question in corpus.questions(TUNING_QUESTIONS):
        store.record_query(question.vector, store.generation)
    building = cpu_seconds(lambda: settle(store))
    saving = cpu_seconds(store.save_view)
    engine.close()
    return {
        "writing_cpu_seconds": writing,
        "building_cpu_seconds": building,
        "saving_cpu_seconds": saving,
        **disk_bytes(database),
    }


def database_of(folder: Path) -> Path:
    return folder / "collection" / "collection.db"


def settle(store: Any) -> None:
    while store.maintain(lambda store: store.sample_vectors(200)):
        pass


def disk_bytes(database: Path) -> Figures:
    """Whole pages, with what they leave empty: of the vectors, of the index of words, and of all else."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        tables = connection.execute(
            "SELECT name, sum(pgsize) FROM dbstat WHERE aggregate = TRUE GROUP BY name"
        ).fetchall()
    connection.close()
    parts = {"vectors": 0, "words": 0, "texts": 0}
    for name, size in tables:
        part = name.partition("_")[0]
        parts[part if part in parts else "texts"] += size
    snapshot = bytes_below(database.parent / f"view-{GENERATION}")
    return {**{f"{part}_disk_bytes": size for part, size in parts.items()}, "snapshot_disk_bytes": snapshot}


# Reading


def read(options: argparse.Namespace) -> Figures:
    questions, engine = Corpus(options.dimension).questions(options.questions), Ours(options.store)
    before, clock = resident_bytes([]), time.perf_counter()
    opening = cpu_seconds(engine.open)
    figures: Figures = {
        "opening_cpu_seconds": opening,
        "opening_seconds": time.perf_counter() - clock,
        "opened_memory_bytes": resident_bytes([]) - before,
    }
    vectors, texts = [one.vector for one in questions], [one.text for one in questions]
    store = engine.store
    figures["search_cpu_ms"] = milliseconds(lambda vector: engine.search(vector, None), vectors)
    for name, width in FILTERS.items():
        asked = [Window("bucket", at % (BUCKETS - width), at % (BUCKETS - width) + width) for at in range(WINDOWS)]
        first = [cpu_seconds(lambda window=window: engine.search(vectors[0], window)) for window in asked]
        figures[f"first_search_cpu_ms {name}"] = 1e3 * statistics.median(first[1:])
        pairs = [(vector, asked[at % WINDOWS]) for at, vector in enumerate(vectors)]
        figures[f"search_cpu_ms {name}"] = milliseconds(lambda pair: engine.search(*pair), pairs)
    rows = [engine.search(vector, None)[0] for vector in vectors]
    figures["text_cpu_ms"] = milliseconds(engine.texts, rows)
    figures["words_cpu_ms"] = milliseconds(lambda text: store.matching(text, DEPTH, scope(None)), texts)
    figures["no_words_cpu_ms"] = milliseconds(lambda text: store.matching(text, DEPTH, scope(None)), [NOWHERE] * 9)
    figures["searched_memory_bytes"] = resident_bytes([]) - before
    stats = store.view_stats()
    figures |= {"structure": stats.structure, "recall": stats.recall, "view_bytes": stats.bytes}
    documents = store.counts(None).documents
    engine.close()
    return figures | exact(options, vectors, documents)


def exact(options: argparse.Namespace, vectors: Sequence[np.ndarray], documents: int) -> Figures:
    """Every row scored, of the snapshot's view: what searches do up to 10,000 passages, and with
    `index.structure = "exact"` always."""
    folder = database_of(options.store).parent / f"view-{GENERATION}"
    view = VectorView.open(folder, ViewOptions(options.dimension, device="cpu"))
    if view is None:
        raise SystemExit(f"no snapshot in {folder}: delete {options.store} and measure this size again")
    figures = {"exact_cpu_ms": milliseconds(lambda vector: view.search_exact(vector[None], K), vectors)}
    numbers = np.arange(documents + 1)  # documents are numbered from 1, and bucket is the number before modulo 100
    for name, width in FILTERS.items():
        allowed = (numbers - 1) % BUCKETS < width
        allowed[0] = False
        figures[f"exact_cpu_ms {name}"] = milliseconds(
            lambda vector, allowed=allowed: view.search_exact(vector[None], K, allowed), vectors
        )
    return figures


def cpu_seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def milliseconds(work: Callable[[Any], Any], asked: Sequence[Any]) -> float:
    """The median of one call each. The first is asked twice: it may read what the others find read."""
    work(asked[0])
    return 1e3 * statistics.median(cpu_seconds(lambda one=one: work(one)) for one in asked)


if __name__ == "__main__":
    main()
