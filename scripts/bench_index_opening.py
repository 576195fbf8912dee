"""How long opening a collection takes, by what there is to open.

    python scripts/bench_index_opening.py 200000 [1000000 ...] [--dimension 384] [--folder FOLDER]

Random vectors of length 1, a passage a document, a third of them restricted, written through the store in batches
of 10,000. Then the collection is opened with its snapshot, with a snapshot since which 10,000 documents came and
10,000 went, and with none. Prints a table and one line of JSON. An opening ends when searches can be made; the
first search reads what the operating system did not.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from index.collection.database import create_database
from index.collection.documents import Access, NewDocument
from index.collection.live_view import InMemory
from index.collection.scope import EVERYTHING, Scope
from index.collection.store import CollectionStore
from index.documents.parse import PLAIN, ParsedDocument
from index.documents.split import Passage
from index.vectors.view import ViewOptions

BATCH = 10_000
SPLITTING = {"chunk_tokens": 0, "overlap_tokens": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=int, nargs="+")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--structure", choices=("auto", "exact", "ivf"), default="auto")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    measured = []
    for passages in options.passages:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measured.append(measure(Path(folder), passages, options))
    report(measured)
    print(json.dumps({"dimension": options.dimension, "structure": options.structure, "measured": measured}))


def measure(folder: Path, passages: int, options: argparse.Namespace) -> dict[str, Any]:
    path = folder / "vs_opening" / "collection.db"
    create_database(path, "external", "external", options.dimension)
    figures: dict[str, Any] = {"passages": passages}
    random = np.random.default_rng(0)

    def opened() -> CollectionStore:
        structure = options.structure
        views = InMemory(lambda dimension: ViewOptions(dimension, device="cpu", structure=structure))
        return CollectionStore(path, views)

    store = opened()
    with timed(figures, "writing"):
        for start in range(0, passages, BATCH):
            store.write(documents(start, min(BATCH, passages - start), options.dimension, random))
    with timed(figures, "upkeep"):
        while store.maintain(lambda store: store.sample_vectors(200)):
            pass
    with timed(figures, "saving"):
        store.save_view()
    store.close(snapshot=False)

    with timed(figures, "opening with snapshot"):
        store = opened()
    query = unit_vectors(1, options.dimension, random)[0]
    with timed(figures, "first search"):
        store.search("c", query, 10, EVERYTHING)
    with timed(figures, "first restricted search"):
        store.search("c", query, 10, Scope(("user:1",)))
    store.write(documents(passages, BATCH, options.dimension, random))
    store.remove([f"document-{at}" for at in range(BATCH)], None)
    store.close(snapshot=False)

    with timed(figures, "opening with snapshot and tail"):
        store = opened()
    store.close(snapshot=False)
    shutil.rmtree(path.parent / "view-1")
    with timed(figures, "opening without snapshot"):
        store = opened()
    store.close(snapshot=False)
    figures["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures["database_bytes"] = path.stat().st_size
    return figures


@contextmanager
def timed(figures: dict[str, Any], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    figures[what] = round(time.perf_counter() - started, 3)
    print(f"{figures['passages']:>9} {what}: {figures[what]:.2f} s", file=sys.stderr)


def documents(start: int, count: int, dimension: int, random: np.random.Generator) -> list[NewDocument]:
    vectors = unit_vectors(count, dimension, random)
    return [document(start + at, vectors[at : at + 1]) for at in range(count)]


def document(number: int, vectors: np.ndarray) -> NewDocument:
    text = f"This is the text of the document {number}, a sentence or two as they come from a handbook."
    return NewDocument(
        name=f"document-{number}",
        filename=f"document-{number}",
        sha256="",
        parsed=ParsedDocument(f"document {number}", text, (), PLAIN),
        passages=[Passage(0, len(text), None, "", text, 20)],
        vectors=vectors,
        access=Access((f"user:{number % 100}",) if number % 3 == 0 else None, {"year": 2000 + number % 25}),
        splitting=SPLITTING,
    )


def unit_vectors(count: int, dimension: int, random: np.random.Generator) -> np.ndarray:
    vectors = random.standard_normal((count, dimension), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def report(measured: list[dict[str, Any]]) -> None:
    for name in measured[0]:
        print(f"{name:<32}" + "".join(f"{figures[name]:>16}" for figures in measured))


if __name__ == "__main__":
    main()
