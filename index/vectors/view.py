"""The nearest vectors of a collection, held in memory: a view that can always be rebuilt from its database."""

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.vectors import brute_force
from index.vectors.brute_force import RowNumbers
from index.vectors.device_rows import device_for
from index.vectors.effort import Effort
from index.vectors.generation import Generation, Tuning
from index.vectors.inverted_lists import InvertedLists
from index.vectors.rows import (
    Ids,
    Mask,
    Rows,
    RowStore,
    Vectors,
    checked_groups,
    checked_ids,
    checked_queries,
    checked_vectors,
)
from index.vectors.snapshot import read_snapshot, written_snapshot
from index.vectors.threads import use_threads
from index.vectors.upkeep import MEASURED_QUERIES, Job, copy_rows, next_job, questions_among, tuned
from local_llm.errors import IntegrityError

Device = Literal["auto", "cpu", "cuda"]
Structure = Literal["auto", "exact", "ivf", "flat16"]
QuerySource = Literal["queries", "passages"]
DONE = object()
# While nobody asks what was built.
MOST_BUILT = 100


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
    recall_source: str | None
    target_recall: float
    effort: int | None
    below_target: bool


@dataclass(frozen=True)
class Built:
    """What upkeep made anew and searches use now. seconds: all its steps; cpu_seconds: of this process meanwhile,
    with whatever else it did; vectors: how many it holds."""

    structure: str
    vectors: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Questions:
    """What the effort is tuned on. vectors: float32 [queries, dimension]."""

    vectors: Vectors
    source: QuerySource


