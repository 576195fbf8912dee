"""The vectors of a collection in memory, kept in step with its database: from a snapshot and what came since.

What the snapshot holds and the database no longer has is removed, what the database has beyond it is added; a
snapshot that is missing or damaged costs time, never a passage.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.collection.database import Database
from index.collection.documents import Ids, Vectors
from index.vectors.interface import View
from index.vectors.view import VectorView, ViewOptions
from local_llm.fileio import bytes_below

Numbers = NDArray[np.int32]

# Vectors are read from the database and added so many at a time.
BLOCK_PASSAGES = 50_000


@dataclass(frozen=True)
class Generation:
    """All passages as one encoder sees them. `dimension` None: there is no vector yet."""

    number: int
    encoder: str
    fingerprint: str
    dimension: int | None


@dataclass(frozen=True)
class LivePassages:
    """What is there by the database. ids: ascending; documents: the number of each one's document."""

    ids: Ids
    documents: Numbers


Options = Callable[[int], ViewOptions]
"""How vectors of a dimension are to be held."""


class InMemory:
    """Views searched by FAISS in this process, with snapshots beside the database. See `views.Views`."""

    def __init__(self, options: Options):
        self._options = options

    def open(self, database: Database, generation: int, dimension: int) -> VectorView:
        return open_view(database, generation, self._options(dimension))

    def leave(self, database: Database) -> None:
        """Steps of upkeep are short here."""

    def bytes(self, database: Database, generation: int) -> int:
        return snapshot_bytes(database, generation)

    def drop(self, database: Database, *, but: int) -> None:
        drop_snapshots(database, but=but)


def snapshot_folder(database: Database, generation: int) -> Path:
    return database.path.parent / f"view-{generation}"


def open_view(database: Database, generation: int, options: ViewOptions) -> VectorView:
    """Call it while nothing is written."""
    view = _from_snapshot(database, generation, options)
    if view is not None:
        live = catch_up(view, database, generation, options.dimension)
        if np.array_equal(view.ids(), live.ids):
            return view
    view = VectorView(options)
    catch_up(view, database, generation, options.dimension)
    return view


def _from_snapshot(database: Database, generation: int, options: ViewOptions) -> VectorView | None:
    """None where there is none, or none that can be of this database."""
    view = VectorView.open(snapshot_folder(database, generation), options)
    # A passage beyond the last that the database ever had: the database is an older copy, put back in its place.
    return None if view is None or view.max_id > last_passage(database) else view


def last_passage(database: Database) -> int:
    """The largest id that any passage ever had; 0 where there was none."""
    rows = database.read("SELECT seq FROM sqlite_sequence WHERE name = 'passages'")
    return int(rows[0]["seq"]) if rows else 0


def catch_up(view: View, database: Database, generation: int, dimension: int) -> LivePassages:
    """Takes what is gone out of the view, and what came since into it. Returns: what is there."""
    live = live_passages(database)
    view.remove(np.setdiff1d(view.ids(), live.ids, assume_unique=True))
    for ids, documents, vectors in vectors_after(database, generation, view.max_id, dimension):
        view.add(ids, documents, vectors)
    return live


def live_passages(database: Database) -> LivePassages:
    rows = list(database.iterate("SELECT first_passage, passages, number FROM documents ORDER BY first_passage"))
    if not rows:
        return LivePassages(np.empty(0, np.int64), np.empty(0, np.int32))
    first, passages, numbers = np.array(rows, np.int64).T
    starts = np.repeat(first - np.cumsum(passages) + passages, passages)
    return LivePassages(starts + np.arange(passages.sum()), np.repeat(numbers, passages).astype(np.int32))


def vectors_after(
    database: Database, generation: int, passage_id: int, dimension: int
) -> Iterator[tuple[Ids, Numbers, Vectors]]:
    """Passages with ids above `passage_id` that this generation has, in blocks: ids, documents, vectors."""
    rows = database.iterate(
        f"""SELECT first_passage, passages, number, vectors FROM documents
        JOIN vectors_{generation} ON document = number
        WHERE first_passage > :after ORDER BY first_passage""",
        after=passage_id,
    )
    block: list[tuple[int, int, int, bytes]] = []
    size = 0
    for row in rows:
        block.append(row)
        size += row[1]
        if size >= BLOCK_PASSAGES:
            yield _joined(block, dimension)
            block, size = [], 0
    if block:
        yield _joined(block, dimension)


def snapshot_bytes(database: Database, generation: int) -> int:
    return bytes_below(snapshot_folder(database, generation))


def drop_snapshots(database: Database, *, but: int) -> None:
    for folder in database.path.parent.glob("view-*"):
        if folder != snapshot_folder(database, but):
            shutil.rmtree(folder, ignore_errors=True)


def _joined(block: list[tuple[int, int, int, bytes]], dimension: int) -> tuple[Ids, Numbers, Vectors]:
    ids = np.concatenate([np.arange(first, first + passages) for first, passages, _, _ in block])
    documents = np.repeat([row[2] for row in block], [row[1] for row in block])
    vectors = np.frombuffer(b"".join(row[3] for row in block), "<f4").reshape(len(ids), dimension)
    return ids.astype(np.int64), documents.astype(np.int32), vectors
