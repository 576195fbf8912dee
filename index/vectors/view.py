"""The nearest vectors of a collection, held in memory: a view that can always be rebuilt from its database."""

import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.vectors import brute_force
from index.vectors.filters import visible_rows
from index.vectors.rows import (
    Ids,
    Mask,
    Rows,
    RowStore,
    Vectors,
    checked_groups,
    checked_ids,
    checked_vectors,
)
from index.vectors.snapshot import read_snapshot, written_snapshot
from local_llm.errors import IntegrityError, InvalidInputError

Device = Literal["auto", "cpu", "cuda"]
Structure = Literal["auto", "exact", "hnsw", "ivf"]
QuerySource = Literal["queries", "passages"]


@dataclass(frozen=True)
class ViewOptions:
    """target_recall: the recall@10 against exact search that the effort of a search is tuned to."""

    dimension: int
    device: Device = "auto"
    structure: Structure = "auto"
    target_recall: float = 0.95


@dataclass(frozen=True)
class ViewStats:
    """rows: those that can be found; tail: those not yet in the structure; tombstones: removed, still in memory.

    recall: recall@10 against exact search when it was last measured, None before; effort: how much of the
    structure a search looks at, None where it looks at all of it.
    """

    structure: str
    rows: int
    tail: int
    tombstones: int
    bytes: int
    recall: float | None
    recall_queries: int
    recall_source: QuerySource | None
    target_recall: float
    effort: int | None
    below_target: bool


class VectorView:
    """Any number of threads may search while others add, remove, maintain and save."""

    def __init__(self, options: ViewOptions):
        self.options = options
        self._max_id = -1
        self._store = RowStore(options.dimension)
        self._changing = threading.Lock()  # held by whoever changes rows
        self._maintaining = threading.Lock()  # held by whoever changes, tunes or saves the structure

    # Changing

    def add(self, ids: Ids, groups: NDArray[np.int32], vectors: Vectors) -> None:
        """Searchable on return. ids: int64 [n], ascending, above all ids before; groups: int32 [n], the number of
        each row's document; vectors: float32 [n, dimension], rows of length 1.

        Raises: InvalidInputError for any other; nothing is added then.
        """
        vectors = checked_vectors(vectors, self.options.dimension, "vectors")
        groups = checked_groups(groups, len(vectors))
        with self._changing:
            ids = checked_ids(ids, self._max_id, len(vectors))
            if len(ids):
                self._store.append(ids, groups, vectors)
                self._max_id = int(ids[-1])

    def remove(self, ids: Ids) -> None:
        """On return they are never returned again. Ids that are not there are passed over."""
        with self._changing:
            self._store.strike_out(np.asarray(ids, np.int64))

    # Searching

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Vectors, Ids]:
        """The k nearest live rows of documents that are allowed (None: of all), best first.

        queries: float32 [queries, dimension], rows of length 1; allowed: bool [documents]: a row of a document
        without an entry is not returned.

        Returns: scores float32 and ids int64 [queries, found], found <= k; where one query found less than
        another, -inf and -1 fill its line.
        """
        return self.search_exact(queries, k, allowed)

    def search_exact(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Vectors, Ids]:
        """As `search`, by scoring every row: what it is measured against."""
        queries = self._checked_queries(queries, k)
        rows = self._store.rows
        # Counted before the rows are looked at: a row that dies in between is struck out all the same.
        chosen = None if allowed is None and not self._store.dead else visible_rows(rows, allowed)
        return _with_ids(rows, brute_force.nearest(queries, rows.vectors, k, chosen))

    def _checked_queries(self, queries: Vectors, k: int) -> Vectors:
        if k < 1:
            raise InvalidInputError(f"k = {k}; expected 1 or more", param="k")
        return checked_vectors(queries, self.options.dimension, "queries")

    # Upkeep

    def maintain(self) -> bool:
        """One bounded step of upkeep, while searches and changes go on. Returns: whether more is left."""
        return False

    def measure(self, queries: Vectors, source: QuerySource) -> None:  # noqa: ARG002
        """Measures recall@10 against exact search and tunes the effort of a search to the target."""
        self._checked_queries(queries, 1)

    # On the disk

    def save(self, folder: Path) -> None:
        """Publishes a snapshot in `folder`, in place of the one there: a power cut leaves either."""
        with self._maintaining:
            with self._changing:
                rows, max_id = self._store.rows, self._max_id
                live = rows.live.copy()
            facts = {"options": asdict(self.options), "rows": len(rows), "max_id": max_id}
            with written_snapshot(folder, facts) as staging:
                _save_rows(staging, rows, live)

    @classmethod
    def open(cls, folder: Path, options: ViewOptions) -> "VectorView | None":
        """None where there is no snapshot, or one that is damaged or of other options: rebuild the view then."""
        try:
            snapshot = read_snapshot(folder)
        except IntegrityError:
            return None
        if snapshot is None or snapshot.facts["options"] != asdict(options):
            return None
        view = cls(options)
        view._store = RowStore.of(*_load_rows(snapshot.folder))
        view._max_id = snapshot.facts["max_id"]
        return view

    # What is there

    @property
    def max_id(self) -> int:
        """The largest id ever added, removed ones too; -1 where none was."""
        return self._max_id

    def ids(self) -> Ids:
        """Of the live rows, ascending."""
        rows = self._store.rows
        return rows.ids[rows.live]

    def stats(self) -> ViewStats:
        with self._changing:
            rows, dead = self._store.rows, self._store.dead
        return ViewStats(
            structure="exact",
            rows=len(rows) - dead,
            tail=0,
            tombstones=dead,
            bytes=rows.nbytes,
            recall=1.0,
            recall_queries=0,
            recall_source=None,
            target_recall=self.options.target_recall,
            effort=None,
            below_target=False,
        )


def _with_ids(rows: Rows, found: brute_force.Found) -> tuple[Vectors, Ids]:
    scores, places = found
    return scores, np.where(places < 0, -1, rows.ids[places])


def _save_rows(folder: Path, rows: Rows, live: Mask) -> None:
    for name, array in (("vectors", rows.vectors), ("ids", rows.ids), ("groups", rows.groups), ("live", live)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _load_rows(folder: Path) -> tuple[Any, ...]:
    return tuple(
        np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("vectors", "ids", "groups", "live")
    )