class VectorView:
    """Any number of threads may search while others add, remove, maintain and save."""

    def __init__(self, options: ViewOptions):
        self.options = options
        self._max_id = -1
        self._generation = Generation(RowStore(options.dimension))
        self._changing = threading.Lock()  # held by whoever changes rows or replaces the generation
        self._maintaining = threading.Lock()  # held by whoever builds, tunes or saves
        self._job: Job | None = None
        self._job_seconds = (0.0, 0.0)  # that its steps took, by the clock and of the processors
        self._built: deque[Built] = deque(maxlen=MOST_BUILT)
        self._device = device_for(options.device)
        self._questions: Questions | None = None

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
                self._generation.store.append(ids, groups, vectors)
                self._max_id = int(ids[-1])

    def remove(self, ids: Ids) -> None:
        """On return they are never returned again. Ids that are not there are passed over."""
        with self._changing:
            self._generation.strike_out(np.asarray(ids, np.int64))

    # Searching

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Vectors, Ids]:
        """The k nearest live rows of documents that are allowed (None: of all), best first.

        queries: float32 [queries, dimension], rows of length 1; allowed: bool [documents]: a row of a document
        without an entry is not returned. An array that nobody can write to (`allowed.setflags(write=False)`) is
        translated into rows once, and again only after rows were added: hand in the same array for the same filter.

        Returns: scores float32 and ids int64 [queries, found], found <= k; where one query found less than
        another, -inf and -1 fill its line.
        """
        queries = checked_queries(queries, k, allowed, self.options.dimension)
        use_threads(len(queries))
        generation = self._generation
        return _with_ids(generation, generation.search(queries, k, allowed))

    def search_exact(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Vectors, Ids]:
        """As `search`, by scoring every row: what it is measured against."""
        queries = checked_queries(queries, k, allowed, self.options.dimension)
        use_threads(len(queries))
        generation = self._generation
        return _with_ids(generation, generation.search_exact(queries, k, allowed))

    # Upkeep

    def maintain(self) -> bool:
        """One bounded step of upkeep, while searches and changes go on. Returns: whether more is left."""
        with self._maintaining:
            use_threads(None)
            before, began, cpu_began = self._generation, time.perf_counter(), time.process_time()
            job, (took, cpu) = self._job or self._next_job(), self._job_seconds
            self._job, self._job_seconds = None, (0.0, 0.0)  # a step that fails ends the job; it begins anew
            if job is None:
                return False
            ended = next(job, DONE) is DONE
            took, cpu = took + time.perf_counter() - began, cpu + time.process_time() - cpu_began
            if not ended:
                self._job, self._job_seconds = job, (took, cpu)
            elif self._generation is not before:
                self._built.append(Built(self.stats().structure, len(self._generation.store.rows), took, cpu))
            return self._job is not None or self._next_job() is not None

    def take_built(self) -> list[Built]:
        """What was built since this was asked last, the oldest first."""
        return [self._built.popleft() for _ in range(len(self._built))]

    def measure(self, queries: Vectors, source: QuerySource) -> None:
        """Measures recall@10 against exact search and tunes the effort of a search to the target.

        queries: float32 [queries, dimension], of which the first 500 are used; they are kept, in snapshots too,
        and asked again when the structure is built anew.
        """
        queries = checked_queries(queries, 1, None, self.options.dimension)[:MEASURED_QUERIES]
        with self._maintaining:
            use_threads(None)
            self._questions = Questions(queries, source) if len(queries) else None
            self._generation.tuning = self._tuning_of(self._generation)

    def _next_job(self) -> Job | None:
        return next_job(self._generation, self.options.structure, self._device, self._publish, self._tuning_of)

    def _tuning_of(self, generation: Generation) -> Tuning:
        target, asked = self.options.target_recall, self._questions
        if asked is None:
            return tuned(generation, questions_among(generation.store.rows), "passages", target, own=True)
        return tuned(generation, asked.vectors, asked.source, target)

    def _publish(self, built: Generation, kept: RowNumbers | None) -> None:
        """kept: the rows of the present generation that `built` began as a copy of; None: it has the same rows."""
        with self._changing:
            old = self._generation
            if kept is not None:
                _catch_up(built, old, kept)
            self._generation = built

    # On the disk

    def save(self, folder: Path) -> None:
        """Publishes a snapshot in `folder`, in place of the one there: a power cut leaves either."""
        with self._maintaining:
            with self._changing:
                generation, max_id = self._generation, self._max_id
                rows = generation.store.rows
                live = rows.live.copy()
            facts = {
                "options": asdict(self.options),
                "max_id": max_id,
                "tuning": asdict(generation.tuning),
                "trained_rows": generation.trained_rows,
                "lists": generation.lists is not None,
                "questions": self._questions and self._questions.source,
            }
            with written_snapshot(folder, facts) as staging:
                _save_rows(staging, rows, live)
                if generation.lists is not None:
                    generation.lists.save(staging)
                if self._questions is not None:
                    np.save(staging / "questions.npy", self._questions.vectors, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, options: ViewOptions) -> "VectorView | None":
        """None where there is no snapshot, or one that is damaged or of other options: rebuild the view then."""
        try:
            snapshot = read_snapshot(folder)
        except IntegrityError:
            return None
        if snapshot is None or snapshot.facts["options"] != asdict(options):
            return None
        facts, place = snapshot.facts, snapshot.folder
        try:
            lists = InvertedLists.load(place) if facts["lists"] else None
        except RuntimeError:  # written by another FAISS
            return None
        view = cls(options)
        view._max_id = facts["max_id"]
        view._generation = Generation(
            RowStore.of(_load_rows(place)), lists, _tuning_from(facts["tuning"]), facts["trained_rows"]
        )
        if facts["questions"]:
            view._questions = Questions(np.load(place / "questions.npy", allow_pickle=False), facts["questions"])
        return view

    # What is there

    @property
    def dimension(self) -> int:
        return self.options.dimension

    @property
    def questions_source(self) -> QuerySource | None:
        """Of the questions that measure() was given; None: the effort is tuned on rows of the view itself."""
        return self._questions.source if self._questions else None

    @property
    def max_id(self) -> int:
        """The largest id ever added, removed ones too; -1 where none was."""
        return self._max_id

    def ids(self) -> Ids:
        """Of the live rows, ascending."""
        rows = self._generation.store.rows
        return rows.ids[rows.living()]

    def stats(self) -> ViewStats:
        with self._changing:
            generation = self._generation
            rows, dead = generation.store.rows, generation.store.dead
        lists, tuning, target = generation.lists, generation.tuning, self.options.target_recall
        on_device = generation.device_rows
        measured = tuning.recall if lists else 1.0
        return ViewStats(
            structure="ivf" if lists else "flat16" if on_device else "exact",
            rows=len(rows) - dead,
            tail=generation.tail if lists or on_device else 0,
            tombstones=dead,
            bytes=rows.nbytes + (lists.nbytes if lists else 0),
            recall=measured,
            recall_queries=tuning.queries,
            recall_source=tuning.source,
            target_recall=target,
            effort=tuning.effort.probes[0] if lists else None,
            below_target=measured is not None and measured < target,
        )


def _catch_up(built: Generation, old: Generation, kept: RowNumbers) -> None:
    """What changed while the copy was made: rows that died, rows that came (after the last of the copied)."""
    rows = old.store.rows
    built.store.strike_out(rows.ids[kept[~rows.live[kept]]])
    last = built.store.rows.ids[-1] if len(kept) else -1
    start = int(np.searchsorted(rows.ids, last, side="right"))
    copy_rows(rows, rows.living(start), built.store)


def _tuning_from(facts: dict[str, Any]) -> Tuning:
    effort = Effort(tuple(facts["effort"]["probes"]), facts["effort"]["candidates"])
    return Tuning(effort, facts["recall"], facts["queries"], facts["source"], facts["rows"])


def _with_ids(generation: Generation, found: brute_force.Found) -> tuple[Vectors, Ids]:
    scores, rows = found
    ids = generation.store.rows.ids[rows]
    if len(rows) > 1:
        ids[rows < 0] = -1
    return scores, ids


def _save_rows(folder: Path, rows: Rows, live: Mask) -> None:
    for name, array in (("vectors", rows.vectors), ("ids", rows.ids), ("groups", rows.groups), ("live", live)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _load_rows(folder: Path) -> Rows:
    names = ("vectors", "ids", "groups", "live")
    return Rows(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names))
